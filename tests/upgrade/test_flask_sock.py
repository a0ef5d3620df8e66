"""Flask-Sock (simple-websocket), with clients of websocket-client: what WIRE.md 4 gives gunicorn.socket for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest
import websocket

from epollwsgi.output import LAST_WORD_S
from tests.support import Client, Server, ServerFactory, wait_until
from tests.upgrade.sockets import ASKING, ask, get, thread_count

HANDSHAKE = b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"


@pytest.fixture(scope="module")
def server(start_module_server: ServerFactory) -> Iterator[Server]:
    one = start_module_server("tests.upgrade.websockets_app:app")
    yield one
    assert one.stop() == 0


@pytest.fixture
def pinging(start_server: ServerFactory) -> Server:
    return start_server("tests.upgrade.websockets_app:app", env={"PING_INTERVAL": "0.2"})


@contextmanager
def talking(server: Server, path: str = "echo") -> Iterator[Any]:
    """A WebSocket whose descriptor is closed at the end, whatever has happened on it."""
    ws = open_socket(server, path)
    try:
        yield ws
    finally:
        ws.shutdown()


def open_socket(server: Server, path: str = "echo", timeout_s: float = 10.0) -> Any:
    return websocket.create_connection(f"ws://127.0.0.1:{server.port}/{path}", timeout=timeout_s)


def ends(server: Server, count: int) -> list[str]:
    """How `count` handlers have ended."""
    found: list[str] = []

    def all_there() -> bool:
        with Client(server.address) as client:
            found.extend(json.loads(client.request(get("ends")).body))
        return len(found) >= count

    wait_until(all_there, what=f"{count} sockets to end")
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 600_000])
def test_echo_of_all_sizes(server: Server, size: int) -> None:
    """At the borders of the three frame formats, and beyond what a socket takes at once."""
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    with closing(open_socket(server)) as ws:
        for _ in range(2):
            ws.send_binary(content)
            assert ws.recv() == content
            ws.send(content.decode())
            assert ws.recv() == content.decode()


def test_text_of_all_planes(server: Server) -> None:
    with closing(open_socket(server)) as ws:
        ws.send("Grüße \u2603 \U0001f600")
        assert ws.recv() == "Grüße \u2603 \U0001f600"


def test_fragments_are_one_message(server: Server) -> None:
    with closing(open_socket(server)) as ws:
        ws.send_frame(websocket.ABNF.create_frame("one ", websocket.ABNF.OPCODE_TEXT, 0))
        ws.ping("between")
        ws.send_frame(websocket.ABNF.create_frame("two ", websocket.ABNF.OPCODE_CONT, 0))
        ws.send_frame(websocket.ABNF.create_frame("three", websocket.ABNF.OPCODE_CONT, 1))
        assert ws.recv() == "one two three"


def test_pings_of_the_client(server: Server) -> None:
    with closing(open_socket(server)) as ws:
        for _ in range(3):
            ws.ping("are you there")
            assert receive_frame(ws, websocket.ABNF.OPCODE_PONG) == b"are you there"


def test_pings_of_the_server(pinging: Server) -> None:
    """The application asks every 0.2 s; who answers stays for longer than two of these."""
    server = pinging
    with closing(open_socket(server)) as ws:
        for _ in range(3):
            assert receive_frame(ws, websocket.ABNF.OPCODE_PING) == b""
        ws.send("still there")
        assert ws.recv() == "still there"


def receive_frame(ws: Any, opcode: int) -> bytes:
    """The data of the next frame of that kind; pings are answered, as a client does, but no close is."""
    for _ in range(100):
        frame = ws.recv_frame()
        if frame.opcode == websocket.ABNF.OPCODE_PING:
            ws.pong(frame.data)
        if frame.opcode == opcode:
            return bytes(frame.data)
    raise AssertionError(f"100 frames and none of them {opcode}")


def test_client_that_does_not_answer_pings_is_closed(pinging: Server) -> None:
    server = pinging
    with closing(open_socket(server)) as ws:
        code = 0
        for _ in range(10):
            frame = ws.recv_frame()  # answers nothing
            if frame.opcode == websocket.ABNF.OPCODE_CLOSE:
                code = int.from_bytes(frame.data[:2], "big")
                break
        assert code == 1008
    ends(server, 1)


def test_close_by_the_client(server: Server) -> None:
    """The handler is told code and reason; the client gets the answer, then the end of the connection.

    simple-websocket sends that answer on a thread of its own, perhaps when the call has returned already.
    """
    ends(server, 0)
    for _ in range(20):
        with talking(server) as ws:
            ws.send("x")
            assert ws.recv() == "x"
            ws.send_close(4000, b"the client's reason")
            data = receive_frame(ws, websocket.ABNF.OPCODE_CLOSE)
            assert int.from_bytes(data[:2], "big") == 4000
            assert ws.sock.recv(100) == b""
    assert ends(server, 20) == ["4000 the client's reason"] * 20


def test_client_that_closes_without_a_word(server: Server) -> None:
    ends(server, 0)
    for _ in range(3):
        with talking(server):
            pass
    assert len(ends(server, 3)) == 3


def test_close_by_the_server(server: Server) -> None:
    with talking(server, "closes") as ws:
        data = receive_frame(ws, websocket.ABNF.OPCODE_CLOSE)
        assert (int.from_bytes(data[:2], "big"), data[2:]) == (4001, b"the server's reason")
        assert ws.sock.recv(100) == b""


def test_handler_that_returns_closes_normally(server: Server) -> None:
    """All that it has sent comes before."""
    with talking(server, "count/500") as ws:
        assert [ws.recv() for _ in range(500)] == [str(n) for n in range(500)]
        assert receive_frame(ws, websocket.ABNF.OPCODE_CLOSE)[:2] == (1000).to_bytes(2, "big")
        assert ws.sock.recv(100) == b""


def test_handler_that_fails(start_server: ServerFactory) -> None:
    """Its traceback is logged; the connection ends; the worker goes on."""
    server = start_server("tests.upgrade.websockets_app:app")
    with talking(server, "fails") as ws:
        ws.send("x")
        ws.sock.settimeout(30)
        while ws.sock.recv(4096):
            pass
    server.wait_for_log("RuntimeError: a socket's handler failed")
    with closing(open_socket(server)) as other:
        other.send("goes on")
        assert other.recv() == "goes on"


def test_ordinary_request_of_a_websocket_route(server: Server) -> None:
    """Werkzeug refuses it, as on any server; and a WebSocket at an ordinary route."""
    with Client(server.address) as client:
        assert client.request(get("echo")).status == 400
    for path in ("plain", "nothing"):
        with Client(server.address) as client:
            reply = client.request(ask(path, ASKING + HANDSHAKE))
            assert reply.status in (400, 404)
            assert client.read_to_end() == b""


def test_twenty_at_once_beside_ordinary_requests(server: Server) -> None:
    """Nobody waits for another, and threads and descriptors end with them."""
    with Client(server.address) as client:
        assert client.request(get("plain")).body == b"plain"  # all of the server's own are open then
    before = server.descriptor_count()
    done = threading.Event()

    def talk(number: int) -> int:
        with closing(open_socket(server)) as ws:
            for turn in range(40):
                text = f"{number} {turn} " + "x" * (turn * 50)
                ws.send(text)
                assert ws.recv() == text
        return number

    def ask(path: str) -> int:
        count = 0
        with Client(server.address) as client:
            while not done.is_set() and count < 20_000:
                assert client.request(get(path)).body == path.encode()
                count += 1
        return count

    with ThreadPoolExecutor(24) as pool:
        asking = [pool.submit(ask, path) for path in ("plain", "plain", "slow", "slow")]
        try:
            talking = [pool.submit(talk, number) for number in range(20)]
            assert [job.result(timeout=60) for job in talking] == list(range(20))
        finally:
            done.set()
        assert all(job.result(timeout=30) > 0 for job in asking)
    wait_until(lambda: server.descriptor_count() <= before + 1, what="the descriptors to be closed")
    wait_until(lambda: thread_count(server) <= 12, what="the threads to end")


def test_connections_beside_closing_sockets(server: Server) -> None:
    """Sockets come and go; the numbers of their descriptors go to others, all of which are answered."""
    others = [Client(server.address) for _ in range(3)]
    try:
        for turn in range(60):
            with closing(open_socket(server)) as ws:
                ws.send("x")
                assert ws.recv() == "x"
            others.append(Client(server.address))
            if turn % 3 == 0:
                others.pop(0).sock.close()
            for other in others[-3:]:
                assert other.request(get("plain")).body == b"plain"
        time.sleep(2 * LAST_WORD_S)
        for other in others:
            assert other.request(get("plain")).body == b"plain"
    finally:
        for other in others:
            other.sock.close()


def test_term_ends_them_in_order(start_server: ServerFactory) -> None:
    """The handlers see the end of input, and the worker does not wait for graceful_timeout."""
    server = start_server("tests.upgrade.websockets_app:app")
    with ExitStack() as stack:
        sockets = [stack.enter_context(talking(server)) for _ in range(5)]
        for ws in sockets:
            ws.send("x")
            assert ws.recv() == "x"
        started_at = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started_at < 25  # graceful_timeout is 30 s
        for ws in sockets:
            with suppress(ConnectionResetError):  # the worker has ended, and pings wait unread
                ws.sock.settimeout(30)
                while ws.sock.recv(4096):
                    pass
    assert "were cut" not in server.stderr_text()
