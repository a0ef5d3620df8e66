"""The loggers `gunicorn.error` and `epollwsgi.error`, for applications that look for them where they run.

Under gunicorn an application finds a logger with a handler and a level there, and many hand both on to their own; here
a handler stands in that writes into the error log. An application that gives the logger handlers of its own gets the
error log by them, as under gunicorn. Nothing is imported for this: it waits until the application imports `logging`.
Called by `process.boot` and `process.start`, unless the operator configures logging.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from epollwsgi.logs.error_log import LEVELS, ErrorLog

if TYPE_CHECKING:
    import logging

NAMES = ("epollwsgi.error", "gunicorn.error")


def stand_in(errors: ErrorLog, level: str) -> None:
    """Have the loggers write into this log, now or as soon as `logging` is imported."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Watch)]
    if "logging" in sys.modules:
        install(errors, level)
    else:
        sys.meta_path.insert(0, Watch(lambda: install(errors, level)))


class Watch:
    """A finder of modules that finds none but waits for one."""

    def __init__(self, on_logging: Callable[[], None]) -> None:
        self._on_logging = on_logging

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name != "logging":
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self._on_logging()

            vars(spec.loader)["exec_module"] = exec_module
        return spec


def install(errors: ErrorLog, level: str) -> None:
    """Give the loggers a handler, unless they have one of somebody else's."""
    import logging

    class StandIn(logging.Handler):
        """Writes records into the error log, whatever their level: whoever was handed it has one of its own."""

        is_stand_in = True

        def emit(self, record: logging.LogRecord) -> None:
            try:
                write_record(errors, record)
            except Exception:
                self.handleError(record)

    handler = StandIn()
    for name in NAMES:
        logger = logging.getLogger(name)
        if all(map(is_stand_in, logger.handlers)):
            logger.handlers = [handler]
            logger.setLevel(LEVELS[level])
            logger.propagate = False


def is_stand_in(handler: object) -> bool:
    """True for a handler that `install` has made."""
    return getattr(handler, "is_stand_in", False)


def write_record(errors: ErrorLog, record: logging.LogRecord) -> None:
    """One record as a line of the log, what is below its first line and its traceback as they are."""
    first, _, rest = record.getMessage().partition("\n")
    if record.exc_info and record.exc_info[0] is not None:
        from traceback import format_exception

        rest += "\n" + "".join(format_exception(*record.exc_info))
    level = max((name for name in LEVELS if LEVELS[name] <= record.levelno), key=LEVELS.__getitem__, default="debug")
    errors.write(level, first, rest.strip("\n"), least=0)


def adopt(errors: ErrorLog) -> None:
    """Called when the application is loaded: the log goes to handlers that it has given one of the loggers."""
    if "logging" not in sys.modules:
        return
    import logging

    for name in NAMES:
        logger = logging.root.manager.loggerDict.get(name)
        if isinstance(logger, logging.Logger) and logger.handlers and not any(map(is_stand_in, logger.handlers)):
            from epollwsgi.logs.python_logging import Handlers, LoggingErrors

            errors.add_target(LoggingErrors(Handlers(None, errors.warning), logger), logger.getEffectiveLevel())
            return
