"""static.paths: from the path of a target to segments. STATIC.md section 1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epollwsgi.static.paths import TargetPath, count_visible, is_configuration, quote_path, split_path
from tests.static.support import repeatable


@pytest.mark.parametrize(
    ("path", "segments", "is_directory"),
    [
        ("/", (), True),
        ("/a.txt", (b"a.txt",), False),
        ("/d/", (b"d",), True),
        ("/d/e/f", (b"d", b"e", b"f"), False),
        # decoded once
        ("/%61.txt", (b"a.txt",), False),
        ("/%2561", (b"%61",), False),
        ("/%252e%252e/x", (b"%2e%2e", b"x"), False),
        ("/a%20b", (b"a b",), False),
        ("/a+b", (b"a+b",), False),
        ("/%c3%a9", b"\xc3\xa9", False),
        ("/%ff%FE", b"\xff\xfe", False),
        ("/a%0d%0ab", b"a\r\nb", False),
        ("/a%3fb", b"a?b", False),
        ("/a%23b", b"a#b", False),
        # nothing is folded
        ("/a\\b", b"a\\b", False),
        ("/..\\..\\x", b"..\\..\\x", False),
        ("/%5c..", b"\\..", False),
        ("/~root", b"~root", False),
        ("/a;v=1", b"a;v=1", False),
        ("/..;/x", (b"..;", b"x"), False),
        ("/a.", b"a.", False),
        ("/...", b"...", False),
        ("/A.TXT", b"A.TXT", False),
        # empty segments vanish
        ("//", (), True),
        ("//a.txt", (b"a.txt",), False),
        ("/d//e", (b"d", b"e"), False),
        ("/d//", (b"d",), True),
        ("///d///", (b"d",), True),
        # dot segments, also encoded
        ("/.", (), True),
        ("/./a.txt", (b"a.txt",), False),
        ("/x/../a.txt", (b"a.txt",), False),
        ("/x/%2e%2e/a.txt", (b"a.txt",), False),
        ("/x/%2E./a.txt", (b"a.txt",), False),
        ("/x/y/../../a.txt", (b"a.txt",), False),
        ("/x//../a.txt", (b"a.txt",), False),
        ("/x/..", (), True),
        ("/x/y/..", (b"x",), True),
        ("/x/.", (b"x",), True),
        ("/x/../", (), True),
        ("/.x", (b".x",), False),
        ("/..x", (b"..x",), False),
    ],
)
def test_segments(path: str, segments: tuple[bytes, ...] | bytes, is_directory: bool) -> None:
    expected = (segments,) if isinstance(segments, bytes) else segments
    assert split_path(path) == TargetPath(expected, is_directory)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "a.txt",
        "/..",
        "/../",
        "/../a.txt",
        "/%2e%2e",
        "/%2e%2e/a.txt",
        "/.%2e/a.txt",
        "/%2E%2E/%2E%2E/etc/passwd",
        "/x/../../a.txt",
        "/x/../../x/a.txt",
        "/./../a.txt",
        "//../a.txt",
        "/x/./../../a.txt",
        "/%00",
        "/a.txt%00",
        "/a%00.txt",
        "/%2f",
        "/a%2fb",
        "/a%2Fb",
        "/..%2fa.txt",
        "/x%2f..%2f..%2fa.txt",
        "/%",
        "/%2",
        "/a%",
        "/a%2",
        "/%zz",
        "/%2g",
        "/%g2",
        "/%%41",
        "/%u0041",
        "/% 41",
        "/%+1",
        "/%-1",
        "/%a%62",
    ],
)
def test_refused(path: str) -> None:
    assert split_path(path) is None


PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#"), max_size=20)


@repeatable
@given(PRINTABLE)
def test_no_path_leads_out_of_the_root(text: str) -> None:
    target = split_path("/" + text)
    if target is not None:
        assert not any(part in (b"", b".", b"..") or b"/" in part or b"\0" in part for part in target.segments)


@repeatable
@given(st.lists(st.sampled_from(("..", ".", "", "a", "b", "%2e%2e", "%2E", "x%20y")), max_size=8))
def test_agrees_with_a_plain_walk(parts: list[str]) -> None:
    """The same by moving through a list of names, the root being one that cannot be left."""
    place: list[str] | None = []
    for part in parts:
        name = part.replace("%2e", ".").replace("%2E", ".").replace("%20", " ")
        if place is None or (name == ".." and not place):
            place = None
        elif name == "..":
            place.pop()
        elif name not in ("", "."):
            place.append(name)
    target = split_path("/" + "/".join(parts))
    assert (None if target is None else [part.decode() for part in target.segments]) == place


SEGMENTS = st.lists(
    st.binary(min_size=1, max_size=6).filter(lambda part: part not in (b".", b"..") and not set(part) & set(b"/\0")),
    max_size=4,
).map(tuple)


@repeatable
@given(SEGMENTS, st.booleans())
def test_a_path_written_anew_leads_to_the_same_place(segments: tuple[bytes, ...], is_directory: bool) -> None:
    path = quote_path(segments, is_directory)
    assert path.isascii()
    assert path.isprintable()
    assert not path.startswith(("//", "/\\"))
    assert not set(path) & set(' "<>\\^`{|}?#')
    assert split_path(path) == TargetPath(segments, is_directory or not segments)


@pytest.mark.parametrize(
    ("segments", "is_top", "count"),
    [
        ((), True, 0),
        ((b"a", b"b"), True, 2),
        ((b".git",), True, 0),
        ((b".git", b"config"), True, 0),
        ((b"a", b".env"), True, 1),
        ((b"a", b".b", b"c"), True, 1),
        ((b".well-known",), True, 1),
        ((b".well-known", b"security.txt"), True, 2),
        ((b".well-known", b".secret"), True, 1),
        ((b"a", b".well-known", b"x"), True, 1),
        ((b".well-known", b"x"), False, 0),
        ((b".Well-Known", b"x"), True, 0),
        ((b".well-known2",), True, 0),
        ((b"..a",), True, 0),
        ((b"a.b",), True, 1),
    ],
)
def test_hidden_names(segments: tuple[bytes, ...], is_top: bool, count: int) -> None:
    assert count_visible(segments, is_top=is_top) == count


def test_configuration_is_private() -> None:
    assert all(is_configuration(name) for name in (b"_headers", b"_redirects", b"epollwsgi.toml", b"pyproject.toml"))
    assert not any(is_configuration(name) for name in (b"_headers.html", b"headers", b"_Headers", b"a.toml"))
