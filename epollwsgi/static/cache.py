"""Files ready to be sent, and how many of them are kept.

A small file is held as its content, a larger one as an open descriptor; both with the heads of their plain answers.
Knows what a file says about itself (size, times, content, name), not where it lies nor who may see it. Belongs to the
thread that leads the loop. Called by `static.shelf`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from random import randrange
from typing import Final

from epollwsgi.static.beneath import OpenFile
from epollwsgi.static.heads import PLAIN, Dressing, Heads, Validators
from epollwsgi.static.media_types import cache_control, media_type

MEMORY_FILE_SIZE: Final = 64 * 1024
MAX_LOADS: Final = 3

# A file changed so recently may change again without any of its times showing it. RFC 9110 section 8.8.2.2.
RECENT_NS: Final = 2_000_000_000

# Paths of one file for which the rules say different things.
MAX_DRESSED: Final = 16

Identity = tuple[int, int, int, int, int]
# Number of the root directory, name beneath it.
Key = tuple[int, bytes]
# What tells whether names have come or gone in a directory; None: nothing can be told.
DirectoryState = tuple[int, int, int] | None


def identity_of(status: os.stat_result) -> Identity:
    """What tells one state of a file from another: device, inode, size, and the two times that show a change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class StaticFile:
    """One state of a file, or of one coding of it: validators, content or descriptor, and the heads of its answers."""

    __slots__ = (
        "can_compress",
        "checked_at",
        "coding",
        "content",
        "cost",
        "directory_state",
        "dressed",
        "etag",
        "file",
        "heads",
        "identity",
        "is_settled",
        "last_modified",
        "media_type",
        "name",
        "neighbours",
        "parent",
        "position",
        "siblings",
        "size",
        "uses",
        "varies",
    )

    def __init__(
        self,
        name: bytes,
        status: os.stat_result,
        content: bytes | None,
        file: OpenFile | None,
        now: float,
        *,
        coding: str = "",
        varies: bool = False,
    ):
        """name: the last segment, without the suffix of a coding.  content: all of it, or None with `file` to send it
        from.  now: the wall clock.  varies: there are other codings of it, or will be.
        """
        self.name = name
        self.identity = identity_of(status)
        self.content = content
        self.file = file
        self.size = status.st_size if content is None else len(content)
        self.coding = coding
        self.varies = varies
        self.siblings: tuple[Sibling, ...] = ()
        # All that lay beside it under the name of a sibling, and the state of its directory then.
        self.neighbours: tuple[tuple[str, Identity], ...] = ()
        self.parent: Key | None = None  # None: it cannot have siblings
        self.directory_state: DirectoryState = None
        self.can_compress = False
        self.uses: dict[str, int] = {}  # by clients that would take a coding that is not there yet
        self.media_type = media_type(name)
        self.checked_at = now
        self.position = -1  # in the tier that holds it, and what it costs there
        self.cost = (0, 0)
        now_ns = int(now * 1_000_000_000)
        is_recent = 0 <= now_ns - status.st_mtime_ns < RECENT_NS
        # The time of the last change cannot be set back: it also shows a file that was just unpacked with an old date.
        self.is_settled = not is_recent and status.st_ctime_ns <= now_ns - RECENT_NS
        self.etag = ("W/" if is_recent else "") + build_opaque_tag(status, content, coding)
        self.last_modified = last_modified(status, now)
        self.heads = self._build_heads(PLAIN)
        self.dressed: dict[Dressing, Heads] = {}

    def _build_heads(self, dressing: Dressing) -> Heads:
        control = cache_control(self.name)
        return Heads(
            Validators(self.media_type, control, self.etag, self.last_modified, self.size, self.coding, self.varies),
            dressing,
        )

    def heads_for(self, dressing: Dressing) -> Heads:
        """The heads for a path that the rules say more of."""
        if dressing is PLAIN:
            return self.heads
        heads = self.dressed.get(dressing)
        if heads is None:
            if len(self.dressed) >= MAX_DRESSED:
                self.dressed.clear()
            heads = self.dressed[dressing] = self._build_heads(dressing)
        return heads

    def parts(self) -> Iterator[StaticFile]:
        """Itself and every other coding that is loaded."""
        yield self
        yield from (sibling.file for sibling in self.siblings if sibling.file is not None)

    @property
    def head(self) -> bytes:
        """The head of a plain 200."""
        return self.heads.head


class Sibling:
    """Another coding of a file: one that lies beside it, or one that was made here. Loaded when it is first chosen."""

    __slots__ = ("coding", "file", "identity", "is_checked", "is_made", "is_pending", "name", "size")

    def __init__(self, coding: str, name: bytes, identity: Identity, size: int) -> None:
        self.coding = coding
        self.name = name
        self.identity = identity
        self.size = size
        self.file: StaticFile | None = None
        self.is_checked = False  # it is known to hold what the source does
        self.is_pending = False  # that is being found out
        self.is_made = False


def build_opaque_tag(status: os.stat_result, content: bytes | None, coding: str) -> str:
    """The quoted part of the ETag: by content where that is in memory, so that it is the same on every machine."""
    if content is None:
        return f'"{status.st_mtime_ns:x}-{status.st_size:x}{coding and "-" + coding}"'
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def last_modified(status: os.stat_result, now: float) -> int | None:
    """Last-Modified in seconds, never in the future; None for the times 0 and 1, which images of containers set."""
    seconds = status.st_mtime_ns // 1_000_000_000
    return min(seconds, int(now)) if seconds > 1 else None


