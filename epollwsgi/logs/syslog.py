"""Syslog: both logs as messages `<PRIORITY>NAME: [pid] TEXT`, which is gunicorn's form; nobody ever waits for it.

A thread sends (`writer`), and only it touches the socket; where nobody takes a message within SEND_S it is lost,
and so is what comes in the RETRY_S after. A datagram holds one event, a traceback with it. In a stream, as over TCP, a
line feed ends a message, so each line of a traceback is one. RFC 3164; RFC 6587 section 3.4.2.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any

from epollwsgi.config.destinations import Destination
from epollwsgi.logs.writer import Writer, split

SEVERITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # RFC 5424 section 6.2.1
SOCKET_TYPES = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}
UNIX_TYPES = {
    "": (socket.SOCK_DGRAM, socket.SOCK_STREAM),
    "dgram": (socket.SOCK_DGRAM,),
    "stream": (socket.SOCK_STREAM,),
}
SEND_S = 1.0
RETRY_S = 1.0
DATAGRAM_SIZE = 32 * 1024  # what is longer is cut: few receivers take more, and UDP none of more than 64 K

Address = tuple[int, int, Any]  # family, type, and what connect(2) takes


def resolve(destination: Destination) -> list[Address]:
    """The addresses of a destination, to be tried in this order. Raises OSError for a name that is unknown."""
    if destination.kind == "unix":
        return [(socket.AF_UNIX, one, destination.path) for one in UNIX_TYPES[destination.socket_type]]
    kind = SOCKET_TYPES[destination.kind]
    found = [
        (family, kind, address)
        for family, _, _, _, address in socket.getaddrinfo(destination.host, destination.port, 0, kind)
    ]
    # A datagram into the void is not noticed before the next one: where localhost is both, few listen at ::1 alone.
    return sorted(found, key=lambda one: kind == socket.SOCK_DGRAM and one[0] != socket.AF_INET)


class Syslog:
    """Sends messages. Its two logs are `SyslogErrors` and `SyslogAccess`."""

    def __init__(self, addresses: Sequence[Address], facility: int, report: Callable[[str], None]) -> None:
        """report: gets one line about messages that were lost."""
        self._addresses = addresses
        self._facility = facility
        self._sock: socket.socket | None = None
        self._address_at = 0
        self._retry_at = 0.0
        self._failure = ""
        self._writer: Writer[tuple[int, str, list[str]]] = Writer("syslog", self._send, report, self._disconnect)

    def put(self, level: str, head: str, texts: list[str]) -> None:
        """Have messages sent, each `head` and a text."""
        self._writer.put((self._facility * 8 + SEVERITIES[level], head, texts), len(texts))

    def flush(self) -> None:
        """Wait a moment for what was put so far."""
        self._writer.flush()

    def close(self) -> None:
        """Nobody sends any more."""
        self._writer.flush()
        self._disconnect()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _send(self, item: tuple[int, str, list[str]]) -> tuple[int, str]:
        """Send one item; how many of its messages are lost, and why."""
        priority, head, texts = item
        if self._sock is None and monotonic() < self._retry_at:
            return len(texts), self._failure
        done = 0
        # A second try at once: the peer of a stream may have ended since, or that of UDP have been away before.
        for is_last in (False, True):
            try:
                sock = self._sock = self._sock or self._connect()
                if sock.type == socket.SOCK_STREAM:
                    lines = (f"<{priority}>{head}{line}\n" for text in texts for line in text.split("\n"))
                    sock.sendall("".join(lines).encode("utf-8", "backslashreplace"))
                    return 0, ""
                for text in texts[done:]:
                    sock.send(f"<{priority}>{head}{text}".encode("utf-8", "backslashreplace")[:DATAGRAM_SIZE])
                    done += 1
                return 0, ""
            except OSError as error:
                self._failure = error.strerror or str(error)
                self._disconnect()
                if is_last or isinstance(error, TimeoutError):
                    break
        self._retry_at = monotonic() + RETRY_S
        return len(texts) - done, self._failure

    def _connect(self) -> socket.socket:
        """A socket connected to the next address that takes us. Raises OSError."""
        failure: OSError = OSError(0, "it has no address")
        for _ in self._addresses:
            family, kind, address = self._addresses[self._address_at % len(self._addresses)]
            self._address_at += 1
            sock = socket.socket(family, kind)
            try:
                sock.settimeout(SEND_S)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            with suppress(OSError):
                sock.close()


class SyslogErrors:
    """The error log in syslog; without a name, only its end."""

    def __init__(self, syslog: Syslog, name: str) -> None:
        self._syslog = syslog
        self._name = name

    def write_event(
        self,
        level: str,
        message: str,
        detail: str,
        error: tuple[type[BaseException], BaseException, TracebackType | None] | None,
    ) -> None:
        """One event of the error log."""
        if not self._name:
            return
        text = f"{message}\n{detail}" if detail else message
        self._syslog.put(level, f"{self._name}: [{os.getpid()}] ", [text])

    def flush(self, is_end: bool) -> None:
        """Wait a moment for what was written so far."""
        self._syslog.flush()

    def files(self) -> list[str]:
        """None."""
        return []

    def reopen(self) -> None:
        """Nothing: there is no file."""

    def close(self) -> None:
        """Nobody writes into it any more."""
        self._syslog.close()


class SyslogAccess:
    """The access log in syslog."""

    wants_atoms = False
    fd = -1

    def __init__(self, syslog: Syslog, name: str) -> None:
        self._syslog = syslog
        self._name = name

    def write_lines(self, lines: list[str]) -> None:
        """Lines of the access log."""
        head = f"{self._name}: [{os.getpid()}] "
        for part in split(lines, len):
            self._syslog.put("info", head, part)

    def write_atoms(self, atoms: list[dict[str, object]]) -> None:
        """Never called: see wants_atoms."""

    def reopen(self) -> None:
        """Nothing: there is no file."""

    def close(self) -> None:
        """Nothing: it ends with the error log."""
