"""Connections are spread over the workers, and none of them waits for it: DESIGN.md 4."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from epollwsgi import spread
from epollwsgi.loop import Loop
from epollwsgi.scoreboard import Column, Scoreboard, Slot
from epollwsgi.spread import ACCEPTS_PER_TURN, Spread
from tests.connections import Client
from tests.process.fleet import Fleet, FleetFactory, descriptor_paths
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
    pytest.fail(f"no scoreboard among {descriptor_paths(fleet.master)}")


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


# --- a server with four workers -------------------------------------------------------------------------------------


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


def switches(pid: int) -> int:
    """Context switches of all threads of a process."""
    total = 0
    for name in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{name}/status") as file:
            total += sum(int(count) for count in SWITCHES.findall(file.read()))
    return total


# --- the rule ---------------------------------------------------------------------------------------------------------


@dataclass
class Door:
    """A member that only notes whether it is in epoll."""

    is_in: bool = True
    waits: bool = False
    spread: Spread | None = field(default=None, repr=False)
    moves: list[bool] = field(default_factory=list)

    def settle(self) -> None:
        assert self.spread is not None
        if self.is_in is self.spread.is_away:
            self.is_in = not self.spread.is_away
            self.moves.append(self.is_in)
            self.spread.note_listening()

    def has_waiting(self) -> bool:
        return self.waits


class Bench:
    """A scoreboard whose slot 0 is a worker under test, the others are as a test wants them."""

    def __init__(self) -> None:
        self.board = Scoreboard.create()
        self.loop = Loop()
        self.connections: set[int] = set()
        self.mine = self.board.slot(self.board.claim())
        self.mine.state = Slot.READY
        self.spread = Spread(self.mine, self.loop, self.connections)
        self.door = Door(spread=self.spread)
        self.spread.members.append(self.door)
        self.spread.note_listening()

    def close(self) -> None:
        self.loop.close()
        self.board.close()

    def add_other(self, connections: int, *, listens: bool = True, state: Slot = Slot.READY) -> int:
        slot = self.board.claim()
        other = self.board.slot(slot)
        other.connections, other.listening, other.state = connections, listens, state
        return slot

    def hold(self, count: int) -> None:
        """This worker has so many connections from now on."""
        self.connections.clear()
        self.connections.update(range(count))

    def has_rung(self) -> bool:
        """Whether the bell was rung since somebody asked."""
        try:
            return os.eventfd_read(self.board.bell) > 0
        except BlockingIOError:
            return False

    def run_until_back(self, timeout_s: float) -> int:
        """Turns of the loop until the worker has come back; how many. It must wake up by itself, and in time."""
        count = 0
        end_at = time.monotonic() + timeout_s
        while self.spread.is_away:
            assert time.monotonic() < end_at, f"away for more than {timeout_s:g} s"
            self.loop.turn()
            count += 1
        return count


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("own", "others", "allowed"),
    [
        (0, [0, 0, 0], 8),
        (5, [0, 0, 0], 3),
        (7, [900, 900], 1),  # the cheap answer; the next turn gives the right one
        (8, [0, 0, 0], 2),  # 2 + 8
        (9, [0, 0, 0], 1),
        (500, [0, 0, 0], 1),
        (8, [40, 40, 40], 32),  # 32 + 8
        (100, [150, 150], 50),  # 133.3 + 16.7
        (100, [1000, 1000, 1000], ACCEPTS_PER_TURN),
        (500, [], ACCEPTS_PER_TURN),
        (3, [], ACCEPTS_PER_TURN),
    ],
)
def test_allowance(bench: Bench, own: int, others: list[int], allowed: int) -> None:
    """Up to the mean and its margin, at least one, and no bound but the turn's where there is nobody else."""
    for connections in others:
        bench.add_other(connections)
    bench.hold(own)
    bench.mine.connections = own
    assert bench.spread.allowance() == allowed


@pytest.mark.parametrize(
    ("own", "others", "leaves"),
    [
        (8, [0, 0, 0], False),
        (10, [0, 0, 0], False),  # 2.5 + 8
        (11, [0, 0, 0], True),  # 2.75 + 8
        (100, [99, 99, 99], False),
        (130, [110, 110], False),  # 116.7 + 14.6
        (140, [110, 110], True),  # 120 + 15
        (140, [], False),
    ],
)
def test_who_leaves(bench: Bench, own: int, others: list[int], leaves: bool) -> None:
    for connections in others:
        bench.add_other(connections)
    bench.hold(own)
    bench.spread.on_accepted()
    assert bench.mine.connections == own
    assert bench.spread.is_away is leaves
    assert bench.door.is_in is not leaves
    assert bench.mine.listening == (not leaves)


@pytest.mark.parametrize(
    ("why", "leaves", "rings"),
    [
        ("", True, False),
        ("does not listen", True, True),
        ("is not ready", False, False),
        ("drains", False, False),
        ("is silent", False, False),
        ("is not lighter", False, False),
        ("stops as all do", False, False),
    ],
)
def test_somebody_has_to_take_what_it_leaves(bench: Bench, why: str, leaves: bool, rings: bool) -> None:
    """It leaves only where a living worker, lighter and ready, takes what it does not take, or may be called."""
    slots = [bench.add_other(0) for _ in range(5)]  # silent, so that nothing but the mean changes by them
    slots += [
        bench.add_other(
            90 if why == "is not lighter" else 0,
            listens=why != "does not listen",
            state={"is not ready": Slot.BOOTING, "drains": Slot.DRAINING}.get(why, Slot.READY),
        )
    ]
    for slot in slots if why == "is silent" else slots[:-1]:
        bench.board.columns[Column.BEAT_NS][slot] -= 2 * spread.SILENT_NS
    bench.board.is_stopping = why == "stops as all do"
    bench.hold(90)
    bench.spread.on_accepted()
    assert bench.spread.is_away is leaves
    assert bench.door.moves == [False] * leaves
    assert bench.has_rung() is rings


