"""static.rules: the lines of `_headers` and `_redirects`, and what they come to for a path. STATIC.md section 7."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epollwsgi.static.rules import MAX_LINE_SIZE, MAX_PATTERNS, parse_headers, parse_redirects
from tests.static.support import repeatable


def find(rules: str, path: bytes) -> tuple[int, str] | None:
    redirects, faults = parse_redirects(rules.encode())
    assert faults == []
    match = redirects.find(path)
    return match and (match.rule.status, match.target)


@pytest.mark.parametrize(
    ("rules", "path", "found"),
    [
        ("/old /new", b"/old", (301, "/new")),
        ("/old /new", b"/old/", None),
        ("/old /new", b"/older", None),
        ("/old\t/new \t 302 ", b"/old", (302, "/new")),
        ("/old /new 303", b"/old", (303, "/new")),
        ("/old /new 307", b"/old", (307, "/new")),
        ("/old /new 308!", b"/old", (308, "/new")),
        ("/a /b 200", b"/a", (200, "/b")),
        ("/a /gone.html 404", b"/a", (404, "/gone.html")),
        ("\ufeff/old /new\r\n", b"/old", (301, "/new")),
        ("# /old /other\n\n   \n/old /new # why", b"/old", (301, "/new")),
        ("/old /one\n/old /two", b"/old", (301, "/one")),
        ("/o* /one\n/old /two", b"/old", (301, "/one")),
        ("/old /two\n/o* /one", b"/old", (301, "/two")),
        ("/old https://example.com", b"/old", (301, "https://example.com")),
        ("/old http://[::1]:8000/x?y=1#z", b"/old", (301, "http://[::1]:8000/x?y=1#z")),
        ("/s%20p /x", b"/s p", (301, "/x")),
        ("/ü /ä", "/ü".encode(), (301, "/%C3%A4")),
        ("/a /b%20c", b"/a", (301, "/b%20c")),
        ("/* /:splat.html", b"/x/y", (301, "/x/y.html")),
        ("/* /all", b"/", (301, "/all")),
        ("/blog/* /news/:splat", b"/blog/a/b", (301, "/news/a/b")),
        ("/blog/* /news/:splat", b"/blog/", (301, "/news/")),
        ("/blog/* /news/:splat", b"/blog", (301, "/news/")),
        ("/blog/* /news/:splat", b"/blogs", None),
        ("/a/*/z /:splat", b"/a/b/c/z", (301, "/b/c")),
        ("/a/*/z /:splat", b"/a/z", None),
        ("/f*.php /p:splat", b"/foo/bar.php", (301, "/poo/bar")),
        ("/:year/:slug /:slug-:year", b"/2024/x", (301, "/x-2024")),
        ("/:year/:slug /:slug-:year", b"/2024/x/y", None),
        ("/:a.json /:a", b"/x.y.json", (301, "/x.y")),
        ("/u/:id/* https://e.com/:id?rest=:splat", b"/u/7/a/b", (301, "https://e.com/7?rest=a%2Fb")),
        ("/x /y:port", b"/x", (301, "/y:port")),
        # what was captured forms no host, no scheme, no line, no other parameter
        ("/go/* /:splat", b"/go//evil.example", (301, "/evil.example")),
        ("/go/* /:splat", b"/go/\\evil.example", (301, "/%5Cevil.example")),
        ("/go* /:splat", b"/go//evil.example", (301, "/evil.example")),
        ("/go/* /:splat", b"/go/https://evil", (301, "/https://evil")),
        ("/go/* /x?to=:splat", b"/go/a&b=c#d\r\ne", (301, "/x?to=a%26b%3Dc%23d%0D%0Ae")),
        ("/go/* /:splat", b"/go/a\r\nSet-Cookie: x?y#z%", (301, "/a%0D%0ASet-Cookie:%20x%3Fy%23z%25")),
        ("/go/* https://example.com/:splat", b"/go/@evil.example", (301, "https://example.com/@evil.example")),
        # one that leads to this very path is none
        ("/* /:splat", b"/x", None),
        ("/x /x\n/x /y", b"/x", (301, "/y")),
        ("/x/ /x", b"/x/", (301, "/x")),
        ("/* /index.html 200", b"/index.html", None),
        ("/* /index.html 200", b"/any", (200, "/index.html")),
    ],
)
def test_redirects(rules: str, path: bytes, found: tuple[int, str] | None) -> None:
    assert find(rules, path) == found


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/only", "from to"),
        ("old /new", "begin with a slash"),
        ("/old new", "must be a path"),
        ("/old //evil.example", "another host"),
        ("/old /\\evil.example", "another host"),
        ("/old ftp://example.com/", "must be a path"),
        ("/old javascript:alert(1)", "must be a path"),
        ("/* :splat", "must be a path"),
        ("/* https://:splat/", "must be a path"),
        ("/* https://example.com:splat/", "must be a path"),
        ("/* https://example.com.:splat", "must be a path"),
        ("/* https://user@example.com/", "must be a path"),
        ("/api/* https://example.com/:splat 200", "file of this site"),
        ("/a /b 300", "none of 200, 301"),
        ("/a /b 1", "none of"),
        ("/a /b 301?", "none of"),
        ("/a /b permanent", "none of"),
        ("/a /b 301 Country=de", "conditions"),
        ("/a id=:id /b", "conditions"),
        ("/a /b 301 /c", "too many"),
        ("/a?x=1 /b", "query"),
        ("/*/* /x", "may stand once"),
        ("/:a/:a /x", "may stand once"),
        ("/:splat /x", "may stand once"),
        ("/:a-:b /x", "between two slashes"),
        ("/*:a /x", "between two slashes"),
        ("/" + "x" * MAX_LINE_SIZE + " /y", "more than"),
    ],
)
def test_bad_redirects_are_told_by_their_line(line: str, says: str) -> None:
    redirects, faults = parse_redirects(f"/before /x\n{line}\n/behind /y\n".encode())
    assert [rule.line for rule in redirects.rules] == [1, 3]
    ((number, text),) = faults
    assert number == 2
    assert says in text


def select(rules: str, path: bytes) -> dict[str, str | None]:
    found, faults = parse_headers(rules.encode())
    assert faults == []
    return dict(found.select(path))


@pytest.mark.parametrize(
    ("rules", "path", "fields"),
    [
        ("/*\n  X-A: 1", b"/any/thing", {"X-A": "1"}),
        ("/x\n  X-A: 1\n  X-B:2", b"/x", {"X-A": "1", "X-B": "2"}),
        ("/x\n\tX-A: 1", b"/x", {"X-A": "1"}),
        ("/x\n  X-A: 1", b"/y", {}),
        ("/*\n  X-A: 1\n/x\n  x-a: 2", b"/x", {"X-A": "1, 2"}),  # equal names are joined
        ("/x\n  Link: </a>; rel=preload\n  Link: </b>", b"/x", {"Link": "</a>; rel=preload, </b>"}),
        ("/*\n  X-A: 1\n/x\n  ! X-A", b"/x", {"X-A": None}),
        ("/*\n  X-A: 1\n/x\n  ! X-A\n  X-A: 2", b"/x", {"X-A": "2"}),
        ("/*\n  Content-Type: text/a\n/x\n  Content-Type: text/b", b"/x", {"Content-Type": "text/b"}),
        ("/u/:id\n  X-Id: <:id>", b"/u/7", {"X-Id": "<7>"}),
        ("/u/*\n  X-Rest: :splat and :other", b"/u/a\r\nb/c", {"X-Rest": "a%0D%0Ab/c and :other"}),
        ("# no\n/x\n  # no\n  X-A: 1 # part of it", b"/x", {"X-A": "1 # part of it"}),
        ("/x\n  Content-Security-Policy: default-src 'self' https: data:", b"/x", None),
    ],
)
def test_headers(rules: str, path: bytes, fields: dict[str, str | None] | None) -> None:
    if fields is None:
        fields = {"Content-Security-Policy": "default-src 'self' https: data:"}
    assert select(rules, path) == fields


def test_cookies_are_not_joined() -> None:
    found, _ = parse_headers(b"/*\n  Set-Cookie: a=1\n  Set-Cookie: b=2\n")
    assert found.select(b"/") == (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("  Content-Length: 5", "said by the server"),
        ("  Date: now", "said by the server"),
        ("  connection: close", "belongs to the connection"),
        ("  Transfer-Encoding: chunked", "belongs to the connection"),
        ("  ETag: x", "said by the server"),
        ("  X-Content-Type-Options: sniff", "nosniff"),
        ("  no colon", "Name: value"),
        ("  b ad: x", "Name: value"),
        ("  : x", "Name: value"),
        ("  X-A:", "no value"),
        ("  X-A: a\x00b", "control"),
        ("  X-A: a\rb", "control"),
        ("https://example.com/*", "begin with a slash"),
        ("/*/*", "may stand once"),
    ],
)
def test_bad_header_lines_are_told_by_their_number(line: str, says: str) -> None:
    rules, faults = parse_headers(f"/*\n  X-First: 1\n{line}\n  X-Last: 1\n".encode())
    ((number, text),) = faults
    assert number == 3
    assert says in text
    # Fields below a path that cannot be used belong to no other path.
    last = {} if not line.startswith(" ") else {"X-Last": "1"}
    assert dict(rules.select(b"/x")) == {"X-First": "1"} | last


def test_a_field_before_any_path() -> None:
    rules, faults = parse_headers(b"  X-A: 1\n/x\n  X-B: 2\n")
    assert [(fault.line, "before the first path" in fault.text) for fault in faults] == [(1, True)]
    assert dict(rules.select(b"/x")) == {"X-B": "2"}


def test_bounds() -> None:
    lines = "".join(f"/p{number}/* /x{number}\n" for number in range(MAX_PATTERNS + 5))
    redirects, faults = parse_redirects(lines.encode())
    assert len(redirects.rules) == MAX_PATTERNS
    assert len(faults) == 5
    redirects, faults = parse_redirects(b"/a /b\n" * 200_000)
    assert not redirects.rules
    assert [fault.line for fault in faults] == [1]


@repeatable
@given(st.binary(max_size=200), st.binary(max_size=30))
def test_anything_is_rules_or_faults(content: bytes, path: bytes) -> None:
    redirects, faults = parse_redirects(content)
    match = redirects.find(b"/" + path)
    if match is not None:
        assert match.target.startswith("/") or "://" in match.target
        assert not match.target.startswith(("//", "/\\"))
        assert match.target.isascii()
        assert match.target.isprintable()
    rules, more = parse_headers(content)
    for name, value in rules.select(b"/" + path):
        assert "\r" not in name + (value or "")
        assert "\n" not in name + (value or "")
    for found in (faults, more):
        assert all(one.line < other.line for one, other in pairwise(found))
