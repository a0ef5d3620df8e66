"""Flask-SocketIO in threading mode, with clients of python-socketio: WebSocket, polling, from one to the other."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest
import socketio

from tests.support import Client, Server, ServerFactory
from tests.upgrade.sockets import get

TRANSPORTS = {"websocket": ["websocket"], "polling": ["polling"], "upgraded": ["polling", "websocket"]}


@pytest.fixture(scope="module")
def server(start_module_server: ServerFactory) -> Iterator[Server]:
    one = start_module_server("tests.upgrade.websockets_app:socketio_app")
    yield one
    # Its log is not looked at: threads of engineio and simple-websocket may meet on a socket that one of them closes.
    assert one.stop() == 0


class Talker:
    """One client, as a context manager; what it is told is in `said`."""

    def __init__(self, server: Server, transports: list[str]) -> None:
        self.said: queue.Queue[Any] = queue.Queue()
        self.client = socketio.Client(reconnection=False)
        self.client.on("said", self.said.put)
        self.ended: queue.Queue[Any] = queue.Queue()
        self.client.on("disconnect", lambda *reason: self.ended.put(reason))
        self.server = server
        self.transports = transports

    def __enter__(self) -> Talker:
        self.client.connect(self.server.url, transports=self.transports, wait_timeout=20)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()


@pytest.mark.parametrize("how", TRANSPORTS)
def test_call_and_answer(server: Server, how: str) -> None:
    with Talker(server, TRANSPORTS[how]) as talker:
        for data in ("text", {"a": [1, None, "é"]}, "x" * 100_000, {"bytes": b"\x00\xff" * 10_000}):
            answer = talker.client.call("ask", data, timeout=20)
            assert answer["echo"] == data
        assert talker.client.transport() == ("polling" if how == "polling" else "websocket")
        assert answer["transport"] == talker.client.transport()


def test_everybody_is_told(server: Server) -> None:
    """From a client of each kind to all the others, while ordinary requests are answered."""
    with (
        Talker(server, ["websocket"]) as first,
        Talker(server, ["polling"]) as second,
        Talker(server, ["polling", "websocket"]) as third,
        Client(server.address) as asking,
    ):
        for number, talker in enumerate((first, second, third)):
            talker.client.emit("say", {"number": number})
            assert [one.said.get(timeout=20) for one in (first, second, third)] == [{"number": number}] * 3
            assert asking.request(get("plain")).body == b"plain"


@pytest.mark.parametrize("how", ["websocket", "upgraded"])
def test_stays_over_several_pings(server: Server, how: str) -> None:
    """The server asks every second."""
    with Talker(server, TRANSPORTS[how]) as talker:
        with pytest.raises(queue.Empty):
            talker.ended.get(timeout=2.5)
        assert talker.client.call("ask", "there?", timeout=20)["echo"] == "there?"


@pytest.mark.parametrize("how", TRANSPORTS)
def test_end_by_the_server(server: Server, how: str) -> None:
    with Talker(server, TRANSPORTS[how]) as talker:
        talker.client.emit("leave")
        talker.ended.get(timeout=20)
        assert not talker.client.connected


def test_twenty_at_once(server: Server) -> None:
    talkers: list[Talker] = []
    try:
        for number in range(20):
            talkers.append(Talker(server, TRANSPORTS["websocket" if number % 2 else "upgraded"]))
            talkers[-1].__enter__()
        for talker in talkers:
            talker.client.emit("say", "all of you")
        for talker in talkers:
            assert [talker.said.get(timeout=20) for _ in talkers] == ["all of you"] * 20
    finally:
        for talker in talkers:
            talker.client.disconnect()
