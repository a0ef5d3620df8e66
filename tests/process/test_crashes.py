"""Workers that die, hang or never come up, and a master that is stopped or killed. OPERATIONS.md 2, 3 and 6."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.process.fleet import BROKEN, MODULE, WAIT_S, Fleet, FleetFactory, is_port_free, write_whole
from tests.process.load import Load
from tests.process.procfs import children_of, is_alive, state_of
from tests.support import Client, Truncated, wait_until

MOST_CLIENTS = 96


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def expect_cut(client: Client) -> None:
    """The connection ends without a whole response."""
    with pytest.raises((Truncated, ConnectionResetError)):
        client.read_response()


@contextmanager
def holders(fleet: Fleet) -> Iterator[dict[int, list[Client]]]:
    """Clients that hold a request each, by worker, until every worker holds some."""
    held: dict[int, list[Client]] = {}
    wanted = fleet.workers()
    with ExitStack() as stack:
        for number in range(MOST_CLIENTS):
            client = stack.enter_context(fleet.client())
            client.send(get(f"/hold?held{number}"))
            [pid] = fleet.wait_held(f"held{number}")
            held.setdefault(pid, []).append(client)
            if set(held) == wanted:
                break
        assert set(held) == wanted, f"{MOST_CLIENTS} connections, all on {set(held)}"
        yield held


# --- workers that die -------------------------------------------------------------------------------------------------


def test_killed_worker_takes_only_its_own_requests(start_fleet: FleetFactory) -> None:
    fleet = start_fleet("--threads", str(MOST_CLIENTS), workers=2)
    with holders(fleet) as held:
        victim, other = held
        os.kill(victim, signal.SIGKILL)
        for client in held[victim]:
            expect_cut(client)
        assert other in fleet.wait_for_workers(2, without=[victim])
        fleet.release()
        for client in held[other]:
            assert client.read_response().body == b"released"
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_killed_worker_under_load(start_fleet: FleetFactory) -> None:
    """What others have is not touched: as many requests fail at most as the victim had connections."""
    fleet = start_fleet(workers=2)
    callers = 8
    load = Load(fleet.address, kept=callers, fresh=callers)
    load.may_fail = True
    with load:
        load.wait_for_more(50)
        victim = min(fleet.workers())
        os.kill(victim, signal.SIGKILL)
        fleet.wait_for_workers(2, without=[victim])
        load.wait_for_more(50)
    kinds = {one.kind for one in load.report.failures}
    assert kinds <= {"reset", "closed", "truncated"}, load.report.failures
    assert len(load.report.failures) <= 2 * callers
    assert fleet.stop() == 0


@pytest.mark.parametrize("route", ["/exit/3", "/exit/0", "/fault", "/kill"])
def test_handler_that_ends_its_process(start_fleet: FleetFactory, route: str) -> None:
    """No exit status of a worker means anything to the master; each is replaced at once, however often."""
    fleet = start_fleet(workers=1)
    for _ in range(2):
        [victim] = fleet.wait_for_workers(1)
        with fleet.client() as client:
            client.send(get(route))
            expect_cut(client)
        fleet.wait_for_workers(1, without=[victim])
        assert fleet.version() == "1"
    log = fleet.log()
    if route == "/fault":
        assert "Segmentation fault" in log
        assert "in fault" in log
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_crash_is_logged_with_its_cause(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=1)
    [victim] = fleet.workers()
    os.kill(victim, signal.SIGKILL)
    fleet.wait_for_log(rf"(?m)^.*\b{victim}\b.*(SIGKILL|signal 9).*$")
    [victim] = fleet.wait_for_workers(1, without=[victim])
    with fleet.client() as client:
        client.send(get("/exit/3"))
        expect_cut(client)
    fleet.wait_for_log(rf"(?m)^.*\b{victim}\b.*\b3\b.*$")
    assert fleet.stop() == 0


# --- crash loops ------------------------------------------------------------------------------------------------------

COUNTING = """\
import os, time
from tests.process.routes import note
note("attempts", time.monotonic_ns())
"""


def attempts(fleet: Fleet) -> list[float]:
    """When new workers have tried to boot."""
    return sorted(int(name) / 1e9 for name in fleet.noted("attempts"))


@pytest.mark.parametrize("end", ["raise RuntimeError('broken on purpose')\n", "os._exit(0)\n"])
def test_crash_loop_backs_off(start_fleet: FleetFactory, end: str) -> None:
    """Code that broke under a running server: restarts ever more slowly; the backlog waits; a HUP ends it at once."""
    fleet = start_fleet(workers=1)
    [victim] = fleet.workers()
    write_whole(fleet.directory / f"{MODULE}.py", COUNTING + end)
    os.kill(victim, signal.SIGKILL)
    with fleet.client() as waiting:
        waiting.send(get("/version"))
        wait_until(lambda: len(attempts(fleet)) >= 4, WAIT_S, "attempts")
        times = attempts(fleet)
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert pauses[2] >= 0.9, pauses
        assert pauses[1] >= 0.4, pauses
        assert fleet.server.is_running()
        fleet.write("2")
        fleet.send(signal.SIGHUP)
        assert waiting.read_response().body == b"2"
    if "raise" in end:
        assert "RuntimeError: broken on purpose" in fleet.log()
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_crash_loop_mends_by_itself(start_fleet: FleetFactory) -> None:
    """The master never gives up: what was away for a while is back, and nobody has to do anything."""
    fleet = start_fleet(workers=2)
    one, other = fleet.workers()
    write_whole(fleet.directory / f"{MODULE}.py", COUNTING + "raise RuntimeError('broken on purpose')\n")
    os.kill(one, signal.SIGKILL)
    wait_until(lambda: len(attempts(fleet)) >= 2, WAIT_S, "attempts")
    assert fleet.ask("/pid").body == str(other).encode()
    fleet.write("2")
    assert other in fleet.wait_for_workers(2, without=[one])
    assert fleet.stop() == 0


def test_crash_loop_can_be_stopped(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=1)
    [victim] = fleet.workers()
    write_whole(fleet.directory / f"{MODULE}.py", COUNTING + "raise RuntimeError('broken on purpose')\n")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(attempts(fleet)) >= 3, WAIT_S, "attempts")
    assert fleet.stop() == 0


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [("raise", 3, "RuntimeError: broken on purpose"), ("attribute", 4, "has no attribute app"), ("os._exit", 3, "")],
)
def test_first_start_that_fails(start_fleet: FleetFactory, tmp_path: Path, how: str, code: int, words: str) -> None:
    """One clear message, the exit code, no restart loop, nobody left."""
    (tmp_path / f"{MODULE}.py").write_text(BROKEN[how][0])
    fleet = start_fleet("-w", "4", wait=False)
    assert fleet.server.process.wait(WAIT_S) == code, fleet.log()
    assert words in fleet.log()
    if how == "raise":
        assert fleet.log().count("RuntimeError: broken on purpose") == 1
    assert not children_of(fleet.master)


# --- workers that hang ------------------------------------------------------------------------------------------------


def test_stuck_worker_is_aborted_and_replaced(start_fleet: FleetFactory) -> None:
    """A call in C keeps the interpreter: only the master can see it. Its stacks are in the log; nobody else suffers."""
    fleet = start_fleet("--timeout", "2", workers=2)
    with fleet.client() as client:
        client.send(get("/stuck?held"))
        [victim] = fleet.wait_held("held")
        [other] = fleet.workers() - {victim}
        expect_cut(client)
    assert other in fleet.wait_for_workers(2, without=[victim])
    log = fleet.wait_for_log("in stuck")
    assert "Fatal Python error: Aborted" in log
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_stopped_worker_is_replaced(start_fleet: FleetFactory) -> None:
    """SIGSTOP leaves no chance to any handler: ABRT is followed by KILL."""
    fleet = start_fleet("--timeout", "2", workers=2)
    victim, other = fleet.workers()
    os.kill(victim, signal.SIGSTOP)
    assert other in fleet.wait_for_workers(2, without=[victim])
    assert fleet.stop() == 0


def test_stuck_request_replaces_its_worker(start_fleet: FleetFactory) -> None:
    """504 past `timeout`; the successor comes first, and what else the old worker has is finished."""
    fleet = start_fleet("--timeout", "1", "--graceful-timeout", "20", workers=1)
    [old] = fleet.workers()
    with fleet.client() as stuck, fleet.client() as dripping:
        dripping.send(get("/drip/dripping?dripping"))
        fleet.wait_held("dripping")
        stuck.send(get("/hold/stuck?stuck"))
        assert stuck.read_response().status == 504
        wait_until(lambda: fleet.ask("/pid").body != str(old).encode(), WAIT_S, "the successor")
        assert is_alive(old)
        fleet.release("dripping")
        response = dripping.read_response()
        assert (response.body, response["X-Worker"]) == (b"first second", str(old))
    fleet.release("stuck")
    fleet.wait_for_workers(1, without=[old])
    assert fleet.stop() == 0


def test_connection_is_not_swallowed_by_a_stuck_worker(start_fleet: FleetFactory) -> None:
    """The kernel tells one worker of a connection, even one that will never take it: another must see that."""
    fleet = start_fleet("--timeout", "300", workers=2)
    fleet.ask("/stuck_soon?held")
    [victim] = fleet.wait_held("held")
    for _ in range(4):
        assert int(fleet.ask("/pid").body) != victim
    assert is_alive(victim)
    assert fleet.stop(signal.SIGINT) == 0


# --- children of others -----------------------------------------------------------------------------------------------


def test_foreign_children_are_reaped(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """What was a child of the process before it became the server (`sh -c 'helper & exec epollwsgi'`)."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 2 &\nsh -c 'exit 3' &\nexec {sys.executable} \"$@\"\n")
    script.chmod(0o755)
    fleet = start_fleet(workers=2, python=str(script))
    wait_until(lambda: len(children_of(fleet.master)) == 2, WAIT_S, "the others to be reaped")
    workers = fleet.workers()
    assert fleet.version() == "1"
    os.kill(min(workers), signal.SIGKILL)
    fleet.wait_for_workers(2, without=[min(workers)])
    assert fleet.stop() == 0


