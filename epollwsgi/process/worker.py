"""One worker: its loop, its listeners, its signals, and how it drains. Built by `cli`; all in the calling process.

signal     effect
TERM       finish open requests within graceful_timeout, answering `Connection: close`; exit 0
INT, QUIT  stop at once: no new requests, what waits to be sent gets a second; exit 0
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from epollwsgi.acceptor import Acceptor, close_idle
from epollwsgi.listener import Listener
from epollwsgi.log import AccessLog, ErrorLog
from epollwsgi.loop import IN, Loop
from epollwsgi.service import Service, connection_limit
from epollwsgi.wsgi import Application

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings

QUICK_STOP_S = 1.0
# Idle connections stay for so long when a worker drains: a request under way is still answered.
DRAIN_LINGER_S = 2.0
DRAIN_LOOK_S = 0.05

SIGNALS: dict[signal.Signals, tuple[str, str]] = {
    signal.SIGTERM: ("stop_gracefully", "finish open requests within graceful_timeout, then end"),
    signal.SIGINT: ("stop_quickly", "end at once; what waits to be sent gets a second"),
    signal.SIGQUIT: ("stop_quickly", "end at once; what waits to be sent gets a second"),
}


class SignalPipe:
    """Signals as events of the loop: the interpreter writes each number into a socket that epoll watches."""

    def __init__(self, loop: Loop, act: Callable[[int], None]) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.fd = self._reader.fileno()
        self._act = act
        self._before = {number: signal.signal(number, note_only) for number in SIGNALS}
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        loop.handlers[self.fd] = self
        loop.epoll.register(self.fd, IN)

    def on_event(self, mask: int) -> None:
        """Signals have come."""
        for number in self._reader.recv(64):
            if number in SIGNALS:
                self._act(number)

    def close(self) -> None:
        """Handlers as they were before."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def note_only(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing: the number is in the pipe already."""


class Worker:
    """Serves until a signal stops it."""

    def __init__(
        self,
        settings: Settings,
        application: Application | None,
        listeners: Sequence[Listener],
        error_log: ErrorLog,
        access_log: AccessLog | None,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._error_log = error_log
        self._access_log = access_log
        self._limit = connection_limit(settings)
        self.service = Service(settings, application, error_log, access_log)
        self.acceptors = [Acceptor(self.service, listener, self._limit) for listener in listeners]
        self._stop_at = float("inf")
        self._linger_at = float("inf")

    def run(self) -> int:
        """Serve until TERM, INT or QUIT; the exit code. Must be called in the main thread (signals)."""
        loop = self.service.loop
        signals = SignalPipe(loop, self._on_signal)
        # What was loaded stays: the collector need not look at it again and again. It costs Flask 5 us a request.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(self._settings.switch_interval)
        os.register_at_fork(after_in_child=weak_call(self, "leave_in_fork"))
        try:
            loop.running = True
            if self.service.leader is None:
                loop.run()
            else:
                self.service.leader.crew.leave = self._leave
                self.service.leader.crew.run()
        finally:
            gc.unfreeze()
            signals.close()
            for listener in self._listeners:
                listener.close()
            loop.close()
            if self._access_log is not None:
                self._access_log.flush()
        return 0

    def _leave(self) -> None:
        """End the process from another thread: the main one is stuck in a call of the application. Exit code 0."""
        for listener in self._listeners:
            listener.close()
        if self._access_log is not None:
            self._access_log.flush()
        self._error_log.report_held_back()
        os._exit(0)

    def leave_in_fork(self) -> None:
        """In a process that the application forked: let go of all that is its parent's, and tell nobody."""
        loop = self.service.loop
        loop.running = False
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for handler in list(loop.handlers.values()):
            sock = getattr(handler, "sock", None)
            if sock is not None:
                sock.close()
        for listener in self._listeners:
            listener.sock.close()
        loop.epoll.close()

    def _on_signal(self, number: int) -> None:
        action, _ = SIGNALS[signal.Signals(number)]
        self._error_log.debug(f"signal {signal.Signals(number).name} in process {os.getpid()}")
        getattr(self, action)()

    def stop_gracefully(self) -> None:
        """Take what waits in the backlog, then no new connections; every open request is finished."""
        self._begin_stop(self._settings.graceful_timeout, DRAIN_LINGER_S)

    def stop_quickly(self) -> None:
        """No new requests; what waits to be sent gets a moment."""
        self._begin_stop(QUICK_STOP_S, 0.0)

    def _begin_stop(self, timeout_s: float, linger_s: float) -> None:
        now = time.monotonic()
        if self._stop_at == float("inf"):
            for acceptor in self.acceptors:
                acceptor.drain()
            for listener in self._listeners:
                listener.close()
            self.service.drain()
            if self.service.leader is not None:
                self.service.leader.upgrades.end()
        self._stop_at = min(self._stop_at, now + timeout_s)
        self._linger_at = min(self._linger_at, now + linger_s)
        self.service.loop.call_later(0, self._drain_on)

    def _drain_on(self) -> None:
        """One look at what is still open, now and again until nothing is."""
        now = time.monotonic()
        connections = self.service.connections
        loop = self.service.loop
        if now >= self._linger_at:
            close_idle(self.service, len(connections), 0.0)
        if not connections or now >= self._stop_at:
            if connections:
                self._error_log.warning(f"{len(connections)} connections were cut at the end (graceful_timeout)")
            loop.running = False
            return
        loop.call_later(DRAIN_LOOK_S, self._drain_on)


def weak_call(owner: object, name: str) -> Callable[[], None]:
    """Calls a method of `owner` as long as that exists: what is registered for forks cannot be taken back."""
    reference = weakref.ref(owner)

    def call() -> None:
        found = reference()
        if found is not None:
            getattr(found, name)()

    return call
