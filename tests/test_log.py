"""The logs: what a line looks like, that clients cannot forge or flood it, and that writing never harms anybody."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from epollwsgi.config.settings import Settings
from epollwsgi.errors import ConfigError
from epollwsgi.logs.error_log import (
    KINDS_COUNT,
    LIMIT_PER_SECOND,
    ErrorLog,
)
from epollwsgi.logs.opening import open_logs
from epollwsgi.logs.sink import Sink

LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[(\d+)\] \[([A-Z]+)\] (.*)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def descriptors() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def open_sink(path: Path, stack: contextlib.ExitStack) -> Sink:
    sink = Sink(str(path), 2)
    stack.callback(os.close, sink.fd)
    return sink


def make_pipe(stack: contextlib.ExitStack) -> tuple[int, Sink]:
    """A pipe as a standard descriptor would be: blocking; and a sink that writes to it."""
    reader, writer = os.pipe()
    stack.callback(os.close, writer)
    sink = Sink("-", writer)
    stack.callback(os.close, sink.fd)
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK, "the description that others share was changed"
    return reader, sink


def read_all(reader: int) -> bytes:
    """What a pipe holds now."""
    os.set_blocking(reader, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(reader, 1 << 16):
            data += piece
    return data


# --- error log ------------------------------------------------------------------------------------------------------


def test_line_has_time_pid_level_and_message(path: Path, descriptors: contextlib.ExitStack) -> None:
    log = ErrorLog(open_sink(path, descriptors), "debug")
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)(f"message of {level}")
    found = [LINE.fullmatch(line) for line in path.read_text().splitlines()]
    assert [match and match.groups() for match in found] == [
        (str(os.getpid()), level.upper(), f"message of {level}") for level in ("debug", "info", "warning", "error")
    ]


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1), ("critical", 0)])
def test_level_holds_back_what_is_below(path: Path, descriptors: contextlib.ExitStack, level: str, count: int) -> None:
    log = ErrorLog(open_sink(path, descriptors), level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("x")
        log.limited(f"kind {name}", "x", name)
        assert log.is_on(name) == (("debug", "info", "warning", "error").index(name) >= 4 - count)
    assert len(path.read_text().splitlines()) == 2 * count


def test_message_stays_on_one_line(path: Path, descriptors: contextlib.ExitStack) -> None:
    log = ErrorLog(open_sink(path, descriptors))
    log.info("a\r\n[2026-01-01] forged \x1b[31m\x85 é")
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("a\\x0d\\x0a[2026-01-01] forged \\x1b[31m\\x85 é")


def test_exception_adds_the_whole_traceback(path: Path, descriptors: contextlib.ExitStack) -> None:
    log = ErrorLog(open_sink(path, descriptors))
    try:
        raise ValueError("why \x1b[0m\udcff")
    except ValueError:
        log.exception("it failed")
    lines = path.read_text("utf-8").splitlines()
    assert lines[0].endswith("[ERROR] it failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: why \\x1b[0m\\udcff"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_clients_cannot_flood_the_log(path: Path, descriptors: contextlib.ExitStack) -> None:
    clock = Clock()
    log = ErrorLog(open_sink(path, descriptors), clock=clock)
    for number in range(1000):
        log.limited("refused", f"refused {number}")
        log.limited("other", "other") if number < 3 else None
    assert len(path.read_text().splitlines()) == LIMIT_PER_SECOND + 3
    clock.now += 1
    log.limited("refused", "again")
    lines = [line.partition("] [INFO] ")[2] for line in path.read_text().splitlines()]
    assert lines[-2:] == [f"refused: {1000 - LIMIT_PER_SECOND} more of these lines were not logged", "again"]
    for _ in range(10):
        log.limited("refused", "more")
    clock.now += 1
    log.on_tick()
    assert path.read_text().splitlines()[-1].endswith("refused: 6 more of these lines were not logged")
    count = len(path.read_text().splitlines())
    log.on_tick()
    log.report_held_back()
    assert len(path.read_text().splitlines()) == count


def test_what_was_held_back_is_reported_at_the_end(path: Path, descriptors: contextlib.ExitStack) -> None:
    log = ErrorLog(open_sink(path, descriptors), clock=Clock())
    for _ in range(7):
        log.limited("kind", "x")
    log.report_held_back()
    assert path.read_text().splitlines()[-1].endswith("kind: 2 more of these lines were not logged")


def test_kinds_are_bounded(path: Path, descriptors: contextlib.ExitStack) -> None:
    log = ErrorLog(open_sink(path, descriptors), clock=Clock())
    for number in range(10 * KINDS_COUNT):
        log.limited(f"kind {number}", "x")
        assert len(log._kinds) <= KINDS_COUNT


def test_stream_is_a_text_file(path: Path, descriptors: contextlib.ExitStack) -> None:
    stream = ErrorLog(open_sink(path, descriptors)).stream
    assert isinstance(stream, io.TextIOBase)
    print("printed", 1, file=stream)
    stream.writelines(["a\n", "b\udcff\n"])
    stream.flush()
    stream.close()
    assert stream.write("after close\n") == 12
    assert not stream.closed
    assert path.read_text("utf-8") == "printed 1\na\nb\\udcff\nafter close\n"


# --- writing that fails or would block ------------------------------------------------------------------------------


def test_full_pipe_loses_whole_lines_and_says_how_many(descriptors: contextlib.ExitStack) -> None:
    reader, sink = make_pipe(descriptors)
    descriptors.callback(os.close, reader)
    log = ErrorLog(sink)
    done = threading.Event()

    def fill() -> None:
        for number in range(5000):
            log.info(f"line {number} " + "x" * 100)
        done.set()

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    assert done.wait(20), "writing to a full pipe waits"
    written = read_all(reader)
    log.info("works again")
    log.info("and again")
    written += read_all(reader)
    lines = written.decode().splitlines()
    assert all(LINE.fullmatch(line) for line in lines), "a line was torn"
    numbers = [int(match[1]) for line in lines if (match := re.search(r"\] line (\d+) x{100}$", line))]
    assert numbers == list(range(len(numbers)))
    reports = [
        int(match[1]) for line in lines if (match := re.search(r"\[WARNING\] (\d+) lines of this log were", line))
    ]
    assert sum(reports) == 5000 - len(numbers)
    assert 1 <= len(reports) <= 3, "a short report may still fit where a line did not"
    assert lines[-1].endswith("and again")


def test_pipe_that_cannot_be_opened_anew_is_asked_before_each_write(descriptors: contextlib.ExitStack) -> None:
    """As under another user's terminal or without /proc: the description blocks, and stays as it is."""
    reader, writer = os.pipe()
    descriptors.callback(os.close, reader)
    descriptors.callback(os.close, writer)
    sink = Sink("-", writer)
    os.close(sink.fd)
    sink.fd, sink.may_block = writer, True
    done = threading.Event()

    def fill() -> None:
        for _ in range(300):
            sink.write(b"z" * 9999 + b"\n")
        done.set()

    threading.Thread(target=fill, daemon=True).start()
    assert done.wait(20), "writing to a full pipe waits"
    assert sink.lost_count > 0
    text = read_all(reader)
    os.set_blocking(writer, True)
    assert sink.write(b"next\n")
    text += read_all(reader)
    lines = text.split(b"\n")
    assert set(lines[:-2]) == {b"z" * 9999}
    assert lines[-2:] == [b"next", b""]
    assert len(lines) - 2 + sink.lost_count == 300


