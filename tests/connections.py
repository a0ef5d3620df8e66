"""Raw connections that send exactly the bytes they are given, one at a time or many at once. Knows no server and no
expectation; tests get it through `support`.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tests.responses import Response, Truncated, parse_body, parse_head, parse_responses, parse_stream

Address = tuple[str, int] | str  # a str is the path of a unix socket; "@name" is an abstract one


def connect(address: Address, timeout_s: float = 30.0, receive_buffer_size: int = 0) -> socket.socket:
    """A blocking connection to `address`; receive_buffer_size makes a client that takes little at a time."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target: Any = "\0" + address[1:] if address.startswith("@") else address
    else:
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        target = address
    try:
        if receive_buffer_size:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_size)
        sock.settimeout(timeout_s)
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


class Client:
    """One raw connection, as a context manager. A reset by the server raises ConnectionResetError."""

    def __init__(self, address: Address, timeout_s: float = 30.0, receive_buffer_size: int = 0) -> None:
        self.sock = connect(address, timeout_s, receive_buffer_size)
        self.buffer = b""
        self.closed = False  # the server has ended its side

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset instead of an orderly end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def receive(self, size: int = 65536) -> bytes:
        """The next bytes, b'' at the end; also kept in `buffer`."""
        data = self.sock.recv(size)
        self.buffer += data
        self.closed = self.closed or not data
        return data

    def is_quiet(self, seconds: float) -> bool:
        """True if neither a byte nor the end arrives within `seconds`."""
        return not select.select([self.sock], [], [], seconds)[0]

    def wait_readable(self, seconds: float) -> bool:
        return not self.is_quiet(seconds)

    def read_response(self, method: str = "GET") -> Response:
        """The next final response; what came behind it stays in the buffer."""
        while True:
            found = self._take(method)
            if found is not None:
                return found
            if self.closed:
                parse_responses(self.buffer, [method])  # says where it was cut
                raise Truncated(f"the connection ended without a response: {self.buffer[:200]!r}")
            self.receive()

    def _take(self, method: str) -> Response | None:
        interim: list[Response] = []
        position = 0
        while (found := parse_head(self.buffer[position:])) is not None:
            response, head_size = found
            end = parse_body(response, method, self.buffer, position + head_size, self.closed)
            if end is None:
                return None
            position = end
            if response.status >= 200:
                response.interim = interim
                self.buffer = self.buffer[position:]
                return response
            interim.append(response)
        return None

    def request(self, data: bytes, method: str | None = None) -> Response:
        """Send one request and read its response; the method is that of the request line."""
        self.send(data)
        return self.read_response(method or data.lstrip(b"\r\n").split(b" ", 1)[0].decode("latin-1"))

    def skip_response(self) -> int:
        """Read a response with Content-Length and forget its content; the size of that. For large ones."""
        while (found := parse_head(self.buffer)) is None:
            assert self.receive(), f"the connection ended: {self.buffer[:200]!r}"
        response, head_size = found
        size = int(response["Content-Length"])
        left = size - (len(self.buffer) - head_size)
        self.buffer = self.buffer[head_size + size :]
        while left > 0:
            data = self.sock.recv(min(left, 1 << 20))
            assert data, f"the connection ended {left} bytes before the content did"
            left -= len(data)
        return size

    def read_to_end(self) -> bytes:
        """All that comes until the server ends the connection."""
        while self.receive():
            pass
        data, self.buffer = self.buffer, b""
        return data


def exchange(
    address: Address,
    pieces: Iterable[bytes],
    delay: float = 0,
    half_close: bool = False,
    timeout: float = 30,
    count: int = 1,
    methods: Sequence[str] = (),
) -> bytes:
    """Send the pieces and return what arrives until `count` final responses are complete or the server closes.

    delay: seconds between pieces.  half_close: send FIN behind the last one.  count: 0 reads until the close.
    Sends and receives at once, and goes on reading where the server no longer takes what is sent.
    """
    return exchange_many(address, [list(pieces)], delay, half_close, timeout, count, [methods])[0]


