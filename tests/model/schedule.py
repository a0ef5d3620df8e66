"""A deterministic scheduler for real threads, and a walk over its schedules. Knows nothing of the code under test.

Actors are real threads of which exactly one runs at a time. Each operation on something shared (`SharedDict`,
`SharedDeque`, `SharedValue`, `Lock`, `Thread`) is a switch point before which another actor may be let run. Left alone
the scheduler is simple: whoever runs goes on until it blocks or ends, then comes the next in turn; time stands still
until all are blocked, then the earliest time limit passes. A schedule deviates from that at some of its points: another
actor goes on, or the earliest time limit passes now (the others were slow). `explore` walks all schedules with up to a
given number of deviations, depth first, and says how many there were.

What an actor does between two switch points is one atomic step: the code under test must touch nothing shared but
through the classes above; what stands around it says what it touches by `Run.touch`. A deviation is not pursued where
nothing of what the others then did concerns the step that was put off: the next point of the same actor leads to the
same.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

FOREVER = float("inf")
# An actor that spins gives way to the others after so many steps in a row.
PATIENCE = 80
MOST_STEPS = 3000
REAL_LIMIT_S = 60.0
# Exactly one thread runs at a time: on one processor the next need not wait until another has woken up. After so many
# runs it is the next one's turn, as others share them with us.
RUNS_ON_A_CPU = 100


class Abandoned(BaseException):
    """The run has failed: every actor unwinds."""


class Over(Exception):
    """Raised by what looks on while all wait: nothing more will happen, and that is as it should be."""


class Broken(AssertionError):
    """A schedule in which the code under test breaks its promise; says which."""


class Actor:
    """One thread of a run."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.gate = _thread.allocate_lock()
        self.gate.acquire()
        self.ready: Callable[[], bool] | None = None  # blocked until this is true
        self.deadline = FOREVER
        self.timeout_s = FOREVER
        self.timed_out = False
        self.is_done = False
        self.streak = 0
        self.handle: Thread | None = None


