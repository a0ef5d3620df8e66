"""The pid file: claimed all at once, refused while its owner lives, replaced when that is gone."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.errors import ConfigError
from epollwsgi.process import pidfile
from epollwsgi.process.pidfile import PidFile
from tests.support import clean_environment, wait_until

OWN = f"{os.getpid()}\n"
# Claims once the file `go` is there, says what came of it, and lives until its input ends.
CLAIM = """
import os, sys, time
from epollwsgi.errors import ConfigError
from epollwsgi.process.pidfile import PidFile

os.umask(0o077)
print("here", flush=True)
for _ in range(6000):
    if os.path.exists(sys.argv[2]):
        break
    time.sleep(0.005)
file = PidFile(sys.argv[1])
try:
    file.claim()
    print("claimed", flush=True)
    sys.stdin.read()
    file.release()
except ConfigError as error:
    print(error, flush=True)
"""


class Rival:
    """Another process that claims the file."""

    def __init__(self, path: Path, go: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(path), str(go)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(),
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """It releases the file and ends."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pid"


@pytest.fixture
def rivals(path: Path) -> Iterator[list[Rival]]:
    """Three other processes, which claim the file as soon as `go` exists beside it."""
    started = [Rival(path, path.parent / "go") for _ in range(3)]
    try:
        for rival in started:
            assert rival.line() == "here"
        yield started
    finally:
        for rival in started:
            rival.close()


def test_file_names_this_process_and_goes_with_it(path: Path) -> None:
    file = PidFile(str(path))
    file.claim()
    assert path.read_text() == OWN
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["pid"]
    file.release()
    assert os.listdir(path.parent) == []
    file.release()  # nothing is there, nothing happens


def test_relative_path_keeps_its_meaning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    file = PidFile("pid")
    file.claim()
    monkeypatch.chdir("/")
    assert path.read_text() == OWN
    file.release()
    assert not path.exists()


def test_file_is_removed_by_the_process_it_names_only(path: Path) -> None:
    file = PidFile(str(path))
    file.claim()
    path.write_text("1\n")
    file.release()
    assert path.read_text() == "1\n"
    path.write_text(OWN.strip() + "1\n")
    file.release()
    assert path.exists()


