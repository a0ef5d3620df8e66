"""Going into the background: the foreground waits for the daemon's word, and the daemon lets go of everything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import clean_environment, wait_until

# A daemon: `hold` waits for a file that the test makes, never for ever.
PRELUDE = """
import os, signal, sys, time
from epollwsgi.process.daemon import detach

def hold(name):
    for _ in range(6000):
        if os.path.exists(name):
            return
        time.sleep(0.005)
    os._exit(99)

def note(name, text):
    with open(name + ".new", "w") as file:
        file.write(str(text))
    os.rename(name + ".new", name)

print("begins")
parting = detach()
note("pid", os.getpid())
"""
END = "hold('end')\nos._exit(0)\n"


class Started:
    """A process that makes itself a daemon, in a directory where both meet the test."""

    def __init__(self, directory: Path, code: str, shell: str) -> None:
        self.directory = directory
        environ = clean_environment()
        environ.pop("PYTHONUNBUFFERED", None)  # what is buffered is what a test looks at
        with open(directory / "out", "wb") as out, open(directory / "err", "wb") as err:
            self.foreground = subprocess.Popen(
                ["sh", "-c", f'exec "$0" -c "$1" {shell}', sys.executable, PRELUDE + code],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=directory,
                env=environ,
            )

    def pid(self, name: str = "pid") -> int:
        """What the daemon has noted: its id, or another."""
        wait_until((self.directory / name).exists, 30, f"{name} of the daemon: {self.text('err')}")
        return int(self.text(name))

    def make(self, name: str) -> None:
        """What the daemon waits for."""
        (self.directory / name).touch()

    def text(self, name: str) -> str:
        return (self.directory / name).read_text()

    def exit_code(self) -> int:
        """Of the foreground."""
        return self.foreground.wait(30)

    def close(self) -> None:
        for name in ("pid", "child"):
            with suppress(OSError, ValueError):
                pid = int(self.text(name))
                if str(self.directory) == os.readlink(f"/proc/{pid}/cwd"):
                    os.kill(pid, signal.SIGKILL)
        if self.foreground.poll() is None:
            self.foreground.kill()
        self.foreground.wait()
        assert self.foreground.stdin is not None
        self.foreground.stdin.close()


Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(code, shell=...) -> Started; both processes are ended with the test."""
    started: list[Started] = []

    def begin(code: str, shell: str = "") -> Started:
        directory = tmp_path / str(len(started))
        directory.mkdir()
        started.append(Started(directory, code, shell))
        return started[-1]

    try:
        yield begin
    finally:
        for one in started:
            one.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def fd_of(pid: int, fd: int) -> str:
    return os.readlink(f"/proc/{pid}/fd/{fd}")


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("code", [0, 3, 255])
def test_foreground_ends_with_the_code_it_is_told_and_not_before(start: Start, code: int) -> None:
    started = start(f"hold('go')\nparting.done({code})\nparting.done(9)\n{END}")
    daemon = started.pid()
    wait_until(lambda: not children(started.foreground.pid), what="the process between to be reaped")
    assert started.foreground.poll() is None
    started.make("go")
    assert started.exit_code() == code
    assert is_alive(daemon)
    started.make("end")
    wait_until(lambda: not is_alive(daemon), what="the end of the daemon")


def test_daemon_belongs_to_nobody(start: Start) -> None:
    started = start(f"note('umask', os.umask(0))\nhold('go')\nparting.done(0)\n{END}")
    daemon = started.pid()
    assert daemon != started.foreground.pid
    session = os.getsid(daemon)
    assert session not in (os.getsid(0), os.getsid(started.foreground.pid), daemon)
    assert os.getpgid(daemon) == session
    stat = Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[1]) != started.foreground.pid, "its parent"
    assert stat[4] == "0", "its terminal"
    assert os.readlink(f"/proc/{daemon}/cwd") == str(started.directory)
    before = os.umask(0o077)
    os.umask(before)
    wait_until((started.directory / "umask").exists)
    assert int(started.text("umask")) == before


def test_streams_stay_until_it_is_done(start: Start) -> None:
    started = start(
        "print('said before')\nhold('go')\nparting.done(0)\nprint('said after', flush=True)\n"
        f"os.write(2, b'this too')\nnote('said', '')\n{END}"
    )
    daemon = started.pid()
    assert fd_of(daemon, 0) == os.devnull
    assert [fd_of(daemon, fd) for fd in (1, 2)] == [str(started.directory / name) for name in ("out", "err")]
    assert started.text("out") == "begins\n"
    started.make("go")
    assert started.exit_code() == 0
    wait_until((started.directory / "said").exists)
    assert [fd_of(daemon, fd) for fd in (0, 1, 2)] == [os.devnull] * 3
    assert started.text("out") == "begins\nsaid before\n"
    assert started.text("err") == ""


