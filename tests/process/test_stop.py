"""The final stop: nothing that was begun is lost, nothing waits for ever. OPERATIONS.md 2, 3, 6.1 and 6.4."""

from __future__ import annotations

import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.fleet import (
    HANGING,
    MODULE,
    WAIT_S,
    Fleet,
    FleetFactory,
    all_received,
    is_port_free,
    write_app,
    write_whole,
)
from tests.process.load import Load, soak_rounds
from tests.process.procfs import is_alive
from tests.support import Client, wait_until

ENDLESS_S = "300"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def wait_refused(fleet: Fleet) -> None:
    wait_until(fleet.is_refused, WAIT_S, "the listener to be closed")


# --- requests under way -----------------------------------------------------------------------------------------------


def test_fifty_slow_requests_are_finished(start_fleet: FleetFactory) -> None:
    """In the application, in the queue before it, or in the backlog: all are answered, and told that it is the end."""
    fleet = start_fleet("--threads", "4", "--graceful-timeout", ENDLESS_S, workers=2)
    with ExitStack() as stack:
        clients = [stack.enter_context(fleet.client()) for _ in range(50)]
        for number, client in enumerate(clients):
            client.send(get(f"/hold?held{number}"))
        wait_until(lambda: len(fleet.noted("held")) >= 4, WAIT_S, "requests to be held")
        fleet.send(signal.SIGTERM)
        wait_refused(fleet)
        fleet.release()
        for client in clients:
            response = client.read_response()
            assert (response.status, response.body) == (200, b"released")
            assert "close" in response.tokens
            assert client.read_to_end() == b""
    assert fleet.stop() == 0
    assert is_port_free(fleet.server.port)
    assert "graceful_timeout" not in fleet.log()


def test_stop_under_connections_for_each_request(start_fleet: FleetFactory) -> None:
    """24 clients that open a connection for each request: whoever was accepted by the system is answered."""
    for _ in range(soak_rounds(2, 20)):
        fleet = start_fleet(workers=2)
        with Load(fleet.address, fresh=24, pause_s=0.002) as load:
            load.wait_for_more(200)
            load.may_refuse = True
            assert fleet.stop() == 0
        assert "Traceback" not in fleet.log()


def test_stop_of_a_unix_socket_under_connections(start_fleet: FleetFactory) -> None:
    """No filter can hold new ones back: whoever comes in the very moment of the close is lost, and nobody else is."""
    fleet = start_fleet(workers=2, bind="unix")
    load = Load(fleet.address, fresh=24, pause_s=0.002)
    load.may_fail = True
    with load:
        load.wait_for_more(200)
        load.may_refuse = True
        assert fleet.stop() == 0
    assert {one.kind for one in load.report.failures} <= {"reset", "closed"}
    assert len(load.report.failures) <= 24
    assert "Traceback" not in fleet.log()


def test_stop_under_kept_connections(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=2)
    with Load(fleet.address, kept=24, pause_s=0.01) as load:
        load.wait_for_more(200)
        load.may_refuse = True
        assert fleet.stop() == 0
    assert fleet.noted("atexit").keys() >= {str(pid) for pid in load.report.workers}


def test_responses_half_sent_are_finished(start_fleet: FleetFactory) -> None:
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=2)
    with fleet.client() as dripping:
        dripping.send(get("/drip?held"))
        fleet.wait_held("held")
        fleet.send(signal.SIGTERM)
        wait_refused(fleet)
        fleet.release()
        assert dripping.read_response().body == b"first second"
        assert dripping.read_to_end() == b""
    assert fleet.stop() == 0


def test_late_requests_on_kept_connections(start_fleet: FleetFactory) -> None:
    """An idle connection stays for a while: a request in time is answered, with `close`; later it ends cleanly."""
    for attempt in range(3):  # on a busy machine a test may come too late for the 2 s
        fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=1)
        tag = f"held{attempt}"
        with fleet.client() as held, fleet.client() as late, fleet.client() as idle:
            assert "close" not in late.request(get("/version")).tokens
            assert "close" not in idle.request(get("/version")).tokens
            held.send(get(f"/hold/{tag}?{tag}"))
            fleet.wait_held(tag)
            fleet.send(signal.SIGTERM)
            wait_refused(fleet)
            is_late = late.wait_readable(0)
            if not is_late:
                response = late.request(get("/version"))
                assert (response.body, response.tokens) == (b"1", {"close"})
            assert late.read_to_end() == b""
            assert idle.read_to_end() == b""
            assert fleet.server.is_running()
            fleet.release(tag)
            assert held.read_response().body == b"released"
        assert fleet.stop() == 0
        if not is_late:
            return
    pytest.fail("three times the connection was closed before it could be used")


