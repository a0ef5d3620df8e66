"""Opens the logs as the settings have them: files, syslog, Python's logging, figures for statsd.

Called by `process.start`, in the master, before any worker is forked.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from epollwsgi.errors import ConfigError
from epollwsgi.logs.access_log import AccessLog, AccessTarget, FileTarget, Observer
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.files import remove_empty
from epollwsgi.logs.presets import choose_format
from epollwsgi.logs.sink import Sink

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings
    from epollwsgi.logs.python_logging import Configuration


@dataclass(slots=True)
class Beside:
    """Where else the logs go. has_errors, has_access: Python's logging has taken them over, and they go there alone.

    is_wary: see `open_logs`.
    """

    is_wary: bool
    targets: list[AccessTarget] = field(default_factory=list)
    observers: list[Observer] = field(default_factory=list)
    has_errors: bool = False
    has_access: bool = False


def open_logs(settings: Settings, name: str = "", is_wary: bool = False) -> tuple[ErrorLog, AccessLog | None]:
    """Both logs as the settings have them; None for no access log. Raises ConfigError.

    name: of the application, for syslog.  is_wary: the workers have a user of their own, see `files`.
    """
    errors = ErrorLog(open_sink("errorlog", settings.errorlog or "-", 2, is_wary), settings.loglevel)
    try:
        beside = Beside(is_wary)
        if configures_logging(settings):
            open_logging(settings, errors, beside)
        if settings.syslog:
            open_syslog(settings, name, errors, beside)
        if settings.statsd_host:
            open_statsd(settings, errors, beside)
        return errors, open_access_log(settings, errors, beside)
    except BaseException:
        errors.close(is_refused=True)
        raise


def close_logs(errors: ErrorLog, access: AccessLog | None, *, is_refused: bool = False) -> None:
    """Both are over.  is_refused: they never came into use: files that were made for them and have no line go."""
    errors.close(is_refused=is_refused)
    if access is not None:
        access.close(is_refused=is_refused)


@contextmanager
def checked_logs(settings: Settings) -> Iterator[None]:
    """What `open_logs` would find wrong, but for files and sockets; logging is configured meanwhile.

    What its handlers write then stays; files that they have only made do not. Raises ConfigError.
    """
    choose_format(settings.access_log_format, False)
    made = configure_logging(settings, False).made_files if configures_logging(settings) else []
    try:
        yield
    finally:
        remove_empty(made)


def configures_logging(settings: Settings) -> bool:
    """True where the operator configures Python's logging."""
    return bool(settings.logconfig_dict or settings.logconfig_json or settings.logconfig)


def configure_logging(settings: Settings, is_wary: bool) -> Configuration:
    """Have Python's logging as the settings say. Raises ConfigError."""
    from epollwsgi.importer import prepare_path
    from epollwsgi.logs.python_logging import apply, read_configuration

    configuration = read_configuration(settings)
    configuration.is_wary = is_wary
    prepare_path(settings.pythonpath)  # classes of the operator's own
    apply(configuration, settings.loglevel)
    return configuration


def captures_output(settings: Settings) -> bool:
    """True where standard output and error of all processes go into the error log: where that is no such output."""
    return settings.capture_output and settings.errorlog not in ("", "-")


def access_for_loggers(settings: Settings, access: AccessLog | None) -> AccessLog | None:
    """The access log as far as loggers of the application are concerned: as in gunicorn, where somebody asks for it.

    For a person at a terminal alone there are lines, too, but handlers do not get them.
    """
    is_asked = settings.accesslog not in ("auto", "none")
    is_sent = settings.syslog and not settings.disable_redirect_access_to_syslog
    return access if is_asked or is_sent else None


def open_access_log(settings: Settings, errors: ErrorLog, beside: Beside) -> AccessLog | None:
    """None where there is none. Raises ConfigError."""
    path = "" if beside.has_access else find_access_path(settings.accesslog)
    if beside.targets and settings.accesslog == "auto":
        path = ""
    is_coloured = path == "-" and is_terminal(1) and not os.environ.get("NO_COLOR")
    format = choose_format(find_format(settings, path), is_coloured)
    targets = list(beside.targets)
    if path:
        try:
            file = FileTarget(path, 1, errors, beside.is_wary)
        except (OSError, ValueError) as error:
            raise refusal("accesslog", path, error) from None
        if captures_output(settings):
            file.step_aside()
        targets.insert(0, file)
    if not targets and not beside.observers:
        return None
    access = AccessLog(targets, errors, format, settings.access_log_exclude)
    access.observers += beside.observers
    return access


