"""Rows for WIRE.md 1, second half: field lines, Host, framing, expectations, and names that are dropped."""

from __future__ import annotations

from tests.wire.rows import NOT_IN_TOKEN, TCHARS, Answer, Row, get, head, ok, post, refused, under, words

CONTROLS = [*range(0x09), *range(0x0A, 0x20), 0x7F]


def rows_field_name() -> list[Row]:
    name = TCHARS.replace(b"_", b"")
    key = "HTTP_" + name.decode().upper().replace("-", "_")
    rows = [
        ok("every tchar in a name", get(name + b": v"), {key: "v"}),
        ok("a name of one byte", get(b"A: v"), {"HTTP_A": "v"}),
        ok("a name of digits", get(b"1: v"), {"HTTP_1": "v"}),
        ok("names are of any case", head(b"GET / HTTP/1.1", b"hOsT: x"), {"HTTP_HOST": "x"}),
        ok("a name with a hyphen", get(b"X-a-B: v"), {"HTTP_X_A_B": "v"}),
        refused("space before the colon", get(b"A : b")),
        refused("tab before the colon", get(b"A\t: b")),
        refused("space before the colon of Host", head(b"GET / HTTP/1.1", b"Host : h")),
        refused("space before the colon of a length", post(b"Content-Length : 3", body=b"abc")),
        refused("space before the colon of a coding", post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
        refused("no colon", get(b"A")),
        refused("no colon, with words", get(b"A b c")),
        refused("empty name", get(b": b")),
        refused("a colon only", get(b":")),
        refused("a space in the name", get(b"A B: c")),
        refused("a request line as a field", get(b"GET / HTTP/1.1")),
        refused("a request line as a field, with a colon", get(b"GET http://x/ HTTP/1.1")),
    ]
    rows += [refused(f"byte {byte:#04x} in a name", get(b"A%bB: c" % bytes([byte]))) for byte in NOT_IN_TOKEN]
    rows += [refused(f"byte {byte:#04x} before a name", get(b"%bA: c" % bytes([byte]))) for byte in NOT_IN_TOKEN]
    rows += [
        refused(
            f"byte {byte:#04x} behind the name of a length", post(b"Content-Length%b: 3" % bytes([byte]), body=b"abc")
        )
        for byte in (0x00, 0x0B, 0x0C, 0x1F, 0x7F, 0x85, 0xA0)
    ]
    return rows


def rows_field_value() -> list[Row]:
    high = bytes(range(0x80, 0x100))
    visible = bytes(range(0x21, 0x7F))
    rows = [
        ok("every printable byte in a value", get(b"A: " + visible), {"HTTP_A": visible.decode()}),
        ok("bytes from 0x80 are kept as Latin-1", get(b"A: " + high), {"HTTP_A": high.decode("latin-1")}),
        ok("0x85 is not white space", get(b"A: \x85a\x85"), {"HTTP_A": "\x85a\x85"}),
        ok("0xA0 is not white space", get(b"A:\xa0a\xa0"), {"HTTP_A": "\xa0a\xa0"}),
        ok("0x85 in a cookie", get(b"Cookie: a=\x85"), {"HTTP_COOKIE": "a=\x85"}),
        ok("tab within a value", get(b"A: b\tc"), {"HTTP_A": "b\tc"}),
        ok("white space around a value", get(b"A: \t b c\t "), {"HTTP_A": "b c"}),
        ok("no white space", get(b"A:b"), {"HTTP_A": "b"}),
        ok("an empty value", get(b"A:"), {"HTTP_A": ""}),
        ok("a value of white space", get(b"A: \t \t"), {"HTTP_A": ""}),
        ok("colons in a value", get(b"A: b: c::"), {"HTTP_A": "b: c::"}),
        ok("UTF-8 in a value", get("A: é☃".encode()), {"HTTP_A": "é☃".encode().decode("latin-1")}),
        ok(
            "repeated fields are joined in order",
            get(b"A: 1", b"B: x", b"a: 2", b"A:"),
            {"HTTP_A": "1, 2, ", "HTTP_B": "x"},
        ),
        ok(
            "cookies are joined by semicolons",
            get(b"Cookie: a=1", b"B: x", b"cookie: b=2"),
            {"HTTP_COOKIE": "a=1; b=2"},
        ),
        ok("Accept twice", get(b"Accept: a/b", b"Accept: c/d"), {"HTTP_ACCEPT": "a/b, c/d"}),
        ok("the same line twice", get(b"Accept: a/b", b"Accept: a/b"), {"HTTP_ACCEPT": "a/b, a/b"}),
        ok(
            "Content-Type has no HTTP_",
            post(b"Content-Type: text/x"),
            {"CONTENT_TYPE": "text/x", "HTTP_CONTENT_TYPE": None, "CONTENT_LENGTH": None},
        ),
        ok("no Content-Type", get(), {"CONTENT_TYPE": None, "CONTENT_LENGTH": None, "HTTP_CONTENT_LENGTH": None}),
        refused("Content-Type twice", post(b"Content-Type: a/b", b"Content-Type: a/b")),
        refused("Content-Type twice, in other cases", post(b"Content-Type: a/b", b"X: y", b"content-type: c/d")),
        ok(
            "a forged key of WSGI", get(b"wsgi.url_scheme: x", b"REMOTE-ADDR: 6.6.6.6"), {"HTTP_REMOTE_ADDR": "6.6.6.6"}
        ),
    ]
    for byte in CONTROLS:
        rows.append(refused(f"byte {byte:#04x} in a value", get(b"A: b%bc" % bytes([byte]))))
        rows.append(refused(f"byte {byte:#04x} as a value", get(b"A: %b" % bytes([byte]))))
        rows.append(refused(f"byte {byte:#04x} in a remembered field", get(b"User-Agent: b%bc" % bytes([byte]))))
    for byte in (0x00, 0x0B, 0x0C, 0x1C, 0x1F, 0x7F):
        rows.append(refused(f"byte {byte:#04x} at the end of a value", get(b"A: b%b" % bytes([byte]))))
        rows.append(
            refused(
                f"byte {byte:#04x} at the end of a length", post(b"Content-Length: 3%b" % bytes([byte]), body=b"abc")
            )
        )
        rows.append(
            refused(f"byte {byte:#04x} at the end of Host", head(b"GET / HTTP/1.1", b"Host: h%b" % bytes([byte])))
        )
    return rows


def rows_host() -> list[Row]:
    def host(value: bytes, version: bytes = b"1.1") -> bytes:
        return head(b"GET / HTTP/" + version, b"Host: " + value)

    good = (
        *words(r"""
            example.com example.com:80 example.com: example.com. example.com.:8080 EXAMPLE.com h a_b 127.0.0.1
            127.0.0.1:8000 1 [::1] [::1]:80 [::1]: [2001:db8::1] [::ffff:1.2.3.4] a%41b %e4%bd%a0 a!b a$b a&b
            a(b) a*b a+b a;b a=b a~b xn--nxasmq6b localhost:65535 h:0080 [1:2:3:4:5:6:7:8] [::]
        """),
    )
    bad = (
        *words(r"""
            a,b a,\x20b a\x20b a\tb a|b {a a{ a}b "a" a"b 'a' a'b a\\b a/b / a?b a#b u@h u:p@h @h http://h
            h:80:80 h:8a h:-1 h:\x2080 h\x20:80 h:+80 a% a%z a%zz a%4 % a<b a>b a^b a`b [::1 ::1 ::1] [ ] []
            []:80 [::1]a a[::1] [::1]:a [::g] [1.2.3.4] [h] [:::] [1:2] [::1%25eth0] [::1%eth0] [[::1]] \xe9
            a\x85 a\xa0 \xc3\xa9.com [1:2:3:4:5:6:7:8:9] [12345::] [::1.2.3.256] \x80 \xff h:\xb2
        """),
    )
    rows = [ok(f"Host {value.decode()}", host(value), {"HTTP_HOST": value.decode()}) for value in good]
    rows += [
        ok(f"Host {value.decode()} in 1.0", host(value, b"1.0"), {"HTTP_HOST": value.decode()}) for value in good[:3]
    ]
    rows += [refused(f"Host {value.decode('latin-1')}", host(value)) for value in bad]
    rows += [refused(f"Host {value.decode('latin-1')} in 1.0", host(value, b"1.0")) for value in bad[:12]]
    rows += [
        ok("an empty Host", host(b""), {"HTTP_HOST": ""}),
        ok("an empty Host in 1.0", host(b"", b"1.0"), {"HTTP_HOST": ""}),
        ok("white space around Host", host(b" \th\t "), {"HTTP_HOST": "h"}),
        ok("no Host in 1.0", head(b"GET / HTTP/1.0"), {"HTTP_HOST": None, "SERVER_PROTOCOL": "HTTP/1.0"}),
        refused("no Host in 1.1", head(b"GET / HTTP/1.1")),
        refused("no Host in 1.2", head(b"GET / HTTP/1.2")),
        refused("no Host but other fields", head(b"GET / HTTP/1.1", b"A: b", b"X-Host: h")),
        *(
            refused(f"Host twice in {v.decode()}", head(b"GET / HTTP/" + v, b"Host: h", b"Host: h"))
            for v in (b"1.1", b"1.0")
        ),
        refused("two Hosts that differ", head(b"GET / HTTP/1.1", b"Host: a", b"A: b", b"host: c")),
        refused("a Host and an empty one", head(b"GET / HTTP/1.1", b"Host: a", b"Host:")),
        refused("two empty Hosts", head(b"GET / HTTP/1.1", b"Host:", b"Host:")),
        ok("an underscored Host is dropped", get(b"Ho_st: x"), {"HTTP_HOST": "h", "HTTP_HO_ST": None}),
    ]
    return rows


def rows_length_and_coding() -> list[Row]:
    good_lengths = ((b"3", "3"), (b"003", None), (b"0" * 18 + b"3", None), (b" \t3\t ", "3"))
    rows = [
        ok(f"length {text.decode()!r}", post(b"Content-Length: " + text, body=b"abc"), {}, b"abc")
        for text, _ in good_lengths
    ]
    rows += [
        ok("CONTENT_LENGTH as sent", post(b"Content-Length: 3", body=b"abc"), {"CONTENT_LENGTH": "3"}, b"abc"),
        ok("length 0", post(b"Content-Length: 0"), {"CONTENT_LENGTH": "0"}),
        ok("GET with content", get(b"Content-Length: 3") + b"abc", {"CONTENT_LENGTH": "3"}, b"abc"),
        ok("DELETE with content", head(b"DELETE / HTTP/1.1", b"Host: h", b"Content-Length: 1") + b"a", {}, b"a"),
        ok("HTTP/1.0 with content", head(b"POST / HTTP/1.0", b"Content-Length: 3") + b"abc", {}, b"abc"),
        ok("POST without a length has no content", post(), {"CONTENT_LENGTH": None}),
    ]
    bad_lengths = (
        b"",
        b"1" * 400,
        *words(r"""
            +3 -1 -0 3,\x203 3,3 3\x203 3; 3.0 0x3 3a a 1_0 3, ,3 \xb2 \xa03 3\xa0 \x853 1e1
            00000000000000000000 11111111111111111111 "3" 0b1 \xc2\xb3 \xd9\xa3
        """),
    )
    rows += [
        refused(f"length {t.decode('latin-1')!r}", post(b"Content-Length: " + t, body=b"abc")) for t in bad_lengths
    ]
    rows += [
        refused("length twice", post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc")),
        refused("length twice, other values", post(b"Content-Length: 3", b"A: b", b"content-length: 0", body=b"abc")),
        refused("length twice, one empty", post(b"Content-Length: 3", b"Content-Length:", body=b"abc")),
        ok("a length with an underscore is dropped", get(b"Content_Length: 3"), {"CONTENT_LENGTH": None}),
        ok(
            "a length with an underscore beside a true one",
            post(b"Content-Length: 1", b"Content_Length: 3", body=b"a"),
            {},
            b"a",
        ),
    ]
    nothing = b"0\r\n\r\n"
    good_codings = (b"chunked", b"Chunked", b"CHUNKED", b"\t chunked \t")
    rows += [ok(f"coding {t.decode()!r}", post(b"Transfer-Encoding: " + t, body=nothing), {}) for t in good_codings]
    bad_codings: dict[bytes, tuple[int, ...]] = {
        b"gzip": (501,),
        b"identity": (501,),
        b"deflate": (501,),
        b"compress": (501,),
        b"x-chunked": (501,),
        b"chunkedx": (501,),
        b"xchunked": (501,),
        b"gzip, chunked": (501,),
        b"gzip,chunked": (501,),
        b"chunked, gzip": (400,),
        b"chunked, identity": (400,),
        b"chunked, chunked": (400,),
        b"chunked,chunked": (400,),
        b"Chunked, cHUNKED": (400,),
        b"": (400, 501),
        b",": (400, 501),
        b"chunked,": (400, 501),
        b", chunked": (400, 501),
        b"chunked;q=1": (400, 501),
        b'"chunked"': (400, 501),
        b"'chunked'": (400, 501),
        b"chu nked": (400, 501),
        b"chunked x": (400, 501),
        b"chunked\xa0": (400, 501),
        b"\x85chunked": (400, 501),
        b"\xa0chunked": (400, 501),
        b"chun\xe2\x84\xaaed": (400, 501),
        b"chun\xffked": (400, 501),
    }
    rows += [
        refused(f"coding {t.decode('latin-1')!r}", post(b"Transfer-Encoding: " + t, body=nothing), *statuses)
        for t, statuses in bad_codings.items()
    ]
    rows += [
        refused("coding beside a length", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=nothing)),
        refused("length beside a coding", post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=nothing)),
        refused("coding beside length 0", post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=nothing)),
        refused("coding beside a bad length", post(b"Content-Length: x", b"Transfer-Encoding: chunked", body=nothing)),
        refused(
            "another coding beside a length",
            post(b"Content-Length: 5", b"Transfer-Encoding: gzip", body=nothing),
            400,
            501,
        ),
        refused("chunked twice", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=nothing)),
        refused(
            "chunked, then another line", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", body=nothing)
        ),
        refused(
            "another, then chunked",
            post(b"Transfer-Encoding: x", b"Transfer-Encoding: chunked", body=nothing),
            400,
            501,
        ),
        refused(
            "chunked, then an empty line of it",
            post(b"Transfer-Encoding: chunked", b"Transfer-Encoding:", body=nothing),
        ),
        refused("chunked in HTTP/1.0", head(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked") + nothing),
        refused(
            "chunked and kept in 1.0",
            head(b"POST / HTTP/1.0", b"Connection: keep-alive", b"Transfer-Encoding: chunked") + nothing,
        ),
        ok(
            "a coding with an underscore is dropped",
            post(b"Transfer_Encoding: chunked"),
            {"HTTP_TRANSFER_ENCODING": None},
        ),
        ok("GET in chunks", get(b"Transfer-Encoding: chunked") + b"1\r\na\r\n0\r\n\r\n", {"CONTENT_LENGTH": "1"}, b"a"),
        ok("TE is just a field", get(b"TE: trailers, gzip"), {"HTTP_TE": "trailers, gzip"}),
        Row(
            "content, then a request",
            post(b"Content-Length: 3", body=b"abc") + get(target=b"/2"),
            (Answer((200,), {}, b"abc"), Answer((200,), {"PATH_INFO": "/2", "CONTENT_LENGTH": None}, b"")),
        ),
        Row(
            "content that looks like a request",
            post(b"Content-Length: 27", body=get(target=b"/no")[:27]) + get(target=b"/2"),
            (Answer((200,), {}, get(target=b"/no")[:27]), Answer((200,), {"PATH_INFO": "/2"}, b"")),
        ),
        Row(
            "one byte more than the length is the next request's",
            post(b"Content-Length: 3", body=b"abcX") + get(),
            (Answer((200,), {}, b"abc"), Answer((200,), {"REQUEST_METHOD": "XGET"}, b"")),
        ),
        Row(
            "a request behind the last chunk",
            post(b"Transfer-Encoding: chunked", body=b"1\r\na\r\n0\r\n\r\n") + get(target=b"/2"),
            (Answer((200,), {}, b"a"), Answer((200,), {"PATH_INFO": "/2"}, b"")),
        ),
    ]
    return rows


def rows_expect_and_connection() -> list[Row]:
    return [
        ok("100-continue, content there", post(b"Expect: 100-continue", b"Content-Length: 1", body=b"a"), {}, b"a"),
        ok("100-Continue in another case", post(b"Expect: 100-CONTINUE", b"Content-Length: 1", body=b"a"), {}, b"a"),
        ok("100-continue without content", get(b"Expect: 100-continue"), {"HTTP_EXPECT": "100-continue"}),
        ok(
            "100-continue in 1.0",
            head(b"POST / HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 1") + b"a",
            {},
            b"a",
        ),
        *(
            refused(f"Expect: {value.decode()}", post(b"Expect: " + value, b"Content-Length: 1", body=b"a"), 417)
            for value in (b"100-continue, x", b"x", b"200-ok", b"100-continued", b"100", b"x=y")
        ),
        ok("Connection: close", get(b"Connection: close"), {"HTTP_CONNECTION": "close"}),
        ok("Connection as a list", get(b"Connection: Upgrade, Keep-Alive"), {"HTTP_CONNECTION": "Upgrade, Keep-Alive"}),
        ok("Connection in two lines", get(b"Connection: a", b"Connection: b"), {"HTTP_CONNECTION": "a, b"}),
        ok("Upgrade alone", get(b"Connection: upgrade", b"Upgrade: h2c"), {"HTTP_UPGRADE": "h2c"}),
    ]


def rows_dropped() -> list[Row]:
    return [
        ok("a name with an underscore", get(b"X_A: 1"), {"HTTP_X_A": None}),
        ok("an underscore beside a hyphen", get(b"X_A: 1", b"X-A: 2"), {"HTTP_X_A": "2"}),
        ok("a hyphen beside an underscore", get(b"X-A: 2", b"X_A: 1"), {"HTTP_X_A": "2"}),
        ok("an underscore between two hyphens", get(b"X-A: 1", b"X_A: 2", b"X-A: 3"), {"HTTP_X_A": "1, 3"}),
        ok("an underscored name twice", get(b"X_A: 1", b"X_A: 2", b"B: c"), {"HTTP_X_A": None, "HTTP_B": "c"}),
        ok("an underscore only", get(b"_: 1"), {"HTTP__": None}),
        ok("underscores around", get(b"_a_: 1"), {"HTTP__A_": None}),
        ok("a forwarded scheme by underscore", get(b"X_Forwarded_Proto: https"), {"HTTP_X_FORWARDED_PROTO": None}),
        ok("a content type by underscore", get(b"Content_Type: x"), {"CONTENT_TYPE": None, "HTTP_CONTENT_TYPE": None}),
        ok("Proxy", get(b"Proxy: http://evil"), {"HTTP_PROXY": None}),
        ok("PROXY in another case, twice", get(b"PROXY: a", b"pRoXy: b", b"A: 1"), {"HTTP_PROXY": None, "HTTP_A": "1"}),
        ok("names that only begin so", get(b"Proxy-Authorization: x"), {"HTTP_PROXY_AUTHORIZATION": "x"}),
        *under(
            {"header_map": "refuse"},
            refused("header_map refuse", get(b"X_A: 1")),
            ok("header_map refuse, a name without", get(b"X-A: 1"), {"HTTP_X_A": "1"}),
        ),
        *under(
            {"header_map": "dangerous"},
            ok("header_map dangerous", get(b"X_A: 1"), {"HTTP_X_A": "1"}),
            ok("header_map dangerous never touches framing", get(b"Content_Length: 3"), {"CONTENT_LENGTH": None}),
            ok("header_map dangerous, Proxy is dropped", get(b"Proxy: a"), {"HTTP_PROXY": None}),
        ),
    ]


FIELD_ROWS: list[Row] = [
    *rows_field_name(),
    *rows_field_value(),
    *rows_host(),
    *rows_length_and_coding(),
    *rows_expect_and_connection(),
    *rows_dropped(),
]
