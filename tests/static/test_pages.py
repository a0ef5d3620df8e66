"""static.lookup and static.listing: rules at work, pretty addresses, spa, listings. STATIC.md sections 7 and 8."""

from __future__ import annotations

import html.parser
import json
import os
from pathlib import Path

import pytest

from epollwsgi.static import listing
from epollwsgi.static.replies import Reply
from tests.static.support import BIG, MODIFIED, Ticking, build_site, content_of, fields_of, write

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def site(root: Path, *, headers: str = "", redirects: str = "", **options: bool) -> Ticking:
    """The tree of support.py, with rules of its own."""
    build_site(root)
    write(root / "_headers", headers.encode())
    write(root / "_redirects", redirects.encode())
    return Ticking(("/", root), **options)


def location(reply: Reply) -> tuple[int, str]:
    return reply.status, fields_of(reply)["Location"]


# --- rules ----------------------------------------------------------------------------------------------------------


def test_headers_go_where_they_belong(tmp_path: Path) -> None:
    handler = site(
        tmp_path,
        headers="""
/*
  X-All: 1
  Cache-Control: max-age=60
  Expires: Thu, 01 Jan 2026 00:00:00 GMT
  Content-Language: en
  Vary: Cookie
/p.js
  Content-Type: text/plain
  Cache-Control: must-revalidate
  ! X-All
""",
    )
    fields = fields_of(handler.get("/a.txt"))
    assert fields["Cache-Control"] == "max-age=60"
    assert (fields["X-All"], fields["Vary"], fields["Content-Language"]) == ("1", "Cookie", "en")
    part = fields_of(handler.get("/a.txt", HTTP_RANGE="bytes=0-0"))
    assert {name: part[name] for name in ("X-All", "Vary", "Cache-Control")} == {
        "X-All": "1",
        "Vary": "Cookie",
        "Cache-Control": "max-age=60",
    }
    same = fields_of(handler.get("/a.txt", HTTP_IF_NONE_MATCH="*"))
    assert {name for name in same if name in fields} == set(same)
    assert {"X-All", "Vary", "Cache-Control", "Expires", "ETag", "Last-Modified"} <= set(same)
    assert not {"Content-Language", "Content-Type", "Content-Length"} & set(same)
    script = fields_of(handler.get("/p.js"))
    assert script["Content-Type"] == "text/plain"
    assert script["Cache-Control"] == "max-age=60, must-revalidate"
    assert "X-All" not in script
    missing = fields_of(handler.get("/nothing"))
    assert missing["X-All"] == "1"
    assert missing["Cache-Control"] == "no-cache"  # an error is never kept for long
    assert not {"Expires", "Content-Language", "Vary"} & set(missing)
    assert fields_of(handler.get("/d"))["X-All"] == "1"
    assert fields_of(handler.get("/", "HEAD")) == fields_of(handler.get("/"))


def test_vary_is_merged(tmp_path: Path) -> None:
    handler = site(tmp_path, headers="/*\n  Vary: Cookie\n/star\n  Vary: *\n")
    for name in ("a.txt.br", "star", "star.br"):
        write(tmp_path / name, b"x")
    handler.tick()
    assert fields_of(handler.get("/a.txt"))["Vary"] == "Cookie, Accept-Encoding"
    assert fields_of(handler.get("/a.txt", HTTP_ACCEPT_ENCODING="br"))["Vary"] == "Cookie, Accept-Encoding"
    assert fields_of(handler.get("/star"))["Vary"] == "*"


def test_one_file_by_two_paths(tmp_path: Path) -> None:
    handler = site(tmp_path, headers="/about\n  X-Path: short\n/about.html\n  X-Path: long\n")
    for path, expected in (("/about", "short"), ("/about.html", "long"), ("//about", "short"), ("/%61bout", "short")):
        for _ in range(2):
            assert fields_of(handler.get(path))["X-Path"] == expected


