"""What a line of the access log looks like: gunicorn's formats, compiled once at start; lines are built many at a time.

Pure. A response is noted as an `Entry`, with what its line may need and no more; `build_lines` walks a batch of entries
column by column, so that whatever is the same in all of them (the second, the method, most agents) is made once.
The words `combined`, `json` and `dev` instead of a format are in `presets`. Called by `access_log`.

Meanings and texts are gunicorn's, but for these: a request line is the one that was received, whatever the application
made of environ; of a field that came several times {name}i has all values; {name}o has the fields that the application
or a file gave, not those that the server adds (Date, Server, Connection); quotes are escaped as \\x22.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain, repeat
from time import localtime, strftime
from typing import Any, NamedTuple, Protocol, cast

from epollwsgi.logs.text import NONE, escape_all, escape_atom, read_user, show_object

# moment (monotonic, the end of the response), status, size of the content, duration_s, method, request line,
# REMOTE_ADDR, Referer, User-Agent, Authorization; where a format or target needs them: the texts that
# `CompiledFormat.capture` gave, and all atoms that come from fields and environ.
Entry = tuple[Any, ...]
MOMENT, STATUS, SIZE, DURATION, METHOD, REQUEST, REMOTE, REFERER, AGENT, AUTHORIZATION, MORE, EVERYTHING = range(12)

STAMP_FORMAT = "[%d/%b/%Y:%H:%M:%S %z]"
MOST_DIGITS = 3  # of a width or precision


class Request(Protocol):
    """A request line, as far as a log knows it; `http.head.RequestLine` is one."""

    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def path_info(self) -> str | None: ...
    @property
    def query(self) -> str: ...
    @property
    def protocol(self) -> str: ...


class Head(Protocol):
    """The head of an application's response; `http.response.ResponseHead` is one."""

    lines: bytes
    length: int


Environ = Mapping[str, Any]
Capture = Callable[[Environ, "Head | bytes"], tuple[str, ...]]


class CompiledFormat(NamedTuple):
    """How lines are made of entries. capture: None where entries need no more than the first ten."""

    text: str
    build_lines: Callable[[Sequence[Entry], float], list[str]]
    """of at least one entry; the second argument is what to add to `moment` for the time of day, in seconds"""
    capture: Capture | None
    has_durations: bool


# --- a batch --------------------------------------------------------------------------------------------------------


Values = Sequence[object] | str  # a text alone: the same for all


class Batch:
    """Entries of one flush, by column. zero_s: what to add to `moment` for the time of day."""

    def __init__(self, entries: Sequence[Entry], zero_s: float) -> None:
        self._width = len(entries[0])
        self._items = list(chain.from_iterable(entries))  # a third of what zip(*entries) takes
        self.count = len(entries)
        self.zero_s = zero_s

    def column(self, number: int) -> list[Any]:
        """That item of each entry."""
        return self._items[number :: self._width]

    def stamps(self, form: str) -> Values:
        """The end of each response in local time; one text where all ended within the same second."""
        moments, zero_s = self.column(MOMENT), self.zero_s
        first, last = int(min(moments) + zero_s), int(max(moments) + zero_s)
        texts = {second: strftime(form, localtime(second)) for second in range(first, min(last, first + 3600) + 1)}
        if len(texts) == 1:
            return texts[first]
        return [texts.get(int(moment + zero_s)) or strftime(form, localtime(moment + zero_s)) for moment in moments]

    @cached_property
    def request_lines(self) -> Values:
        """Each as received; of one that could not be read, what is known of it."""
        requests = self.column(REQUEST)
        if requests[0] is requests[-1] and len(set(map(id, requests))) == 1:
            return show_request(requests[0])
        return [
            f"{request.method} {request.target} {request.protocol}" if request.protocol else show_request(request)
            for request in requests
        ]

    def micros(self) -> list[int]:
        """The durations in microseconds."""
        return [int(duration_s * 1_000_000) for duration_s in self.column(DURATION)]


def show_request(request: Request) -> str:
    """A request line, as far as it is known."""
    if request.protocol:
        return f"{request.method} {request.target} {request.protocol}"
    return f"{request.method} {request.target}".strip() or NONE


def users(batch: Batch) -> Values:
    """The names of HTTP Basic credentials. RFC 7617."""
    fields = batch.column(AUTHORIZATION)
    return [read_user(field) if field else NONE for field in fields] if any(fields) else NONE


# --- atoms ----------------------------------------------------------------------------------------------------------


class Atom(NamedTuple):
    """One name of a format. sample: a value, to tell what conversions hold; is_foreign: a client has chosen it."""

    meaning: str
    sample: object
    values: Callable[[Batch], Values]
    is_foreign: bool = False


def column(number: int) -> Callable[[Batch], Sequence[object]]:
    """One that needs no change."""
    return lambda batch: batch.column(number)


