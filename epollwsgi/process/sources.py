"""Which files the code of this process comes from, and whether they are still what was loaded.

Files are what was imported, what the operator names, and, while the application cannot be loaded, whatever may mend it.
A file has changed when its signature has: content, replacement by another file, appearance and disappearance all show
there. It knows no engine: `reloader` asks when something may have happened, or now and then.
"""

from __future__ import annotations

import errno
import glob
import importlib.machinery
import os
import re
import stat
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, takewhile
from typing import Any, Final

Signature = tuple[int, int, int]  # mtime in ns, size, inode

# The server's own modules: a reload keeps the master, which has them loaded.
PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
A_DIRECTORY: Final[Signature] = (0, 0, 0)  # that it exists is all that matters: __pycache__ changes its times
FILES_COUNT: Final = 10_000  # of one directory or pattern
DIRECTORIES_COUNT: Final = 2_000
RECENT_S: Final = 2.0
MAGIC: Final = re.compile(r"[*?\[]")
# Not the author's: below a directory that is watched as a whole these are passed by.
PASSED_BY: Final = re.compile(r"\..*|__pycache__|node_modules")
# What editors write beside a file while they save it, and what the interpreter writes.
PASSING: Final = re.compile(r"\..*|4913|.*(?:~|\.py[co]|\.sw[a-z]|___jb_(?:tmp|old)___)")
TRACEBACK_FILE: Final = re.compile(r'^[ |]*File "(.+)", line \d+', re.MULTILINE)


def signature(path: str) -> Signature | None:
    """What a file is now; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if stat.S_ISDIR(found.st_mode):
        return A_DIRECTORY
    return found.st_mtime_ns, found.st_size, found.st_ino


def is_out_of_reach(path: str) -> bool:
    """True where nobody lets this process see whether it has changed."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except (OSError, ValueError):
        pass
    return False


def loaded_signature(path: str) -> Signature | None:
    """What a file was when it was loaded, or when that began, or else is."""
    return LOADED.get(path, BEFORE.get(path, signature(path)))


# --- what has been imported -----------------------------------------------------------------------------------------

# path -> signature before the import system read it, or, of other files that may mend an import, when it began.
# Written by the thread that imports, read by the one that watches; both by single operations.
LOADED: dict[str, Signature | None] = {}
BEFORE: dict[str, Signature | None] = {}
PLACES: set[str] = set()  # directories that BEFORE has the files of


def note_loading() -> None:
    """Called before the application is loaded: whatever is saved while that goes on will be seen as a change.

    From now on every source file is looked at just before the import system reads it. Bytecode knows the time of its
    source in whole seconds: of a file that is saved twice within one, with the same size, it would be the first.
    """
    for directory in starting_places():
        PLACES.add(directory)
        for path in expand_place(directory).files:
            BEFORE.setdefault(path, signature(path))
    loader = importlib.machinery.SourceFileLoader
    read_stats = loader.path_stats
    if read_stats.__module__ == __name__:
        return

    def path_stats(self: importlib.machinery.SourceFileLoader, path: str) -> Mapping[str, Any]:
        found = os.path.abspath(path)
        LOADED[found] = signature(found)
        stats = read_stats(self, path)
        if abs(time.time() - stats["mtime"]) < RECENT_S:
            raise OSError(errno.EAGAIN, "saved just now", path)  # bytecode is neither used nor written
        return stats

    loader.path_stats = path_stats  # type: ignore[method-assign]


def module_files() -> Iterator[str]:
    """`__file__` of each imported module. Nothing of it is called: a lazy module would be imported by that."""
    for module in list(sys.modules.values()):
        try:
            file = object.__getattribute__(module, "__dict__").get("__file__")
        except AttributeError:
            continue
        if isinstance(file, str):
            yield file


def note_loaded() -> None:
    """In the master, which has the application: whatever of it is saved from now on is a change to its next workers."""
    for file in module_files():
        path = source_of(file)
        if not is_own(path):
            LOADED[path] = signature(path)