def test_rules_of_a_mount_are_of_the_paths_below_it(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"a")
    write(tmp_path / "_headers", b"/a.txt\n  X-A: 1\n")
    write(tmp_path / "_redirects", b"/old /a.txt\n/far https://example.com/\n/in /a.txt 200\n")
    for alone in (True, False):
        handler = Ticking(("/sub dir", tmp_path), alone=alone)
        assert fields_of(handler.get("/sub%20dir/a.txt"))["X-A"] == "1"
        assert location(handler.get("/sub%20dir/old")) == (301, "/sub%20dir/a.txt")
        assert location(handler.get("/sub%20dir/far")) == (301, "https://example.com/")
        assert handler.content("/sub%20dir/in") == b"a"


@pytest.mark.parametrize("alone", [True, False])
def test_redirects_at_work(tmp_path: Path, alone: bool) -> None:
    redirects = """
/old /new?x=1
/fragment /new#here
/a.txt /never
/about /forced 302!
/rewritten /d/index.html 200
/both/* /m.html 200!
/gone/* /404.html 404
/nowhere /does-not-exist 200
/l /else
/d /else
/go/* /:splat
"""
    handler = site(tmp_path, redirects=redirects, alone=alone)
    assert location(handler.get("/old")) == (301, "/new?x=1")
    assert location(handler.get("/old", "GET", "y=2")) == (301, "/new?x=1&y=2")
    assert location(handler.get("/fragment", "GET", "y=2")) == (301, "/new?y=2#here")
    assert handler.content("/a.txt")  # a file comes first
    assert location(handler.get("/about")) == (302, "/forced")
    assert handler.content("/rewritten") == b"<title>d</title>"
    assert handler.content("/both/any") == b"page beside a directory"
    assert handler.content("/both") == b"page beside a directory"
    gone = handler.get("/gone/any")
    assert (gone.status, content_of(gone)) == (404, b"<title>lost</title>")
    assert fields_of(gone)["Cache-Control"] == "no-cache"
    nowhere = handler.ask("/nowhere")
    assert nowhere is not None
    assert nowhere.status == 404
    assert location(handler.get("/l")) == (301, "/else")  # a directory that holds no page
    assert location(handler.get("/d")) == (301, "/d/")
    assert location(handler.get("/go/%2e%2e/go//evil.example", "GET", "q")) == (301, "/evil.example?q")
    assert handler.get("/old", "HEAD").status == 301
    for method in ("POST", "DELETE"):
        reply = handler.ask("/old", method)
        assert (reply is not None and reply.status == 301) == alone
    assert handler.get("/rewritten", HTTP_RANGE="bytes=0-0").status == 206


def test_rules_are_read_again_and_faults_reported(tmp_path: Path) -> None:
    handler = site(tmp_path, headers="/*\n  Date: now\n", redirects="/x\n/old /new\n")
    assert sorted(handler.log) == [
        f"{tmp_path}/_headers: line 2: Date is said by the server itself",
        f"{tmp_path}/_redirects: line 1: a rule is written: from to [status]",
    ]
    assert handler.get("/old").status == 301
    handler.tick()
    assert len(handler.log) == 2  # once
    write(tmp_path / "_redirects", b"/old /newer 302")
    write(tmp_path / "_headers", b"/*\n  X-New: 1\n")
    assert fields_of(handler.get("/a.txt")).get("X-New") is None
    handler.tick()
    assert location(handler.get("/old")) == (302, "/newer")
    assert fields_of(handler.get("/a.txt"))["X-New"] == "1"
    for name in ("_redirects", "_headers"):
        (tmp_path / name).unlink()
    handler.tick()
    assert handler.get("/old").status == 404
    assert "X-New" not in fields_of(handler.get("/a.txt"))
    (tmp_path / "_headers").mkdir()
    (tmp_path / "_redirects").symlink_to("/etc/hostname")
    handler.tick()
    handler.tick()
    assert handler.content("/a.txt")
    assert [line for line in handler.log[2:] if "cannot be read" in line] == [
        f"{tmp_path}/_redirects cannot be read: {os.strerror(18)}"
    ]


