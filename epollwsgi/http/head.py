"""Heads of requests: bytes to environ items, or a refusal. RFC 9112 sections 2, 3, 5 and 6; WIRE.md section 1.

Knows the grammar, the limits and the names of WSGI; no socket and no clock. `connection` calls it: a head that arrived
whole goes straight to `HeadParser`; one that arrives in pieces is watched by a `HeadScanner` first.

A section of field lines is walked in C (`dict.update(map(...))`), see `fields`; request lines that repeat are
remembered too, without their query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote_to_bytes

from epollwsgi.errors import (
    BadField,
    BadFraming,
    BadHost,
    BadRequestLine,
    CodingUnknown,
    ExpectationUnknown,
    FieldsTooLarge,
    MethodUnknown,
    RequestLineTooLong,
    VersionUnknown,
)
from epollwsgi.http import grammar
from epollwsgi.http.fields import (
    COMMON_NAMES,
    DROPPED,
    FORWARDED,
    REMEMBERED_LINE_SIZE,
    REMEMBERED_REQUEST_LINES,
    Environ,
    FieldLines,
    Limits,
    Names,
    merge_fields,
    parse_host,
)

CHUNKED = -1


class PathNotes:
    """What others remember with a method and path; nothing at first."""

    __slots__ = ("route",)

    def __init__(self) -> None:
        self.route: Any = None


@dataclass(slots=True)
class RequestLine:
    """A request line that passed. RFC 9112 section 3."""

    method: str
    target: str
    """as received"""
    path: str
    """the target without its query, still percent-encoded"""
    path_info: str | None
    """decoded, latin-1, without the script name; None where it lies outside of it"""
    query: str
    protocol: str
    authority: str | None
    """host and port of an absolute target"""
    is_plain: bool
    """HTTP/1.1 with a path below the script name, Host as in its field"""

    path_notes: PathNotes = field(compare=False, repr=False)
    """shared by all request lines that differ in their query only"""

    def with_query(self, query: str) -> RequestLine:
        """The same with another query; target is its path and query."""
        new = RequestLine.__new__(RequestLine)  # half the time of RequestLine(...): most requests are made here
        new.method = self.method
        new.target = f"{self.path}?{query}"
        new.path = self.path
        new.path_info = self.path_info
        new.query = query
        new.protocol = self.protocol
        new.authority = self.authority
        new.is_plain = self.is_plain
        new.path_notes = self.path_notes
        return new


DEFAULT_LIMITS = Limits()


class HeadParser:
    """Parses whole heads; two per worker, for trusted proxies and for all others, used by whoever leads its loop."""

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        *,
        header_map: str = "drop",
        script_name: str = "",
        on_dropped: Callable[[str], None] = lambda name: None,
        names: Names = COMMON_NAMES,
        on_unused: Callable[[str], None] = lambda name: None,
        believe: Callable[[Environ], None] | None = None,
    ) -> None:
        """on_dropped, on_unused: get the names of such fields.  believe: sets what follows from FORWARDED fields."""
        self.limits = limits
        self.request_lines: dict[bytes, RequestLine] = {}
        self.believe = believe
        self.field_lines = FieldLines(limits, header_map, on_dropped, names, on_unused)
        self._field_of = self.field_lines.__getitem__
        self._script_name = script_name.rstrip("/").encode("utf-8").decode("latin-1")

    def parse_request_line(self, line: bytes) -> RequestLine:
        """The request line, from memory where it came before; one with a query is remembered without it.

        line: without CRLF.  Raises BadRequestLine (400), RequestLineTooLong (414), MethodUnknown (501),
        VersionUnknown (505).
        """
        known = self.request_lines.get(line)
        if known is not None:
            return known
        if len(line) > self.limits.line:
            raise RequestLineTooLong(
                "request line too long", setting="limit_request_line", limit=self.limits.line, seen=len(line)
            )
        start, mark, rest = line.partition(b"?")
        if mark:
            query, space, version = rest.rpartition(b" ")
            bare = start + space + version
            known = self.request_lines.get(bare)
            if known is not None and space and grammar.QUERY.fullmatch(query):
                return known.with_query(query.decode("ascii"))
        else:
            bare = line
        request = parse_request_line(line, self._script_name)
        if len(bare) <= REMEMBERED_LINE_SIZE and request.authority is None and request.path != "*":
            if len(self.request_lines) >= REMEMBERED_REQUEST_LINES:
                self.request_lines.clear()
            self.request_lines[bare] = replace(request, target=request.path, query="") if mark else request
        return request

    def parse_fields(self, block: bytes, environ: Environ) -> int:
        """Add the field section to environ; the or-ed roles of its fields.

        block: the lines between the request line and the empty line, without the last CRLF.  environ holds no key that
        a field could have.  Raises BadField, BadHost, BadFraming, BadForwarded (400), FieldsTooLarge (431).
        """
        if not block:
            return 0
        lines = block.split(b"\r\n")
        self._check_count(len(lines))
        field_lines = self.field_lines
        field_lines.roles = 0
        size = len(environ) + len(lines)
        environ.update(map(self._field_of, lines))
        if len(environ) != size or field_lines.roles & DROPPED:
            merge_fields([self._field_of(line) for line in lines], environ)
        if field_lines.roles & FORWARDED:
            return self._follow_forwarded(environ)
        return field_lines.roles

    def parse_more(self, block: bytes, environ: Environ, before: int) -> int:
        """Add further fields to environ; their roles, or -1 where a name stands twice or is dropped.

        before: number of lines that environ came from.  Raises as parse_fields does.
        """
        if not block:
            return 0
        lines = block.split(b"\r\n")
        self._check_count(before + len(lines))
        field_lines = self.field_lines
        field_lines.roles = 0
        size = len(environ) + len(lines)
        environ.update(map(self._field_of, lines))
        if len(environ) != size or field_lines.roles & DROPPED:
            return -1
        if field_lines.roles & FORWARDED:
            return self._follow_forwarded(environ)
        return field_lines.roles

    def _follow_forwarded(self, environ: Environ) -> int:
        """What a trusted proxy says of the request goes into environ; then its fields are like any other's."""
        if self.believe is not None:
            self.believe(environ)
        return self.field_lines.roles & ~FORWARDED

    def count_known(self, block: bytes) -> tuple[int, int]:
        """How many lines at the start of block are remembered, and their size with CRLF; the last line never counts."""
        count = size = 0
        for line in block.split(b"\r\n")[:-1]:
            if line not in self.field_lines:
                break
            count += 1
            size += len(line) + 2
        return count, size

    def _check_count(self, count: int) -> None:
        if count > self.limits.fields:
            raise FieldsTooLarge(
                "too many fields", setting="limit_request_fields", limit=self.limits.fields, seen=count
            )


