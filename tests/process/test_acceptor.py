"""What one acceptor does with the connections that wait, where other workers have the same listener."""

from __future__ import annotations

import os
import re
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.acceptor import SURELY_IDLE_S, Acceptor
from epollwsgi.config.settings import Settings
from epollwsgi.config.values import TCPBind
from epollwsgi.listener import Listener, open_listeners
from epollwsgi.logs.opening import open_logs
from epollwsgi.scoreboard import Scoreboard, Slot
from epollwsgi.service import Service
from epollwsgi.spread import MARGIN
from tests.support import wait_until

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
WAITING = 100


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


class Bench:
    """One worker's service and acceptor, driven turn by turn. slot 0 of the scoreboard is its own, if there is one."""

    def __init__(self, directory: Path, board: Scoreboard | None, limit: int = 1000) -> None:
        settings = Settings(bind=(TCPBind("127.0.0.1", 0),), errorlog=str(directory / "log"), backlog=WAITING + 10)
        self.log = directory / "log"
        self.listener: Listener = open_listeners(settings)[0]
        mine = None
        if board is not None:
            mine = board.slot(board.claim())
            mine.state = Slot.READY
        self.service = Service(settings, application, *open_logs(settings), mine)
        self.loop = self.service.loop
        self.started_at = self.loop.now
        self.acceptor = Acceptor(self.service, self.listener, limit)
        self.clients = ExitStack()

    def close(self) -> None:
        for connection in list(self.service.connections):
            connection.close()  # type: ignore[attr-defined]
        self.loop.close()
        self.clients.close()
        self.listener.close()

    def connect(self, count: int = 1) -> list[socket.socket]:
        address = self.listener.sock.getsockname()
        return [self.clients.enter_context(socket.create_connection(address, timeout=10)) for _ in range(count)]

    def turn(self, count: int = 1) -> None:
        """Turns that never sleep."""
        for _ in range(count):
            self.loop.wake()
            self.loop.turn()

    def turn_until(self, condition: Callable[[], bool], what: str) -> None:
        def is_so() -> bool:
            self.turn()
            return condition()

        wait_until(is_so, what=what)

    def count(self) -> int:
        return len(self.service.connections)

    def events(self) -> int:
        """The events that epoll watches the listener for; 0 where it does not. proc_pid_fdinfo(5)."""
        text = Path(f"/proc/self/fdinfo/{self.loop.epoll.fileno()}").read_text()
        found = re.search(rf"^tfd:\s+{self.listener.fd} events:\s+([0-9a-f]+)", text, re.MULTILINE)
        return int(found[1], 16) if found else 0


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    made = Scoreboard.create()
    yield made
    made.close()


def add_other(board: Scoreboard, connections: int) -> None:
    other = board.slot(board.claim())
    other.state, other.connections, other.listening = Slot.READY, connections, 1


@pytest.fixture
def shared(tmp_path: Path, board: Scoreboard) -> Iterator[Bench]:
    """A worker beside another that is idle."""
    made = Bench(tmp_path, board)
    add_other(board, 0)
    yield made
    made.close()


def test_alone(tmp_path: Path) -> None:
    """Without a scoreboard all that waits is taken, a batch each turn, and nothing is exclusive."""
    bench = Bench(tmp_path, None)
    try:
        assert bench.events() & (select.EPOLLIN | select.EPOLLEXCLUSIVE) == select.EPOLLIN
        bench.connect(WAITING)
        bench.turn(3)
        assert bench.count() == WAITING
    finally:
        bench.close()


def test_takes_its_share_and_steps_aside(shared: Bench, board: Scoreboard) -> None:
    """What waits is left to the other from the moment this one has clearly more; then it comes back by itself."""
    shared_in = select.EPOLLIN | select.EPOLLEXCLUSIVE
    assert shared.events() & shared_in == shared_in
    assert board.row(0).is_listening
    shared.connect(WAITING)
    shared.turn()
    assert shared.count() == board.row(0).connections == MARGIN
    for expected in (12, 14, 15, 16, 17):  # half of what it has is the mean, and eight more are allowed
        assert shared.events()
        shared.turn()
        assert (shared.count(), board.row(0).connections) == (expected, expected)
    assert shared.events() == 0
    assert not board.row(0).is_listening
    shared.turn(3)
    assert shared.count() == 17
    assert shared.acceptor.has_waiting()
    board.slot(1).connections = WAITING
    shared.turn_until(lambda: shared.count() > 17, "it to come back")
    assert board.row(0).is_listening


