"""wsgi.file_wrapper: a file as an iterable of blocks, or as a descriptor that os.sendfile can read. PEP 3333.

`service` puts it into environ; `wsgi` asks what it wraps.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any


class DescriptorCopy:
    """A descriptor of its own for a file that the application may close; closed with the last reference."""

    __slots__ = ("fd",)

    warm = None
    """`pagecache` remembers nothing of a file that is sent once"""

    def __init__(self, fd: int) -> None:
        self.fd = os.dup(fd)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class FileWrapper:
    """wsgi.file_wrapper: an iterable of blocks, sent by os.sendfile where it wraps a real file. PEP 3333."""

    def __init__(self, file: Any, block_size: int = 65536) -> None:
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.file.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def real_file(self) -> tuple[int, int, int] | None:
        """Descriptor, current position and size left of a regular file; None for anything else."""
        try:
            fd = self.file.fileno()
            position = self.file.tell()
            status = os.fstat(fd)
        except (AttributeError, OSError, ValueError):
            return None
        if not isinstance(fd, int) or not isinstance(position, int) or not stat.S_ISREG(status.st_mode):
            return None
        return fd, position, max(0, status.st_size - position)
