"""The plugin of pytest, in a pytest of its own that finds it as an installed one: by an entry point."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import ROOT, clean_environment

APP = """
def app(environ, start_response):
    if environ["PATH_INFO"] == "/boom":
        raise LookupError("lost in the application")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]
"""
ASK = """
import http.client

def ask(server, path="/"):
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.status, response.read()
    finally:
        connection.close()
"""
TRACEBACK = "LookupError: lost in the application"


class Project:
    """A directory with tests, and pytest to run them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "project"
        self.installed = directory / "installed"
        self.directory.mkdir()
        info = self.installed / "epollwsgi_of_tests-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: epollwsgi-of-tests\nVersion: 1\n")
        entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
        lines = [
            f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in them.items()) for group, them in entry_points.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))

    def run(self, text: str, *options: str, finds: bool = False) -> str:
        """What pytest prints of a module of tests that has `app` and `ask`.

        finds: it loads every plugin that is installed, which takes a while, and not this one alone by its name.
        """
        (self.directory / "test_it.py").write_text(APP + ASK + text)
        environment = clean_environment({"PYTHONPATH": f"{self.installed}:{ROOT}"})
        if not finds:
            environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            options = ("-p", "epollwsgi", *options)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *options, "test_it.py"],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_fixture_serves_and_closes(project: Project) -> None:
    text = """
import socket, pytest

PORTS = []

def test_one(epollwsgi_server, tmp_path):
    (tmp_path / "a.txt").write_text("file")
    one, site = epollwsgi_server(app), epollwsgi_server(tmp_path)
    assert ask(one, "/x") == (200, b"/x")
    assert ask(site, "/a.txt") == (200, b"file")
    assert ask(epollwsgi_server(app, threads=1), "/y") == (200, b"/y")
    PORTS.extend((one.port, site.port))

def test_two():
    assert len(PORTS) == 2
    for port in PORTS:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
"""
    output = project.run(text)
    assert "2 passed" in output, output


def test_a_failure_shows_the_log(project: Project) -> None:
    text = """
def test_fails(epollwsgi_server):
    server = epollwsgi_server(app)
    assert ask(server, "/boom")[0] == 500
    assert server.log == "nothing"

def test_passes(epollwsgi_server):
    assert ask(epollwsgi_server(app), "/boom")[0] == 500

def test_says_nothing(epollwsgi_server):
    assert ask(epollwsgi_server(app))[0] == 404
"""
    output = project.run(text, "-rP")  # which shows the sections of tests that passed, too
    assert "2 failed, 1 passed" in output, output
    assert output.count("epollwsgi log of http://127.0.0.1:") == 1
    assert output.count(f"\n{TRACEBACK}\n") == 1


def test_a_server_of_many_tests_shows_what_is_new(project: Project) -> None:
    text = """
import pytest
from epollwsgi.testing import LiveServer

@pytest.fixture(scope="module")
def server():
    with LiveServer(app) as server:
        yield server

def test_first(server):
    assert ask(server, "/boom") == (200, b"first")

def test_second(server):
    assert ask(server) == (200, b"second")

def test_third(server):
    with pytest.raises(KeyError):
        raise KeyError
    ask(server, "/boom")
    ask(server, "/boom")
    raise AssertionError("third")
"""
    output = project.run(text)
    first, second, third = (
        output.partition("_ test_first _")[2].replace("_ test_third _", "_ test_second _").split("_ test_second _")
    )
    assert [part.count(f"\n{TRACEBACK}\n") for part in (first, second, third)] == [1, 0, 2], output


def test_an_error_in_a_fixture_shows_the_log(project: Project) -> None:
    text = """
import pytest

@pytest.fixture
def ready(epollwsgi_server):
    server = epollwsgi_server(app)
    assert ask(server, "/boom")[0] == 200
    return server

def test_it(ready):
    pass
"""
    output = project.run(text)
    assert "1 error" in output, output
    assert TRACEBACK in output


def test_servers_that_are_closed_show_their_log(project: Project) -> None:
    """By the test itself, before it fails; or at its end, when another fixture fails then."""
    text = """
import pytest

def test_closes(epollwsgi_server):
    server = epollwsgi_server(app)
    ask(server, "/boom")
    server.close()
    raise AssertionError

@pytest.fixture
def checked(epollwsgi_server):
    server = epollwsgi_server(app)
    yield server
    assert not server.log, "something was logged"

def test_is_checked(checked):
    ask(checked, "/boom")

def test_fails_by_itself():
    raise AssertionError
"""
    output = project.run(text)
    assert "2 failed, 1 passed, 1 error" in output
    assert output.count("epollwsgi log of http://127.0.0.1:") == 2
    sections = output.split("epollwsgi log of http://127.0.0.1:")[1:]
    assert all(f"\n{TRACEBACK}" in section for section in sections)


def test_the_note_of_a_block_is_shown(project: Project) -> None:
    text = """
from epollwsgi.testing import LiveServer

def test_it():
    with LiveServer(app) as server:
        assert ask(server, "/boom")[0] == 200
"""
    output = project.run(text)
    assert "1 failed" in output, output
    assert "epollwsgi log of http://127.0.0.1:" in output
    assert TRACEBACK in output
    assert "assert 500 == 200" in output


def test_beside_xdist(project: Project) -> None:
    text = """
import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(epollwsgi_server, number):
    server = epollwsgi_server(app)
    assert ask(server, f"/{number}") == (200, f"/{number}".encode())
    if number == 3:
        assert ask(server, "/boom") == (200, b"/boom")
"""
    output = project.run(text, "-p", "xdist", "-n", "2")
    assert "1 failed, 5 passed" in output, output
    assert output.count(f"\n{TRACEBACK}\n") == 1, output


def test_it_can_be_turned_off(project: Project) -> None:
    text = """
def test_it(epollwsgi_server):
    pass
"""
    output = project.run(text, "-p", "no:epollwsgi", finds=True)
    assert "fixture 'epollwsgi_server' not found" in output, output


def test_it_costs_nothing_where_it_is_not_used(project: Project) -> None:
    """Of this package nothing is imported but the plugin; what it imports itself every pytest has already."""
    text = """
import sys

def test_it(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("epollwsgi")
    assert [name for name in sys.modules if name.startswith("epollwsgi")] == ["epollwsgi", "epollwsgi.pytest_plugin"]
"""
    output = project.run(text, finds=True)
    assert "1 passed" in output, output


DJANGO = """
import django, pytest
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:memory?mode=memory&cache=shared"}},
    SECRET_KEY="of the tests", ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, USE_TZ=True,
)
django.setup()

from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpResponse
from django.urls import path

def add(request, word):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO words VALUES (%s)", [word])
    return HttpResponse("added")

urlpatterns = [path("add/<word>", add)]

def test_it(epollwsgi_server):
    try:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE words (word)")
            server = epollwsgi_server(get_wsgi_application())
            for word in ("one", "two"):
                assert ask(server, f"/add/{word}") == (200, b"added")
            cursor.execute("SELECT word FROM words")
            assert cursor.fetchall() == [("one",), ("two",)]
    finally:
        connection.close()
"""


def test_django_with_a_database_in_memory(project: Project) -> None:
    output = project.run(DJANGO)
    assert "1 passed" in output, output
