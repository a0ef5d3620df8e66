"""Every pattern of http/grammar.py, and whatever walks over input, takes time linear in it: n and 2n hostile bytes.

Time is only compared with itself. What takes less than a few milliseconds for 40,000 bytes cannot be quadratic (that
would be half a second at least) and is not measured again, so that these tests do not depend on a quiet machine.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from epollwsgi.errors import HTTPError
from epollwsgi.http import grammar
from epollwsgi.http.body import ChunkedDecoder
from epollwsgi.http.fields import Limits, parse_host
from epollwsgi.http.head import HeadParser, HeadScanner
from tests.wire.rows import words

PATTERNS: dict[str, re.Pattern[Any]] = {
    name: value for name, value in vars(grammar).items() if isinstance(value, re.Pattern)
}
SIZE = 20_000
UNDOUBTED_S = 0.005
HUGE = Limits(1 << 30, 1 << 30, 1 << 30, 1 << 30)

PREFIXES = (b"", *words(r"GET\x20 GET\x20/\x20 A: [ a / /? http:// http://a/ 3 3; 3;a= 3;a=\" 200\x20"))
FILLERS = words(r"""
    \x20 \t \x20\t a 0 ; = " \\ \\" % %41 [ : / ? , \xff \r \n . -
    ;a ;\x20a \x20;a ;a\x20 ;a=b ;\x20a="b"\x20 ;a="\\"" a= a,\x20
""")
SUFFIXES = (b"", b"\x00", b" ", b'"', b":", b"\r")


def seconds(call: Callable[[], object]) -> float:
    start = time.thread_time()
    with contextlib.suppress(HTTPError):
        call()
    return time.thread_time() - start


def assert_linear(make: Callable[[int], Callable[[], object]], what: object) -> None:
    """make(n) gives a call that walks n hostile bytes."""
    if seconds(make(2 * SIZE)) < UNDOUBTED_S:
        return
    ratios = []
    for _ in range(6):
        once = min(seconds(make(SIZE)) for _ in range(5))
        twice = min(seconds(make(2 * SIZE)) for _ in range(5))
        ratios.append(twice / once)
        if ratios[-1] < 3:
            return
    pytest.fail(f"{what}: twice the input took {ratios} times as long")


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_is_linear(name: str) -> None:
    pattern = PATTERNS[name]

    def make(prefix: bytes, filler: bytes, suffix: bytes) -> Callable[[int], Callable[[], object]]:
        def with_size(size: int) -> Callable[[], object]:
            data = prefix + filler * (size // len(filler)) + suffix
            subject: Any = data if isinstance(pattern.pattern, bytes) else data.decode("latin-1")
            return lambda: pattern.fullmatch(subject)

        return with_size

    for prefix in PREFIXES:
        for filler in FILLERS:
            for suffix in SUFFIXES:
                assert_linear(make(prefix, filler, suffix), (prefix, filler, suffix))


HEADS = {
    "a request line that never ends": (b"GET /", b"a", b""),
    "a query that never ends": (b"GET /?", b"?", b""),
    "a field that never ends": (b"GET / HTTP/1.1\r\nA:", b" ", b""),
    "short fields": (b"GET / HTTP/1.1\r\nHost: h\r\n", b"A:b\r\n", b"\r\n"),
    "fields of other names": (b"GET / HTTP/1.1\r\nHost: h\r\n", b"A_B:\r\n", b"\r\n"),
    "cookies": (b"GET / HTTP/1.1\r\nHost: h\r\n", b"Cookie:a\r\n", b"\r\n"),
    "CR without LF": (b"GET / HTTP/1.1\r\nA: ", b"\r", b""),
    "a list of options": (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: ", b",", b"\r\n\r\n"),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("piece_size", [1, 7, 4096])
def test_scanner_is_linear_whatever_the_size_of_the_pieces(name: str, piece_size: int) -> None:
    prefix, filler, suffix = HEADS[name]

    def make(size: int) -> Callable[[], object]:
        data = prefix + filler * (size // len(filler)) + suffix
        pieces = [data[at : at + piece_size] for at in range(0, len(data), piece_size)]
        scanner = HeadScanner(HUGE, HeadParser(HUGE).parse_request_line)
        return lambda: [scanner.feed(piece) for piece in pieces]

    assert_linear(make, name)


@pytest.mark.parametrize("filler", [b"A:b\r\n", b"Cookie:a\r\n", b"A_B:c\r\n", b"Proxy:c\r\n", b"%d:\r\n"])
def test_fields_are_linear(filler: bytes) -> None:
    def make(size: int) -> Callable[[], object]:
        count = size // len(filler)
        block = b"".join(filler % number if b"%" in filler else filler for number in range(count))[:-2]
        parser = HeadParser(HUGE)
        return lambda: parser.parse_fields(block, {})

    assert_linear(make, filler)


@pytest.mark.parametrize("raw", [b"1\r\na\r\n", b"1;a=b\r\na\r\n", b'1;a="\\""\r\na\r\n'])
@pytest.mark.parametrize("piece_size", [1, 7, 4096])
def test_chunks_are_linear_whatever_the_size_of_the_pieces(raw: bytes, piece_size: int) -> None:
    def make(size: int) -> Callable[[], object]:
        data = raw * (size // len(raw))
        pieces = [data[at : at + piece_size] for at in range(0, len(data), piece_size)]
        decoder = ChunkedDecoder(1 << 30, Limits())
        return lambda: [decoder.feed(piece, len) for piece in pieces]

    assert_linear(make, (raw, piece_size))


@pytest.mark.parametrize("filler", [b"a", b"%41", b":", b"[", b"0", b".", b"1:"])
def test_host_is_linear(filler: bytes) -> None:
    for prefix, suffix in ((b"", b""), (b"[", b"]"), (b"a:", b""), (b"", b",")):
        assert_linear(lambda n: lambda: parse_host(prefix + filler * (n // len(filler)) + suffix), (prefix, filler))  # noqa: B023
