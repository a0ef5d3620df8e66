"""Streams of numbered requests of several kinds, for tests of pipelining."""

from __future__ import annotations

import json

from tests.support import parse_responses
from tests.wire.rows import get


def numbers_of(data: bytes, methods: list[str] | None = None) -> list[str]:
    """The numbers of the requests that tests.apps.echo has answered, in order."""
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
