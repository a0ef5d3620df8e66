"""Too few descriptors or too many connections: OPERATIONS.md 6.5 and 6.14."""

from __future__ import annotations

import time

from tests.support import (
    Client,
    ServerFactory,
)
from tests.wire.rows import SHAPE_BODY as BODY
from tests.wire.rows import shape


def test_no_descriptors_and_nobody_idle(start_server: ServerFactory) -> None:
    """EMFILE: accepting pauses, says so once, costs no CPU time, and recovers by itself. OPERATIONS.md 6.5."""
    server = start_server("tests.apps.shapes:app", limits="NOFILE=64")
    with Client(server.address) as busy:
        assert busy.request(shape("takes_descriptors")).status == 200
        busy.send(shape("gives_descriptors")[:-2])  # not idle: half a head
        clients = [Client(server.address) for _ in range(5)]
        try:
            for client in clients:
                client.send(shape("list_one"))
            server.wait_for_log("Too many open files")
            before = server.cpu_time_s()
            time.sleep(1)
            assert server.cpu_time_s() - before < 0.3
            assert all(client.is_quiet(0) for client in clients)
            busy.send(b"\r\n")
            assert busy.read_response().status == 200
            for client in clients:
                assert client.read_response().body == BODY
            assert server.stderr_text().count("Too many open files") == 1
        finally:
            for client in clients:
                client.sock.close()


def test_no_descriptors_and_idle_connections(start_server: ServerFactory) -> None:
    """EMFILE: the connections that have been idle longest are closed for new ones."""
    server = start_server("tests.apps.shapes:app", limits="NOFILE=64")
    idle = [Client(server.address) for _ in range(3)]
    try:
        for client in idle:
            assert client.request(shape("list_one")).body == BODY
        assert idle[-1].request(shape("takes_descriptors")).status == 200
        with Client(server.address) as new:
            assert new.request(shape("list_one")).body == BODY
            assert idle[0].read_to_end() == b""
            assert new.request(shape("gives_descriptors")).status == 200
        assert "Traceback" not in server.stderr_text()
    finally:
        for client in idle:
            client.sock.close()


def test_few_descriptors_are_enough(start_server: ServerFactory) -> None:
    """Starting with 64 descriptors works, and more clients than that are served one after another."""
    server = start_server("tests.apps.shapes:app", limits="NOFILE=64")
    clients = []
    try:
        for _ in range(150):
            clients.append(Client(server.address))
            assert clients[-1].request(shape("list_one")).body == BODY
    finally:
        for client in clients:
            client.sock.close()


def test_worker_connections_with_idle_ones(start_server: ServerFactory) -> None:
    """At the limit those idle longest make room."""
    server = start_server("tests.apps.shapes:app", "--worker-connections", "20")
    clients = []
    try:
        for _ in range(60):
            clients.append(Client(server.address))
            assert clients[-1].request(shape("list_one")).body == BODY
        assert clients[0].read_to_end() == b""
        assert clients[-1].request(shape("list_one")).body == BODY
        assert server.descriptor_count() < 20 + 30
    finally:
        for client in clients:
            client.sock.close()


def test_worker_connections_with_nobody_idle(start_server: ServerFactory) -> None:
    """At the limit, and all in the midst of a request: the next waits for its turn."""
    server = start_server("tests.apps.shapes:app", "--worker-connections", "10")
    clients = []
    try:
        for _ in range(14):
            clients.append(Client(server.address))
            # A whole request, so that this connection is known to be accepted, and half of the next.
            clients[-1].send(shape("list_one") + shape("list_one", b"Connection: close")[:-2])
            if len(clients) <= 8:
                assert clients[-1].read_response().body == BODY
        server.wait_for_log("worker_connections")
        before = server.cpu_time_s()
        time.sleep(0.5)
        assert server.cpu_time_s() - before < 0.2
        for number, client in enumerate(clients):
            client.send(b"\r\n")
            assert [client.read_response().body for _ in range(1 if number < 8 else 2)][-1] == BODY
    finally:
        for client in clients:
            client.sock.close()
