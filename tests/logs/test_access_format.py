"""Formats of the access log: gunicorn's own logger is asked for the same line, and no client can forge one."""

from __future__ import annotations

import base64
import os
import re
import time
from datetime import timedelta
from typing import Any

import pytest
from gunicorn.glogging import Logger, SafeAtoms
from hypothesis import given
from hypothesis import strategies as st

from epollwsgi.config.settings import ACCESS_LOG_FORMAT
from epollwsgi.errors import ConfigError
from epollwsgi.http.refused import read_refused
from epollwsgi.logs.format import ATOMS, compile_format
from epollwsgi.logs.presets import choose_format
from epollwsgi.logs.text import UNSAFE_ATOM, escape_atom, is_safe, read_user
from tests.logs.entries import build_many, build_one, make_entry, response_head

FIELDS = {
    "HTTP_REFERER": "http://example.com/?a=b",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64)",
    "HTTP_X_REQUEST_ID": "abc-123",
    "HTTP_AUTHORIZATION": "Basic " + base64.b64encode("kören:geheim:x".encode()).decode(),
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "17",
}
HEADERS = (("Content-Type", "text/html"), ("X-Thing", "a b"), ("X-Thing", "second"), ("Content-Length", "1234"))


# --- gunicorn is asked ----------------------------------------------------------------------------------------------


class Answered:
    """A response, as gunicorn's logger looks at one."""

    def __init__(self, status: str, sent: int, headers: tuple[tuple[str, str], ...]) -> None:
        self.status = status
        self.sent = sent
        self.headers = list(headers)


