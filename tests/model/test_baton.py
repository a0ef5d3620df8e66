"""The baton and parking, by the real code: whatever the order, one thread leads, and never none for ever; a watch that
parks is woken by a call; each request is answered once.

All schedules (see `schedule`) with up to as many deviations as stand beside each scene are walked. What must always
hold stands in `stage`. The variants at the end are wrong, and found to be: so the walk would find it here.
"""

from __future__ import annotations

from typing import Any

import pytest

from epollwsgi.baton import Baton
from epollwsgi.config.settings import Settings
from epollwsgi.crew import Crew
from tests.model.schedule import Broken, explore, run
from tests.model.stage import (
    Held,
    Scene,
    SharedBaton,
    SharedCrew,
    Stage,
    answer,
    answer_after,
    put_on_stage,
    request,
    scene,
    stream,
)


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_stage(monkeypatch)


QUICK, SLOW = request(answer), request(answer_after(0.1))
JUST_SLOW = request(answer_after(0.004))  # it comes back just when the watch looks for the second time

# name: threads, the script, how many deviations
SCENES: dict[str, tuple[int, list[Scene], int]] = {
    "a quick call": (2, [QUICK], 3),
    "a slow call": (2, [SLOW], 2),
    "a call that comes back just then": (2, [JUST_SLOW], 2),
    "a call that comes back just then, and a quick one": (2, [JUST_SLOW, QUICK], 2),
    "two slow calls": (2, [SLOW, SLOW], 1),
    "three slow calls": (2, [SLOW, SLOW, SLOW], 1),
    "two that come back just then, and one": (3, [JUST_SLOW, JUST_SLOW, QUICK], 1),
    "a stream with pauses": (2, [request(stream(0, 0.004, 0.1)), QUICK], 1),
    "one thread: a slow call": (1, [SLOW], 2),
    "one thread: a call that comes back just then": (1, [JUST_SLOW], 2),
    "one thread: quick ones beside a slow one": (1, [SLOW, QUICK, QUICK], 1),
    "one thread: two that come back just then, and one": (1, [JUST_SLOW, JUST_SLOW, QUICK], 1),
}


@pytest.mark.parametrize("name", SCENES)
def test_one_leads(name: str) -> None:
    threads, parts, deviations = SCENES[name]
    assert explore(scene(Settings(threads=threads), *parts), deviations) > 10


def test_the_end_leaves_nobody_behind() -> None:
    explore(scene(Settings(threads=2), JUST_SLOW, QUICK, always=True), deviations=1)
    explore(scene(Settings(threads=1), JUST_SLOW, QUICK, always=True), deviations=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_end_does_not_wait_for_a_call(threads: int) -> None:
    """graceful_timeout is over: the loop ends beside a call, and whoever made it ends when that is back."""
    explore(scene(Settings(threads=threads), SLOW, Stage.end, always=True), deviations=1)


# --- wrong variants -------------------------------------------------------------------------------------------------


class Anonymous(Held):
    """A token without a name: whoever comes takes the one that is there."""

    def pop(self, key: Any, *default: Any) -> Any:
        run().step(f"{self.label}.pop", id(self))
        for held in dict.keys(self):
            return dict.pop(self, held)
        return default[0]


def test_a_token_without_a_name_makes_two_leaders_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = SharedBaton.__init__

    def prepare_anonymous(self: SharedBaton) -> None:
        prepare(self)
        self.held = Anonymous()

    monkeypatch.setattr(SharedBaton, "__init__", prepare_anonymous)
    with pytest.raises(Broken, match=r"two lead|never answered|do not come to an end"):
        explore(scene(Settings(threads=2), SLOW, request(answer_after(0.5))), deviations=1)


def test_a_watch_that_looks_once_takes_what_has_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch must take the token, and not only look at it."""

    def take_over(self: SharedCrew, exchange: Any, clock: float) -> None:
        held = exchange in self.baton.held
        self.baton.held[exchange] = True
        if held:
            Crew._take_over(self, exchange, clock)

    monkeypatch.setattr(SharedCrew, "_take_over", take_over)
    with pytest.raises(Broken):
        explore(scene(Settings(threads=2), JUST_SLOW, QUICK), deviations=2)


def test_a_watch_that_looks_before_it_sets_its_flag_sleeps_beside_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def park(self: Baton, seconds: float) -> None:
        if not self.held:
            self.is_parked = True
            self.wait(seconds)
        self.is_parked = False

    monkeypatch.setattr(SharedBaton, "park", park)
    with pytest.raises(Broken, match="parks beside a call"):
        explore(scene(Settings(threads=2), SLOW, always=True), deviations=2)
