"""HTTP dates: written in the one form, read in all three. RFC 9110 section 5.6.7.

Knows the calendar, not the clock and not the locale: the present, which a two-digit year needs, comes in as an
argument. Called by `http.conditional`, by `static` for Last-Modified and by `connection` for Date.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Final

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTH_NUMBERS: Final = {name: number for number, name in enumerate(MONTHS, 1)}

# What four digits of a year can say: 0001-01-01T00:00:00 to 9999-12-31T23:59:59. A file system can hold more.
EARLIEST: Final = -62_135_596_800
LATEST: Final = 253_402_300_799

_MONTH = f"(?P<month>{'|'.join(MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_SHORT_DAY = f"(?:{'|'.join(DAYS)})"
_LONG_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"

# The three productions of HTTP-date, the one that is still written first. Every piece has a fixed length or is one
# of a few words, so that a match takes a bounded number of steps.
FORMATS: Final = (
    # IMF-fixdate   Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(f"{_SHORT_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    # rfc850-date   Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    # asctime-date  Sun Nov  6 08:49:37 1994
    re.compile(f"{_SHORT_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)


def format_date(seconds: float) -> str:
    """IMF-fixdate of a moment given in seconds since 1970; moments beyond four-digit years are clamped."""
    moment = _moment(seconds)
    day, month = DAYS[moment.weekday()], MONTHS[moment.month - 1]
    return f"{day}, {moment.day:02d} {month} {moment.year:04d} {moment:%H:%M:%S} GMT"


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(max(seconds // 1, EARLIEST), LATEST), UTC)


def parse_date(text: str, now: float) -> int | None:
    """Seconds since 1970 of an HTTP-date, or None where it is none.

    now: the present in seconds since 1970, read only for the two-digit year of rfc850-date.
    The name of the day must be one, but need not be the right one: it adds nothing to the date.
    """
    for pattern in FORMATS:
        match = pattern.fullmatch(text)
        if match is not None:
            break
    else:
        return None
    month = MONTH_NUMBERS[match["month"]]
    day, hour, minute, second = (int(match[name]) for name in ("day", "hour", "minute", "second"))
    if hour > 23 or minute > 59 or second > 60:  # 60 is a leap second: the first of the next minute
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year = _full_year(year, (month, day, hour, minute, second), now)
    try:
        days = date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:  # 30 February, or the year 0
        return None
    return days * 86400 + hour * 3600 + minute * 60 + second


def _full_year(last_digits: int, within_year: tuple[int, int, int, int, int], now: float) -> int:
    """The latest year with these last two digits that puts the date at most 50 years into the future."""
    present = _moment(now)
    horizon = present.year + 50
    year = horizon - (horizon - last_digits) % 100
    if year == horizon and within_year > present.timetuple()[1:6]:
        year -= 100
    return year
