"""Figures for statsd: gunicorn's names, several to a datagram, and nobody there to take them."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from epollwsgi.config.destinations import Destination
from epollwsgi.logs.statsd import DATAGRAM_SIZE, TIMERS, Statsd
from epollwsgi.logs.syslog import resolve
from tests.logs.receivers import Receiver, receiving
from tests.support import Client, ServerFactory, wait_until

GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"


def figures(receiver: Receiver) -> list[str]:
    return [figure for message in list(receiver.messages) for figure in message.split("\n")]


def count(receiver: Receiver, name: str) -> int:
    """The sum of a counter."""
    found = (re.fullmatch(re.escape(name) + r":(\d+)\|c\|@1\.0(?:\|#.*)?", figure) for figure in figures(receiver))
    return sum(int(match[1]) for match in found if match)


@pytest.mark.parametrize("access", ["none", "-"])
def test_figures_of_a_server(start_server: ServerFactory, access: str) -> None:
    with receiving("udp") as receiver:
        server = start_server(
            "tests.apps.logged:app",
            *("--statsd-host", f"127.0.0.1:{receiver.port}", "--statsd-prefix", "shop..", "-w", "2"),
            *("--dogstatsd-tags", "env:live,team:a", "--access-logfile", access),
        )
        receiver.wait("shop.gunicorn.workers:2|g|#env:live,team:a")
        with Client(server.address) as client:
            for _ in range(7):
                assert client.request(GET % b"/").status == 200
            assert client.request(GET % b"/fail").status == 500
        assert server.stop() == 0
        wait_until(lambda: count(receiver, "shop.gunicorn.requests") >= 8, 15, f"8 requests in {receiver.messages}")
        assert count(receiver, "shop.gunicorn.requests") == 8
        assert count(receiver, "shop.gunicorn.request.status.200") == 7
        assert count(receiver, "shop.gunicorn.request.status.500") == 1
        assert count(receiver, "shop.gunicorn.log.exception") == 1
        durations = [one for one in figures(receiver) if one.startswith("shop.gunicorn.request.duration:")]
        assert len(durations) == 8
        assert all(re.fullmatch(r"[^:]+:\d+\.\d{3}\|ms\|#env:live,team:a", one) for one in durations)
        receiver.wait("shop.gunicorn.workers:0|g")
    assert server.stdout_text().count('"GET /') == (8 if access == "-" else 0)


def test_a_host_that_nobody_knows_is_no_reason_not_to_serve(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.logged:app", "--statsd-host", "no.such.host.invalid")
    with Client(server.address) as client:
        assert client.request(GET % b"/").status == 200
    assert server.stop() == 0
    assert (
        "[WARNING] no figures are sent until a reload: statsd_host = 'no.such.host.invalid': " in server.stderr_text()
    )


def test_figures_over_a_unix_socket_that_comes_late(tmp_path: Path) -> None:
    path = tmp_path / "s"
    statsd = Statsd(resolve(Destination("unix", path=str(path), socket_type="dgram"))[0], "", "")
    statsd.on_workers(1)
    statsd.on_workers(2)
    with receiving("dgram", path) as receiver:

        def arrives() -> bool:
            statsd.on_workers(3)
            return bool(receiver.messages)

        wait_until(arrives, 15, "the first figure")
        assert set(receiver.messages) == {"gunicorn.workers:3|g"}
    statsd.close()


def test_nobody_listens_and_nobody_reads(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "s"))  # its queue is full soon
        for destination in (
            Destination("unix", path=str(tmp_path / "s"), socket_type="dgram"),
            Destination("unix", path=str(tmp_path / "missing"), socket_type="dgram"),
            Destination("udp", "127.0.0.1", 9),
        ):
            statsd = Statsd(resolve(destination)[0], "", "")
            for _ in range(5000):
                statsd.write_event("error", "", "", None)
            statsd.close()


def test_durations_share_datagrams_and_are_sampled_where_there_are_many() -> None:
    with receiving("udp") as receiver:
        statsd = Statsd(resolve(Destination("udp", "127.0.0.1", receiver.port))[0], "p", "")
        statsd.on_responses([(0.0, 200, 1, number / 1000, "GET") for number in range(100)])
        receiver.wait("duration:99.000|ms")
        assert len(receiver.messages) < 10
        assert all(len(message) <= DATAGRAM_SIZE for message in receiver.messages)
        assert len([one for one in figures(receiver) if "|ms" in one]) == 100
        receiver.messages.clear()
        statsd.on_responses([(0.0, 200 + number % 2, 1, 0.5, "GET") for number in range(5 * TIMERS)])
        wait_until(lambda: len([one for one in figures(receiver) if "|ms" in one]) >= TIMERS, 15, "the durations")
        durations = [one for one in figures(receiver) if "|ms" in one]
        assert set(durations) == {"p.gunicorn.request.duration:500.000|ms|@0.2"}
        assert len(durations) == TIMERS
        assert count(receiver, "p.gunicorn.requests") == 5 * TIMERS
        assert count(receiver, "p.gunicorn.request.status.201") == 5 * TIMERS // 2
        statsd.close()
