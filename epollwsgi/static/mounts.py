"""The prefixes of the site: which directory is behind each now and was before, and what its rules say.

Looked at once a second, by `static.handler`. When a root's name comes to mean another directory, as at a deploy by
symbolic link, the old one stays open for a while: pages that were loaded before still ask for its hashed assets.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from epollwsgi.config.values import StaticMount
from epollwsgi.static.beneath import (
    SHORTAGES,
    Directory,
    Opener,
    OpenFile,
    Root,
    open_by_kernel,
    open_by_walk,
    probe_openat2,
)
from epollwsgi.static.cache import RECENT_NS, identity_of, read_up_to
from epollwsgi.static.heads import PLAIN, Dressing, Fields
from epollwsgi.static.media_types import IMMUTABLE, cache_control
from epollwsgi.static.rules import MAX_FILE_SIZE, HeaderRules, Redirects, parse_headers, parse_redirects

HEADERS_FILE: Final = b"_headers"
REDIRECTS_FILE: Final = b"_redirects"

OLD_RELEASE_S: Final = 600.0
MAX_OLD_RELEASES: Final = 8
MAX_DRESSINGS: Final = 1024
MAX_FAULT_LINES: Final = 50


@dataclass(slots=True)
class RuleFile:
    """A file of rules as it was read last. state: None where it must be read again."""

    content: bytes = b""
    state: tuple[int, ...] | None = None
    error: int | None = None


class Mount:
    """A prefix of the site and what lies behind it."""

    def __init__(self, mount: StaticMount, opener: Opener, report: Callable[[str], None]) -> None:
        """report: gets each line for the operator. Raises ConfigError where the directory cannot be opened."""
        self.prefix = tuple(filter(None, os.fsencode(mount.prefix).split(b"/")))
        self.root = Root(mount.directory, opener)
        self.redirects = Redirects()
        self.headers = HeaderRules()
        self.old: list[tuple[float, Directory]] = []  # until when, the newest first
        self.has_changed = True  # root or rules, when they were looked at last
        self._report = report
        self._files = {HEADERS_FILE: RuleFile(), REDIRECTS_FILE: RuleFile()}
        self._dressings: dict[Fields, Dressing] = {}

    @property
    def directory(self) -> Directory:
        """What is served now."""
        return self.root.now

    def refresh(self, now_s: float) -> Iterator[Directory]:
        """Look where the root leads and what its rules say; gives each directory that is served no more.

        now_s: on a clock that never goes back.
        """
        before = self.root.now
        self.has_changed = self.root.refresh()
        if self.has_changed:
            state = "is gone" if self.root.fd < 0 else "is another directory now"
            self._report(f"static root {self.root.directory} {state}")
            if before.fd >= 0:
                self.old.insert(0, (now_s + OLD_RELEASE_S, before))
        while self.old and (self.old[-1][0] <= now_s or len(self.old) > MAX_OLD_RELEASES):
            yield self.old.pop()[1]
        self._refresh_rules()

    def old_directories(self, name: bytes) -> Iterator[Directory]:
        """Where a file of this name may be beside the root: for an asset with a hash in its name, what was the root."""
        if cache_control(name.rpartition(b"/")[2]) == IMMUTABLE:
            yield from (directory for _, directory in self.old)

    def dressing_of(self, path: bytes) -> Dressing:
        """What `_headers` says for a path below the prefix."""
        if not self.headers.blocks:
            return PLAIN
        fields = self.headers.select(path)
        if not fields:
            return PLAIN
        dressing = self._dressings.get(fields)
        if dressing is None:
            if len(self._dressings) >= MAX_DRESSINGS:  # values with what a path holds
                self._dressings.clear()
            dressing = self._dressings[fields] = Dressing(fields)
        return dressing

    # --- rules ------------------------------------------------------------------------------------------------------

    def _refresh_rules(self) -> None:
        for name, file in self._files.items():
            before = file.content
            self._read(name, file)
            if file.content == before:
                continue
            self.has_changed = True
            if name == HEADERS_FILE:
                self.headers, faults = parse_headers(file.content)
                self._dressings.clear()
            else:
                self.redirects, faults = parse_redirects(file.content)
            for fault in faults[:MAX_FAULT_LINES]:
                self._report(f"{self._path(name)}: line {fault.line}: {fault.text}")
            if len(faults) > MAX_FAULT_LINES:
                self._report(f"{self._path(name)}: {len(faults) - MAX_FAULT_LINES} more lines are not applied")

    def _read(self, name: bytes, file: RuleFile) -> None:
        """Read a file of rules again if it has changed, or may have; one that is not there is empty."""
        try:
            status = os.stat(name, dir_fd=self.root.fd)
            state = (self.root.now.number, *identity_of(status))
            if state == file.state:
                return
            content = self._read_content(name)
        except OSError as error:
            if error.errno in SHORTAGES:
                return
            if error.errno not in (errno.ENOENT, errno.EBADF) and error.errno != file.error:
                self._report(f"{self._path(name)} cannot be read: {error.strerror}")
            file.state, file.content, file.error = None, b"", error.errno
            return
        is_settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > RECENT_NS
        file.state, file.content, file.error = state if is_settled else None, content, None

    def _read_content(self, name: bytes) -> bytes:
        """Raises OSError."""
        file = OpenFile(self.root.open(name))
        if not stat.S_ISREG(os.fstat(file.fd).st_mode):
            return b""
        return read_up_to(file.fd, MAX_FILE_SIZE + 1)

    def _path(self, name: bytes) -> str:
        return f"{self.root.directory}/{name.decode('ascii')}"


def build_mounts(mounts: Sequence[StaticMount], opener: Opener, report: Callable[[str], None]) -> list[Mount]:
    """All mounts, the longest prefix first. Raises ConfigError."""
    return sorted((Mount(mount, opener, report) for mount in mounts), key=lambda mount: -len(mount.prefix))


def choose_opener(log: Callable[[str], None]) -> Opener:
    """openat2, or the walk where it is refused, which is said once."""
    number = probe_openat2()
    if not number:
        return open_by_kernel
    log(f"openat2 is not available ({os.strerror(number)}): static files are opened component by component")
    return open_by_walk
