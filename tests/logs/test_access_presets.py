"""The presets of the access log: `json` is valid whatever came, `dev` is coloured for a terminal alone."""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epollwsgi.http.refused import read_refused
from epollwsgi.logs.entry import make_texts
from epollwsgi.logs.presets import PRESETS, choose_format
from tests.logs.entries import build_many, build_one, make_entry

JSON = choose_format("json", False)
TYPES: dict[str, tuple[type, ...]] = {
    "time": (str,),
    "remote": (str, type(None)),
    "user": (str, type(None)),
    "method": (str, type(None)),
    "path": (str, type(None)),
    "query": (str,),
    "protocol": (str, type(None)),
    "status": (int,),
    "size": (int,),
    "duration_ms": (float,),
    "host": (str, type(None)),
    "referer": (str, type(None)),
    "user_agent": (str, type(None)),
    "request_id": (str, type(None)),
    "pid": (int,),
}


def read_json(line: str) -> dict[str, Any]:
    """One line, strictly read."""
    assert line.isascii()
    assert line.isprintable()

    def refuse_constant(text: str) -> None:
        raise AssertionError(text)

    pairs = json.loads(line, object_pairs_hook=list, parse_constant=refuse_constant)
    found = dict(pairs)
    assert [name for name, _ in pairs] == list(TYPES)
    for name, value in found.items():
        assert type(value) in TYPES[name], name
    return found


def test_json_has_typed_fields() -> None:
    environ = {
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "example.com",
        "HTTP_REFERER": 'http://a/"b"',
        "HTTP_USER_AGENT": "curl/8",
        "HTTP_AUTHORIZATION": "Basic dXNlcjpwYXNz",
        "epollwsgi.request_id": "abc-1",
    }
    entry = make_entry(
        JSON, "GET /a%20b?c=d&e HTTP/1.1", environ, 206, 1234, duration_s=0.0125, moment=1_000_000_000.25
    )
    found = read_json(build_one(JSON, entry))
    moment = datetime.fromisoformat(found.pop("time"))
    assert moment.utcoffset() is not None
    assert moment.timestamp() == 1_000_000_000.25
    assert found == {
        "remote": "192.0.2.1",
        "user": "user",
        "method": "GET",
        "path": "/a%20b",
        "query": "c=d&e",
        "protocol": "HTTP/1.1",
        "status": 206,
        "size": 1234,
        "duration_ms": 12.5,
        "host": "example.com",
        "referer": 'http://a/"b"',
        "user_agent": "curl/8",
        "request_id": "abc-1",
        "pid": os.getpid(),
    }


def test_json_has_null_for_what_is_not_there() -> None:
    found = read_json(build_one(JSON, make_entry(JSON, read_refused(b""), {}, 408, peer="")))
    missing = ("remote", "user", "method", "path", "protocol", "host", "referer", "user_agent", "request_id")
    assert [found[name] for name in missing] == [None] * len(missing)
    assert (found["status"], found["query"], found["size"]) == (408, "", 0)


def test_json_shows_what_was_meant_as_utf8() -> None:
    environ = {"HTTP_USER_AGENT": "Bücher ☃".encode().decode("latin-1"), "HTTP_REFERER": "caf\xe9 \x85"}
    found = read_json(build_one(JSON, make_entry(JSON, environ=environ)))
    assert found["user_agent"] == "Bücher ☃"
    assert found["referer"] == "caf\xe9 \x85"


latin = st.text(st.characters(max_codepoint=255))


@given(st.binary(max_size=60), st.lists(st.one_of(latin, st.text(), st.none(), st.integers()), min_size=5, max_size=5))
def test_json_is_valid_whatever_came(line: bytes, values: list[object]) -> None:
    names = ("REMOTE_ADDR", "HTTP_HOST", "HTTP_REFERER", "HTTP_USER_AGENT", "epollwsgi.request_id")
    environ = dict(zip(names, values, strict=True))
    found = read_json(build_one(JSON, make_texts(make_entry(JSON, read_refused(line), environ, 400))))
    "".join(str(value) for value in found.values()).encode()  # no lone surrogates


def test_time_of_each_line_in_json() -> None:
    moments = [1_000_000_000.0, 1_000_000_000.9996, 999_999_999.001, 1_000_000_001.5]
    lines = build_many(JSON, [make_entry(JSON, moment=moment) for moment in moments])
    assert [datetime.fromisoformat(read_json(line)["time"]).timestamp() for line in lines] == [
        1_000_000_000.0,
        1_000_000_001.0,
        999_999_999.001,
        1_000_000_001.5,
    ]


# --- dev ------------------------------------------------------------------------------------------------------------


def test_short_lines_for_a_person() -> None:
    plain, coloured = choose_format("dev", False), choose_format("dev", True)
    entry = make_entry(plain, "GET /a HTTP/1.1", status=404, size=1234, duration_s=0.0034)
    line = build_one(plain, entry)
    assert line.partition(" ")[2] == "404 GET /a 1.2 kB, 3.4 ms"
    assert line[2] == line[5] == ":"
    assert "\x1b[33m404\x1b[0m" in build_one(coloured, entry)
    assert build_one(coloured, entry).replace("\x1b[33m", "").replace("\x1b[0m", "").replace("\x1b[2m", "") == line


SHOWN = [
    (200, 0, 0.00004, "200 GET / 0 B, 0.0 ms"),
    (304, 999, 0.9, "304 GET / 999 B, 900.0 ms"),
    (500, 5_000_000, 12.345, "500 GET / 5.0 MB, 12.35 s"),
]


@pytest.mark.parametrize(("status", "size", "duration_s", "shown"), SHOWN)
def test_sizes_and_durations(status: int, size: int, duration_s: float, shown: str) -> None:
    plain = choose_format("dev", False)
    line = build_one(plain, make_entry(plain, status=status, size=size, duration_s=duration_s))
    assert line.partition(" ")[2] == shown


@pytest.mark.parametrize("is_coloured", [False, True], ids=["plain", "coloured"])
def test_a_terminal_gets_no_bytes_of_a_client(is_coloured: bool) -> None:
    format = choose_format("dev", is_coloured)
    line = build_one(format, make_entry(format, read_refused(b"\x1b]0;title\x07 \x9b2J"), status=400))
    for colour in ("\x1b[33m", "\x1b[0m", "\x1b[2m"):
        line = line.replace(colour, "")
    assert line.partition(" ")[2].startswith(r"400 - \x1b]0;title\x07 \x9b2J 0 B")
    assert "\x1b" not in line


def test_the_words() -> None:
    assert list(PRESETS) == ["combined", "json", "dev"]
