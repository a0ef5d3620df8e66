"""threads = 1: one application call at a time, all on the main thread, and a loop that lives beside them."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.stress.together import run_for_each, start_each
from tests.support import Client, Server, ServerFactory, exchange_many, parse_responses

CHANCE = random.Random(5)
SHARES = {"quick": 60, "visit": 30, "slow": 6, "alarm": 4}


def get(target: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: h", *fields, "", ""]).encode()


def expected(kind: str, number: int) -> bytes:
    return f"{kind} {number}{' 1' if kind == 'visit' else ''}".encode()


def test_1000_mixed_requests_on_the_main_thread(start_server: ServerFactory) -> None:
    """A sqlite3 connection of the module, a handler of SIGALRM and an interval timer; 20 connections, pipelined."""
    server = start_server("tests.apps.one_thread:app", "--threads", "1")
    kinds = CHANCE.choices(list(SHARES), list(SHARES.values()), k=1000)
    jobs = [[get(f"/{kind}?{number}") for number, kind in enumerate(kinds) if number % 20 == at] for at in range(20)]
    answers = exchange_many(server.address, jobs, count=50)
    for at, data in enumerate(answers):
        bodies = [response.body for response in parse_responses(data, closed=False)]
        assert bodies == [expected(kinds[number], number) for number in range(at, 1000, 20)]
    with Client(server.address) as client:
        assert client.request(get("/faults")).body == b"[]"


def test_loop_lives_beside_a_blocked_call(start_server: ServerFactory, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("from a file")
    server = start_server("tests.apps.dispatch:app", "--threads", "1", "--static", f"/static={tmp_path}")
    with Client(server.address) as blocked, Client(server.address) as other:
        for number in range(5):
            gate = tmp_path / f"gate{number}"
            blocked.send(get(f"/gate?{gate}"))
            for _ in range(3):
                assert other.request(get("/static/file.txt")).body == b"from a file"
            other.send(get("/quick?other"))
            assert blocked.is_quiet(0.02)
            gate.touch()
            assert blocked.read_response().body == b"opened"
            assert other.read_response().status == 200


def test_route_that_forks_harms_no_other_connection(start_server: ServerFactory) -> None:
    kinds = ["quick", "slow", "fork", "quick", "quick"] * 18

    def check(server: Server, _: int) -> None:
        with Client(server.address) as kept:
            assert kept.request(get("/quick?0")).body == b"quick 0"
            jobs = [[get(f"/{kind}?{n}") for n, kind in enumerate(kinds) if n % 6 == at] for at in range(6)]
            for at, data in enumerate(exchange_many(server.address, jobs, count=15)):
                bodies = [response.body for response in parse_responses(data, closed=False)]
                assert bodies == [expected(kinds[number], number) for number in range(at, 90, 6)]
            assert kept.request(get("/quick?1")).body == b"quick 1"
        assert "Traceback" not in server.stderr_text()

    run_for_each(start_each(start_server, "tests.apps.one_thread:shared"), check)


def test_child_that_lives_on_keeps_no_connection_open(start_server: ServerFactory) -> None:
    """A forked process has copies of all descriptors; clients see their ends all the same."""

    def check(server: Server, _: int) -> None:
        with Client(server.address) as kept, Client(server.address) as ends, Client(server.address) as forks:
            assert kept.request(get("/quick?0")).body == b"quick 0"
            assert ends.request(get("/quick?1")).body == b"quick 1"
            assert forks.request(get("/leave?2")).body == b"leave 2"
            begun_at = time.monotonic()
            assert ends.request(get("/quick?3", "Connection: close")).body == b"quick 3"
            assert ends.read_to_end() == b""
            assert forks.request(get("/quick?4", "Connection: close")).body == b"quick 4"
            assert forks.read_to_end() == b""
            assert kept.request(get("/quick?5")).body == b"quick 5"
            assert time.monotonic() - begun_at < 25, "the child, which lives for 30 s, is still there"
        assert "Traceback" not in server.stderr_text()

    run_for_each(start_each(start_server, "tests.apps.one_thread:shared"), check)


def test_end_while_the_main_thread_is_in_close(start_server: ServerFactory, tmp_path: Path) -> None:
    """The answer is out and all connections are closed, while close() still takes its time: then the process ends."""
    server = start_server("tests.apps.dispatch:app", "--threads", "1", "--graceful-timeout", "5")
    gate = tmp_path / "gate"
    with Client(server.address) as client:
        assert client.request(get(f"/gated_close?{gate}", "Connection: close")).body == b"closed"
    server.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    gate.touch()
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_while_a_call_is_stuck(start_server: ServerFactory, tmp_path: Path, number: signal.Signals) -> None:
    """TERM waits for graceful_timeout, INT for a second; no call keeps the process alive after that."""

    def check(server: Server, _: int) -> None:
        with Client(server.address) as stuck, Client(server.address) as other:
            assert other.request(get("/quick?0")).status == 200
            stuck.send(get(f"/gate?{tmp_path / 'never'}"))
            assert stuck.is_quiet(0.1)
            assert server.stop(number, timeout_s=20) == 0  # by default graceful_timeout is 30 s

    run_for_each(start_each(start_server, "tests.apps.dispatch:app", "--graceful-timeout", "1"), check)
