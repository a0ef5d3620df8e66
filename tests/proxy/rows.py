"""Requests as proxies send them, and what the application must see of them. OPERATIONS.md 4.

LOCAL stands for the port of the server's own socket, PEER for that of its peer, MADE for an id made by the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from epollwsgi.config.settings import DEFAULTS, SECURE_SCHEME_HEADERS
from epollwsgi.http.forwarded import Forwarding

LOCAL, PEER, MADE = "the local port", "the peer's port", "an id that was made"
UNCHANGED: Mapping[str, str | None] = {
    "wsgi.url_scheme": "http",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": PEER,
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": LOCAL,
    "SCRIPT_NAME": "",
    "PATH_INFO": "/a",
    "HTTP_HOST": "h",
    "epollwsgi.request_id": MADE,
}
SCHEMES = dict(SECURE_SCHEME_HEADERS)


@dataclass(frozen=True)
class Row:
    """Field lines; environ: where it differs from UNCHANGED, None for a key that is absent; None: refused with 400."""

    name: str
    fields: tuple[bytes, ...]
    environ: Mapping[str, str | None] | None = field(default_factory=dict)
    believed: str | None = None  # by default what its table says
    peers: str = "127.0.0.1,::1"
    settings: tuple[str, ...] = ()
    head: tuple[bytes, ...] = (b"GET /a HTTP/1.1", b"Host: h")

    @property
    def options(self) -> tuple[str, ...]:
        """Of the command line."""
        return (f"--forwarded-allow-ips={self.peers}", f"--forwarded-fields={self.believed}", *self.settings)

    @property
    def data(self) -> bytes:
        return b"\r\n".join((*self.head, *self.fields)) + b"\r\n\r\n"

    @property
    def expected(self) -> dict[str, str | None]:
        assert self.environ is not None
        return {**UNCHANGED, **self.environ}


def build_forwarding(
    peers: str = "127.0.0.1,::1",
    believed: str = "all",
    schemes: Mapping[str, str] = SCHEMES,
    forwarders: Sequence[str] = DEFAULTS.forwarder_headers,
) -> Forwarding:
    """What the settings of these values make."""
    return Forwarding(peers.split(","), believed.split(","), schemes, forwarders)


def row(name: str, *fields: bytes, environ: Mapping[str, str | None] | None = None, **more: Any) -> Row:
    """A request that reaches the application, which sees what the server made of the fields."""
    return Row(name, fields, environ or {}, **more)


def refused(name: str, *fields: bytes, **more: Any) -> Row:
    """A request that gets 400."""
    return Row(name, fields, None, **more)


def client(address: str, port: str | None = None, **more: str | None) -> dict[str, str | None]:
    """The items of a client's address."""
    return {"REMOTE_ADDR": address, "REMOTE_PORT": port, **more}


def server(scheme: str, port: str, host: str = "h", name: str = "127.0.0.1") -> dict[str, str | None]:
    """The items of the server as its client sees it."""
    return {"wsgi.url_scheme": scheme, "SERVER_PORT": port, "HTTP_HOST": host, "SERVER_NAME": name}


HTTPS, HTTP = server("https", "443"), server("http", "80")
ALL_FIELDS = (
    b"X-Forwarded-For: 203.0.113.9",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: public.example",
    b"X-Forwarded-Port: 8443",
    b"X-Forwarded-Prefix: /shop",
    b"X-Request-ID: abc-123",
)
ALL_SEEN = {
    **server("https", "8443", "public.example:8443", "public.example"),
    **client("203.0.113.9"),
    "SCRIPT_NAME": "/shop",
    "epollwsgi.request_id": "abc-123",
}
UNTOUCHED = {
    "HTTP_X_FORWARDED_FOR": "203.0.113.9",
    "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_X_FORWARDED_HOST": "public.example",
    "HTTP_X_FORWARDED_PORT": "8443",
    "HTTP_X_FORWARDED_PREFIX": "/shop",
    "HTTP_X_REQUEST_ID": "abc-123",
}

