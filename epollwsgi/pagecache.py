"""Whether a part of a file can be sent without waiting for its disk, and reading it where it cannot.

Sending from a file whose pages are not in memory stops the thread that does it; on the loop that would be everybody.
So a part is probed first, and read ahead by a helper thread where it is not there. Called by `outbox`, and by
`static.handler` for what is sent together with its head.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import Final, Protocol

# What is probed, remembered and read as one part.
PART_SIZE: Final = 1 << 20
# The kernel reads and drops pages by the run; one byte of each is looked at.
PROBE_STEP: Final = 128 * 1024
# A part found in memory is taken to stay there for so long. A wrong guess costs one wait for the disk.
TRUST_S: Final = 1.0
MAX_PARTS: Final = 64

Parts = dict[tuple[int, int], float]


class Readable(Protocol):
    """An open file, with the parts (offset, count) that are in memory and the moment until which that is believed.

    A file that is sent only once has None there.
    """

    @property
    def fd(self) -> int: ...
    @property
    def warm(self) -> Parts | None: ...


def is_resident(fd: int, offset: int, count: int) -> bool:
    """True where none of the probed bytes has to be read from a disk. preadv2(2), RWF_NOWAIT

    Where the file system cannot tell (EOPNOTSUPP; that of /dev/shm) the answer is False: reading ahead is then the only
    way to be sure, and costs little.
    """
    byte = bytearray(1)
    last = offset + count - 1
    try:
        for position in (*range(offset, last, PROBE_STEP), last):
            os.preadv(fd, (byte,), position, os.RWF_NOWAIT)
    except OSError:
        return False
    return True


def is_warm(file: Readable, offset: int, count: int) -> bool:
    """Whether a part of at most PART_SIZE can be sent at once."""
    warm = file.warm
    if warm is None:
        return is_resident(file.fd, offset, count)
    if warm.get((offset, count), 0.0) > monotonic():
        return True
    if not is_resident(file.fd, offset, count):
        return False
    note_warm(file, offset, count)
    return True


def note_warm(file: Readable, offset: int, count: int) -> None:
    """This part is in memory."""
    warm = file.warm
    if warm is not None:
        if len(warm) >= MAX_PARTS:
            warm.clear()
        warm[offset, count] = monotonic() + TRUST_S


def read_part(fd: int, offset: int, count: int) -> None:
    """Read a part, so that it is in memory; on a thread that may wait. Errors show when it is sent."""
    buffer = bytearray(min(count, PROBE_STEP))
    end = offset + count
    try:
        while offset < end:
            size = os.preadv(fd, (buffer,), offset)
            if not size:
                return
            offset += size
    except OSError:
        return


def read_now(file: Readable, offset: int, count: int) -> bytes | None:
    """A small part, if it is all in memory; None where it would have to be waited for, or the file is shorter."""
    buffer = bytearray(count)
    try:
        size = os.preadv(file.fd, (buffer,), offset, os.RWF_NOWAIT)
    except OSError:
        return None
    return bytes(buffer) if size == count else None


class AlwaysWarm(Parts):
    """In the place of parts, for a file that lies in memory."""

    def get(self, key: tuple[int, int], default: float = 0.0, /) -> float:  # type: ignore[override]
        """Every part, for ever."""
        return float("inf")
