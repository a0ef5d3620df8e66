"""The watch of --reload: what is a change, with each engine in a process of its own, and the engines themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.process.engines import ENGINES, Inotify, Watchfiles
from epollwsgi.process.reloader import settle
from epollwsgi.process.sources import Signature
from tests.support import ALL_TOOLS, clean_environment, wait_until

WAIT_S = 30.0


def require_watchfiles() -> None:
    """Skips where the package is not installed; fails there if every tool is required."""
    try:
        import watchfiles  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        if ALL_TOOLS:
            raise
        pytest.skip("watchfiles is not installed: pip install epollwsgi[reload]")


@pytest.fixture(params=["auto", "inotify", "poll"])
def choice(request: pytest.FixtureRequest) -> str:
    """Each row of ENGINES; `auto` means watchfiles here."""
    if request.param == "auto":
        require_watchfiles()
    return str(request.param)


class Watched:
    """A process of `tests.process.watched` in `directory`."""

    def __init__(self, directory: Path, output: Path, *arguments: str) -> None:
        self.directory = directory
        self.output = output
        with open(output / "stdout", "wb") as out, open(output / "stderr", "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.process.watched", *arguments],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=directory,
                env=clean_environment(),
            )

    def lines(self) -> list[str]:
        """Those that are whole: one may just be being written."""
        return (self.output / "stdout").read_text().split("\n")[:-1]

    def log(self) -> str:
        return (self.output / "stderr").read_text()

    def wait_for(self, line: str) -> None:
        """Until it has written this line."""

        def is_there() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the process ended: {self.log()}")
            return line in self.lines()

        wait_until(is_there, WAIT_S, f"{line!r} in {self.lines()}\n{self.log()}")

    def wait_for_change(self, *files: str) -> None:
        """Until it reports one of these files of the directory."""
        expected = {f"changed {self.directory / file}" for file in files}

        def changes() -> list[str]:
            return [line for line in self.lines() if line.startswith("changed")]

        wait_until(changes, WAIT_S, f"a change of {files}: {self.log()}")
        found = changes()
        assert len(found) == 1
        assert found[0] in expected

    def import_module(self, name: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n".encode())
        self.process.stdin.flush()
        self.wait_for(f"imported {name}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


StartWatched = Callable[..., Watched]


@pytest.fixture
def start_watched(tmp_path: Path) -> Iterator[StartWatched]:
    """start_watched(engine, *extra, code=..., expect=...) -> Watched, of `site_app` and a package beside it."""
    started: list[Watched] = []
    directory, output = tmp_path / "code", tmp_path / "output"
    (directory / "parts").mkdir(parents=True)
    output.mkdir()
    (directory / "parts/__init__.py").write_text("")
    (directory / "parts/inner.py").write_text("VALUE = 1\n")
    (directory / "later.py").write_text("VALUE = 1\n")

    def start(
        engine: str, *extra: str, code: str = "import parts.inner\nVALUE = 1\n", expect: str = "watching"
    ) -> Watched:
        (directory / "site_app.py").write_text(code)
        watched = Watched(directory, output, engine, "site_app", *extra)
        started.append(watched)
        watched.wait_for(expect)
        return watched

    try:
        yield start
    finally:
        for watched in started:
            watched.close()


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
def test_a_change_of_an_imported_module_is_reported_once(
    start_watched: StartWatched, choice: str, change: Callable[[Path], str]
) -> None:
    watched = start_watched(choice)
    name = change(watched.directory)
    watched.wait_for_change(name, "parts/inner.py")


def test_a_module_that_is_imported_later_is_watched(start_watched: StartWatched, choice: str) -> None:
    watched = start_watched(choice)
    watched.import_module("later")
    (watched.directory / "later.py").write_text("VALUE = 222\n")
    watched.wait_for_change("later.py")


def test_what_is_not_imported_is_no_change(start_watched: StartWatched, choice: str) -> None:
    """The file that is written first would be reported first."""
    watched = start_watched(choice)
    (watched.directory / "later.py").write_text("VALUE = 222\n")
    (watched.directory / "new.py").write_text("VALUE = 222\n")
    (watched.directory / "page.html").write_text("<p>")
    (watched.directory / "site_app.py").chmod(0o600)
    for number in range(20):
        (watched.directory / "app.log").write_text("line\n" * number)
    (watched.directory / "site_app.py").write_text("VALUE = 222\n")
    watched.wait_for_change("site_app.py")


EXTRA = {
    "a file": ("settings.toml", "settings.toml"),
    "a hidden file": (".env", ".env"),
    "a directory": ("templates", "templates/deep/page.html"),
    "a pattern": ("templates/*/*.html", "templates/deep/page.html"),
    "a deep pattern": ("**/*.html", "templates/deep/page.html"),
}


@pytest.mark.parametrize("is_new", [False, True], ids=["changed", "new"])
@pytest.mark.parametrize(("extra", "name"), EXTRA.values(), ids=list(EXTRA))
def test_extra_files(
    start_watched: StartWatched, tmp_path: Path, choice: str, extra: str, name: str, is_new: bool
) -> None:
    path = tmp_path / "code" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not is_new:
        path.write_text("old")
    watched = start_watched(choice, extra)
    path.write_text("new content")
    watched.wait_for_change(name)


def test_an_extra_file_in_a_directory_that_is_made_later(start_watched: StartWatched, choice: str) -> None:
    watched = start_watched(choice, "conf")
    (watched.directory / "conf/more").mkdir(parents=True)
    (watched.directory / "conf/more/a.toml").write_text("")
    watched.wait_for_change("conf/more/a.toml", "conf")


def test_the_target_of_a_link_is_watched(start_watched: StartWatched, tmp_path: Path, choice: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "settings.toml").write_text("")
    (tmp_path / "code/settings.toml").symlink_to(elsewhere / "settings.toml")
    watched = start_watched(choice, "settings.toml")
    (elsewhere / "settings.toml").write_text("a = 1\n")
    watched.wait_for_change("settings.toml")


def test_a_release_link_that_is_flipped_is_a_change(start_watched: StartWatched, tmp_path: Path, choice: str) -> None:
    """Nothing happens in any directory that holds a watched file."""
    for number in (1, 2):
        release = tmp_path / f"releases/{number}/conf"
        release.mkdir(parents=True)
        (release / "a.toml").write_text(f"release = {number}\n")
    current = tmp_path / "current"
    current.symlink_to("releases/1")
    watched = start_watched(choice, str(current / "conf/a.toml"))
    (tmp_path / "next").symlink_to("releases/2")
    (tmp_path / "next").rename(current)
    wait_until(lambda: f"changed {current}/conf/a.toml" in watched.lines(), WAIT_S, watched.log())


# --- while the application cannot be loaded -------------------------------------------------------------------------


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
def test_what_may_mend_a_failure_is_watched(
    start_watched: StartWatched, choice: str, code: str, name: str, mended: str
) -> None:
    watched = start_watched(choice, code=code, expect="watching after a failure")
    path = watched.directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(mended)
    watched.wait_for_change(name)


def test_a_file_that_a_failing_import_has_read_and_that_lies_elsewhere(
    start_watched: StartWatched, tmp_path: Path, choice: str
) -> None:
    (tmp_path / "vendor/lib").mkdir(parents=True)
    broken = tmp_path / "vendor/lib/broken_part.py"
    broken.write_text("import no_such_module_anywhere\n")
    code = f"import sys\nsys.path.append({str(broken.parent)!r})\nimport broken_part\n"
    watched = start_watched(choice, code=code, expect="watching after a failure")
    (broken.parent / "no_such_module_anywhere.py").write_text("")
    wait_until(lambda: f"changed {broken.parent}/no_such_module_anywhere.py" in watched.lines(), WAIT_S, watched.log())


@pytest.mark.parametrize(
    ("last", "expect"),
    [("", "watching"), ("raise RuntimeError\n", "watching after a failure")],
    ids=["loaded", "failed"],
)
def test_what_is_saved_while_it_is_loaded_is_a_change(
    start_watched: StartWatched, choice: str, last: str, expect: str
) -> None:
    """Here the module itself plays the author who saves a file that was read already."""
    code = f"import parts.inner\nfrom pathlib import Path\nPath('parts/inner.py').write_text('VALUE = 22')\n{last}"
    watched = start_watched(choice, code=code, expect=expect)
    watched.wait_for_change("parts/inner.py")


def test_what_is_made_while_a_loading_fails_is_a_change(start_watched: StartWatched, choice: str) -> None:
    code = "from pathlib import Path\ntry: import helpers\nfinally: Path('helpers.py').write_text('')\n"
    watched = start_watched(choice, code=code, expect="watching after a failure")
    watched.wait_for_change("helpers.py")


# --- engines --------------------------------------------------------------------------------------------------------


def test_where_an_engine_cannot_be_had_files_are_polled(start_watched: StartWatched) -> None:
    watched = start_watched("none")
    (watched.directory / "site_app.py").write_text("VALUE = 222\n")
    watched.wait_for_change("site_app.py")
    assert "reload: inotify cannot be used" in watched.log()
    assert "Too many open files" in watched.log()
    assert "poll is used instead" in watched.log()
    assert watched.log().count("WARNING") == 1


@pytest.mark.parametrize(("value", "used"), [("auto", "watchfiles"), ("inotify", "inotify"), ("poll", "poll")])
def test_the_engine_that_is_asked_for_is_used(start_watched: StartWatched, value: str, used: str) -> None:
    if used == "watchfiles":
        require_watchfiles()
    watched = start_watched(value)
    wait_until(lambda: f"files are watched with {used}\n" in watched.log(), WAIT_S, watched.log())
    assert "WARNING" not in watched.log()


def test_each_row_of_engines_ends_with_one_that_always_works() -> None:
    assert [[make.name for make in row] for row in ENGINES.values()] == [
        ["watchfiles", "inotify", "poll"],
        ["inotify", "poll"],
        ["poll"],
    ]


KERNEL_ENGINES: dict[str, Any] = {"inotify": Inotify, "watchfiles": Watchfiles}


@pytest.fixture(params=list(KERNEL_ENGINES))
def engine_class(request: pytest.FixtureRequest) -> Any:
    if request.param == "watchfiles":
        require_watchfiles()
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
