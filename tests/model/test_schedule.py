"""The walk itself: it finds what needs a certain order, and finds nothing where no order does harm."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.model.schedule import Broken, Builder, Lock, Run, SharedValue, Thread, explore, monotonic, run, sleep


class Counter:
    value = SharedValue("value")

    def __init__(self) -> None:
        self.value = 0
        self.lock = Lock()

    def add(self) -> None:
        self.value = self.value + 1

    def add_locked(self) -> None:
        self.lock.acquire()
        self.add()
        self.lock.release()


def build(method: str, count: int) -> Builder:
    def builder(one: Run) -> Callable[[], None]:
        counter = Counter()
        for number in range(count):
            one.add(getattr(counter, method), f"adder {number}")

        def afterwards() -> None:
            if counter.value != count:
                raise Broken("an addition is lost")

        return afterwards

    return builder


def test_a_lost_update_needs_one_deviation() -> None:
    assert explore(build("add", 2), deviations=0) == 1
    with pytest.raises(Broken, match="lost"):
        explore(build("add", 2), deviations=1)


def test_a_lock_keeps_every_update() -> None:
    assert explore(build("add_locked", 3), deviations=3) > 100


def test_waiting_for_ever_is_found() -> None:
    def take(order: list[Lock]) -> None:
        for lock in order:
            lock.acquire()
        for lock in order:
            lock.release()

    def builder(one: Run) -> None:
        locks = [Lock(), Lock()]
        one.add(lambda: take(locks), "first")
        one.add(lambda: take(locks[::-1]), "second")

    with pytest.raises(Broken, match="wait for ever: first, second"):
        explore(builder)


def test_time_passes_when_all_wait_and_earlier_where_the_schedule_says_so() -> None:
    seen: set[tuple[bool, float]] = set()

    def body() -> None:
        lock = Lock()
        lock.acquire()
        Thread(target=lock.release, name="later").start()
        was_released = lock.acquire(timeout=2)
        seen.add((was_released, monotonic()))
        sleep(1)
        seen.add((was_released, monotonic()))

    def builder(one: Run) -> None:
        one.add(body, "body")

    assert explore(builder, deviations=0) == 1
    assert seen == {(True, 0.0), (True, 1.0)}
    explore(builder, deviations=1)
    assert seen == {(True, 0.0), (True, 1.0), (False, 2.0), (False, 3.0)}


def test_a_thread_that_spins_ends_the_run() -> None:
    def spin() -> None:
        while True:
            run().step("spin", "nothing")

    def builder(one: Run) -> None:
        one.add(spin, "spinner")

    with pytest.raises(Broken, match="do not come to an end"):
        explore(builder, deviations=0)


def test_an_exception_in_an_actor_is_told() -> None:
    def wrong() -> None:
        raise ZeroDivisionError

    def builder(one: Run) -> None:
        one.add(wrong, "wrong")

    with pytest.raises(ZeroDivisionError):
        explore(builder, deviations=0)
