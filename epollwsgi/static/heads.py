"""The heads of answers with a file: what it says of itself, and what `_headers` says for the path it was asked by.

Knows bytes and values only. Heads are built when a file is loaded, or when a path is first seen; a request chooses.
Called by `static.cache`, `static.lookup` and `static.handler`.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Final, NamedTuple

from epollwsgi.http.dates import format_date
from epollwsgi.http.response import STATUS_LINES
from epollwsgi.static.media_types import NOSNIFF

ACCEPT_ENCODING: Final = "Accept-Encoding"

# Where a field of `_headers` is said: with the whole or a part (200, 206), with 304, with all else (404, 3xx).
WHOLE, SAME, OTHER = (1 << bit for bit in range(3))
EVERYWHERE: Final = WHOLE | SAME | OTHER
# RFC 9110 section 15.4.5 for what a 304 has; an error must not be kept for long, and is no representation.
PLACES: Final = {
    "content-type": WHOLE,
    "content-encoding": WHOLE,
    "content-language": WHOLE,
    "content-disposition": WHOLE,
    "content-location": WHOLE | SAME,
    "expires": WHOLE | SAME,
}
# Fields that the server builds itself, with what the rules give.
BUILT: Final = frozenset(("cache-control", "content-type", "vary", "x-content-type-options"))

Fields = tuple[tuple[str, str | None], ...]


class Dressing:
    """What the rules say for a path, sorted by where it goes."""

    __slots__ = (
        "_by_accept",
        "cache_control",
        "content_type",
        "has_cache_control",
        "has_coding",
        "may_transform",
        "other",
        "same",
        "vary",
        "whole",
    )

    def __init__(self, fields: Fields = ()) -> None:
        """fields: names and values as `HeaderRules.select` gives them, None for what is to be left out."""
        self._by_accept: Dressing | None = None
        named = {name.lower(): value for name, value in fields}
        self.has_cache_control = "cache-control" in named
        self.cache_control = (named.get("cache-control") or "").encode("latin-1")
        self.content_type = (named.get("content-type") or "").encode("latin-1")
        self.vary = named.get("vary") or ""
        self.has_coding = bool(named.get("content-encoding"))
        self.may_transform = b"no-transform" not in self.cache_control.lower()
        self.whole, self.same, self.other = (
            b"".join(
                f"{name}: {value}\r\n".encode("latin-1")
                for name, value in fields
                if value is not None and name.lower() not in BUILT and PLACES.get(name.lower(), EVERYWHERE) & place
            )
            for place in (WHOLE, SAME, OTHER)
        )

    def by_accept(self) -> Dressing:
        """The same where the answer depends on the request's Accept too."""
        if self._by_accept is None:
            self._by_accept = copy(self)
            self._by_accept.vary = merge_vary((self.vary, "Accept"))
        return self._by_accept


PLAIN: Final = Dressing()


class Validators(NamedTuple):
    """What a file says of itself."""

    media_type: bytes
    cache_control: bytes
    etag: str
    last_modified: int | None
    size: int
    coding: str  # '' where there is none
    varies: bool  # it has other codings, now or soon


class Heads:
    """The heads of one file in one coding under one dressing; `ready` is the whole response of one second."""

    __slots__ = ("fields", "head", "not_modified", "ready")

    def __init__(self, file: Validators, dressing: Dressing = PLAIN) -> None:
        cache_control = dressing.cache_control if dressing.has_cache_control else file.cache_control
        lines = f"ETag: {file.etag}\r\n"
        if file.last_modified is not None:
            lines += f"Last-Modified: {format_date(file.last_modified)}\r\n"
        varies = file.varies and not dressing.has_coding
        vary = ACCEPT_ENCODING if varies else ""
        if dressing.vary:
            vary = merge_vary((dressing.vary, vary))
        if vary:
            lines += f"Vary: {vary}\r\n"
        shared = lines.encode("latin-1")
        if cache_control:
            shared = b"Cache-Control: %b\r\n%b" % (cache_control, shared)
        coding = b"Content-Encoding: %b\r\n" % file.coding.encode("ascii") if file.coding else b""
        media_type = dressing.content_type or file.media_type
        # Everything that 200 and 206 share.
        self.fields = b"Content-Type: %b\r\n%b%b%bAccept-Ranges: bytes\r\n%b" % (
            media_type,
            NOSNIFF,
            coding,
            shared,
            dressing.whole,
        )
        self.head = b"%b%bContent-Length: %d\r\n" % (STATUS_LINES[200], self.fields, file.size)
        self.not_modified = STATUS_LINES[304] + NOSNIFF + shared + dressing.same
        self.ready = b""


def merge_vary(values: Iterable[str]) -> str:
    """One Vary of several, each name once. RFC 9110 section 12.5.5."""
    names: dict[str, str] = {}
    for value in values:
        for name in filter(None, (part.strip() for part in value.split(","))):
            names.setdefault(name.lower(), name)
    return "*" if "*" in names else ", ".join(names.values())
