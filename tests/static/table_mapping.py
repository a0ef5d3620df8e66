"""Rows of sections 1 and 2: from a URL to a file, and methods."""

from __future__ import annotations

import json

from tests.responses import Response
from tests.static.table_fixture import A_TXT, BIG, FILES
from tests.static.table_rows import Expected, Row, build_request, get, miss, named

ALLOW = "GET, HEAD, OPTIONS"


def other(number: str, says: str, method: str, target: str, status: int, body: bytes = b"", **fields: Expected) -> Row:
    """A request with another method than GET, or with a body."""
    content = b"" if method == "HEAD" else None
    return Row(number, says, build_request(method, target, content=body), status, named(fields), content)


def application(says: str, method: str, target: str, body: bytes = b"") -> Row:
    """A request that an application beside the files gets as it was sent."""

    def check(response: Response) -> None:
        if method != "HEAD":
            environ = json.loads(response.body)["environ"]
            assert (environ["REQUEST_METHOD"], environ["RAW_URI"]) == (method, target)

    request = build_request(method, target, content=body)
    return Row("2.1", says, request, 200, {"ETag": None, "Last-Modified": None}, check, "beside")


MAPPING = (
    get("1.1", "decoded once", "/%61.txt", A_TXT),
    get("1.1", "either case of hex digits", "/d/%2E%2e/%61.txt", A_TXT),
    get("1.1", "a percent sign in a name", "/100%2541.txt", b"percent"),
    get("1.1", "dot segments inside the root", "/x/../a.txt", A_TXT),
    get("1.1", "encoded dot segments", "/x/%2e%2e/a.txt", A_TXT),
    get("1.1", "single dots", "/./d/./b.txt", b"b"),
    get("1.1", "slashes are merged", "//d///b.txt", b"b"),
    miss("1.1", "not decoded twice", "/%2561.txt"),
    miss("1.1", "not decoded twice", "/%252e%252e/outside/secret.txt"),
    miss("1.1", "no hex digits", "/%zz", 400),
    miss("1.1", "cut short", "/a.txt%2", 400),
    miss("1.1", "a percent sign alone", "/%", 400),
    miss("1.1", "NUL", "/a.txt%00", 400),
    miss("1.1", "NUL before another name", "/a.txt%00.html", 400),
    miss("1.1", "a slash inside a segment", "/d%2fb.txt", 400),
    miss("1.1", "a slash inside a segment", "/d%2Fb.txt", 400),
    miss("1.1", "above the root", "/..", 400),
    miss("1.1", "above the root", "/../a.txt", 400),
    miss("1.1", "above the root, encoded", "/%2e%2e/%2E%2e/etc/passwd", 400),
    miss("1.1", "above the root and back", "/d/../../d/b.txt", 400),
    miss("1.1", "above the root, late", "/d/e/../../../a.txt", 400),
    miss("1.1", "a backslash is no slash", "/d\\b.txt"),
    miss("1.1", "a backslash is no slash", "/d%5cb.txt"),
    miss("1.1", "a backslash is no slash", "/..%5c..%5coutside%5csecret.txt"),
    get("1.1", "a backslash is an ordinary byte", "/%5Cevil.example/", FILES["\\evil.example/index.html"]),
    # 1.2
    miss("1.2", "a FIFO, at once", "/fifo"),
    miss("1.2", "a directory with the name of a file", "/directory.css.gz/x/"),
    # 1.3
    get("1.3", "a relative link", "/link.txt", A_TXT),
    get("1.3", "a relative link to a directory", "/linked/b.txt", b"b"),
    miss("1.3", "a link that climbs out", "/out.txt"),
    miss("1.3", "below a link that climbs out", "/out/secret.txt"),
    miss("1.3", "the index of a link that climbs out", "/out/"),
    miss("1.3", "the slash of a link that climbs out", "/out"),
    miss("1.3", "a link that climbs out and back", "/back.txt"),
    miss("1.3", "an absolute link", "/absolute.txt"),
    miss("1.3", "a link that leads nowhere", "/dangling.txt"),
    miss("1.3", "a link that leads to itself", "/loop.txt"),
    get("1.3", "links allowed: out", "/out.txt", b"secret", server="follow"),
    get("1.3", "links allowed: out and back", "/back.txt", A_TXT, server="follow"),
    get("1.3", "links allowed: absolute", "/absolute.txt", A_TXT, server="follow"),
    get("1.3", "links allowed: a directory", "/out/secret.txt", b"secret", server="follow"),
    miss("1.3", "links allowed: above the root", "/../outside/secret.txt", 400, server="follow"),
    miss("1.3", "links allowed: dot-files", "/.env", server="follow"),
    miss("1.3", "dot-file", "/.env"),
    miss("1.3", "dot-file, encoded", "/%2eenv"),
    miss("1.3", "dot-file by a detour", "/d/../.env"),
    miss("1.3", "dot-directory", "/.git/config"),
    miss("1.3", "dot-directory", "/.git/"),
    miss("1.3", "dot-directory without its slash", "/.git"),
    miss("1.3", "dot-file below", "/d/.hidden"),
    get("1.3", "well-known", "/.well-known/security.txt", b"Contact: x"),
    get("1.3", "well-known, encoded", "/%2ewell-known/security.txt", b"Contact: x"),
    miss("1.3", "dot-file in well-known", "/.well-known/.secret"),
    miss("1.3", "well-known is the first segment only", "/d/.well-known/x"),
    miss("1.3", "rules", "/_headers"),
    miss("1.3", "rules", "/_redirects"),
    miss("1.3", "rules, encoded", "/%5fheaders"),
    miss("1.3", "rules below", "/d/_headers"),
    miss("1.3", "configuration", "/epollwsgi.toml"),
    miss("1.3", "configuration", "/gunicorn.conf.py"),
    miss("1.3", "configuration below", "/d/pyproject.toml"),
    # 1.4
    miss("1.4", "a name too long", "/" + "x" * 300),
    miss("1.4", "a path too long", "/" + "x/" * 3000),
    miss("1.4", "a file is no directory", "/a.txt/b"),
    miss("1.4", "a file is no directory", "/a.txt/"),
    get("1.4", "names are bytes", "/%ff%fe.txt", b"bytes"),
    get("1.4", "names in UTF-8", "/gr%C3%BCn.txt", b"green"),
    miss("1.4", "names are bytes: another encoding is another name", "/gr%FCn.txt"),
    miss("1.4", "case", "/A.TXT"),
    miss("1.4", "case of a directory", "/D/b.txt"),
    miss("1.4", "no parameters", "/a.txt;v=1"),
    miss("1.4", "no trailing dot", "/a.txt."),
    miss("1.4", "no trailing space", "/a.txt%20"),
    miss("1.4", "no home directories", "/~root"),
    # 1.6
    get("1.6", "queries", "/a.txt?v=1", A_TXT),
    get("1.6", "queries", "/a.txt?../../x&%zz%00", A_TXT),
    get("1.6", "an empty query", "/a.txt?", A_TXT),
    get("1.6", "a second question mark", "/d/b.txt?x?/../y", b"b"),
)

