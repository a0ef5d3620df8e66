"""Content that may outgrow memory: kept in memory up to a size, beyond it in an unlinked temporary file.

Two users: `connection` collects the body of a request in a `BodySpool`, and output that a slow client has not taken yet
waits in an `OutputSpool`. Both draw on one `Quota` a worker, so that temporary space is bounded in all.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from io import BufferedRandom, BytesIO, FileIO
from typing import BinaryIO

from epollwsgi.errors import SpoolFull


class Quota:
    """Temporary space of a worker: `used` of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._lock = threading.Lock()  # threads of the application spool, and any thread may let go of a file

    def take(self, size: int) -> None:
        """Raises SpoolFull (503) where the limit would be passed."""
        with self._lock:
            used = self.used + size
            if used <= self.limit:
                self.used = used
                return
        raise SpoolFull("temporary space is used up", setting="limit_spool_total", limit=self.limit, seen=used)

    def give_back(self, size: int) -> None:
        """Space taken before is free again."""
        with self._lock:
            self.used -= size


def open_unlinked(directory: str) -> int:
    """The descriptor of a temporary file without a name. Raises SpoolFull (503) with the system's own words."""
    try:
        with tempfile.TemporaryFile(dir=directory or None, buffering=0) as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise SpoolFull(f"no temporary file: {error.strerror}") from None


class _Held:
    """A descriptor and what its file has taken from the quota; both given back when the owner goes."""

    __slots__ = ("fd", "quota", "size")

    def __init__(self, fd: int, quota: Quota, owner: object) -> None:
        self.fd = fd
        self.quota = quota
        self.size = 0
        weakref.finalize(owner, self.end).atexit = False

    def take(self, size: int) -> None:
        self.quota.take(size)
        self.size += size

    def release(self) -> None:
        self.quota.give_back(self.size)
        self.size = 0

    def end(self) -> None:
        self.release()
        os.close(self.fd)


class BodySpool:
    """Collects the content of one request; `finish` gives it as a full binary file object."""

    __slots__ = ("_directory", "_file", "_held", "_memory", "_memory_size", "_quota", "size")

    def __init__(self, memory_size: int, directory: str, quota: Quota) -> None:
        self._memory = bytearray()
        self._memory_size = memory_size
        self._directory = directory
        self._quota = quota
        self._held: _Held | None = None
        self._file: BufferedRandom | None = None
        self.size = 0

    def write(self, content: bytes) -> None:
        """Raises SpoolFull (503) when the quota or the disk is full."""
        self.size += len(content)
        if self._file is None or self._held is None:
            self._memory += content
            if self.size <= self._memory_size:
                return
            content = bytes(self._memory)
            self._memory.clear()
            fd = open_unlinked(self._directory)
            # The descriptor outlives close(): an application that closes its input early frees nothing others count on.
            self._file = BufferedRandom(FileIO(fd, "w+b", closefd=False), 1 << 16)
            self._held = _Held(fd, self._quota, self._file)
        self._held.take(len(content))
        try:
            self._file.write(content)
        except OSError as error:
            raise SpoolFull(f"temporary file: {error.strerror}") from None

    def finish(self) -> BinaryIO:
        """The content, from its start. Raises SpoolFull (503)."""
        if self._file is None:
            return BytesIO(self._memory)
        try:
            self._file.seek(0)
        except OSError as error:  # seek writes what was buffered
            raise SpoolFull(f"temporary file: {error.strerror}") from None
        return self._file


class OutputSpool:
    """Output waiting for its client, in an unlinked file that os.sendfile reads from; begins anew when it is empty."""

    __slots__ = ("__weakref__", "_held", "end", "fd", "start")

    def __init__(self, directory: str, quota: Quota) -> None:
        self.fd = open_unlinked(directory)
        self._held = _Held(self.fd, quota, self)
        self.start = 0  # the first byte not sent yet
        self.end = 0

    @property
    def waiting(self) -> int:
        """Bytes not sent yet."""
        return self.end - self.start

    def append(self, content: bytes | memoryview) -> None:
        """Raises SpoolFull (503) when the quota or the disk is full."""
        if self.start == self.end and self.end:
            os.ftruncate(self.fd, 0)
            self.start = self.end = 0
            self._held.release()
        self._held.take(len(content))
        view = memoryview(content)
        before = self.end
        try:
            while view:
                written = os.pwrite(self.fd, view, self.end)
                self.end += written
                view = view[written:]
        except OSError as error:
            self.end = before  # all of it or nothing
            raise SpoolFull(f"temporary file: {error.strerror}") from None
