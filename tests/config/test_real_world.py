"""Deployments written for gunicorn, started with the one word changed: they serve, and mean what they say."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from epollwsgi.cli import parse_command
from epollwsgi.command_line import load_settings
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.show import describe_settings
from tests.config.real_world import DEPLOYMENTS, REFUSED, Deployment, application
from tests.support import ServerFactory, clean_environment, exchange, parse_responses, wait_until

USER = pwd.getpwuid(os.geteuid()).pw_name
SPELLED = re.compile(r"\b(ROOT|ANY|USER)\b")


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory with a short name: the path of a unix socket has room for 107 bytes only."""
    directory = Path(tempfile.mkdtemp(prefix="rw"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fill(text: str, root: Path) -> str:
    """The words that stand for what only the test knows."""
    return SPELLED.sub(lambda word: {"ROOT": str(root), "ANY": "0", "USER": USER}[word[0]], text)


def fill_all(value: object, root: Path) -> object:
    if isinstance(value, str):
        return fill(value, root)
    return [fill_all(item, root) for item in value] if isinstance(value, list) else value


def lay_out(deployment: Deployment, root: Path) -> tuple[list[str], dict[str, str]]:
    """Write the files of a deployment; its command line and environment."""
    for path, text in deployment.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(fill(text, root))
    return shlex.split(fill(deployment.line, root)), {
        name: fill(value, root) for name, value in deployment.environ.items()
    }


def read_settings(
    words: list[str], root: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, object]:
    """The settings as --print-config shows them. What files import is forgotten, the process is as it was."""
    modules = set(sys.modules)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.chdir(root)
        for name in set(os.environ) - set(clean_environment(environ)):
            patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        try:
            found = parse_command(words)
            assert found is not None
            return tomllib.loads(describe_settings(load_settings(found[1])))
        finally:
            for name in set(sys.modules) - modules:
                del sys.modules[name]


def holds(path: Path, part: str) -> bool:
    """True once a file has been made, with that in it."""
    return path.exists() and part in path.read_text()


def run(root: Path, words: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "epollwsgi", *words],
        cwd=root,
        env=clean_environment(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=[one.name for one in DEPLOYMENTS])
def test_deployment_is_taken_over_by_changing_one_word(
    start_server: ServerFactory, root: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, environ = lay_out(deployment, root)
    shown = read_settings(words, root, environ, monkeypatch)
    for name, value in deployment.settings.items():
        assert shown[name] == fill_all(value, root), name

    server = start_server("", *words, cwd=root, env=environ, bind=())
    log = wait_until(
        lambda: not server.is_running() or ("; stop with" in (text := server.stderr_text()) and text), what="the banner"
    )
    assert server.is_running(), server.stderr_text()
    server.learn_addresses()
    request = b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"
    [response] = parse_responses(exchange(server.address, [request]))
    assert (response.status, response.body) == (200, b"served")

    for name, part in deployment.writes.items():
        wait_until(partial(holds, root / name, part), what=f"{part} in {name}")
    for note in deployment.notes:
        assert f"note      {note}" in log
    assert log.count("  note ") == len(deployment.notes), log
    if deployment.ignored:
        log = server.wait_for_log("without meaning here")
    [warning] = [line for line in log.splitlines() if "without meaning here" in line] or [""]
    assert {name for name in GUNICORN_ONLY if f" {name} (" in warning} == set(deployment.ignored)
    assert server.stop() == 0
    assert "Traceback" not in server.stderr_text()


@pytest.mark.parametrize(
    ("line", "file", "code", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_deployment_that_cannot_be_taken_over_is_refused_with_the_reason(
    root: Path, line: str, file: str, code: int, message: str
) -> None:
    for path, text in (application("app.py", "app") | ({"conf.py": file} if file else {})).items():
        (root / path).write_text(text)
    before = sorted(root.rglob("*"))
    done = run(root, shlex.split(fill(line, root)), {})
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("epollwsgi: ")
    assert message in done.stderr
    assert sorted(root.rglob("*")) == before, "something is left behind"