def test_children_of_the_application(start_fleet: FleetFactory) -> None:
    """A worker's own children: one that ends, and one that outlives its worker without keeping port or master."""
    fleet = start_fleet(workers=1)
    [victim] = fleet.workers()
    assert fleet.ask("/spawn").status == 200
    child = int(fleet.ask("/fork").body)
    os.kill(victim, signal.SIGKILL)
    fleet.wait_for_workers(1, without=[victim])
    assert is_alive(child)
    assert fleet.version() == "1"
    fleet.reload("2")
    assert fleet.stop() == 0
    assert is_alive(child)
    assert is_port_free(fleet.server.port)
    os.kill(child, signal.SIGKILL)


# --- the master -------------------------------------------------------------------------------------------------------


def test_stopped_master(start_fleet: FleetFactory) -> None:
    """Workers serve without it; when it goes on, it catches up with what has happened."""
    fleet = start_fleet("--timeout", "2", workers=2)
    with Load(fleet.address, kept=2, fresh=2) as load:
        fleet.send(signal.SIGSTOP)
        wait_until(lambda: state_of(fleet.master) == "T", what="the master to be stopped")
        load.wait_for_more(100)
    victim, other = fleet.workers()
    os.kill(victim, signal.SIGKILL)
    fleet.write("2")
    fleet.send(signal.SIGHUP)
    assert fleet.ask("/version").body == b"1"
    wait_until(lambda: state_of(victim) == "Z", what="the worker to end")
    fleet.send(signal.SIGCONT)
    fleet.wait_for_workers(2, "2", without=[victim, other])
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_killed_master_leaves_no_orphans(start_fleet: FleetFactory) -> None:
    """Its workers notice, finish what they have, and end: the port is free for the next start."""
    fleet = start_fleet("--graceful-timeout", "300", workers=2)
    workers = fleet.workers()
    with fleet.client() as client:
        client.send(get("/hold?held"))
        [holder] = fleet.wait_held("held")
        fleet.send(signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, workers - {holder})), WAIT_S, "the idle worker to end")
        wait_until(fleet.is_refused, WAIT_S, "the listener to be closed")
        fleet.release()
        assert client.read_response().body == b"released"
    wait_until(lambda: not any(map(is_alive, workers)), WAIT_S, "the workers to end")
    assert is_port_free(fleet.server.port)


