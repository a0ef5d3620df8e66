"""Python's own logging as the operator configured it: logconfig_dict, logconfig_json or logconfig, in this order.

Records go to `epollwsgi.error` and `epollwsgi.access` where the configuration names them, else to `gunicorn.error` and
`gunicorn.access`, which is what files written for gunicorn name. A logger that is named takes the place of errorlog or
accesslog, and its level that of loglevel; a log that is not named stays where it was. What a file leaves out is filled
in from DEFAULTS. What is no record (wsgi.errors, stacks after a fault) goes to errorlog as ever.

Handlers may wait for a network or a reader, so a thread calls them (`writer`). An application that configures
logging anew does not silence them, although dictConfig disables whatever loggers it finds. Imported where logging is
configured, and by an application that has imported logging for itself.
"""

from __future__ import annotations

import configparser
import json
import logging
import logging.config
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

from epollwsgi.config.settings import Settings
from epollwsgi.errors import ConfigError
from epollwsgi.logs.files import remove_empty
from epollwsgi.logs.reopening import all_handlers, file_handlers, make_wary
from epollwsgi.logs.writer import Writer, split

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
NAMES = ("epollwsgi", "gunicorn")  # the first that the configuration names gets the records

DEFAULTS: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["error_console"], "propagate": False},
        "gunicorn.access": {"level": "INFO", "handlers": ["console"], "propagate": False},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stdout"},
        "error_console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stderr"},
    },
    "formatters": {
        "generic": {
            "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
            "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
            "class": "logging.Formatter",
        },
    },
}

Job = Callable[[], None]


# --- reading and applying -------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Configuration:
    """What the operator wrote. names: of the loggers in it; what it says of the process holds while it is the last.

    is_wary: see `files`.  made_files: that were not there before its handlers opened them.
    """

    source: str
    names: frozenset[str]
    put_in_place: Callable[[], None]
    is_wary: bool = False
    made_files: list[str] = field(default_factory=list)

    def install(self) -> None:
        """Have it hold in this process. Raises whatever its classes do."""
        kind: Any = logging.FileHandler
        before = kind._open
        kind._open = lambda handler: self._open(handler, before)
        try:
            self.put_in_place()
        finally:
            kind._open = before
        if self.is_wary:
            for handler in file_handlers():  # also those that open their file with their first record
                make_wary(handler)

    def _open(self, handler: logging.FileHandler, call: Callable[[logging.FileHandler], Any]) -> Any:
        """In the place of FileHandler._open, while handlers are made."""
        if self.is_wary:
            make_wary(handler)
        if not os.path.lexists(handler.baseFilename):
            self.made_files.append(handler.baseFilename)
        return call(handler)


# Those of living generations: logging has one state for the whole process, and a reload that fails must not change it.
applied: list[Configuration] = []


