"""Rows for WIRE.md 1, first half: request lines, targets, versions, line ends, and the limits of a head."""

from __future__ import annotations

from tests.wire.rows import NOT_IN_TOKEN, TCHARS, Answer, Row, get, head, ok, post, refused, under, words
from tests.wire.rows_fields import FIELD_ROWS

PRINTABLE = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("#"))


def rows_empty_lines() -> list[Row]:
    return [
        ok("one empty line first", b"\r\n" + get(), {"REQUEST_METHOD": "GET"}),
        ok("an empty line before an absolute target", b"\r\n" + get(target=b"http://x/y"), {"HTTP_HOST": "x"}),
        refused("two empty lines first", b"\r\n\r\n" + get()),
        refused("three empty lines first", b"\r\n\r\n\r\n" + get()),
        refused("a bare LF first", b"\n" + get()),
        refused("a bare CR first", b"\r" + get()),
        refused("CR CR LF first", b"\r\r\n" + get()),
        refused("a space first", b" " + get()),
        refused("a line of white space first", b" \r\n" + get()),
        Row(
            "one empty line before each of two requests",
            b"\r\n" + get(target=b"/1") + b"\r\n" + get(target=b"/2"),
            (Answer((200,), {"PATH_INFO": "/1"}, b""), Answer((200,), {"PATH_INFO": "/2"}, b"")),
        ),
        Row(
            "two empty lines before the second request",
            get(target=b"/1") + b"\r\n\r\n" + get(target=b"/2"),
            (Answer((200,), {"PATH_INFO": "/1"}, b""), Answer((400,))),
        ),
        Row(
            "an empty line behind a body, as old clients send it",
            post(b"Content-Length: 2", body=b"ab") + b"\r\n" + get(target=b"/2"),
            (Answer((200,), {}, b"ab"), Answer((200,), {"PATH_INFO": "/2"}, b"")),
        ),
    ]


def rows_method() -> list[Row]:
    methods = (
        b"GET",
        b"POST",
        b"PUT",
        b"DELETE",
        b"PATCH",
        b"OPTIONS",
        b"TRACE",
        b"PROPFIND",
        b"M-SEARCH",
        b"get",
        b"X",
    )
    rows = [
        ok(f"method {m.decode()}", head(b"%b / HTTP/1.1" % m, b"Host: h"), {"REQUEST_METHOD": m.decode()})
        for m in (*methods, TCHARS, b"A" * 300, b"PRI", b"connect")
    ]
    rows += [
        refused(f"method with byte {byte:#04x}", head(b"G%bT / HTTP/1.1" % bytes([byte]), b"Host: h"))
        for byte in NOT_IN_TOKEN
    ]
    rows += [
        refused("method with a colon", head(b"GE:T / HTTP/1.1", b"Host: h")),
        refused("method with a tab", head(b"GE\tT / HTTP/1.1", b"Host: h")),
        refused("method with LF", head(b"GE\nT / HTTP/1.1", b"Host: h")),
        refused("method with CR", head(b"GE\rT / HTTP/1.1", b"Host: h")),
        refused("no method", head(b"/ HTTP/1.1", b"Host: h")),
        refused("empty method", head(b" / HTTP/1.1", b"Host: h")),
        ok("HEAD", head(b"HEAD / HTTP/1.1", b"Host: h")),
        refused("HEAD without Host", head(b"HEAD / HTTP/1.1")),
        refused("HEAD with a broken field", head(b"HEAD / HTTP/1.1", b"Host: h", b"A B: c")),
        refused("HEAD with an unknown expectation", head(b"HEAD / HTTP/1.1", b"Host: h", b"Expect: x"), 417),
    ]
    return rows


