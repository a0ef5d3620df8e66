"""A load client of one thread: groups of keep-alive connections, each asking again as soon as it was answered.

Knows sockets and the one content that all targets answer. It reads every answer to its last byte, and whoever waits
longer than SILENCE_LIMIT_S for one fails the run. Called by `load`, in the process that is pinned to the client's core.
"""

from __future__ import annotations

import math
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from time import monotonic

from tests.benchmarks.apps import HELLO
from tests.benchmarks.check import SILENCE_LIMIT_S
from tests.benchmarks.process import MeasurementFailed
from tests.benchmarks.servers import HOST

LOOK_EVERY_S = 0.1
START = b"HTTP/1.1 200 "
END = b"\r\n\r\n" + HELLO
numbers = count(1)  # for paths that nobody has asked for before


@dataclass(frozen=True, slots=True)
class Group:
    """Connections that ask for one target; `{0}` in it stands for a number that is new in every request."""

    name: str
    connections: int
    target: str

    @property
    def is_new(self) -> bool:
        """Whether every request has a target of its own."""
        return self.target.format(0) != self.target


@dataclass(frozen=True, slots=True)
class Figures:
    """What a group got: answers per second, and how long they took."""

    rate: float
    p50_ms: float
    p99_ms: float


def build_request(port: int, target: str) -> bytes:
    """A GET with only a Host field."""
    return f"GET {target} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode("ascii")


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


class Connection:
    """One connection of a group; at most one request of it is under way."""

    __slots__ = ("asked_at", "group", "port", "received", "request", "socket")

    def __init__(self, port: int, group: Group) -> None:
        self.port = port
        self.group = group
        self.request = b"" if group.is_new else build_request(port, group.target)
        self.received = b""
        self.asked_at = 0.0  # 0: nothing is under way
        self.socket = socket.create_connection((HOST, port), timeout=SILENCE_LIMIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)

    def ask(self, now: float) -> None:
        """Send the request; a few hundred bytes always fit."""
        self.asked_at = now
        self.socket.send(self.request or build_request(self.port, self.group.target.format(next(numbers))))

    def read(self) -> bool:
        """Read what is there; whether the answer is complete. Raises MeasurementFailed for anything but that answer."""
        received = self.socket.recv(65536)
        if not received or not self.asked_at:
            what = f"{len(received)} bytes nobody asked for" if received else "the server closed the connection"
            raise MeasurementFailed(f"{self.group.name}: {what}")
        if self.received:
            received = self.received + received
        end = received.find(END)
        if end < 0:
            self.received = received
            return False
        if end + len(END) != len(received) or not received.startswith(START):
            raise MeasurementFailed(f"{self.group.name}: unexpected answer: {received[:200]!r}")
        self.received = b""
        return True


class Client:
    """All connections of one load."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self.connections = connections
        self._by_fd = {connection.socket.fileno(): connection for connection in connections}
        self._epoll = select.epoll()
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN)
        self._look_at = 0.0

    def close(self) -> None:
        """Close all sockets."""
        self._epoll.close()
        for connection in self.connections:
            connection.socket.close()

    def turn(self, limit_s: float) -> Iterator[Connection]:
        """Those answered meanwhile, waiting at most `limit_s` for the first. Raises MeasurementFailed for silence."""
        for fd, _ in self._epoll.poll(limit_s):
            connection = self._by_fd[fd]
            if connection.read():
                yield connection
        now = monotonic()
        if now > self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self._fail_on_silence(now)

    def _fail_on_silence(self, now: float) -> None:
        waiting = [each for each in self.connections if each.asked_at and now - each.asked_at > SILENCE_LIMIT_S]
        if waiting:
            groups = ", ".join(sorted({each.group.name for each in waiting}))
            raise MeasurementFailed(f"{len(waiting)} connections ({groups}) without an answer for 2 s")

    def ask_once(self, connections: Sequence[Connection]) -> list[float]:
        """One request on each, all at the same time; how long each took, in seconds."""
        durations: list[float] = []
        now = monotonic()
        for connection in connections:
            connection.ask(now)
        while len(durations) < len(connections):
            for connection in self.turn(LOOK_EVERY_S):
                if connection in connections:
                    durations.append(monotonic() - connection.asked_at)
                connection.asked_at = 0.0
        return durations

    def run(self, is_over: Callable[[float], bool]) -> dict[str, Figures]:
        """Closed loop on every connection until `is_over`, told the seconds since the start; then await what is due."""
        durations: dict[str, list[float]] = {connection.group.name: [] for connection in self.connections}
        began_at = now = monotonic()
        ended_at = 0.0
        for connection in self.connections:
            connection.ask(now)
        under_way = len(self.connections)
        while under_way or not ended_at:
            for connection in self.turn(0.02):
                now = monotonic()
                if ended_at:
                    connection.asked_at = 0.0
                    under_way -= 1
                    continue
                durations[connection.group.name].append(now - connection.asked_at)
                connection.ask(now)
            if not ended_at and is_over(monotonic() - began_at):
                ended_at = monotonic()
        return {name: summarize(name, taken, ended_at - began_at) for name, taken in durations.items()}


def summarize(name: str, durations: Sequence[float], took_s: float) -> Figures:
    """Figures of one group. Raises MeasurementFailed where nothing was answered."""
    if not durations:
        raise MeasurementFailed(f"{name}: nothing was answered within {took_s:.1f} s")
    p50_s, p99_s = percentile(durations, 0.50), percentile(durations, 0.99)
    return Figures(len(durations) / took_s, p50_s * 1000, p99_s * 1000)


@contextmanager
def connected(port: int, groups: Sequence[Group]) -> Iterator[Client]:
    """A client with all connections of the groups open. Raises MeasurementFailed."""
    connections: list[Connection] = []
    try:
        for group in groups:
            connections += [Connection(port, group) for _ in range(group.connections)]
        client = Client(connections)
    except OSError as error:
        for connection in connections:
            connection.socket.close()
        raise MeasurementFailed(f"no connection: {error!r}") from error
    try:
        yield client
    except OSError as error:
        raise MeasurementFailed(f"a connection broke: {error!r}") from error
    finally:
        client.close()
