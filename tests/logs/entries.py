"""Requests, responses and connections without a server, as the access log is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from epollwsgi.http.head import RequestLine, parse_request_line
from epollwsgi.http.response import ResponseHead, build_head
from epollwsgi.logs.access_log import AccessLog
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.format import CompiledFormat, Entry
from epollwsgi.logs.sink import Sink


@dataclass
class Clock:
    clock: float


@dataclass
class Asked:
    """A connection, as far as a note is made of it."""

    peer: tuple[str, str] = ("127.0.0.1", "4711")
    asked_at: float = 0.0
    loop: Clock = field(default_factory=lambda: Clock(monotonic()))


class Lines:
    """A target that keeps what it is given."""

    fd = -1

    def __init__(self, wants_atoms: bool = False) -> None:
        self.wants_atoms = wants_atoms
        self.lines: list[str] = []
        self.atoms: list[dict[str, object]] = []
        self.calls: list[str] = []

    def write_lines(self, lines: list[str]) -> None:
        self.lines += lines

    def write_atoms(self, atoms: list[dict[str, object]]) -> None:
        self.atoms += atoms

    def reopen(self) -> None:
        self.calls.append("reopen")

    def close(self) -> None:
        self.calls.append("close")


def request_line(text: str = "GET / HTTP/1.1") -> RequestLine:
    return parse_request_line(text.encode("latin-1"), "")


def response_head(*headers: tuple[str, str], status: str = "200 OK") -> ResponseHead:
    return build_head(status, headers)


def make_entry(
    format: CompiledFormat,
    line: str | RequestLine = "GET / HTTP/1.1",
    environ: dict[str, Any] | None = None,
    status: int = 200,
    size: int = 0,
    head: ResponseHead | bytes = b"",
    peer: str = "127.0.0.1",
    duration_s: float = 0.0,
    moment: float | None = None,
) -> Entry:
    """What a log with this format notes of a response; moment, duration_s: put in afterwards."""
    log = AccessLog([], ErrorLog(Sink("/dev/null", 2)), format)
    request = request_line(line) if isinstance(line, str) else line
    environ = {"REMOTE_ADDR": peer} if environ is None else environ
    entry = log.make_entry(Asked((peer, "1")), request, environ, status, size, head)
    return (entry[0] if moment is None else moment, *entry[1:3], duration_s, *entry[4:])


def build_one(format: CompiledFormat, entry: Entry, zero_s: float = 0.0) -> str:
    """The line of one entry."""
    [line] = format.build_lines([entry], zero_s)
    return line


def build_many(format: CompiledFormat, entries: Sequence[Entry]) -> list[str]:
    """The lines of a batch."""
    return format.build_lines(entries, 0.0)