def load_file(
    name: bytes,
    fd: int,
    status: os.stat_result,
    clock: Callable[[], float],
    *,
    coding: str = "",
    varies: bool = False,
) -> StaticFile:
    """The regular file behind `fd`, whose fstat is `status`; takes the descriptor over. Raises OSError.

    A small file that changes while it is read is read again, at most MAX_LOADS times; what is served in the end has
    the length that was read, and is not kept.  coding, varies: as StaticFile has them.
    """
    file = OpenFile(fd)
    for _ in range(MAX_LOADS):
        if status.st_size > MEMORY_FILE_SIZE:
            return StaticFile(name, status, None, file, clock(), coding=coding, varies=varies)
        content = read_up_to(fd, MEMORY_FILE_SIZE + 1, status.st_size)
        after = os.fstat(fd)
        if len(content) <= MEMORY_FILE_SIZE and identity_of(after) == identity_of(status):
            return StaticFile(name, status, content, None, clock(), coding=coding, varies=varies)
        status = after
    loaded = StaticFile(name, status, content[:MEMORY_FILE_SIZE], None, clock(), coding=coding, varies=varies)
    loaded.is_settled = False
    return loaded


def read_up_to(fd: int, size: int, expected: int = 0) -> bytes:
    """The first `size` bytes of a file, or all of it where it is shorter. expected: what it has if it has not grown."""
    content = os.pread(fd, min(size, expected + 1) if expected else size, 0)
    while content and len(content) < size and len(content) != expected:
        piece = os.pread(fd, size - len(content), len(content))
        if not piece:
            break
        content += piece
    return content


class Tier:
    """Files of one kind under two bounds, their number and the sum of their sizes; a full tier drops any one.

    A file with several descriptors counts as so many.
    """

    __slots__ = ("_keys", "_max_count", "_max_size", "count", "files", "size")

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count = max_count
        self._max_size = max_size
        self.files: dict[Key, StaticFile] = {}
        self._keys: list[Key] = []  # in no order; a file knows its position here, so that any one is dropped at once
        self.count = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, key: Key) -> StaticFile | None:
        """The file kept under the key."""
        return self.files.get(key)

    def put(self, key: Key, file: StaticFile) -> None:
        """Keep a file, in place of others if need be."""
        if key in self.files:
            self.drop(key)
        count, size = count_descriptors(file) or 1, memory_size(key, file)
        if count > self._max_count or size > self._max_size:
            return
        while self.count + count > self._max_count or self.size + size > self._max_size:
            self.drop(self._keys[randrange(len(self._keys))])
        file.position = len(self._keys)
        file.cost = (count, size)
        self._keys.append(key)
        self.files[key] = file
        self.count += count
        self.size += size

    def drop(self, key: Key) -> None:
        """Forget a file; a response that is being sent keeps it until it is done."""
        file = self.files.pop(key, None)
        if file is None:
            return
        last = self._keys.pop()
        if last != key:
            self._keys[file.position] = last
            self.files[last].position = file.position
        self.count -= file.cost[0]
        self.size -= file.cost[1]

    def drop_directory(self, number: int) -> None:
        """Forget all files of a root that is not served any more."""
        for key in [key for key in self._keys if key[0] == number]:
            self.drop(key)

    def clear(self) -> None:
        """Forget all."""
        self.files.clear()
        self._keys.clear()
        self.count = self.size = 0


def memory_size(key: Key, file: StaticFile) -> int:
    """About how many bytes an entry takes: what it holds, twice the heads for their parts, and the objects' own."""
    if not file.siblings:
        return len(file.content or b"") + 3 * len(file.head) + 1024 + len(key[1])
    made = sum(sibling.size for sibling in file.siblings if sibling.is_made)
    parts = sum(len(part.content or b"") + 3 * len(part.head) + 1024 for part in file.parts())
    return made + parts + len(key[1])


def count_descriptors(file: StaticFile) -> int:
    """How many descriptors an entry keeps open."""
    if not file.siblings:
        return int(file.file is not None)
    return sum(part.file is not None for part in file.parts())


class FileCache:
    """Both tiers under one key: small files by their bytes, large ones by their number of descriptors."""

    __slots__ = ("descriptors", "memory")

    def __init__(self, *, max_count: int, max_size: int, max_descriptors: int) -> None:
        self.memory = Tier(max_count, max_size)
        # What was compressed here lies in memory too, so the bytes are bounded as well.
        self.descriptors = Tier(max_descriptors, max_size)

    def get(self, key: Key) -> StaticFile | None:
        """The file kept under the key, in whichever tier."""
        return self.memory.files.get(key) or self.descriptors.files.get(key)

    def put(self, key: Key, file: StaticFile) -> None:
        """Keep a file, unless it may still change without showing it."""
        if not file.siblings and file.is_settled and file.file is None:  # as almost always
            if key in self.descriptors.files:
                self.descriptors.drop(key)
            self.memory.put(key, file)
            return
        self.drop(key)
        if all(part.is_settled for part in file.parts()):
            (self.descriptors if count_descriptors(file) else self.memory).put(key, file)

    def drop(self, key: Key) -> None:
        """Forget a file."""
        self.memory.drop(key)
        self.descriptors.drop(key)

    def clear(self) -> None:
        """Forget all."""
        self.memory.clear()
        self.descriptors.clear()

    def drop_directory(self, number: int) -> None:
        """Forget all files of a root that is not served any more."""
        self.memory.drop_directory(number)
        self.descriptors.drop_directory(number)
