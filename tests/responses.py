"""A strict reader of responses: it refuses whatever RFC 9112 refuses, so that a test which only looks at a status still
fails when the framing is wrong. Knows no socket; `connections` and every test that reads raw bytes call it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9]) ([\t \x21-\x7e\x80-\xff]*)")
RESPONSE_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,16})")


class BadResponse(AssertionError):
    """The bytes are not a valid response."""


class Truncated(BadResponse):
    """The bytes end before the response does; `response` is what there was of it, or None within the head."""

    def __init__(self, message: str, response: Response | None = None) -> None:
        super().__init__(message)
        self.response = response


@dataclass
class Response:
    """One response as received; `body` is decoded, `chunks` holds the sizes if it was chunked."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    version: str = "HTTP/1.1"
    chunks: list[int] | None = None
    close_delimited: bool = False
    interim: list[Response] = field(default_factory=list)

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field that may come once; fails if it came twice."""
        values = self.get_all(name)
        if len(values) > 1:
            raise BadResponse(f"{name} came {len(values)} times: {values}")
        return values[0] if values else None

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise BadResponse(f"{name} is missing in {self.fields}")
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.get_all(name))

    @property
    def tokens(self) -> set[str]:
        """The members of Connection, in lower case."""
        return {token.strip().lower() for value in self.get_all("Connection") for token in value.split(",")}


def parse_head(data: bytes) -> tuple[Response, int] | None:
    """The first head in `data` and the position behind it; None if it is not complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    status_line, *lines = data[:end].split(b"\r\n")
    match = STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise BadResponse(f"not a status line: {status_line[:200]!r}")
    fields = []
    for line in lines:
        parts = RESPONSE_FIELD.fullmatch(line)
        if parts is None:
            raise BadResponse(f"not a field line: {line[:200]!r}")
        fields.append((parts[1].decode("latin-1"), parts[2].decode("latin-1")))
    version = "HTTP/1." + match[1].decode()
    return Response(int(match[2]), match[3].decode("latin-1"), fields, version=version), end + 4


def parse_chunked(data: bytes, start: int) -> tuple[bytes, list[int], int] | tuple[bytes, list[int], None]:
    """Content, sizes of the chunks and the position behind a chunked body; None for that if it is not complete."""
    parts: list[bytes] = []
    sizes: list[int] = []
    while (line_end := data.find(b"\r\n", start)) >= 0:
        match = CHUNK_LINE.fullmatch(data, start, line_end)
        if match is None:
            raise BadResponse(f"not a chunk size: {data[start:line_end][:200]!r}")
        size = int(match[1], 16)
        start = line_end + 2
        if len(data) < start + size + 2:
            parts.append(data[start : start + size])
            break
        if data[start + size : start + size + 2] != b"\r\n":
            raise BadResponse(f"no CRLF behind chunk {len(sizes)} of {size} bytes")
        if size == 0:
            return b"".join(parts), sizes, start + 2
        parts.append(data[start : start + size])
        sizes.append(size)
        start += size + 2
    return b"".join(parts), sizes, None


def parse_body(response: Response, method: str, data: bytes, start: int, closed: bool) -> int | None:
    """Fill in `response.body` from `data` and return the position behind it; None if it is not complete."""
    lengths = response.get_all("Content-Length")
    codings = response.get_all("Transfer-Encoding")
    if lengths and (len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,19}", lengths[0])):
        raise BadResponse(f"Content-Length {lengths}")
    if codings and (lengths or codings != ["chunked"] or response.version == "HTTP/1.0"):
        raise BadResponse(f"Transfer-Encoding {codings}, Content-Length {lengths} in {response.version}")
    if response.status in (204, 304) or response.status < 200:
        if codings or (lengths and response.status != 304):
            raise BadResponse(f"{response.status} with {codings or lengths}")
        return start
    if method == "HEAD":
        if codings:
            raise BadResponse("Transfer-Encoding in the answer to a HEAD")
        return start
    if codings:
        response.body, response.chunks, end = parse_chunked(data, start)
        return end
    if lengths:
        end = start + int(lengths[0])
        response.body = data[start:end]
        return end if len(data) >= end else None
    if "close" not in response.tokens and response.version == "HTTP/1.1":
        raise BadResponse(f"a body without length on a connection that is not to close: {response.fields}")
    response.close_delimited = True
    response.body = data[start:]
    return len(data) if closed else None


@dataclass
class Parsed:
    """What `parse_stream` found: complete responses, and what was wrong with the end of the data, if anything."""

    responses: list[Response]
    cut: Truncated | None = None


def parse_stream(data: bytes, methods: Sequence[str] = (), closed: bool = True) -> Parsed:
    """Every complete response in `data`; a cut last one is reported, not raised. Raises BadResponse otherwise."""
    found = Parsed([])
    interim: list[Response] = []
    position = 0
    while position < len(data):
        number = len(found.responses)
        head = parse_head(data[position:])
        if head is None:
            found.cut = Truncated(f"response {number} ends within its head: {data[position:][:200]!r}")
            return found
        response, head_size = head
        end = parse_body(
            response, methods[number] if number < len(methods) else "GET", data, position + head_size, closed
        )
        if end is None:
            found.cut = Truncated(f"response {number} is cut after {len(data) - position} bytes", response)
            return found
        position = end
        if response.status < 200:
            interim.append(response)
        else:
            response.interim, interim = interim, []
            found.responses.append(response)
    if interim:
        found.cut = Truncated(f"nothing follows the interim response {interim[-1].status}", interim[-1])
    return found


def parse_responses(data: bytes, methods: Sequence[str] = (), closed: bool = True) -> list[Response]:
    """Every response in `data`, strictly read; interim ones (1xx) are in `.interim` of the one that follows.

    methods: that of each request, GET where none is given.  closed: the server has ended the connection.
    Raises Truncated if the last response is not complete, BadResponse for whatever is not valid.
    """
    found = parse_stream(data, methods, closed)
    if found.cut is not None:
        raise found.cut
    return found.responses
