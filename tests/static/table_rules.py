"""Rows of sections 7 and 8: fields, rules, directories, pretty URLs, errors."""

from __future__ import annotations

import json
from urllib.parse import unquote

from tests.pages import Page
from tests.responses import Response
from tests.static.table_fixture import A_TXT, BIG, FILES, P_JS, SECRET, TYPES
from tests.static.table_rows import Row, build_request, contains, get, has_members, miss

IMMUTABLE = "public, max-age=31536000, immutable"
HTML = "text/html; charset=utf-8"
LOST = FILES["404.html"]
PAGE = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"


def typed(extension: str, media_type: str) -> Row:
    """A file with this extension."""
    return get(
        "7.1",
        extension,
        f"/types/f.{extension}",
        b"content",
        Content_Type=media_type,
        X_Content_Type_Options="nosniff",
    )


def kept(name: str, how: str) -> Row:
    """A file that may be kept so long."""
    return get("7.2", name, f"/{name}", FILES[name], Cache_Control=how)


def sent_on(says: str, target: str, location: str, status: int = 301, number: str = "7.3") -> Row:
    """A request that is redirected."""
    return get(number, says, target, None, status=status, beside=True, Location=location)


FIELDS = (
    *(typed(extension, media_type) for extension, media_type in TYPES.items()),
    get(
        "7.1", "no extension", "/empty", b"", Content_Type="application/octet-stream", X_Content_Type_Options="nosniff"
    ),
    get("7.1", "nosniff on 304", "/a.txt", b"", "If-None-Match: *", status=304, X_Content_Type_Options="nosniff"),
    get("7.1", "nosniff on 404", "/nothing", LOST, status=404, X_Content_Type_Options="nosniff", Content_Type=HTML),
    kept("about.html", "no-cache"),
    kept("a.txt", "no-cache"),
    kept("p.js", "no-cache"),
    kept("app.3f2a1b9c.js", IMMUTABLE),
    kept("style-0a1b2c3d4e5f.css", IMMUTABLE),
    kept("app.20240131.js", "no-cache"),
    kept("app.deadbeef.js", "no-cache"),
    kept("app.3f2a1b9.js", "no-cache"),
    kept("page.3f2a1b9c.html", "no-cache"),
    get("7.2", "a missing name with a hash", "/gone.3f2a1b9c.js", LOST, status=404, Cache_Control="no-cache"),
    get("7.2", "no-cache has a tag", "/about.html", None, ETag=lambda value: value is not None),
)

RULES = (
    get("7.3", "a splat", "/h/x.txt", b"x", X_Team="one", Cache_Control="max-age=60"),
    get("7.3", "all that match are joined", "/h/deep/x.txt", b"x", X_Team="one, two"),
    get("7.3", "a name", "/h/any/named.txt", b"x", X_Name="found", X_Team="one"),
    get("7.3", "elsewhere nothing", "/d/b.txt", b"b", X_Team=None, Cache_Control="no-cache"),
    get("7.3", "by what the path means", "/d/../h//%78.txt", b"x", X_Team="one"),
    get("7.3", "304", "/h/x.txt", b"", "If-None-Match: *", status=304, X_Team="one", Cache_Control="max-age=60"),
    get("7.3", "206", "/h/x.txt", b"x", "Range: bytes=0-0", status=206, X_Team="one", Cache_Control="max-age=60"),
    get("7.3", "Vary is merged", "/vary/p.js", P_JS, Vary=has_members("Origin", "Accept-Encoding")),
    sent_on("the default", "/old", "/a.txt"),
    sent_on("302", "/found", "/a.txt", 302),
    sent_on("303", "/see", "/a.txt", 303),
    sent_on("307", "/temporary", "/a.txt", 307),
    sent_on("308", "/permanent", "/a.txt", 308),
    sent_on("the query is kept", "/old?a=%20b&c", "/a.txt?a=%20b&c"),
    sent_on("the query of the rule is kept", "/with-query", "/a.txt?fixed=1", 302),
    sent_on("the first that matches", "/first", "/a.txt", 302),
    sent_on("a splat", "/splat/e/c.txt", "/d/e/c.txt"),
    sent_on("a splat, encoded", "/splat/%20%C3%BC", "/d/%20%C3%BC"),
    sent_on("names", "/blog/2024/summer", "/news/summer/2024", 302),
    sent_on("another host", "/elsewhere", "https://other.example/start", 302),
    sent_on("another host with a splat", "/elsewhere/x/y", "https://other.example/x/y", 302),
    sent_on("a file that is overridden", "/forced.txt", "/about.html", 302),
    get("7.3", "a file that is not overridden", "/a.txt", A_TXT, Location=None),
    get("7.3", "a rewrite", "/rewritten", A_TXT, beside=True, Location=None, ETag="{etag /a.txt}"),
    get("7.3", "a rewrite has ranges", "/rewritten", A_TXT[:1], "Range: bytes=0-0", status=206, beside=True),
    get("7.3", "a rewrite, HEAD", "/rewritten", b"", "If-None-Match: *", status=304, beside=True),
    get("7.3", "a page for what was taken down", "/taken-down", FILES["d/404.html"], status=404, beside=True),
    miss("7.3", "a name is one segment", "/blog/2024/summer/extra"),
    miss("7.3", "no rule", "/oldest"),
)


