"""The access log of a live server: whatever becomes of a request, it has exactly one line, with its status and size."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.apps import access
from tests.support import Client, Server, ServerFactory, exchange, wait_until

FORMAT = "%(s)s %(b)s %(h)s %(r)s"
SENT_FILE_SIZE = os.path.getsize(access.SENT_FILE)
BIG_FILE = 9 << 20


class Logged:
    """A server, and what its access log has said since it was asked last."""

    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        self.path = path
        self._read_size = 0
        self._sentinel = 0

    def lines(self) -> list[str]:
        """Those of all that has ended before; asked for with a request of its own, whose line comes behind them."""
        self._sentinel += 1
        mark = f"GET /sentinel-{self._sentinel} HTTP/1.1"
        exchange(self.server.address, [f"{mark}\r\nHost: h\r\nConnection: close\r\n\r\n".encode()])
        wait_until(lambda: mark in self._text(), what=f"the line of {mark!r}")
        lines = self._text().splitlines()
        self._read_size = self.path.stat().st_size
        assert lines[-1].endswith(mark), lines
        return lines[:-1]

    def wait_for_lines(self, count: int) -> list[str]:
        """The next lines, once so many are there."""
        wait_until(lambda: self._text().count("\n") >= count, what=f"{count} lines: {self._text()}")
        return self.lines()

    def _text(self) -> str:
        text = self.path.read_bytes()[self._read_size :].decode()
        return text[: text.rfind("\n") + 1]


def start_logged(start: ServerFactory, directory: Path, *options: str, target: str = "tests.apps.access:app") -> Logged:
    path = directory / "access"
    path.touch()
    logging = ("--access-logfile", str(path), "--access-logformat", FORMAT)
    return Logged(start(target, *logging, "--log-level", "critical", *options), path)


def build_site(directory: Path) -> Path:
    (directory / "site").mkdir()
    (directory / "site" / "small.txt").write_bytes(b"0123456789")
    (directory / "site" / "big.bin").write_bytes(b"\0" * BIG_FILE)
    (directory / "site" / "large.bin").write_bytes(b"\0" * 300_000)
    return directory / "site"


@pytest.fixture(scope="module")
def logged(start_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    directory = tmp_path_factory.mktemp("logged")
    limits = ("--limit-request-line", "200", "--limit-request-fields", "10", "--limit-request-body", "1000")
    return start_logged(
        start_module_server, directory, *limits, "--header-timeout", "0.5", "--body-timeout", "0.5",
        "--static", f"/files={build_site(directory)}", "--forwarded-fields", "for",
    )  # fmt: skip


class Row(NamedTuple):
    """What is sent, and the line of it less the address."""

    name: str
    data: bytes
    status: int
    size: int
    line: str
    half_close: bool = False


def request(line: str, fields: str = "", content: bytes = b"") -> bytes:
    return f"{line}\r\nHost: h\r\nConnection: close\r\n{fields}\r\n".encode("latin-1") + content


def get(path: str, status: int, size: int, fields: str = "", method: str = "GET", name: str = "") -> Row:
    line = f"{method} /{path} HTTP/1.1"
    return Row(name or f"{method} {path}", request(line, fields), status, size, line)


CHUNKED = "Transfer-Encoding: chunked\r\n"
DYNAMIC = [
    get("plain", 200, 5),
    get("plain?a=b&c", 200, 5),
    get("plain", 200, 0, method="HEAD"),
    get("without_length", 201, 3),
    get("nothing", 204, 0),
    get("unchanged", 304, 0),
    get("parts", 200, 7),
    get("parts", 200, 0, method="HEAD"),
    get("written", 200, 11),
    get("file", 200, SENT_FILE_SIZE),
    get("no_file", 200, 9),
    get("hints", 200, 11),
    get("fails", 500, 26),
    get("fails", 500, 0, method="HEAD"),
    get("fails_late", 200, 5),
    get("close_fails", 200, 5),
    get("too_short", 200, 5),
    get("too_long", 200, 4),
    get("emptied", 200, 7),
    get("none", 404, 4),
    get("big", 200, access.BIG),
    get("big", 200, 0, method="HEAD"),
    get("refuses_upgrade", 200, 2, name="no upgrade")._replace(status=400),
    Row("HTTP/1.0", b"GET /parts HTTP/1.0\r\n\r\n", 200, 7, "GET /parts HTTP/1.0"),
    Row("absolute", request("GET http://h/plain HTTP/1.1"), 200, 5, "GET http://h/plain HTTP/1.1"),
    Row("body", request("POST /body HTTP/1.1", "Content-Length: 4\r\n", b"abcd"), 200, 4, "POST /body HTTP/1.1"),
    Row("chunked", request("PUT /body HTTP/1.1", CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"), 200, 3, "PUT /body HTTP/1.1"),
    Row("options", request("OPTIONS * HTTP/1.1"), 204, 0, "OPTIONS * HTTP/1.1"),
]
STATIC = [
    get("files/small.txt", 200, 10),
    get("files/small.txt?v=1", 200, 10),
    get("files/small.txt", 200, 0, method="HEAD"),
    get("files/small.txt", 206, 3, "Range: bytes=2-4\r\n", name="range"),
    get("files/small.txt", 416, 26, "Range: bytes=90-\r\n", name="no range"),
    get("files/small.txt", 304, 0, "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n", name="unchanged file"),
    get("files/large.bin", 200, 300_000),
    get("files/big.bin", 200, BIG_FILE),
    get("files/big.bin", 206, 5_000_000, "Range: bytes=0-4999999\r\n", name="large range"),
    get("files/none.txt", 404, 4),
    get("files/small.txt", 404, 4, method="DELETE", name="a method for the application"),
]
REFUSED = [
    Row("no words", b"GARBAGE\r\n\r\n", 400, 16, "GARBAGE"),
    Row("two words", b"GET /x\r\n\r\n", 400, 16, "GET /x"),
    Row("bytes", b'\x16\x03"\xff\r\n\r\n', 400, 16, r"\x16\x03\x22" + "\xff"),
    Row("no host", b"GET /x HTTP/1.1\r\n\r\n", 400, 16, "GET /x HTTP/1.1"),
    Row("no host, HEAD", b"HEAD /x HTTP/1.1\r\n\r\n", 400, 0, "HEAD /x HTTP/1.1"),
    Row("bad field", request("GET /x HTTP/1.1", "a b: c\r\n"), 400, 16, "GET /x HTTP/1.1"),
    Row("long line", request(f"GET /{'a' * 300} HTTP/1.1"), 414, 17, f"GET /{'a' * 300} HTTP/1.1"),
    Row("many fields", request("GET /x HTTP/1.1", "A: b\r\n" * 20), 431, 36, "GET /x HTTP/1.1"),
    Row("large body", request("POST /x HTTP/1.1", "Content-Length: 1001\r\n"), 413, 22, "POST /x HTTP/1.1"),
    Row("large chunk", request("POST /x HTTP/1.1", CHUNKED, b"fff\r\n" + b"x" * 4095), 413, 22, "POST /x HTTP/1.1"),
    Row("bad chunk", request("POST /x HTTP/1.1", CHUNKED, b"zz\r\n"), 400, 16, "POST /x HTTP/1.1"),
    Row("expectation", request("PUT /x HTTP/1.1", "Expect: x\r\nContent-Length: 1\r\n"), 417, 23, "PUT /x HTTP/1.1"),
    Row("coding", request("PUT /x HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n"), 501, 20, "PUT /x HTTP/1.1"),
    Row("version", request("GET /x HTTP/2.0"), 505, 31, "GET /x HTTP/2.0"),
    Row("cut body", request("POST /x HTTP/1.1", "Content-Length: 9\r\n", b"abc"), 400, 16, "POST /x HTTP/1.1", True),
    Row("slow head", b"GET /x HT", 408, 20, "GET /x HT"),
    Row("slow line end", b"HEAD /x HTTP/1.1\r\nHost", 408, 0, "HEAD /x HTTP/1.1"),
    Row("slow body", request("POST /x HTTP/1.1", "Content-Length: 9\r\n", b"abc"), 408, 20, "POST /x HTTP/1.1"),
]
ROWS = DYNAMIC + STATIC + REFUSED


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.status} {row.name}" for row in ROWS])
def test_exactly_one_line(logged: Logged, row: Row) -> None:
    """The size is that of the content which came; the answer is read to the end of the connection."""
    method = row.data.split(b" ", 1)[0].decode("latin-1")
    received = exchange(logged.server.address, [row.data], count=0, half_close=row.half_close, methods=[method])
    assert logged.lines() == [f"{row.status} {row.size} 127.0.0.1 {row.line}"]
    last = received.rpartition(b"HTTP/1.1 ")[2]
    assert int(last[:3]) == row.status
    head, _, content = last.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        assert len(content) == row.size


BEHIND_PROXY = [row for row in REFUSED if b"Host: h\r\n" in row.data]


def test_refusals_have_the_client_behind_a_proxy(logged: Logged) -> None:
    """Where the head came whole; the fields may stand in a head that is wrong itself."""
    logged.lines()
    expected = []
    for row in BEHIND_PROXY:
        data = row.data.replace(b"Host: h\r\n", b"Host: h\r\nX-Forwarded-For: 203.0.113.9\r\n")
        exchange(logged.server.address, [data], count=0, half_close=row.half_close)
        expected.append(f"{row.status} {row.size} 203.0.113.9 {row.line}")
    assert len(expected) > 9
    assert logged.lines() == expected


def test_kept_connection_has_a_line_for_each_request(logged: Logged) -> None:
    """Pipelined ones, in order; also those that are answered from memory, and one that is refused last."""
    logged.lines()
    wanted = [(b"plain", 200, 5), (b"files/small.txt", 200, 10), (b"parts", 200, 7), (b"files/large.bin", 200, 300_000)]
    pieces = [b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % path for path, _, _ in wanted * 5]
    exchange(logged.server.address, [b"".join(pieces) + b"GET / HTTP/9.9\r\n\r\n"], count=0)
    assert logged.lines() == [
        *(f"{status} {size} 127.0.0.1 GET /{path.decode()} HTTP/1.1" for path, status, size in wanted * 5),
        "505 31 127.0.0.1 GET / HTTP/9.9",
    ]
    with Client(logged.server.address) as client:
        for path, _, _ in wanted * 5:
            client.request(b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
    assert logged.lines() == [
        f"{status} {size} 127.0.0.1 GET /{path.decode()} HTTP/1.1" for path, status, size in wanted * 5
    ]


def test_connections_without_a_request_have_no_line(logged: Logged) -> None:
    logged.lines()
    with Client(logged.server.address):
        pass
    with Client(logged.server.address) as client:
        client.send(b"\r\n")
        client.half_close()
        assert client.read_to_end() == b""
    with Client(logged.server.address) as client:
        client.send(b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n")
        client.reset()
    assert logged.lines() == []


def test_address_is_that_of_environ_when_the_call_has_ended(logged: Logged) -> None:
    """A middleware may know better who the client is; what was asked for is what came."""
    logged.lines()
    exchange(logged.server.address, [request("GET /moved HTTP/1.1")], count=0)
    assert logged.lines() == ["200 5 192.0.2.77 GET /moved HTTP/1.1"]


# --- clients that leave ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["big", "endless", "files/big.bin"])
def test_client_that_leaves(logged: Logged, path: str) -> None:
    """One line, once it has left, with what it was sent until then."""
    logged.lines()
    with Client(logged.server.address, receive_buffer_size=4096) as client:
        client.send(b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode())
        assert client.receive(1000)
        client.reset()
    [line] = logged.wait_for_lines(1)
    found = re.fullmatch(rf"200 (\d+) 127\.0\.0\.1 GET /{path} HTTP/1\.1", line)
    assert found is not None, line
    if path != "endless":
        assert int(found[1]) < {"big": access.BIG, "files/big.bin": BIG_FILE}[path]


@pytest.mark.parametrize("framing", ["Content-Length: 900\r\n", CHUNKED], ids=["length", "chunked"])
def test_client_that_leaves_within_its_body(logged: Logged, framing: str) -> None:
    """With a reset; one that ends its side cleanly is told 400, in REFUSED."""
    logged.lines()
    fields = f"X-Forwarded-For: 203.0.113.9\r\nExpect: 100-continue\r\n{framing}"
    with Client(logged.server.address) as client:
        client.send(request("POST /body HTTP/1.1", fields))
        while b"100 Continue" not in client.buffer:
            assert client.receive()
        client.send(b"1")
        client.reset()
    assert logged.wait_for_lines(1) == ["400 0 203.0.113.9 POST /body HTTP/1.1"]


def test_no_line_before_the_client_has_all(logged: Logged) -> None:
    logged.lines()
    with Client(logged.server.address, receive_buffer_size=4096) as client:
        client.send(b"GET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert client.receive(1000)
        assert logged.lines() == []
        client.read_to_end()
    assert logged.wait_for_lines(1) == [f"200 {access.BIG} 127.0.0.1 GET /big HTTP/1.1"]


def test_client_that_leaves_while_its_request_is_in_the_application(logged: Logged, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    logged.lines()
    with Client(logged.server.address) as client:
        client.send(f"GET /held?{gate} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        wait_until(Path(f"{gate}.begun").exists, what="the call")
        client.reset()
    gate.touch()
    [line] = logged.wait_for_lines(1)
    assert re.fullmatch(r"200 [04] 127\.0\.0\.1 GET /held\?.* HTTP/1\.1", line)


# --- threads, queues, upgrades --------------------------------------------------------------------------------------


def hold(server: Server, gate: Path) -> Client:
    """A request that is in the application until `gate` is there."""
    client = Client(server.address)
    client.send(f"GET /held?{gate} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    return client


def test_queue_that_is_full_and_a_client_that_left_it(start_server: ServerFactory, tmp_path: Path) -> None:
    logged = start_logged(start_server, tmp_path, "--threads", "1", "--queue-size", "1")
    gate = tmp_path / "gate"
    with hold(logged.server, gate), Client(logged.server.address) as waiting:
        wait_until(Path(f"{gate}.begun").exists, what="the call")
        waiting.request(
            b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"
        )  # accepted: what it sends next is read before the probe
        waiting.send(b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n")
        assert exchange(logged.server.address, [request("GET /probe HTTP/1.1")], count=0).startswith(b"HTTP/1.1 503")
        waiting.reset()
        gate.touch()
        lines = logged.wait_for_lines(4)
    left = "GET /plain HTTP/1.1"
    assert sorted(line for line in lines if left not in line) == [
        f"200 4 127.0.0.1 GET /held?{gate} HTTP/1.1",
        "204 0 127.0.0.1 OPTIONS * HTTP/1.1",
        "503 24 127.0.0.1 GET /probe HTTP/1.1",
    ]
    # Whoever takes it out of the queue may not have heard of the reset yet.
    outcome = next(line for line in lines if left in line)
    assert outcome in {f"{status} 127.0.0.1 {left}" for status in ("499 0", "200 0", "200 5")}


def test_client_that_left_with_its_request_is_not_answered(start_server: ServerFactory, tmp_path: Path) -> None:
    """Request and reset come in one turn of the loop, and no thread is free."""
    logged = start_logged(start_server, tmp_path, "--threads", "1")
    gate = tmp_path / "gate"
    with hold(logged.server, gate), Client(logged.server.address) as leaving, Client(logged.server.address) as other:
        wait_until(Path(f"{gate}.begun").exists, what="the call")
        for client in (leaving, other):
            client.request(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
        os.kill(logged.server.worker_pid, signal.SIGSTOP)
        leaving.send(b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n")
        leaving.reset()
        os.kill(logged.server.worker_pid, signal.SIGCONT)
        other.request(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
        gate.touch()
        lines = logged.wait_for_lines(5)
    assert [line for line in lines if "/plain" in line] == ["499 0 127.0.0.1 GET /plain HTTP/1.1"]


def test_call_that_is_given_up_has_one_line(start_server: ServerFactory, tmp_path: Path) -> None:
    logged = start_logged(start_server, tmp_path, "--timeout", "0.2")
    gate = tmp_path / "gate"
    with hold(logged.server, gate) as client:
        assert client.read_response().status == 504
        gate.touch()
        assert logged.wait_for_lines(1) == [f"504 20 127.0.0.1 GET /held?{gate} HTTP/1.1"]
    with Client(logged.server.address) as client:
        client.request(b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n")
    assert logged.lines() == ["200 5 127.0.0.1 GET /plain HTTP/1.1"]


UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"


def ask_upgrade(path: str) -> bytes:
    return f"GET /{path} HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n".encode()


def test_websocket_has_a_line_when_it_ends(start_server: ServerFactory, tmp_path: Path) -> None:
    logged = start_logged(start_server, tmp_path, "--upgrade-threads", "1")
    with Client(logged.server.address) as client:
        client.send(ask_upgrade("echo"))
        while access.ACCEPTED not in client.buffer:
            assert client.receive()
        assert logged.lines() == []
        exchange(logged.server.address, [ask_upgrade("echo")], count=1)
        assert logged.lines() == ["503 24 127.0.0.1 GET /echo HTTP/1.1"]
        client.half_close()
        client.read_to_end()
    assert logged.wait_for_lines(1) == ["101 0 127.0.0.1 GET /echo HTTP/1.1"]
    exchange(logged.server.address, [ask_upgrade("refuses_upgrade")], count=1)
    assert logged.wait_for_lines(1) == ["400 2 127.0.0.1 GET /refuses_upgrade HTTP/1.1"]


@pytest.mark.parametrize("options", [("--threads", "1"), ("--dispatch", "pool")], ids=["one thread", "pool"])
def test_one_line_on_whatever_thread(start_server: ServerFactory, tmp_path: Path, options: tuple[str, ...]) -> None:
    logged = start_logged(start_server, tmp_path, *options)
    for row in DYNAMIC:
        if "big" not in row.name:
            exchange(logged.server.address, [row.data], count=0, methods=[row.data.split(b" ", 1)[0].decode()])
    expected = [f"{row.status} {row.size} 127.0.0.1 {row.line}" for row in DYNAMIC if "big" not in row.name]
    assert logged.wait_for_lines(len(expected)) == expected


# --- sites, sockets, words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix"])
def test_site_alone(start_server: ServerFactory, tmp_path: Path, bind: str) -> None:
    path = tmp_path / "access"
    site = build_site(tmp_path)
    server = start_server(
        f"{site}/", "--access-logfile", str(path), "--access-logformat", f"{FORMAT} %({{user-agent}}i)s", bind=bind
    )
    fields = "User-Agent: me\r\n"
    with Client(server.address) as client:
        for _ in range(3):
            client.request(request("GET /small.txt HTTP/1.1", fields).replace(b"Connection: close\r\n", b""))
        client.request(request("GET /none HTTP/1.1", fields))
    address = "-" if bind == "unix" else "127.0.0.1"
    wait_until(lambda: path.read_text().count("\n") == 4, what="four lines")
    lines = path.read_text().splitlines()
    assert lines[:3] == [f"200 10 {address} GET /small.txt HTTP/1.1 me"] * 3
    assert re.fullmatch(rf"404 \d+ {address} GET /none HTTP/1\.1 me", lines[3])


def test_atoms_of_requests_and_responses(start_server: ServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "access"
    text = "%({X-Own}o)s %({content-length}o)s %({etag}o)s %({epollwsgi.request_id}e)s %({x-a}i)s %(U)s %(q)s %(p)s"
    (tmp_path / "f.txt").write_text("file")
    server = start_server(
        "tests.apps.access:app", "--access-logfile", str(path), "--access-logformat", text,
        "--static", f"/f={tmp_path}",
    )  # fmt: skip
    with Client(server.address) as client:
        for _ in range(3):
            client.request(b"GET /plain?x=y HTTP/1.1\r\nHost: h\r\nX-A: b\r\n\r\n")
        for _ in range(3):
            client.request(b"GET /f/f.txt HTTP/1.1\r\nHost: h\r\nX-A: b\r\n\r\n")
    wait_until(lambda: path.exists() and path.read_text().count("\n") == 6, what="six lines")
    lines = path.read_text().splitlines()
    for line in lines[:3]:
        assert re.fullmatch(rf"own 5 - [0-9a-f-]+ b /plain x=y <{server.worker_pid}>", line), line
    assert len({line.split()[3] for line in lines[:3]}) == 3, "ids of requests"
    for line in lines[3:]:
        assert re.fullmatch(r"- 4 \S*x22\S+  b /f/f\.txt  <\d+>", line), line


def test_json_of_a_live_server(start_server: ServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "access"
    server = start_server("tests.apps.access:app", "--access-logfile", str(path), "--access-logformat", "json")
    exchange(server.address, [request("GET /plain?q HTTP/1.1", 'User-Agent: \xc3\xbc\xff"\r\n')], count=0)
    exchange(server.address, [b"\x80\x00bad\r\n\r\n"], count=0)
    wait_until(lambda: path.exists() and path.read_text().count("\n") == 2, what="two lines")
    good, bad = map(json.loads, path.read_text().splitlines())
    assert (good["path"], good["query"], good["status"], good["size"], good["host"]) == ("/plain", "q", 200, 5, "h")
    assert good["user_agent"] == '\xc3\xbc\xff"'
    assert re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", good["request_id"])
    assert (bad["status"], bad["method"], bad["path"]) == (400, None, "\x80\x00bad")


def test_excluded_paths(start_server: ServerFactory, tmp_path: Path) -> None:
    logged = start_logged(
        start_server, tmp_path, "--access-log-exclude", "/plain", "--access-log-exclude", "/f*/small*",
        "--static", f"/files={build_site(tmp_path)}",
    )  # fmt: skip
    for path in ("plain?x", "plain/", "files/small.txt", "files/large.bin"):
        exchange(logged.server.address, [request(f"GET /{path} HTTP/1.1")], count=0)
    assert [line.split()[4] for line in logged.lines()] == ["/plain/", "/files/large.bin"]


# --- requests in the error log --------------------------------------------------------------------------------------

EVENTS = [
    ("fails", "the application failed"),
    ("close_fails", "close() of the application's iterable failed"),
    ("too_short", "content ended 95 bytes before Content-Length 100"),
    ("too_long", "content beyond Content-Length 4 was cut"),
]


@pytest.mark.parametrize(("path", "message"), EVENTS, ids=[path for path, _ in EVENTS])
def test_error_log_names_the_request(start_server: ServerFactory, tmp_path: Path, path: str, message: str) -> None:
    access_path = tmp_path / "access"
    server = start_server(
        "tests.apps.access:app",
        "--access-logfile",
        str(access_path),
        "--access-logformat",
        "%({epollwsgi.request_id}e)s",
    )
    exchange(server.address, [request(f"GET /{path}?x HTTP/1.1")], count=0)
    wait_until(lambda: access_path.exists() and access_path.read_text().endswith("\n"), what="the line")
    server.wait_for_log(f"GET /{path}?x ({access_path.read_text().strip()}): {message}\n")
