"""The states of a connection: no traffic makes a move that `states.NEXT` does not have, and every move is made."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from epollwsgi import acceptor
from epollwsgi.config.settings import Settings
from epollwsgi.config.values import TCPBind
from epollwsgi.connection import Connection
from epollwsgi.listener import open_listeners
from epollwsgi.logs.opening import open_logs
from epollwsgi.output import RESET_ON_CLOSE, Output
from epollwsgi.process.worker import Worker
from epollwsgi.states import APP, BODY, CLOSED, HEAD, LINGER, NEXT, SEND, State

moves: set[tuple[State, State]] = set()
clients: list[socket.socket] = []
state_slot = Output.__dict__["state"]


class Watched(Connection):
    """A connection that notes its moves."""

    __slots__ = ()

    @property
    def state(self) -> State:
        found: State = state_slot.__get__(self, Output)
        return found

    @state.setter
    def state(self, new: State) -> None:
        try:
            old = self.state
        except AttributeError:
            old = new  # the first
        if old is not new:
            moves.add((old, new))
        state_slot.__set__(self, new)


def reset(client: socket.socket) -> None:
    """Close with a reset."""
    if client.fileno() >= 0:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        client.close()


def flood(client: socket.socket) -> Iterator[bytes]:
    """Content for a client that goes away meanwhile."""
    for _ in range(50):
        reset(client)
        yield b"x" * 65536


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes] | list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [])
        return iter([b"a", b"b"])
    if path == "/broken":
        start_response("200 OK", [])
        return (item for item in [b"a", 1 / 0])  # type: ignore[misc]
    if path == "/abandoned":
        start_response("200 OK", [])
        return flood(clients[-1])
    size = 8 << 20 if path == "/large" else 5
    start_response("200 OK", [("Content-Length", str(size))])
    return [b"x" * size]


HEADERS = b" HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /" + HEADERS + b"\r\n"
# What clients do: pieces to send; True reads what there is, False closes, None resets.
TRAFFIC: dict[str, list[bytes | bool | None]] = {
    "kept": [GET, True, GET, True, False],
    "closed by the request": [b"GET /" + HEADERS + b"Connection: close\r\n\r\n", True, False],
    "body": [b"POST /" + HEADERS + b"Content-Length: 4\r\n\r\n", b"abcd", True, False],
    "body cut": [b"POST /" + HEADERS + b"Content-Length: 4\r\n\r\n", b"ab", False],
    "body broken": [b"POST /" + HEADERS + b"Transfer-Encoding: chunked\r\n\r\n", b"xyz\r\n", True, False],
    "refused": [b"GET\r\n\r\n", True, False],
    "streamed": [b"GET /stream" + HEADERS + b"\r\n", True, False],
    "streamed, then closed": [b"GET /stream" + HEADERS + b"Connection: close\r\n\r\n", True, False],
    "streamed in 1.0": [b"GET /stream HTTP/1.0\r\n\r\n", True, False],
    "failed": [b"GET /broken HTTP/1.0\r\n\r\n", True, False],
    "failed in 1.1": [b"GET /broken" + HEADERS + b"\r\n", True, False],
    "large": [b"GET /large" + HEADERS + b"\r\n", True, True, GET, True, False],
    "large, left": [b"GET /large" + HEADERS + b"\r\n", False],
    "body reset": [b"POST /" + HEADERS + b"Content-Length: 4\r\n\r\n", b"ab", None],
    "abandoned": [b"GET /abandoned" + HEADERS + b"\r\n"],
    "idle": [False],
}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Worker, tuple[str, int]]]:
    monkeypatch.setattr(acceptor, "Connection", Watched)
    settings = Settings(bind=(TCPBind("127.0.0.1", 0),), accesslog="none", errorlog="/dev/null", keepalive=1.0)
    listeners = open_listeners(settings)
    made = Worker(settings, application, listeners, *open_logs(settings))
    made._open()
    yield made, listeners[0].sock.getsockname()
    for connection in list(made.service.connections):
        connection.close_if_idle()
    for listener in listeners:
        listener.close()
    made.service.loop.close()


def turns(worker: Worker, count: int = 4) -> None:
    for _ in range(count):
        worker.service.loop.wake()
        worker.service.loop.turn()


def take(client: socket.socket, worker: Worker) -> None:
    """Read until nothing comes any more."""
    client.setblocking(False)
    quiet = 0
    while quiet < 3:
        turns(worker, 2)
        try:
            if not client.recv(1 << 20):
                return
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.005)


def test_moves(worker: tuple[Worker, tuple[str, int]]) -> None:
    server, address = worker
    moves.clear()
    for steps in TRAFFIC.values():
        with socket.create_connection(address) as client:
            clients.append(client)
            turns(server)
            for step in steps:
                if isinstance(step, bytes):
                    client.setblocking(True)
                    client.sendall(step)
                    turns(server)
                elif step:
                    take(client, server)
                elif step is None:
                    reset(client)
        turns(server)
    idle = socket.create_connection(address)
    idle.sendall(GET)
    end_at = time.monotonic() + 10
    while (HEAD, LINGER) not in moves and time.monotonic() < end_at:  # kept for a second only
        turns(server)
        time.sleep(0.05)
    idle.close()
    turns(server)
    allowed = {(old, new) for old, following in NEXT.items() for new in following}
    assert moves <= allowed, "moves that NEXT does not have"
    assert allowed <= moves, "moves of NEXT that nothing made"


def test_every_state_is_in_the_table() -> None:
    assert set(NEXT) == set(State) == {HEAD, BODY, APP, SEND, LINGER, CLOSED}
