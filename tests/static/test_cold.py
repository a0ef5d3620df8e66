"""Files whose pages are not in memory: probed, read ahead by a thread, and not waited for by the loop. STATIC.md 6."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epollwsgi import pagecache
from epollwsgi.helper import MAX_WAITING, Helper, run_here
from epollwsgi.outbox import Outbox, Sent, SpoolRules, send_at_once
from epollwsgi.pagecache import PART_SIZE, AlwaysWarm, is_resident, is_warm, note_warm, read_now, read_part
from epollwsgi.spool import Quota
from epollwsgi.static.beneath import OpenFile
from tests.connections import Client
from tests.static.support import Ticking, content_of, write
from tests.support import ServerFactory, wait_until

LONG = bytes(number * 7 % 251 for number in range(3 * PART_SIZE + 1000))


def make_cold(path: Path) -> None:
    """Drop the pages of a file from memory."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@pytest.fixture
def cold(tmp_path: Path) -> Path:
    """A file that is not in memory; skips where the file system has nowhere else to keep one."""
    probe = write(tmp_path / "probe.bin", LONG)
    make_cold(probe)
    with open(probe, "rb") as file:  # a probe makes the kernel read ahead: of another file than the one to be probed
        if is_resident(file.fileno(), 0, PART_SIZE):
            pytest.skip("the pages of this file system cannot be dropped")
    path = write(tmp_path / "cold.bin", LONG)
    make_cold(path)
    return path


@pytest.fixture
def opened(cold: Path) -> OpenFile:
    return OpenFile(os.open(cold, os.O_RDONLY))


# --- probing and reading --------------------------------------------------------------------------------------------


def test_what_is_read_is_in_memory(opened: OpenFile) -> None:
    assert not is_resident(opened.fd, 0, PART_SIZE)
    assert read_now(opened, 2 * PART_SIZE, 100) is None
    read_part(opened.fd, 2 * PART_SIZE, PART_SIZE)
    assert is_resident(opened.fd, 2 * PART_SIZE, PART_SIZE)
    assert read_now(opened, 2 * PART_SIZE, 100) == LONG[2 * PART_SIZE :][:100]
    assert not is_resident(opened.fd, 0, PART_SIZE)


def test_beyond_the_end(opened: OpenFile) -> None:
    read_part(opened.fd, len(LONG) - 10, PART_SIZE)
    assert read_now(opened, len(LONG) - 10, 10) == LONG[-10:]
    assert read_now(opened, len(LONG) - 10, 11) is None
    read_part(-1, 0, 10)  # errors show when it is sent


