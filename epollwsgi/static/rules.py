"""The files `_headers` and `_redirects` of a site's root, in the format of Netlify and Cloudflare Pages.

    _headers                          _redirects
    # more fields for these paths     # from to [status][!]
    /assets/*                         /old         /new
      Cache-Control: max-age=3600     /blog/*      /news/:splat   302
      ! X-Robots-Tag                  /user/:name  /people.html   200!

Pure: bytes in, rules and faults out; paths are decoded ones with a slash at the end of a directory's. Called by
`static.mounts` when a file has changed, by `static.lookup` for paths, and by `epollwsgi check`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from epollwsgi.http import grammar

MAX_FILE_SIZE: Final = 1024 * 1024
MAX_RULES: Final = 4096
MAX_PATTERNS: Final = 512  # those with `*` or `:name`: each costs a request for an unknown path a comparison
MAX_LINE_SIZE: Final = 4096

WILDCARD: Final = re.compile(rb"(\*|:[A-Za-z][A-Za-z0-9_]*)")
SPLAT: Final = b"splat"
Captured = Mapping[bytes, bytes]

# Bytes that a path may hold unencoded, and those that a query may (RFC 3986 sections 3.3 and 3.4); `%` is kept in what
# the operator wrote.
PATH_SAFE: Final = "/!$&'()*+,;=:@~"
TARGET_SAFE: Final = PATH_SAFE + "%?#[]"

STATUSES: Final = (200, 301, 302, 303, 307, 308, 404)
INNER: Final = (200, 404)  # answered with a file of this site
DEFAULT_STATUS: Final = 301
STATUS: Final = re.compile(rb"([0-9]{3})(!?)")
REMOTE: Final = re.compile(rb"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?=[/?#]|\Z)")

# What the server says itself, or what would break the framing of the answer. RFC 9110 section 7.6.1.
REFUSED_FIELDS: Final = {
    name: reason
    for names, reason in (
        ("connection keep-alive proxy-connection te trailer transfer-encoding upgrade", "belongs to the connection"),
        ("content-length date server content-range accept-ranges etag last-modified", "is said by the server itself"),
    )
    for name in names.split()
}
NOSNIFF_FIELD: Final = "x-content-type-options"


class Fault(NamedTuple):
    """A line that is not applied, and why."""

    line: int
    text: str


# --- patterns -------------------------------------------------------------------------------------------------------


class Pattern:
    """A path with at most one `*`, which is any text, and names, each of which is text without a slash."""

    __slots__ = ("_regex", "literal")

    def __init__(self, source: bytes) -> None:
        """Raises ValueError, whose text says what is allowed."""
        if source[:1] != b"/":
            raise ValueError("the path must begin with a slash")
        if b"?" in source:
            raise ValueError("a query cannot be matched")
        parts = WILDCARD.split(source)
        names = [b"*" if part == b"*" else part[1:] for part in parts[1::2]]
        if len(set(names)) < len(names) or SPLAT in names:
            raise ValueError("* and each :name may stand once, and :splat is what * has matched")
        if any(len(WILDCARD.findall(segment)) > 1 for segment in source.split(b"/")):
            raise ValueError("only one of * and :name may stand between two slashes")
        self.literal = unquote_to_bytes(source) if not names else b""
        self._regex: re.Pattern[bytes] | None = None
        if names:
            pieces = [re.escape(unquote_to_bytes(part)) for part in parts[::2]]
            self._regex = re.compile(b"".join(_weave(pieces, names)), re.DOTALL)

    @property
    def is_plain(self) -> bool:
        """Whether it is one path and no more."""
        return self._regex is None

    def match(self, path: bytes) -> Captured | None:
        """What `*` (as `splat`) and the names stand for in a path; None where it does not match."""
        if self._regex is None:
            return {} if path == self.literal else None
        match = self._regex.fullmatch(path)
        if match is None:
            return None
        return {name.encode("ascii"): text or b"" for name, text in match.groupdict().items()}


def _weave(pieces: list[bytes], names: list[bytes]) -> Iterator[bytes]:
    """The regular expression of a pattern; `/x/*` is meant for `/x` too."""
    ends_in_splat = names[-1] == b"*" and not pieces[-1] and pieces[-2].endswith(b"/")
    for number, name in enumerate(names):
        is_last = number == len(names) - 1
        yield pieces[number].removesuffix(b"/") if is_last and ends_in_splat else pieces[number]
        if name != b"*":
            yield b"(?P<%b>[^/]+)" % name
        else:
            yield b"(?:/(?P<splat>.*))?" if is_last and ends_in_splat else b"(?P<splat>.*)"
    yield pieces[-1]


class Template:
    """A text in which `:splat` and names are replaced by what a pattern has captured; others are left as they are."""

    __slots__ = ("_parts",)

    def __init__(self, source: bytes) -> None:
        self._parts = WILDCARD.split(source)

    def names(self) -> set[bytes]:
        """What it would replace."""
        return {part[1:] for part in self._parts[1::2] if part != b"*"}

    def fill(self, captured: Captured) -> str:
        """The text as it goes into a head: what was captured is encoded, so that it forms nothing but a path."""
        filled = [self._parts[0]]
        for number in range(1, len(self._parts), 2):
            value = captured.get(self._parts[number][1:])
            is_query = any(b"?" in part or b"#" in part for part in filled)
            safe = "" if is_query else PATH_SAFE
            filled.append(self._parts[number] if value is None else quote_from_bytes(value, safe).encode("ascii"))
            filled.append(self._parts[number + 1])
        return b"".join(filled).decode("latin-1")


# --- lines ----------------------------------------------------------------------------------------------------------


def read_lines(content: bytes, faults: list[Fault]) -> Iterator[tuple[int, bytes]]:
    """The lines with something in them, by their numbers from 1."""
    if len(content) > MAX_FILE_SIZE:
        faults.append(Fault(1, f"the file has more than {MAX_FILE_SIZE} bytes and is not read"))
        return
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        line = raw.rstrip(b" \t\r")
        if not line.strip() or line.lstrip()[:1] == b"#":
            continue
        if len(line) > MAX_LINE_SIZE:
            faults.append(Fault(number, f"the line has more than {MAX_LINE_SIZE} bytes"))
        else:
            yield number, line


# --- _headers -------------------------------------------------------------------------------------------------------


class HeaderEntry(NamedTuple):
    """A field to set, or with value None to leave out."""

    name: str
    value: Template | None


class HeaderBlock(NamedTuple):
    """A path and what is said of it."""

    line: int
    pattern: Pattern
    entries: list[HeaderEntry]


class HeaderRules:
    """All blocks of `_headers`."""

    __slots__ = ("blocks",)

    def __init__(self, blocks: Iterable[HeaderBlock] = ()) -> None:
        self.blocks = tuple(blocks)

    def select(self, path: bytes) -> tuple[tuple[str, str | None], ...]:
        """The fields for a path, in order: those of all blocks that match, equal names joined.

        None in the place of a value: whatever would be said under this name is left out.
        """
        chosen: dict[str, tuple[str, list[str]]] = {}
        for block in self.blocks:
            captured = block.pattern.match(path)
            if captured is None:
                continue
            for name, template in block.entries:
                spelt, values = chosen.setdefault(name.lower(), (name, []))
                if template is None:
                    chosen[name.lower()] = (spelt, [])
                else:
                    values.append(template.fill(captured))
        return tuple(pair for lower, (name, values) in chosen.items() for pair in _join(lower, name, values))


# Of these only the last value counts: a list of them means nothing.
SINGLE_FIELDS: Final = frozenset(
    "content-type content-encoding content-disposition content-location expires refresh".split()
)


def _join(lower: str, name: str, values: list[str]) -> Iterator[tuple[str, str | None]]:
    if not values:
        yield name, None
    elif lower == "set-cookie":  # the one field whose lines cannot be joined, RFC 9110 section 5.3
        yield from ((name, value) for value in values)
    else:
        yield name, values[-1] if lower in SINGLE_FIELDS else ", ".join(values)


def parse_headers(content: bytes) -> tuple[HeaderRules, list[Fault]]:
    """The rules of a `_headers` file, and its lines that are not applied."""
    faults: list[Fault] = []
    blocks: list[HeaderBlock] = []
    entries: list[HeaderEntry] | None = None  # of the block at hand; None: none has begun
    for number, line in read_lines(content, faults):
        try:
            if line[:1] in b" \t":
                if entries is None:
                    raise ValueError("a field stands before the first path")
                entries.append(parse_header_line(line.strip()))
                continue
            entries = []  # fields below a path that cannot be used are not the block's before it
            if len(blocks) >= MAX_PATTERNS:
                raise ValueError(f"there are more than {MAX_PATTERNS} paths")
            blocks.append(HeaderBlock(number, Pattern(line), entries))
        except ValueError as error:
            faults.append(Fault(number, str(error)))
    return HeaderRules(blocks), faults


def parse_header_line(line: bytes) -> HeaderEntry:
    """`Name: value`, or `! Name`. Raises ValueError."""
    is_removal = line[:1] == b"!"
    raw_name, colon, raw_value = (line[1:].strip(), b":", b"") if is_removal else line.partition(b":")
    name, value = raw_name.decode("latin-1"), raw_value.strip().decode("latin-1")
    if not colon or not grammar.RESPONSE_NAME.fullmatch(name):
        raise ValueError("a field is written Name: value, or ! Name to leave one out")
    if not grammar.RESPONSE_VALUE.fullmatch(value):
        raise ValueError(f"the value of {name} holds a control character")
    if reason := REFUSED_FIELDS.get(name.lower()):
        raise ValueError(f"{name} {reason}")
    if name.lower() == NOSNIFF_FIELD and value.lower() != "nosniff":
        raise ValueError(f"{name} is always nosniff")
    if not value and not is_removal:
        raise ValueError(f"{name} has no value; ! {name} leaves a field out")
    return HeaderEntry(name, None if is_removal else Template(value.encode("latin-1")))


# --- _redirects -----------------------------------------------------------------------------------------------------


class Redirect(NamedTuple):
    """One line: 200 and 404 answer with the file at `target`, the other statuses send the client there."""

    line: int
    pattern: Pattern
    target: Template
    status: int
    is_forced: bool  # also where there is a file
    source_text: bytes
    target_text: bytes


class Match(NamedTuple):
    """What a rule makes of a path; target: encoded, a path or a whole address."""

    rule: Redirect
    target: str


class Redirects:
    """All rules of `_redirects`; the first that matches wins."""

    __slots__ = ("_patterns", "_plain", "has_forced", "rules")

    def __init__(self, rules: Iterable[Redirect] = ()) -> None:
        self.rules = tuple(rules)
        self.has_forced = any(rule.is_forced for rule in self.rules)
        self._plain: dict[bytes, tuple[int, Redirect]] = {}
        self._patterns: list[tuple[int, Redirect]] = []
        for number, rule in enumerate(self.rules):
            if rule.pattern.is_plain:
                if self._apply(rule, {}, rule.pattern.literal) is not None:
                    self._plain.setdefault(rule.pattern.literal, (number, rule))
            else:
                self._patterns.append((number, rule))

    def find(self, path: bytes) -> Match | None:
        """What the first rule for a path makes of it; one that leads to this very path is none."""
        for rule, captured in self._matching(path):
            match = self._apply(rule, captured, path)
            if match is not None:
                return match
        return None

    def _matching(self, path: bytes) -> Iterator[tuple[Redirect, Captured]]:
        plain = self._plain.get(path)
        for number, rule in self._patterns:
            if plain is not None and plain[0] < number:
                yield plain[1], {}
                plain = None
            captured = rule.pattern.match(path)
            if captured is not None:
                yield rule, captured
        if plain is not None:
            yield plain[1], {}

    @staticmethod
    def _apply(rule: Redirect, captured: Captured, path: bytes) -> Match | None:
        target = rule.target.fill(captured)
        if target[:1] == "/":
            target = "/" + target.lstrip("/")  # two slashes would begin a host
            if unquote_to_bytes(target.partition("#")[0].partition("?")[0]) == path:
                return None
        return Match(rule, target)


def parse_redirects(content: bytes) -> tuple[Redirects, list[Fault]]:
    """The rules of a `_redirects` file, and its lines that are not applied."""
    faults: list[Fault] = []
    rules: list[Redirect] = []
    pattern_count = 0
    for number, line in read_lines(content, faults):
        try:
            rule = parse_redirect(number, line)
            pattern_count += not rule.pattern.is_plain
            if len(rules) >= MAX_RULES or pattern_count > MAX_PATTERNS:
                raise ValueError(f"there are more than {MAX_RULES} rules, or {MAX_PATTERNS} with * or :name")
            rules.append(rule)
        except ValueError as error:
            faults.append(Fault(number, str(error)))
    return Redirects(rules), faults


def parse_redirect(number: int, line: bytes) -> Redirect:
    """One line. Raises ValueError."""
    words = line.split()
    comment = next((place for place, word in enumerate(words) if word[:1] == b"#"), len(words))
    words = words[:comment]
    if len(words) < 2:
        raise ValueError("a rule is written: from to [status]")
    if any(b"=" in word and word[:1] != b"/" and b"://" not in word for word in words[1:]):
        raise ValueError("query parameters and conditions are not known")
    if len(words) > 3:
        raise ValueError("too many words: a rule is written from to [status]")
    match = STATUS.fullmatch(words[2] if len(words) == 3 else b"%d" % DEFAULT_STATUS)
    status = int(match[1]) if match is not None else 0
    if match is None or status not in STATUSES:
        allowed = ", ".join(map(str, STATUSES))
        raise ValueError(f"the status {words[2].decode('utf-8', 'replace')[:20]} is none of {allowed}")
    pattern = Pattern(words[0])
    return Redirect(number, pattern, parse_target(words[1], status), status, bool(match[2]), words[0], words[1])


def parse_target(target: bytes, status: int) -> Template:
    """Where a rule leads to: a path, or an http(s) address whose host is written out. Raises ValueError."""
    if target[:1] == b"/":
        if target[1:2] in (b"/", b"\\"):
            raise ValueError("a target that begins with two slashes would lead to another host")
    elif REMOTE.match(target) is None:
        raise ValueError("the target must be a path that begins with a slash, or http(s)://HOST/...")
    elif status in INNER:
        raise ValueError(f"{status} serves a file of this site: its target must be a path")
    return Template(quote_from_bytes(target, TARGET_SAFE).encode("ascii"))
