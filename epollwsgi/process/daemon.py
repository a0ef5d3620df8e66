"""Going into the background, while a process in the foreground waits until the server is ready or has failed.

    foreground, waits ---- forks ---- between, setsid ---- forks ---- daemon
         ^                            ends at once                      |
         +------------- its id, and the exit code by Parting.done ------+

The foreground process ends with the code that the daemon tells it, or with 1 if the daemon dies before.  Called by the
master before it opens anything.  Directory and umask stay as they are.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import weakref
from collections.abc import Collection
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from epollwsgi.errors import ConfigError

FAILED = 1
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


class Parting:
    """The daemon's tie to the process in the foreground, until `done`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        # A worker that outlives the daemon must not keep the foreground waiting.
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: forget_in_child(reference))

    def done(self, code: int, log_fds: Collection[int] = ()) -> None:
        """The process in the foreground ends with `code`; with 0, the daemon lets go of standard output and error.

        log_fds: where the logs are written that go there; of these a file is kept, anything else is lost too.
        """
        if self._fd < 0:
            return
        if code == 0:
            silence(self._null_fd, log_fds)
        with suppress(OSError):  # nobody waits any more
            os.write(self._fd, bytes((code & 0xFF,)))
        self.forget()

    def forget(self) -> None:
        """Untie without a word."""
        for fd in (self._fd, self._null_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._null_fd = -1


def leave_terminal(log_fds: Collection[int]) -> None:
    """In a worker of a daemon, once it is ready: let go of what `Parting.done` lets the daemon let go of."""
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    silence(null_fd, log_fds)
    os.close(null_fd)


def silence(null_fd: int, log_fds: Collection[int]) -> None:
    """Let what is written to standard output and error, and to logs that are no files, go nowhere."""
    flush_streams()
    for fd in {1, 2, *log_fds}:
        if fd >= 0 and not (fd in log_fds and is_file(fd)):
            os.dup2(null_fd, fd, inheritable=fd <= 2)


def forget_in_child(reference: weakref.ref[Parting]) -> None:
    """Called in each child of the daemon."""
    parting = reference()
    if parting is not None:
        parting.forget()


def detach() -> Parting:
    """Become a daemon: returns in the daemon only. Raises ConfigError where no process can be made."""
    fill_standard_descriptors()
    reader, writer = os.pipe()
    flush_streams()  # what is buffered would be written by each process
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        between = os.fork()
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reader)
        os.close(writer)
        raise ConfigError(f"daemon: cannot start a process: {error.strerror}") from None
    if between:
        os.close(writer)
        wait_in_foreground(reader, between, mask)
    os.close(reader)
    os.setsid()
    try:
        daemon = os.fork()
    except OSError as error:
        os.write(2, f"epollwsgi: daemon: cannot start a process: {error.strerror}\n".encode())
        os._exit(FAILED)
    if daemon:
        os._exit(0)
    with suppress(OSError):
        os.write(writer, os.getpid().to_bytes(4, "big"))
    parting = Parting(writer)
    null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null_fd, 0)
    os.close(null_fd)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return parting


def wait_in_foreground(reader: int, between: int, mask: set[int | signal.Signals]) -> NoReturn:
    """End this process with the code that comes from the daemon; a signal to stop is passed on to it meanwhile."""
    with suppress(ChildProcessError):  # SIGCHLD was ignored by whoever started this, so it is reaped already
        os.waitpid(between, 0)
    daemon = int.from_bytes(os.read(reader, 4), "big")
    if daemon == 0:
        os._exit(FAILED)

    def pass_on(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            os.kill(daemon, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    code = os.read(reader, 1)
    os._exit(code[0] if code else FAILED)


def fill_standard_descriptors() -> None:
    """Open 0, 1 and 2 where they are closed, so that no pipe or socket gets such a number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def flush_streams() -> None:
    """Write what Python holds back of standard output and error."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()


def is_file(fd: int) -> bool:
    """True for a regular file."""
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False
