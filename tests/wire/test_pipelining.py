"""Requests one behind the other on a connection, and bodies that wait for 100 (Continue). WIRE.md 1 and 2."""

from __future__ import annotations

import itertools
import json
import random
import time

import pytest

from tests.support import (
    Client,
    Server,
    ServerFactory,
    exchange,
    parse_responses,
)
from tests.wire.rows import SHAPE_BODY as BODY
from tests.wire.rows import get, post, shape
from tests.wire.streams import numbered, numbers_of


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
