"""Opening a file beneath a directory, so that neither a link nor a race leads out of it.

The kernel does it where it can (openat2 with RESOLVE_BENEATH, Linux 5.6), a walk over the components elsewhere, by the
same rules: a relative link that stays beneath the root at every step is followed; an absolute one, or one that climbs
out even to come back, is EXDEV. Knows nothing of HTTP: errors stay OSError. Called by `static.mounts`; an OpenFile is
also held by `static.cache` and by a reply.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from itertools import count
from typing import Final

from epollwsgi.errors import ConfigError
from epollwsgi.pagecache import Parts

Opener = Callable[[int, bytes], int]

# O_NONBLOCK: opening a FIFO must not wait for a writer. O_NOCTTY: a terminal must not become ours.
OPEN_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
# A directory on the way needs no right to be read, only to be passed through.
PASS_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

SYS_OPENAT2: Final = 437  # the same on every architecture but alpha
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_BENEATH: Final = 0x08
MAX_TRIES: Final = 8  # EAGAIN: something on the way was renamed while the kernel resolved it. openat2(2)

# A descriptor could not be had just now; what is open stays in use.
SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))

MAX_LINKS: Final = 40  # path_resolution(7)
PATH_MAX: Final = 4096  # with the NUL at its end


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW = _OpenHow(OPEN_FLAGS, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
_HOW_POINTER = ctypes.byref(_HOW)
_HOW_SIZE = ctypes.sizeof(_HOW)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def _error(number: int, path: bytes) -> OSError:
    return OSError(number, os.strerror(number), path)


def open_by_kernel(root_fd: int, path: bytes) -> int:
    """Descriptor of what lies at `path` beneath the directory. Raises OSError; EAGAIN after MAX_TRIES races."""
    number = errno.EAGAIN
    for _ in range(MAX_TRIES):
        fd = int(_syscall(SYS_OPENAT2, root_fd, path, _HOW_POINTER, _HOW_SIZE))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise _error(number, path)


def open_by_walk(root_fd: int, path: bytes) -> int:
    """The same without openat2: each component is opened by itself and a link is never followed by the kernel."""
    if not path or path[:1] == b"/" or len(path) >= PATH_MAX:
        raise _error(errno.ENAMETOOLONG if len(path) >= PATH_MAX else errno.EXDEV if path else errno.ENOENT, path)
    directories = [root_fd]  # the way from the root to here; `..` goes back along it and so never leaves it
    pending = path.split(b"/")[::-1]
    link_count = 0
    try:
        while pending:
            name = pending.pop()
            if name == b"..":
                if len(directories) == 1:
                    raise _error(errno.EXDEV, path)
                os.close(directories.pop())
            elif name not in (b"", b"."):
                flags = PASS_FLAGS if pending else OPEN_FLAGS | os.O_NOFOLLOW
                try:
                    fd = os.open(name, flags, dir_fd=directories[-1])
                except OSError as error:
                    link_count += 1
                    target = _read_link(directories[-1], name, error.errno, link_count)
                    if target is None:
                        raise
                    pending += target[::-1]
                    continue
                if not pending:
                    return fd
                directories.append(fd)
        return os.open(b".", OPEN_FLAGS, dir_fd=directories[-1])
    finally:
        for fd in directories[1:]:
            os.close(fd)


def open_following(root_fd: int, path: bytes) -> int:
    """Wherever links lead: the setting follow_symlinks. A path from a request has no `..` of its own."""
    return os.open(path, OPEN_FLAGS, dir_fd=root_fd)


def _read_link(directory_fd: int, name: bytes, number: int | None, link_count: int) -> list[bytes] | None:
    """Components of the link that could not be opened for the error `number`, or None where it is no link.

    O_NOFOLLOW makes a link ELOOP, and ENOTDIR together with O_PATH and O_DIRECTORY. open(2)
    """
    if number not in (errno.ELOOP, errno.ENOTDIR):
        return None
    try:
        target = os.readlink(name, dir_fd=directory_fd)
    except OSError:
        return None
    if link_count > MAX_LINKS:
        raise _error(errno.ELOOP, name)
    if target[:1] == b"/":
        raise _error(errno.EXDEV, name)
    return target.split(b"/")


def probe_openat2() -> int:
    """0 where the kernel and any sandbox allow openat2, else the error number of the refusal."""
    try:
        fd = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.ENOSYS
    how = _OpenHow(os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    try:
        opened = int(_syscall(SYS_OPENAT2, fd, b".", ctypes.byref(how), _HOW_SIZE))
        if opened < 0:
            return ctypes.get_errno()
        os.close(opened)
        return 0
    finally:
        os.close(fd)


class OpenFile:
    """A descriptor that is closed with the last reference to it: the cache's, or that of a response being sent."""

    __slots__ = ("fd", "warm")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.warm: Parts | None = {}

    # `close` is bound here since at the interpreter's end the module may be gone before the object.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


_numbers = count(1)


class Directory:
    """An open directory; `number` tells it from every other one that was ever opened. fd -1: there is none."""

    __slots__ = ("_file", "_opener", "fd", "number")

    def __init__(self, fd: int, opener: Opener) -> None:
        self._file = OpenFile(fd) if fd >= 0 else None
        self._opener = opener
        self.fd = fd
        self.number = next(_numbers)

    def open(self, name: bytes) -> int:
        """Descriptor of a file or directory beneath; `.` is the directory itself. Raises OSError."""
        return self._opener(self.fd, name)


class Root:
    """A directory that is served: its name as configured, and what the name means `now`."""

    __slots__ = ("_identity", "_opener", "directory", "now")

    def __init__(self, directory: str, opener: Opener = open_by_kernel) -> None:
        """Raises ConfigError where the directory cannot be opened."""
        self.directory = os.path.abspath(directory)
        self.now = Directory(-1, opener)
        self._identity: tuple[int, int] | None = None
        self._opener = opener
        self.refresh()
        if self.fd < 0:
            try:
                os.close(os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError as error:
                raise ConfigError(f"cannot serve the directory {directory}: {error.strerror}") from error

    @property
    def fd(self) -> int:
        """Descriptor of the directory, -1 where there is none."""
        return self.now.fd

    def refresh(self) -> bool:
        """Look the name up again; True where it now means another directory, or none (`fd` is -1), or one again."""
        try:
            now = os.stat(self.directory)
            if (now.st_dev, now.st_ino) == self._identity:
                return False
            fd = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if self.fd < 0 or error.errno in SHORTAGES:
                return False
            fd = -1
        self.now = Directory(fd, self._opener)
        self._identity = None
        if fd >= 0:
            now = os.fstat(fd)
            self._identity = (now.st_dev, now.st_ino)
        return True

    def open(self, name: bytes) -> int:
        """Descriptor of a file or directory; `.` is the root itself. Raises OSError."""
        return self.now.open(name)

    def close(self) -> None:
        """It is served no more: there is no directory until `refresh` finds it again."""
        self.now = Directory(-1, self._opener)
        self._identity = None
