"""The file that names the master's process id: who may write it, and when one that is there already is stale.

Called by the master, when it starts and when it ends.  It knows no settings but its path.  A file with another content
than a process id is somebody else's and stays; a symbolic link is never followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from contextlib import suppress

from epollwsgi.errors import ConfigError

MODE = 0o644  # whatever the umask: monitoring reads it
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
MOST_DIGITS = 10
# Masters that start at the same time take turns: each looks at the file for far less than this.
CLAIM_TRIES, CLAIM_PAUSE_S = 100, 0.01
# A process that started so much later than its file was written is not the one that the file means.
START_SLACK_S = 2.0


class PidFile:
    """A pid file; a relative path is relative to the directory of this moment."""

    def __init__(self, path: str) -> None:
        self._written = path
        self.path = os.path.abspath(path)

    def claim(self) -> None:
        """Write the id of this process, all at once. Raises ConfigError: unwritable, or of a process that runs."""
        try:
            temporary = self._write_temporary()
            try:
                self._put(temporary)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
        except OSError as error:
            link = error.errno == errno.ELOOP
            raise self._error("it is a symbolic link" if link else error.strerror or str(error)) from None

    def release(self) -> None:
        """Remove the file if it names this process; never raises."""
        with suppress(OSError):
            fd = os.open(self.path, READ_FLAGS)
            try:
                is_ours = os.read(fd, 64).strip() == b"%d" % os.getpid()
            finally:
                os.close(fd)
            if is_ours:
                os.unlink(self.path)

    def _error(self, text: str) -> ConfigError:
        return ConfigError(f"pidfile = {self._written!r}: {text}")

    def _write_temporary(self) -> str:
        fd, path = tempfile.mkstemp(prefix=".pid-", dir=os.path.dirname(self.path))
        try:
            os.write(fd, b"%d\n" % os.getpid())
            os.fchmod(fd, MODE)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        return path

    def _put(self, temporary: str) -> None:
        """Put the new file in its place. Of two processes that find the same stale file only one replaces it."""
        for _ in range(CLAIM_TRIES):
            try:
                fd = os.open(self.path, READ_FLAGS)
            except FileNotFoundError:
                if put_new(temporary, self.path):
                    return
                continue
            try:
                if is_locked(fd):
                    time.sleep(CLAIM_PAUSE_S)
                elif is_still_at(fd, self.path):
                    self._refuse_living(fd)
                    os.rename(temporary, self.path)
                    return
            finally:
                os.close(fd)
        raise self._error("another process keeps it locked")

    def _refuse_living(self, fd: int) -> None:
        """Raises ConfigError unless the file is empty or names a process that is gone."""
        found = os.fstat(fd)
        content = os.read(fd, 64).strip() if stat.S_ISREG(found.st_mode) else b"?"
        if content and not (content.isdigit() and len(content) <= MOST_DIGITS):
            raise self._error("there is something else, not a process id; remove it or name another file")
        pid = int(content or b"0")
        if is_owner(pid, found.st_mtime):
            raise self._error(f"process {pid} is running")


def put_new(temporary: str, path: str) -> bool:
    """Name a file `path`; False if there is one by now. Raises OSError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        os.rename(temporary, path)
    return True


def is_locked(fd: int) -> bool:
    """True while another process has it locked; else it is locked by this one until it is closed."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass  # a file system without locks
    return False


def is_still_at(fd: int, path: str) -> bool:
    """True if `path` names the file that is open."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def is_owner(pid: int, written_at: float) -> bool:
    """True if process `pid` is another one than this, lives, and may have written its id at that time.

    In a container the server has the same id again at each start, and elsewhere ids come round.
    """
    if not 0 < pid < 2**31 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, and alive
    return started_at(pid) <= written_at + START_SLACK_S


def started_at(pid: int) -> float:
    """When a process began, as time.time() has it; never (inf) if it has ended, 0 where that cannot be learned.

    /proc/PID/stat counts from the boot, proc_pid_stat(5).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    if fields[0] in (b"Z", b"X"):  # killed, and its parent has not looked yet
        return float("inf")
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s if age_s >= -START_SLACK_S else 0.0
