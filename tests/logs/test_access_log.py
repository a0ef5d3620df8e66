"""The access log without a server: what is noted, when it is written, and that it harms nobody."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from epollwsgi.logs.access_log import AccessLog, FileTarget
from epollwsgi.logs.entry import PENDING_COUNT
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.exclude import REMEMBERED_COUNT, Excluded, Pattern
from epollwsgi.logs.format import DURATION, METHOD, SIZE, STATUS, compile_format
from epollwsgi.logs.presets import choose_format
from epollwsgi.logs.sink import Sink
from tests.logs.entries import Asked, Clock, Lines, request_line, response_head

HEAD = response_head()
REQUEST = request_line()
SHORT = compile_format("%(s)s %(U)s")


@pytest.fixture
def errors(tmp_path: Path) -> Iterator[ErrorLog]:
    log = ErrorLog(Sink(str(tmp_path / "errors"), 2))
    yield log
    log.close()


def note(log: AccessLog, path: str = "/", status: int = 200, size: int = 0) -> None:
    log.note(Asked(), request_line(f"GET {path} HTTP/1.1"), {"REMOTE_ADDR": "1.2.3.4"}, status, size, HEAD)


# --- noting and writing ---------------------------------------------------------------------------------------------


def test_lines_are_written_together_by_flush(errors: ErrorLog) -> None:
    target = Lines()
    log = AccessLog([target], errors, SHORT)
    note(log, "/a")
    note(log, "/b", 404)
    assert target.lines == []
    assert len(log.entries) == 2
    log.flush()
    log.flush()
    assert target.lines == ["200 /a", "404 /b"]
    assert log.entries == []


def test_hundreds_of_lines_are_written_even_without_a_flush(errors: ErrorLog) -> None:
    target = Lines()
    log = AccessLog([target], errors, SHORT)
    for _ in range(PENDING_COUNT + 1):
        note(log)
    assert len(target.lines) == PENDING_COUNT
    assert len(log.entries) == 1


def test_entry_begins_with_what_observers_want(errors: ErrorLog) -> None:
    seen: list[tuple[object, ...]] = []
    log = AccessLog([], errors, SHORT, exclude=["*"])
    log.observers.append(seen.extend)
    before = time.monotonic()
    asked = Asked(loop=Clock(before - 2.5))
    log.note(asked, request_line("PUT /x HTTP/1.1"), {}, 201, 17, HEAD)
    log.flush()
    [(moment, status, size, duration_s, method, *_)] = seen
    assert (status, size, method) == (201, 17, "PUT")
    assert isinstance(moment, float)
    assert isinstance(duration_s, float)
    assert before <= moment <= time.monotonic()
    assert duration_s == pytest.approx(moment - before + 2.5)
    assert (STATUS, SIZE, DURATION, METHOD) == (1, 2, 3, 4)


def test_duration_counts_from_the_request_where_that_is_known(errors: ErrorLog) -> None:
    log = AccessLog([], errors, SHORT)
    asked = Asked(asked_at=time.monotonic() - 5)
    log.note(asked, REQUEST, {}, 200, 0, HEAD)
    assert log.entries[0][DURATION] >= 5
    assert asked.asked_at == 0, "the next request begins anew"


def test_entry_that_ends_later_has_its_whole_duration_and_what_was_sent(errors: ErrorLog) -> None:
    target = Lines()
    log = AccessLog([target], errors, compile_format("%(s)s %(b)s %(U)s"))
    entry = log.make_entry(Asked(loop=Clock(time.monotonic() - 3)), REQUEST, {}, 200, 5000, HEAD)
    log.add((entry[0] - 4, *entry[1:]), 1234)
    assert log.entries[0][DURATION] >= 7 - 0.01
    log.flush()
    assert target.lines == ["200 1234 /"]


def test_what_fails_is_said_once_and_costs_only_its_lines(errors: ErrorLog, tmp_path: Path) -> None:
    target = Lines()
    log = AccessLog([target], errors, SHORT)
    for _ in range(3):
        log.entries.append((0.0,))  # no entry at all
        log.flush()
    note(log)
    log.flush()
    assert target.lines == ["200 /"]
    assert (tmp_path / "errors").read_text().count("lines of the access log could not be made") == 1


class Sullen:
    """An object that an application put where a text belongs."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    def __bool__(self) -> bool:
        raise RuntimeError("neither")

    def __str__(self) -> str:
        raise RuntimeError("nor shown")


