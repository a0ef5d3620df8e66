"""static.handler: methods, conditions, ranges, fields, redirects and error pages. STATIC.md sections 2 to 8."""

from __future__ import annotations

from pathlib import Path

import pytest

from epollwsgi.http.dates import format_date
from tests.static.rows import FOUND, MISSING, REFUSED
from tests.static.support import A_TXT, BIG, FILES, MODIFIED, Ticking, content_of, fields_of, write

L = format_date(MODIFIED)


# --- methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path, _ in FOUND] + MISSING + REFUSED + ["/d", "/l"], ids=lambda p: p[:30])
def test_head_has_the_headers_of_get(alone: Ticking, beside: Ticking, path: str) -> None:
    get, head = alone.get(path), alone.get(path, "HEAD")
    assert (head.status, head.head) == (get.status, get.head)
    assert (head.body, head.file, head.count) == (b"", None, 0)
    one, other = beside.ask(path), beside.ask(path, "HEAD")
    assert (one is None) == (other is None)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "get", "OPTIONS"])
def test_other_methods(alone: Ticking, beside: Ticking, method: str) -> None:
    for path in ("/a.txt", "/", "/d", "/d/", "/nothing", "/.env", "/%zz"):
        assert beside.ask(path, method) is None
    if method == "OPTIONS":
        for path in ("/a.txt", "/", "/nothing"):
            reply = alone.get(path, method)
            assert (reply.status, reply.body) == (204, b"")
            assert fields_of(reply)["Allow"] == "GET, HEAD, OPTIONS"
            assert "Content-Length" not in fields_of(reply)
        return
    for path in ("/a.txt", "/", "/d", "/d/", "/big.bin"):
        reply = alone.get(path, method)
        assert reply.status == 405
        assert fields_of(reply)["Allow"] == "GET, HEAD, OPTIONS"
        assert fields_of(reply)["Content-Length"] == str(len(reply.body))
    for path in ("/nothing", "/.env", "/l/"):
        assert alone.get(path, method).status == 404
    assert alone.get("/%zz", method).status == 400


def test_preconditions_do_not_come_before_the_method_or_the_file(alone: Ticking) -> None:
    assert alone.get("/a.txt", "POST", HTTP_IF_MATCH='"x"').status == 405
    assert alone.get("/nothing", HTTP_IF_NONE_MATCH="*").status == 404
    assert alone.get("/nothing", HTTP_IF_MATCH="*").status == 404
    assert alone.get("/nothing", HTTP_RANGE="bytes=0-0").status == 404
    assert alone.get("/d", HTTP_IF_NONE_MATCH="*").status == 301


# --- conditions and ranges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/a.txt", "/big.bin", "/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditional_requests(alone: Ticking, path: str, method: str) -> None:
    plain = fields_of(alone.get(path))
    etag = plain["ETag"]
    rows: list[tuple[dict[str, str], int]] = [
        ({"HTTP_IF_NONE_MATCH": etag}, 304),
        ({"HTTP_IF_NONE_MATCH": f'"x", W/{etag}'}, 304),
        ({"HTTP_IF_NONE_MATCH": '"x"', "HTTP_IF_MODIFIED_SINCE": L}, 200),
        ({"HTTP_IF_MODIFIED_SINCE": L}, 304),
        ({"HTTP_IF_MODIFIED_SINCE": format_date(MODIFIED - 1)}, 200),
        ({"HTTP_IF_MODIFIED_SINCE": "Wednesday, 01-Jan-20 00:00:00 GMT"}, 304),
        ({"HTTP_IF_MATCH": etag}, 200),
        ({"HTTP_IF_MATCH": '"x"'}, 412),
        ({"HTTP_IF_UNMODIFIED_SINCE": L}, 200),
        ({"HTTP_IF_UNMODIFIED_SINCE": format_date(MODIFIED - 1)}, 412),
        ({"HTTP_IF_NONE_MATCH": etag, "HTTP_RANGE": "bytes=0-0"}, 304),
        ({"HTTP_IF_MATCH": '"x"', "HTTP_RANGE": "bytes=9999999-"}, 412),
    ]
    for fields, status in rows:
        reply = alone.get(path, method, **fields)
        assert reply.status == status, fields
        found = fields_of(reply)
        if status == 304:
            assert content_of(reply) == b""
            shared = ("ETag", "Last-Modified", "Cache-Control", "X-Content-Type-Options")
            assert found == {name: plain[name] for name in shared}
        if status == 200:
            assert found == plain
            assert len(content_of(reply)) == (0 if method == "HEAD" else int(plain["Content-Length"]))
        if status == 412:
            assert "ETag" not in found
            assert content_of(reply) == (b"" if method == "HEAD" else b"412 Precondition Failed\n")


