"""Content on its way: nothing produced waits while the application runs, and memory stays bounded either way."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Client, Server, ServerFactory, collect_events, exchange, parse_responses, wait_until

MEGABYTE = 1 << 20
BODY = b"first second"


@pytest.fixture(scope="module")
def server(start_module_server: ServerFactory) -> Iterator[Server]:
    server = start_module_server("tests.apps.shapes:app")
    yield server
    assert "Traceback" not in server.stderr_text()


def request(target: str, version: str = "1.1") -> bytes:
    return f"GET /{target} HTTP/{version}\r\nHost: h\r\n\r\n".encode()


def receive_until(client: Client, text: bytes) -> None:
    """Read until `text` has come; the connection's timeout bounds it."""
    while text not in client.buffer:
        assert client.receive(), "the connection ended"


@pytest.mark.parametrize("name", ["gated", "gated_write"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_each_item_is_on_its_way_before_the_next(server: Server, tmp_path: Path, name: str, version: str) -> None:
    with Client(server.address) as client:
        client.send(request(f"{name}?{tmp_path}", version))
        for number in range(4):
            receive_until(client, b"item %d\n" % number)
            assert b"item %d\n" % (number + 1) not in client.buffer
            (tmp_path / str(number + 1)).touch()
        reply = client.read_response() if version == "1.1" else None
        if reply is not None:
            assert reply.chunks == [7, 7, 7, 7]
        else:
            client.read_to_end()


def test_whole_content_is_on_its_way_while_the_iterable_runs(start_server: ServerFactory, tmp_path: Path) -> None:
    """Also on a route that has always been quick: what was produced does not wait for the end of the iterable."""
    server = start_server("tests.apps.shapes:app")
    with Client(server.address) as client:
        for _ in range(8):
            assert client.request(request("gated_whole")).body == BODY
        client.send(request(f"gated_whole?{tmp_path}"))
        receive_until(client, BODY)
        (tmp_path / "1").touch()
        client.read_response()


@pytest.mark.parametrize("name", ["gated", "gated_call", "gated_write"])
def test_batched_answers_of_others_do_not_wait(start_server: ServerFactory, tmp_path: Path, name: str) -> None:
    """Requests of many connections in one turn; behind quick ones stands one that takes its time."""
    server = start_server("tests.apps.shapes:app")
    clients = [Client(server.address) for _ in range(8)]
    try:
        for client in clients:
            for _ in range(5):  # a route that is known to be quick
                assert client.request(request("list_one")).body == BODY
        with server.stopped():
            for client in clients[:-1]:
                client.send(request("list_one"))
            clients[-1].send(request(f"{name}?{tmp_path}"))
        for client in clients[:-1]:
            assert client.read_response().body == BODY  # while the slow one waits for its files
        assert b"item 1" not in clients[-1].buffer
        for number in range(1, 4):
            (tmp_path / str(number)).touch()
        assert clients[-1].read_response().status == 200
    finally:
        for number in range(1, 4):
            (tmp_path / str(number)).touch()
        for client in clients:
            client.sock.close()


def check_large(client: Client, count: int, pause_s: float = 0) -> None:
    """Read `count` pieces of 64 KiB, each of its own byte, whatever the framing."""
    sock = client.sock
    with sock.makefile("rb") as file:
        status = file.readline()
        assert status.startswith(b"HTTP/1.1 200")
        fields = dict(line.rstrip(b"\r\n").lower().split(b": ", 1) for line in iter(file.readline, b"\r\n"))
        for number in range(count):
            if b"transfer-encoding" in fields:
                assert int(file.readline(), 16) == 65536
            piece = file.read(65536)
            assert len(piece) == 65536
            assert piece == bytes([number % 251]) * 65536, number
            if b"transfer-encoding" in fields:
                assert file.read(2) == b"\r\n"
            if pause_s and number % 16 == 0:
                time.sleep(pause_s)
        if b"transfer-encoding" in fields:
            assert file.read(5) == b"0\r\n\r\n"


def test_download_of_200_megabytes_in_bounded_memory(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.shapes:app")
    with Client(server.address) as client:
        assert client.request(request("large?1")).status == 200
        before = server.peak_memory_size()
        client.send(request("large?200"))
        check_large(client, 200 * 16)
        assert server.peak_memory_size() - before < 16 * MEGABYTE
        assert client.request(request("list_one")).body == BODY


@pytest.mark.parametrize("name", ["large", "large_list", "large_file"])
def test_slow_reader_gets_all(start_server: ServerFactory, name: str) -> None:
    """A response far larger than the socket buffers, to a client that takes little at a time; others do not wait."""
    server = start_server("tests.apps.shapes:app", "--output-watermark", "64K")
    with Client(server.address, receive_buffer_size=8192) as slow, Client(server.address) as other:
        slow.send(request(f"{name}?16"))
        assert other.request(request("list_one")).body == BODY
        check_large(slow, 16 * 16, pause_s=0.005)
        assert slow.request(request("list_one")).body == BODY


NO_SPOOL = {"response_spool": ("--response-spool", "0"), "limit_spool_total": ("--limit-spool-total", "0")}


@pytest.mark.parametrize("setting", NO_SPOOL)
def test_application_waits_for_its_client_without_a_spool(start_server: ServerFactory, setting: str) -> None:
    """Where neither memory nor a file has room the application waits, within send_timeout; nothing is lost."""
    server = start_server("tests.apps.shapes:app", *NO_SPOOL[setting], "--output-watermark", "64K")
    with Client(server.address) as other:
        assert other.request(request("list_one")).body == BODY
        before = server.peak_memory_size()
        for name in ("large?24", "large_list?24"):
            with Client(server.address, receive_buffer_size=65536) as slow:
                slow.send(request(name))
                check_large(slow, 24 * 16, pause_s=0.002)
                assert slow.request(request("list_one")).body == BODY
            assert other.request(request("list_one")).body == BODY
            if name == "large?24":
                assert server.peak_memory_size() - before < 8 * MEGABYTE


@pytest.mark.parametrize("setting", NO_SPOOL)
def test_application_waits_no_longer_than_send_timeout(start_server: ServerFactory, setting: str) -> None:
    server = start_server("tests.apps.shapes:app", *NO_SPOOL[setting], "--send-timeout", "1")
    with Client(server.address, receive_buffer_size=4096) as stuck, Client(server.address) as other:
        assert other.request(request("events")).status == 200
        stuck.send(request("large?64"))
        stuck.receive(1)
        events = collect_events(other, request("events"), "close")
        assert [event.split()[0] for event in events] == ["call", "close"]
        with pytest.raises((AssertionError, ConnectionResetError)):
            check_large(stuck, 64 * 16)


def test_slow_readers_in_bounded_memory(start_server: ServerFactory) -> None:
    """OPERATIONS.md 6.11: 200 slow readers of 5 MB cost at most 30 MB in all."""
    server = start_server("tests.apps.shapes:app")
    with Client(server.address) as client:
        assert client.request(request("large?5")).status == 200
        before = server.peak_memory_size()
        slow = []
        try:
            for _ in range(200):
                slow.append(Client(server.address, receive_buffer_size=4096))
                slow[-1].send(request("large?5"))
            wait_until(lambda: all(one.wait_readable(0) for one in slow), 30, "the first bytes of 200 responses")
            assert client.request(request("list_one")).body == BODY
            assert server.peak_memory_size() - before < 30 * MEGABYTE
            check_large(slow[0], 5 * 16)
            check_large(slow[-1], 5 * 16)
        finally:
            for one in slow:
                one.sock.close()
        assert client.request(request("list_one")).body == BODY


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload_of_200_megabytes_in_bounded_memory(start_server: ServerFactory, framing: str) -> None:
    server = start_server("tests.apps.echo:app")
    piece = os.urandom(MEGABYTE)
    digest = hashlib.sha256()
    with Client(server.address, timeout_s=60) as client:
        assert client.request(request("")).status == 200
        before = server.peak_memory_size()
        fields = b"Content-Length: %d" % (200 * MEGABYTE) if framing == "length" else b"Transfer-Encoding: chunked"
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % fields)
        for _ in range(200):
            digest.update(piece)
            client.send(piece if framing == "length" else b"%x\r\n%b\r\n" % (len(piece), piece))
        if framing == "chunked":
            client.send(b"0\r\n\r\n")
        seen = json.loads(client.read_response().body)
        assert (seen["length"], seen["sha256"]) == (200 * MEGABYTE, digest.hexdigest())
        assert seen["environ"]["CONTENT_LENGTH"] == str(200 * MEGABYTE)
        assert server.peak_memory_size() - before < 16 * MEGABYTE
        assert client.request(request("")).status == 200


def test_uploads_leave_no_files(start_server: ServerFactory, tmp_path: Path) -> None:
    """Temporary files have no name while they exist; descriptors and room are given back."""
    options = ("--body-buffer-size", "1K", "--limit-spool-total", "30000")
    server = start_server("tests.apps.echo:app", "--tmp-upload-dir", str(tmp_path), *options)
    data = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
    with Client(server.address) as client, Client(server.address) as unfinished:
        assert client.request(request("")).status == 200
        assert unfinished.request(request("")).status == 200
        count = server.descriptor_count()  # before the first file, which is closed a little after its answer
        assert client.request(data).status == 200
        wait_until(lambda: server.descriptor_count() <= count, what="the first file to be closed")
        unfinished.send(data[:-1])
        wait_until(lambda: server.descriptor_count() > count, what="a temporary file")
        assert list(tmp_path.iterdir()) == []
        for _ in range(20):
            assert client.request(data).status == 200
        unfinished.send(data[-1:])
        assert unfinished.read_response().status == 200
        wait_until(lambda: server.descriptor_count() <= count, what="descriptors to be given back")


def test_upload_without_room_is_503(start_server: ServerFactory, tmp_path: Path) -> None:
    """No directory for temporary files: small bodies pass, larger ones get 503, the worker goes on."""
    directory = tmp_path / "gone"
    directory.mkdir()
    server = start_server("tests.apps.echo:app", "--tmp-upload-dir", str(directory), "--limit-spool-total", "1M")
    directory.rmdir()
    with Client(server.address) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert client.read_response().status == 503
        assert client.read_to_end() == b""
    with Client(server.address) as client:
        assert client.request(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc").status == 200
    assert "No such file or directory" in server.wait_for_log("with 503")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload_to_a_full_disk_is_503(start_server: ServerFactory, framing: str) -> None:
    """Writing fails (here by RLIMIT_FSIZE): 503, nothing of it stays, and the worker goes on."""
    server = start_server("tests.apps.echo:app", "--limit-spool-total", "10M", limits="FSIZE=2000000")
    size = 4_000_000
    content = b"x" * size
    if framing == "length":
        data = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + content
    else:
        chunk = b"%x\r\n%b\r\n" % (size, content)
        data = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    with Client(server.address) as other:
        assert other.request(request("")).status == 200
        count = server.descriptor_count()
        for _ in range(3):
            [reply] = parse_responses(exchange(server.address, [data], count=0))
            assert reply.status == 503
        wait_until(lambda: server.descriptor_count() <= count, what="descriptors to be given back")
        small = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
        assert other.request(small).status == 200
    assert "File too large" in server.wait_for_log("with 503")


def test_client_gone(server: Server, tmp_path: Path) -> None:
    """environ['epollwsgi.client_gone']: a half-closed client has not gone, one that reset the connection has."""
    for name, end in (("half", Client.half_close), ("reset", Client.reset)):
        directory = tmp_path / name
        directory.mkdir()
        with Client(server.address) as other:
            other.request(request("events"))
            with Client(server.address) as client:
                client.send(request(f"asks_client?{directory}"))
                wait_until(lambda directory=directory: (directory / "0").exists(), what="the call")  # type: ignore[misc]
                end(client)
                (directory / "1").touch()
                if name == "half":
                    assert client.read_response().body == b"False"
            events = collect_events(other, request("events"), "gone")
            assert (f"gone {name == 'reset'}" in [event.rpartition(" ")[0] for event in events]) is True


def test_output_larger_than_one_piece_is_not_copied_into_the_next(server: Server) -> None:
    """Responses of all sizes around the limits of one send, pipelined: each ends where the next begins."""
    sizes = [0, 1, 65535, 65536, 65537, 150_000, 1, 0]
    data = b""
    for size in sizes:
        content = repr(("200 OK", [], (b"x" * size,))).encode()
        data += b"POST /given HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
    replies = parse_responses(exchange(server.address, [data], timeout=20, count=len(sizes)), closed=False)
    assert [len(reply.body) for reply in replies] == sizes
    assert all(reply.body == b"x" * size for reply, size in zip(replies, sizes, strict=True))