ODD_NAME = "<b>&\"'.txt"


def check_listing(response: Response) -> None:
    """The listing of l/ as a page."""
    page = Page(response.body.decode("utf-8"))
    names = {unquote(link).removesuffix("/").rpartition("/")[2] for link in page.links()}
    assert {"x.txt", "sub", ODD_NAME} <= names
    assert names.isdisjoint({".dot", "out"})
    assert page.all("b") == []
    assert page.faults == []
    assert any(ODD_NAME in text for texts in page.texts.values() for text in texts)
    assert SECRET not in response.body
    assert b"color-scheme" in response.body
    assert "default-src 'none'" in response["Content-Security-Policy"]


def check_json_listing(response: Response) -> None:
    """The listing of l/ as JSON."""
    text = json.dumps(json.loads(response.body), ensure_ascii=False)
    for name in ("x.txt", "sub", ODD_NAME):
        assert json.dumps(name)[1:-1] in text
    for hidden in (".dot", '"out', SECRET.decode("ascii")):
        assert hidden not in text


DIRECTORIES = (
    sent_on("the slash", "/d", "/d/", number="8.1"),
    get("8.1", "Host is never used", "/d", None, "Host: evil.example", status=301, Location="/d/"),
    sent_on("the query is kept", "/d?a=%20b", "/d/?a=%20b", number="8.1"),
    sent_on("a query that looks like a path", "/d?//evil.example/", "/d/?//evil.example/", number="8.1"),
    sent_on("never two slashes", "//d", "/d/", number="8.1"),
    sent_on("a name that looks like a host", "//evil.example", "/evil.example/", number="8.1"),
    sent_on("a backslash", "/%5Cevil.example", "/%5Cevil.example/", number="8.1"),
    sent_on("a backslash as it is", "/\\evil.example", "/%5Cevil.example/", number="8.1"),
    sent_on("a space", "/sp%20ace", "/sp%20ace/", number="8.1"),
    sent_on("a line break", "/crlf%0d%0aSet-Cookie:%20x=1", "/crlf%0D%0ASet-Cookie:%20x=1/", number="8.1"),
    sent_on("what is needlessly encoded", "/%64", "/d/", number="8.1"),
    get("8.1", "index", "/d/", FILES["d/index.html"], Content_Type=HTML),
    get("8.1", "index of the root", "/", FILES["index.html"], Content_Type=HTML),
    get("8.1", "index by its name", "/d/index.html", FILES["d/index.html"]),
    get("8.1", "no index, no listing", "/l/", LOST, status=404),
    get("8.1", "a listing", "/l/", check_listing, PAGE, server="listing", Content_Type=HTML),
    get(
        "8.1",
        "a listing as JSON",
        "/l/",
        check_json_listing,
        "Accept: application/json",
        server="listing",
        Content_Type=lambda value: value is not None and value.startswith("application/json"),
    ),
    get("8.1", "an index goes before a listing", "/d/", FILES["d/index.html"], server="listing"),
    get("8.1", "no listing of what is hidden", "/.git/", None, status=404, server="listing"),
    get("8.1", "no listing of what lies outside", "/l/out/", None, status=404, server="listing"),
    sent_on("the slash of a listing", "/l/sub", "/l/sub/", number="8.1")._replace(server="listing"),
    Row(
        "8.1",
        "a listing, HEAD",
        build_request("HEAD", "/l/", (PAGE,)),
        200,
        {"Content-Type": HTML},
        b"",
        "listing",
    ),
    get("8.2", "name.html", "/about", FILES["about.html"], Content_Type=HTML, Location=None),
    get("8.2", "the exact file first", "/both", FILES["both"]),
    get("8.2", "name.html before a directory", "/m", FILES["m.html"]),
    get("8.2", "a directory by its slash", "/m/", FILES["m/index.html"]),
    get("8.2", "no name.html with a slash", "/about/", LOST, status=404),
    get("8.2", "the whole name", "/about.html", FILES["about.html"]),
    sent_on("pretty", "/about.html", "/about", number="8.2")._replace(server="pretty"),
    sent_on("pretty, the query is kept", "/about.html?x=1", "/about?x=1", number="8.2")._replace(server="pretty"),
    get("8.2", "pretty: the short name", "/about", FILES["about.html"], server="pretty"),
    get("8.2", "pretty: other files stay", "/a.txt", A_TXT, server="pretty"),
    get("8.2", "pretty: a name that another file has", "/both", FILES["both"], server="pretty"),
    get("8.2", "pretty: a missing page", "/nothing.html", LOST, status=404, server="pretty"),
)