# --- pretty ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/about.html", "/about"),
        ("/d/index.html", "/d/"),
        ("/index.html", "/"),
        ("/m.html", "/m"),
        ("//about.html", "/about"),
        ("/sp%20ace/index.html", "/sp%20ace/"),
        ("/both.html", None),  # /both is another file
        ("/about", None),
        ("/d/", None),
        ("/", None),
        ("/a.txt", None),
    ],
)
def test_pretty(tmp_path: Path, path: str, expected: str | None) -> None:
    for alone in (True, False):
        handler = site(tmp_path, alone=alone, pretty=True)
        reply = handler.get(path, "GET", "q=1")
        if expected is None:
            assert reply.status == 200
        else:
            assert location(reply) == (301, expected + "?q=1")
            there = handler.get(expected)
            assert there.status == 200
            assert content_of(there) == content_of(site(tmp_path).get(path))


# --- spa ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("/app/user/7", HTML, 200),
        ("/app/", HTML, 200),
        ("/app/user/7", "*/*", 404),
        ("/app/user/7", "", 404),
        ("/app/user/7", "text/html;q=0", 404),
        ("/app/user/7", "application/json", 404),
        ("/app/main.js", HTML, 404),
        ("/v1.2/users", HTML, 200),
        ("/.git/config", HTML, 404),
        ("/%zz", HTML, 400),
    ],
)
def test_spa(tmp_path: Path, path: str, accept: str, status: int) -> None:
    handler = site(tmp_path, spa=True)
    for method in ("GET", "HEAD"):
        reply = handler.get(path, method, HTTP_ACCEPT=accept)
        assert reply.status == status
        if status == 200:
            assert content_of(reply) == (b"<title>start</title>" if method == "GET" else b"")
            assert fields_of(reply)["Vary"] == "Accept"
            assert handler.get(path, HTTP_ACCEPT=accept, HTTP_IF_NONE_MATCH="*").status == 304
    assert handler.get("/app/user/7", "POST", HTTP_ACCEPT=accept).status == 404
    assert path not in handler.handler.fresh.plain
    assert site(tmp_path, spa=True, alone=False).ask(path, HTTP_ACCEPT=accept) is None


# --- listings -------------------------------------------------------------------------------------------------------


