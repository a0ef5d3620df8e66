"""WIRE.md 4, gunicorn.socket: who gets the socket, what it is like, and how the server has it back."""

from __future__ import annotations

import json
import time

import pytest

from epollwsgi.output import LAST_WORD_S
from tests.support import Client, Server, ServerFactory, Truncated, connect, wait_until
from tests.upgrade.sockets import (
    ASKING,
    ask,
    ask_once,
    echoes,
    get,
    receive_exactly,
    thread_count,
    upgrade,
    upgraded,
)

# --- who gets it ------------------------------------------------------------------------------------------------------

ASKED: dict[str, bytes] = {
    "as browsers do": ask("show", b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: x\r\n"),
    "in any case": ask("show", b"UPGRADE: WebSocket\r\nCONNECTION: uPgRaDe\r\n"),
    "white space": ask("show", b"Upgrade: \t websocket \t\r\nConnection: ,keep-alive ,\tupgrade , \r\n"),
    "Connection twice": ask("show", b"Connection: keep-alive\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"),
    "version 1.2": ask("show", version="1.2"),
    "absolute target": b"GET http://other/show HTTP/1.1\r\nHost: h\r\n" + ASKING + b"\r\n",
    "query": ask("show?a=b"),
}
NOT_ASKED: dict[str, bytes] = {
    "nothing": get("show"),
    "no Connection": ask("show", b"Upgrade: websocket\r\n"),
    "no Upgrade": ask("show", b"Connection: Upgrade\r\n"),
    "Connection means another": ask("show", b"Upgrade: websocket\r\nConnection: keep-alive\r\n"),
    "option with more letters": ask("show", b"Upgrade: websocket\r\nConnection: upgrades, no-upgrade\r\n"),
    "another protocol": ask("show", b"Upgrade: h2c\r\nConnection: Upgrade\r\n"),
    "longer name": ask("show", b"Upgrade: websocket2\r\nConnection: Upgrade\r\n"),
    "HTTP/1.0": ask("show", version="1.0"),
    "HTTP/1.0 kept": ask("show", b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n", version="1.0"),
    "POST": ask("show", method="POST"),
    "PUT": ask("show", method="PUT"),
    "OPTIONS": ask("show", method="OPTIONS"),
    "a body": ask("show", ASKING + b"Content-Length: 3\r\n", body=b"abc"),
    "a chunked body": ask("show", ASKING + b"Transfer-Encoding: chunked\r\n", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "POST with a body": ask("show", ASKING + b"Content-Length: 3\r\n", method="POST", body=b"abc"),
}


@pytest.mark.parametrize("name", ASKED)
def test_socket_of_a_websocket_request(server: Server, name: str) -> None:
    """It blocks, has no timeout, is the client's, and stands in no epoll."""
    with Client(server.address) as client:
        reply = client.request(ASKED[name])
        seen = json.loads(reply.body)
        assert (seen["socket"], seen["input"]) == (True, "")
        assert (seen["blocking"], seen["timeout"], seen["epolls"]) == (True, None, 0)
        assert seen["peer"] == client.sock.getsockname()[1]
        assert reply["Connection"] == "close"
        assert client.read_to_end() == b""


@pytest.mark.parametrize("name", NOT_ASKED)
def test_no_socket_for_others(server: Server, name: str) -> None:
    data = NOT_ASKED[name]
    for _ in range(2):
        seen = json.loads(ask_once(server, data).body)
        assert seen == {"socket": False, "input": "abc" if b"abc" in data else ""}


def test_each_request_of_a_connection_is_looked_at(server: Server) -> None:
    """Whatever the connection remembers of earlier fields: none, none, then the socket."""
    for first in (get("show"), ask("show", method="POST"), ask("show", b"Upgrade: websocket\r\n")):
        with Client(server.address) as client:
            for _ in range(4):
                assert json.loads(client.request(first).body)["socket"] is False
            upgrade(client)
            assert echoes(client, b"hello")


def test_head_in_pieces(server: Server) -> None:
    data = ask("echo")
    with Client(server.address) as client:
        for at in range(len(data)):
            client.send(data[at : at + 1])
        while b"\r\n\r\n" not in client.buffer:
            assert client.receive()
        assert client.buffer.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("behind", [b"x", b"\x81\x80\0\0\0\0", get("quick"), ask("echo"), b"\r\n"])
def test_bytes_behind_the_head_are_400(server: Server, behind: bytes) -> None:
    """What stands there would be lost to the application, or taken for another request."""
    with Client(server.address) as client:
        reply = client.request(ask("echo") + behind)
        assert reply.status == 400
        assert "close" in reply.tokens
        assert client.read_to_end() == b""


def test_behind_pipelined_answers(server: Server) -> None:
    """The answers before it come first, then the socket is the application's."""
    with Client(server.address) as client:
        client.send(get("quick") * 3 + ask("echo"))
        for _ in range(3):
            assert client.read_response().body == b"quick"
        while b"\r\n\r\n" not in client.buffer:
            assert client.receive()
        assert client.buffer.startswith(b"HTTP/1.1 101 ")
        client.buffer = b""
        assert echoes(client, b"hello")


def test_over_a_unix_socket(start_server: ServerFactory) -> None:
    server = start_server("tests.upgrade.apps:app", bind="unix")
    with Client(server.address) as client:
        upgrade(client)
        assert echoes(client, b"x" * 65_536)
        client.half_close()
        assert client.read_to_end() == b""


# --- what comes of it -------------------------------------------------------------------------------------------------


def test_taken(server: Server) -> None:
    """StopIteration: the server writes nothing more and closes."""
    for _ in range(5):
        with Client(server.address) as client:
            upgrade(client)
            for size in (1, 100, 65_536):
                assert echoes(client, b"y" * size)
            client.half_close()
            assert client.read_to_end() == b""
    assert "Traceback" not in server.stderr_text().partition("asked to fail")[0]


def test_calls_are_not_on_the_main_thread(start_server: ServerFactory) -> None:
    """Not with threads = 1 either, where all other calls are."""
    server = start_server("tests.upgrade.apps:app", "--threads", "1")
    with Client(server.address) as client:
        upgrade(client)
        client.half_close()
        assert client.read_to_end() == b""
    wait_until(lambda: json.loads(ask_once(server, get("notes")).body) == ["end False"])


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("refuses", 426, b"not here"),
        ("streams", 200, b"".join(b"%d," % number for number in range(50))),
        ("taken_in_iterator", 200, b""),
        ("fails", 500, None),
    ],
)
def test_any_other_outcome_is_an_ordinary_response(server: Server, path: str, status: int, body: bytes | None) -> None:
    for _ in range(3):
        with Client(server.address) as client:
            reply = client.request(ask(path))
            assert reply.status == status
            assert body is None or reply.body == body
            assert "close" in reply.tokens
            assert client.read_to_end() == b""


def test_stop_iteration_in_an_ordinary_response_is_a_fault(server: Server) -> None:
    """Once a part of a response is sent the connection was not taken: it is cut, and said so in the log."""
    with Client(server.address) as client, pytest.raises(Truncated):
        client.request(ask("stops_after_head"))
    server.wait_for_log("StopIteration")


def test_stop_iteration_without_a_socket_is_a_fault(server: Server) -> None:
    """Any other request that raises it gets a 500."""
    with Client(server.address) as client:
        assert client.request(get("fails")).status == 500
        assert client.request(get("quick")).body == b"quick"


def test_client_that_resets(server: Server) -> None:
    assert ask_once(server, get("quick")).body == b"quick"  # all of the server's own are open then
    count = server.descriptor_count()
    for _ in range(10):
        client = Client(server.address)
        upgrade(client)
        client.reset()
    wait_until(lambda: server.descriptor_count() <= count, what="the descriptors to be closed")
    assert ask_once(server, get("quick")).body == b"quick"


def test_nothing_is_left(server: Server) -> None:
    """Threads and descriptors end with their connections."""
    with upgraded(server, 10):
        busy = thread_count(server), server.descriptor_count()
    wait_until(lambda: thread_count(server) <= busy[0] - 10, what="the threads to end")
    wait_until(lambda: server.descriptor_count() <= busy[1] - 10, what="the descriptors to be closed")


# --- the application closes the socket itself -------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["stops", "responds"])
def test_number_of_a_socket_that_the_application_closed(start_server: ServerFactory, query: str) -> None:
    """Another connection has got the descriptor's number meanwhile: it is left alone, and goes on."""
    server = start_server("tests.upgrade.apps:app")
    with Client(server.address) as taken, Client(server.address) as asking:
        upgrade(taken, f"closes_early?{query}")
        assert asking.request(get("notes")).body == b"[]"
        taken.send(b"close it")
        assert taken.read_to_end() == b""
        others: list[Client] = []

        def is_reused() -> bool:
            others.append(Client(server.address))
            assert others[-1].request(get("quick")).body == b"quick"
            return b"reused" in asking.request(get("notes")).body

        try:
            wait_until(is_reused, what="another connection with the number")
            time.sleep(2 * LAST_WORD_S)
            for _ in range(50):  # the loop has that connection back, and ends it
                assert asking.request(get("quick")).body == b"quick"
            for other in others:
                assert other.request(get("quick")).body == b"quick"
        finally:
            for other in others:
                other.sock.close()


def test_socket_that_the_application_closes_long_after(start_server: ServerFactory) -> None:
    """The object that it kept is worth nothing any more: closing it harms no connection."""
    server = start_server("tests.upgrade.apps:app")
    with upgraded(server, 3, "closes_late") as clients:
        for client in clients:
            assert client.read_to_end() == b""
    count = server.descriptor_count()
    others = [Client(server.address) for _ in range(6)]
    try:
        for other in others:
            assert other.request(get("quick")).body == b"quick"
        assert others[0].request(get("close_held")).body == b"closed"
        for other in others:
            assert other.request(get("quick")).body == b"quick"
        assert server.descriptor_count() >= len(others)
    finally:
        for other in others:
            other.sock.close()
    wait_until(lambda: server.descriptor_count() <= count)


# --- how many ---------------------------------------------------------------------------------------------------------


def test_upgrade_threads(start_server: ServerFactory) -> None:
    """Beyond the limit 503 with Retry-After; ordinary requests are answered all the while; room is given back."""
    server = start_server("tests.upgrade.apps:app", "--upgrade-threads", "2")
    with upgraded(server, 2) as (first, second):
        for _ in range(2):
            with Client(server.address) as third:
                reply = third.request(ask("echo"))
                assert (reply.status, reply["Retry-After"]) == (503, "1")
                assert "close" in reply.tokens
                assert third.read_to_end() == b""
        assert ask_once(server, get("quick")).body == b"quick"
        assert echoes(second, b"goes on")
        first.half_close()
        assert first.read_to_end() == b""

        def is_room() -> bool:
            with Client(server.address) as client:
                client.send(ask("echo"))
                return client.receive().startswith(b"HTTP/1.1 101 ")

        wait_until(is_room, what="a place to be free")
        assert echoes(second, b"still")


def test_no_upgrade_threads_at_all(start_server: ServerFactory) -> None:
    server = start_server("tests.upgrade.apps:app", "--upgrade-threads", "0")
    assert ask_once(server, ask("echo")).status == 503
    assert ask_once(server, get("quick")).body == b"quick"


@pytest.mark.parametrize("threads", ["1", "2"])
def test_upgrades_do_not_count_as_threads(start_server: ServerFactory, threads: str) -> None:
    server = start_server("tests.upgrade.apps:app", "--threads", threads)
    with upgraded(server, 6) as clients, Client(server.address) as other:
        for _ in range(20):
            assert other.request(get("quick")).body == b"quick"
        slow = [connect(server.address) for _ in range(2)]
        try:
            for sock in slow:
                sock.sendall(get("inside?200"))
            assert all(echoes(client, b"beside slow ones") for client in clients)
            assert all(sock.recv(100).startswith(b"HTTP/1.1 200") for sock in slow)
        finally:
            for sock in slow:
                sock.close()


# --- time -------------------------------------------------------------------------------------------------------------


def test_time_limits_do_not_apply(start_server: ServerFactory) -> None:
    """Idle for longer than each of them: nothing is logged, closed or answered, and the socket works."""
    limits = [
        f"--{name}=0.4" for name in ("timeout", "slow-request-time", "send-timeout", "header-timeout", "keep-alive")
    ]
    # Alone: a master would replace the worker with the stuck request.
    server = start_server("tests.upgrade.apps:app", "--log-level", "debug", *limits, module="tests.alone")
    with upgraded(server, 2) as clients, Client(server.address) as slow:
        slow.send(get("inside?1600"))  # the same limits do apply to this one: the watchdog is at work
        assert slow.read_response().status == 504
        assert all(client.is_quiet(0.8) for client in clients)
        assert all(echoes(client, b"still here") for client in clients)
        log = server.stderr_text()
    assert "/inside" in log
    assert "/echo" not in log


# --- the end of the worker --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["echo", "says_goodbye", "forgets"])
def test_term_shuts_them_for_reading(start_server: ServerFactory, path: str) -> None:
    """The application reads the end of input at once, may still say goodbye, and the worker ends without waiting."""
    server = start_server("tests.upgrade.apps:app")
    with upgraded(server, 5, path) as clients:
        started_at = time.monotonic()
        server.send_signal(15)
        for client in clients:
            assert client.read_to_end() == (b"goodbye" if path == "says_goodbye" else b"")
        assert server.stop() == 0
        assert time.monotonic() - started_at < 25  # graceful_timeout is 30 s
    assert "were cut" not in server.stderr_text()
    assert "Traceback" not in server.stderr_text()


def test_websocket_request_while_the_worker_drains(start_server: ServerFactory) -> None:
    """It does not hold the end up: refused, or shut for reading from the beginning."""
    server = start_server("tests.upgrade.apps:app")
    with Client(server.address) as busy, Client(server.address) as late, upgraded(server, 1) as (one,):
        busy.send(get("inside?700"))
        assert late.request(get("quick")).body == b"quick"
        started_at = time.monotonic()
        server.send_signal(15)
        assert one.read_to_end() == b""  # the worker drains now
        late.send(ask("echo"))
        late.read_to_end()
        assert busy.read_response().status == 200
        assert server.stop() == 0
        assert time.monotonic() - started_at < 25  # graceful_timeout is 30 s


def test_int_ends_them_too(start_server: ServerFactory) -> None:
    server = start_server("tests.upgrade.apps:app")
    with upgraded(server, 3) as clients:
        assert server.stop(2) == 0
        assert all(client.read_to_end() == b"" for client in clients)


def test_hints_before_the_101(server: Server) -> None:
    """An interim response may stand there too; what follows is the application's."""
    with Client(server.address) as client:
        client.send(ask("hints_on_socket"))
        while client.buffer.count(b"\r\n\r\n") < 2:
            assert client.receive()
        assert client.buffer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ")
        assert b"\r\n\r\nHTTP/1.1 101 Switching" in client.buffer
        client.buffer = b""
        client.send(b"abc")
        assert receive_exactly(client, 3) == b"abc"
