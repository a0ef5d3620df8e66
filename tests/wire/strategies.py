"""Valid requests, streams of them, ways to cut them, and bytes that are nearly requests, for hypothesis."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.wire.rows import TCHARS, words

NAMES = words(
    "Accept User-Agent X-A x-b Cookie Accept-Language Sec-Fetch-Mode Referer X_Dropped Proxy If-None-Match A 1"
)
PATHS = words("/ /a /a/b //x /%41%2f%C3%A9 /a;b=c /%zz /index.html")
QUERIES = words("? ?a=b ?a=b&c=%20+ ?? ?HTTP/1.1 ?a=b?c")
EXTENSIONS = (b"", *words(r';a ;a=b \x20;\x20a="b;\\"c" ;a;b=c'))


@dataclass(frozen=True)
class Sent:
    """A request as it goes over the wire, and what must come of it."""

    data: bytes
    method: str
    target: str
    body: bytes


values = st.binary(max_size=12).map(
    lambda raw: bytes(byte for byte in raw if byte == 9 or (byte >= 32 and byte != 127))
)
names = st.one_of(
    st.sampled_from(NAMES), st.text(TCHARS.decode(), min_size=1, max_size=8).map(lambda t: b"X-" + t.encode())
)
methods = st.sampled_from(words("GET POST PUT OPTIONS get X-Y"))
targets = st.builds(
    lambda path, query: path + query, st.sampled_from(PATHS), st.one_of(st.just(b""), st.sampled_from(QUERIES))
)
bodies = st.binary(max_size=40)


@st.composite
def framed_bodies(draw: st.DrawFn) -> tuple[list[bytes], bytes, bytes]:
    """Field lines, raw content and decoded content."""
    kind = draw(st.sampled_from(("none", "length", "chunked")))
    if kind == "none":
        return [], b"", b""
    if kind == "length":
        body = draw(bodies)
        return [b"Content-Length: %d" % len(body)], body, body
    chunks = draw(st.lists(bodies.filter(bool), max_size=3))
    raw = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), draw(st.sampled_from(EXTENSIONS)), chunk) for chunk in chunks)
    trailers = draw(st.lists(st.sampled_from((b"A: b", b"Content-Length: 9", b"Host:")), max_size=2))
    raw += b"0\r\n" + b"".join(line + b"\r\n" for line in trailers) + b"\r\n"
    return [b"Transfer-Encoding: chunked"], raw, b"".join(chunks)


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """One valid request that keeps its connection open."""
    method, target = draw(methods), draw(targets)
    framing, raw, body = draw(framed_bodies())
    pairs = draw(st.lists(st.tuples(names, values), max_size=5))
    lines = [b"Host: " + draw(st.sampled_from(words("h example.com:80 [::1]"))), *framing]
    lines += [name + b":" + value for name, value in pairs]
    lines = draw(st.permutations(lines))
    empty_line = draw(st.sampled_from((b"", b"", b"", b"\r\n")))
    data = empty_line + b"\r\n".join((method + b" " + target + b" HTTP/1.1", *lines)) + b"\r\n\r\n" + raw
    return Sent(data, method.decode(), target.decode(), body)


streams = st.lists(requests(), min_size=1, max_size=5)


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The data in pieces; often cut around the ends of lines, where it matters."""
    anywhere = st.integers(0, len(data))
    ends = [match.start() for match in re.finditer(rb"[\r\n]", data)]
    places = st.one_of(anywhere, st.sampled_from(ends)) if ends else anywhere
    at = sorted({0, len(data), *draw(st.lists(places, max_size=12))})
    return [data[start:end] for start, end in itertools.pairwise(at)]


# Parts of requests in any order: far more often nearly valid than random bytes are.
fragments = st.sampled_from(
    [
        *words(r"GET POST / /a ? HTTP/1.1 HTTP/1.0 \x20 \r\n \r \n : , ; = a 0 5 \x00 \xff # % \t"),
        *(
            b"Host: h\r\n",
            b"Host: h",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"A: b\r\n",
            b"\r\n\r\n",
        ),
        *(
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"Connection: close\r\n",
        ),
        *(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"Expect: 100-continue\r\n",
            b"Cookie: a\r\n",
        ),
    ]
)
near_requests = st.lists(fragments, max_size=14).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A stream of valid requests in which a few bytes were changed, put in or taken out."""
    data = bytearray(b"".join(sent.data for sent in draw(streams)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.one_of(st.binary(max_size=2), fragments))
    return bytes(data)


noise = st.one_of(near_requests, damaged(), st.binary(max_size=200))
