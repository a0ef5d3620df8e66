"""WIRE.md 3: every wait has its limit, and limits are totals or minimum rates: slowness does not extend them.

All limits are one second here, and all scenarios run at the same time, each in a thread of its own; a test only looks
at what came of one. A limit may be kept a little late (deadlines lie in slots of a second), never early.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import Client, Server, ServerFactory, parse_responses
from tests.wire.rows import SHAPE_BODY as BODY
from tests.wire.rows import post, shape

LIMIT_S = 1.0
LATEST_S = 12.0  # less than the defaults: none of them may be what ends a scenario
EARLIEST_S = LIMIT_S * 0.95
# keepalive is the default in the first: a limit must hold without the others' help.
LIMITS = ("--header-timeout=1", "--body-timeout=1", "--body-min-rate=500", "--send-timeout=1")
KEEPALIVE = ("--keep-alive=1",)
Scenario = Callable[[Server], Any]
SCENARIOS: list[Scenario] = []
IDLE: list[Scenario] = []


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


def idle_scenario(function: Scenario) -> Scenario:
    IDLE.append(function)
    return function


@pytest.fixture(scope="module")
def outcomes(start_module_server: ServerFactory) -> Iterator[Callable[[Scenario], Any]]:
    """What came of a scenario; all of them run at once, against two servers."""
    server = start_module_server("tests.apps.shapes:app", *LIMITS)
    keeping = start_module_server("tests.apps.shapes:app", *KEEPALIVE)
    with ThreadPoolExecutor(len(SCENARIOS) + len(IDLE)) as pool:
        futures: dict[Scenario, Future[Any]] = {one: pool.submit(one, server) for one in SCENARIOS}
        futures |= {one: pool.submit(one, keeping) for one in IDLE}
        yield lambda one: futures[one].result(100)
    for one in (server, keeping):
        assert "Traceback" not in one.stderr_text()
        assert one.stop() == 0


def drip(client: Client, data: bytes, every_s: float = 0.05, size: int = 1) -> float:
    """Send data in small pieces until the server answers or ends; seconds since the first piece."""
    start_at = time.monotonic()
    for at in range(0, len(data), size):
        try:
            client.send(data[at : at + size])
        except (BrokenPipeError, ConnectionResetError):
            break
        if client.wait_readable(every_s):
            break
    client.wait_readable(LATEST_S * 2)
    return time.monotonic() - start_at


def refused_after(server: Server, data: bytes, every_s: float = 0.05, first: bytes = b"") -> tuple[int, float]:
    """Status and seconds of the refusal of a client that drips; `first` is sent at once."""
    with Client(server.address, timeout_s=60) as client:
        client.send(first)
        seconds = drip(client, data, every_s)
        [reply] = parse_responses(client.read_to_end())
        assert reply.tokens == {"close"}
        return reply.status, seconds


# --- head and body ----------------------------------------------------------------------------------------------------


@scenario
def silent_within_the_head(server: Server) -> tuple[int, float]:
    return refused_after(server, b"G", first=b"")


@scenario
def silent_within_the_fields(server: Server) -> tuple[int, float]:
    return refused_after(server, b"H", first=b"GET / HTTP/1.1\r\n")


@scenario
def a_byte_at_a_time_within_the_head(server: Server) -> tuple[int, float]:
    return refused_after(server, b"GET /" + b"a" * 1000)


@scenario
def fields_one_at_a_time(server: Server) -> tuple[int, float]:
    with Client(server.address, timeout_s=60) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
        seconds = drip(client, b"A: b\r\n" * 90, 0.1, 6)
        [reply] = parse_responses(client.read_to_end())
        return reply.status, seconds


@scenario
def second_request_within_its_head(server: Server) -> tuple[int, float]:
    """The limit runs from the first byte of this head, not from the start of the connection."""
    with Client(server.address, timeout_s=60) as client:
        assert client.request(shape("list_one")).body == BODY
        time.sleep(0.5)
        seconds = drip(client, b"GET")
        [reply] = parse_responses(client.read_to_end())
        return reply.status, seconds


@scenario
def silent_before_the_body(server: Server) -> tuple[int, float]:
    return refused_after(server, b"", first=post(b"Content-Length: 10"))


@scenario
def silent_within_the_body(server: Server) -> tuple[int, float]:
    return refused_after(server, b"a", first=post(b"Content-Length: 10"))


@scenario
def silent_within_a_chunk(server: Server) -> tuple[int, float]:
    return refused_after(server, b"5\r\nab", first=post(b"Transfer-Encoding: chunked"))


@scenario
def a_byte_at_a_time_within_the_body(server: Server) -> tuple[int, float]:
    """Progress, but less than body_min_rate."""
    return refused_after(server, b"a" * 1000, first=post(b"Content-Length: 100000"))


@scenario
def silent_after_100_continue(server: Server) -> tuple[int, float]:
    start_at = time.monotonic()
    with Client(server.address, timeout_s=60) as client:
        client.send(post(b"Content-Length: 10", b"Expect: 100-continue"))
        [reply] = parse_responses(client.read_to_end())
        assert [one.status for one in reply.interim] == [100]
        return reply.status, time.monotonic() - start_at


TOO_SLOW = [
    silent_within_the_head,
    silent_within_the_fields,
    a_byte_at_a_time_within_the_head,
    fields_one_at_a_time,
    second_request_within_its_head,
    silent_before_the_body,
    silent_within_the_body,
    silent_within_a_chunk,
    a_byte_at_a_time_within_the_body,
    silent_after_100_continue,
]


@pytest.mark.parametrize("one", TOO_SLOW, ids=lambda one: one.__name__)
def test_too_slow_is_408(outcomes: Callable[[Scenario], Any], one: Scenario) -> None:
    status, seconds = outcomes(one)
    assert status == 408
    assert EARLIEST_S <= seconds < LATEST_S


@scenario
def a_slow_body_of_sufficient_rate(server: Server) -> int:
    """Far longer than body_timeout in all, but always with progress and never below body_min_rate."""
    with Client(server.address, timeout_s=60) as client:
        client.send(shape("ignores_content").replace(b"GET", b"POST").replace(b"Host", b"Content-Length: 6000\r\nHost"))
        for _ in range(30):
            client.send(b"x" * 200)
            time.sleep(0.1)
        return client.read_response().status


@scenario
def a_head_within_its_time(server: Server) -> int:
    with Client(server.address, timeout_s=60) as client:
        data = shape("list_one")
        for at in range(0, len(data), 8):
            client.send(data[at : at + 8])
            time.sleep(0.4 / (len(data) / 8))
        return client.read_response().status


@pytest.mark.parametrize("one", [a_slow_body_of_sufficient_rate, a_head_within_its_time], ids=lambda one: one.__name__)
def test_slow_but_within_the_limits(outcomes: Callable[[Scenario], Any], one: Scenario) -> None:
    assert outcomes(one) == 200


# --- idle -------------------------------------------------------------------------------------------------------------


def closed_after(client: Client) -> float:
    start_at = time.monotonic()
    assert client.read_to_end() == b""  # without a response: nothing was asked
    return time.monotonic() - start_at


@idle_scenario
def idle_from_the_start(server: Server) -> float:
    with Client(server.address, timeout_s=60) as client:
        return closed_after(client)


@idle_scenario
def idle_after_a_request(server: Server) -> float:
    with Client(server.address, timeout_s=60) as client:
        assert client.request(shape("list_one")).body == BODY
        return closed_after(client)


@idle_scenario
def idle_after_several(server: Server) -> float:
    """Each request starts the time anew."""
    with Client(server.address, timeout_s=60) as client:
        for _ in range(6):
            assert client.request(shape("generator")).body == BODY
            time.sleep(0.4)
        assert client.request(shape("list_one")).body == BODY
        return closed_after(client)


@scenario
def idle_after_an_empty_line(server: Server) -> float:
    """Whether it begins a head or not: it does not keep the connection beyond header_timeout."""
    start_at = time.monotonic()
    with Client(server.address, timeout_s=60) as client:
        client.send(b"\r\n")
        data = client.read_to_end()
        assert data == b"" or [reply.status for reply in parse_responses(data)] == [408]
    return time.monotonic() - start_at


@pytest.mark.parametrize("one", [*IDLE, idle_after_an_empty_line], ids=lambda one: one.__name__)
def test_idle_connections_are_closed(outcomes: Callable[[Scenario], Any], one: Scenario) -> None:
    assert EARLIEST_S <= outcomes(one) < LATEST_S


# --- sending ----------------------------------------------------------------------------------------------------------


def taken_until_closed(server: Server, name: str, size: int, every_s: float) -> float:
    """Take `size` bytes at a time until the server ends the connection; seconds until then.

    What the kernel has received it hands out even behind a reset, so that only poll tells when the end came.
    """
    start_at = time.monotonic()
    with Client(server.address, timeout_s=60, receive_buffer_size=4096) as client:
        client.send(shape(name))
        poll = select.poll()
        poll.register(client.sock, select.POLLRDHUP)
        while time.monotonic() - start_at < 2 * LATEST_S and not poll.poll(every_s * 1000):
            if size and client.wait_readable(0):
                client.sock.recv(size)
        return time.monotonic() - start_at


@scenario
def takes_nothing(server: Server) -> float:
    return taken_until_closed(server, "large?8", 0, 0.2)


@scenario
def takes_nothing_of_a_file(server: Server) -> float:
    return taken_until_closed(server, "large_file?8", 0, 0.2)


@scenario
def takes_nothing_of_a_list(server: Server) -> float:
    return taken_until_closed(server, "large_list?8", 0, 0.2)


@scenario
def takes_a_byte_at_a_time(server: Server) -> float:
    return taken_until_closed(server, "large?8", 1, 0.05)


@scenario
def takes_a_file_a_byte_at_a_time(server: Server) -> float:
    return taken_until_closed(server, "large_file?8", 1, 0.05)


@scenario
def takes_little_but_enough(server: Server) -> int:
    """Longer than send_timeout in all, but always with progress."""
    with Client(server.address, timeout_s=60, receive_buffer_size=65536) as client:
        client.send(shape("large_list?2"))
        total = 0
        while total < 2 << 20:
            data = client.sock.recv(65536)
            assert data, f"ended after {total} bytes"
            total += len(data)
            time.sleep(0.08)
        return total


TAKE_TOO_LITTLE = [
    takes_nothing,
    takes_nothing_of_a_file,
    takes_nothing_of_a_list,
    takes_a_byte_at_a_time,
    takes_a_file_a_byte_at_a_time,
]


@pytest.mark.parametrize("one", TAKE_TOO_LITTLE, ids=lambda one: one.__name__)
def test_whoever_takes_too_little_is_closed(outcomes: Callable[[Scenario], Any], one: Scenario) -> None:
    """OPERATIONS.md 6.8: single bytes do not keep a connection alive."""
    assert EARLIEST_S <= outcomes(one) < LATEST_S


def test_whoever_takes_enough_gets_all(outcomes: Callable[[Scenario], Any]) -> None:
    assert outcomes(takes_little_but_enough) >= 2 << 20


# --- the server itself is late ----------------------------------------------------------------------------------------


def test_limits_do_not_count_the_application(start_server: ServerFactory) -> None:
    """Neither its time to answer nor its pauses are idleness."""
    server = start_server("tests.apps.shapes:app", *LIMITS, *KEEPALIVE)
    with (
        Client(server.address) as client,
        Client(server.address) as pausing,
        Client(server.address) as other,
        Client(server.address) as idle,
    ):
        assert idle.request(shape("list_one")).body == BODY
        other.send(shape("list_one")[:-2])
        client.send(shape("sleeps?2.5"))
        pausing.send(shape("pauses?2.5"))
        assert other.read_response().status == 408  # the loop goes on beside a call, and so do the limits of others
        for one, body in ((client, b"first "), (pausing, BODY)):
            assert one.read_response().body == body
            assert one.request(shape("list_one")).body == BODY


def test_limits_after_a_stall(start_server: ServerFactory) -> None:
    """The process was stopped: what arrived meanwhile is read before any limit is judged (OPERATIONS.md 6.17)."""
    server = start_server("tests.apps.shapes:app", *LIMITS, *KEEPALIVE)
    with Client(server.address) as idle, Client(server.address) as head, Client(server.address) as body:
        assert idle.request(shape("list_one")).body == BODY
        head.send(shape("list_one")[:-10])
        body.send(post(b"Content-Length: 5", body=b"ab").replace(b" / ", b" /list_one "))
        time.sleep(0.3)
        with server.stopped():
            time.sleep(2.5)
            idle.send(shape("list_one"))
            head.send(shape("list_one")[-10:])
            body.send(b"cde")
        for client in (idle, head, body):
            assert client.read_response().body == BODY


def test_refusal_names_the_setting(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.shapes:app", "--header-timeout=0.2", "--body-timeout=0.2")
    assert refused_after(server, b"", first=b"GET")[0] == 408
    assert "header_timeout" in server.wait_for_log("with 408")
    assert refused_after(server, b"", first=post(b"Content-Length: 3"))[0] == 408
    server.wait_for_log("body_timeout")
