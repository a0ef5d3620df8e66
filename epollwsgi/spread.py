"""Which worker takes a new connection: one that has clearly more than the others steps aside for a moment.

Linux wakes the process that waits first in a listener's queue, and a worker that is idle again keeps its place in it:
256 connections opened one after another all went to one worker of four. So a worker whose open connections exceed the
mean of all READY workers by more than a margin takes its listeners out of epoll, and puts them back, at the end of the
queue, as soon as it is below.

    HERE ---- over, and somebody lighter takes what comes ----> AWAY
         <--- below, or nobody does, or connections wait all the same, or a second is over ---

Whoever is away looks now and again whether it is time to come back. A worker that is over while the lighter ones are
away calls them (`Scoreboard.ring`), and steps aside itself.

No connection may be forgotten in the backlog, although each wakes one worker only (EPOLLEXCLUSIVE):
- who was woken takes one, however many it has;
- who leaves says so first and looks then whether a lighter one still listens: of two that leave at the same moment at
  least one sees it, because the other has said it, too;
- the lightest of all is never away for long: it does not leave, and comes when it is called. Where it does not, because
  it is stuck, who called is back after a few looks, and stays;
- what others have left is in the backlog when they come back: epoll tells at once of a listener that is added while
  connections wait.

Called by the acceptors of one worker, which it asks to enter or leave epoll (`settle`). It touches no socket.
"""

from __future__ import annotations

import time
from collections.abc import Sized
from typing import Protocol

from epollwsgi.loop import EDGE, IN, Loop
from epollwsgi.scoreboard import Mine

# Connections more than the mean that are no reason to step aside: so many, or this part of the mean.
MARGIN = 8
MARGIN_SHARE = 1 / 8
# When a worker that is away looks again, each counted from the look before. Short at first: in a burst the others have
# caught up within a few turns. In all one second: then it comes back whatever it sees.
LOOKS_S = (0.002, 0.008, 0.03, 0.12, 0.84)
# From this look on, others have had their time: connections that still wait show that those who listen do not take
# them, and a lighter one that was called and does not listen yet will not come.
PATIENT_LOOKS = 2
# A worker that was silent for so long does not take connections, whatever it says. It beats once a second.
SILENT_NS = 2_500_000_000
ACCEPTS_PER_TURN = 64


class Member(Protocol):
    """An acceptor, as far as it takes part."""

    is_in: bool
    """in epoll now"""

    def settle(self) -> None: ...
    def has_waiting(self) -> bool: ...


class Spread:
    """See the module. One for all listeners of a worker; only the thread that leads the loop calls it."""

    def __init__(self, mine: Mine, loop: Loop, connections: Sized) -> None:
        """connections: those of this worker that are open."""
        self.is_away = False
        self.members: list[Member] = []
        self._mine = mine
        self._scoreboard = mine.scoreboard
        self._loop = loop
        self._connections = connections
        self.fd = self._scoreboard.bell
        self._is_last = False  # nobody lighter came when it was called, or there is nobody: it stays
        self._bonus = 0  # allowed once beyond the margin, because nobody else takes them
        self._times_away = 0
        loop.on_closed.append(self.on_closed)

    def allowance(self) -> int:
        """How many connections this worker may take in one turn, at least one."""
        own = len(self._connections)
        if own < MARGIN:
            wanted = MARGIN - own  # less than the mean would give; what is left comes with the next turn
        else:
            mean = self._scoreboard.mean_connections()
            wanted = int(mean + margin(mean)) - own
        if wanted < ACCEPTS_PER_TURN and (self._scoreboard.is_stopping or self._scoreboard.ready_count() < 2):
            return ACCEPTS_PER_TURN
        bonus, self._bonus = self._bonus, 0
        return min(ACCEPTS_PER_TURN, max(1, wanted) + bonus)

    def on_accepted(self) -> None:
        """A turn of accepting is over: say how many connections there are, and step aside if they are too many."""
        own = self._mine.connections = len(self._connections)
        if own <= MARGIN or self.is_away or self._scoreboard.is_stopping:
            return
        mean = self._scoreboard.mean_connections()
        if own <= mean + margin(mean):
            self._is_last = False
        elif self._has_lighter(own, listening=self._is_last):
            self._leave(own)

    def on_closed(self) -> None:
        """Connections were closed: come back if there are few enough now."""
        own = self._mine.connections = len(self._connections)
        if self.is_away and self._is_below(own):
            self._come_back()

    def on_event(self, mask: int) -> None:
        """The bell: a worker has too many connections, and nobody lighter takes them."""
        if self.is_away and self._is_below(len(self._connections)):
            self._come_back()

    def note_listening(self) -> None:
        """An acceptor has entered epoll, or left it."""
        self._mine.listening = any(member.is_in for member in self.members)

    def _leave(self, own: int) -> None:
        self.is_away = True
        self._times_away += 1
        self._settle()
        if self._has_lighter(own):
            self._is_last = False
        elif self._is_last:  # the lighter one has just left, too
            self._come_back()
            return
        else:
            self._scoreboard.ring()
        self._loop.add_handler(self, IN | EDGE)
        self._look_later(0, self._times_away)

    def _come_back(self) -> None:
        self.is_away = False
        self._loop.remove_handler(self)
        self._settle()

    def _settle(self) -> None:
        for member in self.members:
            member.settle()

    def _look_later(self, number: int, times_away: int) -> None:
        self._loop.call_later(LOOKS_S[number], lambda: self._look(number, times_away))

    def _look(self, number: int, times_away: int) -> None:
        """Whether it is time to come back. times_away: an older one is of an absence that has ended."""
        if not self.is_away or times_away != self._times_away:
            return
        own = len(self._connections)
        is_late = number >= PATIENT_LOOKS
        is_last = not self._has_lighter(own, listening=is_late)
        if is_late and any(member.has_waiting() for member in self.members):
            self._bonus = MARGIN
        elif number < len(LOOKS_S) - 1 and not is_last and not self._is_below(own):
            self._look_later(number + 1, times_away)
            return
        self._is_last = is_last
        self._come_back()

    def _is_below(self, own: int) -> bool:
        """Clearly no longer over, so that a worker does not come and go with each connection."""
        mean = self._scoreboard.mean_connections()
        return own <= mean + margin(mean) / 2

    def _has_lighter(self, own: int, *, listening: bool = True) -> bool:
        """Whether somebody else takes what this worker does not take, or would if it were called."""
        return self._scoreboard.has_lighter(own, time.monotonic_ns() - SILENT_NS, listening=listening)


def margin(mean: float) -> float:
    """How far above the mean a worker may be."""
    return max(float(MARGIN), mean * MARGIN_SHARE)
