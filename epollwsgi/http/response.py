"""The bytes of a response head: status lines, refusals, and the framing that a response takes.

Pure: who answers (`wsgi`, `static.handler`, `connection`) passes in what it knows. Status lines are prebuilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from epollwsgi.errors import ResponseInvalid
from epollwsgi.http import grammar

REASONS: dict[int, str] = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
STATUS_LINES: dict[int, bytes] = {
    status: f"HTTP/1.1 {status} {reason}\r\n".encode("ascii") for status, reason in REASONS.items()
}
CONTINUE = STATUS_LINES[100] + b"\r\n"
LAST_CHUNK = b"0\r\n\r\n"

CLOSE = b"Connection: close\r\n"
KEEP_ALIVE = b"Connection: keep-alive\r\n"

# Statuses without content whatever the method; of these only 304 may carry Content-Length. RFC 9110 section 6.4.1.
NO_CONTENT = frozenset((*range(100, 200), 204, 304))


def has_no_content(method: str, status: int) -> bool:
    """True where the response ends with its head. RFC 9110 section 6.4.1."""
    return method == "HEAD" or status in NO_CONTENT


def build_error(status: int, method: str = "GET", extra: bytes = b"") -> bytes:
    """Head and content of a short plain error page, without Date, Server and Connection, as (head, content) in one.

    extra: complete field lines, each ending in CRLF.  The caller inserts its own field lines with `insert_fields`.
    """
    content = b"%d %s\n" % (status, REASONS.get(status, "Error").encode("ascii"))
    head = b"%b%bContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % (
        STATUS_LINES[status],
        extra,
        len(content),
    )
    return head + b"\r\n" + (b"" if has_no_content(method, status) else content)


def insert_fields(response: bytes, fields: bytes) -> bytes:
    """`response` with complete field lines added at the end of its head."""
    end = response.index(b"\r\n\r\n") + 2
    return response[:end] + fields + response[end:]


def read_status(response: bytes) -> int:
    """Status of a whole response."""
    return 200 if response.startswith(b"HTTP/1.1 200") else int(response[9:12])


def content_size(response: bytes) -> int:
    """Bytes of content of a whole response."""
    return len(response) - response.index(b"\r\n\r\n") - 4


def build_early_hints(headers: Sequence[object]) -> bytes:
    """A 103 (Early Hints) with an application's fields. Raises ResponseInvalid. RFC 8297."""
    fields = [parse_field(item) for item in headers]
    lines = b"".join(field.line for field in fields if not field.role)
    return b"HTTP/1.1 103 Early Hints\r\n" + lines + b"\r\n"


def build_chunk(content: bytes) -> bytes:
    """One chunk of the chunked coding; content must not be empty. RFC 9112 section 7.1."""
    return b"%x\r\n%b\r\n" % (len(content), content)


# --- fields given by an application ---------------------------------------------------------------------------------

# Roles of a field that decide framing or stand for one that the server would add; or-ed together.
LENGTH, DATE, SERVER, CONNECTION_CLOSE, HOP_BY_HOP, UPGRADE = (1 << bit for bit in range(6))

ROLES: dict[str, int] = {
    "content-length": LENGTH,
    "date": DATE,
    "server": SERVER,
    "upgrade": HOP_BY_HOP | UPGRADE,
} | dict.fromkeys(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"), HOP_BY_HOP
)  # RFC 9110 section 7.6.1
# Fields whose lines repeat and hold no secret.
REMEMBERED = frozenset(
    b"content-type content-length cache-control vary content-encoding content-language content-security-policy "
    b"referrer-policy strict-transport-security x-content-type-options x-frame-options allow accept-ranges".split()
)
REMEMBERED_HEADS = 1024
REMEMBERED_HEAD_SIZE = 1024


def common_fields(common: bytes, roles: int) -> bytes:
    """The Date and Server field lines in `common` (Date first) less those that the application gave."""
    if not roles & (DATE | SERVER):
        return common
    end = common.index(b"\r\n") + 2
    return (b"" if roles & DATE else common[:end]) + (b"" if roles & SERVER else common[end:])


