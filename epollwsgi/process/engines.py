"""How a process learns that something has happened in a directory: watchfiles, inotify(7), or looking now and then.

An engine only says that it is worth looking: what has changed is found out by whoever asks it (`reloader`). It knows
directories and names of entries, and nothing of modules. ENGINES has them by the values of reload_engine; one that
cannot be had, or fails later, gives way to the next of its row.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import logging
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, Protocol

POLL_S: Final = 0.5
STEP_MS: Final = 200  # how long watchfiles waits by itself
WAIT_S: Final = 1.0  # modules may have been imported meanwhile
EVENTS_SIZE: Final = 65536

Concerns = Callable[[str, str], bool]  # directory, name of an entry


class Engine(Protocol):
    """What `reloader` asks."""

    name: str

    def follow(self, directories: Collection[str]) -> None:
        """Add what is not followed yet; a directory that does not exist is left out. Raises OSError."""

    def wait(self) -> bool:
        """True once something concerns the asker, False after a second without. Raises OSError."""

    def close(self) -> None:
        """Let go of everything."""


class Poll:
    """Always worth a look, twice a second."""

    name = "poll"

    def __init__(self, concerns: Concerns) -> None:
        pass

    def follow(self, directories: Collection[str]) -> None:
        """Nothing to do."""

    def wait(self) -> bool:
        """True, after a while."""
        time.sleep(POLL_S)
        return True

    def close(self) -> None:
        """Nothing to do."""


# --- inotify(7) -----------------------------------------------------------------------------------------------------

IN_CHANGES: Final = 0x0002 | 0x0004 | 0x0008 | 0x0040 | 0x0080 | 0x0100 | 0x0200  # the last four: names come and go
IN_SELF: Final = 0x0400 | 0x0800  # the directory itself was deleted or renamed
IN_ONLYDIR: Final = 0x01000000
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_NONBLOCK: Final = os.O_NONBLOCK
IN_CLOEXEC: Final = os.O_CLOEXEC
EVENT: Final = struct.Struct("iIII")  # watch, mask, cookie, size of the name
# A directory that is not there, or not to be seen, is no fault of inotify.
ABSENT: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG))

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """The kernel tells, also of files that are saved by renaming another over them."""

    name = "inotify"

    def __init__(self, concerns: Concerns) -> None:
        """Raises OSError, EMFILE where fs.inotify.max_user_instances or RLIMIT_NOFILE is reached."""
        self._concerns = concerns
        self._watches: dict[int, set[str]] = {}  # the kernel has one watch for all names of a directory
        self._followed: set[str] = set()
        self.fd = int(_libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC))
        if self.fd < 0:
            raise last_error("inotify_init1")

    def follow(self, directories: Collection[str]) -> None:
        """Raises OSError, ENOSPC where fs.inotify.max_user_watches is reached."""
        for directory in set(directories) - self._followed:
            watch = int(_libc.inotify_add_watch(self.fd, os.fsencode(directory), IN_CHANGES | IN_SELF | IN_ONLYDIR))
            if watch >= 0:
                self._watches.setdefault(watch, set()).add(directory)
                self._followed.add(directory)
            elif ctypes.get_errno() not in ABSENT:
                raise last_error(directory)

    def wait(self) -> bool:
        """See Engine."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        end_at = time.monotonic() + WAIT_S
        while (left_s := end_at - time.monotonic()) > 0:
            if poll.poll(left_s * 1000) and self._read():
                return True
        return False

    def _read(self) -> bool:
        """Take the events that have come; True if one of them matters."""
        try:
            data = os.read(self.fd, EVENTS_SIZE)
        except BlockingIOError:
            return False
        matters = False
        for event in split_events(data):
            matters = self._matters(*event) or matters
        return matters

    def _matters(self, watch: int, mask: int, name: str) -> bool:
        if mask & (IN_SELF | IN_IGNORED | IN_Q_OVERFLOW):
            if mask & (IN_SELF | IN_IGNORED):
                self._forget(watch, is_gone=bool(mask & IN_IGNORED))
            return True
        return any(self._concerns(directory, name) for directory in self._watches.get(watch, ()))

    def _forget(self, watch: int, is_gone: bool) -> None:
        """The name may mean another directory by now: it is to be followed again."""
        self._followed -= self._watches.pop(watch, set())
        if not is_gone:
            _libc.inotify_rm_watch(self.fd, watch)

    def close(self) -> None:
        """All watches end."""
        os.close(self.fd)


def last_error(what: str) -> OSError:
    """What the C library's last call failed with."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


def split_events(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Watch, mask and name of each event in what was read."""
    at = 0
    while at < len(data):
        watch, mask, _, size = EVENT.unpack_from(data, at)
        at += EVENT.size
        yield watch, mask, os.fsdecode(data[at : at + size].rstrip(b"\0"))
        at += size


# --- watchfiles -----------------------------------------------------------------------------------------------------


class Watchfiles:
    """The package of that name, which also knows where the kernel tells nothing (WATCHFILES_FORCE_POLLING, WSL)."""

    name = "watchfiles"

    def __init__(self, concerns: Concerns) -> None:
        """Raises ImportError where it is not installed."""
        self._package: Any = importlib.import_module("watchfiles")
        self._concerns = concerns
        self._followed: set[str] = set()
        self._changes: Any = None  # its generator
        self._end_at = 0.0
        self._is_new = True
        self._stop = threading.Event()
        logger = logging.getLogger("watchfiles")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)  # a line for each change, in a log file beside the code, is a change

    def follow(self, directories: Collection[str]) -> None:
        """See Engine."""
        more = {directory for directory in set(directories) - self._followed if os.path.isdir(directory)}
        if more or self._changes is None:
            self._end()
            self._followed |= more
            self._is_new = True
            self._changes = self._package.watch(
                *sorted(filter(os.path.isdir, self._followed)),
                watch_filter=self._is_wanted,
                stop_event=self._stop,
                debounce=100,
                step=25,
                rust_timeout=STEP_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=False,
            )

    def wait(self) -> bool:
        """See Engine."""
        self._end_at = time.monotonic() + WAIT_S
        for changes in self._changes:
            if self._is_new or any(self._concerns(*os.path.split(path)) for _, path in changes):
                self._is_new = False  # it begins to follow when it is asked first: what came before that is unknown
                return True
            if time.monotonic() > self._end_at:
                return False
        self._end()
        return True

    def _is_wanted(self, change: object, path: str) -> bool:
        """Where others are busy, theirs are handed out as well when the time is up: it does not look at the clock."""
        return self._concerns(*os.path.split(path)) or time.monotonic() > self._end_at

    def _end(self) -> None:
        if self._changes is not None:
            self._changes.close()
            self._changes = None

    def close(self) -> None:
        """Its threads end."""
        self._stop.set()
        self._end()


ENGINES: dict[str, tuple[type[Watchfiles] | type[Inotify] | type[Poll], ...]] = {
    "auto": (Watchfiles, Inotify, Poll),
    "inotify": (Inotify, Poll),
    "poll": (Poll,),
}
