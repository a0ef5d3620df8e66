"""Applications steered by their request: given responses, items that wait for the client, large ones, input."""

from __future__ import annotations

import json
import os
import tempfile
import time
from ast import literal_eval
from collections.abc import Iterator
from typing import Any

from tests.apps.base import EVENTS, FIRST, PLAIN, SECOND, Environ, Start, note, with_length

TAKEN: list[int] = []  # descriptors


def given(environ: Environ, start: Start) -> Any:
    """The request's content is a Python literal: (status, fields, items)."""
    status, fields, items = literal_eval(environ["wsgi.input"].read().decode("utf-8"))
    start(status, fields)
    return items


def gated(environ: Environ, start: Start) -> Iterator[bytes]:
    """Each item but the first waits until the client has made a file of its number in the directory of the query."""
    start("200 OK", PLAIN)
    for number in range(4):
        if number:
            wait_for(os.path.join(environ["QUERY_STRING"], str(number)))
        yield b"item %d\n" % number


def gated_write(environ: Environ, start: Start) -> Any:
    write = start("200 OK", PLAIN)
    for number in range(4):
        if number:
            wait_for(os.path.join(environ["QUERY_STRING"], str(number)))
        write(b"item %d\n" % number)
    return []


def gated_whole(environ: Environ, start: Start) -> Iterator[bytes]:
    """All of the content, then a wait within the iterable; without a query nothing is waited for."""
    start("200 OK", with_length(12))
    yield FIRST + SECOND
    if environ["QUERY_STRING"]:
        wait_for(os.path.join(environ["QUERY_STRING"], "1"))


def gated_call(environ: Environ, start: Start) -> Any:
    """A plain application that takes its time."""
    wait_for(os.path.join(environ["QUERY_STRING"], "1"))
    start("200 OK", PLAIN)
    return [FIRST]


def wait_for(path: str) -> None:
    end_at = time.monotonic() + 20
    while not os.path.exists(path):
        if time.monotonic() > end_at:
            raise TimeoutError(path)
        time.sleep(0.002)


def large(environ: Environ, start: Start) -> Iterator[bytes]:
    """QUERY_STRING megabytes in pieces of 64 KiB, every piece of another byte; stops when its client has gone."""
    start("200 OK", PLAIN)
    try:
        for number in range(int(environ["QUERY_STRING"]) * 16):
            yield bytes([number % 251]) * 65536
    finally:
        note("close")


def large_list(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return [bytes([number % 251]) * 65536 for number in range(int(environ["QUERY_STRING"]) * 16)]


def large_file(environ: Environ, start: Start) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the server closes it
    for number in range(int(environ["QUERY_STRING"]) * 16):
        file.write(bytes([number % 251]) * 65536)
    file.seek(0)
    start("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](file)


def sleeps(environ: Environ, start: Start) -> Any:
    """Takes QUERY_STRING seconds to answer."""
    time.sleep(float(environ["QUERY_STRING"]))
    start("200 OK", PLAIN)
    return [FIRST]


def pauses(environ: Environ, start: Start) -> Iterator[bytes]:
    """Two items, QUERY_STRING seconds apart."""
    start("200 OK", PLAIN)
    yield FIRST
    time.sleep(float(environ["QUERY_STRING"]))
    yield SECOND


def asks_client(environ: Environ, start: Start) -> Any:
    """Whether the client has gone, asked once the file 1 is there; file 0 says that the call has begun."""
    with open(os.path.join(environ["QUERY_STRING"], "0"), "wb"):
        pass
    wait_for(os.path.join(environ["QUERY_STRING"], "1"))
    gone = environ["epollwsgi.client_gone"]()
    note(f"gone {gone}")
    start("200 OK", PLAIN)
    return [str(gone).encode()]


def takes_descriptors(environ: Environ, start: Start) -> Any:
    """Opens files until the system gives no more."""
    try:
        while len(TAKEN) < 10_000:
            TAKEN.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    start("200 OK", with_length(0))
    return []


def gives_descriptors(environ: Environ, start: Start) -> Any:
    """Closes what takes_descriptors opened."""
    while TAKEN:
        os.close(TAKEN.pop())
    start("200 OK", with_length(0))
    return []


def reads(environ: Environ, start: Start) -> Any:
    """What each method of wsgi.input gives."""
    body = environ["wsgi.input"]
    seen: dict[str, Any] = {"read(2)": body.read(2), "readline()": body.readline(), "readline(3)": body.readline(3)}
    seen["tell()"] = body.tell()
    seen["lines"] = [next(iter(body))]
    seen["readlines(1)"] = body.readlines(1)
    rest = bytearray(4)
    seen["readinto()"] = (body.readinto(rest), bytes(rest))
    seen["read(-1)"] = body.read(-1)
    seen["at the end"] = [body.read(), body.read(5), body.readline(), body.readlines(), list(body)]
    seen["seek(1)"] = (body.seek(1), body.read(3))
    seen["seek(-3, 2)"] = (body.seek(-3, 2), body.read())
    seen["flags"] = (body.readable(), body.seekable(), body.closed)
    start("200 OK", PLAIN)
    return [repr(seen).encode("ascii")]


def ignores_content(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    return [FIRST]


def closes_input(environ: Environ, start: Start) -> Any:
    environ["wsgi.input"].close()
    start("200 OK", PLAIN)
    return [FIRST]


def uses_errors(environ: Environ, start: Start) -> Any:
    errors = environ["wsgi.errors"]
    errors.write("written to wsgi.errors\n")
    errors.writelines(["one line\n", "é☃\n"])
    errors.flush()
    print("printed to wsgi.errors", file=errors)
    start("200 OK", PLAIN)
    return [FIRST]


def changes_environ(environ: Environ, start: Start) -> Any:
    """What an application leaves in environ, or takes out of it, must not be seen by the next request."""
    found = "left behind" in environ or "HTTP_HOST" not in environ
    environ["left behind"] = "x"
    environ["HTTP_USER_AGENT"] = "changed"
    environ.pop("HTTP_HOST")
    environ["wsgi.url_scheme"] = "changed"
    start("200 OK", PLAIN)
    return [repr((found, environ["QUERY_STRING"])).encode()]


def events(environ: Environ, start: Start) -> Any:
    body = json.dumps(EVENTS).encode()
    EVENTS.clear()
    start("200 OK", with_length(len(body)))
    return [body]
