"""Fields by which a proxy tells what it was asked: X-Forwarded-*, Forwarded, X-Request-ID. OPERATIONS.md 4, RFC 7239.

Knows no socket: `service` compiles the settings into a `Peers` and a `Forwarding`, a connection from a trusted peer has
its fields parsed with the roles of the latter, and `head` calls `Forwarding.apply` where such a field stands.  What
comes of them depends on the fields alone, so that it is remembered with the section.

How the fields are read:

    hops         from the right, past every trusted hop, to the first that is none; that is the client.  An entry that
                 is no address (unknown, _hidden, noise) ends the walk: the client is the last address before it
    *            trusts whoever is connected, but tells no hop from a client: of a list only the last entry is believed.
                 So do 0.0.0.0/0 and ::/0
    other lists  the entry beside that hop; of fewer entries the first.  Without `for` the last one
    Forwarded    a whole: the address, scheme and host of the element where the walk ends
    two fields   that speak of the same thing must agree, else 400.  So must their own grammar hold
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from epollwsgi.errors import BadForwarded, BadHost
from epollwsgi.http.fields import FORWARDED, ROLES, Environ, Names, environ_key, parse_host

REMEMBERED_ADDRESSES = 4096
REMEMBERED_ADDRESS_SIZE = 64
DEFAULT_PORTS = {"http": "80", "https": "443"}
# The word of forwarded_fields by which a field is believed; those of `proto` stand in secure_scheme_headers.
WORDS = {
    "x-forwarded-for": "for",
    "x-forwarded-host": "host",
    "x-forwarded-port": "port",
    "x-forwarded-prefix": "prefix",
    "script_name": "prefix",
    "forwarded": "forwarded",
}
ALL_WORDS = frozenset(("proto", *WORDS.values()))
# nginx writes this in the place of the address of a peer over a unix socket.
UNIX = "unix:"
REQUEST_ID = b"x-request-id"
SCRIPT_NAME = b"script_name"

# node = nodename [ ":" node-port ], and an IPv6 address without brackets, as X-Forwarded-For has it. RFC 7239 6.
NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15}))(?::(?:([0-9]{1,5})|_[A-Za-z0-9._\-]+))?")
BARE_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")

# forwarded-pair, then what ends it. RFC 7239 section 4; white space may stand around `;` as in the examples there, and
# colon and brackets in a value without quotes, because many leave them out.
TCHARS = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
PAIR = re.compile(
    rf'[ \t]*(?:([{TCHARS}]+)=(?:([{TCHARS}:\[\]]+)|"([^"\\]*(?:\\.[^"\\]*)*)")[ \t]*)?([;,]|\Z)', re.DOTALL
)
QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)

PORT = re.compile(r"[0-9]{1,5}")
# What is taken over as a request's id: tokens, and what base64 and the routers of platforms have in theirs.
SANE_ID = re.compile(rf"[{TCHARS}/=:]{{1,200}}")


# --- who is trusted -------------------------------------------------------------------------------------------------


class Networks:
    """The addresses of trusted proxies; `*` and `unix` are not among them."""

    def __init__(self, peers: Iterable[str], *, is_of_hops: bool = False) -> None:
        """peers: as forwarded_allow_ips lists them.  is_of_hops: without those that hold every address, see `*`."""
        networks = [unmapped_network(ip_network(peer)) for peer in peers if peer not in ("*", "unix")]
        if is_of_hops:
            networks = [network for network in networks if network.prefixlen]
        self._single = {network.network_address for network in networks if network.num_addresses == 1}
        self._wide = [network for network in networks if network.num_addresses > 1]

    def has(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether an address, not mapped, is in one of them."""
        return address in self._single or any(address in network for network in self._wide)


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for, as a socket for both has it; else itself. RFC 4291 2.5.5.2."""
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def unmapped_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """The same for a network."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


class Peers(dict[str, bool]):
    """Whether a peer is trusted, by its address as the socket has it, '' over a unix socket. Decided on first sight.

    Bounded: emptied when full.
    """

    def __init__(self, peers: Collection[str]) -> None:
        super().__init__()
        self._trusts_all = "*" in peers
        self._trusts_unix = "*" in peers or "unix" in peers
        self._networks = Networks(peers)

    def __missing__(self, address: str) -> bool:
        if not address:
            is_trusted = self._trusts_unix
        else:
            is_trusted = self._trusts_all or self._networks.has(unmapped(ip_address(address.partition("%")[0])))
        if len(self) >= REMEMBERED_ADDRESSES:
            self.clear()
        self[address] = is_trusted
        return is_trusted


class Hop(NamedTuple):
    """An entry of a list of hops: its address and port, '' where it has none, and whether it is a trusted proxy's."""

    address: str
    port: str
    is_trusted: bool


NO_HOP = Hop("", "", False)