def rows_request_line() -> list[Row]:
    lines = {
        "two spaces behind the method": b"GET  / HTTP/1.1",
        "two spaces behind the target": b"GET /  HTTP/1.1",
        "a tab behind the method": b"GET\t/ HTTP/1.1",
        "a tab behind the target": b"GET /\tHTTP/1.1",
        "a vertical tab behind the target": b"GET /\x0bHTTP/1.1",
        "a space at the end": b"GET / HTTP/1.1 ",
        "a tab at the end": b"GET / HTTP/1.1\t",
        "no target": b"GET HTTP/1.1",
        "empty target": b"GET  HTTP/1.1",
        "HTTP/0.9": b"GET /",
        "HTTP/0.9 with a space": b"GET / ",
        "HTTP/0.9 with a query that looks like a version": b"GET /?HTTP/1.1",
        "a query that looks like a version, without target": b"GET ?HTTP/1.1",
        "a method only": b"GET",
        "four words": b"GET / / HTTP/1.1",
        "a version before the query": b"GET / HTTP/1.1?x",
        "two versions": b"GET / HTTP/1.1 HTTP/1.1",
        "a status line": b"HTTP/1.1 200 OK",
        "quoted target": b'GET "/" HTTP/1.1',
        "noise of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "noise of SSH": b"SSH-2.0-OpenSSH_9.2",
        "a zero byte at the end": b"GET / HTTP/1.1\x00",
        "a byte order mark": b"\xef\xbb\xbfGET / HTTP/1.1",
    }
    return [refused(name, head(line, b"Host: h")) for name, line in lines.items()]


def rows_origin_target() -> list[Row]:
    def row(name: str, target: bytes, path: str, query: str = "") -> Row:
        text = target.decode()
        expected = {"PATH_INFO": path, "QUERY_STRING": query, "RAW_URI": text, "REQUEST_URI": text, "SCRIPT_NAME": ""}
        return ok(f"target: {name}", get(target=target), expected)

    path_bytes = PRINTABLE.replace(b"?", b"").replace(b"%", b"")
    rows = [
        row("root", b"/", "/"),
        row("query", b"/a?b=c", "/a", "b=c"),
        row("empty query", b"/a?", "/a", ""),
        row("two question marks", b"/a?b?c", "/a", "b?c"),
        row("query of a question mark", b"/??", "/", "?"),
        row("query undecoded", b"/a?%41+%2f%zz", "/a", "%41+%2f%zz"),
        row("query that looks like a version", b"/?HTTP/1.1", "/", "HTTP/1.1"),
        row("decoded", b"/%41%2F%c3%a9%00%25%32", "/A/\xc3\xa9\0%2"),
        row("decoded once", b"/%2541", "/%41"),
        row("plus is a plus", b"/a+b", "/a+b"),
        row("slashes kept", b"//a///b//", "//a///b//"),
        row("two slashes are a path, no authority", b"//evil.example/x", "//evil.example/x"),
        row("dots kept", b"/../a/./b/..", "/../a/./b/.."),
        row("encoded dots kept", b"/%2e%2e/", "/../"),
        row("backslash", b"/a\\b", "/a\\b"),
        row("semicolon", b"/a;b=c", "/a;b=c"),
        row("a bad escape stays", b"/%zz%4", "/%zz%4"),
        row("a URL in the path", b"/http://x/", "/http://x/"),
        row("every printable byte in the path", b"/" + path_bytes, "/" + path_bytes.decode()),
        row("every printable byte in the query", b"/?" + PRINTABLE, "/", PRINTABLE.decode()),
    ]
    bad = [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), ord("#"), 0x7F, 0x80, 0x85, 0xA0, 0xC3, 0xFF]
    for byte in (*bad, 0x09, 0x20, 0x0A, 0x0D):
        rows.append(refused(f"byte {byte:#04x} in the path", get(target=b"/a%bb" % bytes([byte]))))
        rows.append(refused(f"byte {byte:#04x} in the query", get(target=b"/?a%bb" % bytes([byte]))))
        # where the same path is remembered from a good request
        rows.append(refused(f"byte {byte:#04x} as the query", get(target=b"/?%b" % bytes([byte]))))
    rows += [
        refused(f"target {target.decode()}", get(target=target))
        for target in (
            b"a",
            b"?",
            b"?a",
            b"a/b",
            b"../a",
            b"\\a",
            b":80",
            b"h:80",
            b"example.com",
            b"./",
            b"**",
            b"%2f",
            b"#",
        )
    ]
    return rows


