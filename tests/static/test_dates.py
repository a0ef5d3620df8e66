"""http.dates against werkzeug, and the cases on which libraries disagree. RFC 9110 section 5.6.7."""

from __future__ import annotations

import calendar
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date
from werkzeug.http import parse_date as werkzeug_date

from epollwsgi.http.dates import EARLIEST, LATEST, format_date, parse_date
from tests.static.support import repeatable

NOW = calendar.timegm((2025, 6, 15, 12, 0, 0))
EXAMPLE = 784_111_777  # the moment of the examples in RFC 9110


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return calendar.timegm((year, month, day, hour, minute, second))


@repeatable
@given(st.integers(EARLIEST, LATEST))
def test_formatted_as_werkzeug_does_and_read_back(seconds: int) -> None:
    text = format_date(seconds)
    assert text == http_date(time.gmtime(seconds))
    assert len(text) == 29
    assert parse_date(text, NOW) == seconds
    if seconds >= at(1000, 1, 1):  # werkzeug moves earlier years, as those of two digits
        parsed = werkzeug_date(text)
        assert parsed is not None
        assert calendar.timegm(parsed.timetuple()) == seconds


@repeatable
@given(st.floats(0, 4e9))
def test_fractions_are_cut_off(seconds: float) -> None:
    assert format_date(seconds) == format_date(int(seconds))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (EXAMPLE, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (2**31, "Tue, 19 Jan 2038 03:14:08 GMT"),
        (2**32, "Sun, 07 Feb 2106 06:28:16 GMT"),
        (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (2**62, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (-(2**62), "Mon, 01 Jan 0001 00:00:00 GMT"),
        (at(2024, 2, 29, 23, 59, 59), "Thu, 29 Feb 2024 23:59:59 GMT"),
    ],
)
def test_format(seconds: int, text: str) -> None:
    assert format_date(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE),
        ("Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE),
        ("Sun Nov  6 08:49:37 1994", EXAMPLE),
        ("Sun Nov 06 08:49:37 1994", EXAMPLE),
        ("Fri Nov 25 08:49:37 1994", at(1994, 11, 25, 8, 49, 37)),
        ("Mon, 06 Nov 1994 08:49:37 GMT", EXAMPLE),  # the wrong day of the week says nothing
        ("Tue, 19 Jan 2038 03:14:08 GMT", 2**31),
        ("Sat Jan  1 00:00:00 2500", at(2500, 1, 1)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LATEST),
        ("Thu, 31 Dec 1998 23:59:60 GMT", at(1999, 1, 1)),
        ("Thu, 29 Feb 2024 00:00:00 GMT", at(2024, 2, 29)),
    ],
)
def test_all_three_formats(text: str, seconds: int) -> None:
    assert parse_date(text, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("Sunday, 06-Nov-94 08:49:37 GMT", 1994),
        ("Sunday, 06-Nov-00 08:49:37 GMT", 2000),
        ("Sunday, 06-Nov-74 08:49:37 GMT", 2074),
        ("Sunday, 15-Jun-75 12:00:00 GMT", 2075),  # exactly 50 years from now
        ("Sunday, 15-Jun-75 12:00:01 GMT", 1975),  # a second more
        ("Sunday, 01-Jan-75 00:00:00 GMT", 2075),
        ("Sunday, 06-Nov-76 08:49:37 GMT", 1976),
        ("Sunday, 06-Nov-25 08:49:37 GMT", 2025),
    ],
)
def test_two_digit_years(text: str, year: int) -> None:
    seconds = parse_date(text, NOW)
    assert seconds is not None
    assert time.gmtime(seconds).tm_year == year


def test_two_digit_years_at_the_turn_of_a_century() -> None:
    assert parse_date("Sunday, 06-Nov-05 08:49:37 GMT", at(2099, 1, 1)) == at(2105, 11, 6, 8, 49, 37)
    assert parse_date("Sunday, 06-Nov-98 08:49:37 GMT", at(2101, 1, 1)) == at(2098, 11, 6, 8, 49, 37)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "yesterday",
        "784111777",
        "1994-11-06T08:49:37Z",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun,06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Son, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Okt 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Wed, 30 Feb 2024 08:49:37 GMT",
        "Thu, 29 Feb 2023 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 94",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT; length=1000",
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert parse_date(text, NOW) is None


@repeatable
@given(st.text(max_size=40))
def test_any_text_gives_a_date_or_none(text: str) -> None:
    seconds = parse_date(text, NOW)
    assert seconds is None or EARLIEST <= seconds <= LATEST + 1