class Hops(dict[str, Hop]):
    """Entries by their text. Bounded: emptied when full, and what is long is not kept."""

    def __init__(self, peers: Collection[str]) -> None:
        super().__init__()
        self._networks = Networks(peers, is_of_hops=True)
        self._trusts_unix = "unix" in peers

    def __missing__(self, text: str) -> Hop:
        hop = self._read(text)
        if len(text) <= REMEMBERED_ADDRESS_SIZE:
            if len(self) >= REMEMBERED_ADDRESSES:
                self.clear()
            self[text] = hop
        return hop

    def _read(self, text: str) -> Hop:
        if text == UNIX:
            return Hop("", "", self._trusts_unix)
        node = NODE.fullmatch(text)
        written, port = ((node[1] or node[2]), node[3] or "") if node else (text, "")
        if (node is None and not BARE_IPV6.fullmatch(text)) or int(port or 0) > 65535:
            return NO_HOP
        try:
            address = unmapped(ip_address(written))
        except ValueError:
            return NO_HOP
        return Hop(str(address), port and str(int(port)), self._networks.has(address))

    def walk(self, entries: Sequence[str]) -> tuple[Hop | None, int]:
        """The client, None where not even the last entry is an address; and how many entries stand behind its own."""
        client = None
        for depth, text in enumerate(reversed(entries)):
            hop = self[text]
            if hop.address:
                client = hop
            if not hop.is_trusted:
                return client, depth
        return client, max(0, len(entries) - 1)


# --- what the fields say --------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """What fields say of a request; None where they say nothing."""

    client: Hop | None = None
    scheme: str | None = None
    host: str | None = None
    port: str | None = None
    prefix: str | None = None


class Element(NamedTuple):
    """A forwarded-element, as far as it matters: its node, scheme and host. RFC 7239 section 4."""

    node: str = ""
    scheme: str | None = None
    host: str | None = None


def parse_forwarded(value: str) -> list[Element]:
    """The elements of a Forwarded field that are not empty. Raises BadForwarded (400). RFC 7239 section 4."""
    elements: list[Element] = []
    pairs: dict[str, str] = {}
    at = 0
    while True:
        match = PAIR.match(value, at)
        if match is None:
            raise BadForwarded("not a Forwarded field", seen=value[:80])
        name, token, quoted, end = match.groups()
        if name is not None:
            if name.lower() in pairs:
                raise BadForwarded(f"{name[:20]} stands twice in an element of Forwarded", seen=value[:80])
            pairs[name.lower()] = QUOTED_PAIR.sub(r"\1", quoted) if token is None else token
        if pairs and end != ";":
            elements.append(Element(pairs.get("for", ""), pairs.get("proto"), pairs.get("host")))
            pairs = {}
        if not end:
            return elements
        at = match.end()


def split_list(value: str) -> list[str]:
    """The entries of a list that are not empty. RFC 9110 section 5.6.1."""
    if "," not in value:
        return [value] if value else []
    return [entry for entry in (part.strip(" \t") for part in value.split(",")) if entry]


def pick(value: str, depth: int) -> str:
    """The entry of a list that has `depth` others behind it, else the first."""
    if "," not in value:
        return value
    entries = split_list(value) or [""]
    return entries[max(0, len(entries) - 1 - depth)]


def agree(one: Said, other: Said) -> Said:
    """What both say, or either. Raises BadForwarded (400) where they contradict each other."""
    client = one.client or other.client
    if one.client and other.client:
        if one.client.address != other.client.address:
            raise BadForwarded("Forwarded names another client", seen=f"{one.client.address}, {other.client.address}")
        client = one.client if one.client.port else other.client
    if one.host is not None and other.host is not None and one.host.lower() != other.host.lower():
        raise BadForwarded("Forwarded names another host", seen=f"{one.host[:80]}, {other.host[:80]}")
    if None not in (one.scheme, other.scheme) and one.scheme != other.scheme:
        raise BadForwarded("Forwarded names another scheme", seen=f"{one.scheme}, {other.scheme}")
    return Said(client, one.scheme or other.scheme, one.host or other.host, one.port, one.prefix)


def field_name(name: str) -> bytes:
    """A name from the settings as a request has it, in lower case; what is no token matches none."""
    return name.strip().lower().encode("utf-8", "replace")


