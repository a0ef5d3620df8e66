"""Fields as werkzeug's ProxyFix reads them where it is told the number of proxies, schemes as gunicorn reads them, and
Forwarded by a state machine that reads RFC 7239 byte by byte.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, cast
from wsgiref.util import request_uri

from gunicorn.config import Config
from gunicorn.http.errors import InvalidSchemeHeaders
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import get_host

from epollwsgi.errors import BadForwarded, HTTPError
from epollwsgi.http.forwarded import DEFAULT_PORTS, Element, parse_forwarded
from tests.proxy.rows import SCHEMES, build_forwarding

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

steady = settings(max_examples=300, deadline=None, derandomize=True)
TRUSTED = "127.0.0.1,10.0.0.0/8,fd00::/8"
FORWARDING = build_forwarding(TRUSTED, "for,proto,host,port,prefix")
BY_FORWARDED = build_forwarding(TRUSTED, "forwarded")

proxies = st.one_of(
    st.builds("10.{}.{}.7".format, st.integers(0, 255), st.integers(0, 255)),
    st.builds("fd00::{:x}".format, st.integers(1, 0xFFFF)),
    st.just("::ffff:10.0.0.9"),
)
clients = st.one_of(
    st.builds("203.0.113.{}".format, st.integers(0, 255)), st.builds("2001:db8::{:x}".format, st.integers(1, 0xFFFF))
)
forged = st.lists(st.sampled_from(["6.6.6.6", "unknown", "10.0.0.1", "noise", "127.0.0.1", "::1", "<>"]), max_size=4)
spaces = st.sampled_from([", ", ",", " , ", ",\t"])
schemes = st.sampled_from(["http", "https"])
hosts = st.sampled_from(["a.example", "b.example:8443", "[2001:db8::5]", "[::1]:81", "c:80", "d:443"])
ports = st.sampled_from(["80", "443", "8080", "1"])
prefixes = st.sampled_from(["/a", "/b/c", "/"])


def start_environ(**fields: str) -> dict[str, Any]:
    return {
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "5",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "inner:8000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/x",
        "QUERY_STRING": "q",
        **fields,
    }


def by_proxy_fix(environ: dict[str, Any], count: int) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> Sequence[bytes]:
        seen.update(environ)
        return []

    fix = ProxyFix(app, x_for=count, x_proto=count, x_host=count, x_port=count, x_prefix=count)
    fix(environ.copy(), cast("StartResponse", None))
    return seen


def by_us(environ: dict[str, Any]) -> dict[str, Any]:
    """Done twice: that must be the same as once."""
    once = environ.copy()
    FORWARDING.apply(once)
    twice = once.copy()
    FORWARDING.apply(twice)
    assert once == twice
    return once


def without_default(environ: dict[str, Any]) -> tuple[str, str]:
    """Scheme and host as URLs have them."""
    scheme = environ["wsgi.url_scheme"]
    return scheme, get_host(scheme, environ.get("HTTP_HOST"), (environ["SERVER_NAME"], int(environ["SERVER_PORT"])))


@settings(steady, max_examples=120)
@given(st.data())
def test_the_client_and_what_stands_beside_it(data: st.DataObject) -> None:
    """Every proxy adds an entry to each list; a client may have put some in front."""
    behind = data.draw(st.lists(proxies, max_size=3))
    before = data.draw(forged)
    client = data.draw(clients)
    count = len(behind) + 1

    def draw_list(strategy: st.SearchStrategy[str]) -> str:
        entries = data.draw(st.lists(strategy, min_size=count, max_size=count + 2))
        return data.draw(spaces).join(entries)

    environ = start_environ(HTTP_X_FORWARDED_FOR=data.draw(spaces).join([*before, client, *behind]))
    for name, strategy in (("PROTO", schemes), ("HOST", hosts), ("PORT", ports), ("PREFIX", prefixes)):
        if data.draw(st.booleans()):
            environ[f"HTTP_X_FORWARDED_{name}"] = draw_list(strategy)
    expected, found = by_proxy_fix(environ, count), by_us(environ)
    assert found["REMOTE_ADDR"] == str(ip_address(expected["REMOTE_ADDR"]))
    assert "REMOTE_PORT" not in found
    assert found["wsgi.url_scheme"] == expected["wsgi.url_scheme"]
    assert found["SCRIPT_NAME"] == expected["SCRIPT_NAME"]
    assert without_default(found) == without_default(expected)
    scheme, host = without_default(found)
    written = [host, f"{host}:{DEFAULT_PORTS[scheme]}"]  # a default port is left where it was written
    assert request_uri(found) in [f"{scheme}://{one}{found['SCRIPT_NAME']}/x?q" for one in written]
    if "HTTP_X_FORWARDED_PORT" in environ:
        assert found["SERVER_PORT"] == expected["SERVER_PORT"]
    if any(f"HTTP_X_FORWARDED_{name}" in environ for name in ("PROTO", "HOST", "PORT")):
        bare = {**found, "SERVER_NAME": host.rpartition(":")[0] if host[-1].isdigit() else host}
        del bare["HTTP_HOST"]
        assert without_default(bare) == (scheme, host), "SERVER_PORT says the same as Host"


@steady
@given(st.lists(st.text("1.:[]a,f \t_-x", max_size=12), max_size=5), st.text("1.:[]af,u", max_size=20))
def test_no_noise_leads_to_an_address_that_nobody_wrote(entries: list[str], last: str) -> None:
    value = ", ".join([*entries, last])
    found = by_us(start_environ(HTTP_X_FORWARDED_FOR=value))
    if found["REMOTE_ADDR"] != "127.0.0.1":
        written = [part.strip() for part in value.split(",") if part.strip()]
        texts = {text for part in written for text in (part, part.strip("[]"), *part.rpartition(":")[:1])}
        texts |= {text.strip("[]") for text in texts}
        assert any(read_address(text) == found["REMOTE_ADDR"] for text in texts)


def read_address(text: str) -> str | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


# --- schemes --------------------------------------------------------------------------------------------------------


def by_gunicorn(lines: Sequence[str]) -> str:
    config = Config()
    data = "\r\n".join(["GET / HTTP/1.1", "Host: h", *lines]).encode("latin-1") + b"\r\n\r\n"
    try:
        scheme = Request(config, IterUnreader([data]), ("127.0.0.1", 1)).scheme
    except InvalidSchemeHeaders:
        return "refused"
    return str(scheme)


def test_schemes_are_those_of_gunicorn() -> None:
    values = [None, "", "https", "http", "HTTPS", "ssl", "on", "off", "wss", "https "]
    seen = set()
    for chosen in itertools.product(values, repeat=len(SCHEMES)):
        pairs = [(name, value) for name, value in zip(SCHEMES, chosen, strict=True) if value is not None]
        expected = by_gunicorn([f"{name}: {value}" for name, value in pairs])
        environ = {f"HTTP_{name.replace('-', '_')}": value.strip() for name, value in pairs}
        try:
            found = start_environ(**environ)
            FORWARDING.apply(found)
            outcome = found["wsgi.url_scheme"]
        except HTTPError:
            outcome = "refused"
        assert outcome == expected, pairs
        seen.add(outcome)
    assert seen == {"http", "https", "refused"}


# --- Forwarded ------------------------------------------------------------------------------------------------------

TCHARS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
BARE = TCHARS | frozenset(":[]")


class Refused(Exception):
    """Not by the grammar."""


class Reader:
    """RFC 7239 section 4, with the two liberties that `forwarded` takes: white space at `;`, and BARE."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def run(self, allowed: frozenset[str]) -> str:
        start = self.at
        while self.peek() in allowed and self.peek():
            self.at += 1
        return self.text[start : self.at]

    def need(self, text: str) -> str:
        if not text:
            raise Refused
        return text

    def expect(self, char: str) -> None:
        if self.peek() != char:
            raise Refused
        self.at += 1

    def value(self) -> str:
        if self.peek() != '"':
            return self.need(self.run(BARE))
        self.at += 1
        content = ""
        while self.peek() != '"':
            if self.peek() == "\\":
                self.at += 1
            content += self.need(self.peek())
            self.at += 1
        self.at += 1
        return content

    def element(self) -> dict[str, str]:
        pairs: dict[str, str] = {}
        while True:
            self.run(frozenset(" \t"))
            if self.peek() in TCHARS and self.peek():
                name = self.run(TCHARS).lower()
                self.expect("=")
                if name in pairs:
                    raise Refused
                pairs[name] = self.value()
                self.run(frozenset(" \t"))
            if self.peek() != ";":
                return pairs
            self.at += 1

    def read(self) -> list[dict[str, str]]:
        elements = [self.element()]
        while self.peek():
            self.expect(",")
            elements.append(self.element())
        return [element for element in elements if element]


