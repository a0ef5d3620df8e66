"""Queue, permits and seats, by the real code: nothing stays queued beside a free permit and a seat that stands by;
never more than `threads` are in the application; seats end by idling, and none is missed.

All schedules (see `schedule`) with up to as many deviations as stand beside each scene are walked. What must always
hold stands in `stage`. The variants at the end are wrong, and found to be.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from epollwsgi.config.settings import Settings
from epollwsgi.crew import IDLE_S
from epollwsgi.seats import Order
from tests.model.schedule import Broken, Run, explore
from tests.model.stage import Scene, SharedCrew, Stage, answer, answer_after, put_on_stage, request, scene


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_stage(monkeypatch)


HANDED = request(answer, slow=True)
HANDED_SLOW = request(answer_after(0.1), slow=True)
INLINE = request(answer)
INLINE_SLOW = request(answer_after(0.1))


def idle(stage: Stage) -> None:
    """So long that seats end."""
    stage.pause(IDLE_S * 1.5)


def pause(stage: Stage) -> None:
    """A little longer than BRIEF takes."""
    stage.pause(0.011)


BRIEF = request(answer_after(0.01), slow=True)
# One permit is with a call that overruns, the other comes back just when the last request is queued.
JUST_THEN = [request(answer_after(0.5)), BRIEF, pause, HANDED]

# name: threads, the script, how many deviations
SCENES: dict[str, tuple[int, list[Scene], int]] = {
    "one for a thread": (2, [HANDED], 2),
    "two for threads": (2, [HANDED, HANDED], 1),
    "more than threads": (2, [HANDED_SLOW, HANDED, HANDED], 1),
    "after the leader's own": (2, [INLINE, HANDED, HANDED], 1),
    "beside a call that overruns": (2, [INLINE_SLOW, HANDED, HANDED], 1),
    "the leader has no permit left": (2, [HANDED_SLOW, HANDED_SLOW, INLINE], 1),
    "queued just when a seat looks for the last time": (2, JUST_THEN, 1),
    "three threads": (3, [HANDED_SLOW, HANDED, INLINE_SLOW, HANDED], 1),
    "seats that end": (2, [HANDED_SLOW, HANDED, idle, HANDED, INLINE], 1),
    "one thread": (1, [INLINE_SLOW, INLINE, INLINE], 1),
}


@pytest.mark.parametrize("name", SCENES)
def test_nothing_is_left_behind(name: str) -> None:
    threads, parts, deviations = SCENES[name]
    assert explore(scene(Settings(threads=threads), *parts), deviations) > 10


def test_a_queue_that_expires_beside_threads_that_take_from_it() -> None:
    settings = Settings(threads=2, queue_timeout=0.4)
    statuses: set[tuple[int, ...]] = set()

    def builder(one: Run) -> Callable[[], None]:
        slow = answer_after(0.5)  # until the leader looks at the queue
        stage = Stage(one, settings)
        for number in range(3):
            request(slow, slow=True)(stage)
            assert len(stage.loop.clients) == number + 1

        def judge() -> None:
            stage.judge()
            statuses.add(tuple(client.status for client in stage.loop.clients))

        return judge

    explore(builder, deviations=1)
    assert statuses >= {(200, 200, 200), (200, 200, 503)}


# --- wrong variants -------------------------------------------------------------------------------------------------


def work_without_looking_again(self: SharedCrew, seat: Any) -> None:
    while True:
        try:
            exchange = self.queue.popleft()
        except IndexError:
            self.at_work.pop(seat, None)
            self.permits.append(1)
            return
        self._run(seat, exchange)


def stand_by_without_looking(self: SharedCrew, seat: Any) -> None:
    self.standby.append(seat)
    if self.is_stopping:
        with suppress(ValueError):
            self.standby.remove(seat)
            seat.give(Order.END)


def test_a_request_is_left_where_nobody_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedCrew, "_work", work_without_looking_again)
    monkeypatch.setattr(SharedCrew, "_stand_by", stand_by_without_looking)
    with pytest.raises(Broken, match="is queued beside"):
        explore(scene(Settings(threads=2), *JUST_THEN), deviations=1)


def test_a_permit_that_is_given_back_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_without_permit(self: SharedCrew, seat: Any, exchange: Any) -> None:
        self.permits.append(1)
        original(self, seat, exchange)
        self.permits.popleft()

    original = SharedCrew._run
    monkeypatch.setattr(SharedCrew, "_run", run_without_permit)
    with pytest.raises(Broken, match="in the application at once"):
        explore(scene(Settings(threads=2), HANDED_SLOW, HANDED_SLOW, INLINE_SLOW), deviations=1)
