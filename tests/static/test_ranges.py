"""http.conditional, ranges: the rows of STATIC.md section 4. RFC 9110 section 14."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epollwsgi.http.conditional import (
    MAX_RANGE_SPECS,
    MIN_GAP,
    UNSATISFIABLE,
    Ranges,
    parse_range,
    select_ranges,
)
from epollwsgi.http.dates import format_date
from tests.static.support import repeatable

SIZE = 1000
MODIFIED = 1_577_836_800
E = '"abc"'
L = format_date(MODIFIED)
HUGE = "9" * 8000

Selected = tuple[int, int] | None


def one(text: str, size: int = SIZE, **more: str) -> Selected:
    """The only part, or None for the whole."""
    found = select(text, size, **more)
    if found is None:
        return None
    (part,) = found
    return part


def select(text: str, size: int = SIZE, *, method: str = "GET", etag: str = E, **fields: str) -> Ranges | None:
    return select_ranges(method, {"HTTP_RANGE": text, **fields}, etag, MODIFIED, size)


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=-1", (999, 999)),
        ("bytes=990-", (990, 999)),
        ("bytes=990-5000", (990, 999)),
        ("bytes=-5000", (0, 999)),
        ("bytes=-1000", (0, 999)),
        ("bytes=0-", (0, 999)),
        ("bytes=999-", (999, 999)),
        ("bytes=0-999", (0, 999)),
        ("bytes=5-5", (5, 5)),
        ("Bytes=0-1", (0, 1)),
        ("BYTES=0-1", (0, 1)),
        ("bytes= 0-1", (0, 1)),
        ("bytes=\t0-1 ", (0, 1)),
        ("bytes=0-1,", (0, 1)),
        ("bytes=,0-1", (0, 1)),
        ("bytes=, ,0-1 ,,", (0, 1)),
        ("bytes=0000-0001", (0, 1)),
        ("bytes=" + "0" * 5000 + "1-2", (1, 2)),
        (f"bytes=0-{HUGE}", (0, 999)),
        (f"bytes=-{HUGE}", (0, 999)),
        ("bytes=-" + "0" * 5000 + "3", (997, 999)),
        # what is left of several when the others lie outside
        ("bytes=0-1,1000-2000", (0, 1)),
        ("bytes=5000-, 0-1, -0", (0, 1)),
    ],
)
def test_one_part(text: str, selected: Selected) -> None:
    assert one(text) == selected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("bytes=0-0,900-999", [(0, 0), (900, 999)]),
        ("bytes=900-999,0-0", [(900, 999), (0, 0)]),  # in the order asked
        ("bytes=-1,0-0", [(999, 999), (0, 0)]),
        ("bytes=0-1,5-6", [(0, 6)]),  # what lies between costs less than another part's head
        ("bytes=5-6,0-1", [(0, 6)]),
        ("bytes=0-9,89-99", [(0, 99)]),  # 79 bytes
        ("bytes=0-9,90-99", [(0, 9), (90, 99)]),  # 80
        ("bytes=0-499,500-999", [(0, 999)]),
        ("bytes=0-9,5-14", [(0, 14)]),  # two that overlap
        ("bytes=0-9,0-9", [(0, 9)]),
        ("bytes=500-509,0-9,520-529", [(500, 529), (0, 9)]),
        ("bytes=0-9,500-509,520-529,20-29", [(0, 29), (500, 529)]),
        ("bytes=0-0,5000-,900-900,-0", [(0, 0), (900, 900)]),
        ("bytes=" + ",".join(f"{number * 60}-{number * 60}" for number in range(16)), [(0, 900)]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_several_parts(text: str, parts: list[tuple[int, int]]) -> None:
    assert select(text) == tuple(parts)


@pytest.mark.parametrize(
    "text",
    [
        "bytes=-0",
        "bytes=-000",
        "bytes=1000-",
        "bytes=1000-1001",
        "bytes=5000-",
        "bytes=1000-,2000-,-0",
        f"bytes={HUGE}-",
        f"bytes={HUGE}-{HUGE}",
    ],
)
def test_unsatisfiable(text: str) -> None:
    assert select(text) == UNSATISFIABLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=--",
        "bytes=5-2",
        "bytes=abc",
        "bytes=10",
        "bytes=--1",
        "bytes=-1-",
        "bytes=1-2-3",
        "bytes=0_0-1",
        "bytes=+0-1",
        "bytes=0-+1",
        "bytes=0x0-1",
        "bytes=0.0-1",
        "bytes=0 -1",
        "bytes=0- 1",
        "bytes=0-1;2-3",
        "bytes=\u0660-\u0661",
        "bytes=\xb2-\xb3",
        "bytes=0-1\xa0",
        "bytes=\x850-1",
        "bytes =0-1",
        " bytes=0-1",
        "bytes:0-1",
        "byte=0-1",
        "items=0-1",
        "lines=0-1",
        "seconds=0-1",
        "none",
        "bytes=0-1,x",
        "bytes=x,0-1",
        "bytes=0-1,5-2",
        "bytes=0-1, bytes=2-3",  # two lines
        "bytes=0-1, bytes=0-1",
        f"bytes=1{HUGE}-{HUGE}",
        f"bytes=2{HUGE}-1{HUGE}",
        # more than the whole, or too much of it several times
        "bytes=0-,0-",
        "bytes=0-,-1",
        "bytes=0-999,0-999",
        "bytes=0-0,0-0,0-0",
        "bytes=0-9,5-14,10-19",
        "bytes=0-9,5-14,100-109,105-114",
        "bytes=0-500,400-999",
    ],
)
def test_ignored(text: str) -> None:
    assert select(text) is None


def test_the_number_of_specs_is_bounded() -> None:
    outside = ",".join(["5000-"] * (MAX_RANGE_SPECS - 1))
    assert one(f"bytes=0-1,{outside}") == (0, 1)
    assert select(f"bytes=0-1,{outside},5000-") is None
    assert select("bytes=" + ",".join(["5000-"] * 17)) is None


def test_only_get_and_only_what_has_bytes() -> None:
    assert select("bytes=0-0", method="HEAD") is None
    assert select("bytes=0-0", 0) is None
    assert select("bytes=-1", 0) is None
    assert select("bytes=5-", 0) is None
    assert one("bytes=0-0", 1) == (0, 0)
    assert select_ranges("GET", {}, E, MODIFIED, SIZE) is None


@pytest.mark.parametrize(
    ("value", "selected"),
    [
        (E, (0, 1)),
        (L, (0, 1)),
        ("W/" + E, None),
        ('"other"', None),
        ("abc", None),
        (f"{E}, {E}", None),
        ("*", None),
        ("", None),
        (format_date(MODIFIED - 1), None),
        (format_date(MODIFIED + 1), None),
        ("Wed Jan  1 00:00:00 2020", None),  # the same moment, but not exactly what was sent
        ("nonsense", None),
    ],
)
def test_if_range(value: str, selected: Selected) -> None:
    assert one("bytes=0-1", HTTP_IF_RANGE=value) == selected
    # never 416 where the condition fails, always where it holds
    assert select("bytes=1000-", HTTP_IF_RANGE=value) == (UNSATISFIABLE if selected else None)


def test_if_range_with_weak_validators_or_none() -> None:
    assert select("bytes=0-1", etag="W/" + E, HTTP_IF_RANGE="W/" + E) is None
    assert select("bytes=0-1", etag="W/" + E, HTTP_IF_RANGE=E) is None
    assert select("bytes=0-1", etag="W/" + E, HTTP_IF_RANGE=L) is None
    fields = {"HTTP_RANGE": "bytes=0-1", "HTTP_IF_RANGE": L}
    assert select_ranges("GET", fields, E, None, SIZE) is None


def test_if_range_without_range_is_ignored() -> None:
    assert select_ranges("GET", {"HTTP_IF_RANGE": E}, E, MODIFIED, SIZE) is None


@repeatable
@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(1, 1500))
def test_a_range_selects_what_a_slice_does(first: int, last: int, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    selected = select(f"bytes={first}-{last}", size)
    if first > last:
        assert selected is None
    elif first >= size:
        assert selected == UNSATISFIABLE
    else:
        assert selected is not None
        ((start, end),) = selected
        assert content[start : end + 1] == content[first : last + 1]


@repeatable
@given(st.text(st.sampled_from("bytes=0123456789-, \tx*"), max_size=30), st.integers(0, 30))
def test_any_text_selects_within_the_file_or_nothing(text: str, size: int) -> None:
    selected = select("bytes=" + text, size)
    assert selected is None or all(0 <= first <= last < size for first, last in selected)
    if selected and len(selected) > 1:
        assert sum(last - first + 1 for first, last in selected) <= size + 15 * MIN_GAP
        ordered = sorted(selected)
        assert all(second[0] - one[1] > MIN_GAP for one, second in pairwise(ordered))
    specs = parse_range("bytes=" + text)
    assert specs is None or 1 <= len(specs) <= MAX_RANGE_SPECS
