"""What is installed, what the repository promises about itself, and that README.md says the truth."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import epollwsgi
from epollwsgi.cli import build_command
from epollwsgi.commands.table import COMMANDS
from epollwsgi.config.load import load
from epollwsgi.config.values import StaticMount
from tests import readme_parts
from tests.support import clean_environment

ROOT = readme_parts.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel as pip would build it, with the build backend that is installed here."""
    directory = tmp_path_factory.mktemp("wheel")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(directory)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return directory / done.stdout.split()[-1]


def test_wheel_holds_nothing_but_the_package(wheel: Path) -> None:
    version = epollwsgi.__version__
    assert wheel.name == f"epollwsgi-{version}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"epollwsgi", f"epollwsgi-{version}.dist-info"}
    packed = {name for name in names if name.startswith("epollwsgi/")}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "epollwsgi").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there
    assert "epollwsgi/py.typed" in packed


def test_wheel_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"epollwsgi-{epollwsgi.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        assert "epollwsgi = epollwsgi.cli:main" in entry_points
        assert "epollwsgi = epollwsgi.pytest_plugin" in entry_points
        assert any(name.startswith(f"{info}/licenses/") for name in archive.namelist())
    needed = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    assert [line for line in needed if "extra ==" not in line] == ["click>=8.1"]
    assert "Requires-Python: >=3.11" in metadata
    extras = set(re.findall(r"^Provides-Extra: (.*)$", metadata, re.MULTILINE))
    assert extras == {"metrics", "reload", "compress", "top", "proctitle", "http2", "examples", "test"}


def test_version_is_stated_once_and_tops_the_changelog() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert entries[0] == epollwsgi.__version__


def test_package_needs_only_click_and_the_standard_library() -> None:
    wrong = set()
    for path in (ROOT / "epollwsgi").rglob("*.py"):
        # pytest imports the plugin, and nothing else does.
        allowed = {*sys.stdlib_module_names, "epollwsgi", "pytest" if path.name == "pytest_plugin.py" else "click"}
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                wrong |= {alias.name for alias in node.names if alias.name.partition(".")[0] not in allowed}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in allowed:
                wrong.add(str(node.module))
    assert wrong == set()


@pytest.mark.parametrize("module", ["html", "importlib", "http", "static", "process"])
def test_checkout_shadows_no_module(module: str) -> None:
    """With the checkout as current directory and first in sys.path, as `epollwsgi examples.app:app` has it."""
    code = f"""
import importlib.util
spec = importlib.util.find_spec({module!r})
print(spec and (spec.origin or spec.submodule_search_locations))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=20, check=True
    )
    found = done.stdout.strip()
    assert found == "None" or found.startswith(sysconfig.get_path("stdlib")), found
    assert not list(ROOT.glob("html/__init__.py")) + list(ROOT.glob("examples/__init__.py"))


def test_settings_of_the_checkout_serve_the_pages_at_the_root() -> None:
    before = os.getcwd()
    os.chdir(ROOT)
    try:
        loaded = load({}, {})
    finally:
        os.chdir(before)
    assert loaded.settings.static == (StaticMount("/", "html"),)
    assert re.fullmatch(r"pyproject\.toml:\d+", loaded.source("static"))


def test_console_script_is_installed_where_the_package_is() -> None:
    try:
        scripts = importlib.metadata.distribution("epollwsgi").entry_points
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("epollwsgi is not installed here: pip install -e .")
    assert sorted((script.group, script.name, script.value) for script in scripts) == [
        ("console_scripts", "epollwsgi", "epollwsgi.cli:main"),
        ("pytest11", "epollwsgi", "epollwsgi.pytest_plugin"),
    ]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    done = subprocess.run([script, "--show"], cwd="/", capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == readme_parts.command("test") + "\n"
    text = script.read_text("utf-8")
    assert "EPOLLWSGI_TEST_ALL=1" in text
    assert 'bash -c "$command"' in text


def test_commands_of_the_readme_name_what_exists() -> None:
    test, run = readme_parts.command("test"), readme_parts.command("run")
    extras = PROJECT["project"]["optional-dependencies"]
    assert re.findall(r"\.\[(\w+)\]", f"{run} {test}") == ["examples", "test"]
    assert {"examples", "test"} <= set(extras)
    assert test.endswith("-m tests")
    assert run.endswith("epollwsgi examples.app:app")
    assert "apt install python3-venv" in (ROOT / "README.md").read_text("utf-8").partition("<!-- command:run")[0]


@pytest.mark.parametrize("name", readme_parts.PARTS)
def test_readme_says_what_the_code_says(name: str) -> None:
    page = readme_parts.PAGE.read_text("utf-8")
    part = page.partition(f"<!-- {name}:begin -->\n")[2].partition(f"<!-- {name}:end -->\n")[0]
    assert part == readme_parts.PARTS[name]() + "\n", "rewrite it with: python -m tests.readme_parts"


def test_options_of_the_readme_exist() -> None:
    page = readme_parts.PAGE.read_text("utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    commands = [line.partition("  #")[0] for line in blocks.splitlines() if line.startswith("epollwsgi ")]
    commands = [command for command in commands if command.split()[1] not in COMMANDS]
    assert len(commands) > 5
    inline = re.findall(r"(?<!`)`(--?[a-z][a-z_-]*)", page)
    flags = {word for command in commands for word in command.split() if word.startswith("-") and word != "-"}
    known = {flag for param in build_command().params for flag in param.opts}
    known |= {f"--{name}" for name in ("force", "jobs")}  # of the sub-commands
    assert (flags | set(inline)) - known == set()


def test_settings_file_of_the_readme_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = readme_parts.PAGE.read_text("utf-8")
    [text] = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "epollwsgi.toml").write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert load({}, {}).settings.static == (StaticMount("/assets", "./public"),)


def test_top_level_of_the_repository() -> None:
    """Nothing that another package might install is at the top level, and nothing is left over."""
    expected = {"epollwsgi", "examples", "html", "tests", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    found = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    assert {name for name in found if not name.startswith(".")} == expected
