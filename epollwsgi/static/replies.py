"""The reply that static files come down to, and those with content of our own.

Knows the bytes of a head, not which reply a request deserves. Called by `static.handler`; `connection` sends a Reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from epollwsgi.http.response import REASONS, STATUS_LINES
from epollwsgi.static.beneath import OpenFile
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


@dataclass(slots=True)
class Reply:
    """A response without Date, Server, Connection and the empty line that ends the head.

    head: status line and field lines.  body: b"" to HEAD and where `file` is to be sent: `count` bytes from `offset`.
    """

    status: int
    head: bytes
    body: bytes = b""
    file: OpenFile | None = None
    offset: int = 0
    count: int = 0


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


def build_not_found(method: str) -> Reply:
    """The built-in page of a site without a 404.html."""
    head = build_head(404, HTML, NO_CACHE, len(BUILT_IN_404))
    return Reply(404, head, b"" if method == "HEAD" else BUILT_IN_404)
