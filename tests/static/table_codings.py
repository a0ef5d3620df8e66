"""Rows of sections 5 and 6: content coding, validators."""

from __future__ import annotations

import re

from tests.static.table_fixture import (
    A_TXT,
    BIG,
    CSS,
    CSS_GZ,
    FILES,
    LAST_MODIFIED,
    P_JS,
    P_JS_BR,
    P_JS_GZ,
    P_JS_ZST,
    store_br,
)
from tests.static.table_rows import Row, build_request, get, has_members, is_now

COPIES = {"br": P_JS_BR, "zstd": P_JS_ZST, "gzip": P_JS_GZ, "": P_JS}
CSS_BR = store_br(CSS)


def coded(number: str, accept: str, token: str, says: str = "") -> Row:
    """p.js as a client gets it that accepts so; token: '' for the file itself."""
    return get(
        number,
        says or f"{accept!r} gets {token or 'the file'}",
        "/p.js",
        COPIES[token],
        *(f"Accept-Encoding: {line}" for line in accept.split("|")),
        Content_Encoding=token or None,
        Content_Length=str(len(COPIES[token])),
        Content_Type="text/javascript; charset=utf-8",
        Vary="Accept-Encoding",
        ETag=f"{{etag /p.js {token}}}".replace(" }", "}"),
        Last_Modified=LAST_MODIFIED,
        Accept_Ranges="bytes",
    )


def css(number: str, says: str, target: str, accept: str, token: str, content: bytes) -> Row:
    """One of the style sheets."""
    line = f"Accept-Encoding: {accept}"
    return get(number, says, target, content, line, Content_Encoding=token or None, Content_Length=str(len(content)))


def varied(says: str, method: str, status: int, *lines: str) -> Row:
    """A request of p.js whose answer has Vary."""
    return Row("5.3", says, build_request(method, "/p.js", lines), status, {"Vary": "Accept-Encoding"})