def test_the_last_one_calls_the_others(bench: Bench) -> None:
    """It steps aside for a moment; where nobody comes it is back soon, and stays until somebody lighter listens."""
    other = bench.board.slot(bench.add_other(0, listens=False))
    bench.hold(40)
    bench.spread.on_accepted()
    assert bench.has_rung()
    bench.run_until_back(sum(spread.LOOKS_S) / 2)
    for _ in range(3):
        bench.spread.on_accepted()
    assert bench.door.moves == [False, True]
    assert not bench.has_rung()
    other.listening = True
    bench.spread.on_accepted()
    assert bench.door.moves == [False, True, False]
    other.listening = False
    bench.hold(0)
    bench.spread.on_closed()
    bench.hold(40)
    bench.spread.on_accepted()
    assert bench.has_rung(), "it may call again"


def test_of_two_that_leave_together_one_sees_it(bench: Bench) -> None:
    """The lighter one says that it leaves between the first look and the second: it is called, or not left alone."""
    other = bench.board.slot(bench.add_other(0))

    class Interrupted(Door):
        def settle(self) -> None:
            super().settle()
            other.listening = False

    door = Interrupted(spread=bench.spread)
    bench.spread.members[:] = [door]
    bench.hold(40)
    bench.spread.on_accepted()
    assert bench.has_rung()
    bench.run_until_back(sum(spread.LOOKS_S) / 2)
    other.listening = True
    bench.spread.on_accepted()
    assert door.moves == [False, True, False, True], "it did not come before: no use in calling"
    assert not bench.has_rung()
    assert bench.mine.listening


def test_the_bell_brings_it_back(bench: Bench) -> None:
    """When it is called and no longer over; and no bell is heard by who listens."""
    leave(bench)
    bench.board.ring()
    bench.loop.turn()
    assert bench.spread.is_away, "it still is over"
    for slot in (1, 2, 3):
        bench.board.slot(slot).connections = 40
    bench.loop._later.clear()  # it will not look by itself
    bench.board.ring()
    bench.loop.turn()
    assert bench.door.moves == [False, True]
    bench.board.ring()
    assert bench.loop.epoll.poll(0) == []


def leave(bench: Bench, others: tuple[int, ...] = (0, 0, 0)) -> None:
    for connections in others:
        bench.add_other(connections)
    bench.hold(40)
    bench.spread.on_accepted()
    assert bench.spread.is_away


def test_closing_brings_it_back(bench: Bench) -> None:
    """As soon as enough of its connections are closed, not with the first."""
    leave(bench, (24, 24, 24))  # the mean is 28
    for own, is_away in ((36, True), (33, True), (29, False), (28, False)):
        bench.hold(own)
        bench.spread.on_closed()
        assert (bench.mine.connections, bench.spread.is_away) == (own, is_away)
    assert bench.door.moves == [False, True]


@pytest.mark.parametrize("why", ["others have caught up", "others do not listen", "others are silent"])
def test_a_look_brings_it_back(bench: Bench, why: str) -> None:
    """What others do is noticed within a moment, without any event here."""
    leave(bench)
    for slot in (1, 2, 3):
        other = bench.board.slot(slot)
        if why == "others have caught up":
            other.connections = 38
        elif why == "others do not listen":
            other.listening = 0
        else:
            bench.board.columns[Column.BEAT_NS][slot] -= 2 * spread.SILENT_NS
    bench.run_until_back(sum(spread.LOOKS_S) / 2)
    assert bench.door.moves == [False, True]


def test_connections_that_wait_bring_it_back(bench: Bench) -> None:
    """Others listen, and yet do not take what comes: so this one does, some at a time."""
    leave(bench)
    bench.door.waits = True
    bench.run_until_back(sum(spread.LOOKS_S) / 2)
    assert bench.spread.allowance() == 1 + spread.MARGIN
    assert bench.spread.allowance() == 1, "once"


def test_a_second_brings_it_back(bench: Bench) -> None:
    """Whatever the others have; and until then it wakes up a few times only, afterwards never."""
    begun_at = time.monotonic()
    leave(bench)
    turns = bench.run_until_back(30)
    assert time.monotonic() - begun_at >= sum(spread.LOOKS_S) - 0.001
    assert sum(spread.LOOKS_S) == pytest.approx(1)
    assert turns <= 2 * len(spread.LOOKS_S), "a poll may wake up a little early"
    assert not bench.loop._later, "nothing left to wake up for"


def test_absences_do_not_mix(bench: Bench) -> None:
    """The looks of an absence that has ended are nothing to the next."""
    leave(bench)
    for _ in range(50):
        bench.hold(0)
        bench.spread.on_closed()
        assert not bench.spread.is_away
        bench.hold(40)
        bench.spread.on_accepted()
        assert bench.spread.is_away
    begun_at = time.monotonic()
    bench.run_until_back(30)
    assert time.monotonic() - begun_at >= sum(spread.LOOKS_S) - 0.1
    assert bench.door.moves == [False, True] * 51
