"""Routes that block, compute, stream, fail or answer at once, and what a client of each must get.

/KIND?TAG runs KIND; TAG is the request's id, connection and sequence, and stands in every line of the answer, so that
an answer can be checked byte for byte (`expected`). What happened is counted: GET /state gives that as JSON.
GET /gate?PATH&NAME waits, at most GATE_S, until the file PATH exists.
"""

from __future__ import annotations

import gc
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.apps.base import PLAIN, App, Environ, Start, with_length

WORK_S = 0.02
PAUSE_S = 0.004
GATE_S = 20.0
PARTS = 4
LARGE_LINES = 12_000


class Failure(Exception):
    """What the failing routes raise."""


class Expected(NamedTuple):
    """What a client must get: status, content, and how much of it before the connection ends (-1: all)."""

    status: int
    content: bytes
    cut: bool = False
    work_s: float = 0.0


def lines(kind: str, tag: str, part: int = 0) -> bytes:
    """One part of the answer."""
    return b"".join(b"%d %s %s\n" % (part, kind.encode(), tag.encode()) for _ in range(1 + len(tag) % 3))


def whole(kind: str, tag: str) -> bytes:
    return b"".join(lines(kind, tag, part) for part in range(PARTS))


class Record:
    """What happened, over all threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.importer = threading.get_ident()
        self.calls: Counter[str] = Counter()
        self.threads: Counter[str] = Counter()
        self.inside = 0
        self.most_inside = 0
        self.breaches: list[str] = []
        self.events: deque[str] = deque(maxlen=1000)
        self.begun: deque[str] = deque(maxlen=1000)

    def enter(self, tag: str) -> int:
        """A call begins; the thread that must stay its own."""
        with self.lock:
            self.calls[tag] += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            ident = threading.get_ident()
            self.threads["import" if ident == self.importer else "other"] += 1
        return ident

    def leave(self, ident: int, tag: str) -> None:
        """The call, its iterable and close() are done."""
        with self.lock:
            self.inside -= 1
        self.check(ident, tag)

    def check(self, ident: int, tag: str) -> None:
        if ident != threading.get_ident():
            self.breaches.append(f"{tag} was moved to another thread")


RECORD = Record()


def compute() -> None:
    """Use the processor for WORK_S, however long that takes."""
    end_at = time.thread_time() + WORK_S
    while time.thread_time() < end_at:
        pass


# --- the routes -------------------------------------------------------------------------------------------------------


def quick(tag: str, _: Environ, start: Start) -> list[bytes]:
    content = whole("quick", tag)
    start("200 OK", [*with_length(len(content)), ("X-Tag", tag)])
    return [content]


def blocking(tag: str, _: Environ, start: Start) -> list[bytes]:
    time.sleep(WORK_S)
    start("200 OK", [*PLAIN, ("X-Tag", tag)])
    return [lines("blocking", tag, part) for part in range(PARTS)]


def computing(tag: str, _: Environ, start: Start) -> list[bytes]:
    compute()
    start("200 OK", [*PLAIN, ("X-Tag", tag)])
    return [whole("computing", tag)]


def fickle(tag: str, _: Environ, start: Start) -> list[bytes]:
    """Quick as a rule; now and then not."""
    if sum(tag.encode()) % 8 == 0:
        time.sleep(0.005)
    start("200 OK", [*PLAIN, ("X-Tag", tag)])
    return [whole("fickle", tag)]


def parts_of(kind: str, tag: str, pause_s: float) -> Iterator[bytes]:
    ident = threading.get_ident()
    for part in range(PARTS):
        yield lines(kind, tag, part)
        RECORD.check(ident, tag)
        time.sleep(pause_s)


def streaming(tag: str, _: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", [*PLAIN, ("X-Tag", tag)])
    return parts_of("streaming", tag, PAUSE_S)


def flowing(tag: str, _: Environ, start: Start) -> Iterator[bytes]:
    """Of a known length, and without pauses: often quick, sometimes the last step is not."""
    start("200 OK", [*with_length(len(whole("flowing", tag))), ("X-Tag", tag)])
    return parts_of("flowing", tag, 0.003 if sum(tag.encode()) % 5 == 0 else 0)


def written(tag: str, _: Environ, start: Start) -> list[bytes]:
    write = start("200 OK", [*PLAIN, ("X-Tag", tag)])
    for part in range(PARTS - 1):
        write(lines("written", tag, part))
        time.sleep(PAUSE_S)
    return [lines("written", tag, PARTS - 1)]


def large(tag: str, _: Environ, start: Start) -> list[bytes]:
    """More than the socket's buffers take at once."""
    start("200 OK", [*PLAIN, ("X-Tag", tag)])
    return [lines("large", tag)] * LARGE_LINES


def posted(tag: str, environ: Environ, start: Start) -> list[bytes]:
    content = environ["wsgi.input"].read()
    start("200 OK", [*PLAIN, ("X-Tag", tag)])
    return [content, whole("posted", tag)]


def failing(tag: str, _: Environ, __: Start) -> list[bytes]:
    if sum(tag.encode()) % 2:
        time.sleep(0.005)
    raise Failure(tag)


def broken(tag: str, _: Environ, start: Start) -> Iterator[bytes]:
    """Fails in the middle of its content."""
    start("200 OK", [*PLAIN, ("X-Tag", tag)])
    yield lines("broken", tag, 0)
    time.sleep(PAUSE_S)
    yield lines("broken", tag, 1)
    raise Failure(tag)


