"""Which files --reload watches: what is imported, named, or may mend a failure."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from epollwsgi.process import sources
from epollwsgi.process.sources import Sources, expand_extra, source_of, watch_set
from tests.support import clean_environment


def test_the_modules_of_this_process_are_watched(tmp_path: Path) -> None:
    found = watch_set([str(tmp_path / "extra")])
    assert {__file__, os.__file__, pytest.__file__, str(tmp_path / "extra")} <= found
    assert not any(path.endswith(".pyc") for path in found)
    assert sources.__file__ not in found, "a reload would not load it again"


def test_a_lazy_module_is_not_imported_by_the_watch(tmp_path: Path) -> None:
    script = (
        "import importlib.util, sys\n"
        "spec = importlib.util.find_spec('lazy')\n"
        "spec.loader = importlib.util.LazyLoader(spec.loader)\n"
        "module = sys.modules['lazy'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "from epollwsgi.process.sources import watch_set\n"
        "assert any(path.endswith('/lazy.py') for path in watch_set())\n"
    )
    (tmp_path / "lazy.py").write_text("raise RuntimeError('imported')\n")
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=clean_environment(), timeout=60, check=True)


def test_bytecode_and_archives_stand_for_their_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    (tmp_path / "a.pyc").write_text("")
    (tmp_path / "b.pyc").write_text("")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("package/module.py", "")
    rows = {
        "a.pyc": "a.py",
        "b.pyc": "b.pyc",
        "c.zip/package/module.py": "c.zip",
        "none/x.py": "none/x.py",
        "a.py": "a.py",
    }
    assert {name: source_of(str(tmp_path / name)) for name in rows} == {
        name: str(tmp_path / expected) for name, expected in rows.items()
    }


FILES = (
    "a.html",
    "b.html~",
    ".a.html.swp",
    "x[1].html",
    "deep/c.html",
    "deep/.git/config",
    "deep/__pycache__/m.pyc",
    "deep/er/d.html",
    "env/pyvenv.cfg",
    "env/lib/x.html",
    "node_modules/y.html",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.html", "a.html"),
        ("./deep/../a.html", "a.html"),
        ("missing.html", "missing.html"),
        ("x[1].html", "x[1].html"),
        ("*.html", "a.html x[1].html"),
        ("b.html*", ""),
        ("deep", "deep/c.html deep/er/d.html"),
        ("deep/", "deep/c.html deep/er/d.html"),
        ("deep/*", "deep/c.html"),
        ("deep/**", "deep/c.html deep/er/d.html"),
        ("*/*.html", "deep/c.html node_modules/y.html"),
        (".", "a.html x[1].html deep/c.html deep/er/d.html"),
        ("env", "env/lib/x.html env/pyvenv.cfg"),
    ],
)
def test_what_an_extra_file_means(tmp_path: Path, text: str, expected: str) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for shown in (text, os.path.join(tmp_path, text)):
        found = expand_extra(shown, str(tmp_path)).files
        assert sorted(found) == sorted(str(tmp_path / name) for name in expected.split())


def test_a_huge_directory_is_watched_in_part(tmp_path: Path) -> None:
    for name in range(30):
        for inner in range(100):
            (tmp_path / f"{name}/{inner}").mkdir(parents=True)
    assert len(expand_extra(str(tmp_path), "/").directories) == sources.DIRECTORIES_COUNT


def test_the_files_of_a_traceback_are_watched(tmp_path: Path) -> None:
    broken = tmp_path / "elsewhere/broken.py"
    broken.parent.mkdir()
    text = f'importing broken failed\n  File "{broken}", line 3\n    def (\n        ^\nSyntaxError: invalid syntax'
    found = Sources((), text)
    assert found.files[str(broken)] is None
    assert str(broken.parent) in found.directories
    broken.write_text("")
    assert str(broken) in found.changes()


def test_what_a_worker_may_not_see_has_not_changed(tmp_path: Path) -> None:
    """The master read it as root; to the workers' user it is as good as gone, from the start on."""
    place = tmp_path / "private"
    place.mkdir()
    (place / "settings.toml").write_text("")
    script = (
        "import os, sys\n"
        "from epollwsgi.process.sources import Sources, note_files\n"
        "note_files(sys.argv[1:])\n"
        "os.chmod(os.path.dirname(sys.argv[1]), 0)\n"
        "if os.geteuid() == 0:\n"
        "    os.seteuid(65534)\n"
        "found = Sources()\n"
        "print(sys.argv[1] in found.files, sys.argv[1] in found.changes())\n"
    )
    command = [sys.executable, "-c", script, str(place / "settings.toml")]
    try:
        done = subprocess.run(command, env=clean_environment(), timeout=60, capture_output=True, text=True, check=True)
    finally:
        place.chmod(0o700)
    assert done.stdout == "True False\n"


def test_bytecode_of_a_file_that_was_saved_just_now_is_not_used(tmp_path: Path) -> None:
    """Two saves within a second, with the same size, have the same bytecode for all that the interpreter knows."""
    script = (
        "import importlib, os, sys, time\n"
        "from epollwsgi.process.sources import note_loading\n"
        "note_loading()\n"
        "now = int(time.time() + 1) * 10**9\n"
        "values = []\n"
        "for number in range(3):\n"
        "    open('part.py', 'w').write(f'VALUE = {number}')\n"
        "    os.utime('part.py', ns=(now + number, now + number))\n"
        "    sys.modules.pop('part', None)\n"
        "    importlib.invalidate_caches()\n"
        "    values.append(importlib.import_module('part').VALUE)\n"
        "print(values, os.path.exists('__pycache__'))\n"
        "os.utime('part.py', ns=(10**9, 10**9))\n"
        "sys.modules.pop('part', None)\n"
        "print(importlib.import_module('part').VALUE, os.path.exists('__pycache__'))\n"
    )
    env = clean_environment({"PYTHONDONTWRITEBYTECODE": ""})
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=env, timeout=60, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[0, 1, 2] False", "2 True"]