def test_master_killed_while_workers_boot(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=1)
    write_whole(fleet.directory / f"{MODULE}.py", "import time\n" + COUNTING + "time.sleep(30)\n")
    fleet.send(signal.SIGTTIN)
    wait_until(lambda: attempts(fleet), WAIT_S, "a worker to boot")
    children = children_of(fleet.master)
    fleet.send(signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, children)), WAIT_S, "the children to end")
    assert is_port_free(fleet.server.port)


def test_next_start_on_the_same_port(start_fleet: FleetFactory) -> None:
    """A supervisor starts again as soon as the master is gone."""
    first = start_fleet(workers=2)
    port = first.server.port
    workers = first.workers()
    first.send(signal.SIGKILL)
    first.server.process.wait(WAIT_S)
    wait_until(lambda: not any(map(is_alive, workers)), WAIT_S, "the workers to end")
    second = start_fleet(workers=2, bind=f"127.0.0.1:{port}")
    assert second.version() == "1"
    assert second.stop() == 0


def test_ps_shows_no_defunct_children(start_fleet: FleetFactory) -> None:
    """After twelve deaths."""
    fleet = start_fleet(workers=4)
    for _ in range(3):
        workers = fleet.wait_for_workers(4)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        fleet.wait_for_workers(4, without=workers)
    command = ["ps", "--ppid", str(fleet.master), "-o", "stat="]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(shown.stdout.split()) == 4
    assert "Z" not in shown.stdout
    assert fleet.stop() == 0
