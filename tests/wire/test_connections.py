"""Many connections, pipelining, keep-alive, closing, shortage of descriptors: what holds between requests.

WIRE.md 1, OPERATIONS.md 6; the point 9 of the first issue: all that the sketch of the original idea did wrong.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support import (
    Client,
    Server,
    ServerFactory,
    connect,
    exchange,
    parse_responses,
    raised_descriptor_limit,
    wait_until,
)
from tests.wire.rows import get, post

BODY = b"first second"


@pytest.fixture(scope="module")
def echo(start_module_server: ServerFactory) -> Iterator[Server]:
    server = start_module_server("tests.apps.echo:app")
    yield server
    assert "Traceback" not in server.stderr_text()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def shapes(start_module_server: ServerFactory) -> Iterator[Server]:
    server = start_module_server("tests.apps.shapes:app")
    yield server
    assert "Traceback" not in server.stderr_text()
    assert server.stop() == 0


def shape(name: str, *fields: bytes) -> bytes:
    return get(*fields, target=b"/" + name.encode())


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


# --- pipelining ------------------------------------------------------------------------------------------------------


def numbers_of(data: bytes, methods: list[str] | None = None) -> list[str]:
    return [json.loads(reply.body)["environ"]["QUERY_STRING"] for reply in parse_responses(data, methods or ())]


def numbered(count: int) -> list[bytes]:
    """Requests of several kinds, each with its number."""
    kinds = (
        lambda n: get(target=b"/?%d" % n),
        lambda n: get(b"Accept: a/b", b"X: %d" % n, target=b"/other?%d" % n),
        lambda n: b"POST /?%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (n, n) + b"x" * n,
        lambda n: b"PUT /?%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % n,
        lambda n: b"\r\n" + get(target=b"/?%d" % n),
    )
    return [kinds[number % len(kinds)](number) for number in range(count)]


def test_100_requests_in_one_send(echo: Server) -> None:
    data = exchange(echo.address, [b"".join(numbered(100))], half_close=True, count=0)
    assert numbers_of(data) == [str(number) for number in range(100)]


@pytest.mark.parametrize("seed", range(6))
def test_100_requests_cut_anywhere(echo: Server, seed: int) -> None:
    data = b"".join(numbered(100))
    chance = random.Random(seed)
    at = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(3**seed))})
    pieces = [data[start:end] for start, end in itertools.pairwise(at)]
    answer = exchange(echo.address, pieces, half_close=True, count=0)
    assert numbers_of(answer) == [str(number) for number in range(100)]


def test_pipelined_head_and_get(shapes: Server) -> None:
    """The answers to HEAD have no content between those to GET that have."""
    head = b"HEAD /list_length HTTP/1.1\r\nHost: h\r\n\r\n"
    methods = ["GET", "HEAD", "HEAD", "GET"] * 10
    data = b"".join(head if method == "HEAD" else shape("list_length") for method in methods)
    replies = parse_responses(exchange(shapes.address, [data], half_close=True, count=0, methods=methods), methods)
    assert [len(reply.body) for reply in replies] == [12 if method == "GET" else 0 for method in methods]
    assert {reply["Content-Length"] for reply in replies} == {"12"}


def test_pipelined_requests_behind_a_close_are_not_answered(echo: Server) -> None:
    data = get(target=b"/?1") + get(b"Connection: close", target=b"/?2") + get(target=b"/?3")
    assert numbers_of(exchange(echo.address, [data], count=0)) == ["1", "2"]


def test_pipelined_requests_are_answered_one_at_a_time(shapes: Server) -> None:
    """While a client does not take its answer, its next request does not run; that of others does."""
    with Client(shapes.address) as other:
        other.request(shape("events"))
        with Client(shapes.address) as client:
            client.send(shape("large_list?16") * 10)
            client.receive(1)
            events = json.loads(other.request(shape("events")).body)
            assert [event.split()[0] for event in events].count("call") == 1
            for _ in range(2):
                assert client.skip_response() == 16 << 20


def test_reading_pauses_while_requests_wait(shapes: Server) -> None:
    """A client that sends and never reads is stopped by the server's window; the server's memory stays bounded."""
    with Client(shapes.address) as other:
        other.request(shape("list_one"))
        before = shapes.peak_memory_size()
        with Client(shapes.address) as client:
            client.sock.setblocking(False)
            data = shape("large?8") + shape("list_one") * 1000
            sent = 0
            idle_at = time.monotonic() + 1
            while time.monotonic() < idle_at and sent < 256 << 20:
                try:
                    sent += client.sock.send(data)
                    idle_at = time.monotonic() + 1
                except BlockingIOError:
                    time.sleep(0.01)
            assert sent < 64 << 20
            assert shapes.peak_memory_size() - before < 24 << 20
            assert other.request(shape("list_one")).body == BODY


def test_what_a_connection_remembers_lifts_no_limit(start_server: ServerFactory) -> None:
    """A head that is too long is refused, though its field section has been seen before."""
    server = start_server("tests.apps.echo:app", "--limit-request-head", "300", "--limit-request-line", "250")
    fields = (b"User-Agent: x", b"Accept: " + b"a" * 100)
    with Client(server.address) as client:
        for _ in range(4):
            assert client.request(get(*fields)).status == 200
        assert client.request(get(*fields, target=b"/?" + b"x" * 200)).status == 431
    with Client(server.address) as client:
        for _ in range(4):
            assert client.request(get(*fields)).status == 200
        assert client.request(get(*fields, target=b"/?" + b"x" * 250)).status == 414


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


# --- the end of a connection -----------------------------------------------------------------------------------------


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
        with Client(echo.address, timeout_s=5) as client:
            client.send(data)
            client.half_close()
            assert json.loads(client.read_response().body)["length"] == size
            assert client.read_to_end() == b""


def test_half_closed_without_a_request(echo: Server) -> None:
    """Nothing, an empty line, or half a head and then the end: the connection ends, without more than one answer."""
    for data in (b"", b"\r\n", b"GET", b"GET / HTTP/1.1\r\n", get()[:-2], get()[:-1]):
        answer = exchange(echo.address, [data], half_close=True, count=0, timeout=5)
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


def test_refusals_are_logged_with_peer_and_setting_at_a_bounded_rate(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", "--limit-request-body", "1000", "--limit-request-fields", "5")
    with Client(server.address) as client:
        port = client.sock.getsockname()[1]
        assert client.request(refused_upload(2345)).status == 413
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
    for address in (*server.tcp_addresses, server.unix_path):
        with Client(address) as client:
            assert client.request(get()).status == 200
    assert len(server.tcp_addresses) == 2


# --- shortage --------------------------------------------------------------------------------------------------------


def test_no_descriptors_and_nobody_idle(start_server: ServerFactory) -> None:
    """EMFILE: accepting pauses, says so once, costs no CPU time, and recovers by itself. OPERATIONS.md 6.5."""
    server = start_server("tests.apps.shapes:app", descriptor_limit=64)
    with Client(server.address) as busy:
        assert busy.request(shape("takes_descriptors")).status == 200
        busy.send(shape("gives_descriptors")[:-2])  # not idle: half a head
        clients = [Client(server.address) for _ in range(5)]
        try:
            for client in clients:
                client.send(shape("list_one"))
            server.wait_for_log("Too many open files")
            before = server.cpu_time_s()
            time.sleep(1)
            assert server.cpu_time_s() - before < 0.3
            assert all(client.is_quiet(0) for client in clients)
            busy.send(b"\r\n")
            assert busy.read_response().status == 200
            for client in clients:
                assert client.read_response().body == BODY
            assert server.stderr_text().count("Too many open files") == 1
        finally:
            for client in clients:
                client.sock.close()


def test_no_descriptors_and_idle_connections(start_server: ServerFactory) -> None:
    """EMFILE: the connections that have been idle longest are closed for new ones."""
    server = start_server("tests.apps.shapes:app", descriptor_limit=64)
    idle = [Client(server.address) for _ in range(3)]
    try:
        for client in idle:
            assert client.request(shape("list_one")).body == BODY
        assert idle[-1].request(shape("takes_descriptors")).status == 200
        with Client(server.address) as new:
            assert new.request(shape("list_one")).body == BODY
            assert idle[0].read_to_end() == b""
            assert new.request(shape("gives_descriptors")).status == 200
        assert "Traceback" not in server.stderr_text()
    finally:
        for client in idle:
            client.sock.close()


def test_few_descriptors_are_enough(start_server: ServerFactory) -> None:
    """Starting with 64 descriptors works, and more clients than that are served one after another."""
    server = start_server("tests.apps.shapes:app", descriptor_limit=64)
    clients = []
    try:
        for _ in range(150):
            clients.append(Client(server.address))
            assert clients[-1].request(shape("list_one")).body == BODY
    finally:
        for client in clients:
            client.sock.close()


def test_worker_connections_with_idle_ones(start_server: ServerFactory) -> None:
    """At the limit those idle longest make room."""
    server = start_server("tests.apps.shapes:app", "--worker-connections", "20")
    clients = []
    try:
        for _ in range(60):
            clients.append(Client(server.address))
            assert clients[-1].request(shape("list_one")).body == BODY
        assert clients[0].read_to_end() == b""
        assert clients[-1].request(shape("list_one")).body == BODY
        assert server.descriptor_count() < 20 + 30
    finally:
        for client in clients:
            client.sock.close()


def test_worker_connections_with_nobody_idle(start_server: ServerFactory) -> None:
    """At the limit, and all in the midst of a request: the next waits for its turn."""
    server = start_server("tests.apps.shapes:app", "--worker-connections", "10")
    clients = []
    try:
        for _ in range(14):
            clients.append(Client(server.address))
            # A whole request, so that this connection is known to be accepted, and half of the next.
            clients[-1].send(shape("list_one") + shape("list_one", b"Connection: close")[:-2])
            if len(clients) <= 8:
                assert clients[-1].read_response().body == BODY
        server.wait_for_log("worker_connections")
        before = server.cpu_time_s()
        time.sleep(0.5)
        assert server.cpu_time_s() - before < 0.2
        for number, client in enumerate(clients):
            client.send(b"\r\n")
            assert [client.read_response().body for _ in range(1 if number < 8 else 2)][-1] == BODY
    finally:
        for client in clients:
            client.sock.close()


# --- 100-continue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_chunked", [False, True])
def test_100_continue_when_the_body_is_wanted(echo: Server, is_chunked: bool) -> None:
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 3"
    with Client(echo.address) as client:
        for _ in range(2):
            client.send(post(framing, b"Expect: 100-continue"))
            while not client.buffer.endswith(b"\r\n\r\n"):
                assert client.receive()
            assert client.buffer.startswith(b"HTTP/1.1 100 ")
            assert client.is_quiet(0.05)
            client.send(b"3\r\nabc\r\n0\r\n\r\n" if is_chunked else b"abc")
            reply = client.read_response()
            assert (reply.status, [one.status for one in reply.interim]) == (200, [100])
            assert json.loads(reply.body)["length"] == 3


@pytest.mark.parametrize(
    "data",
    [
        post(b"Content-Length: 3", b"Expect: 100-continue", body=b"abc"),
        post(b"Transfer-Encoding: chunked", b"Expect: 100-continue", body=b"1\r\na\r\n0\r\n\r\n"),
        post(b"Content-Length: 0", b"Expect: 100-continue"),
        post(b"Expect: 100-continue"),
        get(b"Expect: 100-continue"),
    ],
)
def test_no_100_continue_where_nobody_waits(echo: Server, data: bytes) -> None:
    """The body has arrived already, or there is none; nor does it come behind the answer."""
    with Client(echo.address) as client:
        for _ in range(3):
            reply = client.request(data)
            assert (reply.status, reply.interim) == (200, [])
        assert client.is_quiet(0.05)


def test_no_100_continue_in_http_1_0(echo: Server) -> None:
    with Client(echo.address) as client:
        client.send(b"POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert client.is_quiet(0.2)
        client.send(b"abc")
        reply = client.read_response()
        assert (reply.status, reply.interim) == (200, [])


def test_no_100_continue_before_a_refusal(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", "--limit-request-body", "1000")
    for fields, status in (
        ((b"Content-Length: 1001", b"Expect: 100-continue"), 413),
        ((b"Content-Length: 5", b"Expect: 100-continue, x"), 417),
        ((b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Expect: 100-continue"), 400),
    ):
        with Client(server.address) as client:
            reply = client.request(post(*fields))
            assert (reply.status, reply.interim) == (status, [])
            assert client.read_to_end() == b""


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