def rows_absolute_target() -> list[Row]:
    def row(target: bytes, host: str, path: str, query: str = "") -> Row:
        expected = {"HTTP_HOST": host, "PATH_INFO": path, "QUERY_STRING": query, "RAW_URI": target.decode()}
        return ok(f"target {target.decode()}", get(target=target), expected)

    rows = [
        row(b"http://other/p?q", "other", "/p", "q"),
        row(b"http://other", "other", "/"),
        row(b"http://other?q", "other", "/", "q"),
        row(b"http://other/", "other", "/"),
        row(b"http://other//p", "other", "//p"),
        row(b"HTTP://other:8080/", "other:8080", "/"),
        row(b"hTtPs://other/%41", "other", "/A"),
        row(b"https://[::1]:443/", "[::1]:443", "/"),
        row(b"http://other:/", "other:", "/"),
        row(b"http://a%41/", "a%41", "/"),
        ok("absolute in HTTP/1.0 without Host", head(b"GET http://x/ HTTP/1.0"), {"HTTP_HOST": "x", "PATH_INFO": "/"}),
        refused("absolute in 1.1 without Host", head(b"GET http://x/ HTTP/1.1")),
        refused("absolute with a bad Host", head(b"GET http://x/ HTTP/1.1", b"Host: a/b")),
        refused("absolute with two Hosts", head(b"GET http://x/ HTTP/1.1", b"Host: x", b"Host: x")),
        ok("absolute with an empty Host", head(b"GET http://x/ HTTP/1.1", b"Host:"), {"HTTP_HOST": "x"}),
        ok("absolute target of a POST", head(b"POST http://x/y HTTP/1.1", b"Host: h"), {"PATH_INFO": "/y"}),
    ]
    targets = (
        *words(r"""
            http: http:/ http:/a http:a http:// http:///a http://?a http://:80/ http://u@h/ http://u:p@h/
            http://a@b@c/ http://h#f http://h/#f http://h/a?b#c ftp://h/ ws://h/ file:///etc/passwd httpx://h/
            xhttp://h/ http//h/ http://a,b/ http://a\x20b/ http://a%zz/ http://h:80a/ http://h:-1/
            http://[::1/ http://[::1]a/ http://[::g]/ http://h\\a/ http://a|b/ http://{a}/ http://h:80:80/
            javascript:alert(1) http://\xe9/ http://h/\xe9
        """),
    )
    rows += [refused(f"target {target.decode('latin-1')}", get(target=target)) for target in targets]
    return rows


def rows_other_targets() -> list[Row]:
    return [
        Row("OPTIONS *", head(b"OPTIONS * HTTP/1.1", b"Host: h"), (Answer((204,)),)),
        Row(
            "OPTIONS * and a request behind it",
            head(b"OPTIONS * HTTP/1.1", b"Host: h") + get(target=b"/2"),
            (Answer((204,)), Answer((200,), {"PATH_INFO": "/2"}, b"")),
        ),
        ok("OPTIONS of a path goes to the application", head(b"OPTIONS / HTTP/1.1", b"Host: h")),
        refused("OPTIONS * without Host", head(b"OPTIONS * HTTP/1.1")),
        refused("OPTIONS *?a", head(b"OPTIONS *?a HTTP/1.1", b"Host: h")),
        *(
            refused(f"{m.decode()} *", head(b"%b * HTTP/1.1" % m, b"Host: h"))
            for m in (b"GET", b"HEAD", b"POST", b"options")
        ),
        *(
            refused(f"CONNECT {target.decode()}", head(b"CONNECT %b HTTP/1.1" % target, b"Host: h"), 501)
            for target in (b"h:443", b"/", b"example.com:80", b"[::1]:1", b"*")
        ),
        refused("CONNECT and content", head(b"CONNECT h:1 HTTP/1.1", b"Host: h", b"Content-Length: 3") + b"abc", 501),
    ]