@pytest.mark.parametrize(("path", "content"), [("/a.txt", A_TXT), ("/big.bin", BIG)])
def test_ranges(alone: Ticking, path: str, content: bytes) -> None:
    plain = fields_of(alone.get(path))
    size = len(content)
    for text, first, last in [
        ("0-0", 0, 0),
        ("-1", size - 1, size - 1),
        (f"{size - 10}-", size - 10, size - 1),
        (f"{size - 10}-{size + 5000}", size - 10, size - 1),
        (f"-{size + 5000}", 0, size - 1),
        ("100-899", 100, 899),
    ]:
        for condition in (None, plain["ETag"], L):
            more = {} if condition is None else {"HTTP_IF_RANGE": condition}
            reply = alone.get(path, HTTP_RANGE=f"bytes={text}", **more)
            assert reply.status == 206
            assert content_of(reply) == content[first : last + 1]
            assert fields_of(reply) == plain | {
                "Content-Range": f"bytes {first}-{last}/{size}",
                "Content-Length": str(last - first + 1),
            }
    for text in (f"{size}-", "-0", f"{size}-{size + 5}"):
        reply = alone.get(path, HTTP_RANGE=f"bytes={text}")
        assert reply.status == 416
        assert fields_of(reply)["Content-Range"] == f"bytes */{size}"
        assert fields_of(reply)["Content-Length"] == str(len(reply.body))
    for fields in (
        {"HTTP_RANGE": "bytes=5-2"},
        {"HTTP_RANGE": "items=0-1"},
        {"HTTP_RANGE": "bytes=0-1, bytes=2-3"},
        {"HTTP_RANGE": "bytes=0-0,0-0,0-0"},
        {"HTTP_RANGE": "bytes=0-0", "HTTP_IF_RANGE": '"x"'},
        {"HTTP_RANGE": f"bytes={size}-", "HTTP_IF_RANGE": '"x"'},
        {"HTTP_RANGE": "bytes=0-0", "HTTP_IF_RANGE": "W/" + plain["ETag"]},
        {"HTTP_IF_RANGE": plain["ETag"]},
    ):
        reply = alone.get(path, **fields)
        assert reply.status == 200
        assert fields_of(reply) == plain
        assert content_of(reply) == content


def test_ranges_of_head_and_of_an_empty_file(alone: Ticking) -> None:
    reply = alone.get("/a.txt", "HEAD", HTTP_RANGE="bytes=0-0")
    assert (reply.status, fields_of(reply)["Content-Length"]) == (200, "1000")
    reply = alone.get("/empty", HTTP_RANGE="bytes=0-0")
    assert (reply.status, fields_of(reply)["Content-Length"]) == (200, "0")


# --- fields ---------------------------------------------------------------------------------------------------------


def test_fields_of_a_file(alone: Ticking) -> None:
    assert fields_of(alone.get("/a.txt")) == {
        "Content-Type": "text/plain; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
        "ETag": fields_of(alone.get("/%61.txt"))["ETag"],
        "Last-Modified": L,
        "Accept-Ranges": "bytes",
        "Content-Length": "1000",
    }


