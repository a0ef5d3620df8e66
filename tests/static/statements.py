"""The statements of STATIC.md as requests: what a live server answers, site alone and beside an application.

A row is (number, what it says, request line's method and target, field lines, status, fields, content). In field lines
and in expected fields {E} stands for the ETag of a.txt and {L} for Last-Modified; an expected None means absent.
Content is bytes, or None for whatever fits its length.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.static.support import A_TXT, BIG, FILES

Fields = dict[str, str | None]


class Statement(NamedTuple):
    """One row."""

    number: str
    says: str
    method: str
    target: str
    lines: tuple[str, ...] = ()
    status: int = 200
    fields: Fields = {}  # noqa: RUF012 - never changed
    content: bytes | None = None


def get(number: str, says: str, target: str, content: bytes | None, **fields: str | None) -> Statement:
    """A plain GET that gets a file."""
    named: Fields = {name.replace("_", "-"): value for name, value in fields.items()}
    return Statement(number, says, "GET", target, (), 200, named, content)


def miss(number: str, says: str, target: str, status: int = 404) -> Statement:
    """A plain GET that gets none."""
    return Statement(number, says, "GET", target, (), status)


def ask(number: str, line: str, status: int, content: bytes | None = None, **fields: str | None) -> Statement:
    """A GET of a.txt with one or more field lines, parted by |."""
    named: Fields = {name.replace("_", "-"): value for name, value in fields.items()}
    return Statement(number, f"{line} gives {status}", "GET", "/a.txt", tuple(line.split("|")), status, named, content)


def ranged(line: str, first: int, last: int) -> Statement:
    """A range of a.txt that is sent."""
    return ask(
        "4.1",
        line,
        206,
        A_TXT[first : last + 1],
        Content_Range=f"bytes {first}-{last}/1000",
        ETag="{E}",
        Last_Modified="{L}",
        Cache_Control="no-cache",
        Accept_Ranges="bytes",
    )


def unranged(line: str) -> Statement:
    """A range of a.txt that is ignored."""
    return ask("4.2", line, 200, A_TXT, Content_Range=None, Accept_Ranges="bytes")


def not_modified(line: str) -> Statement:
    """Conditions on a.txt that give 304."""
    return ask(
        "3.5",
        line,
        304,
        b"",
        ETag="{E}",
        Last_Modified="{L}",
        Cache_Control="no-cache",
        Content_Length=None,
        Content_Type=None,
        Content_Encoding=None,
    )


STATEMENTS: tuple[Statement, ...] = (
    # 1: mapping
    get("1.1", "decoded once", "/%61.txt", A_TXT),
    get("1.1", "dot segments inside the root", "/x/../a.txt", A_TXT),
    get("1.1", "encoded dot segments", "/x/%2e%2e/a.txt", A_TXT),
    get("1.1", "slashes are merged", "//d///b.txt", FILES["d/b.txt"]),
    miss("1.1", "not decoded twice", "/%2561.txt"),
    miss("1.1", "broken encoding", "/%zz", 400),
    miss("1.1", "cut encoding", "/a.txt%2", 400),
    miss("1.1", "NUL", "/a.txt%00", 400),
    miss("1.1", "an encoded slash", "/d%2fb.txt", 400),
    miss("1.1", "above the root", "/../a.txt", 400),
    miss("1.1", "above the root, encoded", "/%2e%2e/%2E%2e/etc/passwd", 400),
    miss("1.1", "above the root and back", "/d/../../d/b.txt", 400),
    miss("1.1", "a backslash is no slash", "/d\\b.txt"),
    miss("1.1", "a backslash is no slash", "/..%5c..%5cetc/passwd"),
    miss("1.3", "dot-file", "/.env"),
    miss("1.3", "dot-directory", "/.git/config"),
    miss("1.3", "dot-file below", "/d/.hidden"),
    get("1.3", "well-known", "/.well-known/security.txt", FILES[".well-known/security.txt"]),
    miss("1.3", "dot-file in well-known", "/.well-known/.secret"),
    miss("1.3", "well-known is the first segment only", "/d/.well-known/x"),
    miss("1.3", "rules", "/_headers"),
    miss("1.3", "rules", "/_redirects"),
    miss("1.3", "configuration", "/epollwsgi.toml"),
    miss("1.3", "a link that climbs out", "/out.txt"),
    miss("1.3", "a link that climbs out and back", "/back.txt"),
    miss("1.3", "an absolute link", "/absolute.txt"),
    get("1.3", "a relative link", "/link.txt", A_TXT),
    miss("1.2", "a FIFO", "/fifo"),
    miss("1.4", "a name too long", "/" + "x" * 300),
    miss("1.4", "a path too long", "/" + "x/" * 3000),
    miss("1.4", "a file is no directory", "/a.txt/b"),
    get("1.4", "names are bytes", "/%ff%fe.txt", b"bytes"),
    miss("1.4", "case", "/A.TXT"),
    miss("1.4", "no parameters", "/a.txt;v=1"),
    miss("1.4", "no trailing dot", "/a.txt."),
    miss("1.4", "no home directories", "/~root"),
    get("1.6", "queries", "/a.txt?../../x&%zz", A_TXT),
    # 2: methods
    Statement("2", "HEAD", "HEAD", "/a.txt", (), 200, {"Content-Length": "1000", "ETag": "{E}"}, b""),
    Statement("2", "HEAD, large", "HEAD", "/big.bin", (), 200, {"Content-Length": str(len(BIG))}, b""),
    Statement("2", "HEAD, missing", "HEAD", "/nothing", (), 404, {}, b""),
    Statement("2", "OPTIONS", "OPTIONS", "/a.txt", (), 204, {"Allow": "GET, HEAD, OPTIONS", "Content-Length": None}),
    Statement("2", "POST", "POST", "/a.txt", ("Content-Length: 0",), 405, {"Allow": "GET, HEAD, OPTIONS"}),
    Statement("2", "DELETE", "DELETE", "/d/", (), 405, {"Allow": "GET, HEAD, OPTIONS"}),
    Statement("2", "another, missing", "PUT", "/nothing", ("Content-Length: 0",), 404),
    # 3: conditions
    not_modified("If-None-Match: {E}"),
    not_modified("If-None-Match: W/{E}"),
    not_modified('If-None-Match: "x", {E}'),
    not_modified("If-None-Match: *"),
    not_modified('If-None-Match: "x"|If-None-Match: {E}'),
    not_modified("If-None-Match: {E}|If-None-Match: {E}"),
    not_modified("If-None-Match: {E}|If-Modified-Since: Mon, 01 Jan 1990 00:00:00 GMT"),
    not_modified("If-Modified-Since: {L}"),
    not_modified("If-Modified-Since: Wed Jan  1 00:00:00 2020"),
    not_modified("If-Modified-Since: Wednesday, 01-Jan-20 00:00:00 GMT"),
    not_modified("If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT"),
    not_modified("If-None-Match: {E}|Range: bytes=0-0"),
    ask("3.1", 'If-None-Match: "x"|If-Modified-Since: {L}', 200, A_TXT),
    ask("3.1", 'If-None-Match: "x"', 200, A_TXT),
    ask("3.4", "If-None-Match: unquoted", 200, A_TXT),
    ask("3.2", "If-Modified-Since: Mon, 01 Jan 1990 00:00:00 GMT", 200, A_TXT),
    ask("3.2", "If-Modified-Since: yesterday", 200, A_TXT),
    ask("3.3", "If-Match: {E}", 200, A_TXT),
    ask("3.3", 'If-Match: "x", {E}', 200, A_TXT),
    ask("3.3", "If-Match: *", 200, A_TXT),
    ask("3.3", 'If-Match: "x"', 412),
    ask("3.3", "If-Match: W/{E}", 412),
    ask("3.3", "If-Match: {E}|If-Unmodified-Since: Mon, 01 Jan 1990 00:00:00 GMT", 200, A_TXT),
    ask("3.3", "If-Unmodified-Since: Mon, 01 Jan 1990 00:00:00 GMT", 412),
    ask("3.3", "If-Unmodified-Since: {L}", 200, A_TXT),
    Statement("3.4", "a missing file", "GET", "/nothing", ("If-None-Match: *",), 404),
    Statement("3.4", "a missing file", "GET", "/nothing", ('If-Match: "x"',), 404),
    # 4: ranges
    ranged("Range: bytes=0-0", 0, 0),
    ranged("Range: bytes=-1", 999, 999),
    ranged("Range: bytes=990-", 990, 999),
    ranged("Range: bytes=990-5000", 990, 999),
    ranged("Range: bytes=-5000", 0, 999),
    ranged("Range: Bytes=0-1", 0, 1),
    ranged("Range: bytes= 0-1", 0, 1),
    ranged("Range: bytes=0-1,", 0, 1),
    ranged("Range: bytes=0-" + "9" * 1000, 0, 999),
    ranged("Range: bytes=0-1|If-Range: {E}", 0, 1),
    ranged("Range: bytes=0-1|If-Range: {L}", 0, 1),
    ask("4.1", "Range: bytes=-0", 416, None, Content_Range="bytes */1000"),
    ask("4.1", "Range: bytes=1000-", 416, None, Content_Range="bytes */1000"),
    ask("4.5", "Range: bytes=1000-|If-Range: {E}", 416, None, Content_Range="bytes */1000"),
    unranged("Range: items=0-1"),
    unranged("Range: bytes="),
    unranged("Range: bytes=5-2"),
    unranged("Range: bytes=abc"),
    unranged("Range: bytes=10"),
    unranged("Range: bytes=--1"),
    unranged("Range: bytes=0_0-1"),
    unranged("Range: bytes=+0-1"),
    unranged("Range: bytes=\xb2-\xb3"),
    unranged("Range: bytes=0-1|Range: bytes=2-3"),
    unranged("Range: bytes=" + ",".join(["0-0"] * 17)),
    unranged("Range: bytes=0-999,0-999,0-999"),
    unranged("Range: bytes=0-1|If-Range: W/{E}"),
    unranged('Range: bytes=0-1|If-Range: "x"'),
    unranged("Range: bytes=1000-|If-Range: Mon, 01 Jan 1990 00:00:00 GMT"),
    unranged("If-Range: {E}"),
    Statement("4.4", "HEAD", "HEAD", "/a.txt", ("Range: bytes=0-0",), 200, {"Content-Length": "1000"}, b""),
    Statement("4.4", "an empty file", "GET", "/empty", ("Range: bytes=0-0",), 200, {"Content-Length": "0"}, b""),
    Statement(
        "4.1",
        "of a large file",
        "GET",
        "/big.bin",
        ("Range: bytes=100000-150000",),
        206,
        {"Content-Range": f"bytes 100000-150000/{len(BIG)}", "Content-Length": "50001"},
        BIG[100_000:150_001],
    ),
    Statement("4.4", "a redirect", "GET", "/d", ("Range: bytes=0-0",), 301, {"Location": "/d/"}),
    # 5: codings
    get("5.4", "a compressed file itself", "/p.js.gz", FILES["p.js.gz"], Content_Type="application/gzip"),
    get("5.4", "a compressed file itself", "/p.js.gz", FILES["p.js.gz"], Content_Encoding=None),
    # 6, 7: validators and fields
    get("6", "validators", "/a.txt", A_TXT, ETag="{E}", Last_Modified="{L}", Accept_Ranges="bytes"),
    get("6", "the edge of the memory tier", "/edge.bin", FILES["edge.bin"]),
    get("6", "one byte more", "/over.bin", FILES["over.bin"]),
    get("6", "a large file", "/big.bin", BIG, Content_Length=str(len(BIG)), Accept_Ranges="bytes"),
    get("7.1", "text", "/a.txt", A_TXT, Content_Type="text/plain; charset=utf-8", X_Content_Type_Options="nosniff"),
    get("7.1", "script", "/p.js", FILES["p.js"], Content_Type="text/javascript; charset=utf-8"),
    get("7.1", "unknown", "/empty", b"", Content_Type="application/octet-stream"),
    get("7.2", "a page", "/about.html", FILES["about.html"], Cache_Control="no-cache"),
    get(
        "7.2",
        "a hash in the name",
        "/app.3f2a1b9c.js",
        FILES["app.3f2a1b9c.js"],
        Cache_Control="public, max-age=31536000, immutable",
    ),
    # 8: directories and errors
    Statement("8.1", "the slash", "GET", "/d", ("Host: evil.example",), 301, {"Location": "/d/"}),
    Statement("8.1", "the query is kept", "GET", "/d?a=%20b", (), 301, {"Location": "/d/?a=%20b"}),
    Statement("8.1", "no other host", "GET", "//d", (), 301, {"Location": "/d/"}),
    Statement("8.1", "encoded anew", "GET", "/sp%20ace", (), 301, {"Location": "/sp%20ace/"}),
    get("8.1", "index", "/d/", FILES["d/index.html"], Content_Type="text/html; charset=utf-8"),
    get("8.1", "index of the root", "/", FILES["index.html"]),
    miss("8.1", "no index", "/l/"),
    get("8.2", "name.html", "/about", FILES["about.html"]),
    get("8.2", "the exact file first", "/both", FILES["both"]),
    get("8.2", "name.html before a directory", "/m", FILES["m.html"]),
    Statement("8.3", "the page", "GET", "/nothing", (), 404, {"Cache-Control": "no-cache"}, FILES["404.html"]),
    Statement("8.3", "the nearest page", "GET", "/d/e/x", (), 404, {"ETag": None}, FILES["d/404.html"]),
    Statement("8.3", "never a part", "GET", "/x", ("Range: bytes=0-0",), 404, {}, FILES["404.html"]),
)
