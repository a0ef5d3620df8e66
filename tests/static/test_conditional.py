"""http.conditional, preconditions: the sentences of RFC 9110 sections 8.8.3 and 13, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import parse_etags

from epollwsgi.http.conditional import evaluate, has_strong_match, has_weak_match, parse_entity_tags
from epollwsgi.http.dates import format_date
from tests.static.support import repeatable

NOW = 1_750_000_000
MODIFIED = 1_577_836_800
E = '"abc"'
L = format_date(MODIFIED)
OLD = format_date(MODIFIED - 1)
LATER = format_date(MODIFIED + 1)
OTHER = '"xyz"'

INM, IMS, IM, IUS = (
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_MATCH",
    "HTTP_IF_UNMODIFIED_SINCE",
)

ROWS = [
    # no condition
    ({}, 200),
    # If-None-Match, section 13.1.2: weak comparison
    ({INM: E}, 304),
    ({INM: "W/" + E}, 304),
    ({INM: "*"}, 304),
    ({INM: f"{OTHER}, {E}"}, 304),
    ({INM: f"{OTHER},{E}"}, 304),
    ({INM: f"{OTHER} ,\t{E}"}, 304),
    ({INM: f",, {E} ,,"}, 304),
    ({INM: f"{E}, {E}"}, 304),  # two lines
    ({INM: f"W/{OTHER}, W/{E}"}, 304),
    ({INM: "*, *"}, 304),  # two lines
    ({INM: OTHER}, 200),
    ({INM: f"{OTHER}, W/{OTHER}"}, 200),
    ({INM: ""}, 200),
    ({INM: ","}, 200),
    ({INM: "abc"}, 200),
    ({INM: "'abc'"}, 200),
    ({INM: '"abc'}, 200),
    ({INM: 'abc"'}, 200),
    ({INM: 'w/"abc"'}, 200),
    ({INM: 'W/ "abc"'}, 200),
    ({INM: '"ABC"'}, 200),
    ({INM: '" abc"'}, 200),
    ({INM: '"abc" "abc"'}, 200),
    ({INM: f"nonsense, {E}"}, 200),
    ({INM: f"{E}, nonsense"}, 200),
    ({INM: f"{E};q=1"}, 200),
    ({INM: '"x,"abc",y"'}, 200),
    # If-None-Match decides alone
    ({INM: OTHER, IMS: L}, 200),
    ({INM: E, IMS: OLD}, 304),
    ({INM: "", IMS: L}, 200),
    ({INM: "nonsense", IMS: LATER}, 200),
    # If-Modified-Since, section 13.1.3
    ({IMS: L}, 304),
    ({IMS: LATER}, 304),
    ({IMS: OLD}, 200),
    ({IMS: "Fri, 31 Dec 9999 23:59:59 GMT"}, 304),
    ({IMS: "Wednesday, 01-Jan-20 00:00:00 GMT"}, 304),
    ({IMS: "Tuesday, 31-Dec-19 23:59:59 GMT"}, 200),
    ({IMS: "Wed Jan  1 00:00:00 2020"}, 304),
    ({IMS: "Tue Dec 31 23:59:59 2019"}, 200),
    ({IMS: ""}, 200),
    ({IMS: "*"}, 200),
    ({IMS: E}, 200),
    ({IMS: f"{L}, {L}"}, 200),
    # If-Match, section 13.1.1: strong comparison
    ({IM: E}, 200),
    ({IM: "*"}, 200),
    ({IM: f"{OTHER}, {E}"}, 200),
    ({IM: OTHER}, 412),
    ({IM: "W/" + E}, 412),
    ({IM: ""}, 412),
    ({IM: "abc"}, 412),
    ({IM: f"nonsense, {E}"}, 412),
    # If-Unmodified-Since, section 13.1.4
    ({IUS: L}, 200),
    ({IUS: LATER}, 200),
    ({IUS: OLD}, 412),
    ({IUS: "nonsense"}, 200),
    ({IUS: ""}, 200),
    ({IUS: f"{OLD}, {OLD}"}, 200),
    # the order of section 13.2.2
    ({IM: E, IUS: OLD}, 200),
    ({IM: OTHER, IUS: LATER}, 412),
    ({IM: E, INM: E}, 304),
    ({IM: E, INM: OTHER}, 200),
    ({IM: OTHER, INM: E}, 412),
    ({IUS: OLD, INM: E}, 412),
    ({IUS: LATER, INM: E}, 304),
    ({IUS: L, IMS: L}, 304),
    ({IUS: OLD, IMS: L}, 412),
    ({IM: E, IMS: L}, 304),
    ({IM: "*", INM: "*"}, 304),
]


@pytest.mark.parametrize(("fields", "status"), ROWS, ids=lambda value: str(value)[:70])
def test_preconditions(fields: dict[str, str], status: int) -> None:
    assert evaluate(fields, E, MODIFIED, NOW) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({INM: E}, 304),
        ({INM: "W/" + E}, 304),
        ({IM: E}, 412),  # no weak tag is ever equal in strong comparison
        ({IM: "W/" + E}, 412),
        ({IM: "*"}, 200),
        ({IMS: L}, 304),
    ],
)
def test_preconditions_of_a_weak_tag(fields: dict[str, str], status: int) -> None:
    assert evaluate(fields, "W/" + E, MODIFIED, NOW) == status


@pytest.mark.parametrize("fields", [{IMS: LATER}, {IUS: OLD}])
def test_dates_are_ignored_without_last_modified(fields: dict[str, str]) -> None:
    assert evaluate(fields, E, None, NOW) == 200


def test_two_digit_years_are_read_by_the_present() -> None:
    text = {IMS: "Wednesday, 01-Jan-20 00:00:00 GMT"}
    assert evaluate(text, E, MODIFIED, NOW) == 304
    assert evaluate(text, E, MODIFIED, 0) == 304  # 2020 is 50 years from 1970
    assert evaluate({IMS: "Wednesday, 01-Jan-21 00:00:00 GMT"}, E, MODIFIED, 0) == 200  # 1921


OPAQUE = st.text(st.characters(max_codepoint=0xFF, exclude_characters='"\x7f').filter(lambda c: c > " "), max_size=8)
TAGS = st.builds(lambda weak, opaque: f'{weak}"{opaque}"', st.sampled_from(("", "W/")), OPAQUE)


@repeatable
@given(st.lists(TAGS, max_size=5), st.sampled_from((",", ", ", " ,", ",,", " \t, ")))
def test_lists_of_entity_tags(tags: list[str], comma: str) -> None:
    assert parse_entity_tags(comma.join(tags)) == tags


# Werkzeug takes the empty tag for no tag at all.
ASCII_TAGS = st.builds(
    lambda weak, opaque: f'{weak}"{opaque}"',
    st.sampled_from(("", "W/")),
    st.text("abc,/*W-", min_size=1, max_size=4),
)


@repeatable
@given(st.lists(ASCII_TAGS, min_size=1, max_size=4), ASCII_TAGS)
def test_matches_agree_with_werkzeug(tags: list[str], etag: str) -> None:
    text = ", ".join(tags)
    oracle = parse_etags(text)
    opaque = etag.removeprefix("W/").strip('"')
    assert has_weak_match(text, etag) == oracle.contains_weak(opaque)
    assert has_strong_match(text, etag) == (oracle.is_strong(opaque) and not etag.startswith("W/"))


@repeatable
@given(st.text(st.characters(max_codepoint=0xFF), max_size=30))
def test_any_text_is_a_list_or_none(text: str) -> None:
    tags = parse_entity_tags(text)
    assert tags is None or all(tag == "*" or (tag.endswith('"') and tag in text) for tag in tags)
