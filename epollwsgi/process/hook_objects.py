"""What hooks are handed: `server`, `worker`, their `log` and `cfg`, with the attributes that hooks in the field use.

They know no master and no worker but are fed with values and callables by `process.master` and `process.boot`, so that
a hook can harm neither. They keep whatever a hook sets on them, for hooks that are called later.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.settings import DEFAULTS, OPTIONS, Settings
from epollwsgi.config.values import Bind, TCPBind, UnixBind
from epollwsgi.wsgi import Application

if TYPE_CHECKING:
    import logging

    from epollwsgi.logs.error_log import ErrorLog

# --- the log --------------------------------------------------------------------------------------------------------


class HookLog:
    """`server.log`, `worker.log`: the error log with the methods of logging.Logger and its %-arguments. Never raises.

    Lines below the first go into the log as they are. Of the keywords only exc_info has an effect.
    """

    def __init__(self, log: ErrorLog) -> None:
        self._log = log

    def debug(self, message: object, *arguments: object, **keywords: object) -> None:
        """As logging has it."""
        self._write("debug", message, arguments, keywords)

    def info(self, message: object, *arguments: object, **keywords: object) -> None:
        """As logging has it."""
        self._write("info", message, arguments, keywords)

    def warning(self, message: object, *arguments: object, **keywords: object) -> None:
        """As logging has it."""
        self._write("warning", message, arguments, keywords)

    def error(self, message: object, *arguments: object, **keywords: object) -> None:
        """As logging has it."""
        self._write("error", message, arguments, keywords)

    def critical(self, message: object, *arguments: object, **keywords: object) -> None:
        """As logging has it."""
        self._write("critical", message, arguments, keywords)

    def exception(self, message: object, *arguments: object, **keywords: object) -> None:
        """As logging has it: an error, with the traceback of the exception being handled."""
        self._write("error", message, arguments, {"exc_info": True, **keywords})

    @property
    def access_log(self) -> logging.Logger:
        """gunicorn's logger of that log, for filters that it shall have."""
        from logging import getLogger

        return getLogger("gunicorn.access")

    def _write(self, level: str, message: object, arguments: tuple[Any, ...], keywords: Mapping[str, object]) -> None:
        if not self._log.is_on(level):
            return
        first, _, rest = format_message(message, arguments).partition("\n")
        error = keywords.get("exc_info")
        if error and not isinstance(error, BaseException):
            error = error[1] if isinstance(error, tuple) and len(error) == 3 else sys.exc_info()[1]
        if isinstance(error, BaseException):
            rest += f"\n{''.join(traceback.format_exception(error))}"
            self._log.write(level, first, rest.strip("\n"), error=(type(error), error, error.__traceback__))
        else:
            self._log.write(level, first, rest.strip("\n"))


def format_message(message: object, arguments: tuple[Any, ...]) -> str:
    """message % arguments, as logging has it; arguments that do not fit stand behind the message."""
    try:
        text = str(message)
        if not arguments:
            return text
        only = arguments[0]
        return text % (only if len(arguments) == 1 and only and isinstance(only, Mapping) else arguments)
    except Exception as error:
        return f"{message!r} with {arguments!r}: {error}"


# --- the settings ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HookSetting:
    """A member of `cfg.settings`."""

    name: str
    value: object
    default: object

    def get(self) -> object:
        """gunicorn's way to ask for the value."""
        return self.value


class HookConfig:
    """`server.cfg`, `worker.cfg`: an attribute for each setting, in the form in which gunicorn has it.

    Settings that only gunicorn has are as it has them by default. Nothing can be changed through it.
    """

    def __init__(self, settings: Settings, **known: object) -> None:
        """known: what the settings leave open and the server has found, as `workers` and `proc_name`."""
        vars(self).update(_settings=settings, _known=known)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # copy and pickle ask for such
        if name in self._known:
            return self._known[name]
        if name in FORMS:
            return FORMS[name](self._settings)
        if name not in OPTIONS and name not in GUNICORN_ONLY:
            raise AttributeError(f"cfg has no setting {name!r}; a hook can read settings, not change them")
        value = getattr(self._settings, name) if name in OPTIONS else GUNICORN_ONLY[name].default
        return list(value) if isinstance(value, tuple) else value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"cfg.{name}: a hook can read settings, not change them")

    @property
    def settings(self) -> dict[str, HookSetting]:
        """By name, objects with `get()`, `value` and `default`."""
        plain = HookConfig(DEFAULTS)
        return {name: HookSetting(name, getattr(self, name), getattr(plain, name)) for name in OPTIONS}


