"""Rows of sections 3 and 4: conditional requests and ranges."""

from __future__ import annotations

import re

from tests.responses import Response
from tests.static.table_fixture import A_TXT, BIG, LAST_MODIFIED, P_JS, P_JS_BR, P_JS_GZ
from tests.static.table_rows import Check, Row, ask, build_request, get

OLD = "Mon, 01 Jan 1990 00:00:00 GMT"
LATER = "Thu, 02 Jan 2020 00:00:00 GMT"
E = "{etag /a.txt}"
L = LAST_MODIFIED


def not_modified(number: str, line: str) -> Row:
    """Conditions on a.txt that give 304."""
    return ask(
        number,
        line.replace("{E}", E).replace("{L}", L),
        304,
        b"",
        ETag=E,
        Last_Modified=L,
        Cache_Control="no-cache",
        Date=re.compile(".+"),
        Content_Length=None,
        Content_Type=None,
        Content_Encoding=None,
    )


def modified(number: str, line: str) -> Row:
    """Conditions on a.txt that give all of it."""
    return ask(number, line.replace("{E}", E).replace("{L}", L), 200, A_TXT, ETag=E, Last_Modified=L)


def failed(number: str, line: str) -> Row:
    """Conditions on a.txt that give 412."""
    return ask(number, line.replace("{E}", E).replace("{L}", L), 412)


CONDITIONS = (
    not_modified("3.1", "If-None-Match: {E}"),
    not_modified("3.1", "If-None-Match: W/{E}"),
    not_modified("3.1", 'If-None-Match: "x", {E}'),
    not_modified("3.1", 'If-None-Match: "x",{E} ,"y"'),
    not_modified("3.1", "If-None-Match: , ,{E}"),
    not_modified("3.1", "If-None-Match: *"),
    not_modified("3.1", 'If-None-Match: "x"|If-None-Match: {E}'),
    not_modified("3.1", "If-None-Match: {E}|If-None-Match: {E}"),
    not_modified("3.1", "If-None-Match: {E}|If-Modified-Since: " + OLD),
    not_modified("3.1", "if-none-match: {E}"),
    modified("3.1", 'If-None-Match: "x"'),
    modified("3.1", 'If-None-Match: "x"|If-Modified-Since: {L}'),
    modified("3.1", 'If-None-Match: "x, y"'),
    not_modified("3.2", "If-Modified-Since: {L}"),
    not_modified("3.2", "If-Modified-Since: " + LATER),
    not_modified("3.2", "If-Modified-Since: Wed Jan  1 00:00:00 2020"),
    not_modified("3.2", "If-Modified-Since: Wednesday, 01-Jan-20 00:00:00 GMT"),
    not_modified("3.2", "If-Modified-Since: Tue, 19 Jan 2038 03:14:08 GMT"),
    not_modified("3.2", "If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT"),
    modified("3.2", "If-Modified-Since: Tue, 31 Dec 2019 23:59:59 GMT"),
    modified("3.2", "If-Modified-Since: " + OLD),
    modified("3.2", "If-Modified-Since: yesterday"),
    modified("3.2", "If-Modified-Since: "),
    modified("3.2", "If-Modified-Since: Wed, 32 Jan 2020 00:00:00 GMT"),
    modified("3.2", "If-Modified-Since: 2020-01-01T00:00:00Z"),
    modified("3.3", "If-Match: {E}"),
    modified("3.3", 'If-Match: "x", {E}'),
    modified("3.3", "If-Match: *"),
    modified("3.3", "If-Match: {E}|If-Unmodified-Since: " + OLD),
    modified("3.3", "If-Unmodified-Since: {L}"),
    modified("3.3", "If-Unmodified-Since: " + LATER),
    modified("3.3", "If-Unmodified-Since: never"),
    failed("3.3", 'If-Match: "x"'),
    failed("3.3", "If-Match: W/{E}"),
    failed("3.3", 'If-Match: "x"|If-None-Match: {E}'),
    failed("3.3", "If-Unmodified-Since: " + OLD),
    failed("3.3", "If-Unmodified-Since: " + OLD + "|If-None-Match: {E}"),
    not_modified("3.3", "If-Match: {E}|If-None-Match: {E}"),
    get("3.4", "a missing file", "/nothing", None, "If-None-Match: *", status=404),
    get("3.4", "a missing file", "/nothing", None, 'If-Match: "x"', status=404),
    get("3.4", "a missing file", "/nothing", None, "If-Unmodified-Since: " + OLD, status=404),
    modified("3.4", "If-None-Match: unquoted"),
    modified("3.4", "If-None-Match: a.txt, {E}x"),
    failed("3.4", "If-Match: unquoted"),
    not_modified("3.5", "If-None-Match: {E}|Range: bytes=0-0"),
    not_modified("3.5", "If-None-Match: {E}|Accept-Encoding: gzip, br"),
    Row(
        "3.5",
        "HEAD",
        build_request("HEAD", "/a.txt", (f"If-None-Match: {E}",)),
        304,
        {"ETag": E, "Content-Length": None, "Content-Type": None},
        b"",
    ),
    get(
        "3.5",
        "what the 200 would vary by",
        "/p.js",
        b"",
        "If-None-Match: {etag /p.js}",
        status=304,
        Vary="Accept-Encoding",
        Content_Encoding=None,
        Cache_Control="no-cache",
    ),
    get(
        "3.6", "the tag of the copy", "/p.js", b"", "Accept-Encoding: br", "If-None-Match: {etag /p.js br}", status=304
    ),
    get(
        "3.6",
        "the tag of the file is not that of the copy",
        "/p.js",
        P_JS_BR,
        "Accept-Encoding: br",
        "If-None-Match: {etag /p.js}",
        ETag="{etag /p.js br}",
    ),
    get(
        "3.6",
        "the tag of one copy is not that of another",
        "/p.js",
        P_JS_GZ,
        "Accept-Encoding: gzip",
        "If-None-Match: {etag /p.js br}",
        ETag=lambda value: value is not None,
    ),
    get("3.6", "the tag of the copy is not the file's", "/p.js", P_JS, "If-None-Match: {etag /p.js gzip}"),
    get(
        "3.6",
        "If-Match with the tag of another copy",
        "/p.js",
        None,
        "Accept-Encoding: br",
        "If-Match: {etag /p.js gzip}",
        status=412,
    ),
)


