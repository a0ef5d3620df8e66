"""Many connections, kept ones, kinds of addresses, and what is logged of them: what the sketch of the original idea did
wrong (first issue, point 9). Pipelining, closing and shortages have modules of their own.
"""

from __future__ import annotations

import json
import os
import socket
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.support import (
    Address,
    Client,
    Server,
    ServerFactory,
    exchange,
    raised_descriptor_limit,
    wait_until,
)
from tests.wire.rows import SHAPE_BODY as BODY
from tests.wire.rows import get, post, shape
from tests.wire.streams import numbered, numbers_of

# --- many at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart_s", [0, 0.001])
def test_256_connections(shapes: Server, apart_s: float) -> None:
    """Opened at once, and 1 ms apart: all are accepted, all are answered, all stay open."""
    clients: list[Client] = []
    try:
        with raised_descriptor_limit(1024):
            for _ in range(256):
                clients.append(Client(shapes.address))
                time.sleep(apart_s)
            for client in clients:
                client.send(shape("list_one"))
            for client in clients:
                assert client.read_response().body == BODY
            for client in reversed(clients):
                assert client.request(shape("generator")).body == BODY
    finally:
        for client in clients:
            client.sock.close()


@pytest.mark.parametrize("apart_s", [0, 0.001])
def test_256_connections_that_send_at_once(shapes: Server, apart_s: float) -> None:
    clients: list[Client] = []
    try:
        with raised_descriptor_limit(1024):
            for _ in range(256):
                clients.append(Client(shapes.address))
                clients[-1].send(shape("list_one", b"Connection: close"))
                time.sleep(apart_s)
            for client in clients:
                assert client.read_response().body == BODY
                assert client.read_to_end() == b""
    finally:
        for client in clients:
            client.sock.close()


def test_connections_one_after_another_leave_nothing(shapes: Server) -> None:
    """Clients that go away in every state: no descriptor stays behind."""
    with Client(shapes.address) as watcher:
        watcher.request(shape("list_one"))
        count = shapes.descriptor_count()
        ends = (Client.half_close, Client.reset, lambda client: client.sock.close())
        for data in (
            b"",
            b"GET",
            shape("list_one"),
            shape("large?2"),
            post(b"Content-Length: 9", body=b"abc"),
            b"\0\r\n",
        ):
            for end in ends:
                for _ in range(5):
                    with Client(shapes.address) as client:
                        client.send(data)
                        end(client)
        wait_until(lambda: shapes.descriptor_count() <= count, what="descriptors to be given back")
        assert watcher.request(shape("list_one")).body == BODY


# --- keep-alive ------------------------------------------------------------------------------------------------------

KEPT = [
    ("1.1", [], True),
    ("1.1", [b"Connection: keep-alive"], True),
    ("1.1", [b"Connection: close"], False),
    ("1.1", [b"connection: CLOSE"], False),
    ("1.1", [b"Connection: Keep-Alive, close"], False),
    ("1.1", [b"Connection: close, keep-alive"], False),
    ("1.1", [b"Connection: keep-alive", b"Connection: close"], False),
    ("1.1", [b"Connection: close", b"Connection: keep-alive"], False),
    ("1.1", [b"Connection: x,close,y"], False),
    ("1.1", [b"Connection: x ,\tclose"], False),
    ("1.1", [b"Connection:"], True),
    ("1.1", [b"Connection: closed"], True),
    ("1.1", [b"Connection: disclose"], True),
    ("1.1", [b"Connection: upgrade"], True),
    ("1.2", [], True),
    ("1.0", [], False),
    ("1.0", [b"Connection: keep-alive"], True),
    ("1.0", [b"Connection: KEEP-Alive"], True),
    ("1.0", [b"Connection: x, keep-alive"], True),
    ("1.0", [b"Connection: keep-alive, close"], False),
    ("1.0", [b"Connection: close"], False),
    ("1.0", [b"Connection: upgrade"], False),
]


@pytest.mark.parametrize(("version", "fields", "is_kept"), KEPT)
def test_kept_or_closed(echo: Server, version: str, fields: list[bytes], is_kept: bool) -> None:
    """Says `close` where it will close, `keep-alive` where an HTTP/1.0 connection is kept, and does as it says."""
    data = get(*fields, version=version.encode())
    with Client(echo.address) as client:
        for _ in range(4):  # remembered field lines and sections decide the same
            reply = client.request(data)
            assert reply.status == 200
            assert reply.tokens == ({"close"} if not is_kept else {"keep-alive"} if version == "1.0" else set())
            if not is_kept:
                assert client.read_to_end() == b""
                return
        assert client.is_quiet(0)