@dataclass
class _Exchange:
    """The state of one connection of `exchange_many`."""

    sock: socket.socket
    pieces: list[bytes]
    methods: Sequence[str]
    received: bytearray = field(default_factory=bytearray)
    next_piece: int = 0
    pending: bytes = b""
    done: bool = False
    failure: str = ""

    def has_to_send(self, half_close: bool) -> bool:
        return bool(self.pending) or self.next_piece < len(self.pieces) + half_close

    def send_some(self, half_close: bool) -> bool:
        """True if something was sent."""
        if not self.pending and self.next_piece < len(self.pieces):
            self.pending = self.pieces[self.next_piece]
            self.next_piece += 1
        sent = False
        try:
            while self.pending:
                self.pending = self.pending[self.sock.send(self.pending) :]
                sent = True
            if half_close and self.next_piece == len(self.pieces):
                self.next_piece += 1
                self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self.pending, self.next_piece = b"", len(self.pieces) + 1  # the server refused; its answer is still to come
        return sent

    def is_complete(self, count: int) -> bool:
        return count > 0 and len(parse_stream(bytes(self.received), self.methods, closed=False).responses) >= count

    def read_some(self, count: int) -> None:
        try:
            while data := self.sock.recv(1 << 18):
                self.received += data
                if len(data) < 1 << 18:
                    break
            else:
                self.done = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.failure, self.done = "was reset", True
        self.done = self.done or self.is_complete(count)


def exchange_many(
    address: Address,
    jobs: Sequence[Sequence[bytes]],
    delay: float = 0,
    half_close: bool = False,
    timeout: float = 30,
    count: int = 1,
    methods: Sequence[Sequence[str]] = (),
    width: int = 128,
) -> list[bytes]:
    """`exchange` for many connections at once, `width` at a time: each turn sends one piece on each of them."""
    results: list[bytes] = []
    for outcome in try_exchange_many(address, jobs, delay, half_close, timeout, count, methods, width):
        if isinstance(outcome, Failed):
            raise outcome
        results.append(outcome)
    return results


class Failed(AssertionError):
    """A connection was reset, or neither answered nor ended in time."""


def try_exchange_many(
    address: Address,
    jobs: Sequence[Sequence[bytes]],
    delay: float = 0,
    half_close: bool = False,
    timeout: float = 30,
    count: int = 1,
    methods: Sequence[Sequence[str]] = (),
    width: int = 128,
) -> list[bytes | Failed]:
    """`exchange_many` that gives the failure of a connection in the place of its bytes."""
    results: list[bytes | Failed] = []
    for first in range(0, len(jobs), width):
        group: list[_Exchange] = []
        try:
            for number in range(first, min(first + width, len(jobs))):
                sock = connect(address, timeout)
                sock.setblocking(False)
                group.append(_Exchange(sock, list(jobs[number]), methods[number] if number < len(methods) else ()))
            _run_group(group, delay, half_close, timeout, count)
            for number, one in enumerate(group, first):
                what = f"connection {number} {one.failure}, after {bytes(one.received[:300])!r}"
                results.append(Failed(what) if one.failure else bytes(one.received))
        finally:
            for one in group:
                one.sock.close()
    return results


def _run_group(group: list[_Exchange], delay: float, half_close: bool, timeout: float, count: int) -> None:
    """Turn after turn until every connection is done; whoever makes no progress for `timeout` has failed."""
    silent_at = time.monotonic() + timeout
    poll = select.poll()
    by_fd = {one.sock.fileno(): one for one in group}
    for one in group:
        poll.register(one.sock, select.POLLIN)
    while by_fd and time.monotonic() < silent_at:
        sending = [one for one in by_fd.values() if one.has_to_send(half_close)]
        for one in sending:
            if one.send_some(half_close):
                silent_at = time.monotonic() + timeout
        for fd, _ in poll.poll(0 if sending else 200):
            one = by_fd[fd]
            one.read_some(count)
            silent_at = time.monotonic() + timeout
            if one.done:
                poll.unregister(fd)
                del by_fd[fd]
        if sending:
            # Between pieces as long as asked; behind a full socket buffer just long enough for the server's turn.
            time.sleep(delay or (0.0005 if all(one.pending for one in sending) else 0))
    for one in by_fd.values():
        one.failure = f"neither answered nor ended within {timeout:g} s"


def splits(data: bytes, every_byte_up_to: int = 1 << 20) -> list[tuple[str, list[bytes]]]:
    """(name, pieces) of the ways in which `data` may arrive: whole, byte by byte, cut behind and within each CRLF.

    every_byte_up_to: a longer input is cut into single bytes only at both ends, into pieces of 997 bytes between them.
    """
    if len(data) <= every_byte_up_to:
        single = [data[i : i + 1] for i in range(len(data))]
    else:
        edge = every_byte_up_to // 2
        single = [data[i : i + 1] for i in range(edge)]
        single += [data[i : min(i + 997, len(data) - edge)] for i in range(edge, len(data) - edge, 997)]
        single += [data[i : i + 1] for i in range(len(data) - edge, len(data))]
    behind = [piece for piece in re.split(rb"(?<=\r\n)", data) if piece]
    within = [piece for piece in re.split(rb"(?<=\r)(?=\n)", data) if piece]
    return [("whole", [data]), ("bytes", single), ("behind CRLF", behind), ("within CRLF", within)]
