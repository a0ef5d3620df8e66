"""An application whose answers end in every way there is, for the access log; /NAME calls NAME."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.apps import base
from tests.apps.base import Environ, Start

SENT_FILE = base.__file__
BIG = 6 << 20  # more than the buffers of two sockets hold
PART = b"x" * 65536
HINT = [("Link", "</s.css>; rel=preload")]
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def answer(start: Start, body: bytes, status: str = "200 OK") -> list[bytes]:
    start(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("X-Own", "own")])
    return [body]


def plain(environ: Environ, start: Start) -> list[bytes]:
    return answer(start, b"plain")


def without_length(environ: Environ, start: Start) -> list[bytes]:
    start("201 Created", [])
    return [b"abc"]


def nothing(environ: Environ, start: Start) -> list[bytes]:
    start("204 No Content", [])
    return []


def unchanged(environ: Environ, start: Start) -> list[bytes]:
    start("304 Not Modified", [("ETag", '"x"')])
    return []


def parts(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [])
    yield b"one "
    yield b""
    yield b"two"


def written(environ: Environ, start: Start) -> list[bytes]:
    write = start("200 OK", [])
    write(b"first")
    return [b"second"]


def body(environ: Environ, start: Start) -> list[bytes]:
    return answer(start, environ["wsgi.input"].read())


def file(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    result: Iterable[bytes] = environ["wsgi.file_wrapper"](open(SENT_FILE, "rb"))  # noqa: SIM115
    return result


def no_file(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [])
    result: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"in memory"))
    return result


def hints(environ: Environ, start: Start) -> list[bytes]:
    environ["wsgi.early_hints"](HINT)
    environ["wsgi.early_hints"](HINT)
    return answer(start, b"after hints")


def fails(environ: Environ, start: Start) -> list[bytes]:
    raise ValueError("on purpose")


def fails_late(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [])
    yield b"begun"
    raise ValueError("on purpose")


class CloseFails(list[bytes]):
    def close(self) -> None:
        raise ValueError("close() on purpose")


def close_fails(environ: Environ, start: Start) -> list[bytes]:
    return CloseFails(answer(start, b"whole"))


def too_short(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", [("Content-Length", "100")])
    return [b"short"]


def too_long(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", [("Content-Length", "4")])
    return [b"longer"]


def emptied(environ: Environ, start: Start) -> list[bytes]:
    environ.clear()
    return answer(start, b"emptied")


def moved(environ: Environ, start: Start) -> list[bytes]:
    """As a middleware that knows the proxies before it."""
    environ["REMOTE_ADDR"] = "192.0.2.77"
    environ["REQUEST_METHOD"] = "DELETE"
    environ["PATH_INFO"] = "/elsewhere"
    return answer(start, b"moved")


def big(environ: Environ, start: Start) -> list[bytes]:
    return answer(start, b"x" * BIG)


def endless(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [])
    while True:
        yield PART


def held(environ: Environ, start: Start) -> list[bytes]:
    """Until the file named by the query is there."""
    name = environ["QUERY_STRING"]
    Path(name + ".begun").touch()
    end_at = time.monotonic() + 20
    while not os.path.exists(name) and time.monotonic() < end_at:
        time.sleep(0.005)
    return answer(start, b"held")


def echo(environ: Environ, start: Start) -> list[bytes]:
    sock: Any = environ["gunicorn.socket"]
    sock.sendall(ACCEPTED)
    while data := sock.recv(65536):
        sock.sendall(data)
    raise StopIteration


def refuses_upgrade(environ: Environ, start: Start) -> list[bytes]:
    return answer(start, b"no", "400 Bad Request")


PAGES: dict[str, Callable[[Environ, Start], Iterable[bytes]]] = {
    page.__name__: page
    for page in (
        *(plain, without_length, nothing, unchanged, parts, written, body, file, no_file, hints, fails, fails_late),
        *(close_fails, too_short, too_long, emptied, moved, big, endless, held, echo, refuses_upgrade),
    )
}


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    page = PAGES.get(environ["PATH_INFO"].strip("/"))
    return answer(start, b"none", "404 Not Found") if page is None else page(environ, start)
