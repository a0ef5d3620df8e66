"""The scoreboard: what one process writes the others read, also behind an exec, and its figures are right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator

import pytest

from epollwsgi.scoreboard import HEADER_SIZE, SIZE, SLOTS, Column, Header, Scoreboard, Slot
from tests.support import clean_environment, wait_until

WRITERS_COUNT = 20_000
READS = 20_000


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    made = Scoreboard.create()
    yield made
    made.close()


def start(code: str, *fds: int) -> subprocess.Popen[str]:
    """Another process that runs `code`; `fds` are its descriptors, and its arguments."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import os, sys\nfrom epollwsgi.scoreboard import *\n{code}", *map(str, fds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=fds,
        env=clean_environment(),
        text=True,
    )


def run(code: str, *fds: int) -> str:
    """What such a process prints."""
    process = start(code, *fds)
    try:
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        return output
    finally:
        process.kill()
        process.wait()


def claim(board: Scoreboard, state: Slot, connections: int, *, listens: bool = True) -> int:
    """A slot as a worker would have filled it."""
    slot = board.claim(pid=1)
    mine = board.slot(slot)
    mine.state, mine.connections, mine.listening = state, connections, listens
    mine.beat()
    return slot


# --- one process ----------------------------------------------------------------------------------------------------


def test_new_one_is_empty(board: Scoreboard) -> None:
    assert (board.high, board.rows(), board.is_stopping) == (0, [], False)
    assert (board.mean_connections(), board.ready_count(), board.total(Column.REQUESTS)) == (0.0, 0, 0)
    assert not board.has_lighter(1, 0)


def test_lowest_free_slot(board: Scoreboard) -> None:
    """Slots are used again, lowest first, and nobody looks beyond the highest in use."""
    assert [board.claim(pid) for pid in (10, 11, 12, 13)] == [0, 1, 2, 3]
    assert board.high == 4
    board.release(1)
    board.release(2)
    assert board.high == 4
    assert [row.pid for row in board.rows()] == [10, 13]
    assert board.claim(20) == 1
    board.release(3)
    assert board.high == 2, "slot 2 was free already"
    assert (board.claim(21), board.claim(22), board.high) == (2, 3, 4)
    for slot in range(4):
        board.release(slot)
    assert (board.high, board.rows()) == (0, [])


def test_claimed_slot(board: Scoreboard) -> None:
    """It holds what the master knows, and nothing of the worker that had it before."""
    before = time.monotonic_ns()
    old = board.slot(board.claim())
    old.connections, old.requests, old.in_flight, old.listening, old.state = 5, 6, 7, 1, Slot.READY
    board.release(0)
    assert [column[0] for column in board.columns] == [0] * len(Column)
    slot = board.claim(pid=42, age=7, generation=3)
    board.put(slot, Column.PID, 43)
    row = board.row(slot)
    assert (row.state, row.pid, row.age, row.generation) == (Slot.BOOTING, 43, 7, 3)
    assert (row.connections, row.is_listening, row.requests, row.in_flight) == (0, False, 0, 0)
    assert before <= row.started_ns == row.beat_ns <= time.monotonic_ns()


def test_workers_own_fields(board: Scoreboard) -> None:
    board.claim()
    mine = board.slot(board.claim())
    mine.connections, mine.listening, mine.requests, mine.in_flight = 9, True, 2**62, 3
    mine.state = Slot.DRAINING
    before = board.row(1).beat_ns
    mine.beat()
    row = board.row(1)
    assert (row.state, row.connections, row.is_listening, row.requests, row.in_flight) == (
        Slot.DRAINING,
        9,
        True,
        2**62,
        3,
    )
    assert before < row.beat_ns <= time.monotonic_ns()
    assert (mine.connections, mine.listening, mine.requests, mine.in_flight) == (9, 1, 2**62, 3)
    assert board.row(0).connections == 0


