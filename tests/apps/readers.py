"""Applications whose content goes to slow readers: what they use must stay on its thread, and hold across each pause.

GET /KIND?SIZE with the size of the content in pieces; each piece is PIECE bytes of its own number.
"""

from __future__ import annotations

import atexit
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import flask

from tests.apps.base import PLAIN, Environ, Start, with_length

PIECE = 16384
LOCK = threading.RLock()
DONE: list[str] = []

site = flask.Flask(__name__)


def piece(number: int) -> bytes:
    return b"%08d" % number * (PIECE // 8)


def note(kind: str) -> None:
    DONE.append(kind)


@site.get("/flask")
def streamed() -> flask.Response:
    count = int(flask.request.query_string)

    def parts() -> Iterator[bytes]:
        for number in range(count):
            assert flask.request.path == "/flask"
            yield piece(number)
        note("flask")

    return flask.Response(flask.stream_with_context(parts()), mimetype="text/plain")


def make_database() -> str:
    """A file with a table of numbers, made at the import."""
    with tempfile.NamedTemporaryFile(prefix="numbers", delete=False) as file:
        connection = sqlite3.connect(file.name)
    connection.execute("CREATE TABLE numbers (x INTEGER)")
    connection.executemany("INSERT INTO numbers VALUES (?)", [(number,) for number in range(2000)])
    connection.commit()
    connection.close()
    return file.name


def cursor(count: int) -> Iterator[bytes]:
    """A connection may be used by the thread that made it, no other."""
    connection = sqlite3.connect(DATABASE)
    try:
        for (number,) in connection.execute("SELECT x FROM numbers ORDER BY x LIMIT ?", (count,)):
            yield piece(number)
    finally:
        connection.close()
        note("cursor")


def lock(count: int) -> Iterator[bytes]:
    """A lock that only the thread which took it can give back."""
    with LOCK:
        for number in range(count):
            yield piece(number)
    note("lock")


def generator(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield piece(number)
    note("generator")


KINDS: dict[str, Callable[[int], Iterator[bytes]]] = {"cursor": cursor, "lock": lock, "generator": generator}


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    kind = environ["PATH_INFO"].strip("/")
    if kind == "flask":
        answer: Iterable[bytes] = site(environ, start)
        return answer
    if kind == "done":
        content = " ".join(DONE).encode()
        start("200 OK", with_length(len(content)))
        return [content]
    count = int(environ["QUERY_STRING"])
    if kind == "write":
        write = start("200 OK", PLAIN)
        for number in range(count):
            write(piece(number))
        note("write")
        return []
    start("200 OK", PLAIN)
    return KINDS[kind](count)


DATABASE = make_database()
atexit.register(Path(DATABASE).unlink, missing_ok=True)