def rows_version() -> list[Row]:
    def line(version: bytes) -> bytes:
        return head(b"GET / " + version, b"Host: h", b"Connection: close")

    rows = [ok(f"HTTP/1.{x}", line(b"HTTP/1.%d" % x), {"SERVER_PROTOCOL": "HTTP/1.1"}) for x in range(1, 10)]
    rows.append(ok("HTTP/1.0", line(b"HTTP/1.0"), {"SERVER_PROTOCOL": "HTTP/1.0"}))
    rows += [
        refused(f"version {v.decode()}", line(v), 505)
        for v in (b"HTTP/2", b"HTTP/2.0", b"HTTP/3", b"HTTP/3.0", b"HTTP/9.9", b"HTTP/2.1")
    ]
    rows.append(refused("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505))
    rows += [
        refused(f"version {v.decode('latin-1')!r}", line(v))
        for v in (
            *words(r"""
                HTTP/0.9 HTTP/0.0 HTTP/1 HTTP/1. HTTP/1.10 HTTP/1.01 HTTP/01.1 HTTP/1.1.1 HTTP/.1 http/1.1
                Http/1.1 HTTP\x201.1 HTTP/\x201.1 HTTP/1\x20.1 HTTP/1,1 HTTP/1.a HTTP/a.1 HTTP/+1.1 HTTP/-1.1
                HTTP//1.1 HTTPS/1.1 XHTTP/1.1 ICY/1.1 HTTP/\xb9.1 HTTP/1.\xb9 HTTP/1.1\xa0 1.1
            """),
        )
    ]
    rows.append(refused("HTTP/1.x of two digits is 400, not 1.1", line(b"HTTP/1.11")))
    return rows


def rows_line_ends() -> list[Row]:
    return [
        refused("bare LF behind the request line", b"GET / HTTP/1.1\nHost: h\r\n\r\n"),
        refused("bare LF behind a field", b"GET / HTTP/1.1\r\nHost: h\nA: b\r\n\r\n"),
        refused("bare LF behind the last field", b"GET / HTTP/1.1\r\nHost: h\n\r\n"),
        refused("bare LF as the empty line", b"GET / HTTP/1.1\r\nHost: h\r\n\n"),
        refused("LF only", b"GET / HTTP/1.1\nHost: h\n\n"),
        refused("LF LF within a value", get(b"A: b\n\nGET /2 HTTP/1.1")),
        refused("bare CR behind the request line", b"GET / HTTP/1.1\rHost: h\r\n\r\n"),
        refused("bare CR behind a field", b"GET / HTTP/1.1\r\nHost: h\rA: b\r\n\r\n"),
        refused("CR CR LF behind the request line", b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n"),
        refused("CR CR LF behind a field", b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n"),
        refused("CR before the empty line", b"GET / HTTP/1.1\r\nHost: h\r\n\r\r\n"),
        refused("LF CR", b"GET / HTTP/1.1\n\rHost: h\n\r\n\r"),
        refused("obs-fold with a space", get(b"A: b", b" c")),
        refused("obs-fold with a tab", get(b"A: b", b"\tc")),
        refused("obs-fold with an empty rest", get(b"A: b", b" ")),
        refused("obs-fold behind the request line", head(b"GET / HTTP/1.1", b" Host: h")),
        refused("a field behind white space", head(b"GET / HTTP/1.1", b" A: b", b"Host: h")),
        refused("obs-fold that hides a coding", get(b"A: b", b" Transfer-Encoding: chunked")),
        refused("obs-fold of a coding", post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n")),
    ]


def line_of(size: int) -> bytes:
    """A request line of `size` bytes without its CRLF."""
    return b"GET /" + b"a" * (size - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"


def query_line_of(size: int) -> bytes:
    return b"GET /?" + b"a" * (size - len(b"GET /? HTTP/1.1")) + b" HTTP/1.1"


def field_of(size: int, name: bytes = b"A") -> bytes:
    """A field line of `size` bytes without its CRLF."""
    return name + b":" + b"b" * (size - len(name) - 1)


def head_of(size: int, field_size: int = 4000) -> bytes:
    """A head of `size` bytes in all, of field lines below the limit of one."""
    data = b"GET / HTTP/1.1\r\nHost: h\r\n"
    while size - len(data) > field_size + 100:
        data += field_of(field_size) + b"\r\n"
    return data + field_of(size - len(data) - 4) + b"\r\n\r\n"


def rows_limits() -> list[Row]:
    many = [b"A%d: b" % number for number in range(100)]
    assert len(head_of(65536)) == 65536
    return [
        ok("a request line of 8190 bytes", head(line_of(8190), b"Host: h")),
        ok("a request line of 8190 bytes with a query", head(query_line_of(8190), b"Host: h")),
        refused("a request line of 8191 bytes", head(line_of(8191), b"Host: h"), 414),
        refused("a request line of 8191 bytes with a query", head(query_line_of(8191), b"Host: h"), 414),
        refused("a request line that never ends", b"GET /" + b"a" * 8191, 414),
        refused("a method that never ends", b"A" * 8192, 414),
        refused("a request line longer than a head", b"GET /" + b"a" * 70000, 414),
        ok("100 fields", get(*many[:99]), {"HTTP_A98": "b"}),
        refused("101 fields", get(*many), 431),
        refused("101 fields of one name", get(*[b"A: b"] * 100), 431),
        refused("101 dropped fields", get(*[b"A_B: b"] * 100), 431),
        ok("a field line of 8190 bytes", get(field_of(8190)), {"HTTP_A": "b" * 8188}),
        refused("a field line of 8191 bytes", get(field_of(8191)), 431),
        refused("a remembered field of 8191 bytes", get(field_of(8191, b"User-Agent")), 431),
        refused("a field line that never ends", get()[:-2] + field_of(8192), 431),
        refused("a name that never ends", get()[:-2] + b"a" * 8192, 431),
        ok("a head of 65536 bytes", head_of(65536)),
        refused("a head of 65537 bytes", head_of(65537), 431),
        refused("a head that never ends", head_of(65600)[:-2], 431),
        *under(
            {"limit_request_line": 30},
            ok("limit_request_line exactly", head(line_of(30), b"Host: h")),
            refused("limit_request_line and one", head(line_of(31), b"Host: h"), 414),
            refused("limit_request_line and one, no end", line_of(60)[:31], 414),
        ),
        *under(
            {"limit_request_fields": 3},
            ok("limit_request_fields exactly", get(b"A: b", b"C: d")),
            refused("limit_request_fields and one", get(b"A: b", b"C: d", b"E: f"), 431),
        ),
        *under(
            {"limit_request_field_size": 20},
            ok("limit_request_field_size exactly", get(field_of(20))),
            refused("limit_request_field_size and one", get(field_of(21)), 431),
            refused("limit_request_field_size and one, remembered", get(field_of(21, b"Accept")), 431),
        ),
        *under(
            {"limit_request_head": 300},
            ok("limit_request_head exactly", head_of(300)),
            refused("limit_request_head and one", head_of(301), 431),
            refused("limit_request_head, no end", head_of(400)[:-4], 431),
        ),
    ]


HEAD_ROWS: list[Row] = [
    *rows_empty_lines(),
    *rows_method(),
    *rows_request_line(),
    *rows_origin_target(),
    *rows_absolute_target(),
    *rows_other_targets(),
    *rows_version(),
    *rows_line_ends(),
    *FIELD_ROWS,
    *rows_limits(),
]