def test_a_kept_connection_answers_thousands(shapes: Server) -> None:
    with Client(shapes.address) as client:
        for _ in range(3000):
            client.send(shape("list_one"))
            assert client.read_response().body == BODY


def test_keepalive_0_closes_after_each_response(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", "--keep-alive", "0")
    for data in (get(), get(b"Connection: keep-alive", version=b"1.0"), post(b"Content-Length: 1", body=b"a")):
        with Client(server.address) as client:
            for _ in range(1):
                assert client.request(data).tokens == {"close"}
            assert client.read_to_end() == b""


# --- addresses -------------------------------------------------------------------------------------------------------


def test_unix_socket(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", bind="unix")
    for _ in range(3):
        with Client(server.address) as client:
            assert client.request(get()).status == 200
            assert client.request(post(b"Content-Length: 3", body=b"abc")).status == 200
    data = exchange(server.address, [b"".join(numbered(50))], half_close=True, count=0)
    assert numbers_of(data) == [str(number) for number in range(50)]
    path = server.unix_path
    assert server.stop() == 0
    assert not os.path.exists(path)


def test_abstract_unix_socket(start_server: ServerFactory) -> None:
    name = f"@epollwsgi-test-{os.getpid()}-{time.monotonic_ns()}"
    server = start_server("tests.apps.echo:app", bind=f"unix:{name}")
    with Client(name) as client:
        assert client.request(get()).status == 200
    assert server.stop() == 0


def test_ipv6(start_server: ServerFactory) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = start_server("tests.apps.echo:app", bind="[::1]:0")
    with Client(server.address) as client:
        seen = json.loads(client.request(get()).body)["environ"]
        assert (seen["REMOTE_ADDR"], seen["SERVER_NAME"].strip("[]")) == ("::1", "::1")
        assert seen["SERVER_PORT"] == str(server.port)


def test_several_addresses(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", bind=["127.0.0.1:0", "unix", "127.0.0.2:0"])
    addresses: list[Address] = [*server.tcp_addresses, server.unix_path]
    for address in addresses:
        with Client(address) as client:
            assert client.request(get()).status == 200
    assert len(server.tcp_addresses) == 2


# --- logs and fields -------------------------------------------------------------------------------------------------


def test_refusals_are_logged_with_peer_and_setting_at_a_bounded_rate(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", "--limit-request-body", "1000", "--limit-request-fields", "5")
    with Client(server.address) as client:
        port = client.sock.getsockname()[1]
        assert client.request(post(b"Content-Length: 2345")).status == 413
    log = server.wait_for_log("limit_request_body")
    [line] = [line for line in log.splitlines() if "limit_request_body" in line]
    for text in (f"127.0.0.1:{port}", "1000", "2345", "413"):
        assert text in line
    before = log
    marker = b"\x1b[31mMARKER"
    for _ in range(100):
        data = exchange(server.address, [b"GET / HTTP/1.1\r\nHost: h\r\n" + marker + b"\r\n\r\n"], count=0)
        assert b"MARKER" not in data
    lines = [line for line in server.stderr_text()[len(before) :].splitlines() if "400" in line]
    assert 0 < len(lines) < 40
    assert "\x1b" not in server.stderr_text()
    server.wait_for_log("more of these")  # the others are counted


def test_dropped_names_are_logged_once_each_and_not_without_end(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app")
    with Client(server.address) as client:
        for _ in range(3):
            assert client.request(get(b"X_First: 1")).status == 200
        log = server.wait_for_log("X_First")
        assert log.count("X_First") == 1
        assert "header_map" in next(line for line in log.splitlines() if "X_First" in line)
        for number in range(20):
            fields = [b"X_%d_%d: 1" % (number, other) for other in range(50)]
            assert client.request(get(*fields)).status == 200
    assert len(server.stderr_text().splitlines()) < 250


def test_date_is_now(shapes: Server) -> None:
    """Also on a server that had nothing to do meanwhile."""
    with Client(shapes.address) as client:
        for _ in range(2):
            date = parsedate_to_datetime(client.request(shape("list_one"))["Date"])
            assert abs(date.timestamp() - time.time()) < 2
            time.sleep(1.5)
