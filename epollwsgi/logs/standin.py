"""The loggers of gunicorn's names, and the same of ours, for applications that look for them where they run.

Under gunicorn an application finds loggers with a handler and a level there, and many hand both on to their own; here
a handler stands in that writes into the log. Nothing is imported for this: it waits until the application imports
`logging`. What an application that gives them handlers of its own gets, decided once it is loaded:

    gunicorn.error    events; without the handler that stood in, the log has them no more
    gunicorn.access   lines, if an access log is asked for; without the handler that stood in, the log has them no more

Filters of gunicorn.access hold for its lines, wherever they go.

Called by `process.boot` and `process.start`, unless the operator configures logging.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from epollwsgi.logs.access_log import AccessLog
from epollwsgi.logs.error_log import LEVELS, ErrorLog

if TYPE_CHECKING:
    import logging

NAMES = ("epollwsgi.error", "gunicorn.error")
ACCESS_NAMES = ("epollwsgi.access", "gunicorn.access")


def stand_in(errors: ErrorLog, level: str, access: AccessLog | None) -> None:
    """Have the loggers write into these logs, now or as soon as `logging` is imported.

    access: None where none is asked for; then the logger has no handler.
    """
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Watch)]
    if "logging" in sys.modules:
        install(errors, level, access)
    else:
        sys.meta_path.insert(0, Watch(lambda: install(errors, level, access)))


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


def install(errors: ErrorLog, level: str, access: AccessLog | None) -> None:
    """Give the loggers a handler, unless they have one of somebody else's."""
    import logging

    class StandIn(logging.Handler):
        """Writes records into a log, whatever their level: whoever was handed it has one of its own."""

        is_stand_in = True

        def __init__(self, write: Callable[[logging.LogRecord], None]) -> None:
            super().__init__()
            self._write = write

        def emit(self, record: logging.LogRecord) -> None:
            try:
                self._write(record)
            except Exception:
                self.handleError(record)

    error_handlers = [StandIn(lambda record: write_record(errors, record))]
    access_handlers = [] if access is None else [StandIn(lambda record: access.write_line(record.getMessage()))]
    loggers = [(name, LEVELS[level], error_handlers) for name in NAMES]
    loggers += [(name, logging.INFO, access_handlers) for name in ACCESS_NAMES]
    for name, least, handlers in loggers:
        logger = logging.getLogger(name)
        if all(map(is_stand_in, logger.handlers)):
            logger.handlers = [*handlers]
            logger.setLevel(least)
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
    errors.write(level, first, rest.strip("\n"), least=0, is_record=True)


def adopt(errors: ErrorLog, access: AccessLog | None) -> None:
    """Called when the application is loaded: the logs go to handlers that it has given the loggers."""
    if "logging" not in sys.modules:
        return
    given = loggers_of(NAMES)
    given_access = loggers_of(ACCESS_NAMES) if access is not None else []
    if access is not None:
        sift(access)
    if not given and not given_access:
        return
    from epollwsgi.logs.python_logging import Handlers, LoggingAccess, LoggingErrors

    handlers = Handlers(None, errors.warning)
    if given:
        logger, is_beside = adopted(given[0])
        least = 0 if is_beside else logger.getEffectiveLevel()
        errors.add_target(LoggingErrors(handlers, logger), least, is_beside=is_beside)
    else:
        errors.add_target(LoggingErrors(handlers, None))
    if access is not None and given_access:
        logger, is_beside = adopted(given_access[0])
        access.add_target(LoggingAccess(handlers, logger), is_alone=not is_beside)


def sift(access: AccessLog) -> None:
    """Filters of the loggers, or of what stands in for their handlers, keep lines out of the log, as in gunicorn."""
    import logging

    for logger in map(logging.getLogger, ACCESS_NAMES):
        beside = list(filter(is_stand_in, logger.handlers))
        filters = [one for owner in (logger, *beside) for one in owner.filters]
        if beside and filters:
            access.sift(partial(passes, logger, [logger, *beside]))
            return


def passes(logger: logging.Logger, owners: Sequence[logging.Filterer], atoms: dict[str, object]) -> bool:
    """Whether all filters let a line through; it is not lost by their own faults."""
    record = logger.makeRecord(logger.name, LEVELS["info"], "", 0, "%(line)s", (atoms,), None)
    try:
        return all(owner.filter(record) for owner in owners)
    except Exception:
        return True


def adopted(logger: logging.Logger) -> tuple[logging.Logger, bool]:
    """A logger, without a handler that stands in: what that would write is in the log already; and whether one does."""
    import logging

    given = [handler for handler in logger.handlers if not is_stand_in(handler)]
    if len(given) == len(logger.handlers):
        return logger, False
    own = logging.Logger(logger.name, logger.getEffectiveLevel())
    own.handlers, own.filters = given, logger.filters
    own.parent, own.propagate = logger.parent, logger.propagate
    return own, True


def loggers_of(names: Sequence[str]) -> list[logging.Logger]:
    """Those among them to which somebody has given handlers."""
    import logging

    found = [logging.root.manager.loggerDict.get(name) for name in names]
    loggers = [logger for logger in found if isinstance(logger, logging.Logger)]
    return [logger for logger in loggers if not all(map(is_stand_in, logger.handlers))]
