"""The form of a row: raw bytes, and the answers that WIRE.md asks for them. The tables are rows_head and rows_body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

TCHARS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Bytes that are no tchar and do not by themselves end the method or the name.
NOT_IN_TOKEN = [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F, *b'"(),/;<=>?@[\\]{}', 0x80, 0x85, 0xA0, 0xC3, 0xFF]

SHAPE_BODY = b"first second"

Settings = tuple[tuple[str, int | str], ...]


@dataclass(frozen=True)
class Answer:
    """One response.  environ: items that the application must see, None for keys that must be absent."""

    statuses: tuple[int, ...]
    environ: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None

    @property
    def is_refusal(self) -> bool:
        return self.statuses[0] >= 400


@dataclass(frozen=True)
class Row:
    """Bytes and what they get.

    settings: of the server, by the names of the settings.  is_cut: the client ends its side behind the bytes, and that
    end is part of the case.
    """

    name: str
    data: bytes
    answers: tuple[Answer, ...]
    settings: Settings = ()
    is_cut: bool = False

    @property
    def is_refused(self) -> bool:
        return self.answers[-1].is_refusal

    @property
    def methods(self) -> list[str]:
        """The method of a row's requests; rows of several requests use methods whose answers have content."""
        return ["HEAD"] if self.data.lstrip(b"\r\n").startswith(b"HEAD ") else []


def ok(name: str, data: bytes, environ: Mapping[str, str | None] | None = None, body: bytes = b"") -> Row:
    """A row that reaches the application."""
    return Row(name, data, (Answer((200,), environ or {}, body),))


def refused(name: str, data: bytes, *statuses: int) -> Row:
    """A row that is refused, with 400 unless said otherwise; several statuses where WIRE.md leaves the choice."""
    return Row(name, data, (Answer(statuses or (400,)),))


def under(settings: Mapping[str, int | str], *rows: Row) -> list[Row]:
    """The rows for a server with these settings."""
    return [replace(row, settings=tuple(sorted(settings.items()))) for row in rows]


def cut(row: Row) -> Row:
    """The row, with the end of the client's side as part of the case."""
    return replace(row, is_cut=True)


def head(line: bytes, *fields: bytes) -> bytes:
    """A head of these lines."""
    return b"\r\n".join((line, *fields)) + b"\r\n\r\n"


def get(*fields: bytes, target: bytes = b"/", version: bytes = b"1.1") -> bytes:
    """A GET with Host and these fields."""
    return head(b"GET %b HTTP/%b" % (target, version), b"Host: h", *fields)


def shape(name: str, *fields: bytes) -> bytes:
    """A GET of the shape `name` of tests.apps.shapes; most of them answer SHAPE_BODY."""
    return get(*fields, target=b"/" + name.encode("ascii"))


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """A POST with Host, these fields and this content."""
    return head(b"POST / HTTP/1.1", b"Host: h", *fields) + body


def chunked(body: bytes, *fields: bytes) -> bytes:
    """A POST in the chunked coding; body is the raw coding."""
    return post(b"Transfer-Encoding: chunked", *fields, body=body)


def words(text: str) -> list[bytes]:
    r"""A table of bytes: words between white space, with the escapes of Python (\x20 is a space, \xff a byte)."""
    return [word.encode("ascii").decode("unicode_escape").encode("latin-1") for word in text.split()]