def test_closed_pipe_and_closed_descriptor_harm_nobody(descriptors: contextlib.ExitStack) -> None:
    reader, sink = make_pipe(descriptors)
    os.close(reader)
    log = ErrorLog(sink)
    log.info("nobody reads")
    log.stream.write("nor this\n")
    assert sink.lost_count == 2
    assert sink.lost_reason == "Broken pipe"
    fd = os.open("/dev/null", os.O_WRONLY)
    os.close(fd)
    closed = Sink("-", fd)
    assert not closed.write(b"x\n")
    assert closed.lost_reason == "Bad file descriptor"


def test_full_disk_loses_lines() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is missing")
    sink = Sink("/dev/full", 2)
    try:
        log = ErrorLog(sink)
        log.error("x")
        assert sink.lost_count == 1
        assert sink.lost_reason == "No space left on device"
    finally:
        os.close(sink.fd)


def test_socket_as_standard_error(descriptors: contextlib.ExitStack) -> None:
    near, far = socket.socketpair()
    with near, far:
        sink = Sink("-", near.fileno())
        log = ErrorLog(sink)
        log.info("over a socket")
        assert far.recv(1000).endswith(b"over a socket\n")
        for _ in range(5000):
            log.info("x" * 200)
        assert sink.lost_count > 0
        assert near.getblocking()


