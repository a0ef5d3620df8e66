"""Statements of STATIC.md that take more than one request: what is said at the start, and what changes with time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from epollwsgi.codings import Coding, available
from tests.connections import Client
from tests.responses import Response
from tests.static.support import MODIFIED, write
from tests.static.table_rows import build_request
from tests.static.tools import make_text, run_tool
from tests.support import Server, ServerFactory, wait_until

TEXT = make_text(20_000)


def ask(server: Server, path: str, *lines: str, method: str = "GET") -> Response:
    with Client(server.address) as client:
        return client.request(build_request(method, path, lines))


def test_a_root_that_holds_the_application_is_refused(tmp_path: Path) -> None:
    """1.5: it would publish the source."""
    (tmp_path / "app.py").write_text("def app(environ, start_response):\n    return []\n")
    for directory in (".", "..", str(tmp_path)):
        done = run_tool("-b", "127.0.0.1:0", "app:app", "--static", f"/={directory}", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("epollwsgi: ")
        assert done.stderr.count("\n") == 1
        assert "own module" in done.stderr


def test_a_body_beyond_all_bounds_ends_the_connection(server: ServerFactory, tmp_path: Path) -> None:
    """2.4: nobody is interested in it, and it must not be taken for the next request."""
    write(tmp_path / "a.txt", TEXT)
    running = server(str(tmp_path))
    with Client(running.address) as client:
        client.send(build_request("POST", "/a.txt", ("Content-Length: 50000000",)) + b"x" * 10_000)
        assert client.read_response("POST").status in (405, 413)
        assert client.read_to_end() == b""
    assert ask(running, "/a.txt").body == TEXT


def test_a_copy_of_something_else_is_reported(server: ServerFactory, tmp_path: Path) -> None:
    """5.2: once, in the log, by its name."""
    write(tmp_path / "p.js", TEXT)
    write(tmp_path / "p.js.gz", b"\x1f\x8b" + bytes(100))
    running = server(str(tmp_path))
    for _ in range(3):
        assert ask(running, "/p.js", "Accept-Encoding: gzip").body == TEXT
    assert "p.js.gz" in running.wait_for_log("p.js.gz")
    assert running.stderr_text().count("p.js.gz") == 1


@pytest.mark.parametrize("coding", available(), ids=lambda coding: coding.token)
def test_a_file_that_is_asked_for_is_compressed_once(server: ServerFactory, tmp_path: Path, coding: Coding) -> None:
    """5.5: then it is a variant like any other."""
    write(tmp_path / "text.txt", TEXT)
    write(tmp_path / "short.txt", TEXT[:511])
    write(tmp_path / "photo.png", TEXT)
    write(tmp_path / "kept.txt", TEXT)
    write(tmp_path / "_headers", b"/kept.txt\n  Cache-Control: no-transform\n")
    running = server(str(tmp_path), "--compress")
    accept = f"Accept-Encoding: {coding.token}"
    plain = ask(running, "/text.txt")
    assert plain.body == TEXT

    def coded() -> Response | None:
        for name in ("short.txt", "photo.png", "kept.txt"):
            assert "Content-Encoding" not in ask(running, f"/{name}", accept)
        response = ask(running, "/text.txt", accept)
        return response if "Content-Encoding" in response else None

    found: Response = wait_until(coded, 30, "the variant")
    assert found["Content-Encoding"] == coding.token
    assert found["Vary"] == "Accept-Encoding"
    assert found["ETag"] != plain["ETag"]
    assert not found["ETag"].startswith("W/")
    assert len(found.body) < len(TEXT)
    assert b"".join(coding.decode([found.body])) == TEXT
    for _ in range(5):
        coded()
    head = ask(running, "/text.txt", accept, method="HEAD")
    assert (head["Content-Length"], head["ETag"]) == (str(len(found.body)), found["ETag"])
    part = ask(running, "/text.txt", accept, "Range: bytes=10-19", f"If-Range: {found['ETag']}")
    assert (part.status, part.body, part["Content-Encoding"]) == (206, found.body[10:20], coding.token)
    assert ask(running, "/text.txt", accept, f"If-None-Match: {found['ETag']}").status == 304
    assert ask(running, "/text.txt").body == TEXT


def test_nothing_is_compressed_unasked(server: ServerFactory, tmp_path: Path) -> None:
    """5.5: without the option a file is sent as it is."""
    write(tmp_path / "text.txt", TEXT)
    running = server(str(tmp_path))
    for _ in range(20):
        assert ask(running, "/text.txt", "Accept-Encoding: gzip, br, zstd").body == TEXT


def test_the_tag_is_the_same_on_all_nodes(server: ServerFactory, tmp_path: Path) -> None:
    """6.1: whenever the file was written there."""
    tags = []
    for number in range(2):
        write(tmp_path / str(number) / "a.txt", TEXT, MODIFIED + 1000 * number)
        tags.append(ask(server(str(tmp_path / str(number))), "/a.txt")["ETag"])
    assert tags[0] == tags[1]


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_tag_is_weak_while_the_file_may_change_unseen(server: ServerFactory, tmp_path: Path, size: int) -> None:
    """6.1: it becomes strong, with the same opaque part."""
    content = make_text(size)
    running = server(str(tmp_path))

    def is_weak() -> str:
        write(tmp_path / "a.txt", content, time.time())
        etag = ask(running, "/a.txt")["ETag"]
        return etag if etag.startswith("W/") else ""

    weak: str = wait_until(is_weak, 20, "a weak tag")
    wait_until(lambda: ask(running, "/a.txt")["ETag"] == weak.removeprefix("W/"), 20, "the strong tag")


def test_bad_rules_are_said_at_the_start_and_the_others_hold(server: ServerFactory, tmp_path: Path) -> None:
    """7.3: with the file and the number of the line."""
    write(tmp_path / "a.txt", TEXT)
    write(
        tmp_path / "_headers",
        b"/a.txt\n  X-Good: yes\n  Content-Length: 5\n  Connection: close\n  Date: now\n  Transfer-Encoding: chunked\n"
        b"  no colon\n  X-Also-Good: yes\n",
    )
    write(
        tmp_path / "_redirects", b"/good /a.txt\n/bad\n/bad /a.txt 299\n/bad/* https://:splat/ 302\n/fine /a.txt 302\n"
    )
    running = server(str(tmp_path))
    text = running.stderr_text()
    for name, lines in (("_headers", (3, 4, 5, 6, 7)), ("_redirects", (2, 3, 4))):
        for number in range(1, 9):
            assert (f"{name}: line {number}" in text) == (number in lines), (name, number, text)
    response = ask(running, "/a.txt")
    assert response.body == TEXT
    assert (response["X-Good"], response["X-Also-Good"]) == ("yes", "yes")
    assert ask(running, "/good")["Location"] == "/a.txt"
    assert ask(running, "/fine").status == 302
    assert ask(running, "/bad").status == ask(running, "/bad/evil.example").status == 404


def test_rules_are_read_again_when_they_change(server: ServerFactory, tmp_path: Path) -> None:
    """7.3: and forgotten when they go."""
    write(tmp_path / "a.txt", TEXT)
    running = server(str(tmp_path))
    assert ask(running, "/old").status == 404
    write(tmp_path / "_redirects", b"/old /a.txt\n")
    write(tmp_path / "_headers", b"/*\n  X-Release: one\n")
    wait_until(lambda: ask(running, "/old").status == 301, 10, "the redirect")
    wait_until(lambda: ask(running, "/a.txt").get("X-Release") == "one", 10, "the field")
    write(tmp_path / "new", b"/old /b.txt 302\nnonsense\n")
    os.replace(tmp_path / "new", tmp_path / "_redirects")
    wait_until(lambda: ask(running, "/old").status == 302, 10, "the other redirect")
    running.wait_for_log("_redirects: line 2")
    (tmp_path / "_redirects").unlink()
    (tmp_path / "_headers").unlink()
    wait_until(lambda: ask(running, "/old").status == 404, 10, "no redirect")
    wait_until(lambda: "X-Release" not in ask(running, "/a.txt"), 10, "no field")
