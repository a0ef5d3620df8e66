"""Applications of every shape that PEP 3333 allows; they answer `first second` unless their name says otherwise."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.apps.base import FIRST, PLAIN, SECOND, Environ, Items, Lines, Start, note, with_length


def list_one(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return [FIRST + SECOND]


def list_many(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return [FIRST, b"", SECOND]


def list_empty(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return []


def list_closable(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return Lines([FIRST, SECOND])


def tuple_many(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return (FIRST, SECOND)


def list_length(environ: Environ, start: Start) -> Any:
    start("200 OK", with_length(12))
    return [FIRST, SECOND]


def generator(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    try:
        yield FIRST
        yield SECOND
    finally:
        note("close")


def generator_function(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return (part for part in (FIRST, SECOND))


def generator_length(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", with_length(12))
    yield FIRST
    yield SECOND


def generator_whole(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", with_length(12))
    yield FIRST + SECOND


def generator_empty(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    yield from ()


def generator_of_nothing(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    yield b""
    yield b""


def generator_with_gaps(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    yield b""
    yield FIRST
    yield b""
    yield SECOND
    yield b""


def iterator(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return Items(FIRST, SECOND)


def iterator_length(environ: Environ, start: Start) -> Any:
    start("200 OK", with_length(12))
    return Items(FIRST, SECOND)


def dict_keys(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return {FIRST: 1, SECOND: 2}.keys()


def write_only(environ: Environ, start: Start) -> Any:
    write = start("200 OK", PLAIN)
    write(FIRST)
    write(SECOND)
    return []


def write_and_list(environ: Environ, start: Start) -> Any:
    write = start("200 OK", PLAIN)
    write(FIRST)
    return [SECOND]


def write_and_iterator(environ: Environ, start: Start) -> Any:
    write = start("200 OK", with_length(12))
    write(FIRST)
    return Items(SECOND)


def write_nothing(environ: Environ, start: Start) -> Any:
    write = start("200 OK", PLAIN)
    write(b"")
    return [FIRST, SECOND]


def replaced(environ: Environ, start: Start) -> Any:
    """exc_info before the head has been sent replaces what was said before."""
    start("200 OK", [*PLAIN, ("X-Old", "1"), ("Content-Length", "99")])
    try:
        raise ValueError("replaced")
    except ValueError:
        start("503 Replaced", [*PLAIN, ("X-New", "1")], sys.exc_info())
    return [FIRST + SECOND]


def replaced_late(environ: Environ, start: Start) -> Iterator[bytes]:
    """The same from a generator that has yielded nothing but empty strings."""
    start("200 OK", PLAIN)
    yield b""
    try:
        raise ValueError("replaced")
    except ValueError:
        start("503 Replaced", [*PLAIN, ("X-New", "1")], sys.exc_info())
    yield FIRST + SECOND


def exc_info_first(environ: Environ, start: Start) -> Any:
    """The first call may carry exc_info."""
    try:
        raise ValueError("first")
    except ValueError:
        start("503 Replaced", [*PLAIN, ("X-New", "1")], sys.exc_info())
    return [FIRST + SECOND]


def file_of(content: bytes) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the server closes it
    file.write(content)
    file.seek(0)
    return file


def file_real(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](file_of(FIRST + SECOND), 5)


def file_position(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    file = file_of(b"skipped" + FIRST + SECOND)
    file.read(7)
    return environ["wsgi.file_wrapper"](file)


def file_length(environ: Environ, start: Start) -> Any:
    """Content-Length is less than the file: only so much is sent."""
    start("200 OK", with_length(12))
    return environ["wsgi.file_wrapper"](file_of(FIRST + SECOND + b"beyond"))


def file_buffer(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](io.BytesIO(FIRST + SECOND), 4)


def file_without_close(environ: Environ, start: Start) -> Any:
    class Reader:
        def __init__(self) -> None:
            self.read = io.BytesIO(FIRST + SECOND).read

    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](Reader())


def file_pipe(environ: Environ, start: Start) -> Any:
    """A file with a descriptor that os.sendfile cannot read."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, FIRST + SECOND)
    os.close(write_fd)
    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](os.fdopen(read_fd, "rb"))


def file_empty(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](file_of(b""))


def file_closable(environ: Environ, start: Start) -> Any:
    """The file is closed as soon as the server says so; what was announced is sent all the same."""
    file = file_of(FIRST + SECOND)

    class Noted:
        read, fileno, tell = file.read, file.fileno, file.tell

        def close(self) -> None:
            note("close")
            file.close()

    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](Noted())
