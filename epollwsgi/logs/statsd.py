"""Figures for statsd, by gunicorn's names: requests by status, durations, lines of the error log by level, workers.

    gunicorn.requests  gunicorn.request.status.N  gunicorn.request.duration  gunicorn.workers  gunicorn.log.LEVEL

The access log hands over what it notes (`on_responses`); counts of one hand-over are one figure, and figures share
datagrams. Of more than TIMERS durations only some are sent, with the rate that they stand for. Datagrams are sent
without waiting; what nobody takes is lost, as ever with statsd, and nobody is told.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Final

from epollwsgi.logs.format import DURATION, STATUS

TIMERS: Final = 1000
DATAGRAM_SIZE: Final = 1400  # below the payload of an Ethernet frame
RETRY_S: Final = 1.0

Address = tuple[int, int, Any]  # family, type, and what connect(2) takes


class Statsd:
    """Sends figures; also a target of the error log, whose lines it counts."""

    def __init__(self, address: Address, prefix: str, tags: str) -> None:
        self._address = address
        self._prefix = prefix.rstrip(".") + "." if prefix.strip(".") else prefix
        self._suffix = f"|#{tags}" if tags else ""
        self._sock: socket.socket | None = None
        self._retry_at = 0.0

    def on_responses(self, entries: Sequence[tuple[Any, ...]]) -> None:
        """Responses of the last moment, as the access log notes them."""
        counts = Counter(entry[STATUS] for entry in entries)
        figures = [f"gunicorn.requests:{len(entries)}|c|@1.0"]
        figures += [f"gunicorn.request.status.{status}:{count}|c|@1.0" for status, count in counts.items()]
        step = -(-len(entries) // TIMERS)
        rate = f"|@{1 / step:.6g}" if step > 1 else ""
        figures += [f"gunicorn.request.duration:{entry[DURATION] * 1000:.3f}|ms{rate}" for entry in entries[::step]]
        self.send(figures)

    def on_workers(self, count: int) -> None:
        """So many workers there are now."""
        self.send([f"gunicorn.workers:{count}|g"])

    def send(self, figures: Iterable[str]) -> None:
        """As many of them in a datagram as fit."""
        for data in self._pack(figures):
            try:
                sock = self._sock or self._connect()
                if sock is None:
                    return
                sock.send(data)
            except BlockingIOError:
                return
            except OSError:  # nobody was there for the one before, or nobody is there any more
                self._disconnect()

    def _pack(self, figures: Iterable[str]) -> Iterator[bytes]:
        lines: list[bytes] = []
        size = 0
        for figure in figures:
            line = f"{self._prefix}{figure}{self._suffix}".encode()
            if lines and size + len(line) > DATAGRAM_SIZE:
                yield b"\n".join(lines)
                lines, size = [], 0
            lines.append(line)
            size += len(line) + 1
        if lines:
            yield b"\n".join(lines)

    def _connect(self) -> socket.socket | None:
        if monotonic() < self._retry_at:
            return None
        family, kind, address = self._address
        sock = socket.socket(family, kind)
        try:
            sock.setblocking(False)
            sock.connect(address)
        except OSError:
            sock.close()
            self._retry_at = monotonic() + RETRY_S
            return None
        self._sock = sock
        return sock

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            with suppress(OSError):
                sock.close()

    # --- target of the error log ------------------------------------------------------------------------------------

    def write_event(
        self,
        level: str,
        message: str,
        detail: str,
        error: tuple[type[BaseException], BaseException, TracebackType | None] | None,
    ) -> None:
        """Count it."""
        if level in ("warning", "error", "critical"):
            self.send([f"gunicorn.log.{'exception' if error is not None else level}:1|c|@1.0"])

    def flush(self, is_end: bool) -> None:
        """Nothing waits."""

    def files(self) -> list[str]:
        """None."""
        return []

    def reopen(self) -> None:
        """Nothing: there is no file."""

    def close(self) -> None:
        """Nobody sends any more."""
        self._disconnect()