def as_elements(value: str) -> list[Element] | None:
    try:
        found = Reader(value).read()
    except Refused:
        return None
    return [Element(one.get("for", ""), one.get("proto"), one.get("host")) for one in found]


def parse(value: str) -> list[Element] | None:
    try:
        return parse_forwarded(value)
    except BadForwarded:
        return None


PIECES = [*'=;,"\\ \t:[]a1_(\xff', "for", "FOR=", 'proto="', "host=h", "for=1.2.3.4", ', for="', '"]', "\\\\", '\\"']


@settings(steady, max_examples=1500)
@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_bytes_are_read_by_the_grammar(pieces: list[str]) -> None:
    value = "".join(pieces)
    assert parse(value) == as_elements(value)


texts = st.text('abc1.:[]_ ,;=\\"\xe9\t', max_size=8)
names = st.sampled_from(["for", "For", "proto", "host", "HOST", "by", "x-1"])


@st.composite
def written_elements(draw: st.DrawFn) -> tuple[dict[str, str], str]:
    """What an element says, and one of the ways to write it."""
    pairs: dict[str, str] = {}
    written = []
    for name in draw(st.lists(names, max_size=4, unique_by=str.lower)):
        value = pairs[name.lower()] = draw(texts)
        if not value or not set(value) <= BARE or draw(st.booleans()):
            escaped = "".join("\\" + char if char in '\\"' or draw(st.booleans()) else char for char in value)
            value = f'"{escaped}"'
        written.append(f"{name}={value}")
    return pairs, draw(st.sampled_from([";", " ; ", ";;", "; "])).join(written)


