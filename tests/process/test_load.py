"""The load notices what it is there for: each way in which a server may fail a request, and none where it does not."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.process.answers import SERVER
from tests.process.load import Load
from tests.process.routes import expected_content

REQUEST_LINE = re.compile(rb"(?:GET|POST) /(\w+)\?([\w.]+) HTTP/1\.1\r\n")
LENGTH = re.compile(rb"Content-Length: (\d+)\r\n")
Handle = Callable[[socket.socket], None]


def read_request(sock: socket.socket) -> tuple[str, str, bytes, bool] | None:
    """Kind, tag, content and whether it is the last; None at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, content = data.partition(b"\r\n\r\n")
    found = REQUEST_LINE.match(head + b"\r\n")
    assert found is not None, head
    length = LENGTH.search(head + b"\r\n")
    while length and len(content) < int(length[1]):
        content += sock.recv(65536)
    return found[1].decode(), found[2].decode(), content, b"Connection: close" in head


def build_answer(kind: str, tag: str, content: bytes, is_last: bool) -> bytes:
    body = expected_content(kind, tag, content)
    fields = ["Date: Mon, 23 Nov 2026 10:00:00 GMT", f"Server: {SERVER}", "Content-Type: text/plain"]
    fields += ["X-Worker: 1", "X-Version: 1", f"X-Tag: {tag}"]
    if kind == "chunked":
        fields.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        fields.append(f"Content-Length: {len(body)}")
    if is_last:
        fields.append("Connection: close")
    return "\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode() + body


def serve_right(sock: socket.socket) -> None:
    while (request := read_request(sock)) is not None:
        sock.sendall(build_answer(*request))
        if request[3]:
            return


def serve_twice(sock: socket.socket) -> None:
    """Ends a kept connection cleanly after two answers: a request that crosses with the end meets no reset."""
    for _ in range(2):
        if (request := read_request(sock)) is None:
            return
        sock.sendall(build_answer(*request))
        if request[3]:
            return
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(65536):
        pass


def serve_once_then_end_unanswered(sock: socket.socket) -> None:
    """The end comes behind a second request instead of its answer."""
    if (request := read_request(sock)) is not None:
        sock.sendall(build_answer(*request))
        if not request[3]:
            read_request(sock)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_behind_request(sock: socket.socket) -> None:
    read_request(sock)
    reset(sock)


def end_without_answer(sock: socket.socket) -> None:
    read_request(sock)


def changed(change: Callable[[bytes], bytes]) -> Handle:
    """Each answer is changed before it is sent, and the connection ends."""

    def handle(sock: socket.socket) -> None:
        request = read_request(sock)
        if request is not None:
            sock.sendall(change(build_answer(*request)))

    return handle


def say_nothing(sock: socket.socket) -> None:
    sock.recv(65536)
    while sock.recv(65536):  # until the client has had enough
        pass


def reset_where_an_end_was_announced(sock: socket.socket) -> None:
    request = read_request(sock)
    if request is not None:
        sock.sendall(build_answer(*request[:3], True))
        reset(sock)


@contextmanager
def serving(handle: Handle) -> Iterator[tuple[str, int]]:
    """A server of one thread for each connection, on a free port."""
    threads: list[threading.Thread] = []

    def talk(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(20)
            handle(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                thread = threading.Thread(target=talk, args=(sock,), daemon=True)
                thread.start()
                threads.append(thread)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield listener.getsockname()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(20)
            for thread in threads:
                thread.join(20)


def test_right_answers_are_no_failures() -> None:
    with serving(serve_right) as address, Load(address, kept=2, fresh=4, pause_s=0) as load:
        load.wait_for_more(300)
    assert load.report.workers == {1: load.report.answered}
    assert load.report.ended == load.report.retried == 0


def test_kept_connections_may_end_between_requests() -> None:
    load = Load(("", 0), kept=4, pause_s=0.02)
    load.may_fail = True  # how often an end crosses with a request depends on the machine
    with serving(serve_twice) as load.address, load:
        load.wait_for_more(60)
    assert not load.report.failures
    assert load.report.ended >= 10


def test_unanswered_requests_are_sent_again_once_and_counted() -> None:
    load = Load(("", 0), kept=2)
    load.may_fail = True
    with serving(serve_once_then_end_unanswered) as load.address, load:
        load.wait_for_more(20)
    assert not load.report.failures
    assert load.report.retried >= 10
    with pytest.raises(AssertionError, match="sent again"):
        load.report.check()


FAULTS: dict[str, tuple[Handle, set[str], str]] = {
    "reset": (reset_behind_request, {"reset"}, ""),
    "reset at once": (reset, {"reset"}, ""),
    "closed": (end_without_answer, {"closed"}, ""),
    "truncated": (changed(lambda data: data[:-1]), {"truncated"}, ""),
    "head cut": (changed(lambda data: data[:20]), {"truncated"}, ""),
    "one byte": (changed(lambda data: data[:-7] + b"#" + data[-6:]), {"wrong"}, ""),
    "one byte more": (changed(lambda data: data + b"x"), {"wrong"}, ""),
    "status": (changed(lambda data: data.replace(b"200 OK", b"503 OK", 1)), {"wrong"}, "503"),
    "tag": (changed(lambda data: data.replace(b"X-Tag: ", b"X-Tag: 1", 1)), {"wrong"}, "X-Tag"),
    "field": (changed(lambda data: data.replace(b"\r\n", b"\r\nX-More: 1\r\n", 1)), {"wrong"}, "X-More"),
    "date": (changed(lambda data: data.replace(b"GMT", b"UTC", 1)), {"wrong"}, "Date"),
    "framing": (changed(lambda data: data.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\n", 1)), {"wrong"}, ""),
    "timeout": (say_nothing, {"timeout"}, "WAITING"),
    "reset behind the last": (reset_where_an_end_was_announced, {"reset"}, "ENDING"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_noticed(fault: str) -> None:
    """In every one of the requests, whatever the style."""
    handle, kinds, words = FAULTS[fault]
    with serving(handle) as address:
        load = Load(address, kept=1, fresh=2, timeout_s=0.5 if fault == "timeout" else 20)
        load.may_fail = True
        with load:
            while len({one.detail.split()[0] for one in load.report.failures}) < 3:
                assert load.wait_a_moment(), load.report
    assert {one.kind for one in load.report.failures} <= kinds
    assert all(words in one.detail for one in load.report.failures), load.report.failures[:3]
    with pytest.raises(AssertionError):
        load.report.check()


def test_refused_is_a_failure_until_the_server_is_stopped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    load = Load(address, fresh=2)
    load.may_fail = True
    with load:
        while not load.report.failures:
            assert load.wait_a_moment()
        load.may_refuse = True
    assert {one.kind for one in load.report.failures} == {"refused"}
    load = Load(address, fresh=2)
    load.may_fail = load.may_refuse = True
    with load:
        while load.wait_a_moment():
            pass  # each caller is done once it was refused
    assert not load.report.failures
