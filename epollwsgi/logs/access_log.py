"""The access log: responses are noted as they end, and their lines written together, to one target or several.

Noting costs a request a tuple; the text of its line is made by `flush`, many at a time: when the loop idles, at least
once a second, when hundreds wait, and before the process ends.  Nothing here raises once the log is open, and nothing
waits for a reader.  What a line looks like is in `format`; who opens targets, in `opening`.

Every response has one line, at its end:

    whole            when it is handed to the kernel; one that its client takes slowly, when all of it is
    cut              when the client has left, or the process ends: the status that was sent, the size as far as it went
    refused          the request line as far as it came
    101              when the call that was given the socket has ended; what passed on it is not counted
    499              the client left before the application was called (nginx's number); nothing was sent
    400, size 0      the client has reset the connection within a body (nginx's number, too)
    no line          a connection that ends within a head, but not by a refusal; a call, or a body, that the end of the
                     process interrupts

A duration counts from the request: from the end of its head, or the first piece of one that did not come whole; waiting
in the queue and sending are part of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from time import monotonic, time
from typing import Protocol

from epollwsgi.logs.atoms import LINE, build_atoms, capture_atoms
from epollwsgi.logs.entry import (
    PENDING_COUNT,
    Asked,
    Make,
    Note,
    NoteFresh,
    make_entry,
    make_note,
    make_note_fresh,
    make_quick_note,
    make_texts,
)
from epollwsgi.logs.error_log import UNSAFE_LINE, ErrorLog, escape_match
from epollwsgi.logs.exclude import Excluded
from epollwsgi.logs.format import METHOD, MOMENT, REQUEST, CompiledFormat, Entry, Environ, Head, Request
from epollwsgi.logs.sink import Sink

Observer = Callable[[Sequence[Entry]], None]
Passes = Callable[[dict[str, object]], bool]


class AccessTarget(Protocol):
    """Where access lines go. Nothing of it raises, and nothing waits."""

    wants_atoms: bool
    fd: int
    """-1 where there is none"""

    def write_lines(self, lines: list[str]) -> None:
        """Without newline at their ends. Not called where `wants_atoms`."""

    def write_atoms(self, atoms: list[dict[str, object]]) -> None:
        """gunicorn's atoms by name, and the finished line as `line`. Called instead where `wants_atoms`."""

    def reopen(self) -> None: ...
    def close(self) -> None: ...


class FileTarget(Sink):
    """A file, pipe, terminal or socket; lines that are lost are reported in the error log when writing works again."""

    wants_atoms = False

    def __init__(self, path: str, standard_fd: int, errors: ErrorLog, is_wary: bool = False) -> None:
        """path: `-` for the standard descriptor.  is_wary: see `files`.  Raises OSError."""
        super().__init__(path, standard_fd, is_wary)
        self._errors = errors

    def write_lines(self, lines: list[str]) -> None:
        """See AccessTarget."""
        lines.append("")
        with self.turn:
            lost = self.lost_count if self.write("\n".join(lines).encode("utf-8", "backslashreplace")) else 0
            self.lost_count -= lost
        if lost:
            self._errors.warning(f"{lost} lines of the access log were lost: {self.lost_reason}")

    def write_atoms(self, atoms: list[dict[str, object]]) -> None:
        """See AccessTarget."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Open the file of that name anew; go on in the old one if that cannot be."""
        try:
            super().reopen()
        except OSError as error:
            self._errors.error(f"accesslog cannot be opened again: {error.strerror}")


