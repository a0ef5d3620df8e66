"""Python before 3.11.5 matches possessive groups wrongly (gh-106052): no pattern of ours has one."""

from __future__ import annotations

import re

from epollwsgi.http import conditional, grammar

CHARACTER_CLASS = re.compile(r"\[(?:\\.|[^\]\\])*\]")
POSSESSIVE_GROUP = re.compile(r"[^\\]\)[*+?]\+|\(\?>|[^\\]\)\{[0-9,]+\}\+")


def has_possessive_group(pattern: str) -> bool:
    return POSSESSIVE_GROUP.search(CHARACTER_CLASS.sub("x", pattern)) is not None


def test_no_group_is_possessive() -> None:
    assert has_possessive_group("(?:ab)*+")
    assert not has_possessive_group(r"[()*+]++\)")
    patterns = [
        pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
        for module in (grammar, conditional)
        for pattern in vars(module).values()
        if isinstance(pattern, re.Pattern)
    ]
    assert len(patterns) > 10
    assert [pattern for pattern in patterns if has_possessive_group(pattern)] == []