CODINGS = (
    get("5.1", "no Accept-Encoding", "/p.js", P_JS, Content_Encoding=None, Vary="Accept-Encoding"),
    coded("5.1", "br", "br"),
    coded("5.1", "zstd", "zstd"),
    coded("5.1", "gzip", "gzip"),
    coded("5.1", "GZIP", "gzip"),
    coded("5.1", "x-gzip", "gzip"),
    coded("5.1", "gzip, deflate, br, zstd", "br", "as browsers send it, all of equal q: the smallest"),
    coded("5.1", "gzip, deflate, br", "br"),
    coded("5.1", "gzip, zstd", "zstd"),
    coded("5.1", "gzip|br", "br", "two lines"),
    coded("5.1", "gzip;q=1.0, br;q=0.5", "gzip"),
    coded("5.1", "br;q=0.5, zstd;q=0.6, gzip;q=0.55", "zstd"),
    coded("5.1", "br;q=0.001, gzip;q=0.001", "br"),
    coded("5.1", "br;q=0.5 , gzip ; q=0.8", "gzip"),
    coded("5.1", "br;Q=0.5, gzip;Q=0.8", "gzip"),
    coded("5.1", "br;q=0, gzip", "gzip"),
    coded("5.1", "br;q=0.000, gzip;q=0.1", "gzip"),
    coded("5.1", "gzip;q=0", ""),
    coded("5.1", "*", "br"),
    coded("5.1", "*;q=0.5", "br"),
    coded("5.1", "*, br;q=0", "zstd"),
    coded("5.1", "gzip, *;q=0", "gzip"),
    coded("5.1", "*;q=0", ""),
    coded("5.1", "identity", ""),
    coded("5.1", "identity, gzip;q=0.5", ""),
    coded("5.1", "identity;q=0.5, gzip", "gzip"),
    coded("5.1", "identity;q=0", "", "406 is never sent"),
    coded("5.1", "identity;q=0, gzip;q=0.1", "gzip"),
    coded("5.1", "", ""),
    coded("5.1", "notgzip", ""),
    coded("5.1", "gzipped, brotli", ""),
    coded("5.1", "br;q=x, gzip;q=0.1", "gzip", "a malformed member is dropped"),
    coded("5.1", "br;q=1.5, gzip;q=0.1", "gzip", "a q above 1 is malformed"),
    coded("5.1", "br;q=1.0001, gzip;q=0.1", "gzip", "a q of too many digits is malformed"),
    coded("5.1", "br;q=-1, gzip;q=0.1", "gzip"),
    coded("5.1", "b r, gzip;q=0.1", "gzip"),
    coded("5.1", ",, gzip ,", "gzip"),
    css("5.1", "the smallest, whichever it is", "/q.css", "gzip, br", "gzip", CSS_GZ),
    css("5.1", "a copy larger than its file, if nothing else is wanted", "/q.css", "br;q=1, gzip;q=0.5", "br", CSS_BR),
    css("5.1", "a coding of which there is no copy", "/q.css", "zstd", "", CSS),
    css("5.2", "a newer copy", "/newer.css", "gzip", "gzip", CSS_GZ),
    css("5.2", "a stale copy", "/stale.css", "gzip", "", CSS),
    css("5.2", "stale by a millisecond", "/stale.css", "br", "", CSS),
    css("5.2", "a copy of something else", "/wrong.css", "gzip", "", CSS),
    css("5.2", "a copy cut short", "/cut.css", "gzip", "", CSS),
    css("5.2", "a directory called so", "/directory.css", "gzip", "", CSS),
    css("5.2", "a FIFO called so", "/fifo.css", "gzip", "", CSS),
    css("5.2", "a link that leads out", "/linked.css", "gzip", "", CSS),
    varied("200", "GET", 200),
    varied("200 with a copy", "GET", 200, "Accept-Encoding: gzip"),
    varied("206", "GET", 206, "Range: bytes=0-0"),
    varied("206 of a copy", "GET", 206, "Range: bytes=0-0", "Accept-Encoding: gzip"),
    varied("304", "GET", 304, "If-None-Match: {etag /p.js}"),
    varied("304 of a copy", "GET", 304, "If-None-Match: {etag /p.js br}", "Accept-Encoding: br"),
    varied("HEAD", "HEAD", 200),
    varied("HEAD of a copy", "HEAD", 200, "Accept-Encoding: gzip"),
    get("5.3", "with another Vary", "/vary/p.js", P_JS, Vary=has_members("Origin", "Accept-Encoding")),
    get(
        "5.3",
        "with another Vary, a copy",
        "/vary/p.js",
        P_JS_GZ,
        "Accept-Encoding: gzip",
        Vary=has_members("Origin", "Accept-Encoding"),
        Content_Encoding="gzip",
    ),
    get("5.4", "a copy by its own name", "/p.js.gz", P_JS_GZ, Content_Type="application/gzip", Content_Encoding=None),
    get(
        "5.4",
        "a copy by its own name, whatever is accepted",
        "/p.js.gz",
        P_JS_GZ,
        "Accept-Encoding: gzip, br",
        Content_Type="application/gzip",
        Content_Encoding=None,
    ),
    get("5.4", "a zstd copy", "/p.js.zst", P_JS_ZST, Content_Type="application/zstd", Content_Encoding=None),
)

STRONG = re.compile(r'"[\x21\x23-\x7e]+"')
BY_TIME = re.compile(r'"[0-9A-Za-z]+-[0-9A-Za-z]+"')

VALIDATORS = (
    get("6.1", "strong", "/a.txt", A_TXT, ETag=STRONG, Last_Modified=LAST_MODIFIED),
    get("6.1", "kept in memory: by content", "/d/b.txt", b"b", ETag=STRONG),
    get("6.1", "the edge of the memory", "/edge.bin", FILES["edge.bin"], ETag=STRONG),
    get("6.1", "one byte more: by time and size", "/over.bin", FILES["over.bin"], ETag=BY_TIME),
    get("6.1", "large: by time and size", "/big.bin", BIG, ETag=BY_TIME, Content_Length=str(len(BIG))),
    get("6.1", "equal content, equal tag", "/newer.css", CSS, ETag="{etag /q.css}"),
    get("6.1", "time 0", "/zero.txt", FILES["zero.txt"], Last_Modified=None, ETag=STRONG),
    get("6.1", "time 1", "/one.txt", FILES["one.txt"], Last_Modified=None, ETag=STRONG),
    get("6.1", "time 1, asked for", "/one.txt", FILES["one.txt"], f"If-Modified-Since: {LAST_MODIFIED}"),
    get("6.1", "a time to come is now", "/future.txt", FILES["future.txt"], Last_Modified=is_now),
    get("6.5", "a large file", "/big.bin", BIG, Content_Length=str(len(BIG)), Accept_Ranges="bytes"),
)
ROWS = CODINGS + VALIDATORS
