"""Output of one connection that its client has not taken yet, in order: memory, then a spool file, then a file.

Memory is bounded by the watermark; what is above it waits in an unlinked temporary file (OPERATIONS.md 6.11).
`connection` creates one when a send would block, and sends from it when epoll says that the socket takes more.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from enum import IntEnum
from typing import Protocol

from epollwsgi.errors import EpollwsgiError, SpoolFull
from epollwsgi.spool import OutputSpool, Quota

# At most this much is sent from files in one turn, so that one fast client cannot starve the loop.
FILE_TURN_SIZE = 1 << 20


class FileCutShort(EpollwsgiError):
    """A file ended before the length that the response had announced."""


class OpenedFile(Protocol):
    """A file that stays open while somebody refers to it."""

    @property
    def fd(self) -> int: ...


class Sent(IntEnum):
    """What a try to send came to."""

    ALL, BLOCKED, PAUSED = range(3)


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

    __slots__ = ("_count", "_file", "_late", "_memory", "_memory_size", "_offset", "_rules", "_spool", "is_full")

    def __init__(self, rules: SpoolRules) -> None:
        self._rules = rules
        self._memory: deque[memoryview] = deque()
        self._late: deque[memoryview] = deque()  # behind the spool, where that took no more
        self._memory_size = 0  # of both
        self._spool: OutputSpool | None = None
        self._file: OpenedFile | None = None
        self._offset = 0
        self._count = 0
        self.is_full = False  # the last piece was kept in memory for want of room: nobody should give more

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._memory_size + self._count + (self._spool.waiting if self._spool is not None else 0)

    def __bool__(self) -> bool:
        return self.size > 0

    def append(self, content: bytes) -> None:
        """Behind all that waits. Where neither memory nor spool has room it is kept too, and is_full says so."""
        spool = self._spool
        size = len(content)
        self.is_full = False
        if (spool is None or not spool.waiting) and self._memory_size + size <= self._rules.watermark:
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

    def attach(self, file: OpenedFile, offset: int, count: int) -> None:
        """`count` bytes of file behind all that waits; the last of a response."""
        self._file = file
        self._offset = offset
        self._count = count

    def send(self, sock: socket.socket) -> Sent:
        """As much as the socket takes now. Raises OSError (the client has gone), FileCutShort."""
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
            while self._count:
                if budget <= 0:
                    return Sent.PAUSED
                budget -= self._send_file(sock, budget)
        except BlockingIOError:
            return Sent.BLOCKED
        self._file = None
        self.is_full = False
        return Sent.ALL

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
        size = os.sendfile(sock.fileno(), self._file.fd, self._offset, min(self._count, budget))
        if size == 0:
            raise FileCutShort(f"file ended {self._count} bytes before the length announced")
        self._offset += size
        self._count -= size
        return size
