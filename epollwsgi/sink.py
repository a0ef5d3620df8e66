"""Where the response of an application goes: what `wsgi` asks of a connection, and the place of one that has gone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from epollwsgi.file_wrapper import DescriptorCopy
from epollwsgi.http.fields import Environ
from epollwsgi.http.head import RequestLine
from epollwsgi.http.response import ResponseHead

# connection, request, environ, status, size of the content in bytes, head
Note = Callable[[Any, RequestLine, Environ, int, int, ResponseHead | bytes], None]


class HasCommon(Protocol):
    """The loop, as far as a response needs it."""

    common: bytes
    """Date and Server field lines"""


class Sink(Protocol):
    """Where a response goes: a connection. Nothing here raises when the client has gone; `gone` tells."""

    @property
    def loop(self) -> HasCommon: ...

    gone: bool
    log: Note | None
    """what is told of each response that is handed over by `respond`; None where there is no log"""
    asked_at: float
    """when the request came, on the loop's clock; 0: at its last look at the clock"""

    @property
    def keeps(self) -> bool:
        """Whether connections stay open after a response: not once the worker drains."""

    @property
    def sends_files(self) -> bool:
        """Whether os.sendfile may be used."""

    def respond(self, response: bytes, keep: bool) -> None:
        """A whole response; it may wait for the end of the loop's turn."""

    def list_ready(self) -> None:
        """The loop looks at it once more."""

    def flush(self) -> None:
        """Send what waits for the end of the loop's turn, of all connections."""

    @property
    def is_full(self) -> bool:
        """What was sent last found no room: wait before the next part."""

    def wait_for_client(self) -> None:
        """Return when there is room again, or the client has gone. May take long."""

    def send(self, data: bytes) -> None:
        """A part of a response, sent at once as far as the client takes it."""

    def send_file(self, head: bytes, file: DescriptorCopy, offset: int, count: int, keep: bool) -> None:
        """A whole response whose content is part of a file."""

    def finish(self, keep: bool) -> None:
        """What was sent is a whole response."""

    def abort(self, reset: bool) -> None:
        """What was sent is no whole response: close; with a reset where a close would look like its end."""

    def become_owned(self) -> None:
        """The calling thread has lost the loop: until `finish` the sink is its own."""

    def take_back(self) -> None:
        """The loop answers instead of a thread that has not begun to."""

    def hand_over_socket(self) -> socket.socket:
        """The connection's socket, for the application to use."""

    def end_input(self) -> None:
        """Whoever reads from the socket sees its end."""

    def log_breach(self, message: str, error: BaseException | None) -> None:
        """The application did something wrong; error: with its traceback."""

    def log_at_end(
        self, request: RequestLine, environ: Environ, status: int, size: int, head: ResponseHead | bytes
    ) -> None:
        """Called before `finish`, where there is a log. size: bytes of content that were sent, or wait."""


class Nobody:
    """The sink of a call that the server has given up: its client has been answered already."""

    gone = True
    keeps = False
    is_full = False
    log: Note | None = None
    asked_at = 0.0
    sends_files = False

    def __init__(self, loop: HasCommon, log_breach: Callable[[str, BaseException | None], None]) -> None:
        self.loop = loop
        self.log_breach = log_breach

    def respond(self, response: bytes, keep: bool) -> None:
        """See Sink."""

    def flush(self) -> None:
        """See Sink."""

    def list_ready(self) -> None:
        """See Sink."""

    def wait_for_client(self) -> None:
        """See Sink."""

    def send(self, data: bytes) -> None:
        """See Sink."""

    def send_file(self, head: bytes, file: DescriptorCopy, offset: int, count: int, keep: bool) -> None:
        """See Sink."""

    def finish(self, keep: bool) -> None:
        """See Sink."""

    def abort(self, reset: bool) -> None:
        """See Sink."""

    def become_owned(self) -> None:
        """See Sink."""

    def take_back(self) -> None:
        """See Sink."""

    def hand_over_socket(self) -> socket.socket:
        """Never asked of it."""
        raise NotImplementedError

    def end_input(self) -> None:
        """See Sink."""

    def log_at_end(
        self, request: RequestLine, environ: Environ, status: int, size: int, head: ResponseHead | bytes
    ) -> None:
        """See Sink."""