@pytest.mark.parametrize("word", ["combined", "json", "dev", "%(h)s %(f)s %(a)s %(u)s"])
def test_objects_in_environ_cost_no_line(errors: ErrorLog, tmp_path: Path, word: str) -> None:
    target = Lines()
    log = AccessLog([target], errors, choose_format(word, False))
    for value in (Sullen(), [1], None, 5, b"x"):
        names = ("REMOTE_ADDR", "HTTP_REFERER", "HTTP_USER_AGENT", "HTTP_AUTHORIZATION", "HTTP_HOST")
        log.note(Asked(), REQUEST, dict.fromkeys(names, value), 200, 0, HEAD)
    note(log)
    log.flush()
    assert len(target.lines) == 6
    assert (tmp_path / "errors").read_text() == ""


def test_targets_are_reopened_after_a_flush_and_closed(errors: ErrorLog) -> None:
    first, second = Lines(), Lines()
    log = AccessLog([first, second], errors, SHORT)
    note(log)
    log.reopen()
    assert first.lines == second.lines == ["200 /"]
    log.close()
    assert first.calls == second.calls == ["reopen", "close"]


def test_atoms_for_targets_that_want_them(errors: ErrorLog) -> None:
    plain, whole = Lines(), Lines(wants_atoms=True)
    log = AccessLog([plain, whole], errors, compile_format('%(h)s "%(r)s" %({x}i)s'))
    environ = {"REMOTE_ADDR": "1.2.3.4", "HTTP_X": 'a"b', "CONTENT_TYPE": "text/plain", "number": 5, "object": Lines()}
    head = response_head(("X-Own", "value"), ("Content-Length", "3"))
    log.note(Asked(), request_line("GET /p?q=1 HTTP/1.1"), environ, 200, 3, head)
    log.flush()
    [atoms] = whole.atoms
    assert whole.lines == []
    assert plain.lines == [atoms["line"]] == [r'1.2.3.4 "GET /p?q=1 HTTP/1.1" a\x22b']
    found = {name: atoms[name] for name in ("h", "m", "U", "q", "s", "b", "B", "f", "{x}i", "{X}i", "{X-Own}o", "no")}
    assert found == {
        "h": "1.2.3.4",
        "m": "GET",
        "U": "/p",
        "q": "q=1",
        "s": "200",
        "b": "3",
        "B": 3,
        "f": "-",
        "{x}i": r"a\x22b",
        "{X}i": r"a\x22b",
        "{X-Own}o": "value",
        "no": "-",
    }
    assert (atoms["{content-type}i"], atoms["{content-length}o"], atoms["{number}e"]) == ("text/plain", "3", "5")
    assert atoms["{object}e"] == "-"
    format = "%(h)s %({x-own}o)s %(zz)s"
    assert format % atoms == "1.2.3.4 value -"


# --- files ----------------------------------------------------------------------------------------------------------


def test_file_gets_whole_lines_in_utf8(errors: ErrorLog, tmp_path: Path) -> None:
    target = FileTarget(str(tmp_path / "log"), 1, errors)
    target.write_lines(["é", "b\ud800"])
    target.write_lines(["c"])
    target.close()
    assert (tmp_path / "log").read_bytes() == b"\xc3\xa9\nb\\ud800\nc\n"


