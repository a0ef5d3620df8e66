"""Rows for WIRE.md 2: the content of a request, by length and in chunks."""

from __future__ import annotations

from tests.wire.rows import Answer, Row, chunked, cut, get, head, ok, post, refused, under, words

END = b"0\r\n\r\n"
CONTROLS = [*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F]


def rows_sizes() -> list[Row]:
    """Sizes of chunks: hex digits only, at most 16."""
    good = {
        "no chunk": (END, b""),
        "one chunk": (b"3\r\nabc\r\n" + END, b"abc"),
        "two chunks": (b"3\r\nabc\r\n2\r\nde\r\n" + END, b"abcde"),
        "a chunk of CRLFs": (b"4\r\n\r\n\r\n\r\n" + END, b"\r\n\r\n"),
        "a chunk that looks like the end": (b"5\r\n" + END + b"\r\n" + END, END),
        "lower case": (b"a\r\n0123456789\r\n" + END, b"0123456789"),
        "upper case": (b"A\r\n0123456789\r\n" + END, b"0123456789"),
        "two digits": (b"10\r\n0123456789abcdef\r\n" + END, b"0123456789abcdef"),
        "leading zeros": (b"003\r\nabc\r\n" + END, b"abc"),
        "16 digits": (b"0000000000000003\r\nabc\r\n" + END, b"abc"),
        "a last chunk of several zeros": (b"3\r\nabc\r\n000\r\n\r\n", b"abc"),
        "a last chunk of 16 zeros": (b"3\r\nabc\r\n" + b"0" * 16 + b"\r\n\r\n", b"abc"),
        "every byte": (b"100\r\n" + bytes(range(256)) + b"\r\n" + END, bytes(range(256))),
        "many small chunks": (b"1\r\nx\r\n" * 300 + END, b"x" * 300),
    }
    rows = [
        ok(f"chunks: {name}", chunked(raw), {"HTTP_TRANSFER_ENCODING": None}, body)
        for name, (raw, body) in good.items()
    ]
    rows += [
        ok("chunks: the real length", chunked(b"3\r\nabc\r\n" + END), {"CONTENT_LENGTH": "3"}, b"abc"),
        ok("chunks: the real length of nothing", chunked(END), {"CONTENT_LENGTH": "0"}, b""),
    ]
    bad = (
        b"",
        b"1" * 300,
        *words(r"""
            \x20 0x3 +3 -3 3\x20 \x203 \t3 3\t 3\x20\x20 g 3g 3. 3, 3,3 3_0 0_3 x 00000000000000003
            00000000000000000 fffffffffffffffff \xb2 3\xa0 \x853 3\x00 \x003 3\x0b 3\x0c 3\x7f '3' "3" 3: 3=
            3? 3\x203 3\r 0\r -0 +0 0x0 0x
        """),
    )
    rows += [refused(f"chunk size {size.decode('latin-1')!r}", chunked(size + b"\r\nabc\r\n" + END)) for size in bad]
    rows += [
        refused("chunk size of 16 digits, far too large", chunked(b"f" * 16 + b"\r\nabc"), 413),
        refused("chunk size of 8 digits, too large", chunked(b"ffffffff\r\nabc"), 413),
        refused("chunk size whose 64 bits wrap", chunked(b"10000000000000003\r\nabc\r\n" + END)),
    ]
    return rows


