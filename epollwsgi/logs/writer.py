"""A thread of its own for what logs must wait for: syslog, and whatever handlers an operator configured.

    any thread: put(item) --> queue, bounded --> thread: handle(item)

`put` never waits: what finds the queue full is lost and counted, and so is what `handle` loses; the count is reported
with the next item that is written, at most once a second. The thread starts with the first item, in the process that
has something to write. It does not survive a fork, nor does a child write what its parent has queued. Used by
`syslog` and `python_logging`.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from time import monotonic
from typing import Any, Final, Generic, TypeVar

Item = TypeVar("Item")
Line = TypeVar("Line")

MOST_WAITING: Final = 512  # items; each is a line of the error log, or up to LINES_PER_ITEM of the access log
OWN_WAITING: Final = 16  # beyond these, for what the thread itself has to say: reports, not to be lost in turn
LINES_PER_ITEM: Final = 64
ITEM_SIZE: Final = 16 * 1024  # characters; clients choose how long lines are, and a queue of them must stay small
FORK_PATIENCE_S: Final = 0.2
FLUSH_PATIENCE_S: Final = 0.5
REPORT_INTERVAL_S: Final = 1.0


class Writer(Generic[Item]):
    """See the module."""

    def __init__(
        self,
        name: str,
        handle: Callable[[Item], tuple[int, str]],
        report: Callable[[str], None],
        on_fork: Callable[[], None] | None = None,
    ) -> None:
        """name: of what is written to, in reports.  handle: writes, and says how many lines that lost, and why.

        on_fork: called in every child of this process, to let go of what belongs to its parent.
        """
        self._name = name
        self._handle = handle
        self._report = report
        self._on_fork = on_fork
        self.lost_count = 0
        self.lost_reason = ""
        self._report_at = 0.0
        self._is_child = False  # a worker, whose forks are the application's
        self._is_pausing = False
        self._forget()
        reference = weakref.ref(self)
        os.register_at_fork(
            before=lambda: _call(reference, Writer._pause),
            after_in_parent=lambda: _call(reference, Writer._go_on),
            after_in_child=lambda: _call(reference, Writer._leave_parent),
        )

    def _forget(self) -> None:
        self._lock = threading.RLock()  # a handler of a signal may log while its thread does
        self._queue: SimpleQueue[tuple[Item | threading.Event | None, int]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_stuck = False

    # --- any thread -------------------------------------------------------------------------------------------------

    def put(self, item: Item, count: int = 1) -> None:
        """Have an item written that stands for so many lines."""
        with self._lock:
            is_own = threading.current_thread() is self._thread
            if self._queue.qsize() >= MOST_WAITING + (OWN_WAITING if is_own else 0):
                self._lose(count, "it does not keep up")
            elif self._has_thread():
                self._queue.put((item, count))
            else:
                self._lose(count, "no thread can be started")

    def flush(self, patience_s: float = FLUSH_PATIENCE_S) -> bool:
        """Wait until all is written that was put so far, but not longer than that; whether it is.

        Where that was in vain before, and nothing has been written since, it does not wait once more.
        """
        with self._lock:
            if self._queue.empty() and (self._thread is None or not self._thread.is_alive()):
                return True
            if not self._has_thread():
                return False
            patience_s = 0.0 if self._is_stuck else patience_s
            done = threading.Event()
            self._queue.put((done, 0))
        self._is_stuck = not done.wait(patience_s)
        return not self._is_stuck

    def _has_thread(self) -> bool:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._serve, args=(self._queue,), name="epollwsgi-log", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # pthread_create(3), EAGAIN
                self._thread = None
                return False
        return True

    def _lose(self, count: int, reason: str) -> None:
        with self._lock:
            self.lost_count += count
            self.lost_reason = reason

    # --- the thread -------------------------------------------------------------------------------------------------

    def _serve(self, queue: SimpleQueue[Any]) -> None:
        while not self._is_pausing:
            item, count = queue.get()
            self._is_stuck = False
            if isinstance(item, threading.Event):
                item.set()
            elif item is not None:
                self._write(item, count)

    def _write(self, item: Item, count: int) -> None:
        try:
            lost, reason = self._handle(item)
        except Exception as error:
            lost, reason = count, str(error) or type(error).__name__
        if lost:
            self._lose(lost, reason)
        elif self.lost_count and monotonic() >= self._report_at:
            with self._lock:
                lost, self.lost_count = self.lost_count, 0
            self._report_at = monotonic() + REPORT_INTERVAL_S
            self._report(f"{lost} lines for {self._name} were lost: {self.lost_reason}")

    # --- forks ------------------------------------------------------------------------------------------------------

    def _pause(self) -> None:
        """In a master, before it forks: no thread of ours may hold a lock that the child then waits for."""
        if self._thread is not None and self._thread.is_alive() and not self._is_child:
            self._is_pausing = True
            self._queue.put((None, 0))
            self._thread.join(FORK_PATIENCE_S)

    def _go_on(self) -> None:
        self._is_pausing = False
        with self._lock:
            if self._thread is not None and not self._queue.empty():
                self._has_thread()

    def _leave_parent(self) -> None:
        self._is_child = True
        self._is_pausing = False
        self.lost_count = 0
        self._forget()
        if self._on_fork is not None:
            self._on_fork()


def split(lines: Sequence[Line], size_of: Callable[[Line], int]) -> Iterator[list[Line]]:
    """Lines in parts that are fit to be items: not too many, and not too much."""
    part: list[Line] = []
    size = 0
    for line in lines:
        part.append(line)
        size += size_of(line)
        if size >= ITEM_SIZE or len(part) >= LINES_PER_ITEM:
            yield part
            part, size = [], 0
    if part:
        yield part


def _call(reference: weakref.ref[Writer[Any]], method: Callable[[Writer[Any]], None]) -> None:
    """What is registered for forks cannot be taken back, so it must not keep a writer alive."""
    writer = reference()
    if writer is not None:
        method(writer)
