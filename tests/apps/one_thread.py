"""An application that relies on its thread: sqlite3 connection of the module, signals, an interval timer.

GET /KIND?N; everything that happens is checked against the main thread, from the import to close().
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from tests.apps.base import PLAIN, Environ, Start, with_length

DATABASE = sqlite3.connect(":memory:")
DATABASE.execute("CREATE TABLE visits (number INTEGER)")
FAULTS: list[str] = []
INSIDE = {"now": 0}
STAY_S = 30.0


class Interrupted(Exception):
    """The timer has gone off."""


def check(place: str) -> None:
    if threading.current_thread() is not threading.main_thread():
        FAULTS.append(f"{place} on {threading.current_thread().name}")


check("import")


def interrupt(_: int, __: FrameType | None) -> None:
    raise Interrupted


def quick(number: int) -> str:
    return f"quick {number}"


def slow(number: int) -> str:
    time.sleep(0.01)
    return f"slow {number}"


def visit(number: int) -> str:
    """Two statements with a pause between them; nobody else's come in between."""
    [(before,)] = DATABASE.execute("SELECT count(*) FROM visits")
    DATABASE.execute("INSERT INTO visits VALUES (?)", (number,))
    if number % 7 == 0:
        time.sleep(0.005)
    [(after,)] = DATABASE.execute("SELECT count(*) FROM visits")
    DATABASE.commit()
    return f"visit {number} {after - before}"


def alarm(number: int) -> str:
    """A time limit of the application's own, as some libraries have."""
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        time.sleep(5)
    except Interrupted:
        return f"alarm {number}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return "no alarm"


def nothing(seconds: float) -> None:
    time.sleep(seconds)


def stay(parent: int) -> None:
    end_at = time.monotonic() + STAY_S
    while os.getppid() == parent and time.monotonic() < end_at:
        time.sleep(0.05)


def fork(number: int) -> str:
    """A child that is joined; its exit code may be another thread's, which has looked after all children meanwhile."""
    child = multiprocessing.get_context("fork").Process(target=nothing, args=(0.02,))
    child.start()
    child.join()
    return f"fork {number}"


def leave(number: int) -> str:
    """A child that lives on after the answer, for as long as its parent."""
    multiprocessing.get_context("fork").Process(target=stay, args=(os.getpid(),), daemon=True).start()
    return f"leave {number}"


WORK: dict[str, Callable[[int], str]] = {work.__name__: work for work in (quick, slow, visit, alarm, fork, leave)}


class Answer:
    """An iterable that checks where it is asked and closed."""

    def __init__(self, content: bytes) -> None:
        self._items = iter([content])

    def __iter__(self) -> Iterator[bytes]:
        check("iter")
        return self

    def __next__(self) -> bytes:
        check("next")
        return next(self._items)

    def close(self) -> None:
        check("close")
        INSIDE["now"] -= 1


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/faults":
        content = repr(FAULTS).encode()
        start("200 OK", with_length(len(content)))
        return [content]
    check("call")
    INSIDE["now"] += 1
    if INSIDE["now"] != 1 or environ["wsgi.multithread"]:
        FAULTS.append(f"{INSIDE} calls at once")
    text = WORK[environ["PATH_INFO"].strip("/")](int(environ["QUERY_STRING"]))
    start("200 OK", PLAIN)
    return Answer(text.encode())


def shared(environ: Environ, start: Start) -> Any:
    """The routes that fork, for several threads."""
    text = WORK[environ["PATH_INFO"].strip("/")](int(environ["QUERY_STRING"]))
    start("200 OK", with_length(len(text)))
    return [text.encode()]
