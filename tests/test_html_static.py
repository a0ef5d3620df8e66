"""What html/static.html shows as examples: rules that are rules, and what the sub-commands really print."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from epollwsgi.static.rules import parse_headers, parse_redirects
from tests.pages import Page
from tests.static.tools import run_tool

PAGE = Path(__file__).resolve().parent.parent / "html" / "static.html"


def find_example(beginning: str) -> str:
    """The text of the one example on the page that begins so."""
    found = [text for text in Page(PAGE.read_text("utf-8")).texts["pre"] if text.startswith(beginning)]
    assert len(found) == 1
    return found[0]


def test_rules_of_the_page_are_rules() -> None:
    headers, faults = parse_headers(find_example("/*\n").encode())
    assert faults == []
    assert dict(headers.select(b"/fonts/a.woff2"))["Cache-Control"] == "public, max-age=86400"
    assert dict(headers.select(b"/embed/x"))["Content-Security-Policy"] is None
    assert dict(headers.select(b"/embed/x"))["Link"] == "</embed/x.css>; rel=preload"
    redirects, faults = parse_redirects(find_example("# from").encode())
    assert faults == []
    found = [redirects.find(path) for path in (b"/old", b"/blog/a/b", b"/user/tom", b"/app/", b"/internal/x")]
    assert [(match.rule.status, match.target) for match in found if match] == [
        (301, "/new"),
        (302, "/news/a/b"),
        (308, "/people/tom"),
        (200, "/index.html"),
        (404, "/404.html"),
    ]


def run_example(beginning: str, cwd: Path) -> tuple[list[str], list[str]]:
    """What the page shows below the command, and what the command prints."""
    command, *shown = find_example(beginning).splitlines()
    done = run_tool(*shlex.split(command)[2:], cwd=cwd)
    assert done.stderr == ""
    return shown, done.stdout.splitlines()


def make_site(directory: Path, files: Mapping[str, str]) -> None:
    """Files of a site that has not changed for a minute."""
    directory.mkdir()
    moment = time.time() - 60
    for name, text in files.items():
        (directory / name).write_text(text)
        os.utime(directory / name, (moment, moment))


def test_check_prints_what_the_page_shows(tmp_path: Path) -> None:
    site = tmp_path / "html"
    files = {
        "index.html": "<!doctype html>",
        "prices.dat": "x",
        "style.css": "a { margin: 0 }",
        "style.css.gz": "older",
        "_headers": "/*\n  Content-Length: 3\n",
        "_redirects": "/old /new 999\n/a /b\n/b /a\n",
    }
    make_site(site, files)
    os.utime(site / "style.css.gz", (1_000_000, 1_000_000))
    (site / "host.txt").symlink_to("/etc/hostname")
    shown, printed = run_example("$ epollwsgi check", tmp_path)
    assert printed == shown


def test_explain_prints_what_the_page_shows(tmp_path: Path) -> None:
    """But for the path of the site, times, tags and the version."""
    files = {"style.css": "a { margin: 0 }\n" * 300, "style.css.br": "x" * 410, "style.css.gz": "x" * 917}
    make_site(tmp_path / "html", files)

    def simplify(lines: list[str]) -> list[str]:
        text = "\n".join(lines).replace(str(tmp_path.resolve()), "/srv/shop")
        return re.sub(r"(?m)^(ETag|Last-Modified|Date|Server): .*", r"\1", text).splitlines()

    shown, printed = run_example("$ epollwsgi explain", tmp_path)
    assert simplify(printed) == simplify(shown)


def test_compress_prints_what_the_page_shows(tmp_path: Path) -> None:
    """But for the figures: releases of the libraries differ."""
    make_site(tmp_path / "html", {f"{number}.css": f"a{number} {{ margin: 0 }}\n" * 300 for number in range(8)})

    def simplify(lines: list[str]) -> list[str]:
        return [re.sub(r"[0-9.]+ (bytes|kB|%)", "N", line) for line in lines]

    shown, printed = run_example("$ epollwsgi compress", tmp_path)
    assert simplify(printed) == simplify(shown)
    assert len(printed) == 4
