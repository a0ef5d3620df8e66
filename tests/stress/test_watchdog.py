"""Calls that take too long: logged once with their stack, answered with 504 if nothing was sent. DESIGN.md 3."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest

from tests.stress.together import run_for_each, start_each
from tests.support import Client, Server, ServerFactory, wait_until

APP = "tests.apps.dispatch:app"


# A master would replace the worker whose request was stuck, and the rest would come from another.
ALONE = "tests.alone"


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def test_504_while_the_thread_is_stuck(start_server: ServerFactory, tmp_path: Path) -> None:
    """The client has its answer in time; what the call gives later goes nowhere, and its thread is of use again."""
    (tmp_path / "file.txt").write_text("from a file")
    servers = start_each(start_server, APP, "--timeout", "0.5", "--static", f"/static={tmp_path}", module=ALONE)

    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        with Client(server.address) as stuck, Client(server.address) as other:
            begun_at = time.monotonic()
            stuck.send(get(f"/gate?{gate}") + get("/quick?behind"))
            response = stuck.read_response()
            assert response.status == 504
            assert "close" in response.tokens
            assert 0.5 <= time.monotonic() - begun_at < 20, "the default is 30 s"
            assert stuck.read_to_end() == b""
            assert other.request(get("/static/file.txt")).body == b"from a file"
            other.send(get("/quick?other"))
            if threads == 1:
                gate.touch()
            assert other.read_response().status == 200
            gate.touch()
            for number in range(3 * threads):
                assert other.request(get(f"/blocking?{number}")).status == 200
            state = json.loads(other.request(get("/state")).body)
            assert "behind" not in state["calls"]
        log = server.wait_for_log("answered with 504")
        assert log.count("answered with 504") == 1
        assert f"GET /gate?{gate}" in log
        assert "in wait_for_file" in log
        assert "timeout = 0.5" in log
        assert "Traceback" not in log

    run_for_each(servers, check)


def test_all_threads_stuck_are_answered(start_server: ServerFactory, tmp_path: Path) -> None:
    servers = start_each(start_server, APP, "--timeout", "0.4", module=ALONE)

    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        with contextlib.ExitStack() as stack:
            stack.callback(gate.touch)
            clients = [stack.enter_context(Client(server.address)) for _ in range(threads)]
            for number, client in enumerate(clients):
                client.send(get(f"/gate?{gate}&{number}"))
                wait_until(lambda number=number: Path(f"{gate}.{number}").exists(), what="a call")  # type: ignore[misc]
            for client in clients:
                assert client.read_response().status == 504
                assert client.read_to_end() == b""
            gate.touch()
            with Client(server.address) as client:
                assert client.request(get("/quick?after")).status == 200

    run_for_each(servers, check)


@pytest.mark.parametrize("name", ["gated_parts", "gated_write"])
def test_response_that_has_begun_has_all_the_time(start_server: ServerFactory, tmp_path: Path, name: str) -> None:
    """`timeout` is for the start of the response, whether that was begun inline or on a thread of its own."""
    servers = start_each(start_server, APP, "--timeout", "0.3")

    def check(server: Server, threads: int) -> None:
        with Client(server.address) as client:
            for number in range(2):
                gate = tmp_path / f"{threads}.{number}"
                client.send(get(f"/{name}?{gate}"))
                while b"first" not in client.buffer:
                    assert client.receive()
                assert client.is_quiet(0.9), client.receive()
                gate.touch()
                assert client.read_response().body == b"first second"
            assert client.request(get("/quick?after")).status == 200
        assert "answered with 504" not in server.stderr_text()

    run_for_each(servers, check)


def test_close_that_takes_long_is_not_answered_again(start_server: ServerFactory, tmp_path: Path) -> None:
    """The response is complete: `timeout` has no more to say, and the connection goes on."""
    servers = start_each(start_server, APP, "--timeout", "0.3")

    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        with Client(server.address) as client:
            assert client.request(get(f"/gated_close?{gate}")).body == b"closed"
            assert client.is_quiet(0.9), client.receive()
            gate.touch()
            assert client.request(get("/quick?after")).status == 200
        assert "answered with 504" not in server.stderr_text()

    run_for_each(servers, check)


def test_slow_request_is_logged_once_with_its_stack(start_server: ServerFactory, tmp_path: Path) -> None:
    servers = start_each(start_server, APP, "--slow-request-time", "0.4")

    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        with Client(server.address) as client:
            assert client.request(get("/blocking?0")).status == 200
            client.send(get(f"/gate?{gate}"))
            log = server.wait_for_log("in wait_for_file")
            assert f"GET /gate?{gate}" in log
            assert "(slow_request_time = 0.4)" in log
            assert client.is_quiet(0.8)
            gate.touch()
            assert client.read_response().body == b"opened"
        assert server.stderr_text().count("slow_request_time") == 1
        assert "blocking" not in server.stderr_text()

    run_for_each(servers, check)


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_timeout_interrupt(start_server: ServerFactory, tmp_path: Path, is_interrupted: bool) -> None:
    """With timeout_interrupt the call ends by an exception, and all its threads are free; without it is left alone."""
    options = ["--timeout", "0.3", *(["--timeout-interrupt"] if is_interrupted else [])]
    servers = start_each(start_server, APP, *options, module=ALONE)

    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        with contextlib.ExitStack() as stack:
            stack.callback(gate.touch)
            clients = [stack.enter_context(Client(server.address)) for _ in range(threads)]
            for number, client in enumerate(clients):
                client.send(get(f"/gate?{gate}&{number}"))
                wait_until(lambda number=number: Path(f"{gate}.{number}").exists(), what="a call")  # type: ignore[misc]
            for client in clients:
                assert client.read_response().status == 504
            last = stack.enter_context(Client(server.address))
            last.send(get("/state"))
            if not is_interrupted:
                assert last.is_quiet(0.5)
                gate.touch()
            events = json.loads(last.read_response().body)["events"]
            wanted = ["gate raised RequestTimedOut"] if is_interrupted else []
            assert sorted(set(events)) == wanted
            for number in range(2 * threads):
                assert last.request(get(f"/blocking?{number}")).status == 200

    run_for_each(servers, check)