def ranged(number: str, line: str, first: int, last: int) -> Row:
    """One range of a.txt that is sent."""
    return ask(
        number,
        line.replace("{E}", E).replace("{L}", L),
        206,
        A_TXT[first : last + 1],
        Content_Range=f"bytes {first}-{last}/1000",
        Content_Length=str(last - first + 1),
        Content_Type="text/plain; charset=utf-8",
        ETag=E,
        Last_Modified=L,
        Cache_Control="no-cache",
    )


def unranged(number: str, line: str) -> Row:
    """A range of a.txt that is ignored."""
    lines = line.replace("{E}", E).replace("{L}", L)
    return ask(number, lines, 200, A_TXT, Content_Range=None, Accept_Ranges="bytes", Content_Length="1000")


def unsatisfiable(number: str, line: str) -> Row:
    """A range that lies outside of a.txt."""
    return ask(number, line.replace("{E}", E), 416, None, Content_Range="bytes */1000")


BOUNDARY = re.compile(r"multipart/byteranges; boundary=\"?([0-9A-Za-z'()+_,./:=?-]{16,70})\"?")


def parts(*wanted: tuple[int, int], content: bytes = A_TXT, media_type: str = "text/plain; charset=utf-8") -> Check:
    """A check that the content is multipart/byteranges with exactly these ranges in this order."""

    def check(response: Response) -> None:
        match = BOUNDARY.fullmatch(response["Content-Type"])
        assert match is not None, response["Content-Type"]
        assert response["Content-Length"] == str(len(response.body))
        delimiter = b"--" + match[1].encode("ascii")
        before, *pieces, after = (b"\r\n" + response.body).split(b"\r\n" + delimiter)
        assert before in (b"", b"\r\n")
        assert after in (b"--", b"--\r\n")
        assert len(pieces) == len(wanted)
        for piece, (first, last) in zip(pieces, wanted, strict=True):
            head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            fields = {name.lower(): value for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n"))}
            assert fields[b"content-range"] == b"bytes %d-%d/%d" % (first, last, len(content))
            assert fields[b"content-type"] == media_type.encode("ascii")
            assert body == content[first : last + 1]

    return check


def several(line: str, *wanted: tuple[int, int]) -> Row:
    """Several ranges of a.txt."""
    return ask("4.3", line, 206, parts(*wanted), Content_Range=None, ETag=E, Last_Modified=L)


def overlapping(count: int) -> str:
    """A range with so many specs that overlap the first."""
    return "Range: bytes=" + ",".join(["0-99", *(f"{number}-{number + 99}" for number in range(1, count + 1))])


RANGES = (
    ranged("4.1", "Range: bytes=0-0", 0, 0),
    ranged("4.1", "Range: bytes=-1", 999, 999),
    ranged("4.1", "Range: bytes=990-", 990, 999),
    ranged("4.1", "Range: bytes=990-5000", 990, 999),
    ranged("4.1", "Range: bytes=0-999", 0, 999),
    ranged("4.1", "Range: bytes=0-", 0, 999),
    ranged("4.1", "Range: bytes=-5000", 0, 999),
    ranged("4.1", "Range: bytes=-1000", 0, 999),
    unsatisfiable("4.1", "Range: bytes=-0"),
    unsatisfiable("4.1", "Range: bytes=1000-"),
    unsatisfiable("4.1", "Range: bytes=1000-1001,2000-"),
    get(
        "4.1",
        "of a large file",
        "/big.bin",
        BIG[100_000:150_001],
        "Range: bytes=100000-150000",
        status=206,
        Content_Range=f"bytes 100000-150000/{len(BIG)}",
        Content_Length="50001",
    ),
    unranged("4.2", "Range: items=0-1"),
    unranged("4.2", "Range: bytes="),
    unranged("4.2", "Range: bytes"),
    unranged("4.2", "Range: "),
    unranged("4.2", "Range: bytes=5-2"),
    unranged("4.2", "Range: bytes=5-2,0-1"),
    unranged("4.2", "Range: bytes=abc"),
    unranged("4.2", "Range: bytes=10"),
    unranged("4.2", "Range: bytes=-"),
    unranged("4.2", "Range: bytes=--1"),
    unranged("4.2", "Range: bytes=1-2-3"),
    unranged("4.2", "Range: bytes=0_0-1"),
    unranged("4.2", "Range: bytes=+0-1"),
    unranged("4.2", "Range: bytes=0x0-1"),
    unranged("4.2", "Range: bytes=\xb2-\xb3"),
    unranged("4.2", "Range: bytes=0-1|Range: bytes=2-3"),
    unranged("4.2", "Range: bytes=" + ",".join(f"{10 * number}-{10 * number}" for number in range(17))),
    unranged("4.2", overlapping(3)),
    unranged("4.2", "Range: bytes=0-999,0-999"),
    unranged("4.2", "Range: bytes=0-600,500-999"),
    ranged("4.2", "Range: Bytes=0-1", 0, 1),
    ranged("4.2", "Range: BYTES=0-1", 0, 1),
    ranged("4.2", "Range: bytes= 0-1", 0, 1),
    ranged("4.2", "Range: bytes=0-1,", 0, 1),
    ranged("4.2", "Range: bytes=,, 0-1 ,", 0, 1),
    ranged("4.2", "Range: bytes=0-" + "9" * 1000, 0, 999),
    ranged("4.2", "Range: bytes=-" + "9" * 1000, 0, 999),
    ranged("4.2", "Range: bytes=" + "0" * 1000 + "-1", 0, 1),
    unsatisfiable("4.2", "Range: bytes=" + "9" * 1000 + "-"),
    several("Range: bytes=0-0,500-509", (0, 0), (500, 509)),
    several("Range: bytes=500-509,0-0", (500, 509), (0, 0)),
    several("Range: bytes=-1,0-0", (999, 999), (0, 0)),
    several("Range: bytes=0-9, 200-209 ,400-", (0, 9), (200, 209), (400, 999)),
    several("Range: bytes=0-9,1000-,500-509", (0, 9), (500, 509)),
    several("Range: bytes=0-0,200-200,400-400", (0, 0), (200, 200), (400, 400)),
    ranged("4.3", "Range: bytes=0-9,1000-", 0, 9),
    ranged("4.3", "Range: bytes=0-9,10-19", 0, 19),
    ranged("4.3", "Range: bytes=0-9,89-99", 0, 99),
    ranged("4.3", "Range: bytes=0-99,50-149", 0, 149),
    several("Range: bytes=0-9,90-99", (0, 9), (90, 99)),
    several("Range: bytes=0-9,50-59,500-509", (0, 59), (500, 509)),
    Row(
        "4.4",
        "HEAD",
        build_request("HEAD", "/a.txt", ("Range: bytes=0-0",)),
        200,
        {"Content-Length": "1000", "Content-Range": None},
        b"",
    ),
    get("4.4", "an empty file", "/empty", b"", "Range: bytes=0-0", Content_Length="0", Content_Range=None),
    get("4.4", "an empty file, its end", "/empty", b"", "Range: bytes=-1", Content_Range=None),
    get("4.4", "a redirect", "/d", None, "Range: bytes=0-0", status=301, Location="/d/", Content_Range=None),
    ranged("4.5", "Range: bytes=0-1|If-Range: {E}", 0, 1),
    ranged("4.5", "Range: bytes=0-1|If-Range: {L}", 0, 1),
    unsatisfiable("4.5", "Range: bytes=1000-|If-Range: {E}"),
    unranged("4.5", "Range: bytes=0-1|If-Range: W/{E}"),
    unranged("4.5", 'Range: bytes=0-1|If-Range: "x"'),
    unranged("4.5", "Range: bytes=0-1|If-Range: " + LATER),
    unranged("4.5", "Range: bytes=0-1|If-Range: " + OLD),
    unranged("4.5", "Range: bytes=1000-|If-Range: " + OLD),
    unranged("4.5", "Range: bytes=0-1|If-Range: Wednesday, 01-Jan-20 00:00:00 GMT"),
    unranged("4.5", "If-Range: {E}"),
    get(
        "4.6",
        "of a copy",
        "/p.js",
        P_JS_GZ[10:20],
        "Accept-Encoding: gzip",
        "Range: bytes=10-19",
        status=206,
        Content_Range=f"bytes 10-19/{len(P_JS_GZ)}",
        Content_Encoding="gzip",
        Vary="Accept-Encoding",
        ETag="{etag /p.js gzip}",
        Last_Modified=L,
        Cache_Control="no-cache",
    ),
    get(
        "4.6",
        "If-Range with the tag of another coding",
        "/p.js",
        P_JS_GZ,
        "Accept-Encoding: gzip",
        "Range: bytes=10-19",
        "If-Range: {etag /p.js}",
        Content_Range=None,
    ),
    get("4.6", "the 200 says that there are ranges", "/p.js", P_JS, Accept_Ranges="bytes"),
    get("4.6", "a copy too", "/p.js", P_JS_BR, "Accept-Encoding: br", Accept_Ranges="bytes"),
)
ROWS = CONDITIONS + RANGES
