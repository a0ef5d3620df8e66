"""A thread beside the loop for what may wait or take long: disks, checksums, compression, long listings.

    loop: run(work, done) --> queue --> thread: work() --> loop.call_soon --> loop: done(result)

`done` runs in the loop's next turn, on the thread that leads it; nothing else is shared. The thread is started with
the first job and waits until `close`; a process that ends does not wait for it. Owned by `service`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")
Job = tuple[Callable[[], Any], Callable[[Any], None]]

MAX_WAITING: Final = 4096


class Helper:
    """See the module. `run` is called by the loop only."""

    def __init__(self, name: str, call_soon: Callable[[Callable[[], None]], None], log: Callable[[str], None]) -> None:
        self._name = name
        self._call_soon = call_soon
        self._log = log
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # None: there is nothing more to come
        self._thread: threading.Thread | None = None

    def run(self, work: Callable[[], T], done: Callable[[T], None]) -> bool:
        """Call done(work()), work on the thread; False where too much waits, or where there can be no thread.

        work must not raise: what it raises is logged, and `done` is not called.
        """
        if self._jobs.qsize() >= MAX_WAITING:
            return False
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads: pthread_create(3), EAGAIN
                self._log(f"the thread {self._name} could not be started: {error}")
                return False
            self._thread = thread
        self._jobs.put((work, done))
        return True

    def close(self, timeout_s: float) -> None:
        """The loop has ended: let the thread end after what it has begun, and wait so long for that."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout_s)

    def _serve(self) -> None:
        """The thread."""
        while (job := self._jobs.get()) is not None:
            self._do(*job)
            del job  # nothing of the last job is held while waiting for the next

    def _do(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        try:
            result = work()
        except Exception as error:
            self._log(f"the thread {self._name} failed in {work!r}: {error!r}")
            return
        self._call_soon(lambda: done(result))


def run_here(work: Callable[[], T], done: Callable[[T], None]) -> bool:
    """In the place of Helper.run where there is no loop: everything at once."""
    done(work())
    return True
