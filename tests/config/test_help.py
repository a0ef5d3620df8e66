"""--help at any width, and --help-setting: whatever the table knows of a setting, with examples that are true."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.cli import parse_command
from epollwsgi.command_line import load_settings
from epollwsgi.commands.table import COMMANDS
from epollwsgi.config.differences import DIFFERENCES
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.lines import Source
from epollwsgi.config.load import Loaded, convert, load
from epollwsgi.config.settings import DEFAULTS, OPTIONS
from epollwsgi.errors import UsageError
from epollwsgi.setting_help import EXAMPLES, Forms, build_forms, describe_setting, find_name
from tests.support import clean_environment


def run(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, *python, "-m", "epollwsgi", *arguments],
        cwd=cwd,
        env=clean_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# --- --help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_help_fits(tmp_path: Path, width: int) -> None:
    """Options in the left column, and never more of it than of the text; nothing is cut."""
    text = run("--help", cwd=tmp_path, env={"COLUMNS": str(width)}).stdout
    lines = text.splitlines()
    assert max(map(len, lines)) <= min(width, 110)
    begins = [len(line) - len(line.lstrip()) for line in lines if line.startswith(" " * 10)]
    assert len(begins) > 20
    assert set(begins) == {begins[0]}, "one column of texts"
    assert begins[0] <= min(width, 110) / 2
    words = " ".join(text.split())
    for option in OPTIONS.values():
        if option.flags:
            assert " ".join(option.help.split()) in words
            for flag in option.flags:
                assert re.search(rf"^  .*{re.escape(flag)}\b", text, re.MULTILINE)
    for name, (_, what) in COMMANDS.items():
        assert f"epollwsgi {name} {what}" in words
    assert "epollwsgi --help-setting NAME" in words
    assert "Examples:\n  epollwsgi app:app " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_fits(tmp_path: Path, command: str) -> None:
    done = run(command, "--help", cwd=tmp_path, env={"COLUMNS": "80"})
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_has_each_section_once_and_in_order(tmp_path: Path) -> None:
    text = run("--help", cwd=tmp_path, env={"COLUMNS": "80"}).stdout
    headings = re.findall(r"^([A-Z].*):$", text, re.MULTILINE)
    sections = list(dict.fromkeys(option.section for option in OPTIONS.values() if option.flags))
    assert headings == [*sections, "Commands, each with a --help of its own", "Examples"]


def test_help_needs_no_server_code(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path, python=("-X", "importtime"))
    loaded = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "epollwsgi.cli" in loaded
    assert not {name for name in loaded if name.startswith(("epollwsgi.loop", "epollwsgi.http", "epollwsgi.process"))}
    assert not loaded & {"epollwsgi.setting_help", "epollwsgi.completion", "epollwsgi.config.differences"}
    assert not loaded & {"asyncio", "logging", "email", "http.client", "unittest", "ipaddress", "difflib", "tomllib"}


# --- the examples are true ------------------------------------------------------------------------------------------

IN_FILES = [name for name, option in OPTIONS.items() if build_forms(name).toml]


def meant(name: str) -> object:
    """The value that an example stands for."""
    return convert(Source("example"), name, EXAMPLES.get(name, OPTIONS[name].const))


def value_on_a_command_line(form: str) -> Loaded:
    """What an option means, as a shell would give it."""
    found = parse_command(shlex.split(form))
    assert found is not None
    return load_settings(found[1])


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("PORT", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "FORWARDED_ALLOW_IPS", "SCRIPT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("name", OPTIONS)
def test_each_form_of_the_example_is_taken(nowhere: Path, name: str) -> None:
    option, forms = OPTIONS[name], build_forms(name)
    if option.metavar == "FUNCTION":
        namespace: dict[str, Any] = {}
        exec(forms.python, namespace)
        assert callable(convert(Source("example"), name, namespace[name]))
        return
    assert bool(forms.command_line) == bool(option.flags)
    expected = meant(name)
    if name != "worker_class":
        assert expected != getattr(DEFAULTS, name), "an example that shows the default shows nothing"
    if name == "config":
        (nowhere / "conf").mkdir()
        (nowhere / "conf" / "server.toml").touch()
    if forms.command_line:
        assert getattr(value_on_a_command_line(forms.command_line).settings, name) == expected
    if forms.environment:
        variable, _, word = forms.environment.partition("=")
        assert getattr(load({}, {variable: shlex.split(word)[0]}).settings, name) == expected
    for form in filter(None, (forms.toml, forms.toml_table)):
        assert convert(Source("example"), name, tomllib.loads(form)[name]) == expected
    if forms.python:
        namespace = {}
        exec(forms.python, namespace)
        assert convert(Source("example"), name, namespace[name]) == expected


def test_no_example_is_for_nothing() -> None:
    switches = {name for name, option in OPTIONS.items() if not option.metavar}
    hooks = {name for name, option in OPTIONS.items() if option.metavar == "FUNCTION"}
    assert set(EXAMPLES) == set(OPTIONS) - switches - hooks


def test_differences_are_about_settings() -> None:
    assert set(DIFFERENCES) <= set(OPTIONS)
    for text in DIFFERENCES.values():
        assert text.endswith(".")
        assert text[0].isupper() or text[0].isdigit() or text.startswith(("auto", "worker."))


# --- --help-setting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OPTIONS, *GUNICORN_ONLY])
def test_all_that_is_known_is_shown(name: str) -> None:
    text = describe_setting(name, Loaded())
    lines, words = text.splitlines(), " ".join(text.split())
    assert lines[0].startswith(f"{name}: ")
    assert all(len(line) <= 78 for line in lines if " " in line.strip()[:60] and "  " not in line.strip())
    if name in GUNICORN_ONLY:
        assert " ".join(GUNICORN_ONLY[name].reason.split()) in words
        assert all(flag in text for flag in GUNICORN_ONLY[name].flags)
        return
    option, forms = OPTIONS[name], build_forms(name)
    for part in (option.help, option.section, *option.flags, DIFFERENCES.get(name, ""), *forms):
        assert " ".join(part.split()) in words
    assert re.search("^  Default  +.", text, re.MULTILINE)
    assert re.search("^  Allowed  +.", text, re.MULTILINE) or option.parse.__name__ == "text"


def test_words_of_a_setting(tmp_path: Path) -> None:
    (tmp_path / "epollwsgi.toml").write_text("\nkeepalive = 3\n")
    done = run("--help-setting", "keepalive", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:9] == [
        "keepalive: how long an idle connection is kept; 0: closed after each response",
        "",
        "  Section       Time limits",
        "  Option        --keep-alive TIME",
        "  Command line  --keep-alive 5",
        "  TOML          keepalive = 5",
        "  Python        keepalive = 5",
        "  Environment   EPOLLWSGI_KEEPALIVE=5",
        "  Allowed       a duration, such as 75, 2s, 0.5ms, 1m or 1h",
    ]
    assert "\n  Default       75\n  In effect     3  (epollwsgi.toml:2)\n" in done.stdout


def test_value_in_effect_obeys_the_rest_of_the_line(tmp_path: Path) -> None:
    done = run("-w", "3", "--help-setting", "workers", "missing:app", cwd=tmp_path)
    assert done.returncode == 0
    assert "  In effect     3  (command line)\n" in done.stdout


def test_settings_that_cannot_be_read_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "epollwsgi.toml").write_text("keepalive = 'soon'\n")
    done = run("--help-setting", "keepalive", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  In effect     unknown: epollwsgi.toml:1: keepalive = 'soon':" in done.stdout


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("-w", "workers"),
        ("--keep-alive", "keepalive"),
        ("keep-alive", "keepalive"),
        ("KEEPALIVE", "keepalive"),
        ("EPOLLWSGI_KEEPALIVE", "keepalive"),
        ("log-file", "errorlog"),
        ("limit-request-field_size", "limit_request_field_size"),
        ("--no-sendfile", "sendfile"),
        ("--paster", "paste"),
        ("when_ready", "when_ready"),
    ],
)
def test_other_names_of_a_setting(asked: str, name: str) -> None:
    assert find_name(asked) == name


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("keepalife", "did you mean keepalive"),
        ("limit_request", "did you mean limit_request_"),
        ("xyzzy", "--help shows all options"),
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
    ],
    ids=["slip", "part", "nothing", "controls"],
)
def test_unknown_name(tmp_path: Path, asked: str, hint: str) -> None:
    done = run("--help-setting", asked, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("epollwsgi: --help-setting ")
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1
    with pytest.raises(UsageError, match="no such setting"):
        find_name(asked)


def test_messages_cannot_upset_a_terminal(tmp_path: Path) -> None:
    done = run("--nonsense\x1b[2J", "x", cwd=tmp_path)
    assert done.returncode == 2
    assert r"--nonsense\x1b[2J" in done.stderr
    assert "\x1b" not in done.stderr


def test_forms_that_a_setting_cannot_have() -> None:
    assert build_forms("when_ready") == Forms("", "", "", "def when_ready(server): ...", "")
    assert build_forms("wsgi_app").command_line == ""
    assert build_forms("config").toml == ""
