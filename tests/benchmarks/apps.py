"""The plain WSGI applications that every server under measurement runs. Knows no server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
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


def compute(duration_s: float) -> None:
    """Use so much CPU time, however many threads share the interpreter."""
    end_s = time.thread_time() + duration_s
    while time.thread_time() < end_s:
        for _ in range(500):
            pass


WORK: dict[str, Callable[[float], None]] = {"/sleep": time.sleep, "/compute": compute}


def mixed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Work first where the path begins with a name in WORK, for `?ms=` milliseconds; then answer as `hello` does."""
    path = environ["PATH_INFO"]
    for name, work in WORK.items():
        if path.startswith(name):
            work(int(environ["QUERY_STRING"].removeprefix("ms=")) / 1000)
    start_response("200 OK", HEADERS[:])
    return [HELLO]
