"""The end of a connection: the client's, the server's, and that of the process. WIRE.md, OPERATIONS.md 2 and 3."""

from __future__ import annotations

import contextlib
import json
import signal
import time

import pytest

from tests.support import (
    Client,
    Server,
    ServerFactory,
    connect,
    exchange,
    parse_responses,
    wait_until,
)
from tests.wire.rows import SHAPE_BODY as BODY
from tests.wire.rows import get, post, shape
from tests.wire.streams import numbered


@pytest.mark.parametrize("name", ["list_one", "generator", "large_list?4", "large?4", "large_file?4"])
def test_half_closed_client_gets_its_whole_answer(shapes: Server, name: str) -> None:
    """A FIN behind the request, at once or later, is no reason to stop; then the connection is closed."""
    for when in ("at once", "later"):
        with Client(shapes.address, receive_buffer_size=16384) as client:
            client.send(shape(name))
            if when == "later":
                client.receive(100)
            client.half_close()
            data = client.read_to_end()
            [reply] = parse_responses(data)
            assert len(reply.body) == (4 << 20 if "?4" in name else 12)


def test_half_closed_client_gets_all_pipelined_answers(echo: Server) -> None:
    for count in (2, 50):
        data = exchange(echo.address, [b"".join(numbered(count))], half_close=True, count=0)
        assert len(parse_responses(data)) == count


def test_end_behind_a_large_request_is_seen(echo: Server) -> None:
    """The end of input behind a request of more than one read: closed at once, not when time is up."""
    for size in (10_000, 65_536, 300_000):
        data = post(b"Content-Length: %d" % size, body=b"x" * size)
        with Client(echo.address, timeout_s=12) as client:
            client.send(data)
            client.half_close()
            assert json.loads(client.read_response().body)["length"] == size
            assert client.read_to_end() == b""


def test_half_closed_without_a_request(echo: Server) -> None:
    """Nothing, an empty line, or half a head and then the end: the connection ends, without more than one answer."""
    for data in (b"", b"\r\n", b"GET", b"GET / HTTP/1.1\r\n", get()[:-2], get()[:-1]):
        answer = exchange(echo.address, [data], half_close=True, count=0, timeout=12)
        assert answer == b"" or [reply.status for reply in parse_responses(answer)] == [400]


def refused_upload(size: int) -> bytes:
    return post(b"Content-Length: %d" % size)


def test_refused_while_the_client_still_sends(start_server: ServerFactory) -> None:
    """The client gets the response, not a reset, though it sends on for a while before it reads (RFC 9112 9.6)."""
    server = start_server("tests.apps.echo:app", "--limit-request-body", "1000")
    for size in (1001, 100_000, 3 << 20):
        with Client(server.address) as client:
            client.send(refused_upload(size))
            for at in range(0, size, 65536):
                client.send(b"x" * min(65536, size - at))
            reply = client.read_response()
            assert (reply.status, reply.tokens) == (413, {"close"})
            assert client.read_to_end() == b""
    # a bad head, and more behind it
    with Client(server.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost : h\r\n\r\n")
        for _ in range(30):
            client.send(b"y" * 65536)
        assert client.read_response().status == 400
        assert client.read_to_end() == b""


def test_lingering_is_bounded(start_server: ServerFactory) -> None:
    """Whoever sends on and on after a refusal is cut off; whoever holds the connection is, too."""
    server = start_server("tests.apps.echo:app", "--limit-request-body", "1000")
    with Client(server.address) as watcher:
        watcher.request(get())
        count = server.descriptor_count()
        with Client(server.address) as client, Client(server.address) as silent:
            silent.send(refused_upload(2000))
            assert silent.read_response().status == 413
            client.send(refused_upload(1 << 30))
            assert client.read_response().status == 413
            sent = 0
            end_at = time.monotonic() + 20
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while sent < 1 << 28 and time.monotonic() < end_at:
                    client.send(b"x" * 65536)
                    sent += 65536
            assert sent < 32 << 20  # 4 MiB and what the socket buffers take
            # The other sends nothing and closes nothing.
            wait_until(lambda: server.descriptor_count() <= count, 10, "both connections to be closed")
        assert watcher.request(get()).status == 200


# --- stopping --------------------------------------------------------------------------------------------------------


def test_stop_with_open_connections(start_server: ServerFactory) -> None:
    """Idle, half-way and unaccepted connections do not keep it from stopping cleanly."""
    server = start_server("tests.apps.shapes:app", "--graceful-timeout", "3")
    clients = [Client(server.address) for _ in range(6)]
    try:
        clients[0].request(shape("list_one"))
        clients[1].send(b"GET / HT")
        clients[2].send(post(b"Content-Length: 5", body=b"ab"))
        assert server.stop() == 0
        assert "Traceback" not in server.stderr_text()
        with pytest.raises(ConnectionRefusedError):
            connect(server.address)
    finally:
        for client in clients:
            client.sock.close()


def test_stop_finishes_open_requests(start_server: ServerFactory) -> None:
    """TERM: answers on their way are finished, requests on kept connections are still answered, with `close`."""
    server = start_server("tests.apps.shapes:app")
    with Client(server.address) as slow, Client(server.address) as idle, Client(server.address) as half:
        assert idle.request(shape("list_one")).body == BODY
        slow.send(shape("large_list?16"))
        half.send(shape("list_one")[:-2])
        slow.receive(1)
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(server), what="the listener to be closed")
        reply = idle.request(shape("list_one"))
        assert (reply.body, reply.tokens) == (BODY, {"close"})
        assert idle.read_to_end() == b""
        half.send(b"\r\n")
        assert half.read_response().tokens == {"close"}
        assert slow.skip_response() == 16 << 20
        assert slow.read_to_end() == b""
    assert server.stop() == 0
    assert "were cut" not in server.stderr_text()


def is_refused(server: Server) -> bool:
    try:
        connect(server.address).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGQUIT])
def test_stop_at_once(start_server: ServerFactory, sig: signal.Signals) -> None:
    """INT and QUIT do not wait for a client that takes nothing."""
    server = start_server("tests.apps.shapes:app")
    with Client(server.address) as slow:
        slow.send(shape("large_list?16"))
        slow.receive(1)
        assert server.stop(sig, timeout_s=20) == 0