TRUST = [
    row("all of a trusted peer", *ALL_FIELDS, environ={**UNTOUCHED, **ALL_SEEN}, believed="all"),
    row("all of a network", *ALL_FIELDS, environ=ALL_SEEN, believed="all", peers="10.0.0.0/8,127.0.0.0/8"),
    row("all of anyone", *ALL_FIELDS, environ=ALL_SEEN, believed="all", peers="*"),
    row("all of a mapped network", *ALL_FIELDS, environ=ALL_SEEN, believed="all", peers="::ffff:127.0.0.0/104"),
    row("of a stranger", *ALL_FIELDS, environ=UNTOUCHED, believed="all", peers="10.0.0.1"),
    row("of a stranger to a network", *ALL_FIELDS, environ=UNTOUCHED, believed="all", peers="10.0.0.0/8"),
    row("of a stranger, nobody is believed", *ALL_FIELDS, environ=UNTOUCHED, believed="all", peers=""),
    row("of a stranger, unix sockets are believed", *ALL_FIELDS, environ=UNTOUCHED, believed="all", peers="unix"),
    row("by default the scheme, and the id", *ALL_FIELDS, environ={**HTTPS, "epollwsgi.request_id": "abc-123"}),
    row("of a stranger, malformed", b"X-Forwarded-Host: a b", b"Forwarded: ;=", believed="all", peers="10.0.0.1"),
    row("of a stranger, contradictory", b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: off", peers="10.0.0.1"),
]
SCHEME = [
    row("https", b"X-Forwarded-Proto: https", environ=HTTPS),
    row("http", b"X-Forwarded-Proto: http", environ=HTTP),
    row("X-Forwarded-Ssl", b"x-forwarded-SSL: on", environ=HTTPS),
    row("X-Forwarded-Protocol", b"X-Forwarded-Protocol: ssl", environ=HTTPS),
    row("two that agree", b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: on", environ=HTTPS),
    row("case matters, as in gunicorn", b"X-Forwarded-Proto: HTTPS", environ=HTTP),
    row("an empty value", b"X-Forwarded-Proto:", environ=HTTP),
    row(
        "https with a port in Host",
        b"X-Forwarded-Proto: https",
        environ=server("https", "8443", "h:8443"),
        head=(b"GET /a HTTP/1.1", b"Host: h:8443"),
    ),
    row(
        "https with IPv6 in Host",
        b"X-Forwarded-Proto: https",
        environ=server("https", "443", "[::1]"),
        head=(b"GET /a HTTP/1.1", b"Host: [::1]"),
    ),
    row(
        "https without Host",
        b"X-Forwarded-Proto: https",
        environ={**HTTPS, "HTTP_HOST": None},
        head=(b"GET /a HTTP/1.0", b"Connection: keep-alive"),
    ),
    row("a list ends with the word of the nearest proxy", b"X-Forwarded-Proto: http, https", environ=HTTPS),
    row("a list in two lines", b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: http", environ=HTTP),
    row("not believed", b"X-Forwarded-Proto: https", believed="for"),
    refused("contradictory", b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: off"),
    refused("contradictory, the other way round", b"X-Forwarded-Ssl: on", b"X-Forwarded-Proto: http"),
    row(
        "an absolute target",
        b"X-Forwarded-Proto: https",
        environ=server("https", "444", "t:444"),
        head=(b"GET http://t:444/a HTTP/1.1", b"Host: h"),
    ),
]
FOR = [
    row("a client", b"X-Forwarded-For: 203.0.113.9", environ=client("203.0.113.9")),
    row("a client with a port", b"X-Forwarded-For: 203.0.113.9:81", environ=client("203.0.113.9", "81")),
    row("IPv6", b"X-Forwarded-For: 2001:DB8::0:1", environ=client("2001:db8::1")),
    row("IPv6 in brackets", b"X-Forwarded-For: [2001:db8::1]", environ=client("2001:db8::1")),
    row("IPv6 with a port", b"X-Forwarded-For: [2001:db8::1]:8080", environ=client("2001:db8::1", "8080")),
    row("IPv4 as IPv6", b"X-Forwarded-For: ::ffff:203.0.113.9", environ=client("203.0.113.9")),
    row(
        "the last that is no proxy", b"X-Forwarded-For: 6.6.6.6, 203.0.113.9, 127.0.0.1", environ=client("203.0.113.9")
    ),
    row("a mapped proxy", b"X-Forwarded-For: 6.6.6.6, 203.0.113.9, ::ffff:127.0.0.1", environ=client("203.0.113.9")),
    row("a proxy with a port", b"X-Forwarded-For: 203.0.113.9, 127.0.0.1:5000", environ=client("203.0.113.9")),
    row("in two lines", b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 203.0.113.9", environ=client("203.0.113.9")),
    row("proxies alone", b"X-Forwarded-For: ::1, 127.0.0.1", environ=client("::1")),
    row("noise behind a proxy", b"X-Forwarded-For: 6.6.6.6, noise, ::1", environ=client("::1")),
    row("an unknown one behind a proxy", b"X-Forwarded-For: 6.6.6.6, unknown, ::1", environ=client("::1")),
    row("noise", b"X-Forwarded-For: 6.6.6.6, <script>"),
    row("a zone", b"X-Forwarded-For: fe80::1%eth0"),
    row("leading zeros", b"X-Forwarded-For: 010.0.0.1"),
    row("a port that is none", b"X-Forwarded-For: 203.0.113.9:65536"),
    row("a network", b"X-Forwarded-For: 203.0.113.0/24"),
    row("a unix socket", b"X-Forwarded-For: 6.6.6.6, unix:"),
    row("nothing", b"X-Forwarded-For:"),
    row("commas", b"X-Forwarded-For: , ,\t,"),
    row("empty entries", b"X-Forwarded-For: ,203.0.113.9, ,127.0.0.1,", environ=client("203.0.113.9")),
    row("not believed", b"X-Forwarded-For: 203.0.113.9", believed="proto"),
    row(
        "anyone is believed, as to the last", b"X-Forwarded-For: 6.6.6.6, 7.7.7.7", environ=client("7.7.7.7"), peers="*"
    ),
    row(
        "anyone, and a known proxy", b"X-Forwarded-For: 6.6.6.6, 7.7.7.7", environ=client("6.6.6.6"), peers="*,7.7.7.7"
    ),
    row(
        "all addresses are anyone",
        b"X-Forwarded-For: 6.6.6.6, 7.7.7.7",
        environ=client("7.7.7.7"),
        peers="0.0.0.0/0,::/0",
    ),
    row(
        "all mapped addresses are anyone",
        b"X-Forwarded-For: 6.6.6.6, 7.7.7.7",
        environ=client("7.7.7.7"),
        peers="::ffff:0:0/96",
    ),
    row(
        "a proxy in a network",
        b"X-Forwarded-For: 6.6.6.6, 8.8.8.8, 10.1.2.3",
        environ=client("8.8.8.8"),
        peers="127.0.0.1,10.0.0.0/8",
    ),
    row(
        "a proxy over a unix socket",
        b"X-Forwarded-For: 8.8.8.8, unix:",
        environ=client("8.8.8.8"),
        peers="127.0.0.1,unix",
    ),
]
HOST = [
    row("a host", b"X-Forwarded-Host: p.example", environ=server("http", "80", "p.example", "p.example")),
    row(
        "a host with a port",
        b"X-Forwarded-Host: p.example:81",
        environ=server("http", "81", "p.example:81", "p.example"),
    ),
    row("a host in brackets", b"X-Forwarded-Host: [::1]:81", environ=server("http", "81", "[::1]:81", "[::1]")),
    row(
        "a host and the scheme",
        b"X-Forwarded-Host: p",
        b"X-Forwarded-Proto: https",
        environ=server("https", "443", "p", "p"),
        believed="host,proto",
    ),
    row("hosts", b"X-Forwarded-Host: evil, p", environ=server("http", "80", "p", "p")),
    row("an empty host", b"X-Forwarded-Host: "),
    row(
        "a host beside an absolute target",
        b"X-Forwarded-Host: p",
        environ=server("http", "80", "p", "p"),
        head=(b"GET http://t/a HTTP/1.1", b"Host: h"),
    ),
    row(
        "a host where there is none",
        b"X-Forwarded-Host: p",
        environ={**server("http", "80", "p", "p"), "HTTP_HOST": None},
        head=(b"GET /a HTTP/1.0", b"Connection: keep-alive"),
    ),
    row("not believed", b"X-Forwarded-Host: p.example", believed="for,proto,port,prefix,forwarded"),
    refused("no Host of its own", b"X-Forwarded-Host: p", head=(b"GET /a HTTP/1.1",)),
    refused("a host with a space", b"X-Forwarded-Host: a b"),
    refused("a host with userinfo", b"X-Forwarded-Host: u@h"),
    refused("a host with a path", b"X-Forwarded-Host: h/x"),
    refused("a port without a host", b"X-Forwarded-Host: :80"),
    refused("8-bit bytes in a host", b"X-Forwarded-Host: \xe9"),
]
PORT = [
    row("a port", b"X-Forwarded-Port: 8080", environ=server("http", "8080", "h:8080")),
    row("the default port", b"X-Forwarded-Port: 80", environ=server("http", "80", "h")),
    row(
        "a port in the place of Host's",
        b"X-Forwarded-Port: 8080",
        environ=server("http", "8080", "h:8080"),
        head=(b"GET /a HTTP/1.1", b"Host: h:1"),
    ),
    row(
        "the default port of https",
        b"X-Forwarded-Port: 443",
        b"X-Forwarded-Proto: https",
        environ=HTTPS,
        believed="port,proto",
    ),
    row(
        "a port beside IPv6",
        b"X-Forwarded-Port: 8080",
        environ=server("http", "8080", "[::1]:8080"),
        head=(b"GET /a HTTP/1.1", b"Host: [::1]"),
    ),
    row("ports", b"X-Forwarded-Port: 1, 8080", environ=server("http", "8080", "h:8080")),
    row("a port of many digits", b"X-Forwarded-Port: 00081", environ=server("http", "81", "h:81")),
    row("an empty port", b"X-Forwarded-Port:"),
    row(
        "a port without Host",
        b"X-Forwarded-Port: 81",
        environ={"SERVER_PORT": "81", "HTTP_HOST": None},
        head=(b"GET /a HTTP/1.0", b"Connection: keep-alive"),
    ),
    row("not believed", b"X-Forwarded-Port: 8080", believed="proto,host"),
    *(
        refused(f"a bad port: {port.decode()}", b"X-Forwarded-Port: " + port)
        for port in (b"0", b"65536", b"+1", b"a", b"1e3", b"123456")
    ),
]
PREFIX = [
    row("a prefix", b"X-Forwarded-Prefix: /shop", environ={"SCRIPT_NAME": "/shop", "PATH_INFO": "/a"}),
    row("a prefix as it is", b"X-Forwarded-Prefix: /a/", environ={"SCRIPT_NAME": "/a/", "PATH_INFO": "/a"}),
    row("an empty prefix", b"X-Forwarded-Prefix:", environ={"SCRIPT_NAME": ""}),
    row("SCRIPT_NAME", b"SCRIPT_NAME: /shop", environ={"SCRIPT_NAME": "/shop", "HTTP_SCRIPT_NAME": "/shop"}),
    row("SCRIPT_NAME is not taken off the path", b"script_name: /a", environ={"SCRIPT_NAME": "/a", "PATH_INFO": "/a"}),
    row("both", b"SCRIPT_NAME: /shop", b"X-Forwarded-Prefix: /shop", environ={"SCRIPT_NAME": "/shop"}),
    row("Script-Name is not SCRIPT_NAME", b"Script-Name: /shop", environ={"HTTP_SCRIPT_NAME": None}),
    row(
        "Script-Name beside it",
        b"Script-Name: /e",
        b"SCRIPT_NAME: /s",
        environ={"SCRIPT_NAME": "/s", "HTTP_SCRIPT_NAME": "/s"},
    ),
    row("X_Forwarded_Prefix", b"X_Forwarded_Prefix: /e", environ={"HTTP_X_FORWARDED_PREFIX": None}),
    row(
        "X_Forwarded_Prefix, dangerously",
        b"X_Forwarded_Prefix: /e",
        environ={"HTTP_X_FORWARDED_PREFIX": None},
        settings=("--header-map=dangerous",),
    ),
    row("PATH_INFO changes nothing", b"PATH_INFO: /b", environ={"HTTP_PATH_INFO": "/b"}),
    row("not believed", b"SCRIPT_NAME: /shop", environ={"HTTP_SCRIPT_NAME": "/shop"}, believed="proto"),
    row("of a stranger", b"SCRIPT_NAME: /shop", environ={"HTTP_SCRIPT_NAME": None}, peers="10.0.0.1"),
    row(
        "instead of the setting",
        b"X-Forwarded-Prefix: /b",
        environ={"SCRIPT_NAME": "/b", "PATH_INFO": "/x"},
        settings=("--script-name=/a",),
        head=(b"GET /a/x HTTP/1.1", b"Host: h"),
    ),
    refused("two that contradict each other", b"SCRIPT_NAME: /a", b"X-Forwarded-Prefix: /b"),
]
FORWARDED = [
    row("a client", b"Forwarded: for=203.0.113.9", environ=client("203.0.113.9")),
    row(
        "all of it",
        b'Forwarded: For="[2001:db8::1]:4711";proto=https;host="p:8443";by=_x',
        environ={**client("2001:db8::1", "4711"), **server("https", "8443", "p:8443", "p")},
    ),
    row(
        "white space",
        b"Forwarded: for=203.0.113.9 ; proto=https ,\tfor=127.0.0.1",
        environ={**client("203.0.113.9"), **HTTPS},
    ),
    row(
        "the element of the client",
        b"Forwarded: for=6.6.6.6;proto=http, for=203.0.113.9;proto=https, for=127.0.0.1;proto=http",
        environ={**client("203.0.113.9"), **HTTPS},
    ),
    row("in two lines", b"Forwarded: for=203.0.113.9", b"Forwarded: for=127.0.0.1", environ=client("203.0.113.9")),
    row("without quotes", b"Forwarded: for=[2001:db8::1]:80", environ=client("2001:db8::1", "80")),
    row("an obfuscated port", b'Forwarded: for="203.0.113.9:_x.Y-1"', environ=client("203.0.113.9")),
    row("escapes", rb'Forwarded: for="203\.0.113.9"', environ=client("203.0.113.9")),
    row("unknown", b"Forwarded: for=6.6.6.6, for=unknown"),
    row("hidden", b"Forwarded: for=_hidden;proto=https", environ=HTTPS),
    row(
        "unknown, behind a proxy",
        b'Forwarded: for=unknown;proto=https, for="[::1]"',
        environ={**client("::1"), **HTTPS},
    ),
    row("no address", b"Forwarded: proto=https, for=127.0.0.1", environ={**client("127.0.0.1"), **HTTPS}),
    row("empty elements", b"Forwarded: , for=203.0.113.9,, ,", environ=client("203.0.113.9")),
    row("nothing", b"Forwarded:"),
    row("an extension", b'Forwarded: secret="a,b;c";for=203.0.113.9', environ=client("203.0.113.9")),
    row("quoted commas", b'Forwarded: for="6.6.6.6, for=7.7.7.7", for=203.0.113.9', environ=client("203.0.113.9")),
    row("not believed", b"Forwarded: for=203.0.113.9;proto=https;host=p", believed="for,proto,host,port,prefix"),
    row(
        "both agree",
        b'Forwarded: for="203.0.113.9:80";proto=https;host=P',
        b"X-Forwarded-For: 203.0.113.9",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: p",
        environ={**client("203.0.113.9", "80"), **server("https", "443", "p", "p")},
        believed="all",
    ),
    row(
        "one names nobody",
        b"Forwarded: for=_x",
        b"X-Forwarded-For: 203.0.113.9",
        environ=client("203.0.113.9"),
        believed="all",
    ),
    row(
        "contradictory, one not believed",
        b"Forwarded: for=203.0.113.9",
        b"X-Forwarded-For: 6.6.6.6",
        environ=client("203.0.113.9"),
    ),
    refused("another client", b"Forwarded: for=203.0.113.9", b"X-Forwarded-For: 6.6.6.6", believed="all"),
    refused("another scheme", b"Forwarded: proto=https", b"X-Forwarded-Proto: http", believed="all"),
    refused("another host", b"Forwarded: host=a", b"X-Forwarded-Host: b", believed="all"),
    refused("a quote that does not end", b'Forwarded: for="'),
    refused("a quote that swallows the next", b'Forwarded: for=", for=203.0.113.9'),
    refused("a parameter twice", b"Forwarded: for=6.6.6.6;for=203.0.113.9"),
    refused("a parameter twice, in other cases", b"Forwarded: for=6.6.6.6;FOR=203.0.113.9"),
    refused("no semicolon", b"Forwarded: for=6.6.6.6 proto=https"),
    refused("no value", b"Forwarded: for="),
    refused("no name", b"Forwarded: =6.6.6.6"),
    refused("no pair", b"Forwarded: for"),
    refused("white space around the sign", b"Forwarded: for = 6.6.6.6"),
    refused("8-bit bytes", b"Forwarded: for=\xe9"),
    refused("a bad host", b'Forwarded: host="a b"'),
]
CHAINS = [
    row(
        "lists beside the walk",
        b"X-Forwarded-For: 6.6.6.6, 203.0.113.9, ::1",
        b"X-Forwarded-Proto: http, https, http",
        b"X-Forwarded-Host: evil, p, inner",
        b"X-Forwarded-Port: 1, 444, 3",
        environ={**client("203.0.113.9"), **server("https", "444", "p:444", "p")},
        believed="all",
    ),
    row(
        "single values beside a walk",
        b"X-Forwarded-For: 203.0.113.9, ::1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: p",
        environ={**client("203.0.113.9"), **server("https", "443", "p", "p")},
        believed="all",
    ),
    row(
        "a short list beside a walk",
        b"X-Forwarded-For: 203.0.113.9, ::1, 127.0.0.1",
        b"X-Forwarded-Proto: https, http",
        environ={**client("203.0.113.9"), **HTTPS},
        believed="all",
    ),
]
IDS = [
    row("an id", b"X-Request-ID: 5f2b", environ={"epollwsgi.request_id": "5f2b"}, believed=""),
    row("an id of base64", b"X-Request-ID: a+/b=", environ={"epollwsgi.request_id": "a+/b="}),
    row("a long id", b"X-Request-ID: " + b"a" * 200, environ={"epollwsgi.request_id": "a" * 200}),
    row("too long an id", b"X-Request-ID: " + b"a" * 201),
    row("an empty id", b"X-Request-ID:"),
    row("an id with a space", b"X-Request-ID: a b"),
    row("an id with a quote", b'X-Request-ID: a"b'),
    row("an id with 8-bit bytes", b"X-Request-ID: \xe9"),
    row("two ids", b"X-Request-ID: a", b"X-Request-ID: b"),
    row("an id of a stranger", b"X-Request-ID: 5f2b", environ={"HTTP_X_REQUEST_ID": "5f2b"}, peers="10.0.0.1"),
    row("X_Request_ID", b"X_Request_ID: 5f2b", settings=("--header-map=dangerous",)),
]
LET_THROUGH = "--forwarder-headers=remote_user,X_SSO"
NAMES = [
    row("REMOTE_USER", b"REMOTE_USER: ann", environ={"HTTP_REMOTE_USER": "ann"}, settings=(LET_THROUGH,)),
    row("in any case", b"Remote_User: ann", environ={"HTTP_REMOTE_USER": "ann"}, settings=(LET_THROUGH,)),
    row("Remote-User of a client", b"Remote-User: eve", environ={"HTTP_REMOTE_USER": None}, settings=(LET_THROUGH,)),
    row(
        "a forged one beside it",
        b"Remote-User: eve",
        b"REMOTE_USER: ann",
        environ={"HTTP_REMOTE_USER": "ann"},
        settings=(LET_THROUGH,),
    ),
    row("REMOTE-USER where nobody names it", b"Remote-User: ann", environ={"HTTP_REMOTE_USER": "ann"}),
    row(
        "a name with a dash is no matter of this",
        b"X-SSO: ann",
        environ={"HTTP_X_SSO": "ann"},
        settings=("--forwarder-headers=X-SSO",),
    ),
    row(
        "nor does it let the other spelling through",
        b"X_SSO: ann",
        environ={"HTTP_X_SSO": None},
        settings=("--forwarder-headers=X-SSO",),
    ),
    row("another name", b"Other_Name: x", environ={"HTTP_OTHER_NAME": None}, settings=(LET_THROUGH,)),
    row(
        "of a stranger",
        b"REMOTE_USER: eve",
        environ={"HTTP_REMOTE_USER": None},
        settings=(LET_THROUGH,),
        peers="10.0.0.1",
    ),
    row("all names", b"Other_Name: x", environ={"HTTP_OTHER_NAME": "x"}, settings=("--forwarder-headers=*",)),
    row(
        "framing never",
        b"Transfer_Encoding: chunked",
        b"Content_Length: 3",
        environ={"HTTP_CONTENT_LENGTH": None, "CONTENT_LENGTH": None},
        settings=("--forwarder-headers=*",),
    ),
    row(
        "framing never, by name",
        b"Content_Length: 3",
        environ={"HTTP_CONTENT_LENGTH": None},
        settings=("--forwarder-headers=content_length",),
    ),
    row("X_Forwarded_Proto is not the field", b"X_Forwarded_Proto: https", settings=("--forwarder-headers=*",)),
    row(
        "let through although header_map refuses",
        b"REMOTE_USER: ann",
        environ={"HTTP_REMOTE_USER": "ann"},
        settings=(LET_THROUGH, "--header-map=refuse"),
    ),
    refused("others are refused", b"Other_Name: x", settings=(LET_THROUGH, "--header-map=refuse")),
    refused(
        "of a stranger, refused", b"REMOTE_USER: x", settings=(LET_THROUGH, "--header-map=refuse"), peers="10.0.0.1"
    ),
    row(
        "dangerously",
        b"Other_Name: x",
        environ={"HTTP_OTHER_NAME": "x"},
        settings=(LET_THROUGH, "--header-map=dangerous"),
    ),
]


# What is believed in each table, where a row does not say otherwise.
TABLES: tuple[tuple[str, str, list[Row]], ...] = (
    ("trust", "proto", TRUST),
    ("scheme", "proto", SCHEME),
    ("for", "for", FOR),
    ("host", "host", HOST),
    ("port", "port", PORT),
    ("prefix", "prefix", PREFIX),
    ("forwarded", "forwarded", FORWARDED),
    ("chains", "all", CHAINS),
    ("ids", "proto", IDS),
    ("names", "proto", NAMES),
)
ROWS = {
    f"{table}: {one.name}": one if one.believed is not None else replace(one, believed=believed)
    for table, believed, rows in TABLES
    for one in rows
}
assert len(ROWS) == sum(len(rows) for _, _, rows in TABLES), "two rows of one name"
