"""`dispatch` in a server whose threads are held up, now and then, at every change of an owner: of the loop, of a
request, of a connection.

All of these changes are operations on the containers and flags that the threads share (epollwsgi.crew lists them), so
that they are put in place here, where the server is still to be built, by ones that pause before and after. The server
has no code for that. A container that is gone or has become another fails the start. GET /points gives how often each
point was passed.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

import epollwsgi.crew
import epollwsgi.leader
import epollwsgi.service
from epollwsgi.baton import Baton
from epollwsgi.crew import Crew
from epollwsgi.loop import Loop
from tests.apps import dispatch
from tests.apps.base import Environ, Start, with_length

SHARE = 0.06
LONGEST_S = 0.006
POINTS: Counter[str] = Counter()
CHANCE = random.Random(1)
MISSING = object()

epollwsgi.crew.IDLE_S = 0.3  # ends of threads are among the changes


def pause(point: str) -> None:
    """Here the owner changes, or has just changed. Most pauses are longer than the watch waits."""
    POINTS[point] += 1
    if CHANCE.random() < SHARE:
        time.sleep(LONGEST_S * CHANCE.random())


class PausingDict(dict[Any, Any]):
    """A dict of which entries are put, and taken by their name."""

    name = ""

    def __setitem__(self, key: Any, value: Any) -> None:
        pause(f"{self.name} before put")
        super().__setitem__(key, value)
        pause(f"{self.name} after put")

    def pop(self, key: Any, default: Any = None) -> Any:
        pause(f"{self.name} before take")
        value = super().pop(key, MISSING)
        pause(f"{self.name} {'missed' if value is MISSING else 'taken'}")
        return default if value is MISSING else value


class PausingDeque(deque[Any]):
    """A deque to which is appended, and from which is taken at one end."""

    name = ""

    def append(self, item: Any) -> None:
        pause(f"{self.name} before append")
        super().append(item)
        pause(f"{self.name} after append")

    def popleft(self) -> Any:
        pause(f"{self.name} before take")
        try:
            item = super().popleft()
        except IndexError:
            pause(f"{self.name} missed")
            raise
        pause(f"{self.name} taken")
        return item

    def remove(self, item: Any) -> None:
        pause(f"{self.name} before remove")
        super().remove(item)
        pause(f"{self.name} removed")


def replace_dict(owner: object, name: str, label: str) -> None:
    value = getattr(owner, name)
    assert type(value) is dict, f"{label} is a {type(value).__name__} now: tests.apps.delays must follow"
    new = PausingDict(value)
    new.name = label
    setattr(owner, name, new)


def replace_deque(owner: object, name: str, label: str) -> None:
    value = getattr(owner, name)
    assert type(value) is deque, f"{label} is a {type(value).__name__} now: tests.apps.delays must follow"
    new = PausingDeque(value)
    new.name = label
    setattr(owner, name, new)


class PausingBaton(Baton):
    """The flag of the watch that parks is set, and looked at, with a pause around it."""

    _value = False

    @property
    def is_parked(self) -> bool:
        return self._value

    @is_parked.setter
    def is_parked(self, value: bool) -> None:
        self._value = value
        pause(f"parked {value}")

    def unpark(self) -> None:
        pause("before unpark")
        super().unpark()


class PausingCrew(Crew):
    """See the module."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.baton = PausingBaton()
        replace_dict(self.baton, "held", "token")
        replace_dict(self.baton, "unanswered", "claim")
        replace_dict(self, "at_work", "at work")
        for name in ("queue", "permits", "standby"):
            replace_deque(self, name, name)


class PausingLoop(Loop):
    """See the module."""

    _value = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        replace_deque(self, "inbox", "inbox")

    @property
    def is_asleep(self) -> bool:
        return self._value

    @is_asleep.setter
    def is_asleep(self, value: bool) -> None:
        self._value = value
        pause(f"asleep {value}")

    def wake(self) -> None:
        pause("before wake")
        super().wake()


def install() -> None:
    """Before the server builds its loop."""
    for module, name, kind in (
        (epollwsgi.leader, "Crew", PausingCrew),
        (epollwsgi.service, "Loop", PausingLoop),
    ):
        assert hasattr(module, name)
        setattr(module, name, kind)


install()


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/points":
        content = json.dumps(POINTS).encode()
        start("200 OK", with_length(len(content)))
        return [content]
    answer: Iterable[bytes] = dispatch.app(environ, start)
    return answer