def parse_request_line(line: bytes, script_name: str = "") -> RequestLine:
    """The request line by the grammar. Raises as HeadParser.parse_request_line does. RFC 9112 section 3."""
    match = grammar.REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequestLine("not a request line", seen=line[:80].decode("latin-1"))
    method, target, version = match.groups()
    minor = grammar.VERSION_1.fullmatch(version)
    if minor is None:
        if grammar.VERSION_LATER.fullmatch(version):
            raise VersionUnknown("HTTP version not supported", seen=version.decode("ascii"))
        raise BadRequestLine("not an HTTP version", seen=version[:80].decode("ascii"))
    if method == b"CONNECT":
        raise MethodUnknown("CONNECT is not supported")
    authority = None
    if target == b"*":
        if method != b"OPTIONS":
            raise BadRequestLine("target * is for OPTIONS only", seen=method[:80].decode("ascii"))
        path, query = b"*", None
    elif origin := grammar.ORIGIN_FORM.fullmatch(target):
        path, query = origin.groups()
    elif absolute := grammar.ABSOLUTE_FORM.fullmatch(target):
        authority, path, query = absolute[1], absolute[2] or b"/", absolute[3]
        if not parse_host(authority)[0]:
            raise BadRequestLine("target without a host", seen=target[:80].decode("ascii"))
    else:
        raise BadRequestLine("not a request target", seen=target[:80].decode("ascii"))
    path_info = path_below(unquote_to_bytes(path).decode("latin-1"), script_name)
    return RequestLine(
        method=method.decode("ascii"),
        target=target.decode("ascii"),
        path=path.decode("ascii"),
        path_info=path_info,
        query=(query or b"").decode("ascii"),
        protocol="HTTP/1.0" if minor[1] == b"0" else "HTTP/1.1",
        authority=None if authority is None else authority.decode("ascii"),
        path_notes=PathNotes(),
        is_plain=minor[1] != b"0" and authority is None and path != b"*" and path_info is not None,
    )


def path_below(path: str, script_name: str) -> str | None:
    """PATH_INFO: path without script_name; None where it is not beneath it. PEP 3333."""
    if not script_name:
        return path
    if path == script_name or path.startswith(script_name + "/"):
        return path[len(script_name) :]
    return None


def check_host(request: RequestLine, environ: Environ, believe: Callable[[Environ], None] | None = None) -> None:
    """Host is required in HTTP/1.1; an absolute target replaces it. Raises BadHost (400). RFC 9112 section 3.2.

    believe: that of the parser; what a trusted proxy says replaces the target's host again.
    """
    if "HTTP_HOST" not in environ and request.protocol == "HTTP/1.1":
        raise BadHost("no Host field")
    if request.authority is not None:
        environ["HTTP_HOST"] = request.authority
        if believe is not None:
            believe(environ)


