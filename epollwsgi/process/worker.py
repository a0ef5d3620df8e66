"""One worker: its loop, its listeners, its signals, when it is ready, and how it drains. Built by `process.boot`.

What signals mean to it stands in `process.signals`. Its master is behind `station`; without one it serves alone, and
on any thread of a program where `serve`, `stop_alone` and `close` are called instead of `run` (`testing`).
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
from contextlib import suppress
from typing import TYPE_CHECKING

from epollwsgi.acceptor import Acceptor, close_idle
from epollwsgi.crew import do_nothing
from epollwsgi.errors import ApplicationFailed
from epollwsgi.listener import Listener, is_closing, refuse_connections
from epollwsgi.logs.access_log import AccessLog
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.reopening import reopen_handlers
from epollwsgi.loop import IN
from epollwsgi.process.probe import Probe
from epollwsgi.process.signals import WORKER_SIGNALS, SignalPipe
from epollwsgi.process.station import Station
from epollwsgi.service import Service, connection_limit
from epollwsgi.states import LINGER
from epollwsgi.wsgi import Application

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings

QUICK_STOP_S = 1.0
# Idle connections stay for so long when a worker drains: a request under way is still answered.
DRAIN_LINGER_S = 2.0
DRAIN_LOOK_S = 0.02
# A listener that is shut lets handshakes under way complete: accepting ends when nobody has come for so long.
BACKLOG_QUIET_S = 0.1
HELPER_JOIN_S = 1.0
BEAT_S = 1.0
FOREVER = float("inf")


class Worker:
    """Serves until a signal stops it."""

    def __init__(
        self,
        settings: Settings,
        application: Application | None,
        listeners: Sequence[Listener],
        error_log: ErrorLog,
        access_log: AccessLog | None,
        station: Station | None = None,
        limit: int = 0,
    ) -> None:
        """limit: connections that it keeps open; 0: as the settings have it, which may raise RLIMIT_NOFILE."""
        self._settings = settings
        self._listeners = listeners
        self._error_log = error_log
        self._access_log = access_log
        self._station = station
        self._limit = limit or connection_limit(settings)
        self.service = Service(settings, application, error_log, access_log)
        self.service.mine = station.mine if station is not None else None
        self.acceptors: list[Acceptor] = []
        self.on_open: Callable[[], None] = do_nothing  # called when it takes connections
        self.on_unready: Callable[[str], bool] = is_refused  # told why it should not; True: it does all the same
        self.problem = ""  # why it never did
        self._stop_at = FOREVER
        self._may_end_at = 0.0
        self._quiet_s = BACKLOG_QUIET_S
        self._is_final = False  # the whole server stops, as far as this worker knows
        self._linger_at = FOREVER
        self._new_linger_s = 0.0

    def run(self) -> int:
        """Serve until TERM, INT or QUIT; the exit code. Must be called in the main thread (signals)."""
        loop = self.service.loop
        signals = SignalPipe(WORKER_SIGNALS, self._on_signal)
        loop.handlers[signals.fd] = signals
        loop.epoll.register(signals.fd, IN)
        # What was loaded stays: the collector need not look at it again and again. It costs Flask 5 us a request.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(self._settings.switch_interval)
        os.register_at_fork(after_in_child=weak_call(self, "leave_in_fork"))
        if self.service.leader is not None:
            self.service.leader.crew.leave = self._leave
        try:
            self.serve()
        finally:
            gc.unfreeze()
            signals.close()
            self.close()
        return 0

    def serve(self) -> None:
        """Until a stop has come to its end. The calling thread is what the main one is to a crew."""
        loop = self.service.loop
        loop.running = True
        loop.call_soon(self._prepare)
        if self.service.leader is None:
            loop.call_soon(self._tick)
            loop.run()
        else:
            crew = self.service.leader.crew
            crew.on_beat = self._beat
            crew.run()

    def close(self) -> None:
        """After `serve`: give back listeners and loop. Connections that are left end with the process."""
        for listener in self._listeners:
            listener.close()
        self.service.loop.close()
        if self._access_log is not None:
            self.service.end_notes()
            self._access_log.flush()

    def close_all(self) -> None:
        """As `close`, where the process goes on: nothing that was opened stays, no thread but those in a call."""
        service = self.service
        self.cut()
        service.helper.close(HELPER_JOIN_S)
        service.reader.close(HELPER_JOIN_S)
        if service.static is not None:
            service.static.close()
        self.close()

    def cut(self) -> None:
        """After the loop: end the connections that are left, whoever has them, and forget what waits for a thread."""
        self.service.end_notes()
        connections = self.service.connections
        while connections:
            connection = connections.pop()
            connection.gone = True
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            connection.sock.close()
        if self.service.leader is not None:
            self.service.leader.crew.queue.clear()

    def _leave(self) -> None:
        """End the process from another thread: the main one is stuck in a call of the application. Exit code 0."""
        if self._access_log is not None:
            self.service.end_notes()
            self._access_log.flush()
        self._error_log.report_held_back()
        self._error_log.flush()
        if self._station is not None:
            self._station.say_goodbye()
            self._error_log.flush()
        os._exit(0)

    def leave_in_fork(self) -> None:
        """In a process that the application forked: let go of all that is its parent's, and tell nobody."""
        signal.set_wakeup_fd(-1)
        for number in WORKER_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self.let_go()
        if self._station is not None:
            self._station.abandon()

    def let_go(self) -> None:
        """In a forked process: close its copies of what is served with. No thread of the worker is there."""
        loop = self.service.loop
        loop.running = False
        for handler in list(loop.handlers.values()):
            sock = getattr(handler, "sock", None)
            if sock is not None:
                sock.close()
        for listener in self._listeners:
            listener.sock.close()
        loop.epoll.close()

    # --- ready ------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """In the loop's first turn: ask ready_path, if there is one, before anybody else may ask."""
        if self._settings.ready_path:
            Probe(self.service, self._settings.ready_path, self._on_probed)
        else:
            self._open()

    def _on_probed(self, problem: str) -> None:
        if not problem or self.on_unready(problem):
            self._open()
            return
        self.problem = problem
        if self._station is None:
            self._error_log.error(problem)
        else:
            self._station.report_failure(ApplicationFailed.exit_code, problem)
        self.service.loop.running = False

    def _open(self) -> None:
        """Take connections from now on."""
        if self._stop_at < FOREVER:
            return
        self.acceptors = [Acceptor(self.service, listener, self._limit) for listener in self._listeners]
        if self._station is not None:
            if self.service.leader is not None:
                self.service.leader.on_stuck = self._station.report_stuck
            self.service.limit_requests(self._station.max_requests(), self._station.report_max_requests)
            self.service.loop.on_second.append(self._note)
            self._station.report_ready()
        self.on_open()

    # --- once a second ----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """A site alone has no watch: its loop wakes up once a second itself."""
        self._beat()
        if self._station is not None:
            self.service.loop.call_later(BEAT_S, self._tick)

    def _beat(self) -> None:
        """The loop is alive. Called about once a second, by the watch where there is one."""
        station = self._station
        if station is not None:
            station.beat()
            for acceptor in self.acceptors:
                acceptor.look_again()
            if station.is_orphan():
                self.service.loop.call_soon(self.stop_gracefully)

    def _note(self, now: float, common: bytes) -> None:
        """Figures for the scoreboard, once a second while there is something to do."""
        if self._station is not None:
            self._station.note(self.service.request_count(), self.service.in_flight())

    # --- signals ----------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        action, _ = WORKER_SIGNALS[signal.Signals(number)]
        self._error_log.debug(f"signal {signal.Signals(number).name} in process {os.getpid()}")
        if self._station is not None and action == "stop_quickly":
            self._station.call_hook("worker_int")
        getattr(self, action)()

    def stop_gracefully(self) -> None:
        """No new connections, but those that already wait at a listener that is shut; every request is finished."""
        self._begin_stop(self._settings.graceful_timeout, 0.0 if self._settings.reload else DRAIN_LINGER_S)

    def stop_quickly(self) -> None:
        """No new requests; what waits to be sent gets a moment."""
        self._begin_stop(QUICK_STOP_S, 0.0)

    def stop_alone(self, timeout_s: float) -> None:
        """As stop_gracefully where nobody is about to come or to ask again: requests alone are waited for."""
        self._quiet_s = 0.0
        self._begin_stop(timeout_s, 0.0)

    def reopen_logs(self) -> None:
        """Log files were moved away."""
        self._error_log.reopen()
        if self._access_log is not None:
            self._access_log.reopen()
        reopen_handlers(self._error_log.warning)

    def _begin_stop(self, timeout_s: float, linger_s: float) -> None:
        now = time.monotonic()
        if self._stop_at == FOREVER:
            self._may_end_at = now + self._quiet_s
            is_final = self._is_final = self._station is None or self._station.is_final()
            if self._station is not None:
                self._station.report_draining()
            is_orphan = self._station is not None and self._station.is_orphan()
            for acceptor, listener in zip(self.acceptors, self._listeners, strict=False):
                if is_orphan and not listener.is_foreign:
                    refuse_connections(listener.sock)  # the master cannot any more
                if (is_final and not listener.is_foreign) or is_closing(listener.sock):
                    acceptor.empty_backlog()
                else:
                    acceptor.stop()
            self.service.drain()
            if self.service.leader is not None:
                self.service.leader.upgrades.end()
        if timeout_s <= QUICK_STOP_S:
            for acceptor in self.acceptors:
                acceptor.stop()
        self._stop_at = min(self._stop_at, now + timeout_s)
        self._linger_at = min(self._linger_at, now + linger_s)
        self._new_linger_s = 0.0 if timeout_s <= QUICK_STOP_S or not self._quiet_s else DRAIN_LINGER_S
        self.service.loop.call_later(0, self._drain_on)

    def _drain_on(self) -> None:
        """One look at what is still open, now and again until nothing is."""
        now = time.monotonic()
        connections = self.service.connections
        loop = self.service.loop
        if not self._is_final and self._station is not None and self._station.is_final():
            self._is_final = True  # the signal came here before it came to the master: to the whole group, say
            for acceptor, listener in zip(self.acceptors, self._listeners, strict=False):
                if not listener.is_foreign and listener.sock.fileno() >= 0:
                    acceptor.is_open = True
                    acceptor.empty_backlog()
        for acceptor in self.acceptors:
            if acceptor.is_open and now - acceptor.accepted_at >= self._quiet_s:
                acceptor.stop()
        is_accepting = any(acceptor.is_open for acceptor in self.acceptors)
        if not is_accepting and now >= self._may_end_at:
            for listener in self._listeners:
                listener.close()
        if now >= self._linger_at:
            close_idle(self.service, len(connections), 0.0, self._new_linger_s)
        is_waiting = is_accepting or bool(connections)
        if not self._quiet_s and all(one.state is LINGER for one in connections):
            is_waiting = False  # whoever has an answer and does not close
        if now >= (self._stop_at if is_waiting else self._may_end_at):
            if is_waiting and connections:
                self._error_log.warning(f"{len(connections)} connections were cut at the end (graceful_timeout)")
            loop.running = False
            return
        loop.call_later(DRAIN_LOOK_S, self._drain_on)


def is_refused(problem: str) -> bool:
    """What is not ready is not served."""
    return False


def weak_call(owner: object, name: str) -> Callable[[], None]:
    """Calls a method of `owner` as long as that exists: what is registered for forks cannot be taken back."""
    reference = weakref.ref(owner)

    def call() -> None:
        found = reference()
        if found is not None:
            getattr(found, name)()

    return call