def rows_line_ends() -> list[Row]:
    bodies = {
        "bare LF behind the size": b"3\nabc\r\n" + END,
        "bare CR behind the size": b"3\rabc\r\n" + END,
        "CR CR LF behind the size": b"3\r\r\nabc\r\n" + END,
        "bare LF behind the content": b"3\r\nabc\n" + END,
        "bare CR behind the content": b"3\r\nabc\r" + END,
        "CR and another byte behind the content": b"3\r\nabc\rX" + END,
        "nothing behind the content": b"3\r\nabc" + END,
        "another byte behind the content": b"3\r\nabcd\r\n" + END,
        "two more bytes behind the content": b"3\r\nabcde\r\n" + END,
        "a space behind the content": b"3\r\nabc \r\n" + END,
        "two CRLF behind the content": b"3\r\nabc\r\n\r\n" + END,
        "LF LF": b"3\nabc\n0\n\n",
        "bare LF behind the last size": b"3\r\nabc\r\n0\n\r\n",
        "bare LF as the empty line": b"3\r\nabc\r\n0\r\n\n",
        "bare CR as the empty line": b"3\r\nabc\r\n0\r\n\rX",
        "CRLF before the first size": b"\r\n3\r\nabc\r\n" + END,
        "a size one too small": b"2\r\nabc\r\n" + END,
        "no last chunk but another request": b"3\r\nabc\r\n" + get(),
        "content where the last chunk should end": b"0\r\nabc\r\n\r\n",
    }
    return [refused(f"chunks: {name}", chunked(raw)) for name, raw in bodies.items()]


def rows_extensions() -> list[Row]:
    """RFC 9112 section 7.1.1; at most 256 bytes a chunk."""

    def with_extension(extension: bytes) -> bytes:
        return chunked(b"3" + extension + b"\r\nabc\r\n0" + extension + b"\r\n\r\n")

    good = (
        *words(r"""
            ;a ;a=b ;a=b;c=d ;a;b;c ;a="b" ;a="" ;a="b;c=d" ;a="\x20\t~" ;a="\\"" ;a="\\\\" ;a="\xe9"
            \x20;a="b" \x20;a \t;a \x20\t\x20;a=b ;\x20a ;\ta=b ;a\x20;b ;a=b\x20;\x20c=d ;a="b"\x20;c
            ;a="3\\\tx" ;!#$%&'*+-.^_`|~=1
        """),
    )
    bad = (
        *words(r"""
            ; ;\x20 ;; ;= ;=b ;a= ;a=b=c ;a=" ;a="b ;a=b" ;a="b"c ;a="b""c" ;a\x20b ;a=b\x20c ;a; ;a=b; ;a,b
            ;a=\xe9 ;\xe9 ;a=(b) ;a=b\x20 ;a\x20 \x20; g;b ,a \x20a :a=b ;"a" ;"a"=b ;a="\\ ;a="\\" ;a="\x7f"
            ;a="\\\x7f" ;a="\\\x00" ;a=b\r;c ;a\rb ;a\n ;a\nb ;a="\n" ;a="\r"
        """),
    )
    rows = [
        ok(f"extension {text.decode('latin-1')!r}", with_extension(text), {"CONTENT_LENGTH": "3"}, b"abc")
        for text in good
    ]
    rows += [refused(f"extension {text.decode('latin-1')!r}", with_extension(text)) for text in bad]
    for byte in CONTROLS:
        one = bytes([byte])
        rows.append(refused(f"byte {byte:#04x} in the name of an extension", with_extension(b";a%bb" % one)))
        rows.append(refused(f"byte {byte:#04x} in a quoted extension", with_extension(b';a="b%bc"' % one)))
    exactly = b";" + b"a" * 255
    quoted = b';a="' + b"b" * 251 + b'"'
    rows += [
        ok("extensions of 256 bytes", with_extension(exactly), {}, b"abc"),
        ok("a quoted extension of 256 bytes", with_extension(quoted), {}, b"abc"),
        ok("many of 256 bytes", with_extension(b";a=b" * 64), {}, b"abc"),
        refused("extensions of 257 bytes", with_extension(exactly + b"a")),
        refused("a quoted extension of 257 bytes", with_extension(quoted[:-1] + b'b"')),
        refused("extensions of 257 bytes at the last chunk", chunked(b"0" + exactly + b"a\r\n\r\n")),
        refused("an extension that never ends", chunked(b"3" + exactly + b"a" * 20)),
        refused("a size that never ends", chunked(b"0" * 300)),
    ]
    assert len(exactly) == len(quoted) == 256
    return rows


