"""The error log: what a line looks like, and writing that never harms a request.

A line that cannot be written (full disk, closed or full pipe) is lost and counted; the count is reported when writing
works again.  Nothing here raises once a log is open, and nothing waits for a reader.  Every control character that a
client may have sent is escaped.  Called by whoever has something to say; knows no request and no socket.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable
from time import localtime, monotonic, strftime
from types import TracebackType
from typing import Protocol

from epollwsgi.logs.files import remove_empty
from epollwsgi.logs.sink import ErrorStream, Sink, restore_standard

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
LIMIT_PER_SECOND = 5  # lines of one kind
KINDS_COUNT = 256  # kinds of limited lines that are told apart

# Of the traceback of a fault of our own: what its text quotes may be as long as clients like.
TRACEBACK_SIZE = 8192
TRACEBACK_LINE_SIZE = 1024

UNSAFE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
UNSAFE_TRACEBACK = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def escape_match(match: re.Match[str]) -> str:
    """A character as \\xHH."""
    return f"\\x{ord(match[0]):02x}"


Raised = tuple[type[BaseException], BaseException, TracebackType | None]


def shorten(text: str) -> str:
    """The end of a traceback, the beginnings of its lines."""
    size = TRACEBACK_LINE_SIZE
    lines = [line if len(line) <= size else line[:size] + "..." for line in text.split("\n")]
    return "\n".join(lines)[-TRACEBACK_SIZE:]


class ErrorTarget(Protocol):
    """Where events go beside the file, or in its place. Nothing of it raises, and nothing waits but for `flush`."""

    def write_event(self, level: str, message: str, detail: str, error: Raised | None) -> None:
        """message: one line, escaped.  detail: what stands below it, or ''.  error: whose traceback detail is."""

    def flush(self, is_end: bool) -> None:
        """Wait a moment for what was written so far.  is_end: of the process, which nothing may hold up."""

    def files(self) -> list[str]:
        """Paths that a worker must be able to open."""

    def reopen(self) -> None: ...
    def close(self) -> None: ...


class ErrorLog:
    """One line per event: `[time] [pid] [LEVEL] message`."""

    def __init__(self, sink: Sink, level: str = "info", clock: Callable[[], float] = monotonic) -> None:
        self._sink = sink
        self._least = LEVELS[level]
        self._clock = clock
        self._kinds: dict[str, list[float]] = {}  # kind -> [second, lines written in it, lines held back since]
        self._targets: list[ErrorTarget] = []
        self._beside: ErrorTarget | None = None  # the handlers of a logger: its own records have been there
        self._has_lines = True  # events are written as lines
        self.is_capturing = False
        self.on_workers: Callable[[int], None] | None = None
        self.made_files: list[str] = []  # by handlers of its targets
        self.stream = ErrorStream(sink)

    @property
    def fd(self) -> int:
        """Where it is written."""
        return self._sink.fd

    def add_target(self, target: ErrorTarget, takes_over_at: int = 0, *, is_beside: bool = False) -> None:
        """Events go there too; with a level other than 0 they go there in place of the file, from that level on.

        is_beside: but not what has been a record already, see `write`.
        """
        self._targets.append(target)
        if is_beside:
            self._beside = target
        if takes_over_at:
            self._has_lines = False
            self._least = takes_over_at

    def close(self, *, is_refused: bool = False) -> None:
        """Nobody writes into it any more.  is_refused: what was to be logged never came to be; empty files go."""
        for target in self._targets:
            target.close()
        self._targets.clear()
        if is_refused:
            self._sink.remove_if_empty()
            remove_empty(self.made_files)
        self._sink.close()

    def files(self) -> list[str]:
        """What its targets write, by name."""
        return [path for target in self._targets for path in target.files()]

    def note_workers(self, count: int) -> None:
        """So many there are now."""
        if self.on_workers is not None:
            self.on_workers(count)

    def flush(self, is_end: bool = True) -> None:
        """Wait a moment until targets that need time have written what they got.  is_end: the process is to end."""
        for target in self._targets:
            target.flush(is_end)

    def capture(self) -> None:
        """From now on standard output and error of this process go into the file too, and those of its children."""
        try:
            self._sink.become_standard()
        except OSError as error:
            self.error(f"capture_output: standard output stays where it is: {error.strerror}")
        self.is_capturing = True

    def release(self) -> None:
        """Standard output and error are what they were before they were captured, by whatever log."""
        restore_standard()
        self.is_capturing = False

    def reopen(self) -> None:
        """The file was moved away (USR1): go on in a new one of its name, or in the old one if that cannot be."""
        try:
            self._sink.reopen()
        except OSError as error:
            self.error(f"errorlog cannot be opened again: {error.strerror}")
        for target in self._targets:
            target.reopen()
        if self.is_capturing:
            self.capture()

    def debug(self, message: str) -> None:
        """For whoever looks for a fault."""
        self.write("debug", message)

    def info(self, message: str) -> None:
        """What happened, as it should."""
        self.write("info", message)

    def warning(self, message: str) -> None:
        """What an operator may want to change."""
        self.write("warning", message)

    def error(self, message: str) -> None:
        """What went wrong."""
        self.write("error", message)

    def exception(self, message: str) -> None:
        """What went wrong, with the traceback of the exception being handled."""
        kind, error, where = sys.exc_info()
        raised = (kind, error, where) if kind is not None and error is not None else None
        self.write("error", message, traceback.format_exc(), error=raised)

    def is_on(self, level: str) -> bool:
        """True if lines of this level are written: asked before a costly message is made."""
        return LEVELS[level] >= self._least

    def limited(self, kind: str, message: str, level: str = "info") -> None:
        """A line that clients can cause: at most five a second of one kind, a later line counts the others."""
        if not self.is_on(level):
            return
        now = self._clock()
        count = self._kinds.get(kind)
        if count is None:
            if len(self._kinds) >= KINDS_COUNT:
                self.report_held_back()
                self._kinds.clear()
            count = self._kinds[kind] = [now, 0, 0]
        if now - count[0] >= 1.0:
            self._report_kind(kind, count)
            count[0], count[1] = now, 0
        if count[1] < LIMIT_PER_SECOND:
            count[1] += 1
            self.write(level, message)
        else:
            count[2] += 1

    def on_tick(self) -> bool:
        """Called about once a second: reports what was held back more than a second ago, and forgets quiet kinds.

        True while there are kinds left, so that it must be called again.
        """
        now = self._clock()
        for kind, count in list(self._kinds.items()):
            if now - count[0] >= 1.0 and self._kinds.pop(kind, None) is not None:
                self._report_kind(kind, count)
        return bool(self._kinds)

    def report_held_back(self) -> None:
        """Called before the process ends: reports all that was held back."""
        for kind, count in list(self._kinds.items()):
            self._report_kind(kind, count)

    def _report_kind(self, kind: str, count: list[float]) -> None:
        if count[2]:
            self.write("info", f"{kind}: {count[2]:g} more of these lines were not logged", least=LEVELS["info"])
            count[2] = 0

    def write(
        self,
        level: str,
        message: str,
        detail: str = "",
        *,
        error: Raised | None = None,
        least: int | None = None,
        is_record: bool = False,
    ) -> None:
        """One line, and below it `detail` as it is.  error: whose traceback that is.  least: replaces loglevel.

        is_record: of a logger, whose handlers have it.
        """
        if LEVELS[level] < (self._least if least is None else least):
            return
        message = UNSAFE_LINE.sub(escape_match, message)
        detail = UNSAFE_TRACEBACK.sub(escape_match, detail).rstrip("\n") if detail else ""
        if self._has_lines:
            self._write_lines(level, message, detail)
        for target in self._targets:
            if not is_record or target is not self._beside:
                target.write_event(level, message, detail, error)

    def _write_lines(self, level: str, message: str, detail: str) -> None:
        head = strftime("[%Y-%m-%d %H:%M:%S %z]", localtime()) + f" [{os.getpid()}] "
        lines = f"{head}[{level.upper()}] {message}\n"
        if detail:
            lines += detail + "\n"
        sink = self._sink
        with sink.turn:
            if sink.lost_count and not sink.rest:
                report = f"{head}[WARNING] {sink.lost_count} lines of this log were lost: {sink.lost_reason}\n"
                lost, sink.lost_count = sink.lost_count, 0
                if not sink.write(report.encode("utf-8", "backslashreplace")) and not sink.rest:
                    sink.lost_count = lost  # the report itself does not count
            sink.write(lines.encode("utf-8", "backslashreplace"))