def test_long_write_in_parts_keeps_lines_whole(descriptors: contextlib.ExitStack) -> None:
    reader, sink = make_pipe(descriptors)
    descriptors.callback(os.close, reader)
    size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
    line = b"y" * 999 + b"\n"
    count = size // 1000 + 50
    assert not sink.write(line * count)
    first = read_all(reader)
    assert sink.write(b"next\n")
    rest = read_all(reader)
    whole = (first + rest).split(b"\n")
    assert set(whole[:-2]) == {line[:-1]}
    assert whole[-2:] == [b"next", b""]
    assert len(whole) - 2 + sink.lost_count == count


# --- opening --------------------------------------------------------------------------------------------------------


def test_logs_as_the_settings_have_them(tmp_path: Path) -> None:
    errors, access = open_logs(Settings(errorlog=str(tmp_path / "e"), accesslog=str(tmp_path / "a"), loglevel="error"))
    assert access is not None
    errors.info("no")
    errors.error("yes")
    assert (tmp_path / "e").read_text().endswith("yes\n")
    assert access.fd >= 0
    for log in (errors, access):
        log.close()
    for off in ("none", ""):
        errors, access = open_logs(Settings(errorlog=str(tmp_path / "e"), accesslog=off))
        assert access is None
        os.close(errors._sink.fd)


@pytest.mark.parametrize("name", ["errorlog", "accesslog"])
def test_log_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    values = {"errorlog": str(tmp_path / "e"), "accesslog": "none", name: str(tmp_path / "missing" / "x")}
    with pytest.raises(ConfigError, match=f"^{name} = '.*missing/x': No such file or directory$"):
        open_logs(Settings(**values))  # type: ignore[arg-type]


def test_lines_of_many_threads_stay_whole_and_are_counted(descriptors: contextlib.ExitStack) -> None:
    """Into a small pipe that is read slowly, so that most are lost."""
    reader, sink = make_pipe(descriptors)
    fcntl.fcntl(sink.fd, fcntl.F_SETPIPE_SZ, 4096)
    log = ErrorLog(sink)
    received = bytearray()
    is_over = threading.Event()

    def read() -> None:
        while not is_over.wait(0.0002):
            received.extend(os.read(reader, 700))

    def say(number: int) -> None:
        for count in range(count_each):
            log.warning(f"thread {number} says {'x' * (100 + (count * 37 + number * 11) % 900)} to its end")

    count_each, most = 400, 6
    threads = [threading.Thread(target=say, args=(number,)) for number in range(most)]
    reading = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in (reading, *threads):
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
        is_over.set()
        log.warning("something to read")
        reading.join(20)
    received += read_all(reader)
    log.warning("the rest of a line")
    received += read_all(reader)
    log.warning("the end")
    received += read_all(reader)
    lines = [LINE.fullmatch(line) for line in received.decode().splitlines()]
    texts = [line[3] for line in lines if line is not None]
    assert None not in lines
    said = sum(bool(re.fullmatch("thread [0-5] says x+ to its end", text)) for text in texts)
    lost = sum(int(text.split()[0]) for text in texts if "lines of this log were lost" in text)
    others = sum(text in ("something to read", "the rest of a line", "the end") for text in texts)
    assert said + lost + others == count_each * most + 3
    assert lost


def test_a_child_does_not_wait_for_threads_that_it_does_not_have(path: Path, descriptors: contextlib.ExitStack) -> None:
    """One was writing as the process was forked; the first line waits a moment for it, the others do not."""
    log = ErrorLog(open_sink(path, descriptors))
    turn = log._sink.turn
    has_begun, may_end = threading.Event(), threading.Event()

    def write() -> None:
        with turn:
            has_begun.set()
            may_end.wait(20)

    thread = threading.Thread(target=write)
    thread.start()
    assert has_begun.wait(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks beside threads: Python 3.12
        pid = os.fork()
    if not pid:
        log.info("a line")
        os._exit(not turn._lock.acquire(blocking=False))
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        may_end.set()
        thread.join(20)
    assert path.read_text().endswith("a line\n")
    with turn:
        pass
