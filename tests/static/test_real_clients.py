"""curl, wget and Chromium as visitors of a static site: what they end up with is what lies there, byte for byte."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import HTTP
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from epollwsgi.codings import available
from tests.browser import Browser
from tests.static.support import A_TXT, BIG, MODIFIED, write
from tests.static.tools import make_noise, make_text, run_tool
from tests.support import ROOT, Server, ServerFactory, require_tool

Run = Callable[..., subprocess.CompletedProcess[bytes]]
# Nothing of this machine's own settings, proxies above all.
ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )


# --- curl -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of each kind, with compressed copies."""
    root = tmp_path_factory.mktemp("clients") / "site"
    write(root / "a.txt", A_TXT)
    write(root / "big.bin", BIG * 20)
    write(root / "text.txt", make_text(50_000))
    write(root / "d" / "index.html", b"<title>d</title>")
    assert run_tool("compress", str(root), cwd=root).returncode == 0
    return root


@pytest.fixture(scope="module")
def site_server(start_module_server: ServerFactory, site: Path) -> Server:
    return start_module_server(str(site))


@pytest.fixture
def curl(site_server: Server, tmp_path: Path) -> Run:
    """curl(path, *options) in an empty directory; it must succeed."""
    program = require_tool("curl", "curl")

    def call(path: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        done = run(program, "-q", "-sS", "--max-time", "50", *options, site_server.url + path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done

    return call


def features_of_curl() -> str:
    done = subprocess.run([require_tool("curl", "curl"), "-V"], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def test_curl_gets_files(curl: Run) -> None:
    assert curl("/a.txt").stdout == A_TXT
    assert curl("/big.bin").stdout == BIG * 20
    assert curl("/d", "-L").stdout == b"<title>d</title>"
    assert curl("/a.txt", "--http1.0").stdout == A_TXT
    assert curl("/a.txt", "-I").stdout.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("0-0", A_TXT[:1]),
        ("-1", A_TXT[-1:]),
        ("990-", A_TXT[990:]),
        ("100-199", A_TXT[100:200]),
        ("500-5000", A_TXT[500:]),
    ],
)
def test_curl_gets_a_range(curl: Run, wanted: str, expected: bytes) -> None:
    assert curl("/a.txt", "-r", wanted, "-f").stdout == expected


def test_curl_gets_several_ranges(curl: Run, tmp_path: Path) -> None:
    """The answer is taken apart by a reader of e-mail, which knows nothing of this server."""
    done = curl("/a.txt", "-r", "0-9,500-599,-5", "-D", "head")
    status_line, _, fields = (tmp_path / "head").read_bytes().partition(b"\r\n")
    assert status_line == b"HTTP/1.1 206 Partial Content"
    message = message_from_bytes(fields + done.stdout, policy=HTTP)
    assert message.get_content_type() == "multipart/byteranges"
    parts = [
        (str(part["Content-Range"]), part.get_content_type(), part.get_payload(decode=True))
        for part in message.iter_parts()
    ]
    assert parts == [
        ("bytes 0-9/1000", "text/plain", A_TXT[:10]),
        ("bytes 500-599/1000", "text/plain", A_TXT[500:600]),
        ("bytes 995-999/1000", "text/plain", A_TXT[995:]),
    ]


def test_curl_goes_on_where_it_stopped(curl: Run, tmp_path: Path) -> None:
    content = BIG * 20
    (tmp_path / "big.bin").write_bytes(content[:1_234_567])
    done = curl("/big.bin", "-C", "-", "-O", "-w", "%{http_code} %{size_download}")
    assert done.stdout == b"206 %d" % (len(content) - 1_234_567)
    assert (tmp_path / "big.bin").read_bytes() == content


@pytest.mark.parametrize("coding", available(), ids=lambda coding: coding.token)
def test_curl_decodes_what_is_compressed(curl: Run, tmp_path: Path, coding: object) -> None:
    token = coding.token  # type: ignore[attr-defined]
    feature = {"br": "brotli", "zstd": "zstd", "gzip": "libz"}[token]
    if feature not in features_of_curl():
        pytest.skip(f"this curl has no {feature}")
    done = curl("/text.txt", "--compressed", "-H", f"Accept-Encoding: {token}", "-D", "head", "-w", "%{size_download}")
    body, size = done.stdout[:50_000], int(done.stdout[50_000:])
    assert body == make_text(50_000)
    assert size < 25_000
    assert f"Content-Encoding: {token}\r\n".encode() in (tmp_path / "head").read_bytes()


def test_curl_takes_whatever_it_knows(curl: Run) -> None:
    done = curl("/text.txt", "--compressed", "-w", "%{size_download}")
    assert done.stdout[:50_000] == make_text(50_000)
    assert int(done.stdout[50_000:]) < 25_000


def test_curl_asks_again_with_what_it_has(curl: Run, tmp_path: Path) -> None:
    code = ("-w", "%{http_code}")
    curl("/a.txt", "-R", "-o", "a.txt", "--etag-save", "tag")
    assert curl("/a.txt", "--etag-compare", "tag", "-o", "again", *code).stdout == b"304"
    assert curl("/a.txt", "-z", "a.txt", "-o", "again", *code).stdout == b"304"
    (tmp_path / "tag").write_text('"another"')
    assert curl("/a.txt", "--etag-compare", "tag", "-o", "again", *code).stdout == b"200"
    assert (tmp_path / "again").read_bytes() == A_TXT
    assert (tmp_path / "a.txt").stat().st_mtime == MODIFIED


def test_curl_keeps_its_connection(curl: Run, site_server: Server, tmp_path: Path) -> None:
    more = [
        part
        for path in ("/a.txt", "/nothing", "/d", "/big.bin", "/a.txt")
        for part in ("-o", os.devnull, site_server.url + path)
    ]
    done = curl("/a.txt", "-w", "%{num_connects}", "-o", os.devnull, *more)
    assert done.stdout == b"000001" or done.stdout == b"100000"


# --- wget -----------------------------------------------------------------------------------------------------------

LEAVES = ("intro", "install", "first steps", "\u00fcberblick", "faq", "a+b", "100%", "q&a")
CHAPTERS = ("guide", "reference", "deep/er/still")


def build_documentation(root: Path) -> set[str]:
    """A site as generators of documentation write it, every file linked from another; the names of all files."""

    def link(name: str) -> str:
        return quote(name)

    pages: dict[str, bytes] = {}
    for chapter in CHAPTERS:
        up = "../" * (chapter.count("/") + 1)
        items = "".join(f'<li><a href="{link(leaf)}.html">{leaf}</a>' for leaf in LEAVES)
        head = (
            f'<!doctype html><link rel="stylesheet" href="{up}_static/style.css">'
            f'<script src="{up}_static/search.js"></script>'
        )
        pages[f"{chapter}/index.html"] = f'{head}<ul>{items}</ul><a href="{up}">up</a>'.encode()
        for number, leaf in enumerate(LEAVES):
            text = make_text(3000 + 997 * number, number).decode("ascii")
            image = f'<img src="{up}_images/{number}.png" srcset="{up}_images/{number}.png?v=1 2x">'
            pages[f"{chapter}/{leaf}.html"] = f'{head}{image}<p>{text}<a href="./">index</a>'.encode()
    links = "".join(f'<a href="{link(chapter)}">{chapter}</a>' for chapter in CHAPTERS)  # without their slashes
    pages["index.html"] = (
        f'<!doctype html>{links}<a href="_downloads/all.zip">all</a><a href="empty.txt">-</a>'.encode()
    )
    for number in range(len(LEAVES)):
        pages[f"_images/{number}.png"] = make_noise(70_000 if number == 3 else 900, number)
    pages["_static/style.css"] = (
        b'body { background: url("back.svg") } @import "print.css";' + b"p { margin: 0 }\n" * 100
    )
    pages["_static/print.css"] = b"nav { display: none }\n" * 50
    pages["_static/back.svg"] = b"<svg xmlns='http://www.w3.org/2000/svg'/>" + b"<!-- -->" * 100
    pages["_static/search.js"] = b"let index;\n" * 100
    pages["_downloads/all.zip"] = make_noise(300_000)
    pages["empty.txt"] = b""
    pages["robots.txt"] = b"User-agent: *\nDisallow:\n"
    for name, content in pages.items():
        write(root / name, content)
    return set(pages)


def read_tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_wget_mirrors_a_site(server: ServerFactory, tmp_path: Path) -> None:
    """And a second time it fetches nothing: every file is as it was."""
    wget = require_tool("wget", "wget")
    names = build_documentation(tmp_path / "site")
    expected = read_tree(tmp_path / "site")
    assert set(expected) == names
    assert run_tool("compress", "site", cwd=tmp_path).returncode == 0  # the copies must not change what wget gets
    running = server(str(tmp_path / "site"))
    saving = (wget, "--no-config", "-nH", "--restrict-file-names=nocontrol", "-Pmirror", "--tries=1", "--timeout=30")
    done = run(*saving, "--mirror", "--page-requisites", "--trust-server-names", f"{running.url}/", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
    found = {re.sub(r"\?v=1$", "", name): content for name, content in read_tree(tmp_path / "mirror").items()}
    assert set(found) == set(expected)
    assert found == expected
    # Asked for one by one, since wget looks for links in no page that it need not fetch.
    urls = [f"{running.url}/{quote(name)}" for name in sorted(names)]
    again = run(*saving, "--timestamping", "--force-directories", *urls, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    text = again.stderr.decode("utf-8", "replace")
    assert "200 OK" not in text
    assert text.count("304 Not Modified") == len(names)
    assert "Traceback" not in running.stderr_text()


# --- Chromium -------------------------------------------------------------------------------------------------------

HTML = ROOT / "html"
PAGES = sorted(path.name for path in HTML.glob("*.html") if path.name != "404.html")
SIZES = (
    "(({encodedBodySize, decodedBodySize}) => ({encodedBodySize, decodedBodySize}))"
    "(performance.getEntriesByType('navigation')[0])"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def html(start_module_server: ServerFactory, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The site of this repository as it is deployed: compressed."""
    root = tmp_path_factory.mktemp("html") / "site"
    shutil.copytree(HTML, root)
    assert run_tool("compress", str(root), cwd=root).returncode == 0
    return start_module_server(str(root))


@pytest.mark.parametrize("page", ["", *PAGES, *(name.removesuffix(".html") for name in PAGES)])
def test_chromium_loads_every_page(browser: Browser, html: Server, page: str) -> None:
    tab = browser.open(f"{html.url}/{page}")
    try:
        assert tab.failures == []
        assert tab.evaluate("document.querySelectorAll('h1').length") == 1
        sheets = "[...document.styleSheets].every(sheet => sheet.cssRules.length > 0) && document.styleSheets.length"
        assert tab.evaluate(sheets) >= 1
        images = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
        assert tab.evaluate(images) is True
        sizes = tab.evaluate(SIZES)
        content = (
            (HTML / (page or "index.html")) if (page or "index").endswith(".html") else HTML / f"{page or 'index'}.html"
        )
        assert sizes["decodedBodySize"] == content.stat().st_size
        assert sizes["encodedBodySize"] < sizes["decodedBodySize"]  # a compressed copy came
        assert tab.evaluate("document.characterSet") == "UTF-8"
    finally:
        tab.close()


def test_chromium_follows_the_links_of_the_site(browser: Browser, html: Server) -> None:
    tab = browser.open(f"{html.url}/")
    try:
        links = tab.evaluate(
            "[...document.links].filter(a => a.origin == location.origin).map(a => a.href.split('#')[0])"
        )
        names = {path.name for path in HTML.iterdir()}  # others lead to the application that may stand beside
        links = {link for link in links if (urlsplit(link).path[1:] or "index.html") in names}
        assert len(links) > 2
        for link in sorted(links):
            tab.follow(f"location.assign({link!r})")
            assert tab.failures == []
        tab.navigate(f"{html.url}/")  # once more: what it has is asked for again and found to be the same
        assert tab.failures == []
    finally:
        tab.close()


def test_chromium_shows_the_page_for_what_is_missing(browser: Browser, html: Server) -> None:
    tab = browser.open(f"{html.url}/no/such/page")
    try:
        assert f"{html.url}/no/such/page: 404" in tab.failures
        assert tab.evaluate("document.querySelectorAll('h1').length") == 1
    finally:
        tab.close()
