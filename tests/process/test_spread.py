"""Connections are spread over the workers, and none of them waits for it: DESIGN.md 4."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from epollwsgi.scoreboard import Scoreboard
from tests.connections import Client
from tests.process.fleet import Fleet, FleetFactory
from tests.stress.proc import SWITCHES
from tests.support import ServerFactory, wait_until

WORKERS = 4
CONNECTIONS = 256
MOST = 1.5 * CONNECTIONS / WORKERS
RECONNECTS = 15
# Far more than any wait that spreading may cause, on a busy machine.
LONG_S = 10.0
IDLE_S = 2.5


def open_scoreboard(fleet: Fleet) -> Scoreboard:
    """The server's own, mapped by the test."""
    directory = f"/proc/{fleet.master}/fd"
    for name in os.listdir(directory):
        if "epollwsgi-scoreboard" in os.readlink(f"{directory}/{name}"):
            return Scoreboard.adopt(os.open(f"{directory}/{name}", os.O_RDWR))
    pytest.fail(f"no scoreboard in {directory}")


@pytest.fixture(scope="module")
def module_fleet(start_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    factory = FleetFactory(start_module_server, tmp_path_factory.mktemp("spread"))
    try:
        yield factory(workers=WORKERS)
    finally:
        factory.close()


@pytest.fixture(scope="module")
def board(module_fleet: Fleet) -> Iterator[Scoreboard]:
    opened = open_scoreboard(module_fleet)
    yield opened
    opened.close()


@pytest.fixture
def fleet(module_fleet: Fleet, board: Scoreboard) -> Fleet:
    """Four workers that are ready, without a connection, and listen."""
    wait_until(lambda: board.ready_count() == WORKERS and all_listen(board), 20, "all workers to listen")
    wait_until(lambda: sum(row.connections for row in board.rows()) == 0, 20, "no connection to be left")
    return module_fleet


def all_listen(board: Scoreboard) -> bool:
    return all(row.is_listening for row in board.rows())


def get(tag: object, fields: str = "") -> bytes:
    return f"GET /echo/?{tag} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()


def worker_of(client: Client, tag: object, fields: str = "") -> int:
    """Ask on this connection; the process that answered, and answered us."""
    response = client.request(get(tag, fields))
    assert response.status == 200
    assert response.body == f"echo of {tag}\n".encode()
    return int(response["X-Worker"])


@pytest.mark.parametrize("interval_s", [0, 0.0001, 0.001], ids=["burst", "0.1 ms apart", "1 ms apart"])
def test_even(fleet: Fleet, board: Scoreboard, interval_s: float) -> None:
    """No worker has more than 1.5 x the mean, each connection is answered, and the scoreboard tells the truth."""
    with ExitStack() as stack:
        clients = []
        for _ in range(CONNECTIONS):
            clients.append(stack.enter_context(fleet.client()))
            if interval_s:
                time.sleep(interval_s)
        counts = Counter(worker_of(client, number) for number, client in enumerate(clients))
        assert sum(counts.values()) == CONNECTIONS
        assert max(counts.values()) <= MOST, counts
        assert len(counts) == WORKERS, counts
        wait_until(lambda: sum(row.connections for row in board.rows()) == CONNECTIONS, what="the scoreboard")
        assert {row.pid: row.connections for row in board.rows()} == counts
        # Whoever stepped aside is back within a second or so, and each kept connection still is its worker's.
        wait_until(lambda: all_listen(board), LONG_S, "all workers to listen again")
        assert Counter(worker_of(client, number) for number, client in enumerate(clients)) == counts


def test_one_after_another(fleet: Fleet) -> None:
    """Each connection asks before the next is opened, so that workers are idle each time."""
    with ExitStack() as stack:
        counts = Counter(worker_of(stack.enter_context(fleet.client()), number) for number in range(CONNECTIONS))
    assert max(counts.values()) <= MOST, counts


def test_worker_that_lost_its_connections_gets_the_next(fleet: Fleet) -> None:
    """What counts is what is open: the worker whose clients left is given the new ones."""
    with ExitStack() as stack:
        by_worker: dict[int, list[Client]] = {}
        for number in range(100):
            client = stack.enter_context(fleet.client())
            by_worker.setdefault(worker_of(client, number), []).append(client)
        lucky, leaving = max(by_worker.items(), key=lambda item: len(item[1]))
        for client in leaving:
            client.sock.close()
        counts = Counter(worker_of(stack.enter_context(fleet.client()), number) for number in range(100))
        held = {pid: counts[pid] + (len(clients) if pid != lucky else 0) for pid, clients in by_worker.items()}
        assert max(held.values()) <= 1.5 * sum(held.values()) / WORKERS, (held, counts)


def test_connection_for_each_request(fleet: Fleet) -> None:
    """64 clients that reconnect for each request: every one is answered, and none waits in the backlog."""

    def reconnect(name: int) -> float:
        longest = 0.0
        for number in range(RECONNECTS):
            begun_at = time.monotonic()
            with fleet.client() as client:
                worker_of(client, f"{name}-{number}", "Connection: close\r\n")
                assert client.read_to_end() == b""
            longest = max(longest, time.monotonic() - begun_at)
        return longest

    with ThreadPoolExecutor(64) as pool:
        assert max(pool.map(reconnect, range(64))) < LONG_S


def test_stopped_worker_keeps_nothing_back(fleet: Fleet, board: Scoreboard) -> None:
    """A worker that does not run listens on, and is the lightest: what it does not take the others do."""
    stopped = board.row(0).pid
    count = 40 * WORKERS
    os.kill(stopped, signal.SIGSTOP)
    try:
        wait_until(lambda: states_of(stopped) == {"T"}, LONG_S, "all its threads to stop")
        with ExitStack() as stack:
            clients = [stack.enter_context(fleet.client()) for _ in range(count)]
            counts: Counter[int] = Counter()
            for number, client in enumerate(clients):
                begun_at = time.monotonic()
                counts[worker_of(client, number)] += 1
                assert time.monotonic() - begun_at < LONG_S
            assert (counts.total(), counts[stopped]) == (count, 0)
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_idle_workers_sleep(fleet: Fleet, board: Scoreboard) -> None:
    """With connections that idle, also more than others have, a worker wakes up once a second at most."""
    with ExitStack() as stack:
        for number in range(CONNECTIONS):
            worker_of(stack.enter_context(fleet.client()), number)
        wait_until(lambda: all_listen(board), LONG_S, "all workers to listen again")
        pids = [row.pid for row in board.rows()]
        # The quietest of a few periods: what else the machine does can only add to the count.
        quietest = dict.fromkeys(pids, 10_000)
        for _ in range(3):
            before = {pid: switches(pid) for pid in pids}
            time.sleep(IDLE_S)
            quietest = {pid: min(quietest[pid], switches(pid) - before[pid]) for pid in pids}
            if max(quietest.values()) <= 2 * (IDLE_S + 1):
                break
        # Once a second the watch wakes up, and may have to wait for a lock another thread then lets go.
        assert max(quietest.values()) <= 2 * (IDLE_S + 1), quietest


def states_of(pid: int) -> set[str]:
    """Those of the threads of a process. proc_pid_stat(5)."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats}


def switches(pid: int) -> int:
    """Context switches of all threads of a process."""
    total = 0
    for name in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{name}/status") as file:
            total += sum(int(count) for count in SWITCHES.findall(file.read()))
    return total