def test_drain_delay_is_normal_service(start_fleet: FleetFactory) -> None:
    """Until it is over, new connections are taken and old ones kept; INT puts an end to it."""
    fleet = start_fleet("--drain-delay", ENDLESS_S, workers=2)
    with fleet.client() as kept:
        fleet.send(signal.SIGTERM)
        fleet.wait_for_log("stopping")
        for _ in range(10):
            time.sleep(0.05)  # as long as a stop without a delay would have taken
            response = kept.request(get("/version"))
            assert (response.body, response.tokens) == (b"1", set())
            assert fleet.ask("/version").body == b"1"
        fleet.stop(signal.SIGINT)
    assert fleet.server.process.returncode == 0


def test_drain_delay_ends(start_fleet: FleetFactory) -> None:
    """Then the stop is graceful as ever."""
    fleet = start_fleet("--drain-delay", "0.3", workers=2)
    with Load(fleet.address, kept=4, fresh=4) as load:
        load.wait_for_more(20)
        load.may_refuse = True
        assert fleet.stop() == 0


# --- what does not end by itself --------------------------------------------------------------------------------------


def test_graceful_timeout_is_an_end(start_fleet: FleetFactory) -> None:
    """The rest is killed and counted in the log."""
    fleet = start_fleet("--graceful-timeout", "0.5", workers=2)
    with fleet.client() as one, fleet.client() as other:
        for client, tag in ((one, "one"), (other, "other")):
            client.send(get(f"/hold?{tag}"))
        fleet.wait_held("one", "other")
        assert fleet.stop() == 0
        for client in (one, other):
            assert b"200 OK" not in all_received(client)
    log = fleet.log()
    assert "graceful_timeout" in log
    assert "2 connections" in log or log.count("1 connection") == 2 or "2 requests" in log, log
    assert is_port_free(fleet.server.port)


def test_stuck_worker_does_not_hold_up_the_stop(start_fleet: FleetFactory) -> None:
    """Not even Python code runs in it any more."""
    fleet = start_fleet("--graceful-timeout", "0.5", workers=2)
    with fleet.client() as client:
        client.send(get("/stuck?held"))
        fleet.wait_held("held")
        assert fleet.stop() == 0
    assert "graceful_timeout" in fleet.log()


def test_stuck_worker_does_not_hold_up_a_quick_stop(start_fleet: FleetFactory) -> None:
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=2)
    with fleet.client() as client:
        client.send(get("/stuck?held"))
        fleet.wait_held("held")
        assert fleet.stop(signal.SIGINT) == 0


def test_threads_of_the_application_do_not_hold_up_the_end(start_fleet: FleetFactory) -> None:
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=2)
    for _ in range(4):
        assert fleet.ask("/thread").body == b"started"
    assert fleet.stop() == 0


def test_clients_that_do_not_read_are_cut(start_fleet: FleetFactory) -> None:
    fleet = start_fleet("--graceful-timeout", "1", workers=1)
    with Client(fleet.address, receive_buffer_size=4096) as client:
        for _ in range(20):
            client.send(get("/large?tag"))
        client.receive(1)
        assert fleet.stop() == 0
    assert "graceful_timeout" in fleet.log()


# --- the last things of a worker --------------------------------------------------------------------------------------

SETTINGS = """\
from tests.process.routes import note
def worker_exit(server, worker):
    note("worker_exit", worker.pid)
"""


def check_goodbye(fleet: Fleet, pids: set[int]) -> None:
    for kind in ("worker_exit", "atexit"):
        assert fleet.noted(kind).keys() >= {str(pid) for pid in pids}, kind


def test_last_things_are_done(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """worker_exit, atexit and the access log, at the end of the server and of each worker that is replaced."""
    (tmp_path / "gunicorn.conf.py").write_text(SETTINGS)
    fleet = start_fleet("--access-logfile", "access.log", workers=2)
    assert fleet.ask("/thread").body == b"started"
    asked = 1
    first = fleet.workers()
    second = fleet.reload("2")
    check_goodbye(fleet, first)
    for _ in range(10):
        fleet.ask("/version")
        asked += 1
    assert fleet.stop() == 0
    check_goodbye(fleet, second)
    assert len((tmp_path / "access.log").read_text().splitlines()) == asked


# --- the start that is stopped ----------------------------------------------------------------------------------------


def test_stop_while_the_first_workers_boot(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """At any moment of it: exit 0, nobody left, no traceback."""
    chance = random.Random(4)
    for number in range(soak_rounds(4, 40)):
        write_app(tmp_path, "1")
        if number % 2:
            write_whole(tmp_path / f"{MODULE}.py", HANGING)
        fleet = start_fleet("-w", "2", wait=False)
        wait_for_import(fleet)
        time.sleep(chance.random() * 0.2)
        children = fleet.workers()
        assert fleet.stop(chance.choice([signal.SIGTERM, signal.SIGINT])) == 0, fleet.log()
        assert not any(map(is_alive, children))
        assert "Traceback" not in fleet.log()


def wait_for_import(fleet: Fleet) -> None:
    """Until a worker of this fleet imports the application, or has done so."""

    def found() -> bool:
        pids = {str(pid) for pid in fleet.workers()}
        return not pids.isdisjoint(fleet.noted("hanging").keys() | fleet.noted("booted").keys())

    fleet.wait(found, "a worker")
