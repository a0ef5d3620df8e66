"""Receivers of datagrams and streams, as syslog and statsd are: whatever comes is kept, message by message."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import wait_until

FAMILIES = {"udp": socket.AF_INET, "udp6": socket.AF_INET6, "tcp": socket.AF_INET}


class Receiver:
    """Made by `receiving`. address: as bind(2) took it.  messages: datagrams, or lines of streams without their end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.address: Any = sock.getsockname()
        self.messages: list[str] = []
        self.connection_count = 0
        self._rest: dict[socket.socket, bytes] = {}
        self._selector = selectors.DefaultSelector()
        self._end, self.waker = socket.socketpair()
        self._selector.register(sock, selectors.EVENT_READ)
        self._selector.register(self._end, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        port: int = self.address[1]
        return port

    def with_words(self, words: str) -> list[str]:
        """The messages that hold them."""
        return [message for message in list(self.messages) if words in message]

    def wait(self, words: str, count: int = 1) -> list[str]:
        """The messages that hold these words, once there are so many."""
        found: list[str] = wait_until(
            lambda: len(self.with_words(words)) >= count and self.with_words(words),
            15,
            f"{words!r} in {self.messages[-20:]}",
        )
        return found

    def close(self) -> None:
        self.waker.close()
        self._thread.join(10)
        for sock in (self.sock, self._end, *self._rest):
            sock.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._end:
                    return
                if sock is not self.sock:
                    self._read(sock)
                elif sock.type == socket.SOCK_DGRAM:
                    self.messages.append(sock.recv(1 << 17).decode())
                else:
                    connection, _ = sock.accept()
                    self.connection_count += 1
                    self._rest[connection] = b""
                    self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, sock: socket.socket) -> None:
        data = sock.recv(1 << 16)
        if not data:
            self._selector.unregister(sock)
            return
        *lines, self._rest[sock] = (self._rest[sock] + data).split(b"\n")
        self.messages += [line.decode() for line in lines]


@contextmanager
def receiving(kind: str, path: Path | str = "", port: int = 0) -> Iterator[Receiver]:
    """kind: udp, udp6, tcp, dgram or stream; the latter two at a path."""
    kinds = {"udp": socket.SOCK_DGRAM, "udp6": socket.SOCK_DGRAM, "dgram": socket.SOCK_DGRAM}
    sock = socket.socket(FAMILIES.get(kind, socket.AF_UNIX), kinds.get(kind, socket.SOCK_STREAM))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("::1" if kind == "udp6" else "127.0.0.1", port) if kind in FAMILIES else str(path))
        if sock.type == socket.SOCK_STREAM:
            sock.listen()
        receiver = Receiver(sock)
    except BaseException:
        sock.close()
        raise
    try:
        yield receiver
    finally:
        receiver.close()