class Asking:
    """A request, likewise."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.headers = [
            (key.removeprefix("HTTP_").replace("_", "-"), value)
            for key, value in environ.items()
            if key.startswith(("HTTP_", "CONTENT_"))
        ]


def line_of_gunicorn(text: str, target: str, environ: dict[str, Any], status: str, size: int, duration_s: float) -> str:
    """The line that gunicorn writes."""
    path, _, query = target.partition("?")
    whole = environ | {
        "REQUEST_METHOD": "GET",
        "RAW_URI": target,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
    }
    logger = object.__new__(Logger)
    logger.now = lambda: "[now]"
    atoms = logger.atoms(Answered(status, size, HEADERS), Asking(whole), whole, timedelta(seconds=duration_s))
    return str(text % SafeAtoms(atoms))


def own_line(text: str, target: str, environ: dict[str, Any], status: str, size: int, duration_s: float) -> str:
    """The same line of ours."""
    format = compile_format(text)
    head = response_head(*HEADERS, status=status)
    entry = make_entry(format, f"GET {target} HTTP/1.1", environ, head.status, size, head, duration_s=duration_s)
    return re.sub(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]", "[now]", build_one(format, entry))


FORMATS = [
    *(f"<%({name})s>" for name in ATOMS),
    ACCESS_LOG_FORMAT,
    '%(t)s %(h)s "%(r)s" %(s)s %(b)s %(L)s %(p)s',
    "%({x-request-id}i)s %({X-Request-ID}i)s %({Referer}i)s %({missing}i)s",
    "%({Content-Type}i)s %({content-length}i)s",
    "%({content-type}o)s %({X-THING}o)s %({Content-Length}o)s %({missing}o)s",
    "%({REMOTE_ADDR}e)s %({remote_addr}e)s %({wsgi.multithread}e)s %({Wsgi.Version}e)s %({missing}e)s",
    "[%(h)20s] [%(h)-20s] [%(h).3s] [%(B)08d] [%(D)+d] [%(M)x] [%(T)5d] [%(a)-5.4s] [%(m)r]",
    "100%% of %(U)s%% and %(q)s %%(h)s",
    "no newline at the end %(s)s\n",
    '{"a": "%(h)s",\n "b": %(B)s}',
    "ümlaut %(m)s",
]
CASES = {
    "whole": ("/a/b%20c?x=1&y=2", FIELDS | {"REMOTE_ADDR": "192.0.2.7"}, "200 OK", 1234, 1.234567),
    "bare": ("/", {"REMOTE_ADDR": "::1"}, "404 Not Found", 0, 0.0),
    "empty fields": ("/?", {"REMOTE_ADDR": "1", "HTTP_REFERER": "", "HTTP_USER_AGENT": ""}, "500 No", 5, 75.000001),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("text", FORMATS)
def test_line_is_that_of_gunicorn(text: str, case: str) -> None:
    target, environ, status, size, duration_s = CASES[case]
    whole = {**environ, "wsgi.multithread": True, "Wsgi.Version": (1, 0)}
    expected = line_of_gunicorn(text, target, whole, status, size, duration_s).rstrip("\n")
    if "%(U)s" in text:
        expected = expected.replace("b%20c", "b c")  # gunicorn's environ has it decoded
    assert own_line(text, target, whole, status, size, duration_s) == expected


def test_default_format_and_preset_are_gunicorns_default() -> None:
    from gunicorn.config import AccessLogFormat

    assert AccessLogFormat.default == ACCESS_LOG_FORMAT
    assert choose_format("combined", False).text == ACCESS_LOG_FORMAT


def test_every_atom_of_gunicorn_is_known() -> None:
    logger = object.__new__(Logger)
    environ = {"REQUEST_METHOD": "", "RAW_URI": "", "SERVER_PROTOCOL": ""}
    atoms = logger.atoms(Answered("200 OK", 0, ()), Asking({}), environ, timedelta())
    assert {name for name in atoms if not name.startswith("{")} == set(ATOMS)


AUTHORIZATIONS = [
    "Basic",
    "Basic ",
    "basic " + base64.b64encode(b"u:p").decode(),
    "BASIC   " + base64.b64encode(b"spaced:p").decode(),
    "Basic " + base64.b64encode(b"nocolon").decode(),
    "Basic " + base64.b64encode(b":nobody").decode(),
    "Basic " + base64.b64encode(b"\xff\xfe:p").decode(),
    "Basic %%%%",
    "Basic YQ",
    "Bearer abcdef",
    "Digest username=x",
    "\xe9\xe8",
]


@pytest.mark.parametrize("field", AUTHORIZATIONS)
def test_user_is_that_of_gunicorn(field: str) -> None:
    logger = object.__new__(Logger)
    logger.debug = lambda *_: None
    assert read_user(field) == (logger._get_user({"HTTP_AUTHORIZATION": field}) or "-")


# --- what is decided here -------------------------------------------------------------------------------------------


def test_request_line_is_the_one_received_whatever_became_of_environ() -> None:
    format = compile_format("%(h)s %(r)s %(m)s %(U)s %(q)s %(H)s %(a)s %(f)s %(u)s %({x}e)s")
    for environ in ({}, {"REQUEST_METHOD": "FORGED", "PATH_INFO": 5, "HTTP_USER_AGENT": 7, "REMOTE_ADDR": 1}):
        line = build_one(format, make_entry(format, "POST /a?b HTTP/1.0", environ))
        address, agent = ("1", "7") if environ else ("127.0.0.1", "-")
        assert line == f"{address} POST /a?b HTTP/1.0 POST /a b HTTP/1.0 {agent} - - -"


def test_remote_addr_of_environ_goes_before_the_peer() -> None:
    format = compile_format("%(h)s")
    assert build_one(format, make_entry(format, environ={"REMOTE_ADDR": "192.0.2.1"})) == "192.0.2.1"
    assert build_one(format, make_entry(format, environ={"REMOTE_ADDR": ""}, peer="")) == "-"


def test_objects_that_cannot_be_shown_harm_nobody() -> None:
    class Sullen:
        def __str__(self) -> str:
            raise RuntimeError("no")

    format = compile_format("%({x}e)s %({y}e)s")
    assert build_one(format, make_entry(format, environ={"x": Sullen(), "y": None})) == "- None"


REFUSED = {
    b"": "-",
    b"\r\n": "-",
    b"GET": "GET",
    b"GET /half": "GET /half",
    b"GET /x HTTP/1.1": "GET /x HTTP/1.1",
    b"GET  /x  HTTP/1.1\r\nHost: x\r\n": "GET  /x  HTTP/1.1",
    b"G\xc3\xa4T /x HTTP/1.1\r\n": "G\xc3\xa4T /x HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01": r"\x16\x03\x01\x02\x00\x01",
    b'a "b"\r\n\r\n': r"a \x22b\x22",
    b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n": "GET /" + "a" * 995 + "...",
}


@pytest.mark.parametrize("data", REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_request_line_that_was_refused(data: bytes) -> None:
    format = compile_format("%(r)s")
    assert build_one(format, make_entry(format, read_refused(data))) == REFUSED[data]
    format = compile_format("%(m)s %(H)s %(U)s")
    known = build_one(format, make_entry(format, read_refused(data)))
    method, protocol, path = known.split(" ")
    assert path == "-"
    assert method in ("-", "GET")
    assert protocol in ("-", "HTTP/1.1")


def test_time_is_that_of_each_response() -> None:
    format = compile_format("%(t)s")
    moments = [1_000_000_000.1, 1_000_000_000.9, 1_000_000_001.0, 1_000_000_000.5, 1_000_009_000.0]
    lines = build_many(format, [make_entry(format, moment=moment) for moment in moments])
    assert lines == [time.strftime("[%d/%b/%Y:%H:%M:%S %z]", time.localtime(moment)) for moment in moments]
    assert build_one(format, make_entry(format, moment=0.5), zero_s=86400.0) == time.strftime(
        "[%d/%b/%Y:%H:%M:%S %z]", time.localtime(86400)
    )


def test_lines_of_a_batch_are_those_of_its_entries() -> None:
    """Columns that are the same in all lines, and those that are not, are put together in the right order."""
    text = f'a %(s)s b %(p)s "%(r)s" c%(b)s%(h)s %(a)s %({{x}}e)s {ACCESS_LOG_FORMAT}'
    format = compile_format(text)
    entries = [
        make_entry(
            format,
            f"GET /{number % 3} HTTP/1.1",
            {"REMOTE_ADDR": f"10.0.0.{number % 2}", "HTTP_USER_AGENT": 'a"' * (number % 4), "x": number},
            200 + number % 2,
            number,
            moment=float(number),
        )
        for number in range(20)
    ]
    assert build_many(format, entries) == [build_one(format, entry) for entry in entries]
    assert str(os.getpid()) in build_one(format, entries[0])


# --- escaping -------------------------------------------------------------------------------------------------------

ESCAPED = [
    ('say "hi"', r"say \x22hi\x22"),
    ("back\\slash", r"back\x5cslash"),
    ("a\r\nb\tc\0", r"a\x0d\x0ab\x09c\x00"),
    ("\x7f\x80\x9f\xa0é", "\\x7f\\x80\\x9f\xa0é"),
    ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
    ("", ""),
]


@pytest.mark.parametrize(("written", "shown"), ESCAPED)
def test_atoms_are_escaped(written: str, shown: str) -> None:
    assert escape_atom(written) == shown


@given(st.text())
def test_the_quick_look_sees_what_the_pattern_sees(text: str) -> None:
    assert is_safe(text) == (UNSAFE_ATOM.search(text) is None)


HOSTILE = "x\" 200 '\n\r\x1b\\\x85\u2028\ud800"
FOREIGN: dict[str, dict[str, Any]] = {
    "h": {"environ": {"REMOTE_ADDR": HOSTILE}},
    "u": {"environ": {"HTTP_AUTHORIZATION": "Basic " + base64.b64encode(b'a"\n\x1b').decode()}},
    "f": {"environ": {"HTTP_REFERER": HOSTILE}},
    "a": {"environ": {"HTTP_USER_AGENT": HOSTILE}},
    "r": {"line": read_refused(b'GET /a"\x1b HTTP/1.1')},
    "m": {"line": read_refused(b'G"ET /a"\x1b HTTP/1.1')},
    "U": {"line": "GET /%22%0A%1B%C2%85 HTTP/1.1"},
    "q": {"line": read_refused(b'GET /?a"\x1b HTTP/1.1')},
    "H": {"line": read_refused(b'GET / HTTP/1.1"\x1b')},
    "{x}i": {"environ": {"HTTP_X": HOSTILE}},
    "{x}e": {"environ": {"x": HOSTILE}},
    "{x}o": {"head": b'HTTP/1.1 200 OK\r\nX: a"\x1b\x85\r\n'},
}


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "among others"])
@pytest.mark.parametrize("conversion", ["s", "r", "5.4s"])
@pytest.mark.parametrize("name", FOREIGN)
def test_no_atom_can_end_its_field(name: str, conversion: str, is_alone: bool) -> None:
    format = compile_format(f"[%({name}){conversion}]")
    entries = [make_entry(format, **FOREIGN[name])]
    if not is_alone:
        entries.append(make_entry(format, "GET /other HTTP/1.1", {"REMOTE_ADDR": "192.0.2.9"}))
    line = build_many(format, entries)[0]
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\"]", line)
    assert not re.search(r"\\(?!x[0-9a-f]{2})", line)
    if conversion != "5.4s" and name not in "mH":
        assert r"\x" in line


def test_every_atom_that_a_client_chooses_is_tried() -> None:
    assert {name for name, atom in ATOMS.items() if atom.is_foreign} == {name for name in FOREIGN if name in ATOMS}


# --- mistakes -------------------------------------------------------------------------------------------------------

MISTAKES = {
    "%(hh)s": r"%\(hh\)s is no atom; did you mean %\(h\)s;",
    "%(R)s": r"%\(R\)s is no atom; did you mean %\(r\)s;",
    "%(z)s": r"%\(z\)s is no atom; allowed are h l u t r ",
    "%()s": r"%\(\)s is no atom; allowed",
    "%(X-Forwarded-For)s": r"did you mean %\(\{X-Forwarded-For\}i\)s;",
    "%({user-agent})s": r"did you mean %\(\{user-agent\}i\)s;",
    "%({X-Yi)s": r"did you mean %\(\{X-Y\}i\)s;",
    "%({X-Y}z)s": r"did you mean %\(\{X-Y\}i\)s;",
    "%h %l": r"no atom begins with '%h %l'; allowed are",
    "100% %(h)s": r"no atom begins with '% '",
    "x %(h": r"no atom begins with '%\(h'",
    "%(h)": r"no atom begins with '%\(h\)'",
    "%(a)d": r"%\(a\)d: .*; allowed is s at its end",
    "%(T)q": r"%\(T\)q: unsupported format character .*; allowed is d, s or f at its end",
    "%(T)9999d": r"%\(T\)9999d: a width has at most 3 digits",
    "%(h).9999s": r"%\(h\)\.9999s: a width has at most 3 digits",
    "%(h)*s": r"no atom begins with",
    "jsno": r"no format, and no word for one: combined, json, dev",
    "": r"no format, and no word for one",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistake_is_found_at_once(text: str) -> None:
    with pytest.raises(ConfigError, match=MISTAKES[text]) as caught:
        choose_format(text, False)
    assert str(caught.value).startswith(f"access_log_format = {text!r}: ")
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="%(){}hbsdirTo x1.-#*", max_size=30))
def test_any_text_is_a_format_or_a_mistake(text: str) -> None:
    try:
        format = compile_format(text)
    except ValueError:
        return
    build_one(format, make_entry(format))


def test_patterns_take_linear_time() -> None:
    for piece in ("%(", "%(h", "%(h)", "%(h)1", "%(h)-", "{", "%({", "%({x}"):
        took = []
        for count in (2000, 20_000):
            start = time.process_time()
            try:
                compile_format(piece * count)
            except ValueError:
                pass
            took.append(time.process_time() - start)
        assert took[1] < 40 * took[0] + 0.2, piece
