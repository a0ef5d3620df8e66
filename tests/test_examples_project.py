"""The project in examples/project, started in each of its ways, in a copy of its directory; and its own tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.example_requests import ask_socket
from tests.project import PROJECT, copy_project, run, run_pytest, start_command
from tests.support import Server, ServerFactory, wait_until

SERVER = [sys.executable, "-m", "epollwsgi"]
FLASK = [sys.executable, "-m", "flask"]
ANY_PORT = "--bind=127.0.0.1:0"

Start = Callable[..., Server]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project."""
    return copy_project(tmp_path)


@pytest.fixture
def start(start_server: ServerFactory, project: Path, tmp_path: Path) -> Start:
    """start(command, **variables) -> Server: the process of that command, in the copy; ended with the test."""
    return lambda command, **variables: start_command(start_server, command, project, tmp_path, **variables)


def words_of_procfile() -> list[str]:
    """The command of Procfile, as a shell would split it."""
    name, _, command = (PROJECT / "Procfile").read_text("utf-8").strip().partition(": ")
    assert name == "web"
    return shlex.split(command)


def words_of_dockerfile() -> list[str]:
    """The command of Dockerfile."""
    found = re.findall(r"^CMD (\[.*\])$", (PROJECT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert len(found) == 1
    words: list[str] = json.loads(found[0])
    return words


def as_module(words: Sequence[str]) -> list[str]:
    """A command that begins with `epollwsgi`, which need not be installed here."""
    assert words[0] == "epollwsgi"
    return [*SERVER, *words[1:]]


PRODUCTION = {
    "run.py": [sys.executable, "run.py", "--production", ANY_PORT, "-w", "1"],
    "flask": [*FLASK, "--app", "shop", "serve", ANY_PORT, "-w", "1"],
    "epollwsgi": [*SERVER, ANY_PORT, "-w", "1", "shop:create_app()"],
}
DEVELOPMENT = {
    "run.py": [sys.executable, "run.py", ANY_PORT],
    "flask": [*FLASK, "--app", "shop", "--debug", "serve", ANY_PORT],
}


@pytest.mark.parametrize("command", PRODUCTION.values(), ids=list(PRODUCTION))
def test_production(start: Start, command: list[str]) -> None:
    """All ways mean the same: the settings of epollwsgi.toml hold, and what is on the command line wins."""
    server = start(command)
    assert "epollwsgi.toml" in server.stderr_text()
    reply = ask_socket(server, "GET", "/items/tea")
    assert json.loads(reply.body) == {"name": "tea", "cents": 250, "at": "http://localhost/items/tea"}
    css = ask_socket(server, "GET", "/static/shop.css")
    assert (css.status, css.body) == (200, (PROJECT / "static" / "shop.css").read_bytes())
    assert ask_socket(server, "GET", "/health").body == b"well\n"
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.stdout_text().splitlines()]
    assert [(line["path"], line["status"]) for line in lines] == [("/items/tea", 200), ("/static/shop.css", 200)]


@pytest.mark.parametrize("words", [words_of_procfile(), words_of_dockerfile()], ids=["Procfile", "Dockerfile"])
def test_commands_of_the_platforms(start: Start, words: list[str]) -> None:
    """PORT as Heroku and its kind set it; a number of workers that fits."""
    server = start(as_module(words), PORT="0", WEB_CONCURRENCY="2")
    assert "http://0.0.0.0:" in server.stderr_text()
    assert ask_socket(server, "GET", "/items/coffee").status == 200
    assert len(server.worker_pids) == 2
    assert server.stop() == 0


@pytest.mark.parametrize("command", DEVELOPMENT.values(), ids=list(DEVELOPMENT))
def test_development(start: Start, project: Path, command: list[str]) -> None:
    """One worker, restarted when the code changes; a short line for each request."""
    server = start(command)
    assert json.loads(ask_socket(server, "GET", "/items/tea").body)["cents"] == 250
    assert len(server.worker_pids) == 1
    wait_until(lambda: "GET /items/tea" in server.stdout_text(), what="a line of the access log")
    assert "HTTP/1.1" not in server.stdout_text()
    source = project / "shop.py"
    text = source.read_text("utf-8")
    assert text.count('"tea": 250') == 1
    source.write_text(text.replace('"tea": 250', '"tea": 275'), "utf-8")
    wait_until(lambda: json.loads(ask_socket(server, "GET", "/items/tea").body)["cents"] == 275, 30, "the new code")
    assert server.stop(signal.SIGINT) == 0


def test_the_process_is_the_server(start: Start) -> None:
    """HUP to the process that was started makes a new generation: nothing of the script is left in between."""
    server = start(PRODUCTION["run.py"])
    [before] = server.worker_pids
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: server.worker_pids and before not in server.worker_pids, 30, "the new generation")
    assert ask_socket(server, "GET", "/health").status == 200
    assert server.stop() == 0


@pytest.mark.parametrize("command", [PRODUCTION["run.py"], PRODUCTION["flask"]], ids=["run.py", "flask"])
def test_exit_code_is_that_of_the_server(project: Path, command: list[str]) -> None:
    done = run([*command, "--threads", "many"], project)
    assert done.returncode == 1, done.stderr
    assert "threads" in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_of_the_project_are_settings(project: Path) -> None:
    """--check-config loads them, and the application."""
    done = run([*as_module(words_of_dockerfile()), "--check-config"], project)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_project_file_names_what_exists() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    modules = project["tool"]["setuptools"]["py-modules"]
    assert all((PROJECT / f"{name}.py").is_file() for name in modules)
    assert "epollwsgi" in project["project"]["dependencies"]


def test_its_tests_pass(project: Path) -> None:
    done = run_pytest(project, "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    count = sum(line.startswith("def test_") for line in (project / "test_shop.py").read_text("utf-8").splitlines())
    assert int(passed[1]) == count > 2
    assert os.listdir(project / "static") == ["shop.css"]


def test_its_tests_can_fail(project: Path) -> None:
    """With a shop that is broken they do, and the report has the server's log."""
    source = project / "shop.py"
    text = source.read_text("utf-8")
    assert "stock[name]" in text
    source.write_text(text.replace("stock[name]", "stock[name.upper()]"), "utf-8")
    done = run_pytest(project, "-q")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "KeyError: 'TEA'" in done.stdout
