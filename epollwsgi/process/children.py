"""The worker processes of a master: forked, listened to, reaped. It decides nothing; `process.master` asks it.

Signals are blocked around each fork, so that a child never runs a handler of its master, nor loses a signal.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from select import POLLIN, poll
from typing import Any, NoReturn

from epollwsgi.process.fleet import Child, Generation
from epollwsgi.process.signals import fork
from epollwsgi.scoreboard import Column, Scoreboard, Slot

READ_SIZE = 65536
# A worker that was adopted from an image with another scoreboard.
NO_SLOT = -1
NS = 1_000_000_000


class Children:
    """Owns the pipes and the slots of the scoreboard. known: of all that live, by pid; shared with the fleet."""

    def __init__(
        self, known: dict[int, Child], scoreboard: Scoreboard, poller: poll, on_count: Callable[[int], None]
    ) -> None:
        """on_count: told how many there are when that has changed."""
        self.known = known
        self._on_count = on_count
        self.scoreboard = scoreboard
        self._poller = poller
        self._by_fd: dict[int, Child] = {}
        for child in known.values():
            self._listen(child)

    def start(self, generation: Generation, age: int, live: Callable[[int, int], NoReturn]) -> Child:
        """Fork a worker; in it `live(slot, fd)` is called. Raises OSError or RuntimeError for want of room."""
        reader, writer = os.pipe()
        try:
            slot = self.scoreboard.claim(0, age, generation.number)
            try:
                pid = fork()
            except OSError:
                self.scoreboard.release(slot)
                raise
        except (OSError, RuntimeError):
            os.close(reader)
            os.close(writer)
            raise
        if pid == 0:
            try:
                for fd in (reader, *self._by_fd):
                    os.close(fd)
                live(slot, writer)
            finally:
                os._exit(1)
        os.close(writer)
        os.set_blocking(reader, False)
        child = Child(pid, slot, age, generation, reader, time.monotonic())
        self.known[pid] = child
        self._listen(child)
        self.scoreboard.put(slot, Column.PID, pid)
        self._on_count(len(self.known))
        return child

    def _listen(self, child: Child) -> None:
        self._by_fd[child.fd] = child
        self._poller.register(child.fd, POLLIN)

    def read(self, fd: int) -> tuple[Child | None, list[dict[str, Any]]]:
        """What the worker behind a descriptor has reported."""
        child = self._by_fd.get(fd)
        if child is None:
            return None, []
        messages: list[dict[str, Any]] = []
        with suppress(BlockingIOError):
            while data := os.read(fd, READ_SIZE):
                messages += child.take_messages(data)
            with suppress(KeyError):
                self._poller.unregister(fd)  # its end is learned from the kernel: an application can close all it has
        return child, messages

    def reap(self) -> Iterator[tuple[int, int]]:
        """Every process that has ended, by pid and status; foreign ones too, as the first process of a container."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            yield pid, status

    def forget(self, child: Child) -> None:
        """It has ended."""
        del self.known[child.pid]
        del self._by_fd[child.fd]
        with suppress(KeyError):
            self._poller.unregister(child.fd)
        os.close(child.fd)
        if child.slot != NO_SLOT:
            self.scoreboard.release(child.slot)
        self._on_count(len(self.known))

    def send(self, child: Child, number: signal.Signals) -> None:
        """A signal to one; that it has ended meanwhile is learned soon enough."""
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def silence_s(self, child: Child) -> float:
        """For how long nothing was heard of its loop; 0 where that cannot be known (`NO_SLOT`)."""
        if child.slot == NO_SLOT:
            return 0.0
        return (time.monotonic_ns() - self.scoreboard.row(child.slot).beat_ns) / NS

    def set_state(self, child: Child, state: Slot) -> None:
        """For the fleet, and for everybody who looks at the scoreboard."""
        child.state = state
        if child.slot != NO_SLOT:
            self.scoreboard.put(child.slot, Column.STATE, state)


def describe_status(status: int) -> str:
    """How a process has ended, in words. wait(2)."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with suppress(ValueError):
            return f"was killed by {signal.Signals(number).name}"
        return f"was killed by signal {number}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"
