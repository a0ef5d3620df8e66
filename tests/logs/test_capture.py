"""capture_output: whatever leaves a process by standard output or error goes into the error log."""

from __future__ import annotations

import os
import re
import signal
import stat
from functools import partial
from pathlib import Path

import pytest

from tests.support import Client, Server, ServerFactory, exchange, wait_until

GET = b"GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
WAYS = (
    "by print",
    "by stderr",
    "by descriptor 1",
    "by descriptor 2",
    "by C code",
    "by a child",
    "by stderr of a child",
    "by wsgi.errors",
)


def say(server: Server) -> None:
    assert exchange(server.address, [GET % b"/say"]).startswith(b"HTTP/1.1 200")


def lines_in(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize("preload", [False, True], ids=["loaded in the worker", "preloaded"])
def test_all_output_is_in_the_log(start_server: ServerFactory, tmp_path: Path, preload: bool) -> None:
    path = tmp_path / "log"
    server = start_server(
        "tests.apps.logged:app",
        *("--capture-output", "--error-logfile", str(path), "--access-logfile", "-"),
        *(["--preload"] if preload else []),
    )
    say(server)
    lines = lines_in(path)
    assert [way for way in WAYS if way not in lines] == [], "after the answer all of it is there"
    assert "printed at import" in lines
    assert server.stop() == 0
    assert "printed" not in server.stdout_text() + server.stderr_text()
    assert "by " not in server.stdout_text()
    assert "epollwsgi " in server.stderr_text(), "the banner is for whoever started it"
    assert '"GET /say HTTP/1.1" 200' in server.stdout_text(), "accesslog = - stays where it was"
    assert "127.0.0.1 - -" not in path.read_text()


def test_an_access_log_at_standard_output_stays_there_when_the_settings_are_read_again(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    options = ("--capture-output", "--error-logfile", str(path), "--access-logfile", "-")
    server = start_server("tests.apps.logged:app", *options)
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: "generation 2 serves" in path.read_text(), 20, "the reload")
    say(server)
    assert server.stop() == 0
    assert '"GET /say HTTP/1.1" 200' in server.stdout_text()
    assert "GET /say" not in path.read_text()


def test_without_it_output_stays_where_it_was(start_server: ServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "log"
    server = start_server("tests.apps.logged:app", "--error-logfile", str(path))
    say(server)
    assert server.stop() == 0
    assert [way for way in WAYS if way in lines_in(path)] == ["by wsgi.errors"]
    said = server.stdout_text() + server.stderr_text()
    assert all(way in said for way in WAYS[:-1])


def test_a_log_at_standard_error_captures_nothing(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.logged:app", "--capture-output")
    say(server)
    assert server.stop() == 0
    assert "by descriptor 1" in server.stdout_text()
    assert "by descriptor 2" in server.stderr_text()


def test_output_follows_the_log_into_its_new_file(start_server: ServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "log"
    server = start_server("tests.apps.logged:app", "--capture-output", "--error-logfile", str(path), "-w", "2")
    say(server)
    path.rename(tmp_path / "old")
    server.send_signal(signal.SIGUSR1)

    def follows() -> bool:
        say(server)
        return path.exists() and all(way in lines_in(path) for way in WAYS)

    wait_until(follows, 20, "output in the new file")
    wait_until(lambda: all(holds(pid, path) for pid in [server.pid, *server.worker_pids]), 20, "all to have moved")
    assert server.stop() == 0
    assert "by " not in server.stdout_text()


def holds(pid: int, path: Path) -> bool:
    """Whether standard output and error of a process are that file."""
    return {os.readlink(f"/proc/{pid}/fd/{number}") for number in (1, 2)} == {str(path)}


def test_a_reload_may_turn_it_on_and_off(start_server: ServerFactory, tmp_path: Path) -> None:
    settings = tmp_path / "epollwsgi.toml"
    path = tmp_path / "log"

    def write(on: bool) -> None:
        settings.write_text(f'errorlog = "{path}"\ncapture_output = {str(on).lower()}\n')

    write(False)
    server = start_server("tests.apps.logged:app", "-c", str(settings))
    first = os.readlink(f"/proc/{server.pid}/fd/1")
    for on, wanted in ((True, str(path)), (False, first), (True, str(path))):
        write(on)
        before = server.worker_pids
        server.send_signal(signal.SIGHUP)
        wait_for_others(server, before)
        for pid in (server.pid, *server.worker_pids):
            wait_until(partial(is_output, pid, wanted), 20, f"{pid} at {wanted}")
    before = server.worker_pids
    server.send_signal(signal.SIGUSR2)
    wait_for_others(server, before)
    for pid in (server.pid, *server.worker_pids):
        wait_until(partial(holds, pid, path), 20, f"the output of {pid}, of the new image")
    write(False)
    server.send_signal(signal.SIGHUP)
    wait_until(partial(is_output, server.pid, first), 20, "the first standard output")
    assert server.stop() == 0


def wait_for_others(server: Server, before: list[int]) -> None:
    """Until none of these workers is left, and there are others."""
    wait_until(lambda: (now := server.worker_pids) and not set(before) & set(now), 30, f"workers other than {before}")


def is_output(pid: int, path: str) -> bool:
    return os.readlink(f"/proc/{pid}/fd/1") == path


def test_daemon(start_server: ServerFactory, tmp_path: Path) -> None:
    path, pid_file = tmp_path / "log", tmp_path / "pid"
    server = start_server(
        "tests.apps.logged:app", "-D", "-p", str(pid_file), "--capture-output", "--error-logfile", str(path)
    )
    assert server.process.wait(20) == 0
    pid = int(pid_file.read_text())
    try:
        say(server)
        assert [way for way in WAYS if way not in lines_in(path)] == []
        assert holds(pid, path)
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20, "the end of the daemon")


def test_the_file_belongs_to_who_writes_it(start_server: ServerFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    directory = start_server.directory
    directory.chmod(0o777)
    path = directory / "log"
    options = ["--preload", "--capture-output", "--error-logfile", str(path), "-u", "65534", "-g", "65534"]
    server = start_server("tests.apps.logged:app", *options)  # preloaded: Python may lie where only root may read
    say(server)
    assert path.stat().st_uid == 65534
    path.rename(directory / "old")
    server.send_signal(signal.SIGUSR1)

    def follows() -> bool:
        say(server)
        return path.exists() and "by print" in lines_in(path)

    wait_until(follows, 20, "output in the new file")
    assert stat.S_ISREG(path.stat().st_mode)
    assert server.stop() == 0
    assert not re.search("Permission denied", (directory / "old").read_text())


def test_a_pipe_as_log_blocks_no_log_line(start_server: ServerFactory, tmp_path: Path) -> None:
    """What is printed waits for its reader, as ever; the log has a description of its own."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        server = start_server("tests.apps.logged:app", "--capture-output", "--error-logfile", str(path))
        say(server)
        text = os.read(reader, 65536).decode()
        assert [way for way in WAYS if way not in text] == []
        with Client(server.address) as client:
            for _ in range(300):  # each writes a traceback: more than the pipe holds
                assert client.request(GET.replace(b"Connection: close\r\n", b"") % b"/fail").status == 500
        os.set_blocking(reader, True)
        os.read(reader, 1 << 20)
        assert server.stop() == 0
    finally:
        os.close(reader)
