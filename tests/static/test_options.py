"""The options of a site over real sockets, where listings and compression happen on threads of their own."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

from tests.connections import Client, exchange
from tests.responses import Response, parse_responses
from tests.static.support import A_TXT, write
from tests.support import ServerFactory, wait_until

TEXT = b"a line that repeats itself, and so it compresses\n" * 2000


def ask(client: Client, path: str, *lines: str, method: str = "GET") -> Response:
    head = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: a", *lines, ""))
    return client.request(head.encode(), method)


def test_compressed_once(server: ServerFactory, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXT)
    running = server(str(tmp_path), "--compress")
    with Client(running.address) as client:

        def is_compressed() -> bool:
            response = ask(client, "/a.txt", "Accept-Encoding: gzip")
            assert response["Vary"] == "Accept-Encoding"
            is_coded = response.get("Content-Encoding") == "gzip"
            assert (gzip.decompress(response.body) if is_coded else response.body) == TEXT
            return is_coded

        wait_until(is_compressed, 20, "the compressed file")
        assert ask(client, "/a.txt").body == TEXT
        coded = ask(client, "/a.txt", "Accept-Encoding: gzip")
        part = ask(client, "/a.txt", "Accept-Encoding: gzip", "Range: bytes=5-9", f"If-Range: {coded['ETag']}")
        assert (part.status, part.body) == (206, coded.body[5:10])
    assert "Traceback" not in running.stderr_text()


def test_a_large_sibling_is_checked_beside_the_loop(server: ServerFactory, tmp_path: Path) -> None:
    source = TEXT * 30
    write(tmp_path / "a.txt", source)
    write(tmp_path / "a.txt.gz", gzip.compress(source))
    write(tmp_path / "b.txt", source)
    write(tmp_path / "b.txt.gz", gzip.compress(source + b"x"))
    running = server(str(tmp_path))
    with Client(running.address) as client:

        def coding(path: str) -> str | None:
            response = ask(client, path, "Accept-Encoding: gzip", method="HEAD")
            return response.get("Content-Encoding")

        wait_until(lambda: coding("/a.txt") == "gzip", 20, "the checked sibling")
        assert gzip.decompress(ask(client, "/a.txt", "Accept-Encoding: gzip").body) == source
        coding("/b.txt")
        running.wait_for_log("b.txt.gz is not used: its CRC-32 or length")
        assert coding("/b.txt") is None


def test_listings(server: ServerFactory, tmp_path: Path) -> None:
    for number in range(300):
        write(tmp_path / "l" / f"{number}.txt", b"x")
    write(tmp_path / "a.txt", A_TXT)
    running = server(str(tmp_path), "--listing")
    names = {f"{number}.txt" for number in range(300)}
    with Client(running.address) as client:
        for _ in range(3):
            found = json.loads(ask(client, "/l/", "Accept: application/json").body)
            assert {entry["name"] for entry in found} == names
            assert b"299.txt" in ask(client, "/l/?by=size").body
            assert ask(client, "/l/", method="HEAD")["Content-Type"] == "text/html; charset=utf-8"
            assert ask(client, "/a.txt").body == A_TXT
    # Behind a listing requests wait their turn; a client that has closed its side gets its answer.
    data = b"".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for path in ("/l/", "/a.txt", "/l/", "/a.txt"))
    for half_close in (False, True):
        answer = exchange(running.address, [data], half_close=half_close, count=0 if half_close else 4)
        responses = parse_responses(answer, closed=half_close)
        assert [b"299.txt" in response.body for response in responses] == [True, False, True, False]
        assert responses[3].body == A_TXT
    last = exchange(running.address, [b"GET /l/ HTTP/1.0\r\n\r\n"], count=0)
    (response,) = parse_responses(last)
    assert b"299.txt" in response.body
    for _ in range(20):
        with Client(running.address) as client:
            client.send(b"GET /l/ HTTP/1.1\r\nHost: a\r\n\r\n")
            client.reset()
    with Client(running.address) as client:
        assert ask(client, "/a.txt").body == A_TXT
    assert "Traceback" not in running.stderr_text()
    assert running.stop() == 0


def test_rules_and_addresses(server: ServerFactory, tmp_path: Path) -> None:
    write(tmp_path / "index.html", b"start")
    write(tmp_path / "about.html", b"about")
    write(tmp_path / "_redirects", b"/old /about 302\nbroken\n")
    write(tmp_path / "_headers", b"/*\n  X-Site: 1\n")
    running = server(str(tmp_path), "--pretty", "--spa")
    assert "_redirects: line 2: " in running.wait_for_log("line 2")
    with Client(running.address) as client:
        for _ in range(3):
            moved = ask(client, "/old?x=1")
            assert (moved.status, moved["Location"], moved["X-Site"]) == (302, "/about?x=1", "1")
            assert ask(client, "/about.html")["Location"] == "/about"
            assert ask(client, "/about").body == b"about"
            assert ask(client, "/any/where", "Accept: text/html").body == b"start"
            assert ask(client, "/any/where").status == 404
        write(tmp_path / "_redirects", b"/old /newer")
        wait_until(lambda: ask(client, "/old")["Location"] == "/newer", 10, "the new rule")


def test_links_out_of_the_root(server: ServerFactory, tmp_path: Path) -> None:
    write(tmp_path / "site" / "a.txt", A_TXT)
    write(tmp_path / "elsewhere.txt", b"elsewhere")
    os.symlink(tmp_path / "elsewhere.txt", tmp_path / "site" / "link.txt")
    for options, status in (((), 404), (("--follow-symlinks",), 200)):
        running = server(f"{tmp_path}/site", *options)
        with Client(running.address) as client:
            assert ask(client, "/link.txt").status == status
            assert ask(client, "/a.txt").body == A_TXT
            assert ask(client, "/../elsewhere.txt").status == 400
