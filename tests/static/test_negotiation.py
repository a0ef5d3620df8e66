"""http.negotiation: Accept-Encoding and Accept. RFC 9110 sections 12.4.2, 12.5.1, 12.5.3; STATIC.md section 5."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epollwsgi.http.negotiation import accept_weight, choose_coding, parse_accept_encoding, parse_weight
from tests.static.support import repeatable

SIZES = (("br", 80), ("zstd", 90), ("gzip", 100))


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("q=1", 1000),
        ("q=1.", 1000),
        ("q=1.000", 1000),
        ("q=0", 0),
        ("q=0.", 0),
        ("q=0.0", 0),
        ("q=0.5", 500),
        ("q=0.05", 50),
        ("q=0.005", 5),
        (" Q=0.999\t", 999),
        ("q=1.001", None),
        ("q=0.0001", None),
        ("q=2", None),
        ("q=-1", None),
        ("q=", None),
        ("q=.5", None),
        ("q=0,5", None),
        ("q =0.5", None),
        ("q= 0.5", None),
        ("", None),
        ("x=1", None),
        ("q=0.5;x", None),
        ("q=\u0660", None),
    ],
)
def test_weights(text: str, weight: int | None) -> None:
    assert parse_weight(text) == weight


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "br"),  # the smallest of what weighs the same
        ("gzip,zstd", "zstd"),
        ("gzip;q=1, br;q=0.9", "gzip"),
        ("gzip;q=0.5, zstd;q=0.6;, br;q=0.4", "gzip"),  # a malformed member is dropped
        ("gzip;q=0.001", "gzip"),
        ("*", "br"),
        ("*;q=0.5, gzip", "gzip"),
        ("br;q=0, *", "zstd"),
        ("br;q=0, zstd;q=0, *;q=0.1", "gzip"),
        ("gzip, identity;q=0", "gzip"),
        ("gzip;q=0.5, identity", "identity"),
        ("gzip, identity", "gzip"),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("", "identity"),
        ("identity", "identity"),
        ("identity;q=0", "identity"),
        ("*;q=0", "identity"),
        ("gzip;q=0", "identity"),
        ("notgzip", "identity"),
        ("gzipped", "identity"),
        ("gzip x", "identity"),
        ("deflate, compress", "identity"),
        ("gzip;q=2", "identity"),
        ("gzip;level=9", "identity"),
        ("gzip;q=0.5;x=1", "identity"),
        (";q=1", "identity"),
        (",,, gzip ,,", "gzip"),
        ("gzip;q=0, gzip", "identity"),  # the first counts
        ("gzip\xa0", "identity"),
        ("b" * 5000 + ", gzip", "gzip"),
    ],
    ids=lambda value: value[:40],
)
def test_the_coding_chosen(text: str, chosen: str) -> None:
    assert choose_coding(parse_accept_encoding(text), SIZES, 1000) == chosen


def test_size_decides_between_equals_only() -> None:
    weights = parse_accept_encoding("br, gzip, identity")
    assert choose_coding(weights, (("br", 100), ("gzip", 90)), 1000) == "gzip"
    assert choose_coding(weights, (("br", 100), ("gzip", 100)), 1000) == "br"
    assert choose_coding(weights, (("br", 2000), ("gzip", 3000)), 1000) == "identity"
    assert choose_coding(weights, (), 1000) == "identity"
    assert choose_coding(parse_accept_encoding("gzip"), (("gzip", 2000),), 1000) == "gzip"  # it was asked for


@repeatable
@given(st.text(st.sampled_from("gzipbrstdx*,;q=01.5 \t-identy"), max_size=40))
def test_any_text_chooses_something(text: str) -> None:
    weights = parse_accept_encoding(text)
    assert all(0 <= weight <= 1000 for weight in weights.values())
    chosen = choose_coding(weights, SIZES, 1000)
    assert chosen in ("br", "zstd", "gzip", "identity")
    if chosen != "identity":
        assert weights[chosen] > 0


@pytest.mark.parametrize(
    ("text", "html", "json", "html_by_name"),
    [
        ("text/html", 1000, 0, 1000),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 1000, 800, 1000),
        ("application/json", 0, 1000, 0),
        ("application/json, text/html;q=0.5", 500, 1000, 500),
        ("*/*", 1000, 1000, 0),
        ("text/*;q=0.3", 300, 0, 0),
        ("text/html;q=0", 0, 0, 0),
        ("text/html;level=1;q=0.4", 400, 0, 400),
        ("TEXT/HTML", 1000, 0, 1000),
        ("text/htmlx", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_accept(text: str, html: int, json: int, html_by_name: int) -> None:
    assert accept_weight(text, "text/html") == html
    assert accept_weight(text, "application/json") == json
    assert accept_weight(text, "text/html", by_name=True) == html_by_name
