"""How a connection comes back to the loop, by the real code of `Loop`, `Output` and `Connection`: none stays in the
inbox of a loop that sleeps, no input is lost meanwhile, and the thread touches nothing of what it has given back.

The epoll is a stand-in that tells of each input once, as an edge-triggered one does; sockets are real. All schedules
(see `schedule`) with up to two deviations are walked, with one for longer scenes. The variants at the end are wrong,
and found to be.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from epollwsgi import loop
from epollwsgi.config.settings import Settings
from epollwsgi.connection import Connection
from epollwsgi.logs.opening import open_logs
from epollwsgi.loop import IN, OUT, Loop
from epollwsgi.output import Output
from epollwsgi.pagecache import AlwaysWarm
from epollwsgi.service import Service
from tests.model.schedule import FOREVER, Broken, Run, SharedDeque, SharedValue, explore, monotonic, run, share

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
COUNT = 2  # requests

Respond = Callable[[Any], None]


class Poll:
    """Stands for epoll: tells of each event once."""

    def __init__(self) -> None:
        self.pending: dict[int, int] = {}
        self.is_woken = False

    def register(self, fd: int, mask: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
    def close(self) -> None: ...

    def poll(self, wait_s: float | None, count: int) -> list[tuple[int, int]]:
        run().step("poll", id(self))
        if wait_s != 0:
            run().block(lambda: bool(self.pending) or self.is_woken, FOREVER if wait_s is None else wait_s, "poll")
        events = list(self.pending.items())
        self.pending.clear()
        self.is_woken = False
        return events


class StagedLoop(Loop):
    is_asleep: Any = SharedValue("is_asleep")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.epoll.close()
        self.staged: Any = Poll()
        self.epoll = cast(Any, self.staged)
        share(self, "inbox", "calls")

    def wake(self) -> None:
        run().step("wake", id(self.staged))
        self.staged.is_woken = True

    def give_back(self, client: Any) -> None:
        client.is_lent = False
        super().give_back(client)


class Lent(SharedValue):
    """An attribute of a connection, which a thread must leave alone once it has given the connection back."""

    def look(self, instance: Any) -> None:
        actor = run().current
        if actor is not None and actor.name == "thread" and not instance.is_lent:
            run().fail(f"the thread touches {self.name} of a connection that it has given back")

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None:
            self.look(instance)
        return super().__get__(instance, owner)

    def __set__(self, instance: Any, value: Any) -> None:
        self.look(instance)
        super().__set__(instance, value)


class StagedConnection(Connection):
    is_owned: Any = Lent("is_owned", Output.__dict__["is_owned"])
    unread: Any = Lent("unread", Output.__dict__["unread"])
    state: Any = Lent("state", Output.__dict__["state"])
    is_listed: Any = Lent("is_listed", Output.__dict__["is_listed"])

    is_lent = False


class HandingLeader:
    """Stands for the leader: every request goes to the thread."""

    def __init__(self) -> None:
        self.orders: SharedDeque = SharedDeque()

    def call(self, sink: Any, *_: Any) -> None:
        sink.is_lent = True
        self.orders.append(sink)


class Stage:
    """A loop with one connection, its client, and a thread that answers. respond: how it does."""

    def __init__(self, one: Run, worker: Service, respond: Respond) -> None:
        self.worker = worker
        self.respond = respond
        self.loop = StagedLoop(b"")
        anything: Any = HandingLeader()
        worker.loop, worker.leader = self.loop, anything
        self.orders = anything.orders
        self.client, server = socket.socketpair()
        self.client.setblocking(False)
        server.setblocking(False)
        self.received = b""
        self.connection = StagedConnection(worker, server, ("127.0.0.1", "1"), worker.template_for(None))
        self.loop.add_client(self.connection)
        self.loop.running = True
        one.on_quiet = self._look
        for target in (self.loop.run, self._send, self._answer):
            one.add(target, {"_send": "client", "_answer": "thread"}.get(target.__name__, "loop"))

    def _has_all(self) -> bool:
        try:
            self.received += self.client.recv(4096)
        except BlockingIOError:
            pass
        return self.received.count(b"\r\n\r\n") >= COUNT

    def _send(self) -> None:
        poll = self.loop.staged
        for _ in range(COUNT):
            run().step("the client sends", id(poll))
            self.client.send(GET)
            poll.pending[self.connection.fd] = IN | OUT
        run().block(self._has_all, FOREVER, "answers")
        self.loop.call_soon(self._stop)

    def _stop(self) -> None:
        self.loop.running = False

    def _answer(self) -> None:
        for _ in range(COUNT):
            run().block(lambda: deque_length(self.orders) > 0, FOREVER, "an order")
            sink = self.orders.popleft()
            sink.become_owned()
            self.respond(sink)

    def _look(self) -> None:
        """All wait for a time limit, and nobody has one that matters."""
        raise Broken(
            f"the loop sleeps: inbox {list(self.loop.inbox)}, state {self.connection.state!r}, "
            f"answered {self.received.count(PAGE)} of {COUNT}"
        )

    def close(self) -> None:
        self.client.close()
        self.connection.sock.close()
        self.loop.close()


def deque_length(items: SharedDeque) -> int:
    """Without a switch point."""
    return sum(1 for _ in items)


def respond_page(sink: Any) -> None:
    sink.respond(PAGE, True)


def send_parts(sink: Any) -> None:
    sink.send(PAGE[:20])
    sink.send(PAGE[20:])
    sink.finish(True)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Service:
    settings = Settings(accesslog="none", errorlog="/dev/null")
    made = Service(settings, lambda environ, start: [b""], *open_logs(settings))
    made.loop.close()
    monkeypatch.setattr(loop, "monotonic", monotonic)
    return made


def walk(worker: Service, respond: Respond, deviations: int) -> int:
    """All schedules of two requests whose answers a thread sends like that; how many there are."""
    stages: list[Stage] = []

    def builder(one: Run) -> None:
        close()
        stages.append(Stage(one, worker, respond))

    def close() -> None:
        while stages:
            stages.pop().close()

    try:
        return explore(builder, deviations)
    finally:
        close()


def test_a_response_in_one_piece(worker: Service) -> None:
    assert walk(worker, respond_page, 2) > 100


def test_a_response_in_parts(worker: Service) -> None:
    assert walk(worker, send_parts, 1) > 10


def test_a_file(worker: Service, tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"x")
    with open(tmp_path / "content", "rb") as file:

        class Opened:
            fd = file.fileno()
            warm = AlwaysWarm()

        assert walk(worker, lambda sink: sink.send_file(PAGE[:-1], Opened(), 0, 1, True), 1) > 10


# --- wrong variants -------------------------------------------------------------------------------------------------


def test_a_thread_that_looks_before_it_appends_lets_the_loop_sleep(
    worker: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_back(self: StagedLoop, client: Any) -> None:
        is_asleep = self.is_asleep
        self.inbox.append(client)
        if is_asleep:
            self.wake()

    monkeypatch.setattr(StagedLoop, "give_back", give_back)
    with pytest.raises(Broken, match="the loop sleeps"):
        walk(worker, lambda sink: sink.respond(PAGE, True), 2)


def test_input_that_is_not_remembered_is_lost(worker: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StagedConnection, "_on_event_busy", lambda self, mask: None)
    with pytest.raises(Broken, match="the loop sleeps"):
        walk(worker, respond_page, 1)


def test_a_thread_that_looks_at_what_it_gave_back_is_caught(worker: Service) -> None:
    def respond_and_look(sink: Any) -> None:
        sink.respond(PAGE, True)
        if not sink.is_owned:
            sink.send_waiting()

    with pytest.raises(Broken, match="given back"):
        walk(worker, respond_and_look, 0)
