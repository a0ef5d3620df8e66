"""The helper thread of a worker, by the real code of `Helper` and `Loop`: each job is worked on once, in turn, and the
loop is told of each once, whether it sleeps meanwhile or not; at the end the thread ends after what it has begun.

All schedules (see `schedule`) with up to two deviations are walked. The variants at the end are wrong, and found to be.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from epollwsgi import helper, loop
from epollwsgi.helper import Helper
from tests.model.schedule import FOREVER, Broken, Run, SharedDeque, Threading, explore, monotonic, run
from tests.model.test_return import StagedLoop, deque_length

JOBS = ["first", "second"]


class Queue:
    """queue.SimpleQueue of a run."""

    def __init__(self) -> None:
        self.items = SharedDeque()

    def put(self, item: Any) -> None:
        self.items.append(item)

    def get(self) -> Any:
        run().block(lambda: deque_length(self.items) > 0, FOREVER, "a job")
        return self.items.popleft()

    def qsize(self) -> int:
        return len(self.items)


class Stage:
    """A loop whose requests have something for the helper to do."""

    def __init__(self, one: Run) -> None:
        self.loop = StagedLoop(b"")
        self.loop.running = True
        self.worked: list[str] = []
        self.told: list[str] = []
        self.helper = Helper("helper", self.loop.call_soon, one.fail)
        one.add(self._lead, "loop")
        one.add(self._ask, "client")

    def _ask(self) -> None:
        for name in JOBS:
            self.loop.call_soon(partial(self._begin, name))

    def _begin(self, name: str) -> None:
        def work() -> str:
            self.worked.append(name)
            return name

        run().check(self.helper.run(work, self._done), "a job is refused")

    def _done(self, name: str) -> None:
        actor = run().current
        run().check(actor is not None and actor.name == "loop", "another thread than the loop's is told")
        self.told.append(name)
        self.loop.running = len(self.told) < len(JOBS)

    def _lead(self) -> None:
        self.loop.run()
        self.helper.close(FOREVER)
        thread: Any = self.helper._thread
        run().check(self.worked == self.told == JOBS, f"worked {self.worked}, told {self.told}")
        run().check(thread.actor.is_done, "the thread goes on")


@pytest.fixture(autouse=True)
def staged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "monotonic", monotonic)
    monkeypatch.setattr(helper, "threading", Threading)
    monkeypatch.setattr(helper, "SimpleQueue", Queue)


def walk(deviations: int = 2) -> int:
    """How many schedules there are."""
    stages: list[Stage] = []

    def builder(one: Run) -> None:
        close()
        stages.append(Stage(one))

    def close() -> None:
        while stages:
            stages.pop().loop.close()

    try:
        return explore(builder, deviations)
    finally:
        close()


def test_each_job_is_done_once_and_told_once() -> None:
    assert walk() > 100


# --- wrong variants -------------------------------------------------------------------------------------------------


def test_a_result_that_wakes_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "_ask", lambda self: [self._begin(name) for name in JOBS])
    monkeypatch.setattr(StagedLoop, "call_soon", lambda self, call: self.calls.append(call))
    with pytest.raises(Broken, match="wait for ever: loop"):
        walk()


def test_a_result_told_on_the_thread_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Helper, "_do", lambda self, work, done: done(work()))
    with pytest.raises(Broken, match="another thread"):
        walk(0)


def test_two_threads_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by each job: at the end one of them waits for ever."""
    started = Helper.run

    def start_anew(self: Helper, work: Any, done: Any) -> bool:
        self._thread = None
        return started(self, work, done)

    monkeypatch.setattr(Helper, "run", start_anew)
    with pytest.raises(Broken, match="wait for ever: loop, helper"):
        walk()
