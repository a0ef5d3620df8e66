"""What a row of the table is, and short ways to write one. Knows no file and no server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from tests.responses import Response

# What a field must be: exactly this, absent (None), matched as a whole, or whatever a function says.
Expected = str | re.Pattern[str] | Callable[[str | None], bool] | None
Fields = dict[str, Expected]
Check = Callable[[Response], None]
Content = bytes | Check | None


class Row(NamedTuple):
    """One request and what must come of it.

    number: the statement of STATIC.md, section and bullet.  request: as sent, but for {L}, Last-Modified of the tree,
    and {etag PATH} or {etag PATH CODING}, the ETag that a plain request of that path and coding gets.
    content: the bytes, or a function that raises AssertionError; None for anything.
    server: how it runs, a key of test_table.SERVERS.  beside: the same holds beside an application; where it is None
    that follows from the status.
    """

    number: str
    says: str
    request: bytes
    status: int
    fields: Fields
    content: Content = None
    server: str = "site"
    beside: bool | None = None

    @property
    def method(self) -> str:
        return self.request.split(b" ", 1)[0].decode("ascii")

    @property
    def target(self) -> str:
        return self.request.split(b" ", 2)[1].decode("latin-1")


def build_request(method: str, target: str, lines: tuple[str, ...] = (), content: bytes = b"") -> bytes:
    """A request with Host, unless one is given; content gets its length."""
    fields = list(lines)
    if not any(line.lower().startswith("host:") for line in fields):
        fields.insert(0, "Host: a")
    if content:
        fields.append(f"Content-Length: {len(content)}")
    head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", *fields, ""))
    return head.encode("latin-1") + content


def named(fields: dict[str, Expected]) -> Fields:
    """Fields given as keywords: Content_Type is Content-Type."""
    return {name.replace("_", "-"): value for name, value in fields.items()}


def get(
    number: str,
    says: str,
    target: str,
    content: Content,
    *lines: str,
    status: int = 200,
    server: str = "site",
    beside: bool | None = None,
    **fields: Expected,
) -> Row:
    """A GET."""
    return Row(number, says, build_request("GET", target, lines), status, named(fields), content, server, beside)


def miss(number: str, says: str, target: str, status: int = 404, server: str = "site") -> Row:
    """A GET that gets no file."""
    return Row(number, says, build_request("GET", target), status, {}, None, server)


def ask(number: str, line: str, status: int, content: Content = None, **fields: Expected) -> Row:
    """A GET of a.txt with one or more field lines, parted by |."""
    request = build_request("GET", "/a.txt", tuple(line.split("|")))
    return Row(number, f"{line[:60]} gives {status}", request, status, named(fields), content)


def has_members(*members: str) -> Callable[[str | None], bool]:
    """The field is a list of exactly these members, in any order and case."""
    wanted = {member.lower() for member in members}

    def check(value: str | None) -> bool:
        return value is not None and sorted(part.strip().lower() for part in value.split(",")) == sorted(wanted)

    check.__name__ = " and ".join(members)
    return check


def is_now(value: str | None) -> bool:
    """The field is a date of the last minute."""
    return value is not None and abs(parsedate_to_datetime(value).timestamp() - time.time()) < 60


def contains(*parts: bytes, without: tuple[bytes, ...] = ()) -> Check:
    """The content holds all of these and none of those."""

    def check(response: Response) -> None:
        for part in parts:
            assert part in response.body
        for part in without:
            assert part not in response.body

    return check