class Links(html.parser.HTMLParser):
    """The hrefs of a page, in order, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def listed(handler: Ticking, path: str, query: str = "", **fields: str) -> Reply:
    reply = handler.get(path, "GET", query, **fields)
    assert reply.later is not None
    return reply.later()


def test_a_listing(tmp_path: Path) -> None:
    root = build_site(tmp_path / "root")
    write(tmp_path / "secret.txt", b"secret")
    directory = root / "l"
    write(directory / "sub" / "x", b"x")
    write(directory / "<b>\"&'.txt", b"12345")
    write(directory / "new\r\nline", b"1")
    write(directory / "a:b", b"1")
    write(Path(os.fsdecode(os.fsencode(directory) + b"/\xff")), b"1")
    for name in (".hidden", "_headers", "_redirects"):
        write(directory / name, b"secret")
    (directory / "in").symlink_to("x.txt")
    (directory / "out").symlink_to("../../secret.txt")
    (directory / "gone").symlink_to("nothing")
    os.mkfifo(directory / "fifo")
    handler = Ticking(("/", root), listing=True)
    reply = listed(handler, "/l/")
    fields = fields_of(reply)
    assert reply.status == 200
    assert fields["Content-Type"] == "text/html; charset=utf-8"
    assert fields["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert (fields["Vary"], fields["Cache-Control"]) == ("Accept", "no-cache")
    assert fields["Content-Length"] == str(len(reply.body))
    page = Links(reply.body)
    assert not {"script", "b", "img"} & page.tags
    names = [link for link in page.links if not link.startswith("?")]
    assert names == [
        "../", "./sub/", "./%3Cb%3E%22%26%27.txt", "./a%3Ab", "./in", "./new%0D%0Aline", "./x.txt", "./%FF",
    ]  # fmt: skip
    for link in names[2:]:
        assert handler.get("/l/" + link).status == 200
    assert b"secret" not in reply.body
    for text in ("2020-01-01 00:00", "<b>\"&'.txt", "color-scheme"):
        assert text in page.text
    head = handler.get("/l/", "HEAD").later
    assert head is not None
    assert (head().head, head().body) == (reply.head, b"")
    assert handler.get("/l", "GET").status == 301
    assert handler.get("/d/").later is None  # it has an index
    assert handler.get("/l/", "POST").status == 405
    for path in ("/nothing/", "/.git/", "/a.txt/"):
        assert handler.get(path).status == 404
    assert Ticking(("/", root), listing=True, alone=False).ask("/l/") is None
    assert Ticking(("/", root)).get("/l/").status == 404


def test_a_listing_as_json(tmp_path: Path) -> None:
    write(tmp_path / "l" / "a b.txt", b"12345")
    write(tmp_path / "l" / "d" / "x", b"x")
    handler = Ticking(("/", tmp_path), listing=True)
    reply = listed(handler, "/l/", HTTP_ACCEPT="application/json")
    assert fields_of(reply)["Content-Type"] == "application/json"
    assert fields_of(reply)["Vary"] == "Accept"
    found = json.loads(reply.body)
    assert [entry["name"] for entry in found] == ["d", "a b.txt"]
    assert found[1] == {
        "name": "a b.txt", "type": "file", "mtime": "2020-01-01T00:00:00Z", "size": 5, "href": "./a%20b.txt",
    }  # fmt: skip
    for accept in (HTML, "*/*", "", "application/json;q=0.1, text/html"):
        assert fields_of(listed(handler, "/l/", HTTP_ACCEPT=accept))["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", "d b C"),
        ("by=name&order=down", "C b d"),
        ("by=size", "d C b"),
        ("by=size&order=down", "b C d"),
        ("by=date", "C b d"),
        ("by=date&order=down", "d b C"),
        ("by=nothing&order=sideways", "d b C"),
        ("&".join(["by=x"] * 100), "d b C"),
        ("%zz=&by", "d b C"),
    ],
)
def test_the_order_of_a_listing(tmp_path: Path, query: str, names: str) -> None:
    write(tmp_path / "C", b"1", MODIFIED)
    write(tmp_path / "b", b"123", MODIFIED + 100)
    write(tmp_path / "d" / "x", b"")
    os.utime(tmp_path / "d", (MODIFIED + 200, MODIFIED + 200))
    handler = Ticking(("/", tmp_path), listing=True)
    found = json.loads(listed(handler, "/", query, HTTP_ACCEPT="application/json").body)
    assert [entry["name"] for entry in found] == names.split()
    page = Links(listed(handler, "/", query).body)
    assert [link.strip("./") for link in page.links if not link.startswith("?")] == names.split()


def test_a_long_listing_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listing.MAX_ENTRIES == 10_000
    monkeypatch.setattr(listing, "MAX_ENTRIES", 20)
    for number in range(25):
        write(tmp_path / f"{number}", b"")
    handler = Ticking(("/", tmp_path), listing=True)
    reply = listed(handler, "/")
    assert len([link for link in Links(reply.body).links if link.startswith("./")]) == 20
    assert b"there are more" in reply.body
    assert len(json.loads(listed(handler, "/", HTTP_ACCEPT="application/json").body)) == 20


def test_a_directory_that_goes_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    reply = Ticking(("/", tmp_path), listing=True).get("/l/")
    (tmp_path / "l").rmdir()
    assert reply.later is not None
    assert reply.later().status == 404


# --- links ----------------------------------------------------------------------------------------------------------


def test_links_are_followed_where_the_operator_wants_it(tmp_path: Path) -> None:
    root = build_site(tmp_path / "root")
    write(tmp_path / "outside" / "big.bin", BIG)
    (root / "abs").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to("../outside/big.bin")
    handler = Ticking(("/", root), follow_symlinks=True, listing=True, opener=None)
    assert handler.content("/abs/big.bin") == BIG
    assert handler.content("/up") == BIG
    (root / "l" / "up").symlink_to("../../outside")
    assert b"./up/" in listed(handler, "/l/").body
    assert b"./big.bin" in listed(handler, "/abs/").body
    for path in ("/../outside/big.bin", "/abs/../../outside/big.bin", "/.env"):
        assert handler.get(path).status in (400, 404)
    assert Ticking(("/", root)).get("/abs/big.bin").status == 404
