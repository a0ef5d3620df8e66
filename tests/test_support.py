"""The strict reader of responses must itself refuse what RFC 9112 refuses, else tests that lean on it prove nothing."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.support import BadResponse, Client, Truncated, exchange, exchange_many, parse_responses, splits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"


def test_reads_what_is_valid() -> None:
    data = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        + OK
        + b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
        + b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"
        + b"HTTP/1.0 200 OK\r\nX:  a b\t\r\n\r\nrest"
    )
    first, second, third, fourth = parse_responses(data)
    assert (first.status, first.body, first.interim[0].status) == (200, b"ab", 100)
    assert (second.reason, second.body, second.chunks) == ("", b"abcd", [3, 1])
    assert (third.status, third.body) == (304, b"")
    assert (fourth["x"], fourth.body, fourth.close_delimited) == ("a b", b"rest", True)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n X: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nno length, not to close",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"x" + OK,
    ],
)
def test_refuses_what_is_not(data: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_responses(data)


@pytest.mark.parametrize(
    "data",
    [
        OK[:-1],
        OK + OK[:10],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_says_where_a_response_is_cut(data: bytes) -> None:
    with pytest.raises(Truncated):
        parse_responses(data)


def test_splits_lose_nothing() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\rx\n" + b"y" * 5000
    for every_byte_up_to in (1 << 20, 64):
        for name, pieces in splits(data, every_byte_up_to):
            assert b"".join(pieces) == data, name
            assert all(pieces), name
    named = dict(splits(data))
    assert len(named["bytes"]) == len(data)
    assert named["behind CRLF"][0] == b"GET / HTTP/1.1\r\n"
    assert named["within CRLF"][1] == b"\nHost: a\r"


def test_exchange_sends_pieces_in_order_and_reads_the_answer() -> None:
    """Against a peer of ten lines: it echoes the length of what it got until the client's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()

        def serve() -> None:
            for _ in range(4):
                sock, _ = listener.accept()
                with sock:
                    got = b""
                    while data := sock.recv(65536):
                        got += data
                    body = b"%d %b" % (len(got), got[:3])
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            data = exchange(address, [b"a", b"b", b"c" * 3_000_000], half_close=True)
            assert parse_responses(data)[0].body == b"3000002 abc"
            many = exchange_many(address, [[b"x"], [b"y", b"z"]], delay=0.01, half_close=True, width=1)
            assert [parse_responses(one)[0].body for one in many] == [b"1 x", b"2 yz"]
            with Client(address) as client:
                client.half_close()
                assert client.read_response().body == b"0 "
                assert client.read_to_end() == b""
        finally:
            thread.join(10)