def test_all_slots_taken(board: Scoreboard) -> None:
    board.columns[Column.STATE][:] = memoryview(array("q", [Slot.READY] * SLOTS))
    board.columns[Column.CONNECTIONS][:] = memoryview(array("q", range(SLOTS)))
    board._header[Header.HIGH] = SLOTS
    with pytest.raises(RuntimeError, match=f"all {SLOTS} slots"):
        board.claim()
    assert board.total(Column.CONNECTIONS) == SLOTS * (SLOTS - 1) // 2
    assert board.mean_connections() == (SLOTS - 1) / 2
    board.release(SLOTS - 1)
    assert board.high == SLOTS - 1
    assert (board.claim(), board.high) == (SLOTS - 1, SLOTS)


def test_mean_is_of_ready_workers(board: Scoreboard) -> None:
    claim(board, Slot.READY, 10)
    claim(board, Slot.DRAINING, 1000)
    claim(board, Slot.BOOTING, 500)
    assert (board.mean_connections(), board.ready_count()) == (10.0, 1)
    claim(board, Slot.READY, 21, listens=False)
    assert (board.mean_connections(), board.ready_count()) == (15.5, 2)
    assert board.total(Column.CONNECTIONS) == 1531
    board.release(0)
    assert (board.mean_connections(), board.ready_count()) == (21.0, 1)


@pytest.mark.parametrize(
    ("state", "connections", "listens", "silent_ns", "expected"),
    [
        (Slot.READY, 9, True, 0, True),
        (Slot.READY, 10, True, 0, False),
        (Slot.READY, 9, False, 0, False),
        (Slot.READY, 9, True, 10**9, False),
        (Slot.BOOTING, 9, True, 0, False),
        (Slot.DRAINING, 9, True, 0, False),
    ],
)
def test_lighter(
    board: Scoreboard, state: Slot, connections: int, listens: bool, silent_ns: int, expected: bool
) -> None:
    """Only a READY worker that listens, lives and has fewer takes what another leaves."""
    claim(board, Slot.READY, 10)
    other = claim(board, state, connections, listens=listens)
    since = board.row(other).beat_ns + silent_ns
    board.columns[Column.BEAT_NS][0] = since
    assert board.has_lighter(10, since) is expected


# --- several processes ----------------------------------------------------------------------------------------------


def test_two_processes(board: Scoreboard) -> None:
    """Each sees at once what the other writes."""
    slot = board.claim(pid=77)
    process = start(
        "board = Scoreboard.adopt(int(sys.argv[1]))\n"
        "mine = board.slot(0)\n"
        "assert board.row(0).pid == 77 and not board.is_stopping\n"
        "mine.connections, mine.requests = 12, 2**40\n"
        "mine.state = Slot.READY\n"
        "sys.stdin.readline()\n"
        "print(board.is_stopping, board.high, board.row(1).pid)\n",
        board.fd,
    )
    try:
        wait_until(lambda: board.row(slot).state is Slot.READY, what="what the other process writes")
        assert (board.row(slot).connections, board.row(slot).requests) == (12, 2**40)
        board.claim(pid=78)
        board.is_stopping = True
        assert process.communicate("go on\n", timeout=30)[0] == "True 2 78\n"
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
    board.is_stopping = False
    assert not board.is_stopping


def test_handed_on_through_exec() -> None:
    """As in an upgrade: the same process, another image, the same table."""
    output = run(
        "if len(sys.argv) == 1:\n"
        "    board = Scoreboard.create()\n"
        "    board.claim(pid=5, age=1, generation=2)\n"
        "    board.claim(pid=6, age=2, generation=2)\n"
        "    board.release(0)\n"
        "    board.slot(1).requests = 11\n"
        "    assert not os.get_inheritable(board.fd)\n"
        "    os.set_inheritable(board.fd, True)\n"
        "    os.execv(sys.executable, [*sys.orig_argv, str(board.fd), str(os.getpid())])\n"
        "import dataclasses, json\n"
        "board = Scoreboard.adopt(int(sys.argv[1]))\n"
        "assert os.getpid() == int(sys.argv[2]) and not os.get_inheritable(board.fd)\n"
        "print(json.dumps([board.high, *map(dataclasses.asdict, board.rows()), board.claim(pid=7)]))\n"
    )
    high, row, claimed = json.loads(output)
    assert (high, claimed) == (2, 0)
    assert (row["slot"], row["pid"], row["age"], row["generation"], row["requests"]) == (1, 6, 2, 2, 11)


