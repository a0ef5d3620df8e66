"""WIRE.md 4, wsgi.early_hints: 103 before the response, to HTTP/1.1 only, and never where it could be taken for it."""

from __future__ import annotations

import http.client
import io
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import Client, Response, Server, ServerFactory, parse_responses, require_tool
from tests.upgrade.apps import BIG_COUNT, BIG_VALUE, PRELOAD, WRONG_HINTS

LINK = list(PRELOAD)


def get(path: str, method: str = "GET", version: str = "1.1") -> bytes:
    return f"{method} /{path} HTTP/{version}\r\nHost: h\r\n\r\n".encode()


def fields_of(reply: Response) -> list[list[tuple[str, str]]]:
    """The fields of each interim response, all of which are 103."""
    assert [interim.status for interim in reply.interim] == [103] * len(reply.interim)
    return [interim.fields for interim in reply.interim]


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address) as one:
        yield one


def test_hint_before_the_response(client: Client) -> None:
    """On a connection that is kept, so often that the route is quick, with the fields as given and none added."""
    for _ in range(20):
        reply = client.request(get("one_hint"))
        assert (reply.status, reply.body) == (200, b"one")
        assert fields_of(reply) == [[PRELOAD]]
        assert "Link" not in reply


def test_bytes_of_a_hint(client: Client) -> None:
    client.send(get("one_hint"))
    client.read_response()
    client.send(get("one_hint"))
    while b"one" not in client.buffer:
        client.receive()
    head = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\nHTTP/1.1 200 OK\r\n"
    assert client.buffer.startswith(head)


def test_several_hints_in_order(client: Client) -> None:
    for count in (0, 1, 3, 40):
        reply = client.request(get(f"several_hints?{count}"))
        assert (reply.status, reply.body) == (200, b"several")
        numbers = [dict(fields)["X-Number"] for fields in fields_of(reply)]
        assert numbers == [str(number) for number in range(count + 1)]


def test_hint_without_fields(client: Client) -> None:
    reply = client.request(get("no_fields"))
    assert (reply.body, fields_of(reply)) == (b"none", [[]])


def test_head_gets_hints_too(client: Client) -> None:
    for _ in range(3):
        reply = client.request(get("one_hint", "HEAD"))
        assert (reply.status, reply.body, fields_of(reply)) == (200, b"", [[PRELOAD]])


