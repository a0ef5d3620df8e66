"""What no single value shows: settings that contradict each other, and files and directories that are not there.

Called once all sources are read and the directory of the settings is entered, before anything is opened, by the start
of a server and by --check-config. It opens nothing. What others find as soon as they look keeps its one owner: mounts
and targets `importer`, users `process.privileges`, addresses in use `listener`, the logs their openers. A combination
is a mistake only where it can mean nothing: max_requests_jitter alone, say, has no effect and does no harm.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from epollwsgi.config.destinations import parse_syslog
from epollwsgi.config.load import Loaded, show_written
from epollwsgi.config.settings import DEFAULTS, OPTIONS, Settings
from epollwsgi.config.values import Bind, FDBind, TCPBind, UnixBind
from epollwsgi.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with the value of a setting; item: which one, of a setting that has several."""

    name: str
    value: object
    reason: str
    item: int = -1


Check = Callable[[Settings], Iterator[Mistake]]
LOGS: Final = ("errorlog", "accesslog")
NO_FILE: Final = ("", "-", "auto", "none")  # what a log may be beside a file
READ: Final = ("logconfig", "logconfig_json")  # files that the start reads
ANY_IPV4: Final = "0.0.0.0"
ANY_IPV6: Final = "::"


def check(loaded: Loaded) -> None:
    """Raises ConfigError for the first mistake: one line with the source, the name, the value and the reason."""
    for find in CHECKS:
        for mistake in find(loaded.settings):
            source = loaded.source(mistake.name, mistake.item)
            raise ConfigError(f"{source}: {mistake.name} = {show_written(mistake.value)}: {mistake.reason}")


# --- settings alone -------------------------------------------------------------------------------------------------


def find_refused(settings: Settings) -> Iterator[Mistake]:
    """What the table refuses so far, because it would be dangerous to ignore."""
    for name, option in OPTIONS.items():
        value = getattr(settings, name)
        if option.refusal and value != getattr(DEFAULTS, name):
            yield Mistake(name, value, option.refusal)


def find_bad_destinations(settings: Settings) -> Iterator[Mistake]:
    """An address that cannot be written to. What nobody writes to is passed over, as in gunicorn."""
    if settings.syslog:
        try:
            parse_syslog(settings.syslog_addr)
        except ValueError as error:
            yield Mistake("syslog_addr", settings.syslog_addr, str(error))


def find_bind_clashes(settings: Settings) -> Iterator[Mistake]:
    """No address, the same address twice, or one that another covers."""
    if not settings.bind:
        yield Mistake("bind", [], "at least one address is allowed")
    seen: dict[tuple[Any, ...], Bind] = {}
    for number, bind in enumerate(settings.bind):
        key = identity_of(bind)
        if key in seen:
            same = "it is given twice" if str(bind) == str(seen[key]) else f"it is the same as {seen[key]}"
            yield Mistake("bind", str(bind), same, number)
        for other in () if settings.reuse_port else seen.values():
            if covers(other, bind) or covers(bind, other):
                wide, narrow = (other, bind) if covers(other, bind) else (bind, other)
                yield Mistake("bind", str(bind), f"{wide} covers {narrow} already; name one of them", number)
        if not (isinstance(bind, TCPBind) and bind.port == 0):  # the system chooses another port each time
            seen[key] = bind


def identity_of(bind: Bind) -> tuple[Any, ...]:
    """What is the same for two binds that mean one address."""
    if isinstance(bind, UnixBind):
        return "unix", bind.path if bind.is_abstract else os.path.realpath(bind.path)
    if isinstance(bind, FDBind):
        return "fd", bind.fd
    return "tcp", plain_host(bind.host), bind.port


def plain_host(host: str) -> str:
    """An IPv6 address in its shortest form, anything else as it is."""
    if ":" not in host:
        return host
    from ipaddress import IPv6Address

    return str(IPv6Address(host))


def covers(wide: Bind, narrow: Bind) -> bool:
    """True if the system lets nobody listen at `narrow` beside `wide`, which is another address.

    What a name resolves to is not asked for.
    """
    if not (isinstance(wide, TCPBind) and isinstance(narrow, TCPBind)) or wide.port != narrow.port or not wide.port:
        return False
    host = plain_host(wide.host)
    if host == ANY_IPV4:
        return narrow.host.replace(".", "").isdigit() or narrow.host == "localhost"
    return host == ANY_IPV6 and ":" in narrow.host


# --- files ----------------------------------------------------------------------------------------------------------


def find_missing(settings: Settings) -> Iterator[Mistake]:
    """Files that the start reads, and directories of files that it makes."""
    for name in READ:
        path = getattr(settings, name)
        if path and not os.path.isfile(path):
            yield Mistake(name, path, "not a regular file" if os.path.exists(path) else os.strerror(2))
    for name in (*LOGS, "pidfile"):
        path = getattr(settings, name)
        if path not in NO_FILE and (reason := cannot_be_made(path) or cannot_be_written(path, name in LOGS)):
            yield Mistake(name, path, reason)
    for number, bind in enumerate(settings.bind):
        if isinstance(bind, UnixBind) and not bind.is_abstract and (reason := cannot_be_made(bind.path)):
            yield Mistake("bind", str(bind), reason, number)
    for number, path in enumerate(settings.reload_extra_files if settings.reload else ()):
        if not os.path.exists(path) and not any(mark in path for mark in "*?["):
            yield Mistake("reload_extra_files", path, os.strerror(2), number)


def cannot_be_made(path: str) -> str:
    """Why there can be no file of that name, or ''."""
    if os.path.isdir(path):
        return "Is a directory"
    directory = os.path.dirname(path)
    if not directory or os.path.isdir(directory):
        return ""
    if os.path.exists(directory):
        return f"{directory} is not a directory"
    return f"{os.strerror(2)}: the directory {directory}"


def cannot_be_written(path: str, is_kept: bool) -> str:
    """Why this process may not write a file in a directory that is there, or ''.

    is_kept: a file of that name is written to, not replaced.
    """
    place = path if is_kept and os.path.exists(path) else os.path.dirname(path) or "."
    if os.access(place, os.W_OK, effective_ids=True):
        return ""
    return os.strerror(errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES)


def find_shared_paths(settings: Settings) -> Iterator[Mistake]:
    """One path for two things that cannot share it; both logs may be one file."""
    named = [(name, -1, path) for name in (*LOGS, "pidfile") if (path := getattr(settings, name)) not in NO_FILE]
    named += [
        ("bind", number, bind.path)
        for number, bind in enumerate(settings.bind)
        if isinstance(bind, UnixBind) and not bind.is_abstract
    ]
    seen: dict[str, str] = {}
    for name, item, path in named:
        real = os.path.realpath(path)
        other = seen.setdefault(real, name)
        if other != name and not (name in LOGS and other in LOGS):
            yield Mistake(name, path, f"{other} is the same file", item)


CHECKS: Final[tuple[Check, ...]] = (
    find_refused,
    find_bad_destinations,
    find_bind_clashes,
    find_missing,
    find_shared_paths,
)
