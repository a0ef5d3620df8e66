"""From the path of a request to what it leads to: a file, a redirection, a directory to be listed, or nothing.

    raw path --split--> segments --mount--> forced rule? --> exact file, name.html, directory --> rule? --> page of 404

Knows no method and no field of a request: what is found holds for all, and is remembered by `static.handler` until the
next tick. Belongs to the thread that leads the loop.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes

from epollwsgi.static.cache import StaticFile
from epollwsgi.static.heads import PLAIN, Dressing
from epollwsgi.static.mounts import Mount
from epollwsgi.static.paths import TargetPath, count_visible, is_configuration, quote_path, split_path
from epollwsgi.static.rules import INNER, PATH_SAFE, Match
from epollwsgi.static.shelf import MEMO_COUNT, MEMO_NAME_SIZE, Place, Shelf

INDEX: Final = b"index.html"
PAGE_SUFFIX: Final = b".html"
NOT_FOUND_PAGE: Final = b"404.html"
MAX_PAGE_DEPTH: Final = 32  # how deep a path is searched for its nearest 404.html: a request must stay cheap


class Found(NamedTuple):
    """What a path leads to, by its status: 200 a file or a listing, 3xx `location`, 404 perhaps a page, 400 no path."""

    status: int
    file: StaticFile | None = None
    place: Place | None = None  # of the file, or of the directory to be listed
    dressing: Dressing = PLAIN
    location: str = ""  # without the query of the request
    is_rule: bool = False  # `_redirects` says so, also beside an application
    fallback: Found | None = None  # what a browser that navigates gets in the place of 404
    title: str = ""  # of a listing: its path
    is_exact: bool = False  # the file has the very name that was asked for


REFUSED: Final = Found(400)
MISSING: Final = Found(404)
# A directory by an address without its slash.
HAS_INDEX: Final = Found(301)
HAS_NO_INDEX: Final = Found(301)


class FoundMemory(dict[str, Found]):
    """What raw paths led to, until the next tick: bounded in number, and in files that it keeps open.

    `certain` holds longer, until a root or its rules change: paths that lead to a small file of their very name, before
    which nothing else is looked for.
    """

    __slots__ = ("_max_open", "_open_count", "certain")

    def __init__(self, max_open: int) -> None:
        super().__init__()
        self._max_open = max_open
        self._open_count = 0
        self.certain: dict[str, Found] = {}

    def keep(self, path: str, found: Found) -> None:
        """Remember, where there is room."""
        if len(path) > MEMO_NAME_SIZE or len(self) >= MEMO_COUNT:
            return
        is_open = found.file is not None and found.file.file is not None
        if not is_open or self._open_count < self._max_open:
            self[path] = found
            self._open_count += is_open
        if found.is_exact and not is_open and found.file is not None and found.file.is_settled:
            if len(self.certain) >= MEMO_COUNT:
                self.certain.clear()
            self.certain[path] = found

    def drop(self, path: str) -> None:
        """Forget one path."""
        self.certain.pop(path, None)
        found = self.pop(path, None)
        if found is not None and found.file is not None and found.file.file is not None:
            self._open_count -= 1

    def forget(self) -> None:
        """Forget all."""
        self.clear()
        self._open_count = 0


class Options(NamedTuple):
    """What the operator has chosen. alone: there is no application to which a miss could go."""

    alone: bool
    listing: bool = False
    pretty: bool = False
    spa: bool = False


class Lookup:
    """See the module."""

    def __init__(self, mounts: Sequence[Mount], shelf: Shelf, options: Options) -> None:
        """mounts: the longest prefix first."""
        self._mounts = mounts
        self._shelf = shelf
        self._options = options
        self.steps: list[str] | None = None  # for `epollwsgi explain`: each decision in a sentence

    def note(self, text: str, *values: object) -> None:
        """One decision, for `epollwsgi explain`."""
        if self.steps is not None:
            self.steps.append(text.format(*(show(value) for value in values)))

    def find(self, path: str) -> Found:
        """What a raw path leads to. Raises Busy."""
        target = split_path(path)
        if target is None:
            self.note("The target is no path: a broken percent-encoding, NUL, an encoded slash, or .. above the root.")
            return REFUSED
        mount = self._select_mount(target.segments)
        if mount is None:
            self.note("No prefix of the site fits.")
            return MISSING
        segments = target.segments[len(mount.prefix) :]
        inner = b"/" + b"/".join(segments) + (b"/" if target.is_directory and segments else b"")
        self.note("It is {} in {}.", inner, mount.root.directory)
        found = self._find_forced(mount, inner)
        if found is None:
            found = self._find_file(mount, segments, target.is_directory)
            if found.file is not None:
                found = self._make_pretty(mount, target, segments, found)
            elif found is HAS_INDEX or (found is HAS_NO_INDEX and self._options.alone):
                found = self._find_rule(mount, inner) if found is HAS_NO_INDEX else None
                found = found or self._add_slash(target)
            else:
                found = self._find_rule(mount, inner) or self._find_other(mount, target, segments, inner)
        dressing = mount.dressing_of(inner)
        return found if dressing is PLAIN else found._replace(dressing=dressing)

    def _select_mount(self, segments: tuple[bytes, ...]) -> Mount | None:
        """The mount with the longest prefix."""
        for mount in self._mounts:
            if segments[: len(mount.prefix)] == mount.prefix:
                return mount
        return None

    # --- files ------------------------------------------------------------------------------------------------------

    def _find_file(self, mount: Mount, segments: tuple[bytes, ...], is_directory: bool) -> Found:
        """The exact file, else name.html, else a directory, or MISSING. STATIC.md section 8."""
        if count_visible(segments, is_top=not mount.prefix) < len(segments):
            self.note("A name that begins with a dot is not served.")
            return MISSING
        name = b"/".join(segments)
        if segments and not is_directory:
            if is_configuration(segments[-1]):
                self.note("A file of that name is for the server, and not served.")
                return MISSING
            exact = self._find_exact(mount, name)
            if isinstance(exact, Found):
                return exact
            page = self._find_name(mount, name + PAGE_SUFFIX)
            if page is not None:
                return page
            if not exact:
                return MISSING
        index = self._find_name(mount, name + b"/" + INDEX if name else INDEX)
        if is_directory:
            return index or MISSING
        return HAS_NO_INDEX if index is None else HAS_INDEX

    def _find_exact(self, mount: Mount, name: bytes) -> Found | bool:
        """The file of this very name; True for a directory."""
        exact = self._shelf.find(mount.directory, name)
        if isinstance(exact, StaticFile):
            self.note("There is the file {}.", name)
            return Found(200, exact, Place(mount.directory, name), is_exact=not mount.redirects.has_forced)
        if not exact and mount.old:
            for directory in mount.old_directories(name):
                file = self._shelf.find(directory, name)
                if isinstance(file, StaticFile):
                    self.note("There is the file {} in a release before this one.", name)
                    return Found(200, file, Place(directory, name))
        self.note("{} is a directory." if exact else "There is no file {} within the root.", name)
        return exact

    def _find_name(self, mount: Mount, name: bytes) -> Found | None:
        """The file of this name."""
        file = self._shelf.find(mount.directory, name)
        if not isinstance(file, StaticFile):
            self.note("There is no file {}.", name)
            return None
        self.note("There is the file {}.", name)
        return Found(200, file, Place(mount.directory, name))

    def _add_slash(self, target: TargetPath) -> Found:
        """Without it the relative links of an index would not work."""
        self.note("It is a directory: its own address ends in a slash.")
        return Found(301, location=quote_path(target.segments, True))

    def _make_pretty(self, mount: Mount, target: TargetPath, segments: tuple[bytes, ...], found: Found) -> Found:
        """With `pretty` a page has one address: /about for /about.html, /d/ for /d/index.html."""
        last = segments[-1] if segments else b""
        if not self._options.pretty or not last.endswith(PAGE_SUFFIX):
            return found
        before = target.segments[:-1]
        if last == INDEX:
            location = quote_path(before, True)
        else:
            stem = last.removesuffix(PAGE_SUFFIX)
            if not stem or isinstance(self._shelf.find(mount.directory, b"/".join((*segments[:-1], stem))), StaticFile):
                return found
            location = quote_path((*before, stem), False)
        self.note("The address of a page is without .html (pretty).")
        return Found(301, location=location)

    # --- rules ------------------------------------------------------------------------------------------------------

    def _find_forced(self, mount: Mount, inner: bytes) -> Found | None:
        """What a rule with ! says; it comes before any file."""
        if not mount.redirects.has_forced:
            return None
        match = mount.redirects.find(inner)
        return self._apply(mount, match) if match is not None and match.rule.is_forced else None

    def _find_rule(self, mount: Mount, inner: bytes) -> Found | None:
        """What a rule says where there is no file."""
        match = mount.redirects.find(inner)
        return self._apply(mount, match) if match is not None else None

    def _apply(self, mount: Mount, match: Match) -> Found:
        """The answer that a rule wants."""
        rule, location = match
        self.note("Line {} of _redirects: {} to {}.", rule.line, rule.status, location)
        if rule.status not in INNER:
            if location[:1] == "/":
                prefix = b"".join(b"/" + segment for segment in mount.prefix)
                location = quote_from_bytes(prefix, PATH_SAFE) + location
            return Found(rule.status, location=location, is_rule=True)
        target = split_path(location.partition("#")[0].partition("?")[0])
        if target is None:
            return Found(404, is_rule=True)
        found = self._find_file(mount, target.segments, target.is_directory)
        if found.file is None:
            self.note("There is no such file.")
            return Found(404, is_rule=True)
        return Found(rule.status, found.file, found.place, is_rule=True)

    def find_certain(self, found: Found) -> bool:
        """Whether what was found before, `is_exact`, is there still. Raises Busy."""
        return found.place is not None and self._shelf.find(*found.place) is found.file

    # --- what is not a file -----------------------------------------------------------------------------------------

    def _find_other(self, mount: Mount, target: TargetPath, segments: tuple[bytes, ...], inner: bytes) -> Found:
        """A directory to be listed, a page of the application in the browser (spa), the page for what is missing."""
        if not self._options.alone:
            return MISSING
        found = MISSING
        visible = count_visible(segments, is_top=not mount.prefix)
        if visible == len(segments):
            if self._options.listing and target.is_directory and self._is_directory(mount, segments):
                self.note("It is a directory without index: it is listed (listing).")
                place = Place(mount.directory, b"/".join(segments) or b".")
                return Found(200, None, place, title=quote_path(target.segments, True))
            if self._options.spa and not (segments and b"." in segments[-1]):
                start = self._find_name(mount, INDEX)
                if start is not None:
                    dressing = mount.dressing_of(inner).by_accept()
                    found = found._replace(fallback=start._replace(dressing=dressing))
        page = self._find_not_found_page(mount, segments[:visible])
        return found if page is None else found._replace(file=page.file, place=page.place)

    def _is_directory(self, mount: Mount, segments: tuple[bytes, ...]) -> bool:
        return not segments or self._shelf.find(mount.directory, b"/".join(segments)) is True

    def _find_not_found_page(self, mount: Mount, segments: tuple[bytes, ...]) -> Found | None:
        """The 404.html of the nearest ancestor within the mount; segments: those that are not hidden."""
        for depth in range(min(len(segments), MAX_PAGE_DEPTH), -1, -1):
            page = self._find_name(mount, b"/".join((*segments[:depth], NOT_FOUND_PAGE)))
            if page is not None:
                return page
        return None


def show(value: object) -> str:
    """A value in a sentence."""
    text = os.fsdecode(value) if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