def of_request(name: str) -> Callable[[Batch], Sequence[object]]:
    """A part of each request line."""
    return lambda batch: [getattr(request, name) for request in batch.column(REQUEST)]


def paths(batch: Batch) -> list[str]:
    """Decoded, without the script name; `-` where there is none."""
    return [NONE if request.path_info is None else request.path_info for request in batch.column(REQUEST)]


def known(values: Callable[[Batch], Sequence[object]]) -> Callable[[Batch], Values]:
    """`-` for an empty text."""

    def fill(batch: Batch) -> Values:
        found = values(batch)
        return found if all(found) else [value or NONE for value in found]

    return fill


ATOMS: dict[str, Atom] = {
    "h": Atom("address of the client", "::1", known(column(REMOTE)), True),
    "l": Atom("always -", NONE, lambda batch: NONE),
    "u": Atom("name of HTTP Basic credentials", "", users, True),
    "t": Atom("time of day at the end of the response", "", lambda batch: batch.stamps(STAMP_FORMAT)),
    "r": Atom("request line", "", lambda batch: batch.request_lines, True),
    "m": Atom("method", "", known(column(METHOD)), True),
    "U": Atom("path, decoded, without the script name", "", paths, True),
    "q": Atom("query", "", of_request("query"), True),
    "H": Atom("protocol", "", known(of_request("protocol")), True),
    "s": Atom("status", 200, column(STATUS)),
    "B": Atom("size of the content in bytes", 1, column(SIZE)),
    "b": Atom("size of the content in bytes", 1, column(SIZE)),
    "f": Atom("Referer", "", column(REFERER), True),
    "a": Atom("User-Agent", "", column(AGENT), True),
    "T": Atom("duration in seconds", 1, lambda batch: [micro // 1_000_000 for micro in batch.micros()]),
    "D": Atom("duration in microseconds", 1, Batch.micros),
    "M": Atom("duration in milliseconds", 1, lambda batch: [micro // 1000 for micro in batch.micros()]),
    "L": Atom("duration in seconds, with six decimals", "", lambda batch: [f"{x / 1e6:.6f}" for x in batch.micros()]),
    "p": Atom("process id in angle brackets", "<1>", lambda batch: f"<{os.getpid()}>"),
}
MADE_ANEW = ("r", "u", "U", "q")  # texts that are no objects of a connection's memory
DURATIONS = [ATOMS[name].values for name in "TDML"]
# Atoms with a name in braces: what they hold.
NAMED = {"i": "request field", "o": "response field", "e": "key of environ"}
ALLOWED = f"allowed are {' '.join(ATOMS)} {{name}}i {{name}}o {{name}}e, as in %(h)s, and %%"


class Finder(NamedTuple):
    """Where the value of a named atom is: keys of environ, the first that is there; or a field of the response."""

    keys: tuple[str, ...]
    field: bytes


def find_named(name: str, kind: str) -> Finder:
    """Where {name}i, {name}o or {name}e is. Names in any case."""
    if kind == "o":
        return Finder((), name.lower().encode("latin-1", "replace"))
    if kind == "e":
        return Finder(tuple(dict.fromkeys((name, name.upper(), name.lower()))), b"")
    key = name.upper().replace("-", "_")
    return Finder((key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}",), b"")


def read_fields(head: Head | bytes) -> dict[bytes, bytes]:
    """The field lines of a response by their names in lower case; the last of a name."""
    if isinstance(head, bytes):
        data = head[: head.find(b"\r\n\r\n")] if b"\r\n\r\n" in head else head
    else:
        data = head.lines + (b"Content-Length: %d\r\n" % head.length if head.length >= 0 else b"")
    fields = {}
    for line in data.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    return fields


def make_capture(finders: Sequence[Finder]) -> Capture:
    """What a format needs of a request and its response beside the first ten items of an entry."""
    wants_fields = any(not finder.keys for finder in finders)

    def capture(environ: Environ, head: Head | bytes) -> tuple[str, ...]:
        fields = read_fields(head) if wants_fields else {}
        return tuple(
            find_text(environ, finder.keys) if finder.keys else fields.get(finder.field, b"-").decode("latin-1")
            for finder in finders
        )

    return capture


def find_text(environ: Environ, keys: Iterable[str]) -> str:
    """The value of the first key that is there, as a text."""
    for key in keys:
        if key in environ:
            value = environ[key]
            return value if type(value) is str else show_object(value)
    return NONE


# --- formats --------------------------------------------------------------------------------------------------------

# %, then (name), flags, width, precision, and the conversion. printf(3), as Python has it.
DIRECTIVE = re.compile(
    r"%(?:%|\((?P<name>[^()]*)\)(?P<form>[-#0 +]{0,5}(?P<width>[0-9]*)(?:\.(?P<precision>[0-9]*))?[hlL]?[a-zA-Z]))"
)
NAMED_ATOM = re.compile(r"\{([^{}]+)\}([a-zA-Z])")

Column = list[str] | str  # a text alone: the same in all lines


class Slot(NamedTuple):
    """A place of a format: whose values, and how each is written; form: `%s` in most. repeats: see escape_all."""

    values: Callable[[Batch], Values]
    form: str
    is_foreign: bool
    repeats: bool

    def build(self, batch: Batch) -> Column:
        """What stands there in each line."""
        values = self.values(batch)
        is_same = isinstance(values, str) or (values[0] == values[-1] and values.count(values[0]) == batch.count)
        if is_same:
            text = self.form % (values if isinstance(values, str) else values[0],)
            return escape_atom(text) if self.is_foreign else text
        if self.form != "%s":
            texts = [self.form % (value,) for value in values]
        elif isinstance(values[0], str):
            texts = cast("list[str]", values)  # join() refuses objects among them, see `AccessLog`
        else:
            texts = list(map(str, values))
        return escape_all(texts, self.repeats) if self.is_foreign else texts


def compile_format(text: str) -> CompiledFormat:
    """A format of gunicorn's. Raises ValueError with what is wrong, and what is allowed."""
    text = text.rstrip("\r\n")
    places: list[Slot | str] = []
    finders: list[Finder] = []
    position = 0
    for match in DIRECTIVE.finditer(text):
        add_literal(places, text[position : match.start()])
        position = match.end()
        if match[0] == "%%":
            add_literal(places, "%%")
        else:
            places.append(read_directive(match, finders))
    add_literal(places, text[position:])
    capture = make_capture(finders) if finders else None
    has_durations = any(isinstance(place, Slot) and place.values in DURATIONS for place in places)
    return CompiledFormat(text, partial(build_lines, tuple(places)), capture, has_durations)


def add_literal(places: list[Slot | str], text: str) -> None:
    """Text that stands in every line. Raises ValueError at a `%` that begins no atom."""
    start = text.find("%")
    if start >= 0 and text != "%%":
        raise ValueError(f"no atom begins with {text[start : start + 20]!r}; {ALLOWED}")
    text = text.replace("%%", "%")
    if places and isinstance(places[-1], str):
        places[-1] += text
    elif text:
        places.append(text)


def read_directive(match: re.Match[str], finders: list[Finder]) -> Slot:
    """One atom of a format. Raises ValueError."""
    name, form = match["name"], "%" + match["form"]
    atom = ATOMS.get(name)
    if atom is None:
        named = NAMED_ATOM.fullmatch(name)
        if named is None or named[2] not in NAMED:
            raise ValueError(f"%({name})s is no atom{suggest(name)}; {ALLOWED}")
        number = len(finders)
        finders.append(find_named(named[1], named[2]))
        atom = Atom("", "", lambda batch: [more[number] for more in batch.column(MORE)], True)
    if len(match["width"]) > MOST_DIGITS or len(match["precision"] or "") > MOST_DIGITS:
        raise ValueError(f"{match[0]}: a width has at most {MOST_DIGITS} digits")
    try:
        form % (atom.sample,)
    except (TypeError, ValueError) as error:
        hint = "d, s or f" if isinstance(atom.sample, int) else "s"
        raise ValueError(f"{match[0]}: {error}; allowed is {hint} at its end") from None
    return Slot(atom.values, form, atom.is_foreign, name not in MADE_ANEW)


def suggest(name: str) -> str:
    """`; did you mean ...` for a name that is nearly right, or nothing."""
    named = NAMED_ATOM.fullmatch("{" + name.strip("{}")[:-1] + "}" + name[-1:])
    if "{" in name or "}" in name:
        field = named[0] if named is not None and named[2] in NAMED else f"{{{name.strip('{}').partition('}')[0]}}}i"
        return f"; did you mean %({field})s"
    if len(name) > 2:
        return f"; did you mean %({{{name}}}i)s"
    near = [atom for atom in ATOMS if name and atom.lower() == name[0].lower()]
    return f"; did you mean %({name[0] if name[0] in near else near[0]})s" if near else ""


def build_lines(places: tuple[Slot | str, ...], entries: Sequence[Entry], zero_s: float) -> list[str]:
    """The lines of a batch."""
    batch = Batch(entries, zero_s)
    return join_columns([place if isinstance(place, str) else place.build(batch) for place in places], batch.count)


def join_columns(columns: Sequence[Column], count: int) -> list[str]:
    """Line by line; what is the same in all of them is joined first."""
    parts: list[Iterable[str]] = []
    constant = ""
    for item in columns:
        if isinstance(item, str):
            constant += item
            continue
        if constant:
            parts.append(repeat(constant, count))
            constant = ""
        parts.append(item)
    if not parts:
        return [constant] * count
    if constant:
        parts.append(repeat(constant, count))
    return list(map("".join, zip(*parts, strict=True)))