def body_length(protocol: str, length: str | None, coding: str | None) -> int:
    """Size of the content in bytes, or CHUNKED.

    length, coding: values of Content-Length and Transfer-Encoding.  Raises BadFraming (400), CodingUnknown (501).
    RFC 9112 section 6.3.
    """
    if coding is None:
        if length is None:
            return 0
        if not grammar.CONTENT_LENGTH.fullmatch(length.encode("latin-1")):
            raise BadFraming("not a Content-Length", seen=length[:80])
        return int(length)
    if length is not None:
        raise BadFraming("Content-Length beside Transfer-Encoding")
    if protocol == "HTTP/1.0":
        raise BadFraming("Transfer-Encoding in HTTP/1.0")
    codings = [part.strip(" \t").lower() for part in coding.split(",")]
    if codings == ["chunked"]:
        return CHUNKED
    if "chunked" in codings[:-1] or not all(codings):
        raise BadFraming("chunked is not the last coding, or stands twice", seen=coding[:80])
    raise CodingUnknown("unknown transfer coding", seen=coding[:80])


def expects_continue(protocol: str, value: str) -> bool:
    """Whether the client waits for 100 (Continue). Raises ExpectationUnknown (417). RFC 9110 section 10.1.1."""
    if value.lower() != "100-continue":
        raise ExpectationUnknown("unknown expectation", seen=value[:80])
    return protocol != "HTTP/1.0"


def is_kept(protocol: str, connection: str | None) -> bool:
    """Whether the connection stays open after this request; `close` wins over `keep-alive`. RFC 9112 section 9.3."""
    if connection is None:
        return protocol != "HTTP/1.0"
    options = {option.strip(" \t").lower() for option in connection.split(",")}
    return "close" not in options and (protocol != "HTTP/1.0" or "keep-alive" in options)


def is_websocket(request: RequestLine, environ: Environ) -> bool:
    """Whether a client asks for a WebSocket, by a field section with Connection. RFC 6455 section 4.1."""
    options = {option.strip(" \t").lower() for option in environ["HTTP_CONNECTION"].split(",")}
    asked = str(environ.get("HTTP_UPGRADE", "")).strip().lower() == "websocket"
    return asked and "upgrade" in options and request.method == "GET" and request.protocol == "HTTP/1.1"


class HeadScanner:
    """Watches a head that arrives in pieces; the limits hold while it does, in time linear in its size.

    Feed it every piece; when `feed` gives True, `data` begins with a whole head. A request line that is complete is
    parsed at once, so that HTTP/0.9 and noise are refused without waiting for more.
    """

    __slots__ = ("_fields", "_limits", "_line_at", "_parse", "_seen", "data")

    def __init__(self, limits: Limits, parse_request_line: Callable[[bytes], RequestLine]) -> None:
        self.data = bytearray()
        self._limits = limits
        self._parse = parse_request_line
        self._line_at = 0  # where the line now arriving begins
        self._seen = 0  # how far `data` has been searched
        self._fields = -1  # complete field lines; -1 before the request line

    @property
    def has_begun(self) -> bool:
        """Whether anything but one empty line has arrived."""
        return bytes(self.data) not in (b"\r", b"\r\n")

    def feed(self, piece: bytes) -> bool:
        """True once the head is whole. Raises what parsing the request line does, BadField and FieldsTooLarge."""
        data = self.data
        data += piece
        while (end := data.find(b"\n", self._seen)) >= 0:
            if end == self._line_at or data[end - 1] != 13:
                raise self._bad("bare LF")
            if data.find(b"\r", self._seen, end - 1) >= 0:
                raise self._bad("bare CR")
            line_size = end - 1 - self._line_at
            if self._fields < 0:
                self._request_line(line_size)
            elif line_size == 0:
                self._check_head(end + 1)
                return True
            else:
                self._fields += 1
                self._check(line_size)
            self._line_at = self._seen = end + 1
        last = len(data) - data.endswith(b"\r")
        if data.find(b"\r", self._seen, last) >= 0:
            raise self._bad("bare CR")
        self._seen = last
        self._check(last - self._line_at)
        self._check_head(len(data))
        return False

    def _bad(self, what: str) -> BadField | BadRequestLine:
        return (BadRequestLine if self._fields < 0 else BadField)(what)

    def _request_line(self, size: int) -> None:
        """The request line, or the one empty line before it, is complete."""
        if size == 0:
            if self._line_at:
                raise BadRequestLine("two empty lines before the request line")
            return
        self._parse(bytes(self.data[self._line_at : self._line_at + size]))
        self._fields = 0

    def _check(self, line_size: int) -> None:
        limits = self._limits
        if self._fields < 0:
            if line_size > limits.line:
                raise RequestLineTooLong(
                    "request line too long", setting="limit_request_line", limit=limits.line, seen=line_size
                )
            return
        if line_size > limits.field_size:
            raise FieldsTooLarge(
                "field line too long", setting="limit_request_field_size", limit=limits.field_size, seen=line_size
            )
        if self._fields > limits.fields:
            raise FieldsTooLarge(
                "too many fields", setting="limit_request_fields", limit=limits.fields, seen=self._fields
            )

    def _check_head(self, size: int) -> None:
        if size > self._limits.head:
            raise FieldsTooLarge("head too long", setting="limit_request_head", limit=self._limits.head, seen=size)
