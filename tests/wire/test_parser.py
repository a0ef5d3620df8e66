"""Each row of the tables given to the pure parser: whole, byte by byte, cut behind and within each CRLF."""

from __future__ import annotations

from typing import Any

import pytest

from epollwsgi.http.head import HeadParser
from tests.support import splits
from tests.wire.harness import DEFAULT_BODY_LIMIT, Stream, build_parser
from tests.wire.rows import Answer, Row
from tests.wire.rows_body import BODY_ROWS
from tests.wire.rows_head import HEAD_ROWS

# The spool is the connection's; the parser knows no quota.
ROWS = [row for row in HEAD_ROWS + BODY_ROWS if row.answers[-1].statuses != (503,)]

# Items that `connection` sets from the request line.
LINE_ITEMS = {
    "REQUEST_METHOD": "method",
    "RAW_URI": "target",
    "REQUEST_URI": "target",
    "PATH_INFO": "path_info",
    "QUERY_STRING": "query",
    "SERVER_PROTOCOL": "protocol",
}
# Items that are not the parser's.
FOREIGN_ITEMS = {"SCRIPT_NAME", "CONTENT_LENGTH"}


def run(row: Row, parser: HeadParser, pieces: list[bytes]) -> Stream:
    stream = Stream(parser, int(dict(row.settings).get("limit_request_body", DEFAULT_BODY_LIMIT))).feed(pieces)
    return stream.end() if row.is_cut else stream


def check_answer(answer: Answer, stream: Stream, number: int) -> None:
    assert number < len(stream.requests), f"refused: {stream.refusal!r}"
    request = stream.requests[number]
    for key, value in answer.environ.items():
        if key in LINE_ITEMS:
            assert getattr(request.line, LINE_ITEMS[key]) == value, key
        elif key not in FOREIGN_ITEMS or (key == "CONTENT_LENGTH" and value is None):
            assert request.environ.get(key) == value, key
    if answer.body is not None:
        assert request.body == answer.body


def check(row: Row, parser: HeadParser, pieces: list[bytes]) -> None:
    stream = run(row, parser, pieces)
    answers = row.answers
    if row.is_refused:
        assert stream.refusal is not None, f"passed: {stream.requests}"
        assert stream.refusal.status in answers[-1].statuses, stream.refusal
        answers = answers[:-1]
    else:
        assert stream.refusal is None, stream.refusal
    assert len(stream.requests) == len(answers)
    for number, answer in enumerate(answers):
        check_answer(answer, stream, number)


@pytest.fixture(scope="module")
def warm_parsers() -> dict[Any, HeadParser]:
    """Parsers that remember what the good rows taught them, by settings."""
    parsers: dict[Any, HeadParser] = {}
    for row in ROWS:
        parser = parsers.setdefault(row.settings, build_parser(row.settings))
        if not row.is_refused:
            run(row, parser, [row.data])
    return parsers


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii(row.name))
def test_row(row: Row, warm_parsers: dict[Any, HeadParser]) -> None:
    fresh = build_parser(row.settings)
    for name, pieces in splits(row.data, every_byte_up_to=20_000):
        for memory, parser in (("fresh", fresh), ("warm", warm_parsers[row.settings])):
            try:
                check(row, parser, pieces)
            except AssertionError as error:
                raise AssertionError(f"{name}, {memory} parser: {error}") from error