def test_child_does_not_remove_it(path: Path) -> None:
    code = (
        "import os, sys\nfrom epollwsgi.process.pidfile import PidFile\nfile = PidFile(sys.argv[1])\nfile.claim()\n"
        "child = os.fork()\nif not child:\n    file.release()\n    os._exit(0)\nos.waitpid(child, 0)\n"
        "print(os.path.exists(sys.argv[1]))\nfile.release()\nprint(os.path.exists(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_one_of_several_gets_it_and_the_others_learn_who(path: Path, rivals: list[Rival]) -> None:
    """They start with the same stale file, at the same time."""
    path.write_text("0\n")
    (path.parent / "go").touch()
    said = {rival: rival.line() for rival in rivals}
    (winner,) = (rival for rival, line in said.items() if line == "claimed")
    del said[winner]
    assert set(said.values()) == {f"pidfile = {str(path)!r}: process {winner.pid} is running"}
    assert path.read_text() == f"{winner.pid}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644, "whatever the umask"
    winner.end()
    assert os.listdir(path.parent) == ["go"]


def test_one_of_several_gets_a_file_that_is_not_there_yet(path: Path, rivals: list[Rival]) -> None:
    (path.parent / "go").touch()
    assert sorted(rival.line() == "claimed" for rival in rivals) == [False, False, True]


@pytest.mark.parametrize(("step", "is_there"), [("put_new", False), ("is_locked", True)])
def test_rival_that_was_quicker_is_seen(path: Path, step: str, is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking at the path and each step that follows, another process has claimed the file."""
    if is_there:
        path.write_text("0\n")
    rival = path.parent / "rival"
    rival.write_text("1\n")
    take: Callable[..., bool] = getattr(pidfile, step)

    def late(*arguments: Any) -> bool:
        with suppress(FileNotFoundError):  # once
            os.rename(rival, path)
        return take(*arguments)

    monkeypatch.setattr(pidfile, step, late)
    assert refused(path) == "process 1 is running"
    assert path.read_text() == "1\n"


# --- who owns a file that is there ----------------------------------------------------------------------------------


def refused(path: str | Path) -> str:
    """Why a claim is refused; nothing is left behind."""
    with pytest.raises(ConfigError) as caught:
        PidFile(str(path)).claim()
    text = str(caught.value)
    assert text.startswith(f"pidfile = {str(path)!r}: ")
    assert "\n" not in text
    return text.partition(": ")[2]


@pytest.mark.parametrize("content", ["", "\n", "0", "own", "own\n", "4194305", "2147483648\n", "9999999999"])
def test_stale_file_is_replaced(path: Path, content: str) -> None:
    """Empty, of this very process (a container has the same ids at each start), or of none that can be."""
    path.write_text(content.replace("own", str(os.getpid())))
    PidFile(str(path)).claim()
    assert path.read_text() == OWN
    assert os.listdir(path.parent) == ["pid"]


@pytest.mark.parametrize("content", ["abc", "12 34", "-1", "1.5", "12345678901", "1\n2\n", "\u0661", "\0", "1" * 100])
def test_content_that_is_no_process_id_is_somebody_elses(path: Path, content: str) -> None:
    path.write_text(content)
    assert refused(path) == "there is something else, not a process id; remove it or name another file"
    assert path.read_text() == content
    assert os.listdir(path.parent) == ["pid"]


def test_process_that_was_killed_is_no_owner(path: Path, rivals: list[Rival]) -> None:
    """Neither as a zombie nor when it has been reaped."""
    pids = [rival.pid for rival in rivals]
    for pid in pids[:2]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pidfile.started_at(pids[0]) == pidfile.started_at(pids[1]) == float("inf"), what="zombies")
    rivals[1].process.wait()
    for pid in pids[:2]:
        path.write_text(f"{pid}\n")
        PidFile(str(path)).claim()
        assert path.read_text() == OWN
    path.write_text(f"{pids[2]}\n")
    assert refused(path) == f"process {pids[2]} is running"


def test_process_that_started_after_the_file_was_written_is_no_owner(path: Path, rivals: list[Rival]) -> None:
    """Its number was another's before."""
    pid = rivals[0].pid
    path.write_text(str(pid))
    assert refused(path) == f"process {pid} is running"
    started = pidfile.started_at(pid)
    assert time.time() - 600 < started < time.time() + 1
    os.utime(path, (started, started - 60))
    PidFile(str(path)).claim()
    assert path.read_text() == OWN


def test_process_of_another_user_is_an_owner(path: Path) -> None:
    path.write_text("1")
    assert refused(path) == "process 1 is running"


def test_what_is_no_file_is_left_alone(path: Path, tmp_path: Path) -> None:
    path.mkdir()
    assert refused(path).startswith(("there is something else", "Is a directory"))
    path.rmdir()
    os.mkfifo(path)
    assert refused(path).startswith("there is something else")
    path.unlink()
    for target in (tmp_path / "target", tmp_path / "missing"):
        (tmp_path / "target").write_text("1")
        path.symlink_to(target)
        assert refused(path) == "it is a symbolic link"
        PidFile(str(path)).release()
        assert path.is_symlink()
        path.unlink()
    assert (tmp_path / "target").read_text() == "1"
    assert not (tmp_path / "missing").exists()


def test_directory_that_cannot_be_written_to_is_named(path: Path) -> None:
    assert refused(path.parent / "missing" / "pid") == "No such file or directory"
    path.write_text("")
    assert refused(path / "pid") == "Not a directory"
    code = (
        "import os, sys\nfrom epollwsgi.errors import ConfigError\nfrom epollwsgi.process.pidfile import PidFile\n"
        "if os.geteuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    PidFile('/epollwsgi-test.pid').claim()\nexcept ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "pidfile = '/epollwsgi-test.pid': Permission denied\n", done.stderr


def test_file_that_is_locked_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever locks it is about to replace it; not for ever, though."""
    path.write_text("0")
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr(pidfile, "CLAIM_TRIES", 3)
        assert refused(path) == "another process keeps it locked"
    PidFile(str(path)).claim()
    assert path.read_text() == OWN
