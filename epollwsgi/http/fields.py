"""Field lines of requests: bytes to environ items, or a refusal. RFC 9112 section 5; WIRE.md section 1.

Knows the grammar, the limits of a line and the names of WSGI. `head` parses sections with it. Lines that repeat are
remembered: a line seen before costs one dict lookup in C; Python runs only for lines that are new. Lines that matter to
the server (framing, conditions, Connection) are never remembered, so that they always pass `FieldLines.__missing__`,
which notes their role.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv6Address
from typing import Any, NamedTuple

from epollwsgi.errors import BadField, BadFraming, BadHost, FieldsTooLarge
from epollwsgi.http import grammar

Environ = dict[str, Any]

REMEMBERED_LINES = 2048
# Of request lines more: a site of 10,000 files has as many, and reading one anew costs a third of its answer.
REMEMBERED_REQUEST_LINES = 16_384
REMEMBERED_LINE_SIZE = 256

# Roles of a field that the server itself must look at; a section's roles are or-ed together.
LENGTH, CODING, EXPECT, CONNECTION, CONDITIONAL, DROPPED, FORWARDED = (1 << bit for bit in range(7))
FRAMING = LENGTH | CODING | EXPECT

ROLES: dict[bytes, int] = {
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"expect": EXPECT,
    b"connection": CONNECTION,
    b"if-match": CONDITIONAL,
    b"if-none-match": CONDITIONAL,
    b"if-modified-since": CONDITIONAL,
    b"if-unmodified-since": CONDITIONAL,
    b"if-range": CONDITIONAL,
    b"range": CONDITIONAL,
}
# Fields whose lines repeat and hold no secret: only these are remembered (and every Sec-* and Accept*).
REMEMBERED = frozenset(
    b"host user-agent accept connection cache-control content-type dnt upgrade-insecure-requests origin priority "
    b"pragma".split()
)
REMEMBERED_PREFIXES = (b"sec-", b"accept-")
# The environ key of a field that is dropped; it is taken out again before anyone sees it.
DROPPED_KEY = ""
# Fields that may stand only once.
SINGLE: dict[str, type[BadField | BadHost | BadFraming]] = {
    "HTTP_HOST": BadHost,
    "CONTENT_LENGTH": BadFraming,
    "HTTP_TRANSFER_ENCODING": BadFraming,
    "CONTENT_TYPE": BadField,
}


class Limits(NamedTuple):
    """Limits of a request head; each has the name of its setting in the error it raises. Bytes, but for `fields`."""

    line: int = 8190
    fields: int = 100
    field_size: int = 8190
    head: int = 65536


class Names(NamedTuple):
    """What names mean to a parser, all in lower case: what is believed of a peer differs. See `forwarded`.

    through: names with an underscore that pass, whatever header_map says; `*` for all.  watched: on_unused is told.
    """

    roles: Mapping[bytes, int] = ROLES
    through: frozenset[bytes] = frozenset()
    watched: frozenset[bytes] = frozenset()


COMMON_NAMES = Names()


class FieldName(NamedTuple):
    """What a field name means: its environ key, its role, and whether its lines are remembered."""

    key: str
    role: int
    is_remembered: bool


class FieldLines(dict[bytes, tuple[str, str]]):
    """Field lines that passed, with their environ key and value; a new line is parsed when it is looked up.

    `roles` collects the roles of the lines parsed since it was last set to 0.  Bounded: emptied when full, as are the
    names that have been seen.
    """

    def __init__(
        self,
        limits: Limits,
        header_map: str,
        on_dropped: Callable[[str], None],
        names: Names = COMMON_NAMES,
        on_unused: Callable[[str], None] = lambda name: None,
    ) -> None:
        super().__init__()
        self.roles = 0
        self._names: dict[bytes, FieldName] = {}
        self._limits = limits
        self._header_map = header_map
        self._on_dropped = on_dropped
        self.rules = names
        self._on_unused = on_unused
        # Without HTTP_: what another spelling of a name with a role, or of one that is let through, would come to.
        self._role_keys = frozenset(map(environ_key, names.roles))
        self._taken_keys = self._role_keys | frozenset(map(environ_key, names.through))

    def __missing__(self, line: bytes) -> tuple[str, str]:
        """Raises BadField, BadHost (400), FieldsTooLarge (431)."""
        name, colon, content = line.partition(b":")
        known = self._names.get(name) if colon else None
        value = content.decode("latin-1")
        # Whatever prints is allowed, and that is told faster than the pattern does.
        if known is None or not value.isprintable() or len(line) > self._limits.field_size:
            known = self._check(line, name)
        value = value.strip(" \t")
        key, role, is_remembered = known
        if role:
            if role == CONNECTION and value.lower() == "keep-alive":
                role = 0
            self.roles |= role
        elif key == "HTTP_HOST":
            parse_host(value.encode("latin-1"))
        item = (key, value)
        if is_remembered and not role and len(line) <= REMEMBERED_LINE_SIZE:
            if len(self) >= REMEMBERED_LINES:
                self.clear()
            self[line] = item
        return item

    def _check(self, line: bytes, name: bytes) -> FieldName:
        """A line by the grammar, and what its name means. Raises BadField (400), FieldsTooLarge (431)."""
        limit = self._limits.field_size
        if len(line) > limit:
            raise FieldsTooLarge("field line too long", setting="limit_request_field_size", limit=limit, seen=len(line))
        if grammar.FIELD_LINE.fullmatch(line) is None:
            raise BadField("not a field line", seen=line[:80].decode("latin-1"))
        known = self._names.get(name) or self._parse_name(name)
        if len(name) <= REMEMBERED_LINE_SIZE:
            if len(self._names) >= REMEMBERED_LINES:
                self._names.clear()
            self._names[name] = known
        return known

    def _parse_name(self, name: bytes) -> FieldName:
        """What a valid field name means; header_map decides of those with an underscore, and Proxy is dropped."""
        lower = name.lower()
        key = environ_key(name)
        role = self.rules.roles.get(lower, 0)
        if lower in self.rules.watched:
            self._on_unused(name.decode("ascii"))
        if not role and (b"_" in lower or key in self._taken_keys) and not self._is_let_through(lower, key):
            # Another field's environ key could be forged with it.
            if self._header_map == "refuse":
                raise BadField("field name with an underscore, header_map is refuse", seen=name.decode("ascii"))
            if self._header_map == "drop" or key in self._role_keys:
                self._on_dropped(name.decode("ascii"))
                return FieldName(DROPPED_KEY, DROPPED, False)
        elif lower == b"proxy":  # HTTP_PROXY is read by clients that the application runs
            return FieldName(DROPPED_KEY, DROPPED, False)
        if lower not in (b"content-type", b"content-length"):
            key = "HTTP_" + key
        return FieldName(key, role, lower in REMEMBERED or lower.startswith(REMEMBERED_PREFIXES))

    def _is_let_through(self, lower: bytes, key: str) -> bool:
        """Whether a name is spelled as one of forwarder_headers, and its peer may send those."""
        through = self.rules.through
        return (lower in through or (b"*" in through and b"_" in lower)) and key not in self._role_keys


def environ_key(name: bytes) -> str:
    """The environ key of a field name, without HTTP_."""
    return name.decode("latin-1").upper().replace("-", "_")


def merge_fields(items: list[tuple[str, str]], environ: Environ) -> None:
    """Set environ to the fields of a section with repeated or dropped names, values joined. RFC 9110 section 5.2.

    Cookie is joined with "; " (RFC 6265 section 5.4, RFC 9113 section 8.2.3).  Raises BadField, BadHost, BadFraming.
    """
    for key, _ in items:
        environ.pop(key, None)
    for key, value in items:
        if key == DROPPED_KEY:
            continue
        before = environ.get(key)
        if before is None:
            environ[key] = value
        elif key in SINGLE:
            raise SINGLE[key](f"{key} stands twice")
        else:
            environ[key] = f"{before}; {value}" if key == "HTTP_COOKIE" else f"{before}, {value}"


def parse_host(value: bytes) -> tuple[str, str]:
    """Host and port of a Host field, the port '' if none is given. Raises BadHost (400). RFC 9110 section 7.2."""
    match = grammar.HOST.fullmatch(value)
    if match is None:
        raise BadHost("not a host", seen=value[:80].decode("latin-1"))
    address, name, port = match.groups()
    if address is not None:
        try:
            IPv6Address(address.decode("ascii"))
        except AddressValueError:
            raise BadHost("not an IPv6 address", seen=value[:80].decode("latin-1")) from None
        name = b"[" + address + b"]"
    return name.decode("ascii"), (port or b"").decode("ascii")
