"""Thousands of requests of every kind at once, on kept and pipelined connections: each gets its own answer, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stress.load import Batch, Outcome, build_request, mixed_plans, one_kind_plans, run
from tests.stress.proc import thread_count
from tests.support import Client, Server, ServerFactory, wait_until

# Every change of an owner that `tests.apps.delays` pauses at. None may go unvisited: with threads = 1 and with more.
POINTS = {
    *(f"token {what}" for what in ("before put", "after put", "before take", "taken", "missed")),
    *(f"claim {what}" for what in ("before put", "after put", "before take", "taken", "missed")),
    *(f"at work {what}" for what in ("before put", "after put", "before take", "taken")),
    *(f"queue {what}" for what in ("before append", "after append", "before take", "taken", "missed")),
    *(f"permits {what}" for what in ("before append", "after append", "before take", "taken", "missed")),
    *(f"standby {what}" for what in ("before append", "after append", "before take", "taken", "missed")),
    *(f"standby {what}" for what in ("before remove", "removed")),
    *(f"inbox {what}" for what in ("before append", "after append", "before take", "taken")),
    *("parked True", "parked False", "before unpark", "asleep True", "asleep False", "before wake"),
}


def read_json(server: Server, path: str) -> Any:
    with Client(server.address) as client:
        return json.loads(client.request(b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode()).body)


def check_state(server: Server, outcome: Outcome, threads: int) -> None:
    """What the application has seen agrees with what its clients have."""
    wait_until(lambda: read_json(server, "state")["inside"] == 0, what="all calls to be done")
    # A thread may be held up between the end of its call and letting go of it.
    wait_until(lambda: read_json(server, "state")["exchanges"] < 3, what="calls that are done to be forgotten")
    state = read_json(server, "state")
    assert state["breaches"] == []
    calls = state["calls"]
    assert {tag: count for tag, count in calls.items() if count != 1} == {}
    assert set(outcome.answered) - set(calls) == set(), "answered, but never called"
    assert set(calls) - set(outcome.answered) - set(outcome.abandoned) == set(), "called, but never answered"
    assert state["most_inside"] <= threads
    if threads == 1:
        assert set(state["threads"]) == {"import"}


def run_mixed(server: Server, threads: int, seed: int, connections: int, batches: int) -> Outcome:
    with Client(server.address) as first:
        assert first.request(b"GET /state HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
    descriptors = server.descriptor_count()
    outcome = run(server.address, mixed_plans(seed, connections, batches))
    assert len(outcome.kinds) == 12
    check_state(server, outcome, threads)
    wait_until(lambda: server.descriptor_count() <= descriptors, what="descriptors to be given back")
    return outcome


@pytest.mark.parametrize(("threads", "batches"), [(1, 9), (2, 16), (8, 30)])
def test_mixed(start_server: ServerFactory, threads: int, batches: int) -> None:
    server = start_server("tests.apps.dispatch:app", "--threads", str(threads), "--log-level", "debug")
    outcome = run_mixed(server, threads, seed=threads, connections=24, batches=batches)
    assert outcome.answered.total() > 24 * batches


def test_mixed_with_delays(start_server: ServerFactory) -> None:
    """Threads are held up at every change of an owner, and every such point is reached."""
    reached: set[str] = set()
    for threads in (1, 2, 8):
        server = start_server("tests.apps.delays:app", "--threads", str(threads))
        run_mixed(server, threads, seed=100 + threads, connections=16, batches=5)
        # Without other traffic nothing hides a wake-up that was lost.
        lonely = one_kind_plans("blocking", 3, 12, lambda: 0.004)
        run(server.address, lonely)
        # Idle seats end until one stands by: the watch and the leader are the others. With one thread, the main one.
        wait_until(lambda server=server: thread_count(server) <= 3, 15, "idle threads to end")  # type: ignore[misc]
        run(server.address, one_kind_plans("blocking", 8, 16, lambda: 0.0))  # more than stand by at once
        reached |= set(read_json(server, "points"))
        assert server.stop() == 0
    for _ in range(12):  # whether somebody finds nobody who stands by is a matter of luck
        if reached >= POINTS:
            break
        server = start_server("tests.apps.delays:app", "--threads", "8")
        run(server.address, one_kind_plans("blocking", 8, 16, lambda: 0.0))
        reached |= set(read_json(server, "points"))
        assert server.stop() == 0
    assert reached == POINTS


def test_one_thread_left_is_shared_by_all(start_server: ServerFactory, tmp_path: Path) -> None:
    """Of two threads one is stuck: slow requests, which queue, and quick ones, which the leader answers, take turns."""
    server = start_server("tests.apps.delays:app", "--threads", "2")
    gate = tmp_path / "gate"
    with Client(server.address) as stuck:
        try:
            stuck.send(b"GET /gate?%b&stuck HTTP/1.1\r\nHost: h\r\n\r\n" % str(gate).encode())
            wait_until(Path(f"{gate}.stuck").exists, what="the call")
            plans = one_kind_plans("blocking", 1, 25, lambda: 0.0)
            plans += [
                [Batch([build_request("quick", f"q{number},{connection},{number}")]) for number in range(150)]
                for connection in range(3)
            ]
            outcome = run(server.address, plans)
            assert outcome.kinds == {"blocking": 25, "quick": 450}
        finally:
            gate.touch()
        assert stuck.read_response().body == b"opened"
