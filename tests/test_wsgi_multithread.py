"""wsgi.multithread is the truth: with threads = 1 no two calls at once, all on the main thread; with more, several."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import Client, ServerFactory, exchange_many, parse_responses

MILLISECONDS = (0, 0, 20, 0, 3, 0, 40, 0)


def inside(milliseconds: int) -> bytes:
    return f"GET /inside?{milliseconds} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def ask_all(start_server: ServerFactory, *options: str) -> list[dict[str, Any]]:
    """What 16 connections see, each with 8 requests one behind the other, quick ones and slow ones."""
    server = start_server("tests.upgrade.apps:app", *options)
    jobs = [[b"".join(map(inside, MILLISECONDS))] for _ in range(16)]
    results = exchange_many(server.address, jobs, timeout=20, count=len(MILLISECONDS))
    return [json.loads(reply.body) for data in results for reply in parse_responses(data, closed=False)]


@pytest.mark.parametrize("options", [("--threads", "1"), ("--worker-class", "sync")], ids=" ".join)
def test_one_thread(start_server: ServerFactory, options: tuple[str, ...]) -> None:
    seen = ask_all(start_server, *options)
    assert len(seen) == 16 * len(MILLISECONDS)
    assert {one["most"] for one in seen} == {1}
    assert {one["is_main"] for one in seen} == {True}
    assert {one["multithread"] for one in seen} == {False}


@pytest.mark.parametrize("options", [("--threads", "8"), ("--threads", "2"), ()], ids=" ".join)
def test_several_threads(start_server: ServerFactory, options: tuple[str, ...]) -> None:
    """As many at once as are allowed, never more, none on the main thread."""
    threads = int(options[1]) if options else 8
    seen = ask_all(start_server, *options)
    assert len(seen) == 16 * len(MILLISECONDS)
    assert {one["multithread"] for one in seen} == {True}
    assert {one["is_main"] for one in seen} == {False}
    assert 1 < max(one["most"] for one in seen) <= threads


@pytest.mark.parametrize("threads", ["1", "8"])
def test_other_keys(start_server: ServerFactory, threads: str) -> None:
    server = start_server("tests.upgrade.apps:app", "--threads", threads)
    with Client(server.address) as client:
        seen = json.loads(client.request(inside(0)).body)
    assert (seen["multiprocess"], seen["run_once"]) == (False, False)
    assert seen["multithread"] is (threads == "8")
