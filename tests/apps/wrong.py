"""Applications that break the rules of PEP 3333 or fail, each in its own way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from tests.apps.base import FIRST, PLAIN, SECOND, App, Environ, Items, Start, note, with_length
from tests.apps.valid import file_of


def breach(*items: Any, status: str = "200 OK", fields: Any = PLAIN, close: BaseException | None = None) -> App:
    """Starts, then gives items; exceptions among them are raised."""

    def run(environ: Environ, start: Start) -> Any:
        start(status, fields)
        return Items(*items, close=close)

    return run


def raises(error: BaseException) -> App:
    def run(environ: Environ, start: Start) -> Any:
        raise error.with_traceback(None)

    return run


def returns(value: Any) -> App:
    def run(environ: Environ, start: Start) -> Any:
        start("200 OK", PLAIN)
        return value

    return run


def raises_after_start(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    raise ValueError("secret of the application")


def raises_after_write(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)(FIRST)
    raise ValueError("secret of the application")


def never_started_list(environ: Environ, start: Start) -> Any:
    return [FIRST]


def never_started_empty(environ: Environ, start: Start) -> Any:
    return []


def never_started_generator(environ: Environ, start: Start) -> Iterator[bytes]:
    yield FIRST


def started_twice(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)
    start("200 OK", PLAIN)
    return [FIRST]


def exc_info_late(environ: Environ, start: Start) -> Iterator[bytes]:
    """exc_info once the head has been sent: start_response raises it again."""
    start("200 OK", PLAIN)
    yield FIRST
    try:
        raise ValueError("exc_info too late")
    except ValueError:
        start("500 Too Late", PLAIN, sys.exc_info())
    note("not raised")
    yield SECOND


def close_after_error(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    try:
        yield FIRST
        raise ValueError("after the first item")
    finally:
        note("close")


def write_too_long(environ: Environ, start: Start) -> Any:
    write = start("200 OK", with_length(12))
    write(FIRST + SECOND + b"beyond")
    write(b"more")
    return [b"still more"]


def write_str(environ: Environ, start: Start) -> Any:
    start("200 OK", PLAIN)("text")  # type: ignore[arg-type]
    return []


def file_too_short(environ: Environ, start: Start) -> Any:
    start("200 OK", with_length(20))
    return environ["wsgi.file_wrapper"](file_of(FIRST + SECOND))


BREACHES: dict[str, App] = {
    "system_exit": raises(SystemExit(3)),
    "keyboard_interrupt": raises(KeyboardInterrupt()),
    "generator_exit": raises(GeneratorExit()),
    "base_exception": raises(BaseException("secret of the application")),
    "error": raises(ValueError("secret of the application")),
    "stop_iteration": raises(StopIteration()),
    "recursion": lambda environ, start: BREACHES["recursion"](environ, start),
    "returns_none": returns(None),
    "returns_bytes": returns(b"bytes"),
    "returns_str": returns("text"),
    "returns_number": returns(5),
    "list_of_str": returns(["text"]),
    "list_of_both": returns([b"bytes", "text"]),
    "list_of_none": returns([None]),
    "items_of_str": breach("text"),
    "items_of_number": breach(5),
    "first_item_fails": breach(ValueError("secret of the application")),
    "exits_in_iteration": breach(SystemExit(0)),
    "fails_midway": breach(FIRST, ValueError("midway")),
    "exits_midway": breach(FIRST, SystemExit(0)),
    "str_midway": breach(FIRST, "text"),
    "fails_midway_length": breach(FIRST, ValueError("midway"), fields=with_length(12)),
    "fails_at_the_end": breach(FIRST, SECOND, ValueError("at the end"), fields=with_length(12)),
    "fails_behind_the_whole": breach(FIRST + SECOND, ValueError("at the end"), fields=with_length(12)),
    "too_long": breach(FIRST, SECOND, b"beyond", fields=with_length(12)),
    "too_long_at_once": breach(FIRST + SECOND + b"beyond", fields=with_length(12)),
    "too_long_whole": breach(FIRST + SECOND, b"beyond", b"more", fields=with_length(12)),
    "too_short": breach(FIRST, SECOND, fields=with_length(20)),
    "too_short_by_all": breach(fields=with_length(20)),
    "close_fails": breach(FIRST, SECOND, close=ValueError("in close")),
    "close_exits": breach(FIRST, SECOND, close=SystemExit(4)),
    "fails_and_close_fails": breach(ValueError("first"), close=ValueError("in close")),
    "no_content": breach(FIRST, SECOND, status="204 No Content"),
    "no_content_length": breach(status="204 No Content", fields=with_length(12)),
    "not_modified": breach(FIRST, SECOND, status="304 Not Modified", fields=[("ETag", '"x"')]),
    "not_modified_length": breach(status="304 Not Modified", fields=with_length(12)),
    "list_too_long": lambda environ, start: (start("200 OK", with_length(12)), [FIRST, SECOND, b"beyond"])[1],
    "list_too_short": lambda environ, start: (start("200 OK", with_length(20)), [FIRST, SECOND])[1],
    "list_too_short_empty": lambda environ, start: (start("200 OK", with_length(20)), [])[1],
    "list_no_content": lambda environ, start: (start("204 No Content", []), [FIRST])[1],
    "list_not_modified": lambda environ, start: (start("304 Not Modified", [("ETag", '"x"')]), [FIRST])[1],
}
