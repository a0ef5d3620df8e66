"""Logs that cannot be written: every request is answered all the same, and what was lost is counted and reported."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Client, Server, ServerFactory, wait_until

GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"
TARGET = "tests.apps.logged:app"
LOST_LINES = re.compile(r"\] \[WARNING\] ([0-9]+) lines of this log were lost: ([^\n]+)")
LOST_ACCESS = re.compile(r"\] \[WARNING\] ([0-9]+) lines of the access log were lost: ([^\n]+)")


def ask(server: Server, path: bytes, count: int = 1) -> None:
    """Each is answered."""
    status = 500 if path == b"/fail" else 200
    with Client(server.address) as client:
        for _ in range(count):
            assert client.request(GET % path).status == status


def test_full_disk_from_the_start(start_server: ServerFactory) -> None:
    server = start_server(TARGET, "--error-logfile", "/dev/full", "--access-logfile", "/dev/full", "-w", "2")
    ask(server, b"/", 200)
    ask(server, b"/fail", 50)
    server.send_signal(signal.SIGUSR1)
    ask(server, b"/", 50)
    assert server.stop() == 0


def test_full_disk_for_a_while(start_server: ServerFactory, tmp_path: Path) -> None:
    """A limit of the file size stands in for a disk that is full; truncating the file makes room again."""
    path, access = tmp_path / "errors", tmp_path / "access"
    server = start_server(TARGET, "--error-logfile", str(path), "--access-logfile", str(access))
    resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (20000, 20000))
    ask(server, b"/fail", 100)
    assert path.stat().st_size == 20000, "it is full"
    os.truncate(path, 0)
    ask(server, b"/fail", 2)  # with the first comes the rest of a line that was written in part
    [(lost, reason)] = LOST_LINES.findall(path.read_text())
    assert int(lost) >= 50
    assert reason == "File too large"
    ask(server, b"/" + b"x" * 1000, 100)
    wait_until(lambda: access.stat().st_size == 20000, 15, "the access log to be full")

    def reported() -> list[tuple[str, str]]:
        os.truncate(access, 0)
        ask(server, b"/")
        return LOST_ACCESS.findall(path.read_text())

    (lost, reason), *_ = wait_until(reported, 15, "the report")
    assert reason == "File too large"
    assert int(lost) >= 50
    assert server.stop() == 0


@pytest.mark.parametrize("how", ["full", "closed"])
def test_a_pipe_whose_reader(start_server: ServerFactory, tmp_path: Path, how: str) -> None:
    paths = {name: tmp_path / name for name in ("errors", "access")}
    readers = {}
    for name, path in paths.items():
        os.mkfifo(path)
        readers[name] = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        server = start_server(TARGET, "--error-logfile", str(paths["errors"]), "--access-logfile", str(paths["access"]))
        if how == "closed":
            os.close(readers.pop("errors"))
            os.close(readers.pop("access"))
        ask(server, b"/" + b"x" * 1000, 300)
        ask(server, b"/fail", 300)
        for name, path in paths.items():
            readers.setdefault(name, os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        text = {"errors": "", "access": ""}

        def reported() -> bool:
            ask(server, b"/fail")
            for name, fd in readers.items():
                text[name] += read_what_is_there(fd)
            return bool(LOST_LINES.search(text["errors"]) and LOST_ACCESS.search(text["errors"]))

        wait_until(reported, 20, "both reports")
        reason = "Broken pipe" if how == "closed" else "Resource temporarily unavailable"
        assert LOST_LINES.search(text["errors"])[2] == reason  # type: ignore[index]
        # Access lines are written later, perhaps when there is a reader again and more of them than a pipe holds.
        reasons = {match[2] for match in LOST_ACCESS.finditer(text["errors"])}
        assert reasons <= {reason, "Resource temporarily unavailable"}
        lines = text["access"].splitlines()
        assert all(re.fullmatch(r'127\.0\.0\.1 - - .* "-"', line) for line in lines[:-1]), "a line was torn"
        assert server.stop() == 0
    finally:
        for fd in readers.values():
            os.close(fd)


def read_what_is_there(fd: int) -> str:
    data = b""
    try:
        while piece := os.read(fd, 1 << 16):
            data += piece
    except BlockingIOError:
        pass
    return data.decode()


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove_directory(path: Path) -> None:
    path.unlink()
    (path.parent / "access").unlink()
    path.parent.rmdir()


REPLACED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe without reader": (replace_by_fifo, "No such device or address"),
    "a directory": (replace_by_directory, "Is a directory"),
    "nothing in no directory": (remove_directory, "No such file or directory"),
}


@pytest.mark.parametrize(("replace", "reason"), REPLACED.values(), ids=REPLACED)
def test_a_log_that_cannot_be_opened_again_goes_on_in_the_old_file(
    start_server: ServerFactory, tmp_path: Path, replace: Callable[[Path], None], reason: str
) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "errors"
    server = start_server(TARGET, "--error-logfile", str(path), "--access-logfile", str(directory / "access"))
    with open(path, encoding="utf-8") as old:  # it stays readable so whatever becomes of its name
        replace(path)
        server.send_signal(signal.SIGUSR1)
        text = ""

        def said() -> bool:
            nonlocal text
            text += old.read()
            return text.count(f"errorlog cannot be opened again: {reason}") >= 2

        wait_until(said, 15, "master and worker to say so")
        ask(server, b"/fail")
        text += old.read()
        assert "the application failed" in text
    assert server.stop() == 0


def test_a_file_that_has_vanished_comes_back_with_the_signal(start_server: ServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "errors"
    server = start_server(TARGET, "--error-logfile", str(path))
    path.unlink()
    ask(server, b"/fail")
    assert not path.exists()
    server.send_signal(signal.SIGUSR1)

    def is_back() -> bool:
        ask(server, b"/fail")
        return path.exists() and "the application failed" in path.read_text()

    wait_until(is_back, 15, "the file")
    assert server.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_worker_that_may_not_open_it_goes_on_in_the_old_file(start_server: ServerFactory) -> None:
    directory = start_server.directory / "logs"
    directory.mkdir(mode=0o700)
    path = directory / "errors"
    options = ["--preload", "--error-logfile", str(path), "-u", "65534", "-g", "65534"]
    server = start_server(TARGET, *options)
    path.rename(directory / "old")
    server.send_signal(signal.SIGUSR1)
    wait_until(
        lambda: "errorlog cannot be opened again: Permission denied" in (directory / "old").read_text(), 15, "its words"
    )
    ask(server, b"/fail")
    assert "the application failed" in (directory / "old").read_text()
    assert server.stop() == 0
    assert "stopping" in path.read_text(), "the master has the new one"


FAILING_LOOP = """
def fail(*stack):
    if len(stack) < 200:
        fail(*stack, 1)
    raise ValueError("x" * 100_000)

