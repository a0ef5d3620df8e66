"""Opening the file of a log: whether that has made it, and whose symbolic links are followed on the way.

A master that is root opens logs in directories where the user of its workers may write. A link which that user puts in
the place of a log would have root write wherever it leads, so with such a user (`is_wary`) a link at the end of a path
is followed only if it is root's own, much as the kernel has it in /tmp (protected_symlinks, proc(5)).

Called by `sink`, and for handlers of Python's logging by `reopening` and `python_logging`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress

LOG_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
MOST_LINKS = 8
ROOT = 0


def open_file(path: str, flags: int = LOG_FLAGS, *, is_wary: bool = False) -> tuple[int, bool]:
    """A descriptor, and whether the file was made for it. Raises OSError.

    flags: of open(2), O_CREAT among them.  is_wary: see the module.
    """
    for _ in range(MOST_LINKS):
        with suppress(FileExistsError):
            return os.open(path, flags | os.O_EXCL, 0o666), True
        if not is_wary:
            return os.open(path, flags, 0o666), False
        try:
            return os.open(path, flags | os.O_NOFOLLOW, 0o666), False
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        target = read_link(path)
        if not target:
            return os.open(path, flags, 0o666), False
        path = target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def open_wary(path: str, flags: int) -> int:
    """`open_file` as the opener of the built-in function `open`."""
    return open_file(path, flags, is_wary=True)[0]


def read_link(path: str) -> str:
    """Where a link of root's leads; itself where it is none by now; '' for one that the kernel makes. Raises OSError.

    The link is held while it is looked at: what is read is what belongs to root.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISLNK(found.st_mode):
            return path
        if found.st_dev == os.stat("/proc/self/fd").st_dev:
            return ""  # nobody can put one there, and its text is no path: /dev/stdout leads to such
        if found.st_uid != ROOT:
            raise OSError(
                errno.EACCES,
                f"{path} is a symbolic link of uid {found.st_uid}; while the workers have a user of their own a log "
                "follows only links of root (remove it, or chown -h it to root)",
            )
        return os.path.join(os.path.dirname(path), os.readlink("", dir_fd=fd))
    finally:
        os.close(fd)


def remove_empty(paths: Iterable[str]) -> None:
    """Remove files that were made for nothing: those without content."""
    for path in paths:
        with suppress(OSError):
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and not found.st_size:
                os.unlink(path)
