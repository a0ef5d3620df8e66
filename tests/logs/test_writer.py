"""The thread behind slow logs: order, loss, forks, and an end that waits no longer than it says."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from epollwsgi.logs.writer import FORK_PATIENCE_S, MOST_WAITING, Writer
from tests.support import wait_until

PATIENCE_S = 20.0


class Slow:
    """Handles numbers, once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.began = threading.Event()
        self.handled: list[int] = []
        self.reports: list[str] = []
        self.failure = ""
        self.forks = 0
        self.writer = Writer("slow", self.handle, self.reports.append, self.on_fork)

    def handle(self, number: int) -> tuple[int, str]:
        self.began.set()
        self.may.wait(PATIENCE_S)
        if number < 0:
            raise ValueError("negative")
        if self.failure:
            return 1, self.failure
        self.handled.append(number)
        return 0, ""

    def on_fork(self) -> None:
        self.forks += 1


@pytest.fixture
def slow() -> Iterator[Slow]:
    found = Slow()
    yield found
    found.may.set()
    assert found.writer.flush(PATIENCE_S)


def in_child(check: object) -> int:
    """Fork; the exit code of the child, which is 0 if `check` returns True."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            code = 0 if check() else 2  # type: ignore[operator]
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_order_is_kept(slow: Slow) -> None:
    slow.may.set()
    for number in range(MOST_WAITING // 2):
        slow.writer.put(number)
    assert slow.writer.flush(PATIENCE_S)
    assert slow.handled == list(range(MOST_WAITING // 2))
    assert slow.reports == []


def test_what_does_not_fit_is_counted_and_reported(slow: Slow) -> None:
    slow.writer.put(0)
    assert slow.began.wait(PATIENCE_S)
    for number in range(MOST_WAITING + 10):
        slow.writer.put(number, 3)
    assert slow.writer.lost_count == 30
    assert not slow.writer.flush(0.01), "it is still stuck"
    began_at = time.monotonic()
    assert not slow.writer.flush(PATIENCE_S)
    assert time.monotonic() - began_at < PATIENCE_S, "waited in vain once more"
    slow.may.set()
    wait_until(lambda: slow.reports, PATIENCE_S, "the report")
    assert slow.reports == ["30 lines for slow were lost: it does not keep up"]
    assert slow.writer.lost_count == 0


def test_failures_are_counted_and_do_not_end_the_thread(slow: Slow) -> None:
    slow.may.set()
    slow.writer.put(-1, 5)
    slow.failure = "no network"
    slow.writer.put(1)
    assert slow.writer.flush(PATIENCE_S)
    assert slow.writer.lost_count == 6
    slow.failure = ""
    slow.writer.put(2)
    assert slow.writer.flush(PATIENCE_S)
    assert slow.reports == ["6 lines for slow were lost: no network"]
    assert slow.handled == [2]


def test_a_flush_of_nothing_starts_no_thread(slow: Slow) -> None:
    before = threading.active_count()
    assert slow.writer.flush(0)
    assert threading.active_count() == before


def test_a_child_writes_its_own_items_and_none_of_its_parents(slow: Slow) -> None:
    slow.writer.put(1)
    assert slow.began.wait(PATIENCE_S)
    slow.writer.put(2)

    def check() -> bool:
        slow.may.set()
        slow.writer.put(3)
        return slow.writer.flush(PATIENCE_S) and slow.handled == [3] and slow.forks == 1

    assert in_child(check) == 0
    slow.may.set()
    assert slow.writer.flush(PATIENCE_S)
    assert slow.handled == [1, 2]
    assert slow.forks == 0


def test_its_thread_ends_before_a_fork_and_another_goes_on_after(slow: Slow) -> None:
    slow.may.set()
    slow.writer.put(1)
    assert slow.writer.flush(PATIENCE_S)
    thread = slow.writer._thread
    assert thread is not None
    slow.writer._pause()
    assert not thread.is_alive()
    slow.writer.put(2)
    slow.writer._go_on()
    assert slow.writer.flush(PATIENCE_S)
    assert slow.handled == [1, 2]


def test_a_fork_waits_for_a_stuck_handler_no_longer_than_it_says(slow: Slow) -> None:
    slow.writer.put(1)
    assert slow.began.wait(PATIENCE_S)
    began_at = time.monotonic()
    assert in_child(lambda: True) == 0
    assert time.monotonic() - began_at >= FORK_PATIENCE_S, "it gave the handler its time"
    slow.may.set()
    slow.writer.put(2)
    assert slow.writer.flush(PATIENCE_S)
    assert slow.handled == [1, 2]


def test_a_forgotten_writer_costs_a_fork_nothing() -> None:
    forks = []
    writer: Writer[int] | None = Writer("x", lambda item: (0, ""), print, lambda: forks.append(1))
    del writer
    assert in_child(lambda: not forks) == 0
