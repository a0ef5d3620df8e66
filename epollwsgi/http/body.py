"""Content of requests: the two framings of RFC 9112 section 6, decoded strictly. WIRE.md section 2.

A decoder is fed what arrives and hands content on to `out`; it knows no socket and keeps no content. `body` calls it.

    LengthDecoder    counts down
    ChunkedDecoder   SIZE -> DATA -> END -> SIZE ... -> TRAILER -> done
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from epollwsgi.errors import BadChunk, ContentTooLarge, FieldsTooLarge
from epollwsgi.http import grammar
from epollwsgi.http.fields import Limits

CHUNK_EXTENSION_SIZE = 256
CHUNK_DIGITS = 16


class Decoder(Protocol):
    """What collects the content of one request."""

    def feed(self, data: bytes, out: Callable[[bytes], object]) -> bytes | None:
        """Pass on the content in data; the bytes behind the message once it is complete, None before.

        Raises BadChunk (400), ContentTooLarge (413), FieldsTooLarge (431), and whatever `out` raises.
        """


class LengthDecoder:
    """Content of a length known beforehand. RFC 9112 section 6.2."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes, out: Callable[[bytes], object]) -> bytes | None:
        """See Decoder."""
        size = len(data)
        if size < self._left:
            self._left -= size
            out(data)
            return None
        out(data[: self._left])
        rest = data[self._left :]
        self._left = 0
        return rest


class State(IntEnum):
    """What a ChunkedDecoder expects next."""

    SIZE, DATA, END, TRAILER = range(4)


class ChunkedDecoder:
    """Content in chunks. RFC 9112 section 7.1; extensions are parsed and ignored, trailers parsed and dropped."""

    __slots__ = ("_left", "_limit", "_limits", "_line", "_state", "_total", "_trailers", "_trailers_size")

    def __init__(self, limit: int, limits: Limits) -> None:
        self._limit = limit
        self._limits = limits
        self._state = State.SIZE
        self._line = b""  # a line that has begun to arrive; bounded by _line_limit
        self._left = 0  # bytes of the chunk still to come
        self._total = 0
        self._trailers = 0
        self._trailers_size = 0

    def feed(self, data: bytes, out: Callable[[bytes], object]) -> bytes | None:
        """See Decoder."""
        at = 0
        while True:
            if self._state is State.DATA:
                piece = data[at : at + self._left]
                if piece:
                    out(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    return None
                self._state = State.END
            line, at = self._take_line(data, at)
            if line is None:
                return None
            if self._state is State.SIZE:
                self._begin_chunk(line)
            elif self._state is State.END:
                self._state = State.SIZE  # _take_line saw to it that nothing stood before CRLF
            elif line:
                self._check_trailer(line)
            else:
                return data[at:]

    def _line_limit(self) -> int:
        if self._state is State.SIZE:
            return CHUNK_DIGITS + CHUNK_EXTENSION_SIZE
        return 0 if self._state is State.END else self._limits.field_size

    def _take_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The next line without CRLF and where it ends in data; None if it has not arrived whole."""
        end = data.find(b"\n", at)
        before = len(self._line)
        self._line += data[at : end if end >= 0 else at + self._line_limit() + 2]
        if end < 0 or self._line[-1:] != b"\r":
            if end >= 0:
                raise BadChunk("bare LF in chunked content")
            visible = len(self._line) - self._line.endswith(b"\r")
            if self._line.find(b"\r", max(before - 1, 0), visible) >= 0:
                raise BadChunk("bare CR in chunked content")
            self._check_line(visible)
            return None, len(data)
        line = self._line[:-1]
        self._line = b""
        self._check_line(len(line))
        return line, end + 1

    def _check_line(self, size: int) -> None:
        if size <= self._line_limit():
            return
        if self._state is State.TRAILER:
            raise FieldsTooLarge(
                "trailer too long", setting="limit_request_field_size", limit=self._limits.field_size, seen=size
            )
        raise BadChunk("no CRLF behind a chunk" if self._state is State.END else "chunk extensions too long")

    def _begin_chunk(self, line: bytes) -> None:
        self._left = parse_chunk_size(line, self._limit, self._total)
        self._total += self._left
        self._state = State.DATA if self._left else State.TRAILER

    def _check_trailer(self, line: bytes) -> None:
        self._trailers += 1
        self._trailers_size += len(line) + 2
        limits = self._limits
        if self._trailers > limits.fields:
            raise FieldsTooLarge(
                "too many trailers", setting="limit_request_fields", limit=limits.fields, seen=self._trailers
            )
        if self._trailers_size > limits.head:
            raise FieldsTooLarge(
                "trailers too long", setting="limit_request_head", limit=limits.head, seen=self._trailers_size
            )
        if grammar.FIELD_LINE.fullmatch(line) is None:
            raise BadChunk("not a trailer field", seen=line[:80].decode("latin-1"))


def parse_chunk_size(line: bytes, limit: int, before: int = 0) -> int:
    """Size of the next chunk, in bytes; 0 means the trailer section follows.

    line: without CRLF.  limit: limit_request_body.  before: bytes of the chunks before this one.
    Raises BadChunk (400), ContentTooLarge (413).  RFC 9112 section 7.1.
    """
    match = grammar.CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise BadChunk("not a chunk size", seen=line[:80].decode("latin-1"))
    if len(match[2]) > CHUNK_EXTENSION_SIZE:
        raise BadChunk("chunk extensions too long", seen=len(match[2]))
    size = int(match[1], 16)
    if size > limit - before:
        raise ContentTooLarge("content too large", setting="limit_request_body", limit=limit, seen=before + size)
    return size
