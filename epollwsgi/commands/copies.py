"""One compressed copy of a file: written beside it at once, or not at all.

Knows nothing of a site or of processes; the codings are those of `codings`. Called by `commands.compress`, in a process
of its own.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import ClassVar, Final, NamedTuple

from epollwsgi.codings import CODINGS, PIECE_SIZE, Coding
from epollwsgi.commands.show import show_path
from epollwsgi.commands.siblings import read_pieces
from epollwsgi.commands.tree import open_root
from epollwsgi.errors import StartError
from epollwsgi.static.beneath import OpenFile

# A copy that is being written has no name at all, or this one where the file system knows no files without a name.
UNFINISHED: Final = b".epollwsgi-"


class Job(NamedTuple):
    """One copy to be written: of which file, in which coding; size: the file's."""

    root: str
    folder: bytes
    name: bytes
    token: str
    size: int

    @property
    def path(self) -> str:
        """The copy's, below the root, to be shown."""
        suffix = next(coding.suffix for coding in CODINGS if coding.token == self.token)
        return show_path(self.folder + b"/" + self.name + suffix if self.folder else self.name + suffix)


class Result(Enum):
    """What became of a job."""

    WRITTEN = "written"
    LARGER = "not smaller than the file itself"
    CHANGED = "the file changed meanwhile; run it again"
    FAILED = ""


class Outcome(NamedTuple):
    """The result of a job; size: of the copy.  problem: in words, where it failed."""

    job: Job
    result: Result
    size: int = 0
    problem: str = ""


def write_copy(job: Job) -> Outcome:
    """Write one copy, or take away a stale one where it would not be smaller. It is there at once, or not at all."""
    coding = next(coding for coding in CODINGS if coding.token == job.token)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = OpenFile(open_root(job.root).open(job.folder or b"."))
        source = OpenFile(os.open(job.name, flags, dir_fd=folder.fd))
        return write_beside(job, coding, folder.fd, source.fd)
    except OSError as error:
        return Outcome(job, Result.FAILED, 0, error.strerror or "it cannot be written")
    except StartError as error:
        return Outcome(job, Result.FAILED, 0, str(error))


def write_beside(job: Job, coding: Coding, folder_fd: int, source_fd: int) -> Outcome:
    """The same with the directory and the file open. Raises OSError."""
    before = os.fstat(source_fd)
    if not stat.S_ISREG(before.st_mode):
        return Outcome(job, Result.CHANGED)
    name = job.name + coding.suffix
    with unfinished_file(folder_fd) as unfinished:
        size = write_coded(coding, source_fd, before.st_size, unfinished.fd)
        after = os.fstat(source_fd)
        if (after.st_size, after.st_mtime_ns, after.st_ctime_ns) != (
            before.st_size,
            before.st_mtime_ns,
            before.st_ctime_ns,
        ):
            return Outcome(job, Result.CHANGED)
        if size < 0:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder_fd)
            return Outcome(job, Result.LARGER)
        os.fchmod(unfinished.fd, stat.S_IMODE(before.st_mode) & 0o666)
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            with suppress(OSError):  # only root may
                os.fchown(unfinished.fd, before.st_uid, before.st_gid)
        # Exactly the file's own time: the server takes no copy that is older, and the next run sees that it is ours.
        os.utime(unfinished.fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        unfinished.become(name)
    return Outcome(job, Result.WRITTEN, size)


def write_coded(coding: Coding, source_fd: int, size: int, target_fd: int) -> int:
    """Encode the file; the size of the result, or -1 once it is not smaller. Raises OSError."""
    encoder = coding.encoder(size)
    written = 0

    def write(data: bytes) -> bool:
        nonlocal written
        written += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(target_fd, view) :]
        return written < size

    for piece in read_pieces(source_fd, PIECE_SIZE):
        if not write(encoder.compress(piece)):
            return -1
    return written if write(encoder.flush()) else -1


class Unfinished:
    """A file without a name that may get one."""

    # Those that have a name of their own for now: what remains to be removed if the process ends here.
    named: ClassVar[set[Unfinished]] = set()

    def __init__(self, folder_fd: int) -> None:
        """Raises OSError."""
        self.folder_fd = folder_fd
        self.name = b""
        try:
            self.fd = os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder_fd)
        except OSError:  # some file systems know no such files, or the directory cannot be written to
            self._take_name()
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self.fd = os.open(self.name, flags, 0o600, dir_fd=folder_fd)
            except OSError:
                self.named.discard(self)
                raise

    def _take_name(self) -> None:
        self.name = UNFINISHED + secrets.token_hex(8).encode("ascii")
        self.named.add(self)

    def become(self, name: bytes) -> None:
        """Take the place of whatever has that name. Raises OSError."""
        if not self.name:  # nothing but a rename takes the place of another, so it needs a name of its own first
            self._take_name()
            os.link(f"/proc/self/fd/{self.fd}", self.name, dst_dir_fd=self.folder_fd, follow_symlinks=True)
        os.rename(self.name, name, src_dir_fd=self.folder_fd, dst_dir_fd=self.folder_fd)
        self.named.discard(self)

    def remove_name(self) -> None:
        """Leave nothing behind but what it has become."""
        if self in self.named:
            with suppress(OSError):
                os.unlink(self.name, dir_fd=self.folder_fd)
            self.named.discard(self)


@contextmanager
def unfinished_file(folder_fd: int) -> Iterator[Unfinished]:
    """A file without a name, gone at the end unless it became something. Raises OSError."""
    unfinished = Unfinished(folder_fd)
    try:
        yield unfinished
    finally:
        os.close(unfinished.fd)
        unfinished.remove_name()


def remove_unfinished() -> None:
    """Remove what has only a name of its own; for a process that ends on a signal."""
    for unfinished in list(Unfinished.named):
        unfinished.remove_name()