@steady
@given(st.lists(written_elements(), max_size=4), st.sampled_from([",", ", ", " ,\t", ",,"]))
def test_what_was_written_is_read(elements: list[tuple[dict[str, str], str]], comma: str) -> None:
    value = comma.join(written for _, written in elements)
    expected = [Element(one.get("for", ""), one.get("proto"), one.get("host")) for one, _ in elements if one]
    assert parse_forwarded(value) == expected == as_elements(value)


@steady
@given(st.lists(proxies, max_size=3), clients, st.booleans(), schemes)
def test_forwarded_comes_to_what_x_forwarded_for_does(
    behind: list[str], client: str, is_quoted: bool, scheme: str
) -> None:
    """The client's element tells the scheme, whatever the others say."""
    nodes = [f"[{one}]" if ":" in one else one for one in [client, *behind]]
    parts = [f'for="{node}"' if is_quoted else f"for={node}" for node in nodes]
    parts = [
        f"{parts[0]};proto={scheme}",
        *(f"proto={'http' if scheme == 'https' else 'https'};{x}" for x in parts[1:]),
    ]
    found = start_environ(HTTP_FORWARDED=", ".join(["for=6.6.6.6;proto=http", *parts]))
    BY_FORWARDED.apply(found)
    assert (
        found["REMOTE_ADDR"] == by_us(start_environ(HTTP_X_FORWARDED_FOR=", ".join([client, *behind])))["REMOTE_ADDR"]
    )
    assert found["wsgi.url_scheme"] == scheme