def test_a_part_is_believed_for_a_while(cold: Path, opened: OpenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    note_warm(opened, 0, 1000)
    assert is_warm(opened, 0, 1000)
    assert not is_warm(opened, 2 * PART_SIZE, 1000)
    now = time.monotonic() + pagecache.TRUST_S + 1
    monkeypatch.setattr(pagecache, "monotonic", lambda: now)
    make_cold(cold)
    assert not is_warm(opened, 0, 1000)
    assert opened.warm is not None
    for number in range(1000):
        note_warm(opened, number, 1)
    assert len(opened.warm) <= pagecache.MAX_PARTS
    opened.warm = AlwaysWarm()
    assert is_warm(opened, 5, 5)


# --- the outbox -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    with one, other:
        yield one, other


def outbox() -> Outbox:
    return Outbox(SpoolRules(1 << 20, 1 << 20, "", Quota(1 << 20)))


def drain(box: Outbox, pair: tuple[socket.socket, socket.socket], run: Any) -> bytes:
    """Send and receive until all is there."""
    received = b""
    calls = []
    for _ in range(100_000):
        result = box.send(pair[0])
        if result is Sent.COLD:
            box.read_ahead(run, lambda: calls.append(1))
        try:
            while piece := pair[1].recv(1 << 20):
                received += piece
        except BlockingIOError:
            pass
        if result is Sent.ALL:
            assert not box
            return received
    raise AssertionError("it never came to an end")


def test_a_cold_file_is_read_part_by_part(opened: OpenFile, pair: tuple[socket.socket, socket.socket]) -> None:
    box = outbox()
    box.append(b"head")
    box.attach(opened, 0, len(LONG))
    assert box.size == len(LONG) + 4
    jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
    asked: list[int] = []

    def run(work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        jobs.append((work, done))
        return True

    assert box.send(pair[0]) is Sent.COLD
    box.read_ahead(run, lambda: asked.append(box.size))
    assert box.is_reading
    assert box.send(pair[0]) is Sent.BLOCKED  # nothing until it is read
    ((work, done),) = jobs
    work()
    assert box.is_reading
    done(None)
    assert asked == [len(LONG)]
    assert drain(box, pair, run_here) == b"head" + LONG


def test_parts_of_a_file(opened: OpenFile, pair: tuple[socket.socket, socket.socket]) -> None:
    box = outbox()
    box.append(b"head")
    parts = [
        (b"<a>", 10, 5),
        (b"<b>", 2 * PART_SIZE - 3, PART_SIZE),
        (b"<none>", 0, 0),
        (b"<c>", 0, 1),
        (b"<end>", 0, 0),
    ]
    size = sum(len(head) + count for head, _, count in parts)
    box.attach(opened, 0, size, parts)
    assert box.size == size + 4
    expected = b"".join(head + LONG[offset : offset + count] for head, offset, count in parts)
    assert drain(box, pair, run_here) == b"head" + expected


def test_without_a_thread_the_loop_reads_itself(opened: OpenFile, pair: tuple[socket.socket, socket.socket]) -> None:
    box = outbox()
    box.attach(opened, 0, len(LONG))
    assert drain(box, pair, lambda work, done: False) == LONG


def test_at_once(opened: OpenFile, pair: tuple[socket.socket, socket.socket]) -> None:
    assert send_at_once(pair[0], b"head", opened, 0, 100) == (b"", 0)  # cold
    read_part(opened.fd, 0, 100)
    assert send_at_once(pair[0], b"head", opened, 0, 100) == (b"", 100)
    assert pair[1].recv(1000) == b"headhead" + LONG[:100]
    while True:
        try:
            pair[0].send(b"x" * 100_000)
        except BlockingIOError:
            break
    assert send_at_once(pair[0], b"head", opened, 0, 100) == (b"head", 0)


# --- the helper -----------------------------------------------------------------------------------------------------


def test_jobs_are_done_in_order_on_one_thread() -> None:
    calls: list[Callable[[], None]] = []
    log: list[str] = []
    helper = Helper("test-helper", calls.append, log.append)
    names: list[str] = []
    results: list[int] = []

    def work(number: int) -> int:
        names.append(threading.current_thread().name)
        if number == 3:
            raise ValueError("as if")
        return number

    for number in range(6):
        assert helper.run(lambda number=number: work(number), results.append)  # type: ignore[misc]
    wait_until(lambda: len(calls) == 5, 10, "the jobs")
    assert results == []  # they come back through the loop
    for call in calls:
        call()
    assert results == [0, 1, 2, 4, 5]
    assert set(names) == {"test-helper"}
    assert len(log) == 1
    assert "as if" in log[0]


def test_too_many_jobs_are_refused() -> None:
    helper = Helper("test-full", lambda call: None, print)
    go = threading.Event()
    accepted = sum(helper.run(lambda: go.wait(30), lambda _: None) for _ in range(MAX_WAITING + 10))
    go.set()
    assert MAX_WAITING <= accepted <= MAX_WAITING + 1


# --- a live server --------------------------------------------------------------------------------------------------


def test_a_cold_file_arrives_whole(server: ServerFactory, cold: Path) -> None:
    running = server(str(cold.parent))
    with Client(running.address) as client:
        assert client.request(b"GET /cold.bin HTTP/1.1\r\nHost: a\r\n\r\n").body == LONG
        make_cold(cold)
        part = client.request(b"GET /cold.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=2000000-2000009\r\n\r\n")
        assert (part.status, part.body) == (206, LONG[2_000_000:2_000_010])
        make_cold(cold)
        several = client.request(
            b"GET /cold.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-99,1000000-1000099,-1500000\r\n\r\n"
        )
        assert several.status == 206
        for piece in (LONG[:100], LONG[1_000_000:1_000_100], LONG[-1_500_000:]):
            assert piece in several.body
    assert "Traceback" not in running.stderr_text()


def test_clients_that_leave_while_a_file_is_read(server: ServerFactory, cold: Path) -> None:
    write(cold.parent / "a.txt", b"a")
    running = server(str(cold.parent))
    for number in range(10):
        make_cold(cold)
        with Client(running.address) as client:
            client.send(b"GET /cold.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            if number % 2:
                client.reset()
    with Client(running.address) as client:
        assert client.request(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").body == b"a"
        assert client.request(b"GET /cold.bin HTTP/1.1\r\nHost: a\r\n\r\n").body == LONG
    assert "Traceback" not in running.stderr_text()


def test_a_sparse_file_of_10_gigabytes(server: ServerFactory, tmp_path: Path) -> None:
    size = 10 << 30
    with open(tmp_path / "sparse.bin", "wb") as file:
        file.truncate(size)
        file.seek(size - 5)
        file.write(b"end..")
        file.seek(6 << 30)
        file.write(b"middle")
    running = server(str(tmp_path))
    with Client(running.address) as client:

        def part(text: str) -> bytes:
            response = client.request(f"GET /sparse.bin HTTP/1.1\r\nHost: a\r\nRange: bytes={text}\r\n\r\n".encode())
            assert response.status == 206
            if "," not in text:
                assert response["Content-Range"].endswith(f"/{size}")
            return response.body

        assert part("-5") == b"end.."
        assert part(f"{size - 10}-") == bytes(5) + b"end.."
        assert part(f"{6 << 30}-{(6 << 30) + 5}") == b"middle"
        assert part(f"-{3 << 20}") == bytes((3 << 20) - 5) + b"end.."
        both = part(f"{6 << 30}-{(6 << 30) + 5},-5")
        assert b"middle" in both
        assert b"end.." in both
        assert f"bytes {size - 5}-{size - 1}/{size}".encode() in both
        head = client.request(b"HEAD /sparse.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        assert head["Content-Length"] == str(size)
    assert running.peak_memory_size() < 100 << 20
    assert "Traceback" not in running.stderr_text()


def test_a_small_part_of_a_large_file_goes_with_its_head(tmp_path: Path) -> None:
    write(tmp_path / "a.bin", LONG)
    site = Ticking(("/", tmp_path))
    reply = site.get("/a.bin", HTTP_RANGE="bytes=1000-1999")
    assert reply.file is None
    assert content_of(reply) == LONG[1000:2000]
    reply = site.get("/a.bin", HTTP_RANGE="bytes=1000-999999")
    assert reply.file is not None
    assert content_of(reply) == LONG[1000:1_000_000]