@pytest.mark.parametrize(
    ("path", "media_type", "cache_control"),
    [
        ("/app.3f2a1b9c.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        ("/about", "text/html; charset=utf-8", "no-cache"),
        ("/d/", "text/html; charset=utf-8", "no-cache"),
        ("/p.js.gz", "application/gzip", "no-cache"),
        ("/empty", "application/octet-stream", "no-cache"),
    ],
)
def test_what_a_name_says(alone: Ticking, path: str, media_type: str, cache_control: str) -> None:
    fields = fields_of(alone.get(path))
    assert fields["Content-Type"] == media_type
    assert fields["Cache-Control"] == cache_control
    assert "Content-Encoding" not in fields


@pytest.mark.parametrize("path", ["/nothing", "/%zz", "/d", "/nothing.3f2a1b9c.js", "/a.txt"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_nosniff_always_and_no_error_is_kept(alone: Ticking, path: str, method: str) -> None:
    fields = fields_of(alone.get(path, method))
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert fields.get("Cache-Control", "no-cache") == "no-cache"
    assert not {"Date", "Server", "Connection"} & set(fields)


# --- directories ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/d", "", "/d/"),
        ("/d", "a=1&b=%20", "/d/?a=1&b=%20"),
        ("//d", "", "/d/"),
        ("/%64", "", "/d/"),
        ("/x/../d", "", "/d/"),
        ("/sp%20ace", "", "/sp%20ace/"),
        ("//sp%20ace", "x", "/sp%20ace/?x"),
    ],
)
def test_a_directory_wants_its_slash(alone: Ticking, beside: Ticking, path: str, query: str, location: str) -> None:
    for handler in (alone, beside):
        for _ in range(2):  # looked up, then remembered
            reply = handler.get(path, "GET", query, HTTP_HOST="evil.example")
            assert reply.status == 301
            assert fields_of(reply)["Location"] == location
            assert fields_of(reply)["Content-Length"] == str(len(reply.body))


def test_a_redirect_stays_on_this_host(tmp_path: Path) -> None:
    for name in ("\\evil.example", "evil.example", "@evil", "x:y", "a\r\nb", "\u00e9?#%"):
        write(tmp_path / name / "index.html", b"x")
    handler = Ticking(("/", tmp_path))
    for path, location in [
        ("/%5cevil.example", "/%5Cevil.example/"),
        ("//evil.example", "/evil.example/"),
        ("///evil.example", "/evil.example/"),
        ("/@evil", "/@evil/"),
        ("/x:y", "/x:y/"),
        ("/a%0d%0ab", "/a%0D%0Ab/"),
        ("/%c3%a9%3f%23%25", "/%C3%A9%3F%23%25/"),
    ]:
        assert fields_of(handler.get(path))["Location"] == location


def test_a_directory_without_index(alone: Ticking, beside: Ticking) -> None:
    assert alone.get("/l").status == 301
    assert alone.get("/l/").status == 404
    assert beside.ask("/l") is None
    assert beside.ask("/l/") is None


# --- 404 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/nothing", "404.html"),
        ("/l/nothing", "404.html"),
        ("/nothing/at/all", "404.html"),
        ("/d/nothing", "d/404.html"),
        ("/d/e/nothing", "d/404.html"),
        ("/d/nothing/", "d/404.html"),
        ("/d/b.txt/x", "d/404.html"),
        ("/.git/nothing", "404.html"),
        ("/.git/", "404.html"),
        ("/d/.hidden", "d/404.html"),
        ("/" + "d/../" * 500 + "d/nothing", "d/404.html"),
        ("/d/" + "x/" * 3000, "404.html"),  # too deep for a search: the page of the first levels
    ],
    ids=lambda value: value[:24],
)
def test_the_nearest_page(alone: Ticking, path: str, page: str) -> None:
    reply = alone.get(path)
    expected = "d/404.html" if path.startswith("/d/x/") else page
    assert reply.status == 404
    assert content_of(reply) == FILES[expected]
    assert fields_of(reply) == {
        "Content-Type": "text/html; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
        "Content-Length": str(len(FILES[expected])),
    }


def test_the_page_is_read_again_when_it_changes(tmp_path: Path) -> None:
    handler = Ticking(("/", tmp_path))
    built_in = handler.get("/x")
    assert (built_in.status, fields_of(built_in)["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert b"<!doctype html>" in built_in.body
    for content in (b"one", b"two", BIG):
        write(tmp_path / "404.html", content)
        handler.tick()
        for _ in range(2):
            reply = handler.get("/x", HTTP_IF_NONE_MATCH="*", HTTP_RANGE="bytes=0-0")
            assert reply.status == 404
            assert content_of(reply) == content
    (tmp_path / "404.html").unlink()
    handler.tick()
    assert handler.get("/x") == built_in


def test_nothing_of_the_request_is_in_the_built_in_pages(tmp_path: Path) -> None:
    handler = Ticking(("/", tmp_path))
    for path in ("/<script>x", "/%3Cscript%3Ex", "/%zzscript"):
        reply = handler.get(path)
        assert b"script" not in reply.head + reply.body
