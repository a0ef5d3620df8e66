"""One worker on a thread of a program that goes on: started, stopped, and everything given back. For `testing`.

It makes of settings what `process.start` and `process.boot` make of them together, without master, signals and forks,
and changes nothing of the process: it raises no limit, freezes no memory, sets no interval of threads.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from epollwsgi.errors import ApplicationFailed
from epollwsgi.listener import Listener, open_listeners
from epollwsgi.logs.opening import close_logs, open_logs
from epollwsgi.process.hook_objects import HookConfig, HookLog, HookWorker
from epollwsgi.process.hooks import Hooks
from epollwsgi.process.request_hooks import wrap_application
from epollwsgi.process.worker import Worker

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from epollwsgi.config.settings import Settings
    from epollwsgi.logs.error_log import ErrorLog

# After the time that requests have at the end: for the threads to end.
JOIN_S: Final = 2.0
FLUSH_S: Final = 5.0
MOST_DESCRIPTORS: Final = 65_536


class Background:
    """What runs: the worker, the thread that serves, the logs."""

    def __init__(self, settings: Settings, application: WSGIApplication | None, on_end: Callable[[], None]) -> None:
        """on_end: called once nothing runs any more. Raises ConfigError."""
        self._settings = settings
        self._on_end = on_end
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self.error_log, self.access_log = open_logs(settings)
        self.listeners: list[Listener] = []
        try:
            self.listeners = open_listeners(settings)
            self.worker = Worker(
                settings,
                with_hooks(application, settings, self.error_log),
                self.listeners,
                self.error_log,
                self.access_log,
                limit=connection_limit(settings),
            )
        except BaseException:
            self._close_files(is_refused=True)
            raise
        self.worker.on_open = self._ready.set
        self._thread = threading.Thread(target=self._serve, name="epollwsgi-live-server", daemon=True)

    def start(self) -> None:
        """Raises EpollwsgiError where it cannot serve."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        if self.worker.problem:
            raise ApplicationFailed(self.worker.problem)

    def stop(self, timeout_s: float | None) -> None:
        """Let requests end for so long, then cut them; wait for the threads."""
        if not self._thread.ident:
            self._end()
            return
        if timeout_s is None:
            timeout_s = self._settings.graceful_timeout
        loop = self.worker.service.loop
        loop.call_soon(lambda: self.worker.stop_alone(timeout_s))
        if threading.current_thread() in self._own_threads():
            return
        self._thread.join(timeout_s + JOIN_S)
        if self._thread.is_alive() and loop.has_ended:  # threads = 1, and the thread is in a call
            self.worker.cut()

    def _own_threads(self) -> list[threading.Thread | None]:
        """Those in which the application may be called."""
        leader = self.worker.service.leader
        return [self._thread, *([*leader.crew.seats.values(), *leader.upgrades.calls.values()] if leader else [])]

    def flush(self) -> None:
        """Write what has been noted for the access log; in the loop's thread, which may just be noting more."""
        log = self.access_log
        if log is None or not self._thread.is_alive():
            return
        done = threading.Event()

        def flush() -> None:
            log.flush()
            done.set()

        self.worker.service.loop.call_soon(flush)
        done.wait(FLUSH_S)

    def _serve(self) -> None:
        """The thread."""
        try:
            self.worker.serve()
        except BaseException as error:
            self._failure = error
            self.error_log.exception("the server has ended by a fault of its own")
        try:
            self._end()
        finally:
            self._ready.set()

    def _end(self) -> None:
        self.worker.close_all()
        self.error_log.report_held_back()
        self._close_files()
        self._on_end()

    def _close_files(self, is_refused: bool = False) -> None:
        for listener in self.listeners:
            listener.unlink()
            listener.close()
        close_logs(self.error_log, self.access_log, is_refused=is_refused)


class MemoryFile:
    """A file in memory with a path, for a log."""

    def __init__(self, name: str) -> None:
        self._fd = os.memfd_create(name, os.MFD_CLOEXEC)
        self._text = ""
        self._lock = threading.Lock()
        self._close = weakref.finalize(self, os.close, self._fd)

    @property
    def path(self) -> str:
        """By which this process opens it."""
        return f"/proc/self/fd/{self._fd}"

    def read(self) -> str:
        """All of it, also when it is closed."""
        with self._lock:
            if self._close.alive:
                size = os.fstat(self._fd).st_size
                self._text = os.pread(self._fd, size, 0).decode("utf-8", "replace")
            return self._text

    def close(self) -> None:
        """Keep what was written until now."""
        self.read()
        with self._lock:
            self._close()


def with_hooks(application: WSGIApplication | None, settings: Settings, log: ErrorLog) -> WSGIApplication | None:
    """The application with pre_request and post_request around it, where they are set. Raises ConfigError."""
    hooks = Hooks(settings, log)
    if application is None or not (hooks.pre_request or hooks.post_request):
        return application
    worker = HookWorker(1, os.getppid(), HookConfig(settings), HookLog(log))
    worker.pid = os.getpid()
    worker.app.callable = application
    worker.booted = True
    return wrap_application(application, hooks.pre_request, hooks.post_request, worker)


def connection_limit(settings: Settings) -> int:
    """How many connections it keeps open: three quarters of what the process may have, which is left as it is."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(1, (MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, MOST_DESCRIPTORS)) * 3 // 4)
    return limit if settings.worker_connections is None else min(settings.worker_connections, limit)