def note_files(paths: Iterable[str]) -> None:
    """In the master, before it reads these files, or after: a change from now on is one to its next workers."""
    for path in paths:
        LOADED[path] = signature(path)


def source_of(file: str) -> str:
    """The file that a module's author would change: the source of bytecode, the archive that holds the module."""
    path = os.path.abspath(file)
    if path.endswith((".pyc", ".pyo")) and os.path.isfile(path[:-1]):
        return path[:-1]
    archive = path
    while not os.path.lexists(archive) and len(archive) > 1:
        archive = os.path.dirname(archive)
    return archive if archive != path and os.path.isfile(archive) else path


def is_own(path: str) -> bool:
    """True for a file of this package."""
    return path.startswith(f"{PACKAGE}/")


# --- what is named: files, directories, patterns --------------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """directories: those in which a new file counts."""

    files: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)


Place = Callable[[], Found]


def is_python(name: str) -> bool:
    """True for a module's source."""
    return name.endswith(".py") and not PASSING.fullmatch(name)


def is_kept(name: str) -> bool:
    """True for a file that somebody means to keep."""
    return not PASSING.fullmatch(name)


def expand_tree(directory: str, is_wanted: Callable[[str], bool]) -> Found:
    """All that lies below a directory, but for hidden directories, virtual environments and the like."""
    found = Found()
    for here, subdirectories, names in os.walk(directory):
        subdirectories[:] = sorted(name for name in subdirectories if not PASSED_BY.fullmatch(name))
        if "pyvenv.cfg" in names and here != directory:
            subdirectories.clear()
            continue
        found.directories.append(here)
        found.files += [os.path.join(here, name) for name in sorted(names) if is_wanted(name)]
        if len(found.files) >= FILES_COUNT or len(found.directories) >= DIRECTORIES_COUNT:
            break
    del found.files[FILES_COUNT:]
    return found


def expand_directory(directory: str, is_wanted: Callable[[str], bool]) -> Found:
    """What lies in a directory itself."""
    try:
        names = os.listdir(directory)
    except OSError:
        return Found()
    wanted = islice((name for name in sorted(names) if is_wanted(name)), FILES_COUNT)
    return Found([os.path.join(directory, name) for name in wanted], [directory])


def may_be_module(name: str) -> bool:
    """True for an entry of a directory of sys.path that an import may find."""
    return not PASSED_BY.fullmatch(name) and (is_python(name) or "." not in name or name.endswith((".so", ".pth")))


def expand_extra(text: str, start: str) -> Found:
    """A file (which need not exist yet), a directory with all below it, or a pattern with *, ?, [...] and **."""
    path = os.path.abspath(os.path.join(start, text))
    if os.path.isdir(path):
        return expand_tree(path, is_kept)
    if os.path.lexists(path) or not MAGIC.search(text):
        return Found([path])
    matches = islice(glob.iglob(text, root_dir=start, recursive=True), FILES_COUNT)
    paths = (os.path.abspath(os.path.join(start, match)) for match in matches)
    files = [path for path in paths if is_kept(os.path.basename(path).lstrip(".")) and os.path.isfile(path)]
    components = text.split("/")
    fixed = list(takewhile(lambda component: not MAGIC.search(component), components))
    base = os.path.abspath(os.path.join(start, "/".join(fixed) or ("/" if text.startswith("/") else ".")))
    directories = [base] if len(fixed) == len(components) - 1 else expand_tree(base, is_kept).directories
    return Found(files, directories)


def expand_place(directory: str) -> Found:
    """What may mend an import: the author's modules at any depth, what is installed at the top."""
    return expand_directory(directory, may_be_module) if is_library(directory) else expand_tree(directory, is_python)


def is_library(directory: str) -> bool:
    """True for a place of installed packages, or of the standard library."""
    if {"site-packages", "dist-packages"}.intersection(directory.split("/")):
        return True
    paths = sysconfig.get_paths()
    return any(f"{directory}/".startswith(f"{paths[name]}/") for name in ("stdlib", "platstdlib"))


def starting_places() -> list[str]:
    """The current directory and those of sys.path, which is where a module that is missing may come from."""
    found = dict.fromkeys(map(os.path.abspath, ["", *sys.path]))
    return [path for path in found if os.path.isdir(path)]


