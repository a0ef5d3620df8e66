"""The watch of --reload: what is a change, with each engine in a process of its own, and the engines themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.process.engines import ENGINES, Inotify, Watchfiles
from epollwsgi.process.reloader import settle
from epollwsgi.process.sources import Signature
from tests.support import ALL_TOOLS, clean_environment, wait_until

WAIT_S = 30.0


def has_watchfiles() -> bool:
    """Fails where the package is not installed if every tool is required."""
    try:
        import watchfiles  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        if ALL_TOOLS:
            raise
        return False
    return True


class Watched:
    """A process of `tests.process.watched` that watches `site_app`, and a package beside it, with one engine."""

    def __init__(self, engine: str, root: Path) -> None:
        self.engine = engine
        self.root = root
        self.directory = root / "code"
        self.process: subprocess.Popen[bytes] | None = None
        (self.directory / "parts").mkdir(parents=True)
        (self.directory / "parts/__init__.py").write_text("")
        (self.directory / "parts/inner.py").write_text("VALUE = 1\n")
        (self.directory / "later.py").write_text("VALUE = 1\n")

    def start(self, *extra: str, code: str = "import parts.inner\nVALUE = 1\n") -> None:
        (self.directory / "site_app.py").write_text(code)
        with open(self.root / "stdout", "wb") as out, open(self.root / "stderr", "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.process.watched", self.engine, "site_app", *extra],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=self.directory,
                env=clean_environment(),
            )

    def lines(self) -> list[str]:
        """Those that are whole: one may just be being written."""
        return (self.root / "stdout").read_text().split("\n")[:-1]

    def log(self) -> str:
        return (self.root / "stderr").read_text()

    def wait_for(self, line: str) -> None:
        """Until it has written this line."""

        def is_there() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                pytest.fail(f"the process ended: {self.log()}")
            return line in self.lines()

        wait_until(is_there, WAIT_S, f"{line!r} with {self.engine}")

    def wait_for_change(self, *files: str) -> None:
        """Until it reports one of these files: their names begin at the directory."""
        expected = {f"changed {self.directory / file}" for file in files}

        def changes() -> list[str]:
            return [line for line in self.lines() if line.startswith("changed")]

        wait_until(changes, WAIT_S, f"a change of {files} with {self.engine}")
        found = changes()
        assert len(found) == 1, self.engine
        assert found[0] in expected, self.engine

    def import_module(self, name: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n".encode())
        self.process.stdin.flush()
        self.wait_for(f"imported {name}")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdin is not None
            self.process.stdin.close()


class Several(list[Watched]):
    """Some of them, each with an engine and files of its own: what takes time they do at the same time."""

    def start(self, *extra: str, code: str = "import parts.inner\nVALUE = 1\n", expect: str = "watching") -> Several:
        for one in self:
            one.start(*extra, code=code)
        for one in self:
            one.wait_for(expect)
        return self

    def wait_for_change(self, *files: str) -> None:
        for one in self:
            one.wait_for_change(*files)


Make = Callable[..., Several]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """make(engine, ...) -> Several, which are not yet started."""
    made: list[Watched] = []

    def make_some(*engines: str) -> Several:
        some = Several(Watched(engine, tmp_path / engine) for engine in engines)
        made.extend(some)
        return some

    try:
        yield make_some
    finally:
        for watched in made:
            watched.close()


@pytest.fixture
def each(make: Make) -> Several:
    """With each row of ENGINES; `auto` means watchfiles here, and is left out where that is not installed."""
    return make(*(["auto"] if has_watchfiles() else []), "inotify", "poll")


# --- what is a change, with each engine -----------------------------------------------------------------------------


def rewrite(directory: Path) -> str:
    (directory / "site_app.py").write_text("VALUE = 2222\n")
    return "site_app.py"


def append(directory: Path) -> str:
    with open(directory / "parts/inner.py", "a") as file:
        file.write("VALUE = 3\n")
    return "parts/inner.py"


def save_by_rename(directory: Path) -> str:
    """As vim and others do: the file becomes a backup, the draft takes its name; the size stays, the time is old."""
    path = directory / "parts/inner.py"
    draft = directory / "parts/inner.py.new"
    draft.write_text("VALUE = 2\n")
    os.utime(draft, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    path.rename(directory / "parts/inner.py~")
    draft.rename(path)
    return "parts/inner.py"


def delete(directory: Path) -> str:
    (directory / "parts/inner.py").unlink()
    return "parts/inner.py"


def touch(directory: Path) -> str:
    os.utime(directory / "site_app.py", ns=(1, 1))
    return "site_app.py"


def replace_directory(directory: Path) -> str:
    """A checkout that writes the package anew."""
    (directory / "fresh").mkdir()
    for name in ("__init__.py", "inner.py"):
        (directory / "fresh" / name).write_text("VALUE = 12345\n")
    (directory / "parts").rename(directory / "stale")
    (directory / "fresh").rename(directory / "parts")
    return "parts/__init__.py"


CHANGES = (rewrite, append, save_by_rename, delete, touch, replace_directory)


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_a_change_of_an_imported_module_is_reported_once(each: Several, change: Callable[[Path], str]) -> None:
    each.start()
    names = [change(one.directory) for one in each]
    each.wait_for_change(names[0], "parts/inner.py")


def test_a_module_that_is_imported_later_is_watched(each: Several) -> None:
    for one in each.start():
        one.import_module("later")
        (one.directory / "later.py").write_text("VALUE = 222\n")
    each.wait_for_change("later.py")


def test_what_is_not_imported_is_no_change(each: Several) -> None:
    """The file that is written first would be reported first."""
    for one in each.start():
        (one.directory / "later.py").write_text("VALUE = 222\n")
        (one.directory / "new.py").write_text("VALUE = 222\n")
        (one.directory / "page.html").write_text("<p>")
        (one.directory / "site_app.py").chmod(0o600)
        for number in range(20):
            (one.directory / "app.log").write_text("line\n" * number)
        (one.directory / "site_app.py").write_text("VALUE = 222\n")
    each.wait_for_change("site_app.py")


EXTRA = {
    "a file": ("settings.toml", "settings.toml"),
    "a hidden file": (".env", ".env"),
    "a directory": ("templates", "templates/deep/page.html"),
    "a pattern": ("templates/*/*.html", "templates/deep/page.html"),
    "a deep pattern": ("**/*.html", "templates/deep/page.html"),
}


@pytest.mark.parametrize("is_new", [False, True], ids=["changed", "new"])
@pytest.mark.parametrize(("extra", "name"), EXTRA.values(), ids=list(EXTRA))
def test_extra_files(each: Several, extra: str, name: str, is_new: bool) -> None:
    for one in each:
        path = one.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not is_new:
            path.write_text("old")
    for one in each.start(extra):
        (one.directory / name).write_text("new content")
    each.wait_for_change(name)


def test_an_extra_file_in_a_directory_that_is_made_later(each: Several) -> None:
    for one in each.start("conf"):
        (one.directory / "conf/more").mkdir(parents=True)
        (one.directory / "conf/more/a.toml").write_text("")
    each.wait_for_change("conf/more/a.toml", "conf")


def test_the_target_of_a_link_is_watched(each: Several) -> None:
    for one in each:
        (one.root / "elsewhere").mkdir()
        (one.root / "elsewhere/settings.toml").write_text("")
        (one.directory / "settings.toml").symlink_to(one.root / "elsewhere/settings.toml")
    for one in each.start("settings.toml"):
        (one.root / "elsewhere/settings.toml").write_text("a = 1\n")
    each.wait_for_change("settings.toml")


def test_a_release_link_that_is_flipped_is_a_change(each: Several) -> None:
    """Nothing happens in any directory that holds a watched file."""
    for one in each:
        for number in (1, 2):
            release = one.root / f"releases/{number}/conf"
            release.mkdir(parents=True)
            (release / "a.toml").write_text(f"release = {number}\n")
        (one.root / "current").symlink_to("releases/1")
    for one in each:
        one.start(f"{one.root}/current/conf/a.toml")
    for one in each:
        one.wait_for("watching")
        (one.root / "next").symlink_to("releases/2")
        (one.root / "next").rename(one.root / "current")
    for one in each:
        one.wait_for(f"changed {one.root}/current/conf/a.toml")


# --- while the application cannot be loaded -------------------------------------------------------------------------

FAILED = "watching after a failure"


@pytest.mark.parametrize(
    ("code", "name", "mended"),
    [
        ("def app(:\n", "site_app.py", "app = 1\n"),
        ("import parts.inner\nimport helpers\n", "helpers.py", ""),
        ("from parts import helpers\n", "parts/helpers.py", ""),
        ("import parts.inner\nraise RuntimeError\n", "parts/inner.py", "VALUE = 2222\n"),
        ("open('parts/settings.py.txt').close(); import x\n", "parts/more/deep.py", ""),
        ("import flask_of_another_name\n", "flask_of_another_name/__init__.py", ""),
    ],
    ids=["syntax error", "missing module", "missing submodule", "imported before", "new package", "missing package"],
)
def test_what_may_mend_a_failure_is_watched(each: Several, code: str, name: str, mended: str) -> None:
    for one in each.start(code=code, expect=FAILED):
        path = one.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(mended)
    each.wait_for_change(name)


def test_a_file_that_a_failing_import_has_read_and_that_lies_elsewhere(each: Several) -> None:
    for one in each:
        library = one.root / "vendor/lib"
        library.mkdir(parents=True)
        (library / "broken_part.py").write_text("import no_such_module_anywhere\n")
        one.start(code=f"import sys\nsys.path.append({str(library)!r})\nimport broken_part\n")
    for one in each:
        one.wait_for(FAILED)
        (one.root / "vendor/lib/no_such_module_anywhere.py").write_text("")
    for one in each:
        one.wait_for(f"changed {one.root}/vendor/lib/no_such_module_anywhere.py")


@pytest.mark.parametrize(
    ("last", "expect"), [("", "watching"), ("raise RuntimeError\n", FAILED)], ids=["loaded", "failed"]
)
def test_what_is_saved_while_it_is_loaded_is_a_change(each: Several, last: str, expect: str) -> None:
    """Here the module itself plays the author who saves a file that was read already."""
    code = f"import parts.inner\nfrom pathlib import Path\nPath('parts/inner.py').write_text('VALUE = 22')\n{last}"
    each.start(code=code, expect=expect).wait_for_change("parts/inner.py")


def test_what_is_made_while_a_loading_fails_is_a_change(each: Several) -> None:
    code = "from pathlib import Path\ntry: import helpers\nfinally: Path('helpers.py').write_text('')\n"
    each.start(code=code, expect=FAILED).wait_for_change("helpers.py")


# --- engines --------------------------------------------------------------------------------------------------------


def test_where_an_engine_cannot_be_had_files_are_polled(make: Make) -> None:
    [watched] = make("none").start()
    (watched.directory / "site_app.py").write_text("VALUE = 222\n")
    watched.wait_for_change("site_app.py")
    assert "reload: inotify cannot be used" in watched.log()
    assert "Too many open files" in watched.log()
    assert "poll is used instead" in watched.log()
    assert watched.log().count("WARNING") == 1


def test_the_engine_that_is_asked_for_is_used(each: Several) -> None:
    for one in each.start():
        used = one.engine.replace("auto", "watchfiles")
        wait_until(partial(said, one, f"files are watched with {used}\n"), WAIT_S, f"{used} in the log")
        assert "WARNING" not in one.log()


def said(watched: Watched, words: str) -> bool:
    return words in watched.log()


def test_each_row_of_engines_ends_with_one_that_always_works() -> None:
    assert [[make.name for make in row] for row in ENGINES.values()] == [
        ["watchfiles", "inotify", "poll"],
        ["inotify", "poll"],
        ["poll"],
    ]


KERNEL_ENGINES: dict[str, Any] = {"inotify": Inotify, "watchfiles": Watchfiles}


@pytest.fixture(params=list(KERNEL_ENGINES))
def engine_class(request: pytest.FixtureRequest) -> Any:
    if request.param == "watchfiles" and not has_watchfiles():
        pytest.skip("watchfiles is not installed: pip install epollwsgi[reload]")
    return KERNEL_ENGINES[request.param]


HINTS: dict[str, Callable[[Path], object]] = {
    "write": lambda path: path.write_text("new"),
    "delete": lambda path: path.unlink(),
    "rename": lambda path: path.rename(path.with_name("other")),
    "rename over": lambda path: (path.parent / "draft").rename(path),
    "touch": lambda path: os.utime(path, (1, 1)),
}


@pytest.mark.parametrize("act", HINTS.values(), ids=list(HINTS))
def test_an_engine_gives_a_hint(engine_class: Any, tmp_path: Path, act: Callable[[Path], object]) -> None:
    """Without the look that is taken at all files now and then, which hides an engine that sees nothing."""
    path = tmp_path / "file"
    path.write_text("old")
    (tmp_path / "draft").write_text("draft")
    engine = engine_class(lambda directory, name: (directory, name) == (str(tmp_path), "file"))
    try:
        engine.follow({str(tmp_path), str(tmp_path / "missing")})
        if engine.name == "watchfiles":
            engine.wait()  # it begins here
        act(path)
        wait_until(engine.wait, WAIT_S, "a hint")
    finally:
        engine.close()


def test_an_engine_gives_no_hint_of_what_concerns_nobody(engine_class: Any, tmp_path: Path) -> None:
    asked: list[str] = []

    def concerns(directory: str, name: str) -> bool:
        asked.append(name)
        return False

    engine = engine_class(concerns)
    try:
        engine.follow({str(tmp_path)})
        engine.wait()
        asked.clear()
        (tmp_path / "file").write_text("new")
        assert not engine.wait()
        wait_until(lambda: engine.wait() or "file" in asked, WAIT_S, "the question")
    finally:
        engine.close()


def test_inotify_follows_a_directory_by_all_its_names_and_again_when_it_is_another(tmp_path: Path) -> None:
    place, link = tmp_path / "place", tmp_path / "link"
    place.mkdir()
    link.symlink_to(place)
    told: list[str] = []

    def concerns(directory: str, name: str) -> bool:
        told.append(f"{directory}/{name}")
        return name == "wanted"

    engine = Inotify(concerns)
    try:
        names = {str(place), str(link)}
        engine.follow(names)
        (place / "wanted").write_text("")
        assert engine.wait()
        assert {f"{place}/wanted", f"{link}/wanted"} & set(told)
        place.rename(tmp_path / "away")
        place.mkdir()
        wait_until(lambda: engine.wait() and not engine._followed, WAIT_S, "the end of the watch")
        engine.follow(names)
        told.clear()
        (tmp_path / "away/other").write_text("")
        (place / "wanted").write_text("")
        assert engine.wait()
        assert "other" not in "".join(told)
    finally:
        engine.close()


def test_inotify_fails_where_there_is_no_room_for_another_watch(tmp_path: Path) -> None:
    """In a user namespace of its own, where the limit is ours to set."""
    script = (
        "import sys\nfrom epollwsgi.process.engines import Inotify\nengine = Inotify(lambda *_: True)\n"
        "open('/proc/sys/user/max_inotify_watches', 'w').write('0')\n"
        "try:\n    engine.follow({sys.argv[1]})\nexcept OSError as error:\n    print(error.strerror)\n"
    )
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)
    if "Permission denied" in done.stderr or "not permitted" in done.stderr or "Read-only" in done.stderr:
        pytest.skip("no user namespace, or one whose limits cannot be set")
    assert done.stdout == "No space left on device\n", done.stderr


# --- a change is over when nothing changes any more -----------------------------------------------------------------

ONE: Signature = (1, 1, 1)
TWO: Signature = (2, 2, 2)


@pytest.mark.parametrize(
    ("looks", "expected", "count"),
    [
        ([{"a": ONE}, {"a": ONE}], "a", 2),
        ([{"a": ONE}, {"a": ONE, "b": ONE}, {"a": TWO, "b": ONE}, {"a": TWO, "b": ONE}], "a", 4),
        ([{"a": None}, {"a": ONE}, {"a": ONE}], "a", 3),
        ([{"a": None}, {}, {}], "", 3),  # deleted, and back as it was
        ([{"a": (number, 1, 1)} for number in range(100)], "a", 41),
    ],
)
def test_a_burst_is_one_change(looks: list[dict[str, Signature | None]], expected: str, count: int) -> None:
    pauses: list[float] = []
    left = iter(looks)
    assert settle(lambda: next(left), pauses.append) == expected
    assert len(pauses) == count - 1
    assert all(0.05 <= pause <= 0.1 for pause in pauses)
