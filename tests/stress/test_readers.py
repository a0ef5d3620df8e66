"""Clients that read slowly, or go: the application never waits for them, and costs bounded memory. DESIGN.md 3."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.apps.readers import PIECE, piece
from tests.stress.together import run_for_each, start_each
from tests.support import ALL_TOOLS, Client, Server, ServerFactory, wait_until

MEGABYTE = 1 << 20
KINDS = ["flask", "cursor", "lock", "generator", "write"]
SLOW_RATE = 10_000  # bytes a second
SLOW_S = 1.0
LARGE = 500 * MEGABYTE if ALL_TOOLS else 100 * MEGABYTE


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def read_slowly(client: Client, seconds: float) -> None:
    """SLOW_RATE bytes a second for a while."""
    end_at = time.monotonic() + seconds
    while time.monotonic() < end_at:
        assert client.receive(SLOW_RATE // 20), "the connection ended"
        time.sleep(0.05)


def check_pieces(client: Client, count: int) -> None:
    """The rest of a chunked response, piece by piece, and its end."""
    content = bytearray(client.buffer)
    client.buffer = b""

    def take(size: int) -> bytes:
        while len(content) < size:
            data = client.sock.recv(MEGABYTE)
            assert data, "the connection ended"
            content.extend(data)
        taken = bytes(content[:size])
        del content[:size]
        return taken

    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += take(1)
    assert head.startswith(b"HTTP/1.1 200"), head
    start = b"%x\r\n" % PIECE
    for number in range(count):
        assert take(len(start)) == start
        assert take(PIECE + 2) == piece(number) + b"\r\n"
    assert take(5) == b"0\r\n\r\n"
    assert not content


def test_slow_readers_of_what_is_bound_to_its_thread(start_server: ServerFactory) -> None:
    """All kinds at once, to readers of 10 kB/s: each is complete, its thread free long before its reader is done."""
    count = 600
    server = start_server("tests.apps.readers:app", "--threads", "2")
    clients = [Client(server.address, receive_buffer_size=4096) for _ in KINDS]
    try:
        with Client(server.address) as other:
            for kind, client in zip(KINDS, clients, strict=True):
                client.send(get(f"/{kind}?{count}"))
            for client in clients:
                read_slowly(client, SLOW_S / len(KINDS))
            wait_until(lambda: set(other.request(get("/done")).body.decode().split()) == set(KINDS), 30, "all calls")
            for client in clients:
                check_pieces(client, count)
            assert other.request(get("/done")).body.count(b" ") == len(KINDS) - 1
    finally:
        for client in clients:
            client.sock.close()


def test_slow_readers_where_the_thread_has_to_wait(start_server: ServerFactory) -> None:
    """Without a spool the generator stands still across each pause, and goes on on its own thread. Others go on."""
    options = ("--response-spool", "0", "--output-watermark", "64K")
    servers = start_each(start_server, "tests.apps.readers:app", *options)

    def check(server: Server, threads: int) -> None:
        for number, kind in enumerate(KINDS):
            with Client(server.address, receive_buffer_size=4096) as client, Client(server.address, 5) as other:
                client.send(get(f"/{kind}?300"))
                read_slowly(client, 0.2)
                if threads > 1:
                    assert other.request(get("/done")).body.decode().split() == KINDS[:number]
                check_pieces(client, 300)
                assert client.request(get("/done")).body.decode().split() == KINDS[: number + 1]
        assert "Traceback" not in server.stderr_text()

    run_for_each(servers, check)


@pytest.mark.parametrize("kind", ["generator", "write"])
def test_large_response_to_a_slow_reader_in_bounded_memory(start_server: ServerFactory, kind: str) -> None:
    """The thread is free as soon as the application is done; memory does not grow with the response."""
    server = start_server("tests.apps.readers:app", "--threads", "2", "--limit-spool-total", "1G")
    count = LARGE // PIECE
    with Client(server.address, 30, receive_buffer_size=4096) as slow, Client(server.address) as other:
        other.request(get("/generator?4"))
        before = server.peak_memory_size()
        slow.send(get(f"/{kind}?{count}"))
        wait_until(
            lambda: kind.encode() in other.request(get("/done")).body.removeprefix(b"generator"), 30, "the call's end"
        )
        read_slowly(slow, 0.5)
        assert server.peak_memory_size() - before < 8 * MEGABYTE
        slow.sock.setsockopt(1, 8, MEGABYTE)  # SOL_SOCKET, SO_RCVBUF: from now on it reads as fast as it can
        check_pieces(slow, count)
        assert server.peak_memory_size() - before < 8 * MEGABYTE
        assert other.request(get("/done")).status == 200


# --- clients that go --------------------------------------------------------------------------------------------------


def read_state(client: Client) -> Any:
    return json.loads(client.request(get("/state")).body)


@pytest.mark.parametrize("ending", ["reset", "close"])
def test_generator_of_a_client_that_has_gone_ends(start_server: ServerFactory, ending: str) -> None:
    """Its next chunk is the last; close() is called, and the thread is free."""

    def check(server: Server, _: int) -> None:
        with Client(server.address) as other:
            for count in range(1, 4):  # unknown at first, then learned
                with Client(server.address) as client:
                    client.send(get("/ticking"))
                    while b"tick" not in client.buffer:
                        client.receive()
                    if ending == "reset":
                        client.reset()
                events = wait_until(
                    lambda count=count: len(events := read_state(other)["events"]) == count and events,  # type: ignore[misc]
                    5,
                    "the generator's end",
                )
            for event in events:
                words = event.replace(",", "").split()
                assert int(words[2]) < 20, event
                assert words[-1] == "True", event

    run_for_each(start_each(start_server, "tests.apps.dispatch:app"), check)


@pytest.mark.parametrize("name", ["gated_parts", "gated_write"])
def test_half_closed_client_gets_its_whole_answer(start_server: ServerFactory, tmp_path: Path, name: str) -> None:
    def check(server: Server, threads: int) -> None:
        for number in range(4):
            gate = tmp_path / f"{threads}.{number}"
            with Client(server.address) as client:
                client.send(get(f"/{name}?{gate}"))
                client.half_close()
                while b"first" not in client.buffer:
                    assert client.receive()
                assert client.is_quiet(0.03)
                gate.touch()
                assert client.read_response().body == b"first second"
                assert client.read_to_end() == b""

    run_for_each(start_each(start_server, "tests.apps.dispatch:app"), check)


def test_reset_behind_pipelined_requests_harms_nobody_else(start_server: ServerFactory, tmp_path: Path) -> None:
    """The first answer fails to be sent when the second request begins; its call goes on while others take its place.

    The server is stopped meanwhile, so that both requests and the reset are there at once.
    """

    def check(server: Server, threads: int) -> None:
        with contextlib.ExitStack() as stack:
            for number in range(4):
                gate = tmp_path / f"gate{threads}.{number}"
                stack.callback(gate.touch)
                client = stack.enter_context(Client(server.address))
                for _ in range(4):
                    assert client.request(get("/quick?learned")).status == 200
                with server.stopped():
                    client.send(get("/quick?first") + get(f"/gate?{gate}&{number}"))
                    client.reset()
                time.sleep(0.05)  # the call may have been made, and must not have been: either will do
                others = [stack.enter_context(Client(server.address)) for _ in range(3)]
                if threads > 1:
                    for other in others:
                        assert other.request(get("/quick?before")).status == 200
                gate.touch()
                for _ in range(2):
                    for other in others:
                        assert other.request(get("/quick?after")).status == 200
                    time.sleep(0.02)

    servers = start_each(start_server, "tests.apps.dispatch:app")
    run_for_each(servers, check)
    for server in servers.values():
        with Client(server.address) as client:
            wait_until(lambda: read_state(client)["connections"] <= 1, what="connections to be forgotten")
        assert "Traceback" not in server.stderr_text()
