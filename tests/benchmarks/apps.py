"""The plain WSGI applications that every server under measurement runs. Knows no server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

HELLO = b"Hello, world!\n"
HEADERS = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(HELLO)))]


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer as little as an application can: a status, two fields, one line."""
    start_response("200 OK", HEADERS[:])
    return [HELLO]


def post(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read the whole content, then answer as `hello` does; content cut short is an error of the server."""
    size = int(environ.get("CONTENT_LENGTH") or 0)
    content = environ["wsgi.input"].read(size)
    status = "200 OK" if len(content) == size else "500 Content Cut Short"
    start_response(status, HEADERS[:])
    return [HELLO]
