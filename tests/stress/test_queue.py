"""All threads are in the application: what waits is bounded, expires, is dropped with its client; files do not wait."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.stress.together import run_for_each, start_each
from tests.support import Client, Server, ServerFactory, wait_until

APP = "tests.apps.dispatch:app"


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def read_state(client: Client) -> Any:
    return json.loads(client.request(get("/state")).body)


@contextlib.contextmanager
def all_threads_stuck(server: Server, threads: int, gate: Path) -> Iterator[list[Client]]:
    """Clients of calls that wait for `gate`, one for each thread; it is opened at the end in any case."""
    clients: list[Client] = []
    try:
        for number in range(threads):
            clients.append(Client(server.address))
            clients[-1].send(get(f"/gate?{gate}&{number}"))
            # The gate notes its calls in files of their own, because nobody could answer a request for /state.
            wait_until(lambda number=number: Path(f"{gate}.{number}").exists(), what="a call")  # type: ignore[misc]
        yield clients
    finally:
        gate.touch()
        for client in clients:
            client.sock.close()


def test_files_are_served_while_all_threads_are_stuck(start_server: ServerFactory, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("from a file")
    servers = start_each(start_server, APP, "--static", f"/static={tmp_path}")

    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        with Client(server.address) as waiting, all_threads_stuck(server, threads, gate) as stuck:
            waiting.send(get("/quick?w"))
            for _ in range(20):
                with Client(server.address) as client:
                    assert client.request(get("/static/file.txt")).body == b"from a file"
            assert waiting.is_quiet(0.05)
            gate.touch()
            for client in stuck:
                assert client.read_response().body == b"opened"
            assert waiting.read_response().status == 200

    run_for_each(servers, check)


def test_queue_size(start_server: ServerFactory, tmp_path: Path) -> None:
    """Two may wait; the others get 503 with Retry-After at once."""
    servers = start_each(start_server, APP, "--queue-size", "2")

    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        with contextlib.ExitStack() as stack, all_threads_stuck(server, threads, gate) as stuck:
            waiting = [stack.enter_context(Client(server.address)) for _ in range(2)]
            for number, client in enumerate(waiting):
                client.send(get(f"/quick?w{number}"))
            assert waiting[0].is_quiet(0.1)
            for _ in range(5):
                with Client(server.address) as refused:
                    response = refused.request(get("/quick?refused"))
                    assert (response.status, response["Retry-After"]) == (503, "1")
                    assert "close" in response.tokens
                    assert refused.read_to_end() == b""
            gate.touch()
            for client in [*stuck, *waiting]:
                assert client.read_response().status == 200
            calls = read_state(waiting[0])["calls"]
            assert (calls["w0"], calls["w1"]) == (1, 1)
            assert "refused" not in calls

    run_for_each(servers, check)


def test_queue_timeout(start_server: ServerFactory, tmp_path: Path) -> None:
    servers = start_each(start_server, APP, "--queue-timeout", "0.5")

    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        with Client(server.address) as early, Client(server.address) as late, all_threads_stuck(server, threads, gate):
            begun_at = time.monotonic()
            early.send(get("/quick?early"))
            time.sleep(0.3)
            late.send(get("/quick?late"))
            response = early.read_response()
            assert (response.status, response["Retry-After"]) == (503, "1")
            assert 0.5 <= time.monotonic() - begun_at < 20  # the default is 30 s
            assert early.read_to_end() == b""
            assert late.read_response().status == 503
        with Client(server.address) as client:
            assert {"early", "late"}.isdisjoint(read_state(client)["calls"])

    run_for_each(servers, check)


def test_queued_requests_of_clients_that_have_gone_are_not_started(start_server: ServerFactory, tmp_path: Path) -> None:
    """One that is half closed has not gone."""

    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        with Client(server.address) as half, Client(server.address) as stays, all_threads_stuck(server, threads, gate):
            descriptors = server.descriptor_count()
            for number in range(5):
                with Client(server.address) as reset:
                    reset.send(get(f"/quick?reset{number}"))
                    assert reset.is_quiet(0.02)
                    reset.reset()
            with server.stopped(), Client(server.address) as reset:  # the loop hears of both at once
                reset.send(get("/quick?reset"))
                reset.reset()
            wait_until(lambda: server.descriptor_count() <= descriptors, what="connections to be given back")
            half.send(get("/quick?half"))
            half.half_close()
            stays.send(get("/quick?stays"))
            assert stays.is_quiet(0.1)
            gate.touch()
            assert half.read_response().status == 200
            assert half.read_to_end() == b""
            assert stays.read_response().status == 200
            calls = read_state(stays)["calls"]
            assert (calls["half"], calls["stays"]) == (1, 1)
            assert not [tag for tag in calls if tag.startswith("reset")]

    run_for_each(start_each(start_server, APP), check)


def test_queue_is_oldest_first(start_server: ServerFactory, tmp_path: Path) -> None:
    def check(server: Server, threads: int) -> None:
        gate = tmp_path / f"gate{threads}"
        tags = [f"n{number}" for number in range(20)]
        with contextlib.ExitStack() as stack, all_threads_stuck(server, threads, gate):
            for tag in tags:
                client = stack.enter_context(Client(server.address))
                client.send(get(f"/gate?{gate}&{tag}"))
                assert client.is_quiet(0.01)
            gate.touch()
            with Client(server.address) as last:
                state = wait_until(
                    lambda: (found := read_state(last)) and len(found["begun"]) == threads + len(tags) and found,
                    what="all calls",
                )
            # Threads that begin side by side may note it in any order among themselves.
            begun = state["begun"][threads:]
            assert all(abs(begun.index(tag) - number) < threads for number, tag in enumerate(tags)), begun

    run_for_each(start_each(start_server, APP), check)
