"""Raw connections that ask for a WebSocket, for the tests of gunicorn.socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support import Client, Response, Server, parse_head
from tests.upgrade.apps import ACCEPTED

ASKING = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


def ask(path: str, fields: bytes = ASKING, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    return f"{method} /{path} HTTP/{version}\r\nHost: h\r\n".encode() + fields + b"\r\n" + body


def get(path: str) -> bytes:
    return ask(path, b"")


def upgrade(client: Client, path: str = "echo") -> None:
    """Ask, and read the 101 of the application; fails with what came instead."""
    client.send(ask(path))
    while parse_head(client.buffer) is None and not client.closed:
        client.receive()
    assert client.buffer.startswith(ACCEPTED), client.buffer[:500]
    client.buffer = client.buffer[len(ACCEPTED) :]


def receive_exactly(client: Client, size: int) -> bytes:
    while len(client.buffer) < size:
        assert client.receive(), client.buffer[:200]
    data, client.buffer = client.buffer[:size], client.buffer[size:]
    return data


def echoes(client: Client, data: bytes) -> bool:
    client.send(data)
    return receive_exactly(client, len(data)) == data


@contextmanager
def upgraded(server: Server, count: int, path: str = "echo") -> Iterator[list[Client]]:
    """So many connections whose sockets the application has."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.address)) for _ in range(count)]
        for client in clients:
            upgrade(client, path)
        yield clients


def ask_once(server: Server, data: bytes) -> Response:
    with Client(server.address) as client:
        return client.request(data)


def thread_count(server: Server) -> int:
    return len(list(Path(f"/proc/{server.worker_pid}/task").iterdir()))