def test_closing_is_told_and_brings_it_back(shared: Bench, board: Scoreboard) -> None:
    clients = shared.connect(WAITING)
    shared.turn(20)
    assert (shared.count(), board.row(0).connections, shared.events()) == (17, 17, 0)
    board.slot(1).connections = 9
    for client in clients[:5]:
        client.close()
    shared.turn(3)
    assert board.row(0).is_listening, "12 are no more than the mean and half the margin"


def test_connection_that_woke_it_is_taken(shared: Bench) -> None:
    """However many this worker has: nobody else was woken for it."""
    board = shared.service.mine.scoreboard  # type: ignore[union-attr]
    board.slot(1).connections = 17
    shared.connect(17)
    shared.turn(5)
    assert shared.count() == 17
    board.slot(1).connections = 0
    shared.connect(2)
    shared.turn()
    assert shared.count() == 18


def test_emptying_the_backlog_takes_all(shared: Bench, board: Scoreboard) -> None:
    """At the end there is nobody else; what comes while others complete their handshakes is taken, too."""
    shared.connect(WAITING // 2)
    shared.turn(20)
    assert shared.events() == 0, "it is away"
    before = time.monotonic()
    shared.acceptor.empty_backlog()
    assert shared.count() == WAITING // 2
    first_at = shared.acceptor.accepted_at
    assert before <= first_at <= time.monotonic()
    assert shared.events() != 0
    shared.connect(WAITING // 2)
    shared.turn()
    assert shared.count() == WAITING
    assert shared.acceptor.accepted_at > first_at
    shared.connect()
    shared.acceptor.stop()
    assert shared.count() == WAITING + 1, "one that came behind the last look"
    assert (shared.events(), board.row(0).is_listening, shared.acceptor.is_open) == (0, False, False)
    shared.connect()
    shared.turn(2)
    assert shared.count() == WAITING + 1


def test_retiring_takes_what_waits_and_leaves_the_rest_to_others(shared: Bench, board: Scoreboard) -> None:
    """What waits may have woken this worker alone; what comes once it has left epoll wakes another."""
    shared.connect(3)
    shared.turn()
    shared.connect(3)
    shared.acceptor.stop()
    assert shared.count() == 6
    shared.connect(3)
    shared.turn(2)
    assert (shared.count(), shared.events(), board.row(0).is_listening) == (6, 0, False)


def test_pause_is_told(tmp_path: Path, board: Scoreboard) -> None:
    """A worker that has no room does not listen, as far as the others see; then it goes on by itself."""
    bench = Bench(tmp_path, board, limit=4)
    try:
        clients = bench.connect(6)
        for client in clients:
            client.sendall(GET[:-2])  # not idle
        bench.turn_until(lambda: not board.row(0).is_listening, "the pause")
        assert bench.count() == 4
        clients[0].close()
        clients[1].close()
        bench.turn_until(lambda: bench.count() == 4 and not bench.acceptor.has_waiting(), "the other two")
        assert "worker_connections" in bench.log.read_text()
    finally:
        bench.close()


def test_idle_connections_go_at_nine_tenths_of_the_descriptors(tmp_path: Path) -> None:
    """Those idle longest are closed before the system has no more; DESIGN.md 4."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(int(name) for name in os.listdir("/proc/self/fd")) + 100
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    bench = Bench(tmp_path, None)
    try:
        idle = bench.connect(20)
        bench.turn(2)
        assert bench.count() == 20
        while (fd := os.open("/dev/null", os.O_RDONLY)) < limit * 9 // 10 - 2:
            taken.append(fd)
        taken.append(fd)
        bench.connect(2)
        bench.turn(2)
        assert bench.count() == 22, "none is idle yet"
        bench.turn_until(lambda: bench.loop.now > bench.started_at + SURELY_IDLE_S + 0.1, "them to be idle")
        bench.connect()
        bench.turn(2)
        assert bench.count() == 22 + 1 - 16
        readable, _, _ = select.select(idle, (), (), 0)
        assert len(readable) == 16, "those that came later stay"
        assert {one.recv(1) for one in readable} == {b""}
        assert "cannot accept" not in bench.log.read_text()
    finally:
        for fd in taken:
            os.close(fd)
        bench.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
