"""A server for tests: `LiveServer` serves an application or a directory on threads of the process that runs the tests.

    from epollwsgi.testing import LiveServer

    with LiveServer(app) as server:
        assert urlopen(f"{server.url}/hello").read() == b"Hello!"

It is the server itself, one worker without master or signals, so that what a test patches, its fixtures, closures and
databases in memory are what the application sees. With pytest the fixture `epollwsgi_server` does the same.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from epollwsgi import importer
from epollwsgi.config.settings import DEFAULTS
from epollwsgi.errors import ConfigError, EpollwsgiError
from epollwsgi.listener import Listener
from epollwsgi.process.background import Background, MemoryFile
from epollwsgi.process.hooks import HOOKS
from epollwsgi.program import path_kept, read_settings, settle_served

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from epollwsgi.config.load import Loaded

WHO: Final = "LiveServer()"
# What differs from the defaults of the server.
OWN_DEFAULTS: Final = {"bind": "127.0.0.1:0", "graceful_timeout": 2}
NOTE_SIZE: Final = 16_384  # characters of a log, at its end, that a note holds

NEEDS_MASTER: Final = "a master and processes of its own are needed for that, and LiveServer has threads only"
CHANGES_PROCESS: Final = "it changes the whole process, which is that of the tests"
KEEPS_LOG: Final = "the error log is kept in memory, as the attribute log"
# Settings that must be what they are by default, and why.
REFUSED: Final = {
    **dict.fromkeys(
        (
            *("workers", "preload_app", "reload", "daemon", "pidfile", "proc_name", "max_requests"),
            *("max_worker_age", "max_worker_memory", "drain_delay", "user", "group", "initgroups"),
            *(name for name in HOOKS if name not in ("pre_request", "post_request")),
        ),
        NEEDS_MASTER,
    ),
    **dict.fromkeys(
        ("chdir", "raw_env", "umask", "capture_output", "logconfig", "logconfig_json", "logconfig_dict"),
        CHANGES_PROCESS,
    ),
    "errorlog": KEEPS_LOG,
}


class LiveServer:
    """Serves while the `with` block lasts, or from `start` to `close`; see the module.

    Every attribute may be read on any thread, `log` and `access_log` after the end, too. A server is started once.
    Several may run at a time. Nothing of the process stays changed: no signals, no limits, no interval of threads.
    """

    def __init__(self, application: WSGIApplication | str | os.PathLike[str] | None = None, **settings: object) -> None:
        """application: the object; or its name, "shop:create_app()", or the path of a directory with a slash in it;
        or any path as a Path; None: a site of the setting `static`.

        settings: as in a settings file. By default the system chooses a free port at 127.0.0.1 (`bind`), and requests
        that are under way at the end get 2 s (`graceful_timeout`). threads=1: the thread that serves makes every call
        of the application, which is not the main thread here. switch_interval has no effect. What needs a master or
        changes the process (`REFUSED`) is refused.
        """
        self._application = application
        self._given = settings
        self._error_file = MemoryFile("epollwsgi-error-log")
        self._access_file = MemoryFile("epollwsgi-access-log")
        self._run: Background | None = None
        self._address: tuple[str, int] | str | None = None
        self._has_ended = False

    # --- from the beginning to the end ------------------------------------------------------------------------------

    def start(self) -> Self:
        """Return once it takes connections, and ready_path, if that is set, has been answered.

        Raises ConfigError, ApplicationFailed, ApplicationNotFound: nothing runs then.
        """
        if self._run is not None or self._has_ended:
            raise EpollwsgiError(f"{WHO} is started once; make another")
        try:
            self._run = run = self._build()
        except BaseException:
            self._end_logs()
            raise
        self._address = address_of(run.listeners[0])
        _register(self)
        try:
            run.start()
        except BaseException:
            self.close(0.0)
            raise
        return self

    def close(self, timeout_s: float | None = None) -> None:
        """Stop; when it returns the address is free and the threads have ended, but for calls that do not come back.

        timeout_s: for the requests that are under way; None: graceful_timeout. Does nothing the second time. Called by
        the application itself it waits for nothing.
        """
        if self._has_ended:
            return
        self._has_ended = True
        _running.discard(self)
        if self._run is None:
            self._end_logs()
        else:
            self._run.stop(timeout_s)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """An exception of the block gets the log as a note; one that ends the program ends the server at once."""
        is_end = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
        self.close(0.0 if is_end else None)
        if error is not None and not is_end and self.log:
            error.add_note(f"epollwsgi log of {self}:\n{tail(self.log)}")

    def __str__(self) -> str:
        return self.url if self._address is not None else f"{WHO}, not started"

    # --- where it is ------------------------------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int] | str:
        """Host and port to connect to, or the path of a unix socket ("@name": an abstract one)."""
        if self._address is None:
            raise EpollwsgiError(f"{WHO} has no address before it is started")
        return self._address

    @property
    def host(self) -> str:
        """The host to connect to."""
        return self._tcp_address()[0]

    @property
    def port(self) -> int:
        """The port to connect to."""
        return self._tcp_address()[1]

    def _tcp_address(self) -> tuple[str, int]:
        address = self.address
        if isinstance(address, str):
            raise EpollwsgiError(f"{WHO} listens at the unix socket {address}, which has neither host nor port")
        return address

    @property
    def url(self) -> str:
        """The address as a URL without a slash at its end; `unix:PATH` for a unix socket."""
        address = self.address
        if isinstance(address, str):
            return f"unix:{address}"
        return f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"

    # --- what it has said -------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """The error log so far, with the tracebacks of the application and what it wrote to wsgi.errors."""
        return self._error_file.read()

    @property
    def access_log(self) -> str:
        """The access log: a line for every response that a client has got; '' where the setting accesslog is given."""
        if self._run is not None:
            self._run.flush()
        return self._access_file.read()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _build(self) -> Background:
        """All that is needed, opened. Raises StartError."""
        loaded = read_settings(WHO, self._given, OWN_DEFAULTS)
        check_settings(loaded)
        with path_kept():
            name, application = settle_served(WHO, loaded, self._application)
            if name and application is None:
                application = importer.load_checked(name, loaded.settings, loaded.source("static"))
        settings = replace(loaded.settings, errorlog=self._error_file.path)
        if "accesslog" not in self._given:
            settings = replace(settings, accesslog=self._access_file.path)
        return Background(settings, application, self._end_logs)

    def _end_logs(self) -> None:
        self._error_file.close()
        self._access_file.close()

    def _let_go(self) -> None:
        """In a forked process: it is its parent's server."""
        self._has_ended = True
        if self._run is not None:
            self._run.worker.let_go()


