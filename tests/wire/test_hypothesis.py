"""Whatever way bytes arrive in, the same is decided; and no bytes crash or hang the server.

The examples are the same in every run (derandomize).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from epollwsgi.errors import HTTPError
from epollwsgi.http.fields import CONDITIONAL
from epollwsgi.http.head import HeadParser, RequestLine
from epollwsgi.http.memory import SectionMemory
from tests.support import Client, Server, try_exchange_many
from tests.wire.harness import Stream
from tests.wire.rows import get, words
from tests.wire.strategies import Sent, cut, damaged, near_requests, noise, requests, streams

steady = settings(derandomize=True, database=None, deadline=None, max_examples=300)
few = settings(
    steady,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# One for the whole module: what it remembers from one example must not change the next.
WARM = HeadParser()


def outcome(pieces: list[bytes], parser: HeadParser | None = None) -> tuple[list[Any], bool]:
    """Every request that passed, and whether one was refused."""
    stream = Stream(parser or HeadParser()).feed(pieces)
    return [(request.line, request.environ, request.body) for request in stream.requests], stream.refusal is not None


@steady
@given(st.data())
def test_any_split_of_valid_requests_gives_the_same_environs(data: st.DataObject) -> None:
    sent = data.draw(streams)
    whole = b"".join(one.data for one in sent)
    expected, is_refused = outcome([whole])
    assert not is_refused
    assert [(line.method, line.target, body) for line, _, body in expected] == [
        (one.method, one.target, one.body) for one in sent
    ]
    assert outcome(data.draw(cut(whole))) == (expected, False)
    assert outcome([whole[at : at + 1] for at in range(len(whole))]) == (expected, False)


@steady
@given(st.data())
def test_any_split_of_any_bytes_decides_the_same(data: st.DataObject) -> None:
    """Also where something is wrong: the same requests pass before it, and it is refused however it arrives."""
    whole = data.draw(noise)
    expected = outcome([whole])
    assert outcome(data.draw(cut(whole))) == expected
    assert outcome([whole[at : at + 1] for at in range(len(whole))]) == expected


@steady
@given(st.lists(st.one_of(near_requests, damaged(), requests().map(lambda sent: sent.data)), max_size=4))
def test_memory_changes_nothing(parts: list[bytes]) -> None:
    """What was remembered from earlier lines gives exactly what careful parsing gives."""
    for part in parts:
        for pieces in ([part], [part[:5], part[5:]]):
            assert outcome(pieces, WARM) == outcome(pieces)


# Every line that these make, good and bad, is given to a parser that remembers the good ones.
LINE_PARTS = (
    words("GET POST"),
    [b"", b" ", b"  ", b"\t"],
    [b"", *words("/ /a * http://h /a#")],
    [b"", b"?"],
    [b"", *words(r"x HTTP/1.1 ?x #x x\x20y \x00 \xff")],
    [b"", b" ", b"  "],
    [b"", *words("HTTP/1.1 HTTP/1.0 HTTP/1.2 HTTP/2.0 HTTP/1.1x x")],
)


def decide_line(parser: HeadParser, line: bytes) -> object:
    try:
        return parser.parse_request_line(line)
    except HTTPError as error:
        return type(error)


def test_a_remembered_request_line_changes_nothing() -> None:
    warm = HeadParser()
    lines = [b"".join(parts) for parts in itertools.product(*LINE_PARTS)]
    for line in lines:
        decide_line(warm, line)
    wrong = [line for line in lines if decide_line(warm, line) != decide_line(HeadParser(), line)]
    assert not wrong, wrong[:10]
    assert any(isinstance(decide_line(warm, line), RequestLine) for line in lines)


FIELD_PARTS = (
    [b"", *words(r"A Accept Host X_A Proxy Content-Length A(  \x20A")],
    [b"", *words(r": :: \x20:")],
    [b"", *words(r"\x20 a \x20a\t b:c 5 \t \x85 \xa0 \xad \xff \x00 \x1f \x7f a\nb a\rb a,b")],
)


def decide_field(parser: HeadParser, line: bytes) -> object:
    environ: dict[str, object] = {}
    try:
        return parser.parse_fields(line, environ), environ
    except HTTPError as error:
        return type(error)


def test_a_remembered_field_line_changes_nothing() -> None:
    warm = HeadParser()
    lines = [b"".join(parts) for parts in itertools.product(*FIELD_PARTS)]
    for line in lines:
        decide_field(warm, line)
    wrong = [line for line in lines if decide_field(warm, line) != decide_field(HeadParser(), line)]
    assert not wrong, wrong[:10]
    assert any(isinstance(decide_field(warm, line), tuple) for line in lines)


# Browsers repeat the first of these and change the last; now and then comes something that must not be remembered.
COMMON_LINES = words(
    r"Host:h User-Agent:x Accept:*/* Accept-Language:en Accept-Encoding:gzip Sec-Fetch-Mode:cors DNT:1"
)
OTHER_LINES = words(
    r"Host:i Host: Accept:*/* Accept:text/x Cookie:a=1 Cookie:b=2 X:1 X:2 x:3 X_A:1 Proxy:p Connection:keep-alive"
    r" Connection:close Content-Length:0 Content-Length:3 Content-Type:a Expect:100-continue If-None-Match:e Range:r"
    r" Transfer-Encoding:chunked Accept Bad\x20Name:1 :x User-Agent:y"
)


@st.composite
def sections(draw: st.DrawFn) -> list[bytes]:
    """The lines of a field section: a part of the common ones, in order, and others behind or anywhere."""
    lines = COMMON_LINES[: draw(st.integers(0, len(COMMON_LINES)))]
    for other in draw(st.lists(st.sampled_from(OTHER_LINES), max_size=3)):
        lines.insert(draw(st.sampled_from((len(lines), len(lines), draw(st.integers(0, len(lines)))))), other)
    return lines


def decide_section(parse: Callable[[], tuple[dict[str, Any], int]]) -> object:
    try:
        return parse()
    except HTTPError as error:
        return type(error)


@settings(steady, max_examples=600)
@given(st.lists(st.tuples(sections(), st.integers(1, 3)), min_size=1, max_size=6))
def test_what_a_connection_remembers_changes_nothing(history: list[tuple[list[bytes], int]]) -> None:
    """A section that came before, whole or in its beginning, comes to what careful parsing makes of it."""
    parser, memory = HeadParser(), SectionMemory()
    for lines, repeated in history:
        head = b"\r\n".join((b"GET / HTTP/1.1", *lines)) + b"\r\n\r\n"
        line_end, end = head.index(b"\r\n"), head.index(b"\r\n\r\n")

        def parse_carefully(block: bytes = head[line_end + 2 : end]) -> tuple[dict[str, Any], int]:
            environ: dict[str, Any] = {"template": 1}
            return environ, HeadParser().parse_fields(block, environ)

        def parse_by_memory(head: bytes = head, line_end: int = line_end, end: int = end) -> tuple[dict[str, Any], int]:
            return memory.parse(head, line_end, end, parser, lambda: {"template": 1})

        expected = decide_section(parse_carefully)
        for _ in range(repeated):
            if memory.environ is not None and head.startswith(memory.section, line_end):
                assert isinstance(expected, tuple)
                assert memory.environ == expected[0]
                assert not expected[1] & ~CONDITIONAL
            found = decide_section(parse_by_memory)
            assert found == expected
            if isinstance(found, tuple):
                found[0]["left behind"] = "by an application"


@steady
@given(requests())
def test_environ_is_that_of_werkzeug(sent: Sent) -> None:
    [(line, environ, _)], _ = outcome([sent.data])
    lines = sent.data.lstrip(b"\r\n").split(b"\r\n\r\n", 1)[0].split(b"\r\n")[1:]
    pairs = [tuple(part.decode("latin-1").strip(" \t") for part in one.split(b":", 1)) for one in lines]
    fields = [(name, value) for name, value in pairs if "_" not in name and name.lower() != "proxy"]
    path, _, query = sent.target.partition("?")
    builder = EnvironBuilder(path="/", query_string=query, method=sent.method, headers=fields)
    builder.path = path
    oracle = builder.get_environ()
    builder.close()
    assert line.query == oracle["QUERY_STRING"]
    seen = {key: value for key, value in environ.items() if key not in ("HTTP_COOKIE", "CONTENT_LENGTH")}
    wanted = {key: value for key, value in oracle.items() if key.startswith("HTTP_") and key != "HTTP_COOKIE"}
    # werkzeug joins with "," where WIRE.md 4 asks for ", ", and keeps the coding that a request is decoded from.
    wanted.pop("HTTP_TRANSFER_ENCODING", None)
    assert {key: value.replace(", ", ",") for key, value in seen.items()} == {
        key: value.replace(", ", ",") for key, value in wanted.items()
    }


def exchange_stream(server: Server, sent: list[Sent], pieces: list[bytes]) -> list[dict[str, Any]]:
    """What the application saw, less what differs from connection to connection."""
    seen = []
    with Client(server.address) as client:
        for piece in pieces:
            client.send(piece)
        for one in sent:
            reply = client.read_response(one.method)
            assert reply.status == 200
            answer = json.loads(reply.body)
            for key in ("REMOTE_PORT", "epollwsgi.request_id", "epollwsgi.peer"):
                answer["environ"].pop(key, None)
            seen.append(answer)
        assert client.is_quiet(0)
    return seen


@few
@given(st.data())
def test_any_split_gives_the_same_environs_live(echo: Server, data: st.DataObject) -> None:
    sent = data.draw(streams)
    whole = b"".join(one.data for one in sent)
    expected = exchange_stream(echo, sent, [whole])
    for one, answer in zip(sent, expected, strict=True):
        assert answer["environ"]["REQUEST_METHOD"] == one.method
        assert answer["environ"]["RAW_URI"] == one.target
        assert (answer["length"], answer["sha256"]) == (len(one.body), hashlib.sha256(one.body).hexdigest())
    assert exchange_stream(echo, sent, data.draw(cut(whole))) == expected
    assert exchange_stream(echo, sent, [whole[at : at + 1] for at in range(len(whole))]) == expected


@few
@given(st.lists(noise, min_size=20, max_size=40))
def test_no_bytes_crash_or_hang_the_server(echo: Server, blobs: list[bytes]) -> None:
    """Every connection ends soon after its client's end, and the next request is answered."""
    jobs = [[blob[:7], blob[7:]] for blob in blobs]
    for data in try_exchange_many(echo.address, jobs, half_close=True, timeout=12, count=0):
        assert isinstance(data, bytes), data
        assert data == b"" or data.startswith(b"HTTP/1.1 ")
    with Client(echo.address) as client:
        assert client.request(get()).status == 200
    assert echo.is_running()
