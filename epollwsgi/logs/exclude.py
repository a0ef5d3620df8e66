"""Paths that the access log leaves out: `access_log_exclude`, compiled once at start.

A pattern is a path as in a URL, whole, without query; `*` stands for any characters, `/` among them, and `?` for one:
`/health`, `/static/*`, `*.ico`.  It is compared with the path as it was sent, percent-encoding and all.  Matching takes
time linear in the path for each piece between two stars: a star is never tried twice.  Pure; called by `access_log`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

REMEMBERED_COUNT = 1024
REMEMBERED_SIZE = 256


class Pattern:
    """One pattern. Its pieces are what stands between the stars."""

    def __init__(self, written: str) -> None:
        first, *rest = (compile_piece(piece) for piece in written.split("*"))
        self._first = first
        self._last = rest.pop() if rest else None
        self._middle = [piece for piece in rest if piece[1]]
        self._least = len(written) - written.count("*")

    def matches(self, path: str) -> bool:
        """True if the whole path is meant."""
        first, size = self._first
        if len(path) < self._least or not first.match(path):
            return False
        if self._last is None:
            return len(path) == size
        last, last_size = self._last
        end = len(path) - last_size
        if not last.match(path, end):
            return False
        for piece, piece_size in self._middle:  # the leftmost place leaves the most room for what follows
            found = piece.search(path, size, end)
            if found is None:
                return False
            size = found.start() + piece_size
        return size <= end


def compile_piece(piece: str) -> tuple[re.Pattern[str], int]:
    """Text without stars, and its length; nothing in it repeats."""
    return re.compile("".join("." if char == "?" else re.escape(char) for char in piece), re.DOTALL), len(piece)


class Excluded(dict[str, bool]):
    """Whether a path is left out, by path; short ones are remembered."""

    def __init__(self, patterns: Sequence[str]) -> None:
        super().__init__()
        self._patterns = tuple(map(Pattern, patterns))

    def __missing__(self, path: str) -> bool:
        found = any(pattern.matches(path) for pattern in self._patterns)
        if len(path) <= REMEMBERED_SIZE:
            if len(self) >= REMEMBERED_COUNT:
                self.clear()
            self[path] = found
        return found