class Run:
    """One schedule. choices: what to choose at the first points; then always 0."""

    def __init__(self, choices: list[int], deviations: int) -> None:
        self.choices = choices
        self.deviations_left = deviations
        self.trail: list[tuple[int, int]] = []  # at each point with a choice: what was chosen, of how many
        self.log: list[tuple[str, str, str]] = []  # who, what of, what
        self.operations: list[tuple[Actor, Any, bool, bool]] = []  # who, on what, whether it writes, whether a step
        self.put_off: tuple[Actor, int] | None = None  # by the last deviation: who, and the number of operations then
        self.is_open = True  # whether deviations are tried now
        self.now = 0.0
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.is_running = False
        self.failure: BaseException | None = None
        self.on_quiet: Callable[[], None] = lambda: None
        self.alive = 0
        self.over = _thread.allocate_lock()
        self.over.acquire()

    # --- what actors ask of it --------------------------------------------------------------------------------------

    def add(self, target: Callable[[], None], name: str) -> Actor:
        """One more actor; it waits for its turn."""
        actor = Actor(len(self.actors), name)
        self.actors.append(actor)
        self.alive += 1
        _thread.start_new_thread(self._live, (actor, target))
        return actor

    def step(self, what: str, thing: Any, writes: bool = True, of: str = "") -> None:
        """Before an atomic operation on a thing; `of` and `what` tell in the log which."""
        actor = self.current
        if actor is None:  # before and after the run
            return
        if self.failure is not None:
            raise Abandoned
        if not self.is_running:  # an invariant is looked at
            return
        if len(self.log) >= MOST_STEPS:
            self.fail("the threads do not come to an end")
        if actor.streak >= PATIENCE:
            self._switch(actor, may_go_on=False)
        elif self.deviations_left and self.is_open:
            self._switch(actor, may_go_on=True)
        actor.streak += 1
        self.log.append((actor.name, of, what))
        self.operations.append((actor, thing, writes, True))

    def touch(self, thing: Any, writes: bool = True) -> None:
        """The step at hand has to do with this thing too."""
        if self.is_running and self.current is not None:
            self.operations.append((self.current, thing, writes, False))

    def give_way(self) -> None:
        """Spin once: the others go on first."""
        actor = self._me()
        if actor is not None:
            self._switch(actor, may_go_on=False)
            self.log.append((actor.name, "", "gives way"))
            self.operations.append((actor, None, False, True))

    def block(self, ready: Callable[[], bool], timeout_s: float, what: str) -> bool:
        """Wait until `ready`, which looks and does nothing else; False if the time limit passed before."""
        actor = self._me()
        assert actor is not None
        actor.ready, actor.timeout_s, actor.deadline = ready, timeout_s, self.now + timeout_s
        self.log.append((actor.name, "waits: ", what))
        self._switch(actor, may_go_on=False)
        actor.ready, actor.timeout_s, actor.deadline = None, FOREVER, FOREVER
        timed_out, actor.timed_out = actor.timed_out, False
        return not timed_out

    def sleep(self, seconds: float) -> None:
        """So long in the time of the run."""
        self.block(lambda: False, seconds, f"sleeps {seconds:g} s")

    def fail(self, message: str) -> None:
        """The promise is broken; does not return."""
        self._set_failure(Broken(message))
        raise Abandoned

    def check(self, condition: object, message: str) -> None:
        """Fail unless condition."""
        if not condition:
            self.fail(message)

    # --- its own ----------------------------------------------------------------------------------------------------

    def _me(self) -> Actor | None:
        """The actor that runs; None before and after the run, and while an invariant is looked at."""
        if self.failure is not None and self.current is not None:
            raise Abandoned
        return self.current if self.is_running else None

    def _live(self, actor: Actor, target: Callable[[], None]) -> None:
        actor.gate.acquire()
        try:
            if self.failure is None:
                target()
        except Abandoned:
            pass
        except BaseException as error:
            self._set_failure(error)
        actor.is_done = True
        self.touch(actor)
        try:
            if self.failure is None:
                self._switch(actor, may_go_on=False)
        except Abandoned:
            pass
        finally:
            self.alive -= 1
            if not self.alive:
                self.over.release()

    def _switch(self, actor: Actor, may_go_on: bool) -> None:
        """Let somebody go on: the actor itself, or another while it waits here."""
        chosen = self._choose(actor, may_go_on)
        if chosen is actor:
            return
        actor.streak = 0
        if chosen is None:
            return  # all are done
        self.current = chosen
        chosen.gate.release()
        if not actor.is_done:
            actor.gate.acquire()
            if self.failure is not None:
                raise Abandoned

    def _choose(self, actor: Actor, may_go_on: bool) -> Actor | None:
        options: list[Actor] = []
        first: Actor | None = None  # of those who wait: whose time is over first
        at = actor.number + (not may_go_on)
        for one in (*self.actors[at:], *self.actors[:at]):
            if one.is_done:
                continue
            if one.ready is None or one.ready():
                options.append(one)
            elif one.deadline < FOREVER:
                if first is None or (one.deadline, one.number) < (first.deadline, first.number):
                    first = one
        if not options and first is None:
            if all(one.is_done for one in self.actors):
                return None
            stuck = ", ".join(one.name for one in self.actors if not one.is_done)
            self.fail(f"nobody can go on; these wait for ever: {stuck}")
        if not options:
            self._look_while_quiet()
        if first is not None:
            options.append(first)
        choice = self._decide(len(options))
        chosen = options[choice]
        if choice:
            self.put_off = (actor, len(self.operations)) if options[0] is actor else None
        if chosen is first:
            self.operations.append((first, "time", True, False))
            self.now = first.deadline
            first.timed_out = True
            self.log.append((f"-- {self.now:g} s", "", f"{first.name} has waited long enough"))
        return chosen

    def _decide(self, count: int) -> int:
        if count == 1 or not self.deviations_left or not self.is_open:
            return 0
        at = len(self.trail)
        choice = self.choices[at] if at < len(self.choices) else 0
        self.trail.append((choice, count))
        self.deviations_left -= choice > 0
        return choice

    def is_worthless(self) -> bool:
        """Whether the last deviation came to the same as one at the next point of who was put off."""
        if self.put_off is None:
            return False
        actor, begin = self.put_off
        others: list[tuple[Any, bool]] = []
        own: list[tuple[Any, bool]] = []
        for who, thing, writes, is_step in self.operations[begin:]:
            if who is not actor:
                if not own:
                    others.append((thing, writes))
            elif own and is_step:
                break
            else:
                own.append((thing, writes))
        if not own:
            return False
        return not any(mine == thing and (writes or write) for mine, write in own for thing, writes in others)

    def _look_while_quiet(self) -> None:
        """Everybody waits: what must hold then is looked at."""
        self.is_running = False
        try:
            self.on_quiet()
        except (AssertionError, Over) as error:
            self._set_failure(error)
            raise Abandoned from None
        finally:
            self.is_running = True

    def _set_failure(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
            for actor in self.actors:
                if actor is not self.current and not actor.is_done:
                    actor.gate.release()

    def play(self) -> None:
        """Until all actors have ended. Raises what went wrong, with the schedule as a note."""
        self.current = self.actors[0]
        self.is_running = True
        self.current.gate.release()
        if not self.over.acquire(timeout=REAL_LIMIT_S):
            raise AssertionError(f"the run hangs: a thread blocks outside of the scheduler, after {self.told(-5)}")
        self.is_running = False
        self.current = None
        failure, self.failure = self.failure, None
        if failure is not None and not isinstance(failure, Over):
            failure.add_note("\n".join(["the schedule:", *self.told(0, 70), "...", *self.told(-50)]))
            raise failure

    def told(self, begin: int, end: int | None = None) -> list[str]:
        """Lines of the log."""
        return [f"{name}: {of}{what}" for name, of, what in self.log[begin:end]]


# The run at hand: what is shared finds its scheduler here.
_runs: list[Run] = []


def run() -> Run:
    """The run at hand."""
    return _runs[-1]


Builder = Callable[[Run], Callable[[], None] | None]


def explore(build: Builder, deviations: int = 2, most_runs: int = 20000) -> int:
    """Play every schedule with up to so many deviations; how many there are. Raises at the first that breaks a promise.

    build: adds the actors to a new run; what it gives back is called after the run, to look at what became of it.
    most_runs: where there are more the test must be made smaller; nothing is left out silently.
    """
    choices: list[int] = []
    with one_cpu() as take_turns:
        for count in range(1, most_runs + 1):
            if count % RUNS_ON_A_CPU == 0:
                take_turns()
            one = _play(build, choices, deviations, count)
            known = len(choices)
            choices = [choice for choice, _ in one.trail]
            if known and one.is_worthless():
                del choices[known:]
            while choices and choices[-1] + 1 >= one.trail[len(choices) - 1][1]:
                choices.pop()
            if not choices:
                return count
            choices[-1] += 1
    raise AssertionError(f"more than {most_runs} schedules")


def _play(build: Builder, choices: list[int], deviations: int, count: int) -> Run:
    """One schedule, the count-th, and what is to be looked at after it."""
    one = Run(choices, deviations)
    _runs.append(one)
    try:
        afterwards = build(one)
        one.play()
        if afterwards is not None:
            afterwards()
    except AssertionError as error:
        error.add_note(f"schedule {count}, choices {choices}, of up to {deviations} deviations")
        raise
    finally:
        _runs.clear()
    return one


@contextmanager
def one_cpu() -> Iterator[Callable[[], None]]:
    """This thread, and those that it starts meanwhile, stay on one processor; what is given goes on to the next."""
    allowed = os.sched_getaffinity(0)
    turn = sorted(allowed)
    at = os.getpid()

    def go_on() -> None:
        nonlocal at
        at += 1
        os.sched_setaffinity(0, {turn[at % len(turn)]})

    try:
        go_on()
        yield go_on
    finally:
        os.sched_setaffinity(0, allowed)


# --- what is shared -------------------------------------------------------------------------------------------------


class SharedDict(dict[Any, Any]):
    """A dict whose operations are switch points."""

    label = ""

    def __getitem__(self, key: Any) -> Any:
        run().step("[...]", id(self), False, self.label)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        run().step("[...] = ...", id(self), True, self.label)
        super().__setitem__(key, value)

    def __contains__(self, key: object) -> bool:
        run().step(".__contains__", id(self), False, self.label)
        return super().__contains__(key)

    def __len__(self) -> int:
        run().step(".__len__", id(self), False, self.label)
        return super().__len__()

    def __iter__(self) -> Iterator[Any]:
        run().step(".__iter__", id(self), False, self.label)
        return iter(list(super().keys()))

    def items(self) -> Any:
        run().step(".items", id(self), False, self.label)
        return list(super().items())

    def get(self, key: Any, default: Any = None) -> Any:
        run().step(".get", id(self), False, self.label)
        return super().get(key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        run().step(".pop", id(self), True, self.label)
        return super().pop(key, *default)


class SharedDeque(deque[Any]):
    """A deque whose operations are switch points."""

    label = ""

    def append(self, item: Any) -> None:
        run().step(".append", id(self), True, self.label)
        super().append(item)

    def appendleft(self, item: Any) -> None:
        run().step(".appendleft", id(self), True, self.label)
        super().appendleft(item)

    def popleft(self) -> Any:
        run().step(".popleft", id(self), True, self.label)
        return super().popleft()

    def remove(self, item: Any) -> None:
        run().step(".remove", id(self), True, self.label)
        super().remove(item)

    def __len__(self) -> int:
        run().step(".__len__", id(self), False, self.label)
        return super().__len__()


class SharedValue:
    """An attribute whose every reading and writing is a switch point. beneath: the slot, of a class that has slots."""

    def __init__(self, name: str, beneath: Any = None) -> None:
        self.name = name
        self.beneath = beneath

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        run().step("?", (id(instance), self.name), False, self.name)
        if self.beneath is not None:
            return self.beneath.__get__(instance, owner)
        return instance.__dict__[self.name]

    def __set__(self, instance: Any, value: Any) -> None:
        run().step(f" = {value!r}"[:60], (id(instance), self.name), True, self.name)
        if self.beneath is not None:
            self.beneath.__set__(instance, value)
        else:
            instance.__dict__[self.name] = value


def share(instance: Any, *names: str) -> None:
    """Make the dicts and deques that an object has just been given shared ones."""
    for name in names:
        plain = getattr(instance, name)
        shared: Any = SharedDict(plain) if isinstance(plain, dict) else SharedDeque(plain)
        shared.label = name
        setattr(instance, name, shared)


# --- what stands for the modules threading and time -----------------------------------------------------------------


class Lock:
    """threading.Lock of a run."""

    def __init__(self) -> None:
        self.is_held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        run().step("lock.acquire", id(self))
        if self.is_held:
            if not blocking:
                return False
            if not run().block(lambda: not self.is_held, FOREVER if timeout < 0 else timeout, "lock"):
                return False
        self.is_held = True
        return True

    def release(self) -> None:
        run().step("lock.release", id(self))
        if not self.is_held:
            raise RuntimeError("release unlocked lock")
        self.is_held = False


class Thread:
    """threading.Thread of a run."""

    def __init__(
        self, target: Callable[..., Any], args: Iterable[Any] = (), name: str = "", daemon: bool = False
    ) -> None:
        self.name = name
        self._target = target
        self._args = tuple(args)
        self.actor: Actor | None = None

    def start(self) -> None:
        run().step(f"start {self.name}", id(self))
        self.actor = run().add(lambda: self._target(*self._args), self.name)
        self.actor.handle = self

    def join(self, timeout: float = FOREVER) -> None:
        actor = self.actor
        assert actor is not None
        run().step(f"join {self.name}", actor, False)
        if not actor.is_done:
            run().block(lambda: actor.is_done, timeout, f"join {self.name}")


class Threading:
    """The module threading, as far as the code under test uses it."""

    Lock = Lock
    Thread = Thread

    @staticmethod
    def get_ident() -> int:
        actor = run().current
        return 0 if actor is None else actor.number + 1

    @staticmethod
    def current_thread() -> Any:
        actor = run().current
        return threading.main_thread() if actor is None or actor.handle is None else actor.handle


def monotonic() -> float:
    """time.monotonic of a run."""
    run().touch("time", False)
    return run().now


def sleep(seconds: float) -> None:
    """time.sleep of a run; 0 lets the others go on."""
    if seconds > 0:
        run().sleep(seconds)
    else:
        run().give_way()
