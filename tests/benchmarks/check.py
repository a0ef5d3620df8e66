"""A small client that wants right answers soon: two connections ask ten times a second while the load runs.

wrk counts only what was answered: a connection that never hears anything leaves no mark in its figures. So every
measurement is made under this client's eyes, and the kernel is asked how long each of wrk's sockets has heard nothing.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from shutil import which
from types import TracebackType
from typing import Self

from tests.benchmarks.process import MeasurementFailed
from tests.benchmarks.servers import HOST

SILENCE_LIMIT_S = 2.0
CONNECTIONS = 2
PAUSE_S = 0.1
LOOK_EVERY_S = 0.3
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*+(\d++)", re.IGNORECASE)
LAST_RECEIVED = re.compile(r"\blastrcv:(\d++)")


class Client:
    """One keep-alive connection that reads whole responses."""

    def __init__(self, port: int, path: str = "/") -> None:
        self.socket = socket.create_connection((HOST, port), timeout=SILENCE_LIMIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode("ascii")

    def ask(self, request: bytes | None = None) -> bytes:
        """Content of the answer. Raises MeasurementFailed for silence, an end before its time or another status."""
        try:
            self.socket.sendall(request or self.request)
            return self.read_response()
        except OSError as error:
            raise MeasurementFailed(f"no answer within {SILENCE_LIMIT_S:g} s: {error!r}") from error

    def read_response(self) -> bytes:
        """Read up to the Content-Length, which all applications and files measured have."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.receive()
        head, _, content = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise MeasurementFailed(f"unexpected answer: {head[:80]!r}")
        length = LENGTH.search(head)
        if length is None:
            raise MeasurementFailed("an answer without Content-Length")
        while len(content) < int(length[1]):
            content += self.receive()
        return content

    def receive(self) -> bytes:
        """Some bytes, at least one."""
        received = self.socket.recv(65536)
        if not received:
            raise MeasurementFailed("the server closed a keep-alive connection")
        return received

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class Watcher:
    """Asks for `path` while the `with` block runs; raises at its end what went wrong meanwhile."""

    def __init__(self, port: int, path: str, content_size: int) -> None:
        self.port, self.path, self.content_size = port, path, content_size
        self.answered_count = 0
        self.failure: MeasurementFailed | None = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, name="watcher", daemon=True)

    def watch(self) -> None:
        """Ask in turn on each connection until the block is over or an answer is wrong."""
        clients: list[Client] = []
        try:
            clients += [Client(self.port, self.path) for _ in range(CONNECTIONS)]
            while not self.over.is_set():
                for client in clients:
                    content = client.ask()
                    if len(content) != self.content_size:
                        raise MeasurementFailed(f"{len(content)} bytes of content, not {self.content_size}")
                    self.answered_count += 1
                self.over.wait(PAUSE_S)
        except MeasurementFailed as error:
            self.failure = error
        except OSError as error:
            self.failure = MeasurementFailed(f"no connection: {error!r}")
        finally:
            for client in clients:
                client.close()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.over.set()
        self.thread.join(SILENCE_LIMIT_S * 3)
        if kind is None and self.failure is not None:
            raise self.failure


def longest_silence_s(port: int) -> tuple[float, int]:
    """For how long a socket connected to the port has heard nothing, at most, and how many have beyond the limit."""
    listed = subprocess.run(
        ["ss", "-tniHO", "state", "established", "dst", f"{HOST}:{port}"],
        capture_output=True,
        text=True,
        timeout=5,
        check=True,
    ).stdout
    silences = [int(milliseconds) / 1000 for milliseconds in LAST_RECEIVED.findall(listed)]
    return max(silences, default=0.0), sum(silence > SILENCE_LIMIT_S for silence in silences)


def watch_sockets(port: int, process: subprocess.Popen[str], duration_s: float) -> None:
    """While the load `process` runs, ask the kernel whether one of its sockets goes without an answer.

    Looks from SILENCE_LIMIT_S on, so a shorter load shows nothing; nor does a machine without `ss` (package iproute2).
    Raises MeasurementFailed.
    """
    began_at = time.monotonic()
    look_after_s = SILENCE_LIMIT_S + 0.1
    while which("ss") and look_after_s < duration_s:
        time.sleep(max(0.0, began_at + look_after_s - time.monotonic()))
        if process.poll() is not None:
            return
        worst_s, count = longest_silence_s(port)
        if count:
            raise MeasurementFailed(f"{count} connections heard nothing for up to {worst_s:.1f} s")
        look_after_s += LOOK_EVERY_S