class Forwarding:
    """What is believed of the fields of a trusted peer. Made of the settings, once."""

    def __init__(
        self,
        peers: Collection[str],
        believed: Collection[str],
        scheme_fields: Mapping[str, str],
        forwarder_fields: Iterable[str],
    ) -> None:
        """The values of forwarded_allow_ips, forwarded_fields, secure_scheme_headers and forwarder_headers."""
        self._believed = ALL_WORDS if "all" in believed else frozenset(believed)
        self._hops = Hops(peers)
        through = frozenset(map(field_name, forwarder_fields))
        words = WORDS | {name.lower(): "proto" for name in scheme_fields}
        roles = {field_name(name): FORWARDED for name, word in words.items() if word in self._believed}
        roles.pop(b"host", None)  # a field that means something else already stays what it is
        if not through & {SCRIPT_NAME, b"*"}:
            roles.pop(SCRIPT_NAME, None)
        # gunicorn believes SCRIPT_NAME of every trusted peer: who comes from there is told.
        watched = {SCRIPT_NAME} if "prefix" not in self._believed and SCRIPT_NAME in through else ()
        self.names = Names({**roles, REQUEST_ID: FORWARDED, **ROLES}, through, frozenset(watched))
        self.names_of_others = Names(watched=frozenset(roles))
        self._scheme_keys = [
            (f"HTTP_{environ_key(field_name(name))}", value)
            for name, value in scheme_fields.items()
            if self.names.roles.get(field_name(name)) == FORWARDED
        ]
        self._prefix_keys = [
            f"HTTP_{environ_key(field_name(name))}"
            for name, word in words.items()
            if word == "prefix" and field_name(name) in roles
        ]

    def apply(self, environ: Environ) -> None:
        """Set the items of environ that follow from its fields. Raises BadForwarded (400).

        Done twice it comes to the same: an absolute target changes Host meanwhile.
        """
        request_id = environ.get("HTTP_X_REQUEST_ID")
        if request_id is not None and SANE_ID.fullmatch(request_id):
            environ["epollwsgi.request_id"] = request_id
        said = self._read(environ)
        if said.client is not None:
            environ["REMOTE_ADDR"] = said.client.address
            if said.client.port:
                environ["REMOTE_PORT"] = said.client.port
            else:
                environ.pop("REMOTE_PORT", None)
        if said.scheme is not None:
            environ["wsgi.url_scheme"] = said.scheme
        if said.prefix is not None:
            environ["SCRIPT_NAME"] = said.prefix
        if said.scheme is not None or said.host is not None or said.port is not None:
            settle_server(environ, said)

    def _read(self, environ: Environ) -> Said:
        believed = self._believed
        client, depth = None, 0
        if "for" in believed and "HTTP_X_FORWARDED_FOR" in environ:
            client, depth = self._hops.walk(split_list(environ["HTTP_X_FORWARDED_FOR"]))
        host = port = prefix = None
        if "host" in believed and "HTTP_X_FORWARDED_HOST" in environ:
            host = pick(environ["HTTP_X_FORWARDED_HOST"], depth) or None
        if "port" in believed and "HTTP_X_FORWARDED_PORT" in environ:
            port = read_port(pick(environ["HTTP_X_FORWARDED_PORT"], depth))
        if "prefix" in believed:
            prefix = self._read_prefix(environ, depth)
        said = Said(client, self._read_scheme(environ, depth), host, port, prefix)
        if "forwarded" in believed and "HTTP_FORWARDED" in environ:
            said = agree(said, self._read_forwarded(environ["HTTP_FORWARDED"]))
        return said

    def _read_scheme(self, environ: Environ, depth: int) -> str | None:
        """By secure_scheme_headers, as gunicorn reads them: a field with another value says http."""
        scheme = None
        for key, secure in self._scheme_keys:
            value = environ.get(key)
            if value is None:
                continue
            said = "https" if secure in (value, pick(value, depth)) else "http"
            if scheme not in (None, said):
                raise BadForwarded("the fields of secure_scheme_headers contradict each other", seen=value[:80])
            scheme = said
        return scheme

    def _read_prefix(self, environ: Environ, depth: int) -> str | None:
        prefix = None
        for key in self._prefix_keys:
            value = environ.get(key)
            if value is None:
                continue
            said = pick(value, depth)
            if prefix not in (None, said):
                raise BadForwarded("SCRIPT_NAME and X-Forwarded-Prefix contradict each other", seen=said[:80])
            prefix = said
        return prefix

    def _read_forwarded(self, value: str) -> Said:
        elements = parse_forwarded(value) or [Element()]
        client, depth = self._hops.walk([element.node for element in elements])
        _, scheme, host = elements[-1 - depth]
        if scheme is not None:
            scheme = "https" if scheme.lower() == "https" else "http"
        return Said(client, scheme, host or None)


def read_port(text: str) -> str | None:
    """A port of X-Forwarded-Port, None where it is empty. Raises BadForwarded (400)."""
    if not text:
        return None
    if not PORT.fullmatch(text) or not 0 < int(text) < 65536:
        raise BadForwarded("not a port in X-Forwarded-Port", seen=text[:80])
    return str(int(text))


def settle_server(environ: Environ, said: Said) -> None:
    """Host, name and port of the server as its client sees it, where a proxy says anything of it.

    A port that is the default of the scheme does not stand in Host: applications build their URLs with it.
    """
    default = DEFAULT_PORTS[environ.get("wsgi.url_scheme", "http")]
    host = environ.get("HTTP_HOST", "") if said.host is None else said.host
    name, port = host, ""
    if said.host is not None or ":" in host:
        try:
            name, port = parse_host(host.encode("latin-1"))
        except BadHost:
            raise BadForwarded("not a host in a forwarding field", seen=host[:80]) from None
        if not name and said.host is not None:
            raise BadForwarded("no host in a forwarding field", seen=host[:80])
    if said.host is not None:
        environ["SERVER_NAME"] = name
    if "HTTP_HOST" in environ:  # one that is missing stays so: HTTP/1.1 is refused without it
        if said.port is not None and name:
            host = name if said.port == default else f"{name}:{said.port}"
        environ["HTTP_HOST"] = host
    environ["SERVER_PORT"] = said.port or port or default
