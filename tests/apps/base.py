"""What the test applications share: types, the list of what happened, an iterator that notes what is asked of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, Start], Any]

EVENTS: list[str] = []
THREADS: dict[int, int] = {}
PLAIN = [("Content-Type", "text/plain")]
FIRST, SECOND = b"first ", b"second"


def note(word: str) -> None:
    number = THREADS.setdefault(threading.get_ident(), len(THREADS))
    EVENTS.append(f"{word} {number}")


class Items:
    """An iterator that notes what is asked of it; an item that is an exception is raised."""

    def __init__(self, *items: bytes | BaseException, close: BaseException | None = None) -> None:
        self.items = iter(items)
        self.close_error = close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        note("next")
        item = next(self.items)
        if isinstance(item, BaseException):
            raise item.with_traceback(None)  # the same one each time: it must not gather tracebacks
        return item

    def close(self) -> None:
        note("close")
        if self.close_error is not None:
            raise self.close_error.with_traceback(None)


class Lines(list[bytes]):
    """A list with close(), as some frameworks make."""

    def close(self) -> None:
        note("close")


def with_length(size: int) -> list[tuple[str, str]]:
    return [*PLAIN, ("Content-Length", str(size))]