class AccessLog:
    """Entries, and the targets of their lines. `observers` are given all entries at each flush, excluded ones too."""

    def __init__(
        self,
        targets: Sequence[AccessTarget],
        errors: ErrorLog,
        format: CompiledFormat,
        exclude: Sequence[str] = (),
    ) -> None:
        self.targets = list(targets)
        self.observers: list[Observer] = []
        self.entries: list[Entry] = []
        """those not written yet: one list for good"""
        self._errors = errors
        self._format = format
        self._excluded = Excluded(exclude) if exclude else None
        self._flushing = threading.Lock()
        self._has_failed = False
        self._replaced: list[AccessTarget] = []
        self._passes: Passes | None = None
        self._settle()

    def _settle(self) -> None:
        """What follows from the targets."""
        self._wants_atoms = self._passes is not None or any(target.wants_atoms for target in self.targets)
        self._is_plain = self._format.capture is None and not self._wants_atoms
        self.make_entry: Make = make_entry if self._is_plain else self._make_long_entry

    @property
    def fd(self) -> int:
        """Where it is written first of all; -1 for no descriptor."""
        return self.targets[0].fd if self.targets else -1

    def add_target(self, target: AccessTarget, is_alone: bool) -> None:
        """Lines go there too, or with is_alone there in place of all others. Called before `note` is asked for."""
        if is_alone:
            self._replaced += self.targets
            self.targets.clear()
        self.targets.append(target)
        self._settle()

    def sift(self, passes: Passes) -> None:
        """Only responses whose atoms pass get a line. Called before `note` is asked for."""
        self._passes = passes
        self._settle()

    def close(self, *, is_refused: bool = False) -> None:
        """Nobody writes into it any more.  is_refused: nobody ever did, see `Sink.remove_if_empty`."""
        for target in [*self.targets, *self._replaced]:
            if is_refused and isinstance(target, FileTarget):
                target.remove_if_empty()
            target.close()

    def reopen(self) -> None:
        """The file was moved away (USR1): what was noted goes into it, the rest into a new one of its name."""
        self.flush()
        for target in [*self.targets, *self._replaced]:  # or a file that is written no more stays open for good
            target.reopen()

    # --- noting -----------------------------------------------------------------------------------------------------

    @cached_property
    def note(self) -> Note:
        """A function that is told of each complete response; no system call, unless hundreds wait.

        Asked for when targets and observers are known.
        """
        if self._is_plain and not self._format.has_durations and not self.observers:
            return make_quick_note(self.entries, self.flush)
        return make_note(self.make_entry, self.entries, self.flush)

    @cached_property
    def note_fresh(self) -> NoteFresh:
        """The same for files whose whole response was prebuilt."""
        return make_note_fresh(self.note)

    def add(self, entry: Entry, size: int) -> None:
        """A response is complete, or has been cut, whose entry was made when it began to be sent."""
        now = monotonic()
        began_at = entry[MOMENT] - entry[METHOD - 1]
        self.entries.append((now, entry[1], size, now - began_at, *entry[METHOD:]))
        if len(self.entries) >= PENDING_COUNT:
            self.flush()

    def _make_long_entry(
        self, asked: Asked, request: Request, environ: Environ, status: int, size: int, head: Head | bytes
    ) -> Entry:
        """Where the format, or a target, needs more."""
        capture = self._format.capture
        return (
            *make_entry(asked, request, environ, status, size, head),
            capture(environ, head) if capture is not None else (),
            capture_atoms(environ, head) if self._wants_atoms else None,
        )

    # --- writing ----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was noted, in one system call where the descriptor takes it."""
        if not self.entries or not self._flushing.acquire(blocking=False):
            return  # nothing to do, or another thread does it
        try:
            count = len(self.entries)
            entries = self.entries[:count]
            del self.entries[:count]
            self._write(entries)
        except Exception:  # a fault of our own must not harm a request
            if not self._has_failed:
                self._has_failed = True
                self._errors.exception("lines of the access log could not be made")
        finally:
            self._flushing.release()

    def write_line(self, line: str) -> None:
        """One that the application has made itself, by the logger that stands in; from any thread."""
        for target in self.targets:
            if not target.wants_atoms:
                target.write_lines([UNSAFE_LINE.sub(escape_match, line)])

    def _write(self, entries: list[Entry]) -> None:
        for observer in self.observers:
            observer(entries)
        excluded = self._excluded
        if excluded is not None:
            entries = [entry for entry in entries if not excluded[entry[REQUEST].path]]
        if not self.targets or not entries:
            return
        zero_s = time() - monotonic()
        try:
            lines = self._format.build_lines(entries, zero_s)
        except Exception:  # an application has put objects into environ where texts belong
            entries = [make_texts(entry) for entry in entries]
            lines = self._format.build_lines(entries, zero_s)
        atoms = build_atoms(entries, zero_s, lines) if self._wants_atoms else []
        if self._passes is not None:
            atoms = [one for one in atoms if self._passes(one)]
            lines = [str(one[LINE]) for one in atoms]
        for target in self.targets if lines else ():
            if target.wants_atoms:
                target.write_atoms(atoms)
            else:
                target.write_lines(lines[:])