ERRORS = (
    get("8.3", "the page", "/nothing", LOST, status=404, Cache_Control="no-cache", ETag=None, Last_Modified=None),
    get("8.3", "the nearest page", "/d/e/x", FILES["d/404.html"], status=404, Cache_Control="no-cache"),
    get("8.3", "the nearest page of a directory", "/d/none/", FILES["d/404.html"], status=404),
    get("8.3", "no page of a hidden directory", "/.git/x", LOST, status=404),
    get("8.3", "never a part", "/x", LOST, "Range: bytes=0-0", status=404, Content_Range=None),
    get("8.3", "never 304", "/x", LOST, "If-None-Match: *", status=404),
    get("8.3", "the page by its name is a file", "/404.html", LOST, ETag=lambda value: value is not None),
    get("8.4", "a page of the application", "/some/where", FILES["index.html"], PAGE, server="spa", Content_Type=HTML),
    get("8.4", "it may change at any time", "/some/where", None, PAGE, server="spa", Cache_Control="no-cache"),
    Row(
        "8.4",
        "HEAD",
        build_request("HEAD", "/some/where", (PAGE,)),
        200,
        {"Content-Length": str(len(FILES["index.html"]))},
        b"",
        "spa",
    ),
    get("8.4", "no page is asked for", "/some/where", None, "Accept: application/json", status=404, server="spa"),
    get("8.4", "nothing is asked for", "/some/where", None, status=404, server="spa"),
    get("8.4", "anything is asked for", "/some/where", None, "Accept: */*", status=404, server="spa"),
    get("8.4", "a missing asset", "/some/app.js", None, PAGE, status=404, server="spa"),
    get("8.4", "what is hidden", "/.env", contains(without=(SECRET,)), PAGE, status=404, server="spa"),
    get("8.4", "files go before", "/a.txt", A_TXT, PAGE, server="spa"),
    get("8.4", "directories too", "/d/", FILES["d/index.html"], PAGE, server="spa"),
    get("8.4", "no path", "/%zz", None, PAGE, status=400, server="spa"),
    Row("8.4", "another method", build_request("POST", "/some/where", (PAGE,)), 404, {}, None, "spa"),
    get("8.5", "a miss", "/nothing", contains(b'"environ"'), server="beside"),
    Row("8.5", "a miss, POST", build_request("POST", "/nothing", content=b"x"), 200, {}, contains(b'"POST"'), "beside"),
    get("8.5", "the site's page is not the application's", "/d/none", contains(without=(b"lost",)), server="beside"),
    get("8.5", "large files too", "/big.bin", BIG, server="beside"),
)
ROWS = FIELDS + RULES + DIRECTORIES + ERRORS
