"""Completion: the protocol as the shells speak it, and a real bash that has read the script."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from epollwsgi.cli import build_command
from epollwsgi.commands.table import COMMANDS
from epollwsgi.completion import VARIABLE, complete, join_parts
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.settings import OPTIONS
from epollwsgi.config.values import Choice
from tests.support import clean_environment, require_tool


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what can be served, and what looks like it, as the current one."""
    files = {
        "hello.py": "app: object = 1\nother = 2\n    application = 3\n",
        "made.py": "def create_app(x=1):\n    return x\n",
        "both.py": "def app(environ, start_response): ...\napplication = app\n",
        "none.py": "x = app == 1\n",
        "setup.py": "app = 1\n",
        "test_hello.py": "app = 1\n",
        "not-a-name.py": "app = 1\n",
        "shop/__init__.py": "",
        "shop/wsgi.py": "application = 1\n",
        "shop/api/__init__.py": "app = 1\n",
        "notes.txt": "",
        "site/css/x.css": "",
        ".hidden/__init__.py": "app = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ask(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str, str], list[str]]:
    """What the command answers a shell."""

    def ask(shell: str, words: str, current: str) -> list[str]:
        before = shlex.split(words)
        monkeypatch.setenv(VARIABLE, f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", f"{words} {current}".rstrip() if shell != "fish" else words)
        monkeypatch.setenv("COMP_CWORD", current if shell == "fish" else str(len(before)))
        capsys.readouterr()
        assert complete(build_command()) == 0
        return capsys.readouterr().out.splitlines()

    return ask


# words before, the word that is begun, what is answered
ANSWERED: dict[str, tuple[str, str, list[str]]] = {
    "option": ("epollwsgi", "--log-lev", ["plain,--log-level"]),
    "option-after": ("epollwsgi hello:app --backlog 3", "--graceful", ["plain,--graceful-timeout"]),
    "given-once": ("epollwsgi --backlog 3", "--backlo", []),
    "given-again": ("epollwsgi --bind x:1", "--bin", ["plain,--bind"]),
    "ignored-ones-are-hidden": ("epollwsgi", "--spe", []),
    "command": ("epollwsgi", "comp", ["plain,compress"]),
    "command-later": ("epollwsgi --backlog 3", "comp", []),
    "command-option": ("epollwsgi compress", "--fo", ["plain,--force"]),
    "command-has-not": ("epollwsgi compress", "--bind", []),
    "command-server-option": ("epollwsgi check", "--follow", ["plain,--follow-symlinks"]),
    "command-directory": ("epollwsgi compress", "si", ["dir,si"]),
    "command-method": ("epollwsgi explain", "p", ["plain,POST", "plain,PUT", "plain,PATCH"]),
    "command-target": ("epollwsgi explain GET /", "hel", ["plain,hello:app"]),
    "words": ("epollwsgi --header-map", "", ["plain,drop", "plain,refuse", "plain,dangerous"]),
    "words-short": ("epollwsgi -k", "g", ["plain,gthread"]),
    "list": ("epollwsgi --forwarded-fields", "proto,h", ["plain,proto,host"]),
    "auto": ("epollwsgi -w", "a", ["plain,auto"]),
    "number": ("epollwsgi --threads", "", []),
    "file": ("epollwsgi -c", "no", ["file,no"]),
    "log-file": ("epollwsgi --error-logfile", "x", ["file,x"]),
    "directory": ("epollwsgi --chdir", "", ["dir,"]),
    "directories": ("epollwsgi --pythonpath", "s", ["dir,s"]),
    "mount": ("epollwsgi --static", "/a=", ["plain,/a=shop/", "plain,/a=site/"]),
    "mount-below": ("epollwsgi --static", "/a=./site/", ["plain,/a=./site/css/"]),
    "mount-prefix": ("epollwsgi --static", "/a", []),
    "user": ("epollwsgi -u", "roo", ["plain,root"]),
    "group": ("epollwsgi --group", "roo", ["plain,root"]),
    "setting": ("epollwsgi --help-setting", "keep", ["plain,keepalive"]),
    "setting-of-gunicorn": ("epollwsgi --help-setting", "spe", ["plain,spew"]),
    "target": ("epollwsgi", "hel", ["plain,hello:app"]),
    "target-attribute": ("epollwsgi", "both:a", ["plain,both:app", "plain,both:application"]),
    "target-factory": ("epollwsgi", "ma", ["plain,made"]),
    "target-package": ("epollwsgi", "sho", ["plain,shop.wsgi:application"]),
    "target-in-package": ("epollwsgi", "shop.", ["plain,shop.api:app", "plain,shop.wsgi:application"]),
    "target-directory": ("epollwsgi", "./si", ["dir,./si"]),
    "target-that-is-none": ("epollwsgi", "none", []),
    "target-nowhere": ("epollwsgi", "no.such.place:", []),
    "after-the-target": ("epollwsgi hello:app", "", []),
    "after-version": ("epollwsgi --version", "hel", ["plain,hello:app"]),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_answers(ask: Callable[[str, str, str], list[str]], name: str) -> None:
    """As zsh has it, which takes no word apart; without the words that explain."""
    words, current, expected = ANSWERED[name]
    lines = ask("zsh", words, current)
    plain = [value.replace("\\:", ":") for value in lines[1::3]]
    assert [f"{kind},{value}" for kind, value in zip(lines[::3], plain, strict=True)] == expected
    assert [line.partition("\t")[0] for line in ask("fish", words, current)] == expected


def test_first_word_alone_offers_everything(ask: Callable[[str, str, str], list[str]]) -> None:
    assert ask("bash", "epollwsgi", "") == [
        *(f"plain,{name}" for name in COMMANDS),
        *("plain,both:app", "plain,both:application", "plain,hello:app", "plain,made", "plain,shop.wsgi:application"),
        *("plain,./shop/", "plain,./site/"),
    ]


def test_value_behind_its_equals_sign(ask: Callable[[str, str, str], list[str]]) -> None:
    """The word is replaced whole, but for bash, which takes it apart."""
    for shell in ("zsh", "fish"):
        assert "--header-map=refuse" in ask(shell, "epollwsgi", "--header-map=re")[shell == "zsh"]
    assert ask("bash", "epollwsgi --header-map =", "re") == ["plain,refuse"]


# the words that bash makes, and what it will put in place of the last
APART: dict[str, tuple[str, str, list[str]]] = {
    "colon": ("epollwsgi hello", ":", ["plain,app"]),
    "attribute": ("epollwsgi both :", "appl", ["plain,application"]),
    "behind-an-address": ("epollwsgi -b : 8000", "hel", ["plain,hello:app"]),
    "behind-an-application": ("epollwsgi hello : app", "--log-lev", ["plain,--log-level"]),
    "mount": ("epollwsgi --static /a =", "si", ["plain,site/"]),
    "mount-of-equals": ("epollwsgi --static = /a =", "si", ["plain,site/"]),
    "equals": ("epollwsgi --header-map", "=", ["plain,drop", "plain,refuse", "plain,dangerous"]),
}


@pytest.mark.parametrize("name", APART)
def test_words_that_bash_takes_apart(ask: Callable[[str, str, str], list[str]], name: str) -> None:
    words, current, expected = APART[name]
    assert ask("bash", words, current) == expected


@pytest.mark.parametrize(
    ("parts", "words", "last"),
    [
        ("e a : b", ["e", "a:b"], "b"),
        ("e a :", ["e", "a:"], ""),
        ("e -b : 80", ["e", "-b", ":80"], "80"),
        ("e --bind =: 80", ["e", "--bind", ":80"], "80"),
        ("e --bind = x : 80", ["e", "--bind", "x:80"], "80"),
        ("e unix :/ x", ["e", "unix", ":/", "x"], "x"),
        ("e x", ["e", "x"], "x"),
    ],
    ids=range(7),
)
def test_words_are_joined_again(parts: str, words: list[str], last: str) -> None:
    before, current, found = join_parts(parts.split())
    assert ([*before, current], found) == (words, last)


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if isinstance(option.parse, Choice)])
def test_every_choice_is_offered(ask: Callable[[str, str, str], list[str]], name: str) -> None:
    option = OPTIONS[name]
    assert isinstance(option.parse, Choice)
    flag = option.flags[-1]
    assert ask("bash", f"epollwsgi {flag}", "") == [f"plain,{word}" for word in option.parse.allowed]


def test_choices_are_those_with_words() -> None:
    names = {name for name, option in OPTIONS.items() if isinstance(option.parse, Choice)}
    assert names >= {"loglevel", "worker_class", "dispatch", "header_map", "reload_engine", "forwarded_fields"}


def test_every_option_is_offered_with_its_help(ask: Callable[[str, str, str], list[str]]) -> None:
    lines = ask("fish", "epollwsgi", "--")
    offered = dict(line.removeprefix("plain,").split("\t") for line in lines)
    for name, option in OPTIONS.items():
        for flag in option.flags:
            if flag.startswith("--"):
                assert offered[flag].startswith(option.help), name
    assert not set(offered) & {flag for foreign in GUNICORN_ONLY.values() for flag in foreign.flags}


def test_names_of_any_bytes(with_command: dict[str, str], project: Path) -> None:
    os.mkdir(os.fsencode(project) + b"/caf\xe9")
    words = with_command | {VARIABLE: "bash_complete", "COMP_WORDS": "epollwsgi --static /a = caf", "COMP_CWORD": "4"}
    done = subprocess.run(["epollwsgi"], env=words, cwd=project, capture_output=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == (b"plain,caf\xe9/\n", b"")


def test_module_is_not_run(ask: Callable[[str, str, str], list[str]], project: Path) -> None:
    (project / "danger.py").write_text("open('ran', 'w')\napp = 1\n")
    assert ask("bash", "epollwsgi", "dan") == ["plain,danger:app"]
    assert not (project / "ran").exists()


# --- the command and bash -------------------------------------------------------------------------------------------


@pytest.fixture
def with_command(project: Path) -> dict[str, str]:
    """An environment in which `epollwsgi` is found."""
    (project / ".bin").mkdir()
    script = project / ".bin" / "epollwsgi"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m epollwsgi "$@"\n')
    script.chmod(0o755)
    env = clean_environment({"TERM": "dumb", "PS1": "> ", "HISTFILE": "", "INPUTRC": "/dev/null"})
    return env | {"PATH": f"{script.parent}:{env['PATH']}"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_printed(with_command: dict[str, str], project: Path, shell: str) -> None:
    done = subprocess.run(
        ["epollwsgi"],
        env=with_command | {VARIABLE: f"{shell}_source"},
        cwd=project,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{VARIABLE}={shell}_complete" in done.stdout


@pytest.mark.parametrize("word", ["tcsh_source", "bash_nonsense", "bash_complete", "", "bash"])
def test_unknown_instruction(with_command: dict[str, str], project: Path, word: str) -> None:
    done = subprocess.run(
        ["epollwsgi", "--nonsense"],
        env=with_command | {VARIABLE: word},
        cwd=project,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


class Terminal:
    """An interactive bash on a terminal of its own."""

    def __init__(self, env: dict[str, str], directory: Path) -> None:
        bash = require_tool("bash", "bash")
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(directory)
                os.execve(bash, [bash, "--norc", "--noprofile", "-i"], env)
            finally:
                os._exit(127)

    def type(self, keys: str, until: str, timeout_s: float = 30.0) -> str:
        """What the terminal shows after some keys, up to a text."""
        os.write(self.fd, keys.encode())
        shown, end_at = "", time.monotonic() + timeout_s
        while until not in shown and time.monotonic() < end_at:
            if select.select([self.fd], [], [], 0.1)[0]:
                shown += os.read(self.fd, 65536).decode("utf-8", "replace")
        assert until in shown
        return shown

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(with_command: dict[str, str], project: Path) -> Iterator[Terminal]:
    """A bash that has read the script as the documentation says."""
    terminal = Terminal(with_command, project)
    try:
        terminal.type(
            f'bind "set bell-style none"; eval "$({VARIABLE}=bash_source epollwsgi)"; echo rea""dy\n', "ready"
        )
        yield terminal
    finally:
        terminal.close()


TYPED = {
    "option": ("--log-lev", "--log-level "),
    "value": ("--log-level crit", "--log-level critical "),
    "value-behind-equals": ("--log-level=crit", "--log-level=critical "),
    "application": ("hel", "hello:app "),
    "attribute": ("shop.wsgi:", "shop.wsgi:application "),
    "mount": ("--static /a=si", "--static /a=site/ "),
    "directory": ("./si", "./site/"),
    "chdir": ("--chdir sit", "--chdir site/"),
    "file": ("-c note", "-c notes.txt "),
    "command": ("comp", "compress "),
    "command-option": ("compress --fo", "compress --force "),
}


@pytest.mark.parametrize("name", TYPED)
def test_tab_in_bash(terminal: Terminal, name: str) -> None:
    typed, expected = TYPED[name]
    terminal.type(f"epollwsgi {typed}\t", f"epollwsgi {expected}")