METHODS = (
    get("2.1", "a file", "/a.txt", A_TXT, server="beside"),
    get("2.1", "an index", "/d/", FILES["d/index.html"], server="beside"),
    get("2.1", "the slash of a directory with an index", "/d", None, status=301, server="beside", Location="/d/"),
    application("a miss", "GET", "/nothing"),
    application("a miss, with a query", "GET", "/nothing?x=%20y"),
    application("a miss, HEAD", "HEAD", "/nothing"),
    application("a directory without index", "GET", "/l/"),
    application("a directory without index, without its slash", "GET", "/l"),
    application("what is hidden", "GET", "/.env"),
    application("rules", "GET", "/_headers"),
    application("what is no path", "GET", "/%zz"),
    application("what leads out", "GET", "/../a.txt"),
    application("a link that leads out", "GET", "/out.txt"),
    application("another method on a file", "POST", "/a.txt", b"x=1"),
    application("another method on a directory", "DELETE", "/d/"),
    application("OPTIONS", "OPTIONS", "/a.txt"),
    other("2.2", "OPTIONS", "OPTIONS", "/a.txt", 204, Allow=ALLOW, Content_Length=None),
    other("2.2", "OPTIONS of what is missing", "OPTIONS", "/nothing", 204, Allow=ALLOW),
    other("2.2", "POST", "POST", "/a.txt", 405, b"x=1", Allow=ALLOW),
    other("2.2", "PUT", "PUT", "/a.txt", 405, b"x", Allow=ALLOW),
    other("2.2", "DELETE of a page", "DELETE", "/d/", 405, Allow=ALLOW),
    other("2.2", "PATCH of a file with copies", "PATCH", "/p.js", 405, b"x", Allow=ALLOW),
    other("2.2", "TRACE", "TRACE", "/a.txt", 405, Allow=ALLOW),
    other("2.2", "a method nobody knows", "FETCH", "/a.txt", 405, Allow=ALLOW),
    other("2.2", "methods have a case", "get", "/a.txt", 405, Allow=ALLOW),
    other("2.2", "another method on a missing file", "POST", "/nothing", 404, b"x=1"),
    other("2.2", "another method on a dot-file", "DELETE", "/.env", 404),
    other("2.3", "HEAD", "HEAD", "/a.txt", 200, Content_Length="1000", ETag="{etag /a.txt}", Accept_Ranges="bytes"),
    other("2.3", "HEAD, large", "HEAD", "/big.bin", 200, Content_Length=str(len(BIG))),
    other("2.3", "HEAD, missing", "HEAD", "/nothing", 404),
    other("2.3", "HEAD, a redirect", "HEAD", "/d", 301, Location="/d/"),
    other("2.4", "a body is read over", "POST", "/a.txt", 405, b"x" * 30_000),
    other("2.4", "a body is read over, with GET", "GET", "/q.css", 200, b"x" * 3000),
)
ROWS = MAPPING + METHODS
