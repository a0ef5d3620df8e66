"""The pure parser driven as `connection` drives it, without a socket: pieces of bytes in, what was decided out.

Whole heads take the quick way through `HeadParser`, heads in pieces are watched by a `HeadScanner` first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from epollwsgi.errors import BodyCut, ContentTooLarge, HTTPError
from epollwsgi.http import head as h
from epollwsgi.http.body import ChunkedDecoder, Decoder, LengthDecoder
from epollwsgi.http.fields import Limits
from tests.wire.rows import Settings

DEFAULT_BODY_LIMIT = 1 << 30


def build_parser(settings: Settings = ()) -> h.HeadParser:
    """A parser under these settings; those that the parser does not know are left out."""
    values: dict[str, Any] = dict(settings)
    names = {
        "line": "limit_request_line",
        "fields": "limit_request_fields",
        "field_size": "limit_request_field_size",
        "head": "limit_request_head",
    }
    limits = Limits(**{name: values[key] for name, key in names.items() if key in values})
    return h.HeadParser(limits, header_map=values.get("header_map", "drop"))


@dataclass
class Request:
    """A request that passed: the parser's environ items and its content."""

    line: h.RequestLine
    environ: dict[str, Any]
    body: bytes


class Stream:
    """The requests of one connection. `requests` and `refusal` hold what was decided so far."""

    def __init__(self, parser: h.HeadParser, body_limit: int = DEFAULT_BODY_LIMIT) -> None:
        self.parser = parser
        self.body_limit = body_limit
        self.requests: list[Request] = []
        self.refusal: HTTPError | None = None
        self.is_ended = False
        self.scanner: h.HeadScanner | None = None
        self.decoder: Decoder | None = None
        self.waiting: tuple[h.RequestLine, dict[str, Any]] | None = None
        self.content: list[bytes] = []

    def feed(self, pieces: Iterable[bytes]) -> Stream:
        for piece in pieces:
            data: bytes | None = piece
            try:
                while data and not self.is_ended:
                    data = self._on_content(data) if self.decoder else self._on_head(data)
            except HTTPError as error:
                self.refusal = error
                self.is_ended = True
        return self

    def end(self) -> Stream:
        """The client has ended its side."""
        if self.decoder and not self.is_ended:
            self.refusal = BodyCut("cut")
            self.is_ended = True
        return self

    def _on_head(self, data: bytes) -> bytes | None:
        if self.scanner is None:
            end = data.find(b"\r\n\r\n")
            if end > 0 and end + 4 <= self.parser.limits.head:
                return self._on_whole_head(data[:end], data[end + 4 :])
            self.scanner = h.HeadScanner(self.parser.limits, self.parser.parse_request_line)
        if not self.scanner.feed(data):
            return None
        whole = bytes(self.scanner.data)
        self.scanner = None
        start = 2 if whole.startswith(b"\r\n") else 0
        end = whole.index(b"\r\n\r\n", start)
        return self._on_whole_head(whole[start:end], whole[end + 4 :])

    def _on_whole_head(self, head: bytes, rest: bytes) -> bytes | None:
        if head.startswith(b"\r\n"):
            head = head[2:]
        line, _, block = head.partition(b"\r\n")
        request = self.parser.parse_request_line(line)
        environ: dict[str, Any] = {}
        self.parser.parse_fields(block, environ)
        h.check_host(request, environ)
        coding = environ.pop("HTTP_TRANSFER_ENCODING", None)
        length = h.body_length(request.protocol, environ.get("CONTENT_LENGTH"), coding)
        if "HTTP_EXPECT" in environ:
            h.expects_continue(request.protocol, environ["HTTP_EXPECT"])
        if length > self.body_limit:
            raise ContentTooLarge("too large")
        self.waiting = request, environ
        self.content = []
        if length == 0:
            self._finish()
        elif length == h.CHUNKED:
            self.decoder = ChunkedDecoder(self.body_limit, self.parser.limits)
        else:
            self.decoder = LengthDecoder(length)
        return rest

    def _on_content(self, data: bytes) -> bytes | None:
        assert self.decoder is not None
        rest = self.decoder.feed(data, self.content.append)
        if rest is not None:
            self.decoder = None
            self._finish()
        return rest

    def _finish(self) -> None:
        assert self.waiting is not None
        line, environ = self.waiting
        self.requests.append(Request(line, environ, b"".join(self.content)))
        self.is_ended = not h.is_kept(line.protocol, environ.get("HTTP_CONNECTION"))