def test_lost_lines_are_reported_in_the_error_log(errors: ErrorLog, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        target = FileTarget("-", writer, errors)
        log = AccessLog([target], errors, SHORT)
        for _ in range(5000):
            note(log, "/" + "x" * 100)
        log.flush()
        assert target.lost_count > 0
        assert (tmp_path / "errors").read_text() == ""
        os.set_blocking(reader, False)
        written = b""
        while True:
            try:
                written += os.read(reader, 1 << 20)
            except BlockingIOError:
                break
        note(log)
        log.flush()
        written += os.read(reader, 1 << 20)
        found = re.search(
            r"(\d+) lines of the access log were lost: Resource temporarily unavailable\n",
            (tmp_path / "errors").read_text(),
        )
        assert found is not None
        assert int(found[1]) + written.count(b"\n") == 5001
        assert target.lost_count == 0
        target.close()
    finally:
        os.close(reader)
        os.close(writer)


def test_full_disk_loses_lines(errors: ErrorLog) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is missing")
    target = FileTarget("/dev/full", 1, errors)
    log = AccessLog([target], errors, SHORT)
    note(log)
    log.flush()
    assert target.lost_count == 1
    log.close()


def test_file_that_cannot_be_opened_again_stays(errors: ErrorLog, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    log = AccessLog([FileTarget(str(tmp_path / "logs" / "a"), 1, errors)], errors, SHORT)
    os.rename(tmp_path / "logs", tmp_path / "moved")
    log.reopen()
    note(log)
    log.flush()
    log.close()
    assert (tmp_path / "moved" / "a").read_text() == "200 /\n"
    assert "accesslog cannot be opened again: No such file or directory" in (tmp_path / "errors").read_text()


# --- what is left out -----------------------------------------------------------------------------------------------

PATTERNS = [
    ("/health", "/health", True),
    ("/health", "/health/", False),
    ("/health", "/healthy", False),
    ("/health", "/a/health", False),
    ("/static/*", "/static/a/b.css", True),
    ("/static/*", "/static/", True),
    ("/static/*", "/static", False),
    ("*.ico", "/favicon.ico", True),
    ("*.ico", "/favicon.ico.txt", False),
    ("/a*b*c", "/abc", True),
    ("/a*b*c", "/a--b--c", True),
    ("/a*b*c", "/a--c--b", False),
    ("/a*bb*b", "/abbb", True),
    ("/a*bb*b", "/abb", False),
    ("/?", "/a", True),
    ("/?", "/", False),
    ("/?*x", "/-x", True),
    ("/?*x", "/x", False),
    ("*", "", True),
    ("*", "/any", True),
    ("**", "/any", True),
    ("", "", True),
    ("", "/", False),
    ("/a.b", "/a.b", True),
    ("/a.b", "/axb", False),
    ("/[ab]", "/[ab]", True),
    ("/[ab]", "/a", False),
    ("/x*y", "/xy", True),
    ("/xy*xy", "/xy", False),
    ("/\n*", "/\nx", True),
]


@pytest.mark.parametrize(("pattern", "path", "is_meant"), PATTERNS, ids=[f"{p!r} {path!r}" for p, path, _ in PATTERNS])
def test_pattern(pattern: str, path: str, is_meant: bool) -> None:
    assert Pattern(pattern).matches(path) is is_meant


def test_patterns_agree_with_a_regular_expression() -> None:
    """Every path of up to six letters against a set of patterns, walked by `re`, which may try a star twice."""
    paths = [format(number, "b").replace("0", "a").replace("1", "b") for number in range(1, 64)]
    for pattern in ("a*b", "*ab*", "a*a*a", "?*b?", "*b*a", "ab*ba", "*", "b?*", "*?*?*", "a*bb*b"):
        expression = re.compile(pattern.replace("*", ".*").replace("?", "."))
        for path in paths:
            assert Pattern(pattern).matches(path) == (expression.fullmatch(path) is not None), (pattern, path)


def test_hostile_paths_take_linear_time() -> None:
    pattern = Pattern("/" + "a*" * 20 + "b")
    took = []
    for count in (20_000, 200_000):
        start = time.process_time()
        assert not pattern.matches("/" + "a" * count)
        took.append(time.process_time() - start)
    assert took[1] < 40 * took[0] + 0.2


def test_excluded_paths_have_no_line(errors: ErrorLog) -> None:
    target = Lines()
    log = AccessLog([target], errors, SHORT, exclude=["/health", "/static/*"])
    for path in ("/health?x=1", "/a", "/static/x.css", "/healthy", "/health"):
        note(log, path)
    log.flush()
    assert target.lines == ["200 /a", "200 /healthy"]
    note(log, "/health")
    log.flush()
    assert len(target.lines) == 2


def test_remembered_paths_are_bounded() -> None:
    excluded = Excluded(["/x*"])
    for number in range(3 * REMEMBERED_COUNT):
        assert excluded[f"/x{number}"]
        assert len(excluded) <= REMEMBERED_COUNT
    assert not excluded["/" + "y" * 5000]
    assert "/" + "y" * 5000 not in excluded


def test_presets_are_chosen_by_their_words(errors: ErrorLog) -> None:
    for word in ("combined", "json", "dev"):
        target = Lines()
        log = AccessLog([target], errors, choose_format(word, False))
        note(log)
        log.flush()
        assert len(target.lines) == 1
