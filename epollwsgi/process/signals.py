"""Signals: what each one means to the master and to a worker, one table each, and how they reach a loop.

The interpreter writes the number of each signal into a socket that a loop watches; a handler does nothing else. The
tables are those of the documentation. The owner of a pipe (`process.master`, `process.worker`) acts by the names.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import FrameType

Table = Mapping[signal.Signals, tuple[str, str]]

MASTER_SIGNALS: Table = {
    signal.SIGTERM: (
        "stop_gracefully",
        "graceful stop: after drain_delay no new connections, every request is finished within graceful_timeout; "
        "exit 0",
    ),
    signal.SIGINT: ("stop_quickly", "quick stop: no new requests, those in the application get 1 s; exit 0"),
    signal.SIGQUIT: ("stop_quickly", "the same as INT"),
    signal.SIGHUP: (
        "reload",
        "read the settings again and start a new generation of workers; the old one is drained only once the new one "
        "is ready, and goes on serving if that fails",
    ),
    signal.SIGUSR1: ("reopen_logs", "open the log files again, in all processes"),
    signal.SIGUSR2: (
        "upgrade",
        "upgrade in place: after a dry run the master executes itself anew under the same process id, with listeners "
        "and workers kept, then replaces the workers as HUP does",
    ),
    signal.SIGTTIN: ("add_worker", "one worker more"),
    signal.SIGTTOU: ("remove_worker", "one worker less, never below 1"),
    signal.SIGWINCH: (
        "retire_workers",
        "with --daemon: drain all workers and keep the master; TTIN or HUP brings them back; without it nothing",
    ),
    signal.SIGCHLD: ("reap", "a worker has ended: it is replaced at once; more slowly if it died before it was ready"),
}

WORKER_SIGNALS: Table = {
    signal.SIGTERM: ("stop_gracefully", "drain: no new connections, finish open requests within graceful_timeout"),
    signal.SIGINT: ("stop_quickly", "end at once; what waits to be sent, or is in the application, gets 1 s"),
    signal.SIGQUIT: ("stop_quickly", "the same as INT"),
    signal.SIGUSR1: ("reopen_logs", "open the log files again"),
}
# Meant for the master, whose whole group may get them; and USR1, until a worker has its own handler.
WORKER_IGNORED = (
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


class SignalPipe:
    """Signals as events of a loop. `numbers`: which; `act` is called with each that has come, in the loop's thread."""

    def __init__(self, numbers: Iterable[int], act: Callable[[int], None]) -> None:
        """Must be called in the main thread."""
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.fd = self._reader.fileno()
        self._act = act
        self._numbers = frozenset(numbers)
        self._before = {number: signal.signal(number, note_only) for number in self._numbers}
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def on_event(self, mask: int) -> None:
        """Signals have come, perhaps."""
        with suppress(BlockingIOError):
            for number in self._reader.recv(4096):
                if number in self._numbers:
                    self._act(number)

    def close(self) -> None:
        """Handlers as they were before."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def abandon(self) -> None:
        """In a forked child, which has no handlers any more: let go of the descriptors."""
        self._reader.close()
        self._writer.close()


def note_only(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: the number is in the pipe already."""


def fork() -> int:
    """os.fork(); the child starts with every signal as the system has it, but for WORKER_IGNORED, and runs no handler
    of its parent. Raises OSError where the system has no process left.
    """
    blocked = block_all()
    try:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in signal.valid_signals():
                if number in WORKER_IGNORED:
                    signal.signal(number, note_only)  # not SIG_IGN, which programs that it starts would inherit
                elif callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
        return pid
    finally:
        restore_blocked(blocked)


def block_all() -> set[signal.Signals | int]:
    """Hold back every signal that can be; what was held back before."""
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()))


def restore_blocked(before: Iterable[int]) -> None:
    """End `block_all`."""
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
