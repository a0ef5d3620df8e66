"""`epollwsgi explain`: the head that a live server sends, and the steps that lead to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.connections import exchange
from tests.static.table_fixture import build_tree
from tests.static.tools import call_tool, run_tool
from tests.support import Server, ServerFactory


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tree(tmp_path_factory.mktemp("explain") / "site")


OPTIONS = ("--listing", "--allow-source")


@pytest.fixture(scope="module")
def site_server(start_module_server: ServerFactory, tree: Path) -> Server:
    return start_module_server(str(tree), *OPTIONS)


Explain = Callable[..., tuple[list[str], str]]


@pytest.fixture
def explain(tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Explain:
    """explain(*arguments): the steps, and the head of the response with the date left out."""

    def call(*arguments: str, options: tuple[str, ...] = OPTIONS) -> tuple[list[str], str]:
        words = ("explain", *options, *arguments, "./site")
        code, out, err = call_tool(monkeypatch, capsys, *words, cwd=tree.parent)
        assert (code, err) == (0, "")
        steps, _, head = out.partition("\n\n")
        lines = steps.splitlines()
        assert lines
        for number, line in enumerate(lines, 1):
            assert re.fullmatch(rf" *{number}\. \S.*", line), line
        return lines, without_date(head.replace("\n", "\r\n") + "\r\n")

    return call


def without_date(head: str) -> str:
    """The head, in which the date of a weak moment must not matter."""
    return re.sub(r"(?m)^Date: .*\r\n", "Date: now\r\n", head.rstrip("\r\n") + "\r\n")


# Method, target, field lines.
REQUESTS: list[tuple[str, str, tuple[str, ...]]] = [
    ("GET", "/a.txt", ()),
    ("HEAD", "/a.txt", ()),
    ("GET", "/a.txt?x=1", ("Connection: close",)),
    ("GET", "/p.js", ("Accept-Encoding: br",)),
    ("GET", "/p.js", ("Accept-Encoding: gzip;q=0.5, zstd",)),
    ("GET", "/stale.css", ("Accept-Encoding: gzip",)),
    ("GET", "/a.txt", ("Range: bytes=0-9",)),
    ("GET", "/a.txt", ("Range: bytes=5000-",)),
    ("GET", "/a.txt", ("If-None-Match: *",)),
    ("GET", "/a.txt", ('If-Match: "x"',)),
    ("GET", "/d", ()),
    ("GET", "/d/", ()),
    ("GET", "/l/", ("Accept: text/html",)),
    ("GET", "/about", ()),
    ("GET", "/nothing", ()),
    ("GET", "/d/nothing", ()),
    ("GET", "/.env", ()),
    ("GET", "/_redirects", ()),
    ("GET", "/../a.txt", ()),
    ("GET", "/%zz", ()),
    ("GET", "/out.txt", ()),
    ("GET", "/fifo", ()),
    ("GET", "/old?x=1", ()),
    ("GET", "/rewritten", ()),
    ("GET", "/taken-down", ()),
    ("GET", "/forced.txt", ()),
    ("GET", "/h/deep/x.txt", ()),
    ("GET", "/vary/p.js", ("Accept-Encoding: gzip",)),
    ("GET", "/no-path\x7f", ()),
    ("GET", "no-slash", ()),
    ("GET", "http://elsewhere.example/a.txt", ()),
    ("OPTIONS", "/a.txt", ()),
    ("OPTIONS", "*", ()),
    ("POST", "/a.txt", ("Content-Length: 0",)),
    ("DELETE", "/nothing", ()),
    ("CONNECT", "a:80", ()),
    ("GET", "/a.txt", ("Host: a, b",)),
    ("GET", "/a.txt", ("Content-Length: x",)),
    ("GET", "/a.txt", ("Transfer-Encoding: gzip",)),
    ("GET", "/a.txt", ("Expect: the-impossible",)),
    ("GET", "/a.txt", ("X: " + "y" * 9000,)),
]


@pytest.mark.parametrize(("method", "target", "lines"), REQUESTS, ids=lambda value: str(value)[:40])
def test_the_head_is_what_the_server_sends(
    explain: Explain, site_server: Server, method: str, target: str, lines: tuple[str, ...]
) -> None:
    fields = lines if any(line.startswith("Host:") for line in lines) else ("Host: localhost", *lines)
    head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", *fields, ""))
    received = exchange(site_server.address, [head.encode("latin-1")], count=1, methods=[method])
    expected = without_date(received.partition(b"\r\n\r\n")[0].decode("latin-1"))
    steps, found = explain(method, target, *(word for line in lines for word in ("-H", line)))
    assert found == expected
    assert all(step.rstrip().endswith((".", ":")) for step in steps), steps


def test_the_steps_say_why(explain: Explain) -> None:
    steps, _ = explain("GET", "/stale.css", "-H", "Accept-Encoding: gzip")
    assert any("stale.css.gz" in step and "older" in step for step in steps), steps
    steps, _ = explain("GET", "/p.js", "-H", "Accept-Encoding: gzip;q=0, br")
    assert any("p.js.br" in step for step in steps), steps
    steps, _ = explain("GET", "/.env")
    assert any("dot" in step or "hidden" in step for step in steps), steps
    steps, _ = explain("GET", "/old")
    assert any("_redirects" in step for step in steps), steps
    steps, _ = explain("GET", "/a.txt", "-H", "X_Underscore: 1")
    assert any("X_Underscore" in step and "header_map" in step for step in steps), steps
    steps, _ = explain("GET", "/a.txt", "-H", "Content-Length: x")
    assert any("400" in step and "Content-Length" in step for step in steps), steps


def test_beside_an_application(tree: Path) -> None:
    """It is named, and never loaded."""
    (tree.parent / "broken.py").write_text("raise SystemExit('never imported')\n")
    for path, goes in (("/a/a.txt", False), ("/a/nothing", True), ("/a.txt", True), ("/a/%zz", True)):
        done = run_tool("explain", "GET", path, "broken:app", "--static", "/a=./site", cwd=tree.parent)
        assert (done.returncode, done.stderr) == (0, "")
        assert ("goes to the application broken:app" in done.stdout) == goes
        assert ("HTTP/1.1 200 OK\n" in done.stdout) == (not goes)
    done = run_tool("explain", "POST", "/x", "broken:app", cwd=tree.parent)
    assert "goes to the application broken:app" in done.stdout
    done = run_tool("explain", "GET", "/x", "broken:app", "--script-name", "/shop", cwd=tree.parent)
    assert "script_name = /shop" in done.stdout
    assert "\nHTTP/1.1 404 Not Found\n" in done.stdout


def test_settings_matter(tree: Path, explain: Explain) -> None:
    _, head = explain("GET", "/a.txt", "--no-server-header")
    assert "Server:" not in head
    _, head = explain("GET", "/a.txt", "--keep-alive", "0")
    assert "\r\nConnection: close\r\n" in head
    _, head = explain("GET", "/l/", options=("--allow-source",))
    assert head.startswith("HTTP/1.1 404 ")
    steps, head = explain("GET", "/a.txt", "--limit-request-line", "16")
    assert head.startswith("HTTP/1.1 414 ")
    assert "limit_request_line = 16" in steps[0]
    (tree.parent / "epollwsgi.toml").write_text('static = ["/=site"]\nno_server_header = true\nallow_source = true\n')
    try:
        done = run_tool("explain", "GET", "/a.txt", cwd=tree.parent)
        assert done.returncode == 0
        assert "HTTP/1.1 200 OK\n" in done.stdout
        assert "Server:" not in done.stdout
    finally:
        (tree.parent / "epollwsgi.toml").unlink()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["METHOD", "epollwsgi explain --help"]),
        (["GET"], 2, ["PATH"]),
        (["GET", "/"], 2, ["nothing to explain"]),
        (["GET", "/", "./nowhere"], 1, ["./nowhere", "No such file or directory"]),
        (["GET", "/", "./site"], 1, ["./site", ".env", "--allow-source"]),
        (["GET", "/", "-H", "no colon", "./site", "--allow-source"], 2, ["-H 'no colon'", "Accept-Encoding: br"]),
        (["GET", "/", "-H", "A: b\r\nC: d", "./site", "--allow-source"], 2, ["-H"]),
        (["GET", "/", "--nonsense", "./site"], 2, ["--nonsense"]),
    ],
)
def test_mistakes(tree: Path, arguments: list[str], code: int, words: list[str]) -> None:
    done = run_tool("explain", *arguments, cwd=tree.parent)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("epollwsgi: ")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr


def test_only_the_first_word_is_a_command(tree: Path) -> None:
    """A module of that name is written with its attribute."""
    done = run_tool("--check-config", "explain:app", cwd=tree.parent)
    assert done.returncode == 3
    assert "no module named explain" in done.stderr
    done = run_tool("./site", "explain", "--check-config", cwd=tree.parent)
    assert done.returncode == 2


def test_help(tree: Path) -> None:
    done = run_tool("explain", "--help", cwd=tree.parent)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: epollwsgi explain [OPTIONS] METHOD PATH [DIRECTORY|APP]\n")
    assert "Accept-Encoding: br" in done.stdout
