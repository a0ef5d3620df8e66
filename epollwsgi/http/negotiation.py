"""Content negotiation: which coding an Accept-Encoding asks for, and whether an Accept names a media type.

Pure: field values in, decisions out. RFC 9110 sections 12.4.2, 12.5.1 and 12.5.3. Called by `static`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

# The codings there are, and names that mean the same. RFC 9110 section 8.4.1.3 for x-gzip.
NAMES: Final = {"br": "br", "zstd": "zstd", "gzip": "gzip", "x-gzip": "gzip", "identity": "identity", "*": "*"}
CODINGS: Final = ("br", "zstd", "gzip")
IDENTITY: Final = "identity"

# weight = OWS ";" OWS "q=" qvalue, less the semicolon; qvalue has at most three digits behind the point.
WEIGHT: Final = re.compile(r"[ \t]*[qQ]=(?:(0)(?:\.([0-9]{0,3}))?|(1)(?:\.0{0,3})?)[ \t]*")
FULL_WEIGHT: Final = 1000

Weights = Mapping[str, int]


def parse_weight(text: str) -> int | None:
    """The qvalue behind a semicolon, in thousandths; None where it breaks the grammar."""
    match = WEIGHT.fullmatch(text)
    if match is None:
        return None
    return FULL_WEIGHT if match[3] else int((match[2] or "").ljust(3, "0"))


def parse_accept_encoding(text: str) -> Weights:
    """The weight of each coding we know, and of identity, in thousandths; 0: only if there is nothing better.

    A member that breaks the grammar is dropped; of a coding that stands twice the first counts. Identity that is
    neither named nor meant by `*` is acceptable, yet comes last.
    """
    named: dict[str, int] = {}
    for member in text.split(","):
        name, semicolon, rest = member.partition(";")
        coding = NAMES.get(name.strip(" \t").lower())
        weight = parse_weight(rest) if semicolon else FULL_WEIGHT
        if coding is not None and weight is not None:
            named.setdefault(coding, weight)
    others = named.get("*", 0)
    return {coding: named.get(coding, others) for coding in (*CODINGS, IDENTITY)}


def choose_coding(weights: Weights, sizes: Iterable[tuple[str, int]], identity_size: int) -> str:
    """The coding with the highest weight, the smallest of these, or `identity` where none is wanted.

    sizes: the codings there are, the preferred first, and how large each makes the content.
    """
    chosen, best = IDENTITY, (weights[IDENTITY], -identity_size)
    for coding, size in sizes:
        rank = (weights[coding], -size)
        if rank[0] and rank > best:
            chosen, best = coding, rank
    return chosen


def accept_weight(text: str, media_type: str, *, by_name: bool = False) -> int:
    """The weight that an Accept gives to a media type such as `text/html`, in thousandths.

    The most specific range counts.  by_name: ranges with a star do not count: the type has to be asked for itself.
    """
    main = media_type.partition("/")[0]
    ranges = (media_type,) if by_name else (media_type, f"{main}/*", "*/*")
    found = dict.fromkeys(ranges, 0)
    seen: set[str] = set()
    for member in text.split(","):
        name, *parameters = member.split(";")
        name = name.strip(" \t").lower()
        weights = [weight for parameter in parameters if (weight := parse_weight(parameter)) is not None]
        if name in found:
            found[name] = max(found[name], weights[0] if weights else FULL_WEIGHT)
            seen.add(name)
    for name in ranges:
        if name in seen:
            return found[name]
    return 0