class Closing:
    """An iterable whose close() takes its time."""

    def __init__(self, items: Iterable[bytes], done: Callable[[], None]) -> None:
        self._items = iter(items)
        self._done = done

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._items)

    def close(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()
        self._done()


def closing(tag: str, _: Environ, start: Start) -> Closing:
    ident = threading.get_ident()
    start("200 OK", [*with_length(len(whole("closing", tag))), ("X-Tag", tag)])

    def close() -> None:
        RECORD.check(ident, tag)
        time.sleep(0.005)

    return Closing([whole("closing", tag)], close)


KINDS: dict[str, Callable[[str, Environ, Start], Iterable[bytes]]] = {
    shape.__name__: shape
    for shape in (
        quick, blocking, computing, fickle, streaming, flowing, written, large, posted, failing, broken, closing,
    )
}  # fmt: skip

WORK: dict[str, float] = {"blocking": WORK_S, "computing": WORK_S, "streaming": PARTS * PAUSE_S}


def expected(kind: str, tag: str, content: bytes = b"") -> Expected:
    """What the client of this request must get."""
    work_s = WORK.get(kind, 0.0)
    if kind == "failing":
        return Expected(500, b"")
    if kind == "broken":
        return Expected(200, lines(kind, tag, 0) + lines(kind, tag, 1), cut=True)
    if kind == "large":
        return Expected(200, lines(kind, tag) * LARGE_LINES)
    return Expected(200, content + whole(kind, tag), work_s=work_s)


# --- around them ------------------------------------------------------------------------------------------------------


def state(_: Environ, start: Start) -> list[bytes]:
    """What was counted; without calls of the routes that serve the tests."""
    gc.collect()
    objects = Counter(type(thing).__name__ for thing in gc.get_objects())
    with RECORD.lock:
        content = json.dumps({
            "calls": RECORD.calls,
            "threads": RECORD.threads,
            "inside": RECORD.inside,
            "most_inside": RECORD.most_inside,
            "breaches": RECORD.breaches,
            "events": list(RECORD.events),
            "begun": list(RECORD.begun),
            "exchanges": objects["Exchange"],
            "connections": objects["Connection"],
        }).encode()  # fmt: skip
    start("200 OK", with_length(len(content)))
    return [content]


def wait_for_file(path: str) -> None:
    end_at = time.monotonic() + GATE_S
    while not Path(path).exists() and time.monotonic() < end_at:
        time.sleep(0.002)


def gate(environ: Environ, start: Start) -> list[bytes]:
    """Waits for a file; the file PATH.NAME says that it is there."""
    path, _, name = environ["QUERY_STRING"].partition("&")
    RECORD.begun.append(name)
    Path(f"{path}.{name}").touch()
    try:
        wait_for_file(path)
    except BaseException as error:
        RECORD.events.append(f"gate raised {type(error).__name__}")
        raise
    start("200 OK", with_length(6))
    return [b"opened"]


def gated_parts(environ: Environ, start: Start) -> Iterator[bytes]:
    """One part at once, the second behind a file."""
    start("200 OK", PLAIN)
    yield b"first "
    wait_for_file(environ["QUERY_STRING"])
    yield b"second"


def gated_write(environ: Environ, start: Start) -> list[bytes]:
    """The same by write()."""
    write = start("200 OK", PLAIN)
    write(b"first ")
    wait_for_file(environ["QUERY_STRING"])
    return [b"second"]


def gated_close(environ: Environ, start: Start) -> Closing:
    """close() waits for a file."""
    path = environ["QUERY_STRING"]

    def close() -> None:
        RECORD.events.append("close begins")
        wait_for_file(path)
        RECORD.events.append("close ends")

    start("200 OK", with_length(6))
    return Closing([b"closed"], close)


def ticking(environ: Environ, start: Start) -> Iterator[bytes]:
    """A tick now and then, for at most 10 s; notes its end."""
    start("200 OK", PLAIN)
    count = 0
    try:
        while count < 500:
            yield b"tick\n"
            count += 1
            time.sleep(0.02)
    finally:
        RECORD.events.append(f"ended after {count}, gone {environ['epollwsgi.client_gone']()}")


SERVANTS: dict[str, App] = {
    f"/{servant.__name__}": servant for servant in (state, gate, gated_parts, gated_write, gated_close, ticking)
}


def app(environ: Environ, start: Start) -> Any:
    path = environ["PATH_INFO"]
    servant = SERVANTS.get(path)
    if servant is not None:
        return servant(environ, start)
    tag = environ["QUERY_STRING"]
    ident = RECORD.enter(tag)
    stays = False
    try:
        answer = KINDS[path.split("/")[1]](tag, environ, start)
        if not isinstance(answer, list):
            stays = True
            return Closing(answer, lambda: RECORD.leave(ident, tag)) if len(tag) % 2 else left(answer, ident, tag)
        return answer
    finally:
        if not stays:
            RECORD.leave(ident, tag)


def left(answer: Iterable[bytes], ident: int, tag: str) -> Iterator[bytes]:
    """The answer as a generator, whose end ends the call; begun at once, so that closing it always gets there."""
    parts = ending(answer, ident, tag)
    next(parts)
    return parts


def ending(answer: Iterable[bytes], ident: int, tag: str) -> Iterator[bytes]:
    try:
        yield b""
        yield from answer
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        RECORD.leave(ident, tag)