def test_log_that_is_a_file_stays(start: Start) -> None:
    started = start(
        "end = os.open('/dev/zero', os.O_RDWR)\nlog = os.open('log', os.O_WRONLY | os.O_CREAT)\n"
        f"note('end_fd', end)\nnote('log_fd', log)\nparting.done(0, {{2, end, log, 77, -1}})\n{END}"
    )
    assert started.exit_code() == 0
    daemon = started.pid()
    assert fd_of(daemon, 1) == os.devnull
    assert fd_of(daemon, 2) == str(started.directory / "err")
    assert fd_of(daemon, int(started.text("log_fd"))) == str(started.directory / "log")
    assert fd_of(daemon, int(started.text("end_fd"))) == os.devnull, "what is no file, such as a terminal, is let go"


def test_whoever_reads_the_output_comes_to_its_end(start: Start) -> None:
    """As in `epollwsgi -D app:app | cat`, where the log has a descriptor of its own for the pipe."""
    started = start(f"log = os.dup(1)\nparting.done(0, [log])\n{END}", shell="| cat > piped")
    assert started.exit_code() == 0
    assert is_alive(started.pid())


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit(0)"])
def test_daemon_that_dies_before_is_a_failure(start: Start, end: str) -> None:
    started = start(f"hold('go')\n{end}\n")
    started.pid()
    started.make("go")
    assert started.exit_code() == 1


def test_worker_that_outlives_the_daemon_keeps_nobody_waiting(start: Start) -> None:
    started = start(f"child = os.fork()\nif child:\n    note('child', child)\n    os._exit(0)\n{END}")
    assert started.exit_code() == 1
    child = started.pid("child")
    assert is_alive(child)
    started.make("end")
    wait_until(lambda: not is_alive(child))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_signal_to_stop_reaches_the_daemon(start: Start, number: signal.Signals) -> None:
    """Ctrl+C while the application loads: the terminal sends it to the foreground, which has nothing to stop."""
    started = start(
        "def stop(number, frame):\n    parting.done(number + 100)\n    os._exit(0)\n"
        f"signal.signal({number:d}, stop)\nnote('set', '')\n{END}"
    )
    wait_until((started.directory / "set").exists, 30)
    wait_until(lambda: catches(started.foreground.pid, number), what="the handlers of the foreground")
    started.foreground.send_signal(number)
    assert started.exit_code() == number + 100


def catches(pid: int, number: int) -> bool:
    """True if a handler is set for the signal and it is not blocked, proc_pid_status(5)."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    bit = 1 << (number - 1)
    return bool(int(lines["SigCgt"], 16) & bit and not int(lines["SigBlk"], 16) & bit)


def test_no_signal_is_left_blocked(start: Start) -> None:
    started = start(f"parting.done(0)\n{END}")
    assert started.exit_code() == 0
    daemon = started.pid()
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{daemon}/status").read_text().splitlines())
    own = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert lines["SigBlk"] == own["SigBlk"]


@pytest.mark.parametrize("shell", ["<&-", "<&- >&- 2>&-", ">&-"])
def test_closed_streams_are_opened_first(start: Start, shell: str) -> None:
    """Else a pipe or a listener would get the number of standard output."""
    started = start(f"print('to nobody')\nhold('go')\nparting.done(4)\n{END}", shell)
    daemon = started.pid()
    for fd, closed in enumerate(("<&-", ">&-", "2>&-")):
        assert fd == 0 or (fd_of(daemon, fd) == os.devnull) == (closed in shell.split())
    started.make("go")
    assert started.exit_code() == 4


def test_foreground_that_is_gone_does_not_matter(start: Start) -> None:
    started = start(f"hold('go')\nparting.done(0)\nnote('on', '')\n{END}")
    daemon = started.pid()
    started.foreground.kill()
    assert started.exit_code() == -signal.SIGKILL
    started.make("go")
    wait_until((started.directory / "on").exists)
    assert is_alive(daemon)


def test_children_that_nobody_waits_for_do_not_matter(tmp_path: Path) -> None:
    """SIGCHLD is ignored by some that start servers, and that is inherited."""
    code = f"import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n{PRELUDE}parting.done(5)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (5, "")


def test_too_many_processes_are_one_clear_line() -> None:
    """As root the limit does not hold, so another user tries."""
    code = (
        "import os, resource\nfrom epollwsgi.errors import ConfigError\nfrom epollwsgi.process.daemon import detach\n"
        "if os.geteuid() == 0:\n    os.setgroups([])\n    os.setresuid(61234, 61234, 61234)\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
        "try:\n    detach()\nexcept ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "daemon: cannot start a process: Resource temporarily unavailable\n", done.stderr