def test_writers_do_not_disturb_each_other(board: Scoreboard) -> None:
    """Two processes that write neighbouring fields at the same time: not one number is lost or mixed."""
    slots = [board.claim(), board.claim()]
    code = (
        "mine = Scoreboard.adopt(int(sys.argv[1])).slot({slot})\n"
        "sys.stdin.readline()\n"
        f"for number in range(1, {WRITERS_COUNT} + 1):\n"
        "    mine.requests = number\n"
        "    mine.connections += 1\n"
    )
    processes = [start(code.format(slot=slot), board.fd) for slot in slots]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [(board.row(slot).requests, board.row(slot).connections) for slot in slots] == [(WRITERS_COUNT,) * 2] * 2


@pytest.mark.skipif(sys.maxsize < 2**32, reason="promised on 64-bit machines only")
def test_fields_are_read_whole(board: Scoreboard) -> None:
    """A reader never sees half of a number that another process is changing."""
    board.claim()
    requests = board.columns[Column.REQUESTS]
    process = start(
        "requests = Scoreboard.adopt(int(sys.argv[1])).columns[Column.REQUESTS]\n"
        "parent = os.getppid()\n"
        "while os.getppid() == parent:\n"
        "    for _ in range(1000):\n"
        "        requests[0] = -1\n"
        "        requests[0] = 1\n",
        board.fd,
    )
    try:
        wait_until(lambda: requests[0], what="the writer")
        end_at = time.monotonic() + 30
        seen: dict[int, int] = {}
        while (min(seen.values(), default=0) < READS or len(seen) < 2) and time.monotonic() < end_at:
            for _ in range(1000):
                value = requests[0]
                seen[value] = seen.get(value, 0) + 1
    finally:
        process.kill()
        process.communicate()
    assert set(seen) == {1, -1}


# --- the memory -----------------------------------------------------------------------------------------------------


def test_size_is_fixed_and_memory_small(board: Scoreboard) -> None:
    for slot in range(64):
        board.claim()
        board.slot(slot).beat()
    with pytest.raises(PermissionError):
        os.ftruncate(board.fd, HEADER_SIZE)
    with pytest.raises(PermissionError):
        os.ftruncate(board.fd, 2 * SIZE)
    assert os.fstat(board.fd).st_size == SIZE
    assert os.fstat(board.fd).st_blocks * 512 <= (1 + len(Column)) * 4096 * 2


@pytest.mark.parametrize(
    ("field", "value"),
    [(Header.MAGIC, 0), (Header.VERSION, 99), (Header.SLOTS, 8), (Header.COLUMNS, len(Column) + 1)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_other_layout_is_refused(board: Scoreboard, field: Header, value: int) -> None:
    board._header[field] = value
    with pytest.raises(ValueError, match=field.name.lower()):
        Scoreboard.adopt(board.fd)
    os.fstat(board.fd)  # still open: its owner closes it


def test_what_is_no_scoreboard_is_refused() -> None:
    """Files of another size, what cannot be mapped, and descriptors that are not open: one error, never another."""
    fd = os.memfd_create("other")
    reader, writer = os.pipe()
    try:
        for wrong in (fd, reader):
            with pytest.raises(ValueError, match="no scoreboard"):
                Scoreboard.adopt(wrong)
        os.ftruncate(fd, SIZE)
        with pytest.raises(ValueError, match="magic 0 instead"):
            Scoreboard.adopt(fd)
    finally:
        for one in (fd, reader, writer):
            os.close(one)
    with pytest.raises(ValueError, match="Bad file descriptor"):
        Scoreboard.adopt(reader)


def test_close_gives_back_the_descriptor() -> None:
    board = Scoreboard.create()
    fd = board.fd
    assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:epollwsgi-scoreboard")
    board.claim()
    board.close()
    again = Scoreboard.create()
    try:
        assert again.fd == fd, "the lowest number that is free"
    finally:
        again.close()
