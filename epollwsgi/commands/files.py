"""What `epollwsgi check` finds wrong with the files of a site, each looked at as the serving code would.

Knows the kinds of names and files and which of them are mistakes; not what the rules of a site say, but for the types
that they give. Called by `commands.check`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from epollwsgi.codings import coding_of
from epollwsgi.commands.show import Finding, show_path
from epollwsgi.commands.siblings import describe_sibling
from epollwsgi.commands.tree import Entry, Folder, is_hidden, walk
from epollwsgi.importer import SOURCE_MARKS
from epollwsgi.static.beneath import Root
from epollwsgi.static.media_types import UNKNOWN, media_type
from epollwsgi.static.paths import is_configuration

RULES: Final = (b"_headers", b"_redirects")

# errno of opening -> what it is, and what to do.
LINKS: Final = {
    errno.EXDEV: (
        "a link that is absolute or leaves the site and is not followed",
        "make it a relative one that stays inside, or copy what it leads to",
    ),
    errno.ENOENT: ("a link that leads nowhere", "remove or correct it"),
    errno.ELOOP: ("a link that leads round in a circle", "remove or correct it"),
    errno.ENOTDIR: ("a link that leads nowhere", "remove or correct it"),
    errno.EACCES: ("a link to what cannot be read", "give the user of the server the right to read it"),
}
KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class FileCheck:
    """Goes through the files below one directory; `file_count` is how many it has seen so far."""

    def __init__(self, directory: str, root: Root, *, is_top: bool, has_type: Callable[[bytes], bool]) -> None:
        """directory: as the operator wrote it.  is_top: it is served at `/`.

        has_type: whether a rule gives the file of this path below the root a media type.
        """
        self._directory = show_path(os.fsencode(directory))
        self._root = root
        self._is_top = is_top
        self._has_type = has_type
        self.file_count = 0

    def findings(self) -> Iterator[Finding]:
        """All that is wrong, directory by directory."""
        for folder in walk(self._root, is_top=self._is_top):
            if folder.error:
                yield self._finding(folder.path, f"not looked at ({folder.error})", "see to it that it can be read")
            yield from self._find_twins(folder)
            names = {entry.name for entry in folder.entries}
            for entry in folder.entries:
                self.file_count += not stat.S_ISDIR(entry.status.st_mode)
                yield from self._examine(folder, entry, names)

    def _finding(self, path: bytes, what: str, advice: str) -> Finding:
        return Finding(os.path.join(self._directory, show_path(path)).rstrip("/"), what, advice)

    def _find_twins(self, folder: Folder) -> Iterator[Finding]:
        """Names that are one and the same on Windows and macOS, where the site may come from or go to."""
        seen: dict[str, bytes] = {}
        for entry in folder.entries:
            folded = os.fsdecode(entry.name).casefold()
            if folded in seen:
                yield self._finding(
                    folder.path_of(entry.name),
                    f"differs from {show_path(seen[folded])} by case only",
                    "rename one of them: elsewhere they are the same file",
                )
            seen.setdefault(folded, entry.name)

    def _examine(self, folder: Folder, entry: Entry, names: set[bytes]) -> Iterator[Finding]:
        """What is wrong with one name."""
        path = folder.path_of(entry.name)
        mode = entry.status.st_mode
        if is_hidden(folder.path, entry.name, is_top=self._is_top):
            yield self._describe_hidden(folder, entry)
        elif stat.S_ISLNK(mode):
            yield from self._examine_link(path, entry.name)
        elif stat.S_ISREG(mode):
            yield from self._examine_file(folder, entry, names)
        elif not stat.S_ISDIR(mode):
            kind = KINDS.get(stat.S_IFMT(mode), "no regular file")
            yield self._finding(path, f"{kind}, which is never served", "remove it from the site")

    def _describe_hidden(self, folder: Folder, entry: Entry) -> Finding:
        kind = "directory" if stat.S_ISDIR(entry.status.st_mode) else "file"
        what = f"a dot-{kind}, which is never served"
        if not folder.path and os.fsdecode(entry.name) in SOURCE_MARKS:
            what += " and makes the server refuse the site"
        return self._finding(folder.path_of(entry.name), what, "keep it out of the site")

    def _examine_link(self, path: bytes, name: bytes) -> Iterator[Finding]:
        try:
            fd = self._root.open(path)
        except OSError as error:
            otherwise = (f"a link that cannot be followed ({error.strerror})", "remove or correct it")
            yield self._finding(path, *LINKS.get(error.errno or 0, otherwise))
            return
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
        if is_file:
            yield from self._examine_type(path, name)

    def _examine_file(self, folder: Folder, entry: Entry, names: set[bytes]) -> Iterator[Finding]:
        """A regular file under its own name."""
        path = folder.path_of(entry.name)
        if is_configuration(entry.name):
            if folder.path or entry.name not in RULES:
                what = "a file of settings, which is never served"
                if entry.name in RULES:
                    what += " and has no effect below the root"
                yield self._finding(path, what, "keep it out of the site")
            return
        try:
            os.close(self._root.open(path))
        except OSError as error:
            advice = "give the user of the server the right to read it"
            yield self._finding(path, f"cannot be opened ({error.strerror})", advice)
            return
        coding = coding_of(entry.name)
        if coding is not None and (source := entry.name.removesuffix(coding.suffix)) in names:
            fault = describe_sibling(self._root, folder.path_of(source), path, coding, decode=True)
            if fault:
                what = f"a compressed copy of {show_path(source)}, not to be used: {fault}"
                yield self._finding(path, what, "write it anew with epollwsgi compress, or remove it")
            return
        yield from self._examine_type(path, entry.name)

    def _examine_type(self, path: bytes, name: bytes) -> Iterator[Finding]:
        if media_type(name) == UNKNOWN and not self._has_type(path):
            what = f"its type is not known and it is sent as {UNKNOWN.decode('ascii')}"
            yield self._finding(path, what, "give it a usual extension, or a Content-Type in _headers")