def open_logging(settings: Settings, errors: ErrorLog, beside: Beside) -> None:
    """Python's logging, where the settings configure it. Raises ConfigError."""
    from epollwsgi.logs import python_logging as python

    configuration = configure_logging(settings, beside.is_wary)
    errors.made_files = configuration.made_files
    handlers = python.Handlers(configuration, errors.warning)
    logger = python.find_logger(configuration, "error")
    errors.add_target(python.LoggingErrors(handlers, logger), logger.getEffectiveLevel() if logger is not None else 0)
    beside.has_errors = logger is not None
    logger = python.find_logger(configuration, "access")
    if logger is not None:
        beside.targets.append(python.LoggingAccess(handlers, logger))
        beside.has_access = True


def open_syslog(settings: Settings, name: str, errors: ErrorLog, beside: Beside) -> None:
    """Syslog, for what Python's logging has not taken over. Raises ConfigError."""
    from epollwsgi.config.destinations import FACILITIES, parse_syslog
    from epollwsgi.logs.syslog import Syslog, SyslogAccess, SyslogErrors, resolve

    try:
        addresses = resolve(parse_syslog(settings.syslog_addr))
    except OSError as error:
        raise refusal("syslog_addr", settings.syslog_addr, error) from None
    syslog = Syslog(addresses, FACILITIES[settings.syslog_facility], errors.warning)
    inner = re.sub(r"[^A-Za-z0-9_.-]", ".", settings.syslog_prefix or settings.proc_name or name)
    program = f"epollwsgi.{inner}" if inner else "epollwsgi"
    errors.add_target(SyslogErrors(syslog, "" if beside.has_errors else f"{program}.error"))
    if not settings.disable_redirect_access_to_syslog and not beside.has_access:
        beside.targets.append(SyslogAccess(syslog, f"{program}.access"))


def open_statsd(settings: Settings, errors: ErrorLog, beside: Beside) -> None:
    """Figures for statsd. A host that nobody knows now is no reason not to serve, as in gunicorn."""
    from epollwsgi.config.destinations import parse_statsd
    from epollwsgi.logs.statsd import Statsd
    from epollwsgi.logs.syslog import resolve

    try:
        address = resolve(parse_statsd(settings.statsd_host))[0]
    except OSError as error:
        errors.warning(
            f"no figures are sent until a reload: statsd_host = {settings.statsd_host!r}: {error.strerror or error}"
        )
        return
    statsd = Statsd(address, settings.statsd_prefix, settings.dogstatsd_tags)
    errors.add_target(statsd)
    errors.on_workers = statsd.on_workers
    beside.observers.append(statsd.on_responses)


def find_access_path(written: str) -> str:
    """Where access lines go: `-` for standard output, '' for nowhere."""
    if written == "auto":
        return "-" if is_terminal(1) else ""
    return "" if written == "none" else written


def find_format(settings: Settings, path: str) -> str:
    """What access_log_format says; where nobody has said anything, a person at a terminal gets short lines.

    path: where the lines go, '' where no file is among that.
    """
    from epollwsgi.config.settings import ACCESS_LOG_FORMAT

    is_default = settings.access_log_format == ACCESS_LOG_FORMAT
    return "dev" if is_default and path and settings.accesslog == "auto" else settings.access_log_format


def open_sink(name: str, path: str, standard_fd: int, is_wary: bool) -> Sink:
    """A sink for the setting `name`. Raises ConfigError."""
    try:
        return Sink(path, standard_fd, is_wary)
    except (OSError, ValueError) as error:
        raise refusal(name, path, error) from None


def refusal(name: str, path: str, error: OSError | ValueError) -> ConfigError:
    """What the operator reads of a log that cannot be opened."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ConfigError(f"{name} = {path!r}: {reason}")


def is_terminal(fd: int) -> bool:
    """True if a person is looking."""
    return sys.stdout is not None and os.isatty(fd)
