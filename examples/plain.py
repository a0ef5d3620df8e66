"""A WSGI application without a framework: all that a server and an application agree upon (PEP 3333).

    epollwsgi examples.plain            # the attribute `application` is found by itself
    curl 'http://127.0.0.1:8000/hello?name=Ada'
    curl -d 'some text' http://127.0.0.1:8000/count

Knows the standard library and nothing of epollwsgi.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

PIECE_SIZE = 64 * 1024


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Called once for each request; returns the body as an iterable of bytes.

    environ: a dict that describes the request; its keys in capitals are those of CGI, `wsgi.*` is the server's part.
    start_response: takes the status line and the header fields, before the first bytes of the body are asked for.
    """
    # PATH_INFO is percent-decoded already, QUERY_STRING is not.
    page = PAGES.get(environ["PATH_INFO"], not_found)
    status, text = page(environ)
    body = text.encode()
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        # A list of one item needs no Content-Length: the server would work it out. Said here, it is sure.
        ("Content-Length", str(len(body))),
    ]
    start_response(status, fields)
    # The answer to a HEAD has the fields of a GET and no body.
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def hello(environ: WSGIEnvironment) -> tuple[str, str]:
    """Greets ?name=..."""
    # Names of header fields arrive as HTTP_ and capitals: Accept-Language is HTTP_ACCEPT_LANGUAGE.
    query = parse_qs(environ.get("QUERY_STRING", ""))
    name = query.get("name", ["world"])[0]
    return "200 OK", f"Hello, {name}!\n"


def count(environ: WSGIEnvironment) -> tuple[str, str]:
    """Counts the bytes of the request's body, which it reads in pieces."""
    # The body ends at CONTENT_LENGTH, whatever a server does with a read beyond it; none announced is none.
    left = int(environ.get("CONTENT_LENGTH") or 0)
    size = 0
    while left and (piece := environ["wsgi.input"].read(min(left, PIECE_SIZE))):
        left -= len(piece)
        size += len(piece)
    return "200 OK", f"{size} bytes\n"


def not_found(environ: WSGIEnvironment) -> tuple[str, str]:
    return "404 Not Found", "Nothing here. Try /hello or /count.\n"


PAGES = {"/hello": hello, "/count": count}