def test_hint_is_on_the_wire_while_the_application_works(client: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    for _ in range(4):
        client.send(get(f"gated_hints?{gate}"))
        while not client.buffer.endswith(b"\r\n\r\n"):
            assert client.receive()
        assert client.buffer.startswith(b"HTTP/1.1 103 Early Hints\r\n")
        assert client.buffer.count(b"HTTP/1.1 ") == 1
        gate.touch()
        reply = client.read_response()
        assert (reply.body, len(reply.interim)) == (b"gated", 1)
        gate.unlink()


def test_hints_of_pipelined_requests(client: Client) -> None:
    """Each 103 stands before the response of its own request, also behind answers that still waited in the batch."""
    for _ in range(3):
        names = ["quick", "one_hint", "quick", "quick", "several_hints?2", "one_hint", "quick"]
        client.send(b"".join(map(get, names)))
        replies = [client.read_response() for _ in names]
        assert [len(reply.interim) for reply in replies] == [0, 1, 0, 0, 3, 1, 0]
        assert [reply.body for reply in replies] == [b"quick", b"one", b"quick", b"quick", b"several", b"one", b"quick"]


def test_http_1_0_has_none(client: Client, server: Server) -> None:
    """Such a client knows no interim responses; the application sees that there is nothing to call."""
    for version, expected in (("1.0", b"False"), ("1.1", b"True"), ("1.2", b"True"), ("1.0", b"False")):
        with Client(server.address) as other:
            assert other.request(get("has_hints", version=version)).body == expected
    kept = b"GET /has_hints HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"
    for _ in range(3):  # the fields of one connection are remembered, also those of the other version
        assert client.request(get("has_hints")).body == b"True"
    for _ in range(3):
        assert client.request(kept).body == b"False"
    assert client.request(get("has_hints")).body == b"True"


def test_nothing_behind_the_head(client: Client) -> None:
    for query in ("", "?write"):
        for _ in range(4):
            reply = client.request(get("late_hints" + query))
            assert (reply.interim, reply.body) == ([], (b"written " if query else b"") + b"first second")
    for _ in range(4):
        client.send(get("late_whole") + get("quick"))
        assert [(reply.interim, reply.body) for reply in (client.read_response(), client.read_response())] == [
            ([], b"whole"),
            ([], b"quick"),
        ]


def test_fields_are_checked(client: Client) -> None:
    """As those of a response: a breach raises, and nothing of it is sent."""
    client.send(get("wrong_hints"))
    reply = client.read_response()
    assert reply.interim == []
    assert "X-Injected" not in reply
    raised = json.loads(reply.body)
    assert set(raised) == set(WRONG_HINTS)
    assert [name for name, error in raised.items() if not error] == []
    assert {raised[name] for name in WRONG_HINTS if name != "None"} == {"ResponseInvalid"}


def test_breach_that_nobody_catches_is_500(client: Client) -> None:
    reply = client.request(get("uncaught_hints"))
    assert (reply.status, reply.interim) == (500, [])
    assert client.request(get("quick")).body == b"quick"


def test_fields_of_framing_and_of_the_connection_are_left_out(client: Client) -> None:
    """Neither a length nor a coding may stand in an interim response, and the connection is the server's."""
    reply = client.request(get("hop_by_hop"))
    assert (reply.body, fields_of(reply)) == (b"kept", [[PRELOAD]])
    assert client.request(get("quick")).body == b"quick"


def test_failure_after_hints_is_a_whole_500(client: Client, server: Server) -> None:
    for _ in range(3):
        reply = client.request(get("fails_after_hints"))
        assert (reply.status, fields_of(reply)) == (500, [[PRELOAD]])
    server.wait_for_log("RuntimeError: after the hints")


@pytest.mark.parametrize("threads", ["1", "8"])
def test_response_stays_behind_hints_that_the_client_does_not_take(start_server: ServerFactory, threads: str) -> None:
    """More hints than a unix socket takes, then a response, then the next request's: everything comes, in order."""
    server = start_server("tests.upgrade.apps:app", "--threads", threads, bind="unix")
    with Client(server.address) as client:
        for _ in range(10):
            client.send(get("big_hints") + get("quick"))
            assert client.wait_readable(30)
            while client.buffer.count(b"HTTP/1.1 200 OK") < 2:
                assert client.receive()
            reply, after = parse_responses(client.buffer, closed=False)
            client.buffer = b""
            assert (reply.status, reply.body, after.body, after.interim) == (200, b"behind", b"quick", [])
            [interim] = fields_of(reply)
            assert interim == [("Link", BIG_VALUE)] * BIG_COUNT


def test_hints_over_a_unix_socket(start_server: ServerFactory) -> None:
    server = start_server("tests.upgrade.apps:app", bind="unix")
    with Client(server.address) as client:
        reply = client.request(get("one_hint"))
        assert (reply.body, fields_of(reply)) == (b"one", [[PRELOAD]])


# --- clients that others wrote ----------------------------------------------------------------------------------------


class Patient(http.client.HTTPResponse):
    """http.client passes over 100 (Continue) alone; this one over every interim response, and notes them."""

    def begin(self) -> None:
        self.seen: list[http.client.HTTPMessage] = []
        while True:
            line = self.fp.readline(1000)
            if not line.startswith(b"HTTP/1.1 1"):
                break
            self.seen.append(http.client.parse_headers(self.fp))
        self.fp = io.BufferedReader(Ahead(line, self.fp))
        super().begin()


class Ahead(io.RawIOBase):
    """A stream with a line put back in front of it."""

    def __init__(self, line: bytes, rest: io.BufferedIOBase) -> None:
        self.line = line
        self.rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self.line = (self.line, b"") if self.line else (self.rest.read1(len(buffer)), b"")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.rest.close()
        super().close()


def test_http_client_copes(server: Server) -> None:
    """Its parser takes the interim responses; one connection serves several requests."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.response_class = Patient
        for count in (0, 2, 5):
            connection.request("GET", f"/several_hints?{count}")
            response = connection.getresponse()
            assert isinstance(response, Patient)
            assert [fields["X-Number"] for fields in response.seen] == [str(number) for number in range(count + 1)]
            assert (response.status, response.read()) == (200, b"several")


def test_curl_copes(server: Server) -> None:
    """It shows each interim head (-i), and goes on with the same connection."""
    curl = require_tool("curl", "curl")
    command = [curl, "-sS", "-i", "--max-time", "10", f"{server.url}/several_hints?2", f"{server.url}/one_hint"]
    command += ["-w", "%{num_connects}"]
    done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    heads = [part for part in done.stdout.split(b"\r\n\r\n") if b"HTTP/1.1 " in part]
    assert [re.findall(rb"HTTP/1.1 (\d+)", head) for head in heads] == [[b"103"]] * 3 + [[b"200"], [b"103"], [b"200"]]
    assert done.stdout.endswith(b"\r\n\r\none0")
