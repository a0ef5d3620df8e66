"""A client of many connections at once, in one thread; every answer is checked byte for byte.

A plan is a list of batches; the requests of a batch are sent together, and the next batch when all are answered. What
is wrong is raised at once: a wrong answer, a connection that ends unasked, one that is silent for too long.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.apps.dispatch import Expected, expected
from tests.connections import Address, connect
from tests.responses import Response, parse_body, parse_head

SILENCE_S = 2.0
RECEIVE_SIZE = 1 << 18


@dataclass
class Request:
    """One request and what it must be answered."""

    kind: str
    tag: str
    data: bytes
    expected: Expected
    sent_at: float = 0.0


@dataclass
class Batch:
    """Requests sent in one piece. ending: 'close' or 'reset' where the client does not wait for the answers."""

    requests: list[Request]
    ending: str = ""
    ending_s: float = 0.0
    pause_s: float = 0.0


@dataclass
class Outcome:
    """What a run has seen."""

    answered: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    abandoned: list[str] = field(default_factory=list)
    durations_s: dict[str, list[float]] = field(default_factory=dict)
    latest_s: float = 0.0
    """how late this client itself was at worst"""


def build_request(kind: str, tag: str, path: str = "") -> Request:
    content = f"content of {tag} ".encode() * 40 if kind == "posted" else b""
    method = "POST" if content else "GET"
    length = f"Content-Length: {len(content)}\r\n" if content else ""
    data = f"{method} /{kind}{path}?{tag} HTTP/1.1\r\nHost: h\r\n{length}\r\n".encode() + content
    return Request(kind, tag, data, expected(kind, tag, content))


def check(request: Request, response: Response, connection: int) -> None:
    """Is this the answer to that request, and whole?"""
    wanted = request.expected
    what = f"connection {connection}, {request.kind}?{request.tag}"
    assert response.status == wanted.status, f"{what}: {response.status}"
    if wanted.status == 200:
        assert response.get("X-Tag") == request.tag, f"{what}: the answer to {response.get('X-Tag')}"
        assert response.body == wanted.content, f"{what}: {response.body[:300]!r}, not {wanted.content[:300]!r}"


class Talk:
    """One place in the load: a connection, and after an end of it the next."""

    def __init__(self, number: int, address: Address, plan: Iterator[Batch], outcome: Outcome) -> None:
        self.number = number
        self.address = address
        self.plan = plan
        self.outcome = outcome
        self.sock: socket.socket | None = None
        self.batch: Batch | None = None
        self.pending: deque[Request] = deque()
        self.to_send = b""
        self.buffer = b""
        self.active_at = 0.0
        self.next_at = 0.0
        self.is_done = False

    def act(self, now: float, selector: selectors.BaseSelector) -> None:
        """What is due: the next batch, or an ending."""
        if self.batch is not None:
            if self.batch.ending and now >= self.active_at + self.batch.ending_s:
                self.leave(selector)
            return
        if now < self.next_at:
            return
        self.batch = next(self.plan, None)
        if self.batch is None:
            self.is_done = True
            self.disconnect(selector)
            return
        if self.sock is None:
            self.sock = connect(self.address)
            self.sock.setblocking(False)
            selector.register(self.sock, selectors.EVENT_READ, self)
        self.pending.extend(self.batch.requests)
        self.to_send = b"".join(request.data for request in self.pending)
        self.active_at = now
        for request in self.pending:
            request.sent_at = now
        self.send()

    def send(self) -> None:
        assert self.sock is not None
        try:
            self.to_send = self.to_send[self.sock.send(self.to_send) :]
        except BlockingIOError:
            pass

    def leave(self, selector: selectors.BaseSelector) -> None:
        """Without waiting for what is still to come."""
        assert self.batch is not None
        assert self.sock is not None
        self.outcome.abandoned.extend(request.tag for request in self.pending)
        self.pending.clear()
        if self.batch.ending == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.batch = None
        self.disconnect(selector)

    def disconnect(self, selector: selectors.BaseSelector) -> None:
        self.buffer = self.to_send = b""
        if self.sock is not None:
            selector.unregister(self.sock)
            self.sock.close()
            self.sock = None

    def receive(self, now: float, selector: selectors.BaseSelector) -> None:
        assert self.sock is not None
        try:
            data = self.sock.recv(RECEIVE_SIZE)
        except ConnectionResetError:
            data = b""
        if self.batch is None or not self.batch.ending:
            self.active_at = now
        self.buffer += data
        self.take(now, not data)
        if not data:
            assert not self.pending, f"connection {self.number} ended, unanswered: {self.pending[0]}, {self.buffer!r}"
            if self.batch is not None and self.batch.ending:
                self.batch = None
            self.disconnect(selector)

    def take(self, now: float, at_end: bool) -> None:
        """Every answer that is complete."""
        while self.pending:
            request = self.pending[0]
            found = parse_head(self.buffer)
            if found is None:
                return
            response, head_size = found
            end = parse_body(response, "GET", self.buffer, head_size, at_end)
            if end is None:
                if not (at_end and request.expected.cut):
                    return
                end = len(self.buffer)
            assert at_end or not request.expected.cut, f"{request.tag}: an answer that failed looks whole"
            check(request, response, self.number)
            self.pending.popleft()
            self.buffer = self.buffer[end:]
            self.outcome.answered[request.tag] += 1
            self.outcome.kinds[request.kind] += 1
            self.outcome.durations_s.setdefault(request.kind, []).append(now - request.sent_at)
        assert not self.buffer, f"connection {self.number}: {self.buffer[:200]!r} was not asked for"
        if self.batch is not None and not self.batch.ending:
            self.next_at = now + self.batch.pause_s
            self.batch = None

    def check_silence(self, now: float, slack_s: float) -> None:
        if self.pending and now - self.active_at > SILENCE_S + self.pending[0].expected.work_s + slack_s:
            raise AssertionError(
                f"connection {self.number} is silent for {now - self.active_at:.2f} s, waits for {self.pending[0].tag}"
                f" ({self.pending[0].kind}), {len(self.pending)} pending, has {self.buffer[:100]!r}"
            )


def run(address: Address, plans: list[list[Batch]], timeout_s: float = 60.0) -> Outcome:
    """All plans at once, each on a connection of its own. Raises AssertionError at the first fault."""
    outcome = Outcome()
    talks = [Talk(number, address, iter(plan), outcome) for number, plan in enumerate(plans)]
    end_at = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        try:
            last = time.monotonic()
            while not all(talk.is_done for talk in talks):
                now = time.monotonic()
                outcome.latest_s = max(outcome.latest_s, now - last - 0.005)
                last = now
                assert now < end_at, f"not done within {timeout_s:g} s: {outcome.kinds}"
                for talk in talks:
                    if not talk.is_done:
                        talk.act(now, selector)
                        if talk.to_send:
                            talk.send()
                for key, _ in selector.select(0.002):
                    key.data.receive(time.monotonic(), selector)
                now = time.monotonic()
                for talk in talks:
                    talk.check_silence(now, outcome.latest_s)
        finally:
            for talk in talks:
                talk.disconnect(selector)
    return outcome


# How many of a hundred requests are of each kind.
MIX = {
    "quick": 50, "fickle": 12, "flowing": 8, "blocking": 6, "computing": 3, "streaming": 5, "written": 5, "posted": 4,
    "closing": 3, "failing": 2, "broken": 1, "large": 1,
}  # fmt: skip


def mixed_plans(seed: int, connections: int, batches: int, most: int = 6) -> list[list[Batch]]:
    """Plans of a bit of everything; a batch holds up to `most` pipelined requests. Every kind comes at least once."""
    chance = random.Random(seed)
    kinds = list(MIX)
    weights = list(MIX.values())
    plans = []
    for connection in range(connections):
        kind = kinds[connection % len(kinds)]
        plan = [Batch([build_request(kind, f"{seed}.{connection}.0,{connection},0")])]
        sequence = 0
        for _ in range(batches):
            requests: list[Request] = []
            for _ in range(chance.choice([1, 1, 1, 2, 3, most])):
                [kind] = chance.choices(kinds, weights)
                sequence += 1
                tag = f"{seed}.{connection}.{sequence},{connection},{sequence}"
                path = f"/{chance.randrange(1000)}" if chance.random() < 0.1 else ""
                requests.append(build_request(kind, tag, path))
                if kind == "broken":
                    break  # nothing is answered behind it
            batch = Batch(requests)
            if chance.random() < 0.04:
                batch.ending = chance.choice(["close", "reset"])
                batch.ending_s = chance.choice([0, 0.001, 0.005, 0.02])
            if chance.random() < 0.1:
                batch.pause_s = 0.02 * chance.random()
            plan.append(batch)
        plans.append(plan)
    return plans


def one_kind_plans(kind: str, connections: int, count: int, pause: Callable[[], float]) -> list[list[Batch]]:
    """`count` requests of one kind over so many connections, one at a time on each."""
    plans: list[list[Batch]] = [[] for _ in range(connections)]
    for number in range(count):
        connection = number % connections
        sequence = number // connections
        tag = f"{number},{connection},{sequence}"
        plans[connection].append(Batch([build_request(kind, tag)], pause_s=pause()))
    return plans
