"""Conditional requests and byte ranges: what a file's validators and size make of the fields of a request.

Knows RFC 9110 sections 8.8.3 (entity-tag), 13 (preconditions) and 14 (ranges) as pure functions. The fields come as in
environ: `HTTP_` names, lines of one name joined with ", ". Knows neither files nor the clock. Called by
`static.handler`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from epollwsgi.http.dates import format_date, parse_date

# A request without any of these is answered plainly.
FIELDS: Final = frozenset(
    (
        "HTTP_IF_MATCH",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_IF_NONE_MATCH",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_RANGE",
    )
)

# One member of `"*" / #entity-tag` with the comma behind it; a recipient passes over empty members (section 5.6.1.2).
# entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE, etagc = %x21 / %x23-7E / obs-text (section 8.8.3): no quote, no space.
MEMBER: Final = re.compile(r'[ \t,]*+(\*|(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+")[ \t]*+(?:,|\Z)')
EMPTY_MEMBERS: Final = re.compile(r"[ \t,]*+")

# int-range = first-pos "-" [ last-pos ], suffix-range = "-" suffix-length (section 14.1.2). Digits are ASCII only.
RANGE_SPEC: Final = re.compile(r"([0-9]*+)-([0-9]*+)")
MAX_RANGE_SPECS: Final = 16
# No file has a size of so many digits, and int() refuses thousands of them: longer numbers are all the same.
MAX_POSITION_DIGITS: Final = 19
BEYOND: Final = 10**MAX_POSITION_DIGITS

# More ranges that overlap than these are an attack or a mistake (section 14.2).
MAX_OVERLAPPING: Final = 2
# What lies between two ranges is sent along where it costs less than the head of another part.
MIN_GAP: Final = 80

Ranges = tuple[tuple[int, int], ...]
UNSATISFIABLE: Final[Ranges] = ()


def evaluate(fields: Mapping[str, str], etag: str, last_modified: int | None, now: float) -> int:
    """200, 304 or 412: how the preconditions of a GET or HEAD come out. RFC 9110 section 13.2.2.

    etag: of the selected representation, with quotes and `W/`.  last_modified: None where there is none, then dates
    are ignored.  now: for two-digit years only.
    """
    if_match = fields.get("HTTP_IF_MATCH")
    if if_match is not None:
        if not has_strong_match(if_match, etag):
            return 412
    elif last_modified is not None:
        limit = _date(fields, "HTTP_IF_UNMODIFIED_SINCE", now)
        if limit is not None and last_modified > limit:
            return 412
    if_none_match = fields.get("HTTP_IF_NONE_MATCH")
    if if_none_match is not None:
        return 304 if has_weak_match(if_none_match, etag) else 200
    if last_modified is not None:
        since = _date(fields, "HTTP_IF_MODIFIED_SINCE", now)
        if since is not None and last_modified <= since:
            return 304
    return 200


def _date(fields: Mapping[str, str], name: str, now: float) -> int | None:
    text = fields.get(name)
    return None if text is None else parse_date(text, now)


def parse_entity_tags(text: str) -> list[str] | None:
    """The members of a list of entity-tags, `*` among them; None where the list breaks the grammar anywhere.

    A broken list is taken for one that matches nothing: the client gets the whole answer, or a 412.
    """
    tags = []
    position = 0
    while (match := MEMBER.match(text, position)) is not None:
        tags.append(match[1])
        position = match.end()
    return tags if EMPTY_MEMBERS.fullmatch(text, position) else None


def has_strong_match(text: str, etag: str) -> bool:
    """True where If-Match holds `*` or this very tag and neither is weak. RFC 9110 sections 8.8.3.2, 13.1.1."""
    tags = parse_entity_tags(text) or ()
    return "*" in tags or (etag in tags and not etag.startswith("W/"))


def has_weak_match(text: str, etag: str) -> bool:
    """True where If-None-Match holds `*` or a tag that is equal but for `W/`. RFC 9110 sections 8.8.3.2, 13.1.2."""
    if text == etag:
        return True
    opaque = etag.removeprefix("W/")
    return any(tag == "*" or tag.removeprefix("W/") == opaque for tag in parse_entity_tags(text) or ())


def select_ranges(
    method: str, fields: Mapping[str, str], etag: str, last_modified: int | None, size: int
) -> Ranges | None:
    """First and last positions of the parts to send, UNSATISFIABLE, or None for the whole. RFC 9110 section 14.2.

    To be asked only where `evaluate` says 200.
    """
    text = fields.get("HTTP_RANGE")
    if text is None or method != "GET" or size == 0:
        return None
    if_range = fields.get("HTTP_IF_RANGE")
    if if_range is not None and not _is_unchanged(if_range, etag, last_modified):
        return None
    specs = parse_range(text)
    if specs is None:
        return None
    ranges = tuple(found for first, last in specs if (found := _resolve(first, last, size)) is not None)
    if len(ranges) < 2:
        return ranges
    return None if is_excessive(ranges, size) else join_ranges(ranges)


def is_excessive(ranges: Ranges, size: int) -> bool:
    """True for ranges that ask for more than the whole, or overlap too much: the whole is the better answer."""
    if sum(last - first + 1 for first, last in ranges) > size:
        return True
    overlapping = sum(
        any(first <= other_last and other_first <= last for j, (other_first, other_last) in enumerate(ranges) if i != j)
        for i, (first, last) in enumerate(ranges)
    )
    return overlapping > MAX_OVERLAPPING


def join_ranges(ranges: Ranges) -> Ranges:
    """The ranges in the order asked, those with small gaps between them joined at the place of the earliest asked."""
    joined: list[tuple[int, int, int]] = []  # place, first, last
    for first, last, place in sorted((first, last, place) for place, (first, last) in enumerate(ranges)):
        if joined and first - joined[-1][2] - 1 < MIN_GAP:
            before_place, before_first, before_last = joined[-1]
            joined[-1] = (min(before_place, place), before_first, max(before_last, last))
        else:
            joined.append((place, first, last))
    return tuple((first, last) for _, first, last in sorted(joined))


def _is_unchanged(if_range: str, etag: str, last_modified: int | None) -> bool:
    """If-Range holds exactly the strong ETag or the Last-Modified as sent. RFC 9110 section 13.1.5.

    While the tag is weak the file may change again within the second, so its date is no strong validator either.
    """
    if etag.startswith("W/"):
        return False
    return if_range == etag or (last_modified is not None and if_range == format_date(last_modified))


def parse_range(text: str) -> list[tuple[int | None, int | None]] | None:
    """The specs of `bytes=...` as (first, last), (first, None) or (None, suffix length); None to ignore the field.

    Ignored are another unit, any spec that breaks the grammar, no spec at all and more than MAX_RANGE_SPECS of them.
    """
    if text[:6].lower() != "bytes=":
        return None
    specs: list[tuple[int | None, int | None]] = []
    for member in filter(None, (part.strip(" \t") for part in text[6:].split(","))):
        match = RANGE_SPEC.fullmatch(member)
        if match is None or len(specs) == MAX_RANGE_SPECS:
            return None
        first, last = match[1].lstrip("0"), match[2].lstrip("0")
        if match[1] and match[2] and (len(first), first) > (len(last), last):  # as numbers of any length
            return None
        if not match[1] and not match[2]:
            return None
        specs.append((_position(first) if match[1] else None, _position(last) if match[2] else None))
    return specs or None


def _position(digits: str) -> int:
    return int(digits or "0") if len(digits) <= MAX_POSITION_DIGITS else BEYOND


def _resolve(first: int | None, last: int | None, size: int) -> tuple[int, int] | None:
    """First and last position within `size` bytes, or None where the spec lies outside. RFC 9110 section 14.1.2."""
    if first is None:
        return (max(size - last, 0), size - 1) if last else None
    if first >= size:
        return None
    return first, size - 1 if last is None else min(last, size - 1)
