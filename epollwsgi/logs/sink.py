"""Where lines of a log go: a descriptor that is written to without ever waiting for a reader and without ever raising.

What a line looks like is in `error_log` and `access_log`; nobody else uses this.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import select
import stat
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from epollwsgi.logs.files import open_file, remove_empty

if TYPE_CHECKING:
    from socket import socket

PIPE_SIZE = select.PIPE_BUF
TURN_PATIENCE_S = 0.1
MSG_DONTWAIT = 0x40  # Linux; socket is only imported where a log is a socket
standard_before: list[int] = []  # what standard output and error were before they were captured


class Turn:
    """One thread at a time, as far as that can be had soon: a fork's copy may be held by a thread it does not have.

    A thread may enter it again while it is inside.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=TURN_PATIENCE_S) and self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.RLock()  # or each line of the child would wait
            self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        with suppress(RuntimeError):  # it could not be had
            self._lock.release()


class Sink:
    """A descriptor that lines are written to without ever waiting and without ever raising.

    A pipe or terminal is opened anew without blocking, because O_NONBLOCK on the inherited description would change
    it for every process that shares it.  Of a line written in part the rest is kept, so that lines stay whole.
    """

    _socket: socket | None = None

    def __init__(self, path: str, standard_fd: int, is_wary: bool = False) -> None:
        """path: `-` for the standard descriptor.  is_wary: see `files`.  Raises OSError."""
        self._path = os.path.abspath(path) if path != "-" else ""
        self._is_own = bool(self._path)
        self.lost_count = 0
        self.lost_reason = ""
        self.rest = b""
        self.turn = Turn()  # around what is lost and what is left of a line
        self.may_block = False
        self._is_wary = is_wary
        self._is_made = False  # the file was not there before
        if self._path:
            self.fd, self._is_made = open_file(self._path, is_wary=is_wary)
            return
        if standard_before:  # captured by the log of the generation before
            standard_fd = fcntl.fcntl(standard_before[standard_fd - 1], fcntl.F_DUPFD_CLOEXEC, 3)
            self._is_own = True
        self.fd = standard_fd
        try:
            mode = os.fstat(standard_fd).st_mode
            if stat.S_ISSOCK(mode):  # under some supervisors
                self._socket = open_socket(standard_fd)
            elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
                self.may_block = True
                self.fd = reopen_without_blocking(standard_fd)
                self.may_block = False
                if self._is_own:
                    os.close(standard_fd)
                self._is_own = True
        except OSError:
            pass  # closed: every line will be lost, and counted; or not ours to open: asked before each write

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def close(self) -> None:
        """Give back a descriptor of our own; lines that come later are lost."""
        if self._is_own:
            self._is_own = False
            os.close(self.fd)
            self.fd = -1

    def reopen(self) -> None:
        """Open the file of that name anew, under the same descriptor; the standard streams stay. Raises OSError."""
        if self._path:
            fd, self._is_made = open_file(self._path, is_wary=self._is_wary)
            os.dup2(fd, self.fd, inheritable=False)
            os.close(fd)

    def remove_if_empty(self) -> None:
        """What was to be logged never came to be: a file that was made for it, and has no line, goes."""
        if self._is_made:
            remove_empty([self._path])

    def become_standard(self) -> None:
        """Make standard output and error of this process what this is: a file that has a name. Raises OSError.

        Who prints into a pipe waits for its reader, as ever, so that is opened once more: the log itself never waits.
        """
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                with suppress(OSError, ValueError):
                    stream.flush()
                stream.reconfigure(line_buffering=True)  # or what is printed would come long after the lines about it
        fd = self.fd
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            fd = reopen_without_blocking(fd)
            os.set_blocking(fd, True)
        if not standard_before:
            standard_before.extend(fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 3) for one in (1, 2))
        for standard_fd in (1, 2):
            os.dup2(fd, standard_fd)
        if fd != self.fd:
            os.close(fd)

    def step_aside(self) -> None:
        """Keep what a standard descriptor is now under a number of our own, before `become_standard` of another."""
        if self.fd in (1, 2) and not self._is_own:
            with suppress(OSError):
                self.fd = fcntl.fcntl(self.fd, fcntl.F_DUPFD_CLOEXEC, 3)
                self._is_own = True

    def write(self, data: bytes) -> bool:
        """Write whole lines; False if some were lost."""
        with self.turn:
            return self._write(data)

    def _write(self, data: bytes) -> bool:
        if self.rest:
            self.rest = self.rest[self._try(self.rest) :]
            if self.rest:
                self.lost_count += data.count(b"\n")
                return False
        written = self._try(data)
        if written == len(data):
            return True
        if written and data[written - 1] != 10:
            end = data.find(b"\n", written) + 1 or len(data)
            self.rest, written = data[written:end], end
        self.lost_count += data.count(b"\n", written)
        return False

    def _try(self, data: bytes) -> int:
        done = 0
        try:
            while done < len(data):
                piece = data[done:] if done else data
                if self.may_block:
                    piece = piece[:PIPE_SIZE]
                    if not is_writable(self.fd):
                        raise BlockingIOError(errno.EAGAIN, "")
                done += os.write(self.fd, piece) if self._socket is None else self._socket.send(piece, MSG_DONTWAIT)
        except OSError as error:
            self.lost_reason = os.strerror(error.errno or errno.EIO)
        return done


def is_captured() -> bool:
    """True where `Sink.become_standard` holds in this process."""
    return bool(standard_before)


def restore_standard() -> None:
    """Undo `Sink.become_standard`, whoever did it."""
    for standard_fd, fd in zip((1, 2), standard_before, strict=False):
        os.dup2(fd, standard_fd)
        os.close(fd)
    standard_before.clear()


def reopen_without_blocking(fd: int) -> int:
    """A descriptor of our own for a pipe or terminal, which does not block. Raises OSError."""
    return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def is_writable(fd: int) -> bool:
    """True if a write of at most PIPE_SIZE bytes would not wait. pipe(7)"""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def open_socket(fd: int) -> socket:
    """A socket object for a descriptor that is a socket."""
    from socket import socket

    return socket(fileno=os.dup(fd))


class ErrorStream(io.TextIOBase):
    """The error log as the text file that environ has as wsgi.errors; closing it does nothing."""

    encoding = "utf-8"

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        self._sink.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def close(self) -> None:
        """Nothing: the log outlives whoever was handed this file."""
