"""Slow requests alone: nobody else's traffic wakes a thread that has missed something. Nobody wakes without need."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from tests.apps.dispatch import WORK_S
from tests.stress.load import Outcome, one_kind_plans, run
from tests.stress.proc import switch_counts, thread_count
from tests.support import Client, ServerFactory, wait_until

SLACK_S = 0.2
PARK_S = 1.0  # an idle worker wakes up no more often
LOOK_S = 2.5


def check_each(outcome: Outcome, kind: str, work_s: float) -> None:
    """Each was answered within its time and a little, beside what this client itself was late."""
    longest = max(outcome.durations_s[kind])
    assert longest < work_s + SLACK_S + outcome.latest_s, f"{longest:.3f} s"


def test_1000_slow_requests_over_6_connections(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.dispatch:app")
    chance = random.Random(3)
    # Pauses around the time of the watch: it parks, and is woken, all the while.
    outcome = run(server.address, one_kind_plans("blocking", 6, 1000, lambda: 0.008 * chance.random()))
    assert outcome.kinds["blocking"] == 1000
    check_each(outcome, "blocking", WORK_S)


@pytest.mark.parametrize("threads", [1, 2])
def test_slow_requests_one_at_a_time(start_server: ServerFactory, threads: int) -> None:
    server = start_server("tests.apps.dispatch:app", "--threads", str(threads))
    chance = random.Random(4)
    outcome = run(server.address, one_kind_plans("blocking", 1, 30, lambda: 0.03 * chance.random()))
    check_each(outcome, "blocking", WORK_S)


def test_fickle_requests_without_other_traffic(start_server: ServerFactory) -> None:
    """Calls that are made inline, and lose the loop now and then."""
    server = start_server("tests.apps.dispatch:app")
    outcome = run(server.address, one_kind_plans("fickle", 4, 800, lambda: 0.0))
    check_each(outcome, "fickle", 0.005)


def test_idle_worker_sleeps(start_server: ServerFactory) -> None:
    """After a load: all threads together wake up about once a second. Threads that it needed still stand by."""
    servers = [start_server("tests.apps.dispatch:app", "--threads", threads) for threads in ("1", "8")]
    with contextlib.ExitStack() as stack:
        kept = []
        for server in servers:
            client = stack.enter_context(Client(server.address))
            assert client.request(b"GET /quick?first HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
            kept.append(client)
            descriptors = server.descriptor_count()
            run(server.address, one_kind_plans("blocking", 10, 30, lambda: 0.0))
            wait_until(
                lambda server=server, count=descriptors: server.descriptor_count() <= count,  # type: ignore[misc]
                what="descriptors to be given back",
            )
        assert [thread_count(server) > 3 for server in servers] == [False, True]
        time.sleep(2.2)  # lingering, and what is remembered of connections for a second
        before = [switch_counts(server) for server in servers]
        time.sleep(LOOK_S)
        after = [switch_counts(server) for server in servers]
        for counts_before, counts in zip(before, after, strict=True):
            woken = {task: count - counts_before[task] for task, count in counts.items()}
            assert sum(woken.values()) <= LOOK_S / PARK_S + 2, woken
        for client in kept:
            assert client.request(b"GET /quick?last HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
