"""When a worker steps aside, and when it comes back: the rule of `epollwsgi.spread`, with a scoreboard and a loop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from epollwsgi import spread
from epollwsgi.loop import Loop
from epollwsgi.scoreboard import Column, Scoreboard, Slot
from epollwsgi.spread import ACCEPTS_PER_TURN, Spread


@dataclass
class Door:
    """A member that only notes whether it is in epoll."""

    is_in: bool = True
    waits: bool = False
    spread: Spread | None = field(default=None, repr=False)
    moves: list[bool] = field(default_factory=list)

    def settle(self) -> None:
        assert self.spread is not None
        if self.is_in is self.spread.is_away:
            self.is_in = not self.spread.is_away
            self.moves.append(self.is_in)
            self.spread.note_listening()

    def has_waiting(self) -> bool:
        return self.waits


class Bench:
    """A scoreboard whose slot 0 is a worker under test, the others are as a test wants them."""

    def __init__(self) -> None:
        self.board = Scoreboard.create()
        self.loop = Loop()
        self.connections: set[int] = set()
        self.mine = self.board.slot(self.board.claim())
        self.mine.state = Slot.READY
        self.spread = Spread(self.mine, self.loop, self.connections)
        self.door = Door(spread=self.spread)
        self.spread.members.append(self.door)
        self.spread.note_listening()

    def close(self) -> None:
        self.loop.close()
        self.board.close()

    def add_other(self, connections: int, *, listens: bool = True, state: Slot = Slot.READY) -> int:
        slot = self.board.claim()
        other = self.board.slot(slot)
        other.connections, other.listening, other.state = connections, listens, state
        return slot

    def hold(self, count: int) -> None:
        """This worker has so many connections from now on."""
        self.connections.clear()
        self.connections.update(range(count))

    def has_rung(self) -> bool:
        """Whether the bell was rung since somebody asked."""
        try:
            return os.eventfd_read(self.board.bell) > 0
        except BlockingIOError:
            return False

    def run_until_back(self, timeout_s: float) -> int:
        """Turns of the loop until the worker has come back; how many. It must wake up by itself, and in time."""
        count = 0
        end_at = time.monotonic() + timeout_s
        while self.spread.is_away:
            assert time.monotonic() < end_at, f"away for more than {timeout_s:g} s"
            self.loop.turn()
            count += 1
        return count


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("own", "others", "allowed"),
    [
        (0, [0, 0, 0], 8),
        (5, [0, 0, 0], 3),
        (7, [900, 900], 1),  # the cheap answer; the next turn gives the right one
        (8, [0, 0, 0], 2),  # 2 + 8
        (9, [0, 0, 0], 1),
        (500, [0, 0, 0], 1),
        (8, [40, 40, 40], 32),  # 32 + 8
        (100, [150, 150], 50),  # 133.3 + 16.7
        (100, [1000, 1000, 1000], ACCEPTS_PER_TURN),
        (500, [], ACCEPTS_PER_TURN),
        (3, [], ACCEPTS_PER_TURN),
    ],
)
def test_allowance(bench: Bench, own: int, others: list[int], allowed: int) -> None:
    """Up to the mean and its margin, at least one, and no bound but the turn's where there is nobody else."""
    for connections in others:
        bench.add_other(connections)
    bench.hold(own)
    bench.mine.connections = own
    assert bench.spread.allowance() == allowed


@pytest.mark.parametrize(
    ("own", "others", "leaves"),
    [
        (8, [0, 0, 0], False),
        (10, [0, 0, 0], False),  # 2.5 + 8
        (11, [0, 0, 0], True),  # 2.75 + 8
        (100, [99, 99, 99], False),
        (130, [110, 110], False),  # 116.7 + 14.6
        (140, [110, 110], True),  # 120 + 15
        (140, [], False),
    ],
)
def test_who_leaves(bench: Bench, own: int, others: list[int], leaves: bool) -> None:
    for connections in others:
        bench.add_other(connections)
    bench.hold(own)
    bench.spread.on_accepted()
    assert bench.mine.connections == own
    assert bench.spread.is_away is leaves
    assert bench.door.is_in is not leaves
    assert bench.mine.listening == (not leaves)


@pytest.mark.parametrize(
    ("why", "leaves", "rings"),
    [
        ("", True, False),
        ("does not listen", True, True),
        ("is not ready", False, False),
        ("drains", False, False),
        ("is silent", False, False),
        ("is not lighter", False, False),
        ("stops as all do", False, False),
    ],
)
def test_somebody_has_to_take_what_it_leaves(bench: Bench, why: str, leaves: bool, rings: bool) -> None:
    """It leaves only where a living worker, lighter and ready, takes what it does not take, or may be called."""
    slots = [bench.add_other(0) for _ in range(5)]  # silent, so that nothing but the mean changes by them
    slots += [
        bench.add_other(
            90 if why == "is not lighter" else 0,
            listens=why != "does not listen",
            state={"is not ready": Slot.BOOTING, "drains": Slot.DRAINING}.get(why, Slot.READY),
        )
    ]
    for slot in slots if why == "is silent" else slots[:-1]:
        bench.board.columns[Column.BEAT_NS][slot] -= 2 * spread.SILENT_NS
    bench.board.is_stopping = why == "stops as all do"
    bench.hold(90)
    bench.spread.on_accepted()
    assert bench.spread.is_away is leaves
    assert bench.door.moves == [False] * leaves
    assert bench.has_rung() is rings