class Field(NamedTuple):
    """A field line of a response: its bytes with CRLF, its roles, and the value of a Content-Length (else -1)."""

    line: bytes
    role: int
    length: int


@dataclass(slots=True)
class ResponseHead:
    """What start_response was given, checked."""

    status: int
    lines: bytes
    """status line and field lines, without Content-Length"""
    roles: int
    length: int
    """Content-Length, -1 if not given"""
    simple: bytes
    """the lines with Content-Length; b'' unless only Date, Server and the content are to be added"""
    is_remembered: bool
    """whether its fields repeat and hold no secret"""


class ResponseHeads(dict[tuple[object, ...], ResponseHead]):
    """Heads that came before, by (status, *headers): most responses of an application are alike. Emptied when full.

    Only those are remembered whose fields repeat and hold no secret.
    """

    def __missing__(self, key: tuple[object, ...]) -> ResponseHead:
        """Raises ResponseInvalid."""
        head = build_head(key[0], key[1:])
        if head.is_remembered:
            if len(self) >= REMEMBERED_HEADS:
                self.clear()
            self[key] = head
        return head


def build_head(status: object, headers: Sequence[object]) -> ResponseHead:
    """What start_response was given, checked. Raises ResponseInvalid. PEP 3333."""
    code, status_line = parse_status(status)
    lines = [status_line]
    length_line = b""
    roles, length = 0, -1
    is_remembered = True
    for item in headers:
        field = parse_field(item)
        if field.role & roles & LENGTH:
            raise ResponseInvalid("Content-Length stands twice")
        roles |= field.role
        is_remembered = is_remembered and field.line.partition(b":")[0].lower() in REMEMBERED
        if field.role == LENGTH:
            length_line, length = field.line, field.length
        elif not field.role & HOP_BY_HOP or (field.role & UPGRADE and code == 426):
            lines.append(field.line)
    joined = b"".join(lines)
    is_simple = length >= 0 and not roles & ~LENGTH and code not in NO_CONTENT
    is_remembered = is_remembered and len(joined) <= REMEMBERED_HEAD_SIZE
    return ResponseHead(code, joined, roles, length, joined + length_line if is_simple else b"", is_remembered)


def parse_status(text: object) -> tuple[int, bytes]:
    """Number and status line of a status string. Raises ResponseInvalid. RFC 9112 section 4, PEP 3333."""
    if not isinstance(text, str):
        raise ResponseInvalid(f"the status must be a str, not {type(text).__name__}")
    match = grammar.STATUS.fullmatch(text)
    if match is None:
        raise ResponseInvalid(f"the status must be three digits, a space and a reason, not {text[:80]!r}")
    if text[0] == "1":
        raise ResponseInvalid(f"an application cannot send the interim status {text[:80]!r}")
    return int(match[1]), f"HTTP/1.1 {text}\r\n".encode("latin-1")


def parse_field(item: object) -> Field:
    """One (name, value) of an application. Raises ResponseInvalid. RFC 9110 section 5, PEP 3333."""
    if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], str)):
        raise ResponseInvalid(f"a header must be a tuple of two str, not {str(item)[:80]}")
    name, value = item
    if not grammar.RESPONSE_NAME.fullmatch(name):
        raise ResponseInvalid(f"header name {name[:80]!r} is not a token")
    if not grammar.RESPONSE_VALUE.fullmatch(value):
        raise ResponseInvalid(f"the value of header {name} has a control character or is not Latin-1: {value[:80]!r}")
    value = value.strip(" \t")
    lower = name.lower()
    role = ROLES.get(lower, 0)
    length = -1
    if role == LENGTH:
        if not grammar.CONTENT_LENGTH.fullmatch(value.encode("latin-1")):
            raise ResponseInvalid(f"Content-Length is not a number: {value[:80]!r}")
        length = int(value)
    if lower == "connection" and "close" in {option.strip(" \t").lower() for option in value.split(",")}:
        role |= CONNECTION_CLOSE
    return Field(f"{name}: {value}\r\n".encode("latin-1"), role, length)