def rows_trailers() -> list[Row]:
    def with_trailers(*lines: bytes) -> bytes:
        return chunked(b"1\r\na\r\n0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")

    dropped = {"HTTP_A": None, "CONTENT_LENGTH": "1", "HTTP_HOST": "h", "HTTP_X_FORWARDED_FOR": None}
    good: dict[str, tuple[bytes, ...]] = {
        "one": (b"A: b",),
        "two": (b"A: b", b"C: d"),
        "an empty value": (b"A:",),
        "Latin-1": (b"A: \xe9",),
        "a tab": (b"A: b\tc",),
        "a length": (b"Content-Length: 99",),
        "a coding": (b"Transfer-Encoding: chunked",),
        "a Host": (b"Host: evil", b"X-Forwarded-For: 1.1.1.1"),
        "100 of them": tuple(b"A%d: b" % number for number in range(100)),
        "one of 8190 bytes": (b"A:" + b"b" * 8188,),
    }
    rows = [ok(f"trailers: {name}", with_trailers(*lines), dropped, b"a") for name, lines in good.items()]
    bad: dict[str, bytes] = {
        "no colon": b"A",
        "a space before the colon": b"A : b",
        "an empty name": b": b",
        "obs-fold": b" A: b",
        "a tab first": b"\tA: b",
        "NUL in a value": b"A: \0",
        "DEL in a value": b"A: \x7f",
        "ESC in a value": b"A: \x1b[0m",
        "a bare CR": b"A: b\rc",
        "a bare LF": b"A: b\nC: d",
        "CR CR LF": b"A: b\r",
        "a name that is no token": b"A(: b",
        "an 8-bit name": b"\xe9: b",
        "a request line": b"GET /2 HTTP/1.1",
    }
    rows += [refused(f"trailers: {name}", with_trailers(line)) for name, line in bad.items()]
    rows += [
        refused("trailers: the second is broken", with_trailers(b"A: b", b"C")),
        refused("trailers: 101 of them", with_trailers(*[b"A: b"] * 101), 400, 431),
        refused("trailers: one of 8191 bytes", with_trailers(b"A:" + b"b" * 8189), 400, 431),
        refused("trailers: one that never ends", chunked(b"0\r\nA:" + b"b" * 8190), 400, 431),
        refused("trailers: more than 64 KiB", with_trailers(*[b"A:" + b"b" * 8000] * 9), 400, 431),
        *under(
            {"limit_request_fields": 2},
            ok("trailers: limit_request_fields exactly", with_trailers(b"A: b", b"C: d"), {}, b"a"),
            refused("trailers: limit_request_fields and one", with_trailers(b"A: b", b"C: d", b"E: f"), 400, 431),
        ),
        Row(
            "trailers: the next request stands behind them",
            with_trailers(b"A: b") + get(target=b"/2"),
            (Answer((200,), {}, b"a"), Answer((200,), {"PATH_INFO": "/2", "HTTP_A": None}, b"")),
        ),
    ]
    return rows


