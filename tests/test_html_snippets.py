"""What the pages of html/ show to be copied: settings files, units, hooks, configurations of proxies, programs.

Each is taken from its page as it stands and given to what it is meant for, with other addresses and paths where those
of the page cannot be had.
"""

from __future__ import annotations

import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from epollwsgi.config.load import load
from epollwsgi.config.settings import OPTIONS
from epollwsgi.process.hooks import HOOKS, argument_count
from tests.example_requests import ask_socket
from tests.pages import Page
from tests.project import copy_project, run, run_pytest, start_command
from tests.support import ServerFactory, require_tool, wait_until

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "html"
HOST = "127.0.0.1"
CLIENT = "127.0.0.2"  # an address of this machine that no setting trusts


def read_page(name: str) -> Page:
    return Page((SITE / name).read_text("utf-8"))


def snippets(page: str, *words: str) -> list[str]:
    """What a page shows that holds each of the words."""
    found = [text for text in read_page(page).texts["pre"] if all(word in text for word in words)]
    assert found, (page, words)
    return found


# --- settings, units, hooks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "name", "word", "count"),
    [
        ("start.html", "pyproject.toml", "[tool.epollwsgi]", 3),
        ("settings.html", "epollwsgi.toml", "wsgi_app", 8),
        ("settings.html", "gunicorn.conf.py", "import", 5),
        ("logs.html", "gunicorn.conf.py", "logconfig_dict", 1),
    ],
)
def test_settings_files_of_the_pages_are_settings_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, name: str, word: str, count: int
) -> None:
    """Found by themselves in the directory of the start, and nothing in them is unknown."""
    [text] = snippets(page, f"# {name}", word)
    (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    loaded = load({}, {})
    assert loaded.files[0].startswith(name)
    given = [setting for setting, source in loaded.sources.items() if source.startswith(f"{name}:")]
    assert len(given) == count


def test_options_of_the_unit_exist_and_its_lines_are_settings() -> None:
    """The service of the page starts the server with options that it has."""
    units = [text for text in read_page("processes.html").texts["pre"] if "[Service]" in text]
    assert units
    known = {flag for option in OPTIONS.values() for flag in option.flags}
    for unit in units:
        assert all(re.fullmatch(r"\[[A-Z][a-z]+\]|[A-Z][A-Za-z]+=\S.*|", line) for line in unit.splitlines())
        command = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
        flags = re.findall(r"(?<!\S)--?[a-z][a-z-]*", command)
        assert flags
        assert set(flags) <= known


def test_hooks_of_the_page_can_be_called() -> None:
    """The settings file of the page is Python, and its functions take what the table says."""
    text = next(text for text in read_page("processes.html").texts["pre"] if "def post_fork" in text)
    names: dict[str, object] = {}
    exec(compile(text, "gunicorn.conf.py", "exec"), names)
    found = {name: value for name, value in names.items() if name in HOOKS}
    assert len(found) >= 2
    for name, function in found.items():
        assert callable(function)
        assert argument_count(name, function) == HOOKS[name].signatures[0].count(",") + 1
        value = OPTIONS[name].parse(function)
        assert value is function


def test_addresses_of_the_page_are_addresses() -> None:
    texts = [text[3:] for text in read_page("start.html").texts["dt"] if text.startswith("-b ")]
    assert len(texts) == 6
    for text in texts:
        assert str(OPTIONS["bind"].parse(text)) == text


# --- proxies ----------------------------------------------------------------------------------------------------------


def options_of(command: str) -> list[str]:
    """The options of a command of the page but for its address; `shop:app` is what it serves."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["epollwsgi", "shop:app"]
    at = words.index("-b")
    return words[2:at] + words[at + 2 :]


@contextmanager
def running(command: list[str], port: int, directory: Path) -> Iterator[None]:
    """A proxy that listens at a port, ended with its block. Raises ConnectionError if it does not come to that."""
    with open(directory / "proxy.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
    try:

        def answers() -> bool:
            if process.poll() is not None:
                raise ConnectionError((directory / "proxy.log").read_text("utf-8", "replace"))
            with socket.socket() as sock:
                return sock.connect_ex((HOST, port)) == 0

        wait_until(answers, 20, "the proxy to listen")
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody listens at, at this moment."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def nginx_configuration(text: str, port: int, directory: Path) -> str:
    """A configuration that nginx can run by itself, without TLS, of what the page shows of one."""
    text, count = re.subn(r"listen 443 ssl;", f"listen {HOST}:{port};", text)
    assert count == 1
    text, count = re.subn(r" *ssl_certificate(_key)? .*\n", "", text)
    assert count == 2
    places = "".join(
        f"    {name}_temp_path {directory}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"user root;\ndaemon off;\npid {directory}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\n    access_log off;\n{places}{text}}}\n"
    )


def shown_environ(port: int, **fields: str) -> dict[str, str]:
    """environ as the example application finds it behind the proxy at that port; the client is no trusted hop."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    with closing(HTTPConnection(HOST, port, timeout=20, source_address=(CLIENT, 0))) as connection:
        connection.request("GET", "/app/environ", headers={"Host": "shop.example", **named})
        response = connection.getresponse()
        text = response.read().decode()
    assert response.status == 200
    cells = Page(text).texts
    return dict(zip(cells["th"][3:], cells["td"][1::2], strict=True))


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_nginx_of_the_page(start_server: ServerFactory, tmp_path: Path, kind: str) -> None:
    """The server learns client and id from nginx, and nothing that the client says of itself."""
    program = require_tool("nginx", "nginx-light")
    [text] = snippets("proxies.html", "proxy_pass http://shop;")
    commands = {"unix:" in command: command for command in snippets("proxies.html", "epollwsgi shop:app -b")}
    is_unix = kind == "unix"
    server = start_server(
        "examples.app:app", *options_of(commands[is_unix]), bind="unix" if is_unix else f"{HOST}:0", cwd=ROOT
    )
    upstream = f"unix:{server.unix_path}" if is_unix else f"{HOST}:{server.port}"
    if is_unix:
        [other] = snippets("proxies.html", "server unix:/run/shop.sock;")
        text = text.replace(text[text.index("upstream") : text.index("server {")], other + "\n")
    text, count = re.subn(r"server (127.0.0.1:8000|unix:/run/shop.sock);", f"server {upstream};", text)
    assert count == 1
    port = free_port()
    (tmp_path / "nginx.conf").write_text(nginx_configuration(text, port, tmp_path), "utf-8")
    with running([program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], port, tmp_path):
        environ = shown_environ(port, X_Forwarded_For="1.2.3.4", X_Forwarded_Proto="https", X_Forwarded_Host="evil")
        assert environ["REMOTE_ADDR"] == CLIENT
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["HTTP_HOST"] == "shop.example"
        assert re.fullmatch("[0-9a-f]{32}", environ["epollwsgi.request_id"])


def test_haproxy_of_the_page(start_server: ServerFactory, tmp_path: Path) -> None:
    program = require_tool("haproxy", "haproxy")
    [text] = snippets("proxies.html", "default_backend shop")
    [command] = [one for one in snippets("proxies.html", "epollwsgi shop:app -b") if "unix" not in one]
    server = start_server("examples.app:app", *options_of(command), cwd=ROOT)
    port = free_port()
    text, count = re.subn(r"bind :443 ssl crt \S+", f"bind {HOST}:{port}", text)
    assert count == 1
    text, count = re.subn(r"127.0.0.1:8000", f"{HOST}:{server.port}", text)
    assert count == 1
    (tmp_path / "haproxy.cfg").write_text(f"{text}\n", "utf-8")
    with running([program, "-db", "-f", str(tmp_path / "haproxy.cfg")], port, tmp_path):
        environ = shown_environ(port, X_Forwarded_Proto="https", X_Request_ID="mine")
        assert environ["REMOTE_ADDR"] == CLIENT
        assert environ["wsgi.url_scheme"] == "http"
        assert len(environ["epollwsgi.request_id"]) == 36


# --- programs ---------------------------------------------------------------------------------------------------------


def test_serve_of_the_page(start_server: ServerFactory, tmp_path: Path) -> None:
    [text] = snippets("python.html", "epollwsgi.serve(app")
    text, count = re.subn("127.0.0.1:8000", f"{HOST}:0", text)
    assert count == 1
    (tmp_path / "program.py").write_text(text, "utf-8")
    (tmp_path / "shop.py").write_text("from examples.plain import application as app\n", "utf-8")
    server = start_command(start_server, [sys.executable, "program.py"], tmp_path, tmp_path)
    assert ask_socket(server, "GET", "/hello").body == b"Hello, world!\n"
    assert len(server.worker_pids) == 2
    assert server.stop() == 0


def test_live_server_of_the_page(tmp_path: Path) -> None:
    [text] = snippets("python.html", "with LiveServer(app)")
    project = copy_project(tmp_path)
    (project / "program.py").write_text(
        f"from shop import create_app\napp = create_app()\n{text}\nprint('done')", "utf-8"
    )
    done = run([sys.executable, "-W", "error", "program.py"], project)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_test_of_the_page(tmp_path: Path) -> None:
    [text] = snippets("python.html", "def test_price(")
    project = copy_project(tmp_path)
    (project / "test_page.py").write_text(text, "utf-8")
    done = run_pytest(project, "-q", "test_page.py")
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_command_of_the_page(start_server: ServerFactory, tmp_path: Path) -> None:
    """The command of Flask's, in a module with nothing else."""
    [text] = snippets("python.html", "@app.cli.command")
    project = copy_project(tmp_path)
    (project / "other.py").write_text(
        f"import os, sys, click\nfrom shop import create_app\napp = create_app()\n{text}\n", "utf-8"
    )
    command = [sys.executable, "-m", "flask", "--app", "other:app", "serve", "-b", f"{HOST}:0", "-w", "1"]
    server = start_command(start_server, command, project, tmp_path)
    assert ask_socket(server, "GET", "/health").body == b"well\n"
    assert server.stop() == 0


def test_logging_of_the_page(start_server: ServerFactory, tmp_path: Path) -> None:
    """Both logs go where the configuration says."""
    [text] = snippets("logs.html", "logconfig_dict")
    text, count = re.subn("/var/log/shop", str(tmp_path), text)
    assert count == 1
    (tmp_path / "gunicorn.conf.py").write_text(text, "utf-8")
    server = start_server("examples.plain", cwd=tmp_path)
    assert ask_socket(server, "GET", "/hello").status == 200
    assert server.stop() == 0
    lines = (tmp_path / "all.log").read_text("utf-8")
    assert "INFO 127.0.0.1 - - [" in lines
    assert '"GET /hello HTTP/1.1" 200' in lines
    assert "INFO stopping" in lines


def test_rotation_of_the_page(tmp_path: Path) -> None:
    """logrotate takes the file, but for what the machine has not: it is asked what it would do."""
    program = require_tool("logrotate", "logrotate")
    [text] = snippets("logs.html", "postrotate")
    configuration = tmp_path / "shop"
    configuration.write_text(text.replace("shop shop", "root root").replace("/var/log/shop", str(tmp_path)), "utf-8")
    (tmp_path / "access.log").write_text("a line\n", "utf-8")
    done = run([program, "--debug", "--state", str(tmp_path / "state"), str(configuration)], tmp_path)
    assert done.returncode == 0
    assert "access.log" in done.stderr
    assert "error:" not in done.stderr