def check_settings(loaded: Loaded) -> None:
    """Raises ConfigError for what a server within a test cannot have."""
    for name, reason in REFUSED.items():
        if getattr(loaded.settings, name) != getattr(DEFAULTS, name):
            raise ConfigError(f"{WHO}: {name}: {reason}")


def address_of(listener: Listener) -> tuple[str, int] | str:
    """Where a client in this process connects to."""
    name = listener.sock.getsockname()
    if listener.is_unix:
        return f"@{name[1:].decode()}" if isinstance(name, bytes) else str(name)
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name[0], name[0]), name[1]


def tail(text: str) -> str:
    """The end of a log, from the beginning of a line."""
    return text if len(text) <= NOTE_SIZE else "...\n" + text[-NOTE_SIZE:].partition("\n")[2]


# --- those that run -------------------------------------------------------------------------------------------------

_running: weakref.WeakSet[LiveServer] = weakref.WeakSet()
_at_fork: list[Callable[[], None]] = []  # what is registered, once: it cannot be taken back


def running_servers() -> Iterable[LiveServer]:
    """Those that have been started and not closed, in this process."""
    return sorted(_running, key=str)


def _register(server: LiveServer) -> None:
    if not _at_fork:
        _at_fork.append(_leave_in_fork)
        os.register_at_fork(after_in_child=_leave_in_fork)
    _running.add(server)


def _leave_in_fork() -> None:
    """A forked process has copies of sockets, and none of the threads that serve."""
    for server in list(_running):
        server._let_go()
    _running.clear()