def app(environ, start_response):
    environ["epollwsgi.client_gone"].__self__.loop.call_soon(lambda: fail())
    start_response("200 OK", [])
    return [b"ok"]
"""


def test_a_fault_of_the_loop_is_logged_with_its_traceback_which_is_short(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(FAILING_LOOP)
    server = start_server("shop:app", cwd=tmp_path)
    ask(server, b"/", 2)
    server.wait_for_log("ValueError")
    assert server.stop() == 0
    lines = server.stderr_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.endswith("a turn of the loop failed: ValueError"))
    end = next(number for number, line in enumerate(lines) if line.startswith("ValueError"))
    assert re.fullmatch(r"ValueError: x{1000,1100}\.\.\.", lines[end])
    assert 3 < end - start < 100
    assert 'raise ValueError("x" * 100_000)' in lines[end - 1]
    assert len(server.stderr_text()) < 30_000


def test_a_fifo_without_reader_is_a_mistake_at_the_start(start_server: ServerFactory, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for option, name in (("--error-logfile", "errorlog"), ("--access-logfile", "accesslog")):
        server = start_server(TARGET, option, str(tmp_path / "fifo"), wait=False)
        assert server.process.wait(20) == 1
        [line] = server.stderr_text().splitlines()
        assert line.endswith(f"{name} = '{tmp_path}/fifo': No such device or address")
