"""The reply that static files come down to, and those with content of our own.

Knows the bytes of a head, not which reply a request deserves. Called by `static.handler`; `dispatch` sends a Reply.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from epollwsgi.http.conditional import Ranges
from epollwsgi.http.response import REASONS, STATUS_LINES
from epollwsgi.static.beneath import OpenFile
from epollwsgi.static.heads import Heads
from epollwsgi.static.media_types import NOSNIFF

NO_CACHE: Final = b"Cache-Control: no-cache\r\n"
PLAIN_TEXT: Final = b"text/plain; charset=utf-8"
HTML: Final = b"text/html; charset=utf-8"

BUILT_IN_404: Final = (
    b'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
    b'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Not found</title>\n'
    b"<style>:root{color-scheme:light dark}body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;"
    b"margin:18vh auto 0;padding:0 1.5rem}h1{font-size:1.6rem}</style>\n"
    b'<h1>Not found</h1>\n<p>There is no page at this address. <a href="/">Go to the start page</a></p>\n</html>\n'
)


class Part(NamedTuple):
    """A piece of content: bytes, and behind them `size` bytes of a file from `offset`."""

    head: bytes
    offset: int
    size: int


@dataclass(slots=True)
class Reply:
    """A response without Date, Server, Connection and the empty line that ends the head.

    head: status line and field lines.  body: b"" to HEAD and where `file` is to be sent: `count` bytes from `offset`,
    or `parts`, of which `count` is the sum.  later: makes the reply that is meant, on a thread that may take its time.
    """

    status: int
    head: bytes
    body: bytes = b""
    file: OpenFile | None = None
    offset: int = 0
    count: int = 0
    parts: tuple[Part, ...] = ()
    later: Callable[[], Reply] | None = None
    whole: bytes = b""
    """the response on a connection that is kept, where it is built already"""


def build_range_head(heads: Heads, first: int, last: int, size: int) -> bytes:
    """The head of a 206 with one part. RFC 9110 section 15.3.7.1."""
    return b"%b%bContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n" % (
        STATUS_LINES[206],
        heads.fields,
        first,
        last,
        size,
        last - first + 1,
    )


def build_multipart(heads: Heads, ranges: Ranges, size: int, boundary: bytes) -> tuple[bytes, tuple[Part, ...]]:
    """The head of a 206 with several parts, and these; the last holds the end only. RFC 9110 section 14.6.

    boundary: must not occur in the content, so it must not be guessed by who wrote that.
    """
    type_line, _, others = heads.fields.partition(b"\r\n")
    parts = [
        Part(
            b"%b--%b\r\n%b\r\nContent-Range: bytes %d-%d/%d\r\n\r\n"
            % (b"\r\n" if number else b"", boundary, type_line, first, last, size),
            first,
            last - first + 1,
        )
        for number, (first, last) in enumerate(ranges)
    ]
    parts.append(Part(b"\r\n--%b--\r\n" % boundary, 0, 0))
    length = sum(len(part.head) + part.size for part in parts)
    head = b"%bContent-Type: multipart/byteranges; boundary=%b\r\n%bContent-Length: %d\r\n" % (
        STATUS_LINES[206],
        boundary,
        others,
        length,
    )
    return head, tuple(parts)


def build_head(status: int, content_type: bytes, fields: bytes, size: int) -> bytes:
    """The head of a reply that is no plain file; `fields` are whole field lines."""
    return b"%bContent-Type: %b\r\n%b%bContent-Length: %d\r\n" % (
        STATUS_LINES[status],
        content_type,
        NOSNIFF,
        fields,
        size,
    )


def build_short_reply(status: int, method: str, fields: bytes = b"") -> Reply:
    """A reply that says its status in words."""
    content = f"{status} {REASONS[status]}\n".encode("ascii")
    head = build_head(status, PLAIN_TEXT, fields + NO_CACHE, len(content))
    return Reply(status, head, b"" if method == "HEAD" else content)


def build_not_found(method: str, fields: bytes = b"", start: str = "/") -> Reply:
    """The built-in page of a site without a 404.html. start: the address of the site, encoded."""
    content = BUILT_IN_404
    if start != "/":
        content = content.replace(b'href="/"', f'href="{html.escape(start)}"'.encode("ascii"))
    head = build_head(404, HTML, NO_CACHE + fields, len(content))
    return Reply(404, head, b"" if method == "HEAD" else content)
