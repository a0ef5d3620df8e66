"""The error log and the access log: what a line looks like, and writing that never harms a request.

A line that cannot be written (full disk, closed or full pipe) is lost and counted; the count is reported when writing
works again.  Nothing here raises once a log is open, and nothing waits for a reader.  Every control character that a
client may have sent is escaped.  Called by whoever has something to say; knows no request and no socket.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from time import localtime, monotonic, strftime, time

from epollwsgi.config.settings import Settings
from epollwsgi.errors import ConfigError
from epollwsgi.log_sink import ErrorStream, Sink

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
LIMIT_PER_SECOND = 5  # lines of one kind
KINDS_COUNT = 256  # kinds of limited lines that are told apart
PENDING_COUNT = 16_384  # access log lines kept before they are written even if nobody asks for it

UNSAFE_ATOM = re.compile(r'[\x00-\x1f\x7f-\x9f"\\]')
UNSAFE_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
UNSAFE_TRACEBACK = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def escape_match(match: re.Match[str]) -> str:
    """A character as \\xHH."""
    return f"\\x{ord(match[0]):02x}"


def escape_atom(text: str) -> str:
    """A part of an access log line that came from a client, or `-` for none."""
    return UNSAFE_ATOM.sub(escape_match, text) if text else "-"


# --- the error log --------------------------------------------------------------------------------------------------


class ErrorLog:
    """One line per event: `[time] [pid] [LEVEL] message`."""

    def __init__(self, sink: Sink, level: str = "info", clock: Callable[[], float] = monotonic) -> None:
        self._sink = sink
        self._least = LEVELS[level]
        self._clock = clock
        self._kinds: dict[str, list[float]] = {}  # kind -> [second, lines written in it, lines held back since]
        self.stream = ErrorStream(sink)

    @property
    def fd(self) -> int:
        """Where it is written."""
        return self._sink.fd

    def close(self) -> None:
        """Nobody writes into it any more."""
        self._sink.close()

    def reopen(self) -> None:
        """The file was moved away (USR1): go on in a new one of its name, or in the old one if that cannot be."""
        try:
            self._sink.reopen()
        except OSError as error:
            self.error(f"errorlog cannot be opened again: {error.strerror}")

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
        self.write("error", message, traceback.format_exc())

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

    def write(self, level: str, message: str, detail: str = "", *, least: int | None = None) -> None:
        """One line, and below it `detail` as it is.  least: replaces loglevel."""
        if LEVELS[level] < (self._least if least is None else least):
            return
        head = strftime("[%Y-%m-%d %H:%M:%S %z]", localtime()) + f" [{os.getpid()}] "
        lines = f"{head}[{level.upper()}] {UNSAFE_LINE.sub(escape_match, message)}\n"
        if detail:
            lines += UNSAFE_TRACEBACK.sub(escape_match, detail).rstrip("\n") + "\n"
        sink = self._sink
        if sink.lost_count and not sink.rest:
            report = f"{head}[WARNING] {sink.lost_count} lines of this log were lost: {sink.lost_reason}\n"
            lost, sink.lost_count = sink.lost_count, 0
            if not sink.write(report.encode("utf-8", "backslashreplace")) and not sink.rest:
                sink.lost_count = lost  # the report itself does not count
        sink.write(lines.encode("utf-8", "backslashreplace"))


# --- the access log -------------------------------------------------------------------------------------------------

Entry = tuple[float, str, str, str, str, int, int, float, str, str]


def build_common_line(entry: Entry, stamp: str) -> str:
    """gunicorn's default format: `%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"`."""
    _, remote, method, target, protocol, status, size, _, referer, agent = entry
    request = escape_atom(f"{method} {target} {protocol}")
    return (
        f"{escape_atom(remote)} - - [{stamp}] "
        f'"{request}" {status} {size} "{escape_atom(referer)}" "{escape_atom(agent)}"\n'
    )


COLOURS = {1: "36", 2: "32", 3: "36", 4: "33", 5: "31"}


