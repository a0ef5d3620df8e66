"""Output of one connection that its client has not taken yet, in order: memory, then a spool file, then a file.

Memory is bounded by the watermark; what is above it waits in an unlinked temporary file (OPERATIONS.md 6.11). The file
is sent part by part; one that would have to be waited for is not touched (COLD) until somebody has read it.
`connection` creates one when a send would block, and sends from it when epoll says that the socket takes more.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from epollwsgi.errors import EpollwsgiError, SpoolFull
from epollwsgi.pagecache import PART_SIZE, Readable, is_warm, note_warm, read_part
from epollwsgi.spool import OutputSpool, Quota

# At most this much is sent from files in one turn, so that one fast client cannot starve the loop.
FILE_TURN_SIZE = PART_SIZE

# Bytes, and behind them as many of a file from an offset.
Part = tuple[bytes, int, int]
# Helper.run.
Run = Callable[[Callable[[], Any], Callable[[Any], None]], bool]


class FileCutShort(EpollwsgiError):
    """A file ended before the length that the response had announced."""


class Sent(IntEnum):
    """What a try to send came to."""

    ALL, BLOCKED, PAUSED, COLD = range(4)


class SpoolRules:
    """Where output is spooled and how much; one per worker."""

    __slots__ = ("directory", "quota", "spool_size", "watermark")

    def __init__(self, watermark: int, spool_size: int, directory: str, quota: Quota) -> None:
        self.watermark = watermark
        self.spool_size = spool_size
        self.directory = directory
        self.quota = quota


class Outbox:
    """See the module. `send` raises OSError when the client has gone and FileCutShort."""

    __slots__ = (
        "_count", "_file", "_late", "_memory", "_memory_size", "_offset", "_parts", "_parts_size", "_rules", "_spool",
        "_warm_end", "is_full", "is_reading",
    )  # fmt: skip

    def __init__(self, rules: SpoolRules) -> None:
        self._rules = rules
        self._memory: deque[memoryview] = deque()
        self._late: deque[memoryview] = deque()  # behind the spool, where that took no more
        self._memory_size = 0  # of both
        self._spool: OutputSpool | None = None
        self._file: Readable | None = None
        self._offset = 0
        self._count = 0
        self._warm_end = 0  # up to here the file can be sent without waiting
        self._parts: Sequence[Part] = ()  # what follows
        self._parts_size = 0
        self.is_reading = False  # somebody reads ahead; until that is done nothing is sent
        self.is_full = False  # the last piece was kept in memory for want of room: nobody should give more

    @property
    def size(self) -> int:
        """Bytes that wait."""
        spooled = self._spool.waiting if self._spool is not None else 0
        return self._memory_size + spooled + self._count + self._parts_size

    def __bool__(self) -> bool:
        return self.size > 0

    def append(self, content: bytes) -> None:
        """Behind all that waits. Where neither memory nor spool has room it is kept too, and is_full says so."""
        spool = self._spool
        size = len(content)
        self.is_full = False
        if (spool is None or not spool.waiting) and self._memory_size + size <= self._rules.watermark:
            if size:
                self._keep(memoryview(content))
            return
        try:
            if size + (spool.waiting if spool is not None else 0) > self._rules.spool_size:
                raise SpoolFull("response_spool is used up")
            if spool is None:
                spool = self._spool = OutputSpool(self._rules.directory, self._rules.quota)
            while self._memory:  # what waits in memory goes first, and frees it: a slow reader costs next to nothing
                spool.append(self._memory[0])
                self._memory_size -= len(self._memory.popleft())
            spool.append(content)
        except SpoolFull:
            self.is_full = True
            self._keep(memoryview(content))

    def _keep(self, piece: memoryview) -> None:
        """In memory, in its place: what is sent from there goes before the spool."""
        self._memory_size += len(piece)
        if self._spool is not None and self._spool.waiting:
            self._late.extend(self._memory)
            self._memory.clear()
            self._late.append(piece)
        else:
            self._memory.append(piece)

    def attach(self, file: Readable, offset: int, count: int, parts: Sequence[Part] = ()) -> None:
        """`count` bytes of file behind all that waits, or all parts of it; the last of a response."""
        self._file = file
        self._warm_end = 0
        if parts:
            self._parts = parts
            self._parts_size = count
        else:
            self._offset = offset
            self._count = count

    def read_ahead(self, run: Run, go_on: Callable[[], None]) -> None:
        """What comes next was found COLD: a thread reads it, then `go_on` is called on the loop, to send it."""
        file, offset, count = self._file, self._offset, min(self._count, PART_SIZE)
        assert file is not None

        def on_read(_: None) -> None:
            self.is_reading = False
            self._warm_end = offset + count
            note_warm(file, offset, count)
            go_on()

        self.is_reading = True
        if not run(lambda: read_part(file.fd, offset, count), on_read):
            on_read(None)  # no thread is to be had: the loop itself has to wait

    def send(self, sock: socket.socket) -> Sent:
        """As much as the socket takes now. Raises OSError (the client has gone), FileCutShort."""
        if self.is_reading:
            return Sent.BLOCKED
        try:
            while self._memory:
                self._send_memory(sock)
            budget = FILE_TURN_SIZE
            spool = self._spool
            if spool is not None:
                while spool.waiting:
                    if budget <= 0:
                        return Sent.PAUSED
                    size = os.sendfile(sock.fileno(), spool.fd, spool.start, min(spool.waiting, budget))
                    spool.start += size
                    budget -= size
            while self._late:
                self._memory, self._late = self._late, self._memory
                while self._memory:
                    self._send_memory(sock)
            while self._count or self._parts:
                if not self._count:
                    self._begin_part(sock)
                    continue
                if budget <= 0:
                    return Sent.PAUSED
                if self._offset >= self._warm_end and not self._find_warm():
                    return Sent.COLD
                budget -= self._send_file(sock, budget)
        except BlockingIOError:
            return Sent.BLOCKED
        self._file = None
        self.is_full = False
        return Sent.ALL

    def _begin_part(self, sock: socket.socket) -> None:
        """The next part; its bytes go out with what follows them."""
        (head, self._offset, self._count), *self._parts = self._parts
        self._warm_end = 0
        self._parts_size -= len(head) + self._count
        self._keep(memoryview(head))
        while self._memory:
            self._send_memory(sock)

    def _find_warm(self) -> bool:
        """Whether the next of the file can be sent without waiting for a disk."""
        assert self._file is not None
        count = min(self._count, PART_SIZE)
        if not is_warm(self._file, self._offset, count):
            return False
        self._warm_end = self._offset + count
        return True

    def _send_memory(self, sock: socket.socket) -> None:
        piece = self._memory[0]
        size = sock.send(piece, socket.MSG_MORE if self._count and len(self._memory) == 1 else 0)
        self._memory_size -= size
        if size == len(piece):
            self._memory.popleft()
        else:
            self._memory[0] = piece[size:]

    def _send_file(self, sock: socket.socket, budget: int) -> int:
        assert self._file is not None
        count = min(self._count, budget, self._warm_end - self._offset)
        size = os.sendfile(sock.fileno(), self._file.fd, self._offset, count)
        if size == 0:
            raise FileCutShort(f"file ended {self._count} bytes before the length announced")
        self._offset += size
        self._count -= size
        return size


def send_at_once(sock: socket.socket, head: bytes, file: Readable, offset: int, count: int) -> tuple[bytes, int]:
    """Send what the socket takes now of a head and of a file that need not be waited for.

    What is left of the head, and how many of the first FILE_TURN_SIZE bytes are sent. Raises OSError.
    """
    part = min(count, PART_SIZE)
    try:
        size = sock.send(head, socket.MSG_MORE)
        head = head[size:]
        return head, 0 if head or not is_warm(file, offset, part) else os.sendfile(sock.fileno(), file.fd, offset, part)
    except BlockingIOError:
        return head, 0