def test_the_last_one_calls_the_others(bench: Bench) -> None:
    """It steps aside for a moment; where nobody comes it is back soon, and stays until somebody lighter listens."""
    other = bench.board.slot(bench.add_other(0, listens=False))
    bench.hold(40)
    bench.spread.on_accepted()
    assert bench.has_rung()
    bench.run_until_back(sum(spread.LOOKS_S) / 2)
    for _ in range(3):
        bench.spread.on_accepted()
    assert bench.door.moves == [False, True]
    assert not bench.has_rung()
    other.listening = True
    bench.spread.on_accepted()
    assert bench.door.moves == [False, True, False]
    other.listening = False
    bench.hold(0)
    bench.spread.on_closed()
    bench.hold(40)
    bench.spread.on_accepted()
    assert bench.has_rung(), "it may call again"


def test_of_two_that_leave_together_one_sees_it(bench: Bench) -> None:
    """The lighter one says that it leaves between the first look and the second: it is called, or not left alone."""
    other = bench.board.slot(bench.add_other(0))

    class Interrupted(Door):
        def settle(self) -> None:
            super().settle()
            other.listening = False

    door = Interrupted(spread=bench.spread)
    bench.spread.members[:] = [door]
    bench.hold(40)
    bench.spread.on_accepted()
    assert bench.has_rung()
    bench.run_until_back(sum(spread.LOOKS_S) / 2)
    other.listening = True
    bench.spread.on_accepted()
    assert door.moves == [False, True, False, True], "it did not come before: no use in calling"
    assert not bench.has_rung()
    assert bench.mine.listening


def test_the_bell_brings_it_back(bench: Bench) -> None:
    """When it is called and no longer over; and no bell is heard by who listens."""
    leave(bench)
    bench.board.ring()
    bench.loop.turn()
    assert bench.spread.is_away, "it still is over"
    for slot in (1, 2, 3):
        bench.board.slot(slot).connections = 40
    bench.loop._later.clear()  # it will not look by itself
    bench.board.ring()
    bench.loop.turn()
    assert bench.door.moves == [False, True]
    bench.board.ring()
    assert bench.loop.epoll.poll(0) == []


def leave(bench: Bench, others: tuple[int, ...] = (0, 0, 0)) -> None:
    for connections in others:
        bench.add_other(connections)
    bench.loop.wake()
    bench.loop.turn()  # so that it knows the time
    bench.hold(40)
    bench.spread.on_accepted()
    assert bench.spread.is_away


def test_closing_brings_it_back(bench: Bench) -> None:
    """As soon as enough of its connections are closed, not with the first."""
    leave(bench, (24, 24, 24))  # the mean is 28
    for own, is_away in ((36, True), (33, True), (29, False), (28, False)):
        bench.hold(own)
        bench.spread.on_closed()
        assert (bench.mine.connections, bench.spread.is_away) == (own, is_away)
    assert bench.door.moves == [False, True]


@pytest.mark.parametrize("why", ["others have caught up", "others do not listen", "others are silent"])
def test_a_look_brings_it_back(bench: Bench, why: str) -> None:
    """What others do is noticed within a moment, without any event here."""
    leave(bench)
    for slot in (1, 2, 3):
        other = bench.board.slot(slot)
        if why == "others have caught up":
            other.connections = 38
        elif why == "others do not listen":
            other.listening = 0
        else:
            bench.board.columns[Column.BEAT_NS][slot] -= 2 * spread.SILENT_NS
    bench.run_until_back(sum(spread.LOOKS_S) / 2)
    assert bench.door.moves == [False, True]


def test_connections_that_wait_bring_it_back(bench: Bench) -> None:
    """Others listen, and yet do not take what comes: so this one does, some at a time."""
    leave(bench)
    bench.door.waits = True
    begun_at = bench.loop.now
    bench.run_until_back(sum(spread.LOOKS_S) / 2)
    assert bench.loop.now - begun_at >= 0.04, "others had their time"
    assert bench.spread.allowance() == 1 + spread.MARGIN
    assert bench.spread.allowance() == 1, "once"


def test_a_second_brings_it_back(bench: Bench) -> None:
    """Whatever the others have; and until then it wakes up a few times only, afterwards never."""
    leave(bench)
    begun_at = bench.loop.now
    turns = bench.run_until_back(30)
    assert bench.loop.now - begun_at >= sum(spread.LOOKS_S)
    assert sum(spread.LOOKS_S) == pytest.approx(1)
    assert turns <= 2 * len(spread.LOOKS_S), "a poll may wake up a little early"
    assert not bench.loop._later, "nothing left to wake up for"


def test_absences_do_not_mix(bench: Bench) -> None:
    """The looks of an absence that has ended are nothing to the next."""
    leave(bench)
    while not any(at > bench.loop.now + spread.LOOKS_S[-2] for at, _ in bench.loop._later):
        bench.loop.turn()  # until the last look alone is left
    bench.hold(0)
    bench.spread.on_closed()
    bench.hold(40)
    bench.spread.on_accepted()
    begun_at = bench.loop.now
    bench.run_until_back(30)
    assert bench.loop.now - begun_at >= sum(spread.LOOKS_S)
    assert bench.door.moves == [False, True] * 2
