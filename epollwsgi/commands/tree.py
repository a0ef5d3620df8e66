"""The files of a site as the sub-commands look at them: a bounded walk that opens everything beneath the root.

A link is never walked into: what it leads to inside the root is met under its own name, so that a loop of links ends
by itself. Knows names and states, not what they are good for. Called by `commands.check` and `commands.compress`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from epollwsgi.static.beneath import Root, open_following
from epollwsgi.static.mounts import choose_opener
from epollwsgi.static.paths import count_visible

MAX_ENTRIES: Final = 2_000_000
TOO_MANY: Final = "there are too many files: the rest was not looked at"


class Entry(NamedTuple):
    """One name in a directory and its own state: that of a link is not the state of what it leads to."""

    name: bytes
    status: os.stat_result


class Folder(NamedTuple):
    """A directory below the root, b"" for the root itself; `error` says why it, or the rest of it, is not known."""

    path: bytes
    entries: list[Entry]
    error: str = ""

    def path_of(self, name: bytes) -> bytes:
        """The path of a name in it, relative to the root."""
        return self.path + b"/" + name if self.path else name


def open_root(directory: str, *, follow_symlinks: bool = False) -> Root:
    """A site, opened as the server does it. Raises ConfigError."""
    return Root(directory, open_following if follow_symlinks else choose_opener(lambda message: None))


def walk(root: Root, *, is_top: bool = True, max_entries: int = MAX_ENTRIES) -> Iterator[Folder]:
    """Each directory that may be served, with all its names in order; hidden ones are listed and not entered.

    is_top: the root is that of the whole site, where `.well-known` is no hidden name.
    max_entries: in all; the walk ends there, and the last directory says so.
    """
    pending = [b""]
    left = max_entries
    while pending:
        path = pending.pop()
        folder = read_folder(root, path, left)
        left -= len(folder.entries)
        yield folder
        if folder.error == TOO_MANY:
            return
        pending += [
            folder.path_of(entry.name)
            for entry in reversed(folder.entries)
            if stat.S_ISDIR(entry.status.st_mode) and not is_hidden(path, entry.name, is_top=is_top)
        ]


def is_hidden(path: bytes, name: bytes, *, is_top: bool) -> bool:
    """True for a name that is never served because of its dot, in a directory that itself is not hidden."""
    return not count_visible((name,), is_top=is_top and not path)


def read_folder(root: Root, path: bytes, max_entries: int) -> Folder:
    """One directory below the root."""
    entries: list[Entry] = []
    error = ""
    try:
        fd = root.open(path or b".")
    except OSError as problem:
        return Folder(path, entries, problem.strerror or "it cannot be opened")
    try:
        with os.scandir(fd) as found:
            for item in found:
                if len(entries) >= max_entries:
                    error = TOO_MANY
                    break
                try:
                    entries.append(Entry(os.fsencode(item.name), item.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue  # gone since
    except OSError as problem:
        error = problem.strerror or "it cannot be read"
    finally:
        os.close(fd)
    entries.sort()
    return Folder(path, entries, error)
