"""What a connection tells the access log of a response that takes its time: a line once all is sent, or nobody reads.

The base of `output.Output`. A response that is handed over whole is told to the log at once, by `log`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epollwsgi.logs.format import SIZE

if TYPE_CHECKING:
    from epollwsgi.http.fields import Environ
    from epollwsgi.http.head import RequestLine
    from epollwsgi.http.response import ResponseHead
    from epollwsgi.logs.access_log import AccessLog
    from epollwsgi.logs.entry import NoteFresh
    from epollwsgi.logs.format import Entry
    from epollwsgi.loop import Loop
    from epollwsgi.outbox import Outbox
    from epollwsgi.sink import Note


class Noted:
    """See the module."""

    __slots__ = ("access_log", "asked_at", "log", "log_fresh", "loop", "peer", "unlogged", "unsent_size")

    access_log: AccessLog | None
    log: Note | None
    """`note` of it"""
    log_fresh: NoteFresh | None
    asked_at: float
    """when the request came, where that is not at the loop's last look at the clock, else 0; reset by each entry"""
    unlogged: Entry | None
    """of a response that is being sent"""
    unsent_size: int
    """bytes of it that were thrown away because the client had left"""
    loop: Loop
    peer: tuple[str, str]
    outbox: Outbox | None

    def begin_notes(self, access_log: AccessLog | None) -> None:
        """Instead of an __init__."""
        self.access_log = access_log
        self.log = None if access_log is None else access_log.note
        self.log_fresh = None if access_log is None else access_log.note_fresh
        self.asked_at = 0.0
        self.unlogged = None
        self.unsent_size = 0

    def log_at_end(
        self, request: RequestLine, environ: Environ, status: int, size: int, head: ResponseHead | bytes
    ) -> None:
        """Called before what is left of a response begins to be sent. size: of its content, as far as it goes."""
        if self.access_log is not None:
            self.unlogged = self.access_log.make_entry(self, request, environ, status, size, head)

    def end_notes(self) -> None:
        """What is being sent ends here: the client has left, or the process ends."""
        if self.unlogged is not None:
            self.log_end(self.outbox.size if self.outbox is not None else 0)

    def log_end(self, rest: int) -> None:
        """It has ended. rest: bytes that the client has not taken."""
        entry = self.unlogged
        self.unlogged = None
        if self.access_log is not None and entry is not None:
            self.access_log.add(entry, max(0, entry[SIZE] - rest - self.unsent_size))
