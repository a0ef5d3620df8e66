"""The files beneath the roots by their names: opened, kept, and looked at again once a second.

Knows no path of a request and no status. What is kept lies in `static.cache`; what was missed is remembered until the
next tick only. Belongs to the thread that leads the loop. Called by `static.lookup` and `static.variants`.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from epollwsgi.static.beneath import SHORTAGES, Directory
from epollwsgi.static.cache import RECENT_NS, DirectoryState, FileCache, Key, StaticFile, identity_of, load_file
from epollwsgi.static.media_types import is_compressible
from epollwsgi.static.siblings import choose_siblings, look_beside, may_have_siblings, neighbours_of

# Together with the 24 MiB of `static.fresh` the 64 MiB of memory that a worker may give to files.
CACHE_SIZE: Final = 40 * 1024 * 1024
CACHE_COUNT: Final = 65_536
MAX_DESCRIPTORS: Final = 512
# What is remembered until the next tick, by names that clients choose.
MEMO_COUNT: Final = 16_384
MEMO_NAME_SIZE: Final = 256
# More is not compressed while serving.
MAX_COMPRESSED_SIZE: Final = 8 * 1024 * 1024

# Errors of opening that say nothing about the file: try again later (503). Every other one is a 404.
BUSY: Final = SHORTAGES | {errno.EAGAIN, errno.EINTR}


class Busy(Exception):
    """The file could not be opened just now, for want of descriptors or because of renames all the time."""


class Place(NamedTuple):
    """Where a file lies."""

    directory: Directory
    name: bytes

    @property
    def key(self) -> Key:
        """In the cache."""
        return self.directory.number, self.name


def default_max_descriptors() -> int:
    """At most MAX_DESCRIPTORS and a quarter of what the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(MAX_DESCRIPTORS, soft // 4)


class Shelf:
    """See the module."""

    def __init__(
        self,
        *,
        revalidate: float,
        max_descriptors: int,
        compress: bool,
        clock: Callable[[], float],
        log: Callable[[str], None],
        on_shortage: Callable[[], None],
    ) -> None:
        """on_shortage: gives up descriptors that are held elsewhere. The rest as StaticHandler has it."""
        self.cache = FileCache(max_count=CACHE_COUNT, max_size=CACHE_SIZE, max_descriptors=max_descriptors)
        self.clock = clock
        self.log = log
        # Memories that last for a tick of one second would make a shorter time a lie.
        self.keeps = revalidate >= 1
        self._revalidate = revalidate
        self._compress = compress
        self._on_shortage = on_shortage
        self._now = 0.0
        self._absent: set[tuple[int, bytes]] = set()
        self._states: dict[tuple[int, bytes], DirectoryState] = {}

    def on_tick(self, now_s: float) -> None:
        """A new second: what was missed may be there."""
        self._now = now_s
        self._absent.clear()
        self._states.clear()

    def find(self, directory: Directory, name: bytes) -> StaticFile | bool:
        """The regular file of this name; True for a directory, False for nothing or anything else.

        A file known from before costs one stat once per `revalidate`. stat follows any link, yet gives nothing away:
        it is only compared with the state of the file that was opened beneath the root. Raises Busy.
        """
        key = (directory.number, name)
        if key in self._absent:
            return False
        file = self.cache.get(key)
        if file is not None and self._is_current(file):
            return file
        try:
            status = os.stat(name, dir_fd=directory.fd)
            if file is not None:
                if file.identity == identity_of(status) and self._has_same_siblings(directory, name, file):
                    file.checked_at = self._now
                    return file
                self.cache.drop(key)
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                return False
            return self._open(directory, name)
        except OSError:
            self.cache.drop(key)
            if self.keeps and len(name) <= MEMO_NAME_SIZE and len(self._absent) < MEMO_COUNT:
                self._absent.add(key)
            return False

    def open(self, directory: Directory, name: bytes) -> int:
        """Descriptor of what has this name; whatever is held needlessly is given up for it. Raises OSError, Busy."""
        try:
            return directory.open(name)
        except OSError as error:
            if error.errno not in BUSY:
                raise
            return self._open_again(directory, name, error)

    def has_changed(self, file: StaticFile) -> bool:
        """Whether an open file was written to since it was loaded, so that its heads do not fit what it holds now."""
        if file.file is None:
            return False
        status = os.fstat(file.file.fd)
        return status.st_mtime_ns != file.identity[3] or status.st_size != file.identity[2]

    # --- opening ----------------------------------------------------------------------------------------------------

    def _open(self, directory: Directory, name: bytes) -> StaticFile | bool:
        """Open beneath the root, and keep what was found. Raises OSError for what is a miss, else Busy."""
        fd = self.open(directory, name)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return stat.S_ISDIR(status.st_mode)
        base = name.rpartition(b"/")[2]
        has_siblings = may_have_siblings(base)
        # The state of the directory first: what comes between the two is looked at once more.
        parent = (directory.number, name.rpartition(b"/")[0] or b".") if has_siblings else None
        state = self._directory_state(directory, parent) if parent is not None else None
        beside, is_sure = look_beside(directory.fd, name) if has_siblings else ([], True)
        siblings, faults = choose_siblings(name, status, beside)
        can_compress = self._compress and has_siblings and status.st_size <= MAX_COMPRESSED_SIZE
        can_compress = can_compress and is_compressible(base, status.st_size)
        file = load_file(base, fd, status, self.clock, varies=bool(siblings) or can_compress)
        file.siblings = siblings
        file.parent = parent
        file.neighbours = neighbours_of(beside)
        file.can_compress = can_compress
        file.directory_state = state if is_sure else None
        file.checked_at = self._now
        for fault in faults:
            self.log(fault)
        self.cache.put((directory.number, name), file)
        return file

    def _open_again(self, directory: Directory, name: bytes, error: OSError) -> int:
        """After a shortage of descriptors: give up those that are only cached, then try once more."""
        if error.errno in SHORTAGES:
            self.log(f"a static file could not be opened ({error.strerror}): idle descriptors are dropped")
            self._on_shortage()
            self.cache.descriptors.clear()
            try:
                return directory.open(name)
            except OSError as again:
                if again.errno not in BUSY:
                    raise
        raise Busy from error

    # --- looking again ----------------------------------------------------------------------------------------------

    def _is_current(self, file: StaticFile) -> bool:
        """True until the tick within which `revalidate` would run out."""
        return self.keeps and 0 <= self._now - file.checked_at <= self._revalidate - 1

    def _has_same_siblings(self, directory: Directory, name: bytes, file: StaticFile) -> bool:
        """Whether what lies beside a file is what lay there when it was loaded.

        Where no name has come to the directory or gone from it, only what was there has to be looked at.
        """
        parent = file.parent
        if parent is None:
            return True
        state = self._states[parent] if parent in self._states else self._directory_state(directory, parent)
        if state is not None and state == file.directory_state and not file.neighbours:
            return True
        beside, is_sure = look_beside(directory.fd, name)
        if neighbours_of(beside) != file.neighbours:
            return False
        file.directory_state = state if is_sure else None
        return True

    def _directory_state(self, directory: Directory, key: Key) -> DirectoryState:
        """What shows that names have come or gone in a directory; None while that may happen without showing."""
        if key in self._states:
            return self._states[key]
        status = os.stat(key[1], dir_fd=directory.fd)
        changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
        is_settled = changed_ns <= int(self.clock() * 1_000_000_000) - RECENT_NS
        state = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns) if is_settled else None
        if self.keeps and len(self._states) < MEMO_COUNT:
            self._states[key] = state
        return state
