"""When a live server writes its access log: seldom under load, soon when it idles, and always before it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from epollwsgi.logs.entry import PENDING_COUNT
from tests.apps import access
from tests.support import Client, Server, ServerFactory, clean_environment, wait_until

PLAIN = b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n"
COUNT = 1500


def start_logged(start: ServerFactory, directory: Path, *options: str) -> tuple[Server, Path]:
    path = directory / "access"
    path.touch()
    server = start(
        "tests.apps.access:app", "--access-logfile", str(path), "--access-logformat", "%(s)s %(b)s %(U)s", *options
    )
    return server, path


def count_writes(pid: int) -> int:
    """System calls of a process that write to something else than a socket. proc(5)"""
    return int(re.search(r"syscw: (\d+)", Path(f"/proc/{pid}/io").read_text())[1])  # type: ignore[index]


def test_far_fewer_writes_than_requests(start_server: ServerFactory, tmp_path: Path) -> None:
    server, path = start_logged(start_server, tmp_path)
    with Client(server.address) as client:
        client.request(PLAIN)
        before = count_writes(server.worker_pid)
        for _ in range(COUNT):
            client.request(PLAIN)
        written = count_writes(server.worker_pid) - before
    assert written < COUNT / 10
    wait_until(lambda: path.read_text().count("\n") == COUNT + 1, what="all lines")
    assert count_writes(server.worker_pid) > before, "what is counted here counts nothing"


def test_lines_do_not_wait_for_the_load_to_end(start_server: ServerFactory, tmp_path: Path) -> None:
    """A request every few milliseconds: the loop never idles for long, and too few lines wait for that alone."""
    server, path = start_logged(start_server, tmp_path)
    with Client(server.address) as client:
        for _ in range(PENDING_COUNT - 100):
            client.request(PLAIN)
            if path.stat().st_size:
                break
            time.sleep(0.01)
        else:
            pytest.fail("nothing was written for seconds")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_every_line_is_written_before_the_end(start_server: ServerFactory, tmp_path: Path, number: int) -> None:
    server, path = start_logged(start_server, tmp_path)
    with Client(server.address) as client:
        for _ in range(30):
            client.request(PLAIN)
    assert server.stop(number) == 0
    assert path.read_text() == "200 5 /plain\n" * 30


def test_response_that_is_cut_by_the_end_has_its_line(start_server: ServerFactory, tmp_path: Path) -> None:
    """INT ends a response that a slow client has not taken: the line says how much was sent."""
    server, path = start_logged(start_server, tmp_path)
    with Client(server.address, receive_buffer_size=4096) as client:
        client.send(PLAIN.replace(b"plain", b"big"))
        assert client.receive(1000)
        assert server.stop(signal.SIGINT) == 0
    found = re.fullmatch(r"200 (\d+) /big\n", path.read_text())
    assert found is not None, path.read_text()
    assert int(found[1]) < access.BIG


def test_lines_are_written_though_the_main_thread_is_stuck(start_server: ServerFactory, tmp_path: Path) -> None:
    server, path = start_logged(start_server, tmp_path, "--threads", "1")
    gate = tmp_path / "never"
    with Client(server.address) as stuck:
        stuck.send(f"GET /held?{gate} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        wait_until(Path(f"{gate}.begun").exists, what="the call")
        with Client(server.address) as client:  # what needs no application is answered meanwhile
            client.request(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n" * 20)
            for _ in range(19):
                client.read_response()
        assert server.stop(signal.SIGINT) == 0
    assert path.read_text() == "204 0 *\n" * 20


def test_reopening_writes_first_what_was_noted(start_server: ServerFactory, tmp_path: Path) -> None:
    server, path = start_logged(start_server, tmp_path)
    moved = tmp_path / "moved"
    with Client(server.address) as client:
        for _ in range(20):
            client.request(PLAIN)
        path.rename(moved)
        server.send_signal(signal.SIGUSR1)
        wait_until(path.exists, what="a new file")
        for _ in range(10):
            client.request(PLAIN)
        wait_until(lambda: moved.read_text().count("\n") + path.read_text().count("\n") == 30, what="30 lines")
    assert moved.read_text().count("\n") >= 20


# --- durations and sizes --------------------------------------------------------------------------------------------

HELD_S = 0.3
THREADS = [(), ("--dispatch", "pool"), ("--threads", "1")]


def start_timed(start: ServerFactory, directory: Path, *options: str) -> tuple[Server, Path]:
    path = directory / "access"
    path.touch()
    logging = ("--access-logfile", str(path), "--access-logformat", "%(D)s %(m)s %(b)s")
    return start("tests.apps.access:app", *logging, *options), path


def read_timed(path: Path, count: int) -> list[tuple[int, str, int]]:
    """Duration in microseconds, method and size of each line, once so many are there."""
    wait_until(lambda: path.read_text().count("\n") >= count, what=f"{count} lines")
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(int(took), method, int(size)) for took, method, size in lines]


@pytest.mark.parametrize("options", THREADS, ids=["taken over", "handed off", "one thread"])
def test_duration_of_a_long_call(start_server: ServerFactory, tmp_path: Path, options: tuple[str, ...]) -> None:
    """It counts from the request, whatever else the loop has done meanwhile; so it does in the queue."""
    server, path = start_timed(start_server, tmp_path, *options)
    gate = tmp_path / "gate"
    with Client(server.address) as client, Client(server.address) as other:
        client.send(f"GET /held?{gate} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        wait_until(Path(f"{gate}.begun").exists, what="the call")
        end_at = time.monotonic() + HELD_S
        while time.monotonic() < end_at:
            other.request(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
            time.sleep(0.01)
        gate.touch()
        client.read_response()
        wait_until(lambda: "GET" in path.read_text(), what="the line of the call")
    took = [took for took, method, _ in read_timed(path, 1) if method == "GET"]
    assert took[0] >= HELD_S * 1e6


def test_duration_holds_the_head_and_the_body(start_server: ServerFactory, tmp_path: Path) -> None:
    server, path = start_timed(start_server, tmp_path)
    for pieces in ((b"PUT /body HT", b"TP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
                   (b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab", b"cd")):  # fmt: skip
        with Client(server.address) as client:
            client.request(PLAIN)
            client.send(pieces[0])
            time.sleep(HELD_S)
            client.send(pieces[1])
            client.read_response("POST")
            client.request(PLAIN)
    found = read_timed(path, 6)
    assert [method for _, method, _ in found] == ["GET", "PUT", "GET", "GET", "POST", "GET"]
    slow = [took for took, method, _ in found if method != "GET"]
    assert min(slow) >= HELD_S * 1e6 * 0.9, "from its first piece, which the server reads a little later"


def test_size_of_a_file_that_changes(start_server: ServerFactory, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    file = tmp_path / "site" / "f.txt"
    file.write_text("short")
    server, path = start_timed(start_server, tmp_path, "--static", f"/f={tmp_path}/site")
    request = b"GET /f/f.txt HTTP/1.1\r\nHost: h\r\n\r\n"
    sizes: list[int] = []
    with Client(server.address) as client:
        sizes += [len(client.request(request).body) for _ in range(5)]
        file.write_text("and now it is long")
        while sizes[-1] == sizes[0] and len(sizes) < 5000:
            sizes.append(len(client.request(request).body))
            time.sleep(0.002)
        sizes += [len(client.request(request).body) for _ in range(5)]
    assert sizes[-1] == 18
    assert [size for _, _, size in read_timed(path, len(sizes))] == sizes


# --- what the settings choose ---------------------------------------------------------------------------------------


def run(directory: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "epollwsgi", "-b", "127.0.0.1:0", *options, "tests.apps.access:app"],
        cwd=directory,
        env=clean_environment(variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("check", [(), ("--check-config",)], ids=["start", "check"])
@pytest.mark.parametrize("text", ["%(hh)s", "jsno", "100% %(h)s"])
def test_mistake_in_a_format_ends_the_start(tmp_path: Path, text: str, check: tuple[str, ...]) -> None:
    done = run(tmp_path, "--access-logformat", text, *check)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"epollwsgi: command line: access_log_format = {text!r}: ")
    assert "Traceback" not in line
    done = run(tmp_path, *check, EPOLLWSGI_ACCESS_LOG_FORMAT=text)
    assert done.returncode == 1
    assert "environment EPOLLWSGI_ACCESS_LOG_FORMAT: access_log_format = " in done.stderr


def test_settings_file_of_gunicorn_with_a_format_of_several_lines(start_server: ServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "access"
    settings = tmp_path / "gunicorn.conf.py"
    settings.write_text(
        f"accesslog = {str(path)!r}\n"
        'access_log_format = \'{"path": "%(U)s", "size": %(B)s, "took": %(L)s}\'\n'
        "access_log_exclude = ['/none']\n"
    )
    server = start_server("tests.apps.access:app", "-c", str(settings))
    with Client(server.address) as client:
        client.request(PLAIN.replace(b"plain", b"none"))
        client.request(PLAIN)
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), what="a line")
    found = json.loads(path.read_text())
    assert (found["path"], found["size"]) == ("/plain", 5)
    assert found["took"] >= 0


def test_words_for_a_file_have_no_colours(start_server: ServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "access"
    server = start_server(
        "tests.apps.access:app", "--access-logfile", str(path), "--access-logformat", "dev", env={"TZ": "UTC"}
    )
    with Client(server.address) as client:
        client.request(PLAIN)
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), what="a line")
    assert re.fullmatch(r"\d\d:\d\d:\d\d 200 GET /plain 5 B, \d+\.\d ms\n", path.read_text())
    assert os.path.getsize(path) > 0


def test_standard_output_gets_combined_lines_where_it_is_asked_for(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.access:app", "--access-logfile", "-")
    with Client(server.address) as client:
        client.request(PLAIN)
    wait_until(lambda: server.stdout_text().endswith("\n"), what="a line")
    assert re.fullmatch(r'127\.0\.0\.1 - - \[[^]]+\] "GET /plain HTTP/1\.1" 200 5 "-" "-"\n', server.stdout_text())