def mending_places(failure: str) -> list[Place]:
    """Where a change may mend what has failed.  failure: its message, traceback included."""
    files = [*filter(os.path.isabs, TRACEBACK_FILE.findall(failure)), *LOADED]
    places: list[Place] = [partial(expand_place, directory) for directory in starting_places()]
    places.append(partial(Found, files))
    places += [partial(expand_directory, name, is_python) for name in dict.fromkeys(map(os.path.dirname, files))]
    return places


def describe_failure(failed: BaseException | str | None) -> str:
    """The text of a failure, with its traceback; '' for none."""
    if isinstance(failed, BaseException):
        return "".join(traceback.format_exception(failed))
    return failed or ""


# --- all of it ------------------------------------------------------------------------------------------------------


class Sources:
    """The files that are watched, each with its signature when it was loaded. One thread uses it at a time."""

    def __init__(self, extra_files: Iterable[str] = (), failed: BaseException | str | None = None) -> None:
        """extra_files: see `expand_extra`.  failed: why the application could not be loaded."""
        self.files: dict[str, Signature | None] = {}
        self.directories: set[str] = set()  # those that an engine has to follow
        self._open: set[str] = set()  # in these a new file counts
        self._targets: set[str] = set()  # of symbolic links
        self._seen: set[str] = set()  # names of modules' files, as the modules have them
        # Told by another thread, and not yet taken in: places, and their files as they were then.
        self._told: tuple[list[Place], dict[str, Signature | None]] | None = None
        start = os.getcwd()
        self._places: list[Place] = [partial(expand_extra, text, start) for text in extra_files]
        if failure := describe_failure(failed):
            self._places += mending_places(failure)
        self.refresh()
        if failure:  # what came or went while it was loaded counts too
            for path in chain(BEFORE, *(expand_place(directory).files for directory in PLACES)):
                self._add(path, LOADED.get(path, BEFORE.get(path)))
        for path in self._expand():
            self._add(path, loaded_signature(path))

    def fail(self, failure: str) -> None:
        """What was loaded does not do after all: whatever may mend that is watched, too. Called by another thread."""
        places = mending_places(failure)
        self._told = places, {path: loaded_signature(path) for place in places for path in place().files}

    def refresh(self) -> None:
        """Take in what has been imported since, and what may mend a failure."""
        if self._told is not None:
            (places, files), self._told = self._told, None
            self._places += places
            for path, before in files.items():
                self._add(path, before)
        for path in list(LOADED):
            if not is_own(path):
                self._add(path, LOADED[path])
        for file in module_files():
            if file not in self._seen:
                self._seen.add(file)
                path = source_of(file)
                if not is_own(path):
                    self._add(path, signature(path))

    def changes(self) -> dict[str, Signature | None]:
        """Whatever is not what it was, with what it is now."""
        for path in self._expand():
            if path not in self.files:
                self._add(path, None)
        return {path: now for path, before in self.files.items() if (now := signature(path)) != before}

    def concerns(self, directory: str, name: str) -> bool:
        """True if something that happened to an entry of a directory may be a change."""
        path = os.path.join(directory, name)
        return path in self.files or path in self._targets or (directory in self._open and is_kept(name))

    def _expand(self) -> Iterator[str]:
        """The files of all places, as they are now; the directories in which a new one counts are learned."""
        for place in self._places:
            found = place()
            self._open.update(found.directories)
            self.directories.update(found.directories)
            yield from found.files

    def _add(self, path: str, loaded: Signature | None) -> None:
        if path in self.files:
            return
        self.files[path] = None if is_out_of_reach(path) else loaded  # the master may have seen it, with other rights
        self.directories.add(os.path.dirname(path))
        if os.path.islink(path):
            target = os.path.realpath(path)
            self._targets.add(target)
            self.directories.add(os.path.dirname(target))


def watch_set(extra_files: Iterable[str] = ()) -> set[str]:
    """The files that are watched while the application runs."""
    return set(Sources(extra_files).files)
