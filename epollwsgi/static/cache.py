"""Files ready to be sent, and how many of them are kept.

A small file is held as its content, a larger one as an open descriptor; both with the heads of their plain answers.
Knows what a file says about itself (size, times, content, name), not where it lies nor who may see it. Belongs to the
thread that leads the loop. Called by `static.handler`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from random import randrange
from typing import Final

from epollwsgi.http.dates import format_date
from epollwsgi.http.response import STATUS_LINES
from epollwsgi.static.beneath import OpenFile
from epollwsgi.static.media_types import NOSNIFF, cache_control, media_type

MEMORY_FILE_SIZE: Final = 64 * 1024
MAX_LOADS: Final = 3

# A file changed so recently may change again without any of its times showing it. RFC 9110 section 8.8.2.2.
RECENT_NS: Final = 2_000_000_000

Identity = tuple[int, int, int, int, int]
Key = tuple[int, bytes]


def identity_of(status: os.stat_result) -> Identity:
    """What tells one state of a file from another: device, inode, size, and the two times that show a change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class StaticFile:
    """One state of a file: its validators, its content or descriptor, and the heads of 200 and 304."""

    __slots__ = (
        "checked_at",
        "content",
        "etag",
        "fields",
        "file",
        "head",
        "identity",
        "is_settled",
        "last_modified",
        "media_type",
        "not_modified_head",
        "position",
        "size",
    )

    def __init__(self, name: bytes, status: os.stat_result, content: bytes | None, file: OpenFile | None, now: float):
        """name: the last segment.  content: all of it, or None with `file` to send it from.  now: the wall clock."""
        self.identity = identity_of(status)
        self.content = content
        self.file = file
        self.size = status.st_size if content is None else len(content)
        self.media_type = media_type(name)
        self.checked_at = now
        self.position = -1  # in the tier that holds it
        now_ns = int(now * 1_000_000_000)
        is_recent = 0 <= now_ns - status.st_mtime_ns < RECENT_NS
        # The time of the last change cannot be set back: it also shows a file that was just unpacked with an old date.
        self.is_settled = not is_recent and status.st_ctime_ns <= now_ns - RECENT_NS
        self.etag = ("W/" if is_recent else "") + build_opaque_tag(status, content)
        self.last_modified = last_modified(status, now)
        validators = b"Cache-Control: %b\r\nETag: %b\r\n" % (cache_control(name), self.etag.encode("ascii"))
        if self.last_modified is not None:
            validators += f"Last-Modified: {format_date(self.last_modified)}\r\n".encode("ascii")
        self.not_modified_head = STATUS_LINES[304] + NOSNIFF + validators
        # Everything that 200 and 206 share.
        self.fields = b"Content-Type: %b\r\n%b%bAccept-Ranges: bytes\r\n" % (self.media_type, NOSNIFF, validators)
        self.head = b"%b%bContent-Length: %d\r\n" % (STATUS_LINES[200], self.fields, self.size)


def build_opaque_tag(status: os.stat_result, content: bytes | None) -> str:
    """The quoted part of the ETag: by content where that is in memory, so that it is the same on every machine."""
    if content is None:
        return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def last_modified(status: os.stat_result, now: float) -> int | None:
    """Last-Modified in seconds, never in the future; None for the times 0 and 1, which images of containers set."""
    seconds = status.st_mtime_ns // 1_000_000_000
    return min(seconds, int(now)) if seconds > 1 else None


def load_file(name: bytes, fd: int, status: os.stat_result, clock: Callable[[], float]) -> StaticFile:
    """The regular file behind `fd`, whose fstat is `status`; takes the descriptor over. Raises OSError.

    A small file that changes while it is read is read again, at most MAX_LOADS times; what is served in the end has
    the length that was read, and is not kept.
    """
    file = OpenFile(fd)
    for _ in range(MAX_LOADS):
        if status.st_size > MEMORY_FILE_SIZE:
            return StaticFile(name, status, None, file, clock())
        content = read_up_to(fd, MEMORY_FILE_SIZE + 1)
        after = os.fstat(fd)
        if len(content) <= MEMORY_FILE_SIZE and identity_of(after) == identity_of(status):
            return StaticFile(name, status, content, None, clock())
        status = after
    loaded = StaticFile(name, status, content[:MEMORY_FILE_SIZE], None, clock())
    loaded.is_settled = False
    return loaded


def read_up_to(fd: int, size: int) -> bytes:
    """The first `size` bytes of a file, or all of it where it is shorter."""
    content = os.pread(fd, size, 0)
    while content and len(content) < size:
        piece = os.pread(fd, size - len(content), len(content))
        if not piece:
            break
        content += piece
    return content


class Tier:
    """Files of one kind under two bounds, their number and the sum of their sizes; a full tier drops any one."""

    __slots__ = ("_files", "_keys", "_max_count", "_max_size", "size")

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count = max_count
        self._max_size = max_size
        self._files: dict[Key, StaticFile] = {}
        self._keys: list[Key] = []  # in no order; a file knows its position here, so that any one is dropped at once
        self.size = 0

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, key: Key) -> StaticFile | None:
        """The file kept under the key."""
        return self._files.get(key)

    def put(self, key: Key, file: StaticFile) -> None:
        """Keep a file, in place of others if need be."""
        self.drop(key)
        size = memory_size(key, file)
        if self._max_count < 1 or size > self._max_size:
            return
        while len(self._keys) >= self._max_count or self.size + size > self._max_size:
            self.drop(self._keys[randrange(len(self._keys))])
        file.position = len(self._keys)
        self._keys.append(key)
        self._files[key] = file
        self.size += size

    def drop(self, key: Key) -> None:
        """Forget a file; a response that is being sent keeps it until it is done."""
        file = self._files.pop(key, None)
        if file is None:
            return
        last = self._keys.pop()
        if last != key:
            self._keys[file.position] = last
            self._files[last].position = file.position
        self.size -= memory_size(key, file)

    def clear(self) -> None:
        """Forget all."""
        self._files.clear()
        self._keys.clear()
        self.size = 0


def memory_size(key: Key, file: StaticFile) -> int:
    """About how many bytes an entry takes: what it holds, twice the heads for their parts, and the objects' own."""
    return len(file.content or b"") + 3 * len(file.head) + len(key[1]) + 1024


class FileCache:
    """Both tiers under one key: small files by their bytes, large ones by their number of descriptors."""

    __slots__ = ("descriptors", "memory")

    def __init__(self, *, max_count: int, max_size: int, max_descriptors: int) -> None:
        self.memory = Tier(max_count, max_size)
        # Bounded by its count; an entry holds no content, so the size is that of some hundred thousand entries.
        self.descriptors = Tier(max_descriptors, max_size)

    def get(self, key: Key) -> StaticFile | None:
        """The file kept under the key, in whichever tier."""
        return self.memory.get(key) or self.descriptors.get(key)

    def put(self, key: Key, file: StaticFile) -> None:
        """Keep a file, unless it may still change without showing it."""
        self.drop(key)
        if file.is_settled:
            (self.descriptors if file.content is None else self.memory).put(key, file)

    def drop(self, key: Key) -> None:
        """Forget a file."""
        self.memory.drop(key)
        self.descriptors.drop(key)

    def clear(self) -> None:
        """Forget all files."""
        self.memory.clear()
        self.descriptors.clear()
