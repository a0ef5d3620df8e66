"""The statements of STATIC.md over real sockets, and files that change while they are served."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from epollwsgi.http.dates import format_date, parse_date
from tests.connections import Client, Failed, connect, exchange
from tests.responses import Response, parse_responses
from tests.static.statements import STATEMENTS, Statement
from tests.static.support import A_TXT, BIG, FILES, MODIFIED, build_site, write
from tests.support import Server, ServerFactory, wait_until

L = format_date(MODIFIED)
# What a site answers itself and leaves to an application beside it.
LEFT_TO_APPLICATION = (204, 400, 404, 405)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("live")
    root = build_site(base / "site")
    write(base / "secret.txt", b"secret")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe.txt")).write_bytes(b"bytes")
    (root / "link.txt").symlink_to("d/../a.txt")
    (root / "out.txt").symlink_to("../secret.txt")
    (root / "back.txt").symlink_to("../site/a.txt")
    (root / "absolute.txt").symlink_to(root / "a.txt")
    os.mkfifo(root / "fifo")
    return root


Ask = Callable[[Statement], Response]


def talk(server: Server) -> Iterator[Ask]:
    """Requests over one connection that must stay open through all of them."""
    with Client(server.address) as client:
        etag = ""

        def ask(row: Statement) -> Response:
            nonlocal etag
            if not etag:
                etag = client.request(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n")["ETag"]
            lines = [line.replace("{E}", etag).replace("{L}", L) for line in row.lines]
            if not any(line.startswith("Host:") for line in lines):
                lines.append("Host: a")
            head = "".join(f"{line}\r\n" for line in (f"{row.method} {row.target} HTTP/1.1", *lines, ""))
            return client.request(head.encode("latin-1"), row.method)

        yield ask


@pytest.fixture(scope="module")
def site_server(start_module_server: ServerFactory, site: Path) -> Server:
    return start_module_server(str(site), "--allow-source")  # it holds .git and .env


@pytest.fixture(scope="module")
def alone(site_server: Server) -> Iterator[Ask]:
    yield from talk(site_server)


@pytest.fixture(scope="module")
def beside(start_module_server: ServerFactory, site: Path) -> Iterator[Ask]:
    yield from talk(start_module_server("tests.apps.echo:app", "--static", f"/={site}"))


def name(row: Statement) -> str:
    return f"{row.number} {row.says[:40]} {row.method} {row.target[:20]}"


def check(row: Statement, response: Response, etag: str) -> None:
    assert response.status == row.status
    for field, expected in row.fields.items():
        wanted = expected and expected.replace("{E}", etag).replace("{L}", L)
        assert response.get(field) == wanted, field
    if row.content is not None:
        assert response.body == row.content
    assert b"secret" not in response.body
    assert "close" not in response.tokens
    date = parse_date(response["Date"], time.time())
    assert date is not None
    assert abs(date - time.time()) < 5
    assert response["Server"].startswith("epollwsgi")
    assert response["X-Content-Type-Options"] == "nosniff"


PLAIN = next(row for row in STATEMENTS if row.target == "/a.txt" and not row.lines and row.method == "GET")


@pytest.mark.parametrize("row", STATEMENTS, ids=name)
def test_a_site_alone(alone: Ask, row: Statement) -> None:
    etag = alone(PLAIN)["ETag"]
    check(row, alone(row), etag)
    check(row, alone(row), etag)  # from memory


@pytest.mark.parametrize("row", STATEMENTS, ids=name)
def test_beside_an_application(beside: Ask, row: Statement) -> None:
    etag = beside(PLAIN)["ETag"]
    for _ in range(2):
        response = beside(row)
        if row.status not in LEFT_TO_APPLICATION:
            check(row, response, etag)
            continue
        assert response.status == 200
        if row.method != "HEAD":
            seen = json.loads(response.body)["environ"]
            assert (seen["REQUEST_METHOD"], seen["RAW_URI"]) == (row.method, row.target)


def test_every_section_is_stated() -> None:
    assert {row.number.partition(".")[0] for row in STATEMENTS} == {"1", "2", "3", "4", "5", "6", "7", "8"}


def test_head_and_get_say_the_same(site_server: Server) -> None:
    for path in ("/a.txt", "/big.bin", "/nothing", "/d", "/%zz", "/empty", "/.env"):
        request = "{} " + path + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        seen = []
        for method in ("GET", "HEAD"):
            data = exchange(site_server.address, [request.format(method).encode()], count=0)
            head, _, body = data.partition(b"\r\n\r\n")
            assert bool(body) == (method == "GET" and path != "/empty")
            seen.append([line for line in head.split(b"\r\n") if not line.startswith(b"Date:")])
        assert seen[0] == seen[1]


def test_pipelined_requests_are_answered_in_order(site_server: Server) -> None:
    rows = [("GET", "/a.txt"), ("HEAD", "/a.txt"), ("GET", "/big.bin"), ("GET", "/nothing"), ("GET", "/empty")] * 8
    data = b"".join(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for method, path in rows)
    answer = exchange(site_server.address, [data], count=len(rows), methods=[method for method, _ in rows])
    responses = parse_responses(answer, [method for method, _ in rows], closed=False)
    bodies = {"/a.txt": A_TXT, "/big.bin": BIG, "/nothing": FILES["404.html"], "/empty": b""}
    assert [response.body for response in responses] == [b"" if m == "HEAD" else bodies[path] for m, path in rows]


@pytest.mark.parametrize("connection", ["keep-alive", "close", ""])
@pytest.mark.parametrize("path", ["/a.txt", "/big.bin"])
def test_http_1_0(site_server: Server, path: str, connection: str) -> None:
    line = f"Connection: {connection}\r\n" if connection else ""
    data = f"GET {path} HTTP/1.0\r\n{line}\r\n".encode()
    keeps = connection == "keep-alive"
    received = exchange(site_server.address, [data], count=1 if keeps else 0)
    (response,) = parse_responses(received, closed=not keeps)
    assert response.body == FILES[path[1:]]
    assert response.tokens == ({"keep-alive"} if keeps else {"close"})


def test_a_body_sent_to_a_file_is_read_over(site_server: Server) -> None:
    with Client(site_server.address) as client:
        for path, status in (("/a.txt", 405), ("/nothing", 404)):
            for body in (b"Content-Length: 60000\r\n\r\n" + b"x" * 60_000, b"Content-Length: 3\r\n\r\nabc"):
                request = f"POST {path} HTTP/1.1\r\nHost: a\r\n".encode() + body
                assert client.request(request, "POST").status == status
        assert client.request(b"GET /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").body == A_TXT
        assert client.request(b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n").body == A_TXT


def test_mounts_beside_an_application(server: ServerFactory, tmp_path: Path) -> None:
    write(tmp_path / "one" / "a.txt", b"one")
    write(tmp_path / "two" / "a.txt", b"two")
    running = server(
        "tests.apps.echo:app", "--static", f"/s={tmp_path / 'one'}", "--static", f"/s/deep={tmp_path / 'two'}"
    )
    with Client(running.address) as client:

        def body(path: str) -> bytes:
            return client.request(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).body

        assert body("/s/a.txt") == b"one"
        assert body("/s/deep/a.txt") == b"two"
        for path in ("/a.txt", "/s", "/s/", "/s/deep/none", "/s/../a.txt", "/sx/a.txt"):
            assert json.loads(body(path))["environ"]["PATH_INFO"] == path


# --- files that change ----------------------------------------------------------------------------------------------


def body_of(server: Server, path: str, *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", "Host: a", "Connection: close", *lines, ""))
    (response,) = parse_responses(exchange(server.address, [head.encode()], count=0))
    return response.body


def test_changes_are_seen_without_a_restart(server: ServerFactory, tmp_path: Path) -> None:
    for release in ("one", "two"):
        for name_ in ("rewritten", "replaced", "removed", "404.html"):
            write(tmp_path / release / name_, release.encode())
    root = tmp_path / "current"
    root.symlink_to("one")
    running = server(str(root))

    def become(expected: dict[str, bytes]) -> None:
        for path, content in expected.items():
            wait_until(lambda: body_of(running, path) == content, 30, f"{path} to be {content[:20]!r}")  # noqa: B023

    become(dict.fromkeys(("/rewritten", "/replaced", "/removed", "/new", "/into/"), b"one"))
    write(root / "rewritten", b"once more")
    write(root / "other", BIG)
    os.replace(root / "other", root / "replaced")
    (root / "removed").unlink()
    write(root / "new", b"just made")
    write(root / "into" / "index.html", b"a directory")
    write(root / "404.html", b"lost")
    become(
        {
            "/rewritten": b"once more",
            "/replaced": BIG,
            "/removed": b"lost",
            "/new": b"just made",
            "/into/": b"a directory",
            "/nothing": b"lost",
        }
    )
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", root)
    become(dict.fromkeys(("/rewritten", "/replaced", "/removed", "/new", "/into/"), b"two"))
    assert "Traceback" not in running.stderr_text()
    assert running.stop() == 0


LONG = BIG * 50  # more than the buffers of both sockets hold


def start_reading(server: Server, path: str) -> Client:
    """A client that has asked for a file and has taken the beginning of the answer."""
    client = Client(server.address, receive_buffer_size=65536)
    client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    for _ in range(10):
        assert client.receive()
    return client


@pytest.mark.parametrize("change", ["grow", "replace", "remove"])
def test_a_file_that_changes_while_it_is_sent(server: ServerFactory, tmp_path: Path, change: str) -> None:
    path = write(tmp_path / "long.bin", LONG)
    running = server(str(tmp_path))
    with start_reading(running, "/long.bin") as client:
        if change == "grow":
            with path.open("ab") as file:
                file.write(b"more" * 1000)
        elif change == "replace":
            write(tmp_path / "new", LONG[::-1])
            os.replace(tmp_path / "new", path)
        else:
            path.unlink()
        pieces = [client.buffer]
        while sum(map(len, pieces)) < len(LONG):
            pieces.append(client.sock.recv(1 << 20))
            assert pieces[-1]
        client.buffer = b"".join(pieces)
        assert client.read_response().body == LONG
        assert client.request(b"HEAD /nothing HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD").status == 404  # still in step


def test_a_file_that_shrinks_while_it_is_sent_ends_the_connection(server: ServerFactory, tmp_path: Path) -> None:
    path = write(tmp_path / "long.bin", LONG)
    running = server(str(tmp_path))
    # Larger than any folio of the page cache: the kernel clears the rest of one, even on its way to a socket.
    short = LONG[: 4 << 20]
    with Client(running.address, receive_buffer_size=65536) as client:
        client.send(b"GET /long.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        data = client.receive()
        os.truncate(path, len(short))
        with contextlib.suppress(ConnectionResetError):
            while piece := client.receive():
                data += piece
    body = data.partition(b"\r\n\r\n")[2]
    assert LONG.startswith(body)  # nothing was made up
    assert 0 < len(body) < len(LONG)

    def is_shorter() -> bool:
        try:
            return body_of(running, "/long.bin") == short
        except Failed:  # until the next look at the file its old length is announced
            return False

    wait_until(is_shorter, 30, "the shorter file")
    assert "Traceback" not in running.stderr_text()


def test_a_slow_reader_does_not_hold_up_others(server: ServerFactory, tmp_path: Path) -> None:
    write(tmp_path / "long.bin", LONG)
    write(tmp_path / "a.txt", A_TXT)
    running = server(str(tmp_path))
    slow = [start_reading(running, "/long.bin") for _ in range(20)]
    try:
        for _ in range(20):
            assert body_of(running, "/a.txt") == A_TXT
        assert body_of(running, "/long.bin") == LONG
        assert running.peak_memory_size() < 200 * 1024 * 1024
    finally:
        for client in slow:
            client.reset()
    with connect(running.address):
        pass
    wait_until(lambda: body_of(running, "/a.txt") == A_TXT, 30, "an answer after the resets")
    assert "Traceback" not in running.stderr_text()