def rows_spooled() -> list[Row]:
    """In memory up to body_buffer_size (64 KiB), beyond it in a temporary file; the application sees no difference."""

    def chunks_of(body: bytes, size: int) -> bytes:
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + END

    rows = []
    for size in (65535, 65536, 65537, 200_001):
        body = bytes(range(251)) * (size // 251) + b"z" * (size % 251)
        length = b"Content-Length: %d" % size
        expected = {"CONTENT_LENGTH": str(size)}
        rows.append(ok(f"content of {size} bytes", post(length, body=body), expected, body))
        rows.append(ok(f"content of {size} bytes in chunks", chunked(chunks_of(body, 10_007)), expected, body))
    small = b"0123456789" * 5
    rows += under(
        {"body_buffer_size": 20},
        ok("body_buffer_size exactly", post(b"Content-Length: 20", body=small[:20]), {}, small[:20]),
        ok("body_buffer_size and one", post(b"Content-Length: 21", body=small[:21]), {}, small[:21]),
        ok("body_buffer_size, chunks across it", chunked(chunks_of(small, 7)), {"CONTENT_LENGTH": "50"}, small),
        Row(
            "a spooled body, then a request",
            post(b"Content-Length: 50", body=small) + get(target=b"/2"),
            (Answer((200,), {}, small), Answer((200,), {"PATH_INFO": "/2"}, b"")),
        ),
    )
    return rows


def rows_limits() -> list[Row]:
    body = b"x" * 1000
    announced = b"Content-Length: 1001"
    expect = b"Expect: 100-continue"
    rows = under(
        {"limit_request_body": 1000},
        ok("limit_request_body exactly", post(b"Content-Length: 1000", body=body), {}, body),
        refused("limit_request_body and one, nothing sent", post(announced), 413),
        refused("limit_request_body and one, sent", post(announced, body=body + b"x"), 413),
        refused("limit_request_body and one, client waits", post(announced, expect), 413),
        refused("limit_request_body, 19 digits", post(b"Content-Length: " + b"9" * 19), 413),
        refused("limit_request_body with HEAD", head(b"HEAD / HTTP/1.1", b"Host: h", announced), 413),
        ok("limit_request_body exactly, in chunks", chunked(b"3e8\r\n" + body + b"\r\n" + END), {}, body),
        ok(
            "limit_request_body exactly, in two chunks",
            chunked((b"1f4\r\n" + body[:500] + b"\r\n") * 2 + END),
            {},
            body,
        ),
        refused("limit_request_body and one, in chunks", chunked(b"3e8\r\n" + body + b"\r\n1\r\n"), 413),
        refused("limit_request_body and one, in one chunk", chunked(b"3e9\r\n"), 413),
        refused("limit_request_body, a chunk of 16 digits", chunked(b"f" * 16 + b"\r\n"), 413),
        refused("limit_request_body, 999 and then 2", chunked(b"3e7\r\n" + body[:999] + b"\r\n2\r\n"), 413),
    )
    large = b"y" * 3000
    rows += under(
        {"body_buffer_size": 1000, "limit_spool_total": 16000},
        ok("limit_spool_total is not reached", post(b"Content-Length: 3000", body=large), {}, large),
        ok("limit_spool_total does not count what memory takes", post(b"Content-Length: 1000", body=body), {}, body),
        refused("limit_spool_total", post(b"Content-Length: 18000", body=large * 6), 503),
        refused("limit_spool_total in chunks", chunked((b"bb8\r\n" + large + b"\r\n") * 6 + END), 503),
    )
    return rows


def rows_cut() -> list[Row]:
    """A body cut by the client's close is 400 and never reaches the application."""
    return [
        cut(refused("cut: nothing of the content", post(b"Content-Length: 3"))),
        cut(refused("cut: one byte missing", post(b"Content-Length: 3", body=b"ab"))),
        cut(refused("cut: before the first size", chunked(b""))),
        cut(refused("cut: within a size", chunked(b"3"))),
        cut(refused("cut: behind a size", chunked(b"3\r\n"))),
        cut(refused("cut: within a chunk", chunked(b"3\r\nab"))),
        cut(refused("cut: behind the content of a chunk", chunked(b"3\r\nabc"))),
        cut(refused("cut: between chunks", chunked(b"3\r\nabc\r\n"))),
        cut(refused("cut: within the last chunk", chunked(b"3\r\nabc\r\n0\r\n"))),
        cut(refused("cut: before the last LF", chunked(b"3\r\nabc\r\n0\r\n\r"))),
        cut(refused("cut: within the trailers", chunked(b"3\r\nabc\r\n0\r\nA: b\r\n"))),
        cut(refused("cut: the body of a HEAD", head(b"HEAD / HTTP/1.1", b"Host: h", b"Content-Length: 3"))),
        cut(refused("cut: a spooled body", post(b"Content-Length: 200000", body=b"x" * 199_999))),
        cut(
            Row(
                "cut: the first request has its answer",
                get(target=b"/1") + post(b"Content-Length: 3", body=b"ab"),
                (Answer((200,), {"PATH_INFO": "/1"}, b""), Answer((400,))),
            )
        ),
    ]


BODY_ROWS: list[Row] = [
    *rows_sizes(),
    *rows_line_ends(),
    *rows_extensions(),
    *rows_trailers(),
    *rows_spooled(),
    *rows_limits(),
    *rows_cut(),
]