def build_dev_line(entry: Entry, stamp: str) -> str:
    """A short line for a person at a terminal; only there is it coloured."""
    _, _, method, target, _, status, size, duration_s, _, _ = entry
    colour = COLOURS.get(status // 100, "0")
    took = f"{duration_s * 1000:.1f} ms" if duration_s < 1 else f"{duration_s:.2f} s"
    amount = f"{size} B" if size < 1000 else f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"
    tail = f"\x1b[2m{amount}, {took}\x1b[0m"
    return f"{stamp} \x1b[{colour}m{status}\x1b[0m {escape_atom(method)} {escape_atom(target)} {tail}\n"


def build_plain_dev_line(entry: Entry, stamp: str) -> str:
    """The short line without colours, where NO_COLOR asks for none."""
    return re.sub(r"\x1b\[[0-9]+m", "", build_dev_line(entry, stamp))


class AccessLog:
    """One line per response, collected by `add` and written together by `flush`."""

    def __init__(
        self,
        sink: Sink,
        errors: ErrorLog,
        build_line: Callable[[Entry, str], str] = build_common_line,
        stamp_format: str = "%d/%b/%Y:%H:%M:%S %z",
    ) -> None:
        self._sink = sink
        self._errors = errors
        self._build_line = build_line
        self._stamp_format = stamp_format
        self._stamp = (0, "")
        self._entries: list[Entry] = []
        self._flushing = threading.Lock()

    def __len__(self) -> int:
        """How many lines wait."""
        return len(self._entries)

    @property
    def fd(self) -> int:
        """Where it is written."""
        return self._sink.fd

    def close(self) -> None:
        """Nobody writes into it any more."""
        self._sink.close()

    def reopen(self) -> None:
        """The file was moved away (USR1): what was noted goes into it, the rest into a new one of its name."""
        self.flush()
        try:
            self._sink.reopen()
        except OSError as error:
            self._errors.error(f"accesslog cannot be opened again: {error.strerror}")

    def add(
        self,
        remote: str,
        method: str,
        target: str,
        protocol: str,
        status: int,
        size: int,
        duration_s: float,
        referer: str = "",
        agent: str = "",
    ) -> None:
        """Note a response; no system call, unless thousands wait."""
        entries = self._entries
        entries.append((time(), remote, method, target, protocol, status, size, duration_s, referer, agent))
        if len(entries) >= PENDING_COUNT:
            self.flush()

    def flush(self) -> None:
        """Write what was noted, in one system call where the descriptor takes it."""
        if not self._entries or not self._flushing.acquire(blocking=False):
            return  # nothing to do, or another thread does it
        try:
            count = len(self._entries)
            lines = [self._build_line(entry, self._stamp_of(int(entry[0]))) for entry in self._entries[:count]]
            del self._entries[:count]
            sink = self._sink
            if sink.write("".join(lines).encode("utf-8", "backslashreplace")) and sink.lost_count:
                lost, sink.lost_count = sink.lost_count, 0
                self._errors.warning(f"{lost} lines of the access log were lost: {sink.lost_reason}")
        finally:
            self._flushing.release()

    def _stamp_of(self, second: int) -> str:
        if second != self._stamp[0]:
            self._stamp = (second, strftime(self._stamp_format, localtime(second)))
        return self._stamp[1]


# --- opening --------------------------------------------------------------------------------------------------------


def open_logs(settings: Settings) -> tuple[ErrorLog, AccessLog | None]:
    """Both logs as the settings have them; None for no access log. Raises ConfigError."""
    errors = ErrorLog(open_sink("errorlog", settings.errorlog or "-", 2), settings.loglevel)
    wanted = settings.accesslog
    if wanted == "auto" and is_terminal(1):
        build_line = build_plain_dev_line if os.environ.get("NO_COLOR") else build_dev_line
        return errors, AccessLog(open_sink("accesslog", "-", 1), errors, build_line, "%H:%M:%S")
    if wanted in ("", "none", "auto"):
        return errors, None
    return errors, AccessLog(open_sink("accesslog", wanted, 1), errors)


def open_sink(name: str, path: str, standard_fd: int) -> Sink:
    """A sink for the setting `name`. Raises ConfigError."""
    try:
        return Sink(path, standard_fd)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{name} = {path!r}: {reason}") from None


def is_terminal(fd: int) -> bool:
    """True if a person is looking."""
    return sys.stdout is not None and os.isatty(fd)
