"""Every pattern of static files takes linear time: hostile input of n and of 8 n.

Eight times the input may cost 8 times as much, and is allowed 24; a quadratic pattern would need 64. The smallest of
several measurements of this thread's CPU time is taken, so that a busy machine changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from epollwsgi.http import conditional, dates, negotiation
from epollwsgi.static import listing, media_types, paths, rules

N = 4000
FACTOR = 8
ALLOWED = 24
LONG_S = 0.2

NOW = 1_750_000_000.0


def tags(text: str) -> object:
    return conditional.parse_entity_tags(text)


def date(text: str) -> object:
    return dates.parse_date(text, NOW)


def control(text: str) -> object:
    return media_types.cache_control(text.encode("latin-1"))


def search_refused(text: str) -> object:
    return paths.REFUSED_ENCODING.search(text)


def no_empty(text: str) -> object:
    return conditional.EMPTY_MEMBERS.fullmatch(text)


def no_range(text: str) -> object:
    return conditional.RANGE_SPEC.fullmatch(text)


def accept(text: str) -> object:
    return negotiation.accept_weight(text, "text/html")


REDIRECTS, _ = rules.parse_redirects(b"/*/b/:c /x\n/:a.json /y\n/:y/:m/*/end /z\n/f*.php /p\n")
HEADERS, _ = rules.parse_headers(b"/*/b/:c\n  X: :splat\n/:a/:b\n  Y: :a\n")


def redirect(text: str) -> object:
    return REDIRECTS.find(text.encode("latin-1")), HEADERS.select(text.encode("latin-1"))


def read_rules(text: str) -> object:
    return rules.parse_redirects(text.encode("latin-1")), rules.parse_headers(text.encode("latin-1"))


ROWS: list[tuple[str, Callable[[str], object], Callable[[int], str]]] = [
    ("member: commas", tags, lambda n: "," * n + "x"),
    ("member: white space", tags, lambda n: " \t" * (n // 2) + "x"),
    ("member: commas and spaces", tags, lambda n: ", " * (n // 2) + "x"),
    ("member: an open tag", tags, lambda n: '"' + "a" * n),
    ("member: many tags, then none", tags, lambda n: '"a",' * (n // 4) + '"'),
    ("member: tags that lack commas", tags, lambda n: '"a" ' * (n // 4)),
    ("member: spaces behind a tag", tags, lambda n: '"a"' + " " * n + "x"),
    ("member: quotes", tags, lambda n: '"' * n),
    ("member: weak marks", tags, lambda n: "W/" * (n // 2)),
    ("empty members", no_empty, lambda n: " ," * (n // 2) + "x"),
    ("range: digits", conditional.parse_range, lambda n: "bytes=" + "9" * n + "x"),
    ("range: digits twice", conditional.parse_range, lambda n: f"bytes={'9' * (n // 2)}-{'9' * (n // 2)}"),
    ("range: zeros", conditional.parse_range, lambda n: f"bytes={'0' * (n // 2)}-{'0' * (n // 2)}"),
    ("range: hyphens", conditional.parse_range, lambda n: "bytes=" + "-" * n),
    ("range: commas", conditional.parse_range, lambda n: "bytes=" + "," * n),
    ("range: spaces", conditional.parse_range, lambda n: "bytes=" + " " * n + "x"),
    ("range: many specs", conditional.parse_range, lambda n: "bytes=" + "0-1," * (n // 4)),
    ("range spec", no_range, lambda n: "1" * n),
    ("date: digits", date, lambda n: "Sun, 06 Nov " + "1" * n),
    ("date: spaces", date, lambda n: "Sun" + " " * n),
    ("date: days", date, lambda n: "Sun, " * (n // 5)),
    ("path: percent signs", paths.split_path, lambda n: "/" + "%" * n),
    ("path: broken at the end", search_refused, lambda n: "/" + "%41" * (n // 3) + "%"),
    ("path: encoded", paths.split_path, lambda n: "/" + "%41" * (n // 3)),
    ("path: slashes", paths.split_path, lambda n: "/" * n),
    ("path: dots", paths.split_path, lambda n: "/." * (n // 2)),
    ("path: down and up", paths.split_path, lambda n: "/a" * (n // 5) + "/.." * (n // 5)),
    ("path: up and down", paths.split_path, lambda n: "/a/.." * (n // 5)),
    ("coding: commas", negotiation.parse_accept_encoding, lambda n: "," * n),
    ("coding: members", negotiation.parse_accept_encoding, lambda n: "gzip;q=0.5," * (n // 11)),
    ("coding: spaces", negotiation.parse_accept_encoding, lambda n: "gzip" + " " * n + ";q=1"),
    ("coding: weight", negotiation.parse_accept_encoding, lambda n: "gzip;q=" + "0" * n),
    ("coding: semicolons", negotiation.parse_accept_encoding, lambda n: "gzip" + ";" * n),
    ("accept: members", accept, lambda n: "text/html;q=0.5," * (n // 16)),
    ("accept: parameters", accept, lambda n: "text/html" + ";q=0" * (n // 4)),
    ("order: parameters", listing.parse_order, lambda n: "by=name&" * (n // 8)),
    ("redirect: slashes", redirect, lambda n: "/" * n),
    ("redirect: almost", redirect, lambda n: "/b" * (n // 2) + "/"),
    ("redirect: one segment", redirect, lambda n: "/" + "a.json" * (n // 6) + "x"),
    ("redirect: dots", redirect, lambda n: "/f" + ".php" * (n // 4) + "x"),
    ("rules: spaces", read_rules, lambda n: "/a" + " " * n + "x"),
    ("rules: stars", read_rules, lambda n: "/" + "*" * n),
    ("rules: names", read_rules, lambda n: "/:a" * (n // 3)),
    ("rules: lines", read_rules, lambda n: "/a /b\n" * (n // 6)),
    ("hash: digits", control, lambda n: "." + "1" * n),
    ("hash: letters", control, lambda n: "." + "a" * n + "x"),
    ("hash: almost", control, lambda n: ".a" + "1" * n + "x"),
    ("hash: short runs", control, lambda n: ".1a" * (n // 3)),
    ("hash: runs without letters", control, lambda n: ".12345678" * (n // 9)),
]


def cost_s(function: Callable[[str], object], text: str) -> float:
    """The least of seven measurements; of what takes long three are enough."""
    best, spent = float("inf"), 0.0
    for number in range(7):
        begin = time.thread_time_ns()
        for _ in range(4):
            function(text)
        took_s = (time.thread_time_ns() - begin) / 1e9
        best, spent = min(best, took_s), spent + took_s
        if number >= 2 and spent > LONG_S:
            break
    return best


@pytest.mark.parametrize(("function", "build"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_time_is_linear(function: Callable[[str], object], build: Callable[[int], str]) -> None:
    small, large = cost_s(function, build(N)), cost_s(function, build(N * FACTOR))
    assert large <= ALLOWED * max(small, 2e-6)