def read_configuration(settings: Settings) -> Configuration:
    """What the settings say: one of three has something. Raises ConfigError."""
    if settings.logconfig_dict:
        return table_configuration("logconfig_dict", settings.logconfig_dict)
    if settings.logconfig_json:
        source = f"logconfig_json = {settings.logconfig_json!r}"
        try:
            with open(settings.logconfig_json, encoding="utf-8") as file:
                table = json.load(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{source}: {describe(error)}") from None
        if not isinstance(table, dict):
            raise ConfigError(f"{source}: an object is allowed, as logging.config.dictConfig takes it")
        return table_configuration(source, table)
    return ini_configuration(settings.logconfig)


def table_configuration(source: str, given: Mapping[str, Any]) -> Configuration:
    """Of a table; its top-level keys take the place of those in DEFAULTS, whose handlers and formats stay known."""
    table = {**DEFAULTS, **given}
    for key in ("handlers", "formatters"):
        if isinstance(table[key], Mapping):
            table[key] = {**DEFAULTS[key], **table[key]}
    loggers = table["loggers"]
    names = frozenset(map(str, loggers)) if isinstance(loggers, Mapping) else frozenset[str]()
    return Configuration(source, names, lambda: logging.config.dictConfig(copy_tables(table)))


def copy_tables(value: Any) -> Any:
    """A copy that may be changed; objects in it stay the same."""
    if isinstance(value, Mapping):
        return {key: copy_tables(item) for key, item in value.items()}
    return [copy_tables(item) for item in value] if isinstance(value, list | tuple) else value


def ini_configuration(path: str) -> Configuration:
    """Of a file as logging.config.fileConfig takes it, with `here` and `__file__` to be used in it."""
    source = f"logconfig = {path!r}"
    parser = configparser.ConfigParser({"__file__": path, "here": os.path.dirname(path)})
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
        keys = parser["loggers"]["keys"].split(",") if "loggers" in parser else []
        sections = [f"logger_{key.strip()}" for key in keys if key.strip() != "root"]
        names = frozenset(parser[section]["qualname"] for section in sections)
    except (OSError, ValueError, KeyError, configparser.Error) as error:
        raise ConfigError(f"{source}: {describe(error)}") from None
    return Configuration(source, names, lambda: logging.config.fileConfig(parser, disable_existing_loggers=False))


def apply(configuration: Configuration, level: str) -> None:
    """Configure logging in this process; what held before holds again if that fails. Raises ConfigError.

    level: of the error log where the configuration names none.
    """
    for name in NAMES:
        for logger, least in ((logging.getLogger(f"{name}.error"), LEVELS[level]), (access_logger(name), 20)):
            logger.setLevel(least)
            logger.propagate = False
    try:
        configuration.install()
    except Exception as error:  # of whatever classes the operator names
        if applied:
            applied[-1].install()
        remove_empty(configuration.made_files)
        raise ConfigError(f"{configuration.source}: {describe(error)}") from None
    applied.append(configuration)


def access_logger(name: str) -> logging.Logger:
    """Of one of NAMES."""
    return logging.getLogger(f"{name}.access")


def take_back(configuration: Configuration) -> None:
    """The logs of a generation are closed; if it was the last, which then was never to serve, the one before holds."""
    if configuration in applied:
        was_last = applied[-1] is configuration
        applied.remove(configuration)
        if was_last and applied:
            applied[-1].install()


def find_logger(configuration: Configuration, kind: str) -> logging.Logger | None:
    """Who gets the records of a log, `error` or `access`; None where the configuration names nobody.

    A configuration that names a parent alone has its loggers hand their records on to that.
    """
    for name in NAMES:
        if f"{name}.{kind}" in configuration.names or name in configuration.names:
            return logging.getLogger(f"{name}.{kind}")
    return None


def describe(error: BaseException) -> str:
    """An error of reading or applying, with its cause, on one line."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, KeyError):
        text = f"{error.args[0]!r} is missing"
    else:
        text = str(error) or type(error).__name__
    if error.__cause__ is not None:
        text += f": {describe(error.__cause__)}"
    return " ".join(text.split())


# --- records --------------------------------------------------------------------------------------------------------


class Handlers:
    """Calls the handlers of loggers on a thread of its own. Its two logs are `LoggingErrors` and `LoggingAccess`."""

    def __init__(self, configuration: Configuration | None, report: Callable[[str], None]) -> None:
        """configuration: None for the application's own.  report: gets one line about records that were lost."""
        self._configuration = configuration
        self._mine = list(all_handlers())
        self._writer: Writer[Job] = Writer("logging", self._do, report)

    def put(self, logger: logging.Logger, records: Sequence[logging.LogRecord]) -> None:
        """Have records handled."""
        self._writer.put(partial(call_handlers, logger, records), len(records))

    def flush(self, is_end: bool) -> None:
        """Wait a moment for what was put so far; at the end, stuck handlers are not asked for anything any more."""
        if not self._writer.flush() and is_end:
            self._forsake()

    def close(self) -> None:
        """No records come any more."""
        if not self._writer.flush():
            self._forsake()
        if self._configuration is not None:
            take_back(self._configuration)

    def _forsake(self) -> None:
        """One of them is stuck, and whoever shuts logging down at the end of the process must not wait for it."""
        for handler in self._mine:
            handler.lock = None
            vars(handler).update(flush=do_nothing, close=do_nothing)

    @staticmethod
    def _do(job: Job) -> tuple[int, str]:
        job()
        return 0, ""


def call_handlers(logger: logging.Logger, records: Sequence[logging.LogRecord]) -> None:
    """As Logger.handle does, but for loggers that were disabled too."""
    for record in records:
        found: object = logger.filter(record)  # from Python 3.12 on it may be another record
        if found:
            logger.callHandlers(found if isinstance(found, logging.LogRecord) else record)


class LoggingErrors:
    """The error log as records; without a logger only what must be told to handlers."""

    def __init__(self, handlers: Handlers, logger: logging.Logger | None) -> None:
        self._handlers = handlers
        self._logger = logger

    def write_event(
        self,
        level: str,
        message: str,
        detail: str,
        error: tuple[type[BaseException], BaseException, TracebackType | None] | None,
    ) -> None:
        """One event of the error log."""
        if self._logger is None:
            return
        text = f"{message}\n{detail}" if detail and error is None else message
        record = self._logger.makeRecord(self._logger.name, LEVELS[level], "", 0, text, (), error)
        if error is not None:
            record.exc_text = detail
        self._handlers.put(self._logger, [record])

    def flush(self, is_end: bool) -> None:
        """Wait a moment for what was written so far."""
        self._handlers.flush(is_end)

    def files(self) -> list[str]:
        """Of all file handlers."""
        return [one.baseFilename for one in file_handlers()]

    def reopen(self) -> None:
        """Nothing: see `reopening`."""

    def close(self) -> None:
        """Nobody writes into it any more."""
        self._handlers.close()


class LoggingAccess:
    """The access log as records, whose `args` are gunicorn's atoms."""

    wants_atoms = True
    fd = -1

    def __init__(self, handlers: Handlers, logger: logging.Logger) -> None:
        self._handlers = handlers
        self._logger = logger

    def write_lines(self, lines: list[str]) -> None:
        """Never called: see wants_atoms."""

    def write_atoms(self, atoms: list[dict[str, object]]) -> None:
        """Responses, each with all that gunicorn knows of one."""
        logger = self._logger
        if logger.getEffectiveLevel() > logging.INFO:
            return
        make = partial(logger.makeRecord, logger.name, logging.INFO, "", 0, "%(line)s")
        for part in split(atoms, size_of_atoms):
            self._handlers.put(logger, [make((one,), None) for one in part])

    def reopen(self) -> None:
        """Nothing: see `reopening`."""

    def close(self) -> None:
        """Nothing: it ends with the error log."""


def size_of_atoms(atoms: dict[str, object]) -> int:
    """About the characters that a record holds: a client fills most of them."""
    return sum(len(value) for value in atoms.values() if isinstance(value, str)) + 20 * len(atoms)


def do_nothing() -> None:
    """In the place of a method."""