def address_of(bind: Bind) -> tuple[str, int] | str | int:
    """An address as the socket module has it; the number of an inherited descriptor."""
    if isinstance(bind, TCPBind):
        return bind.host, bind.port
    return bind.path if isinstance(bind, UnixBind) else bind.fd


def uid_of(settings: Settings) -> int:
    """The number of the user that workers run as."""
    if not settings.user or settings.user.isdigit():
        return int(settings.user or os.geteuid())
    from pwd import getpwnam

    return getpwnam(settings.user).pw_uid


def gid_of(settings: Settings) -> int:
    """The number of the group that workers run as."""
    if not settings.group or settings.group.isdigit():
        return int(settings.group or os.getegid())
    from grp import getgrnam

    return getgrnam(settings.group).gr_gid


# Where gunicorn has another form than the table of settings, or a name beside it.
FORMS: dict[str, Callable[[Settings], object]] = {
    "address": lambda settings: [address_of(bind) for bind in settings.bind],
    "bind": lambda settings: [str(bind) for bind in settings.bind],
    "env": lambda settings: dict(item.split("=", 1) for item in settings.raw_env),
    "gid": gid_of,
    "is_ssl": lambda settings: bool(settings.certfile or settings.keyfile),
    "secure_scheme_headers": lambda settings: dict(settings.secure_scheme_headers),
    "uid": uid_of,
    "worker_class_str": lambda settings: settings.worker_class,
}


# --- the processes --------------------------------------------------------------------------------------------------


class HookServer:
    """`server`: the master as hooks see it, in the master and, as it was at the fork, in each worker."""

    def __init__(
        self,
        cfg: HookConfig,
        log: HookLog,
        pid: int,
        num_workers: Callable[[], int],
        workers: Callable[[], Mapping[int, HookWorker]],
    ) -> None:
        """num_workers: how many are wanted.  workers: those that live, by their pids."""
        self.cfg = cfg  # replaced at a reload
        self.log = log
        self.pid = pid
        self._num_workers = num_workers
        self._workers = workers

    @property
    def num_workers(self) -> int:
        """How many workers there should be."""
        return self._num_workers()

    @property
    def WORKERS(self) -> dict[int, HookWorker]:  # noqa: N802  # gunicorn's name
        """The workers by their pids; a copy."""
        return dict(self._workers())

    @property
    def proc_name(self) -> str:
        """The setting of that name, or the application's."""
        return str(self.cfg.proc_name)

    @property
    def address(self) -> list[tuple[str, int] | str | int]:
        """What is listened at, as the settings have it."""
        found: list[tuple[str, int] | str | int] = self.cfg.address
        return found


class HookApplication:
    """`worker.app`: `callable`, or `wsgi()`, is the WSGI application once it is loaded."""

    callable: Application | None = None

    def wsgi(self) -> Application:
        """Raises RuntimeError before post_worker_init."""
        if self.callable is None:
            raise RuntimeError("the application is not loaded yet; it is in post_worker_init")
        return self.callable


class HookWorker:
    """`worker`: one worker as hooks see it, in the master from pre_fork to child_exit, and in the worker itself."""

    def __init__(self, age: int, ppid: int, cfg: HookConfig, log: HookLog) -> None:
        """age: which worker of the master it is, from 1."""
        self.age = age
        self.ppid = ppid
        self.cfg = cfg
        self.log = log
        self.pid: int | str = "[booting]"  # in pre_fork, as in gunicorn; the master sets it once it is known
        self.booted = False
        self.app = HookApplication()
        self._request_count: Callable[[], int] = int
        self._is_alive: Callable[[], bool] = lambda: True
        self._retire: Callable[[], object] = lambda: None
        self._is_retired = False

    def __repr__(self) -> str:
        return f"<Worker {self.pid}>"

    def enter_process(
        self, pid: int, request_count: Callable[[], int], is_alive: Callable[[], bool], retire: Callable[[], object]
    ) -> None:
        """In the worker, before post_fork.  retire: asks for a successor, then ends; may be called on any thread."""
        self.pid = pid
        self._request_count = request_count
        self._is_alive = is_alive
        self._retire = retire

    @property
    def wsgi(self) -> Application | None:
        """The WSGI application, once it is loaded."""
        return self.app.callable

    @property
    def nr(self) -> int:
        """Requests served so far."""
        return self._request_count()

    @property
    def alive(self) -> bool:
        """False once the worker is on its way out; a hook that sets it to False has it replaced, as in gunicorn."""
        return not self._is_retired and self._is_alive()

    @alive.setter
    def alive(self, value: object) -> None:
        if not value and self.alive:
            self._is_retired = True
            self._retire()
