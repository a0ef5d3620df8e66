"""Several generations at once: what an old one still has is finished, whatever becomes of the master meanwhile."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.fleet import WAIT_S, Fleet, FleetFactory
from tests.process.load import Load
from tests.process.procfs import image_of, is_accepting, is_alive
from tests.process.routes import expected_content
from tests.support import Client, parse_responses, wait_until

ENDLESS_S = "300"
TURNS = [signal.SIGHUP, signal.SIGUSR2]


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def turn(fleet: Fleet, version: str, number: int) -> None:
    """New code and a signal, until that code is what new connections get, and nothing else."""
    before = fleet.workers()
    fleet.write(version)
    image = image_of(fleet.master)
    fleet.send(number)
    fleet.wait(lambda: fleet.version() == version, f"version {version}")
    fleet.wait(lambda: not any(map(is_accepting, before)), f"{before} to accept no more")
    assert (image_of(fleet.master) != image) == (number == signal.SIGUSR2)


def hold(fleet: Fleet, stack: ExitStack, name: str) -> tuple[Client, int]:
    """A client whose request is held, and the worker that holds it."""
    client = stack.enter_context(fleet.client())
    client.send(get(f"/hold/{name}?{name}"))
    [pid] = fleet.wait_held(name)
    return client, pid


def test_one_request_in_each_of_five_generations(start_fleet: FleetFactory) -> None:
    """Each is answered by the worker, and the code, that it came to; the last ends with the server."""
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=1)
    held: list[tuple[Client, int]] = []
    with ExitStack() as stack:
        for position, number in enumerate([*TURNS, *TURNS]):
            held.append(hold(fleet, stack, f"v{position}"))
            turn(fleet, str(position + 2), number)
        held.append(hold(fleet, stack, "v4"))
        assert len({pid for _, pid in held}) == 5
        assert all(is_alive(pid) for _, pid in held)
        for position in (2, 0, 3):
            fleet.release(f"v{position}")
            client, pid = held[position]
            response = client.read_response()
            assert (response.body, int(response["X-Worker"])) == (b"released", pid)
            assert response["X-Version"] == str(position + 1)
            client.sock.close()
            fleet.wait(lambda pid=pid: not is_alive(pid), f"the end of worker {pid}")  # type: ignore[misc]
        fleet.wait_reaped()
        fleet.send(signal.SIGTERM)
        fleet.wait(fleet.is_refused, "the listener to be closed")
        for position in (1, 4):
            fleet.release(f"v{position}")
            assert held[position][0].read_response().body == b"released"
    assert fleet.stop() == 0


@pytest.mark.parametrize("number", TURNS)
def test_graceful_timeout_of_an_old_generation(start_fleet: FleetFactory, number: int) -> None:
    """It does not last for ever; and what it has does not keep the new one from serving."""
    fleet = start_fleet("--graceful-timeout", "0.5", workers=1)
    [old] = fleet.workers()
    with ExitStack() as stack:
        client, _ = hold(fleet, stack, "held")
        turn(fleet, "2", number)
        fleet.wait_for_workers(1, "2", without=[old])
        assert b"released" not in client.sock.recv(1000)
    assert "graceful_timeout" in fleet.log()
    fleet.wait_reaped()
    assert fleet.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_end_of_the_server_after_an_upgrade(start_fleet: FleetFactory, number: int) -> None:
    """The workers that were kept belong to the new image as they did to the old one."""
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=1)
    with ExitStack() as stack:
        client, old = hold(fleet, stack, "held")
        turn(fleet, "2", signal.SIGUSR2)
        workers = fleet.workers()
        assert old in workers
        fleet.send(number)
        fleet.wait(fleet.is_refused, "the listener to be closed")
        if number != signal.SIGINT:
            fleet.release("held")
            assert client.read_response().body == b"released"
            client.sock.close()
        wait_until(lambda: not any(map(is_alive, workers)), WAIT_S, "the workers to end")
    expected = -signal.SIGKILL if number == signal.SIGKILL else 0
    assert fleet.server.process.wait(WAIT_S) == expected


def test_kept_worker_that_dies_after_an_upgrade(start_fleet: FleetFactory) -> None:
    """It is reaped, and nobody takes it for one of the new workers."""
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=2)
    with ExitStack() as stack:
        _, old = hold(fleet, stack, "held")
        turn(fleet, "2", signal.SIGUSR2)
        os.kill(old, signal.SIGKILL)
        workers = fleet.wait_for_workers(2, "2", without=[old])
    fleet.wait_reaped()
    assert fleet.version() == "2"
    assert fleet.workers() == workers
    assert fleet.stop() == 0


@pytest.mark.parametrize("number", TURNS)
def test_slow_transfers_go_on(start_fleet: FleetFactory, number: int) -> None:
    """Half an upload, half a download, and half a head: all are finished by the worker that has begun with them."""
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=1)
    [old] = fleet.workers()
    with ExitStack() as stack:
        upload, half = (stack.enter_context(fleet.client()) for _ in range(2))
        download = stack.enter_context(Client(fleet.address, WAIT_S, receive_buffer_size=4096))
        for client in (upload, half, download):
            client.request(get("/version"))  # accepted, and by the old worker
        upload.send(b"POST /echo?up HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
        download.send(get("/huge/16?down"))
        download.receive(100)
        half.send(b"GET /version HTTP/1.1\r\nHost")
        turn(fleet, "2", number)
        half.send(b": h\r\n\r\n")
        assert half.read_response()["X-Worker"] == str(old)
        upload.send(b"x" * 50_000)
        response = upload.read_response()
        assert (response.body, response["X-Worker"]) == (b"x" * 100_000, str(old))
        assert download.skip_response() == 16_000_000
    fleet.wait_for_workers(1, "2", without=[old])
    assert "graceful_timeout" not in fleet.log()
    assert fleet.stop() == 0


def test_pipelined_requests_are_answered_up_to_a_close(start_fleet: FleetFactory) -> None:
    """A client that has sent many at once learns by `Connection: close` which one was the last that counted."""
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=1)
    with Client(fleet.address, WAIT_S, receive_buffer_size=4096) as client:
        for _ in range(100):
            client.send(get("/large?tag"))
        client.receive(100)
        turn(fleet, "2", signal.SIGHUP)
        answers = parse_responses(client.read_to_end())
    assert answers
    assert ["close" in answer.tokens for answer in answers] == [False] * (len(answers) - 1) + [True]
    assert {answer.body for answer in answers} == {expected_content("large", "tag")}
    assert fleet.stop() == 0


@pytest.mark.parametrize("threads", ["1", "2"])
def test_all_turns_with_few_threads(start_fleet: FleetFactory, threads: str) -> None:
    """With one thread the application runs where signals are handled."""
    fleet = start_fleet("--threads", threads, workers=2)
    with Load(fleet.address, kept=6, fresh=6) as load:
        for number in TURNS:
            load.wait_for_more(30)
            fleet.fail_reload(number=number)
            fleet.reload(f"{number}", number)
        os.kill(min(fleet.workers()), signal.SIGTERM)
        load.wait_for_more(30)
        load.may_refuse = True
        assert fleet.stop() == 0
    assert "was killed" not in fleet.log()


def test_upgraded_daemon(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """It is one still: its pid file stays, its log too, and WINCH means something to it."""
    fleet = start_fleet("-D", "-p", "master.pid", "-w", "1", "--error-logfile", "error.log")
    assert fleet.server.process.wait(WAIT_S) == 0
    fleet.master = int((tmp_path / "master.pid").read_text())
    for version in ("2", "3"):
        [old] = fleet.wait_for_workers(1)
        turn(fleet, version, signal.SIGUSR2)
        fleet.wait_for_workers(1, version, without=[old])
        assert int((tmp_path / "master.pid").read_text()) == fleet.master
    fleet.send(signal.SIGWINCH)
    fleet.wait(lambda: not fleet.workers(), "the workers to end")
    fleet.send(signal.SIGHUP)
    fleet.wait_for_workers(1)
    assert fleet.version() == "3"
    fleet.send(signal.SIGTERM)
    fleet.wait(lambda: not is_alive(fleet.master), "the end of the daemon")
    assert not (tmp_path / "master.pid").exists()
    assert "Traceback" not in (tmp_path / "error.log").read_text()
