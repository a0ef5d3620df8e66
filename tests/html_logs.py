"""The tables of html/logs.html: atoms, the presets with a line of each, the fields of `json`. Called by html_tables."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import NamedTuple

from epollwsgi.logs import presets
from epollwsgi.logs.format import ATOMS, NAMED, Entry
from epollwsgi.logs.presets import PRESETS

AT_S = 1_790_000_000.25  # of the response that is shown
SAMPLES = {"i": "{user-agent}i", "o": "{content-type}o", "e": "{epollwsgi.request_id}e"}
FIELD = re.compile(r"^    (\w+) +(text|number)(?: +(\S.*))?$", re.MULTILINE)


class RequestLine(NamedTuple):
    """The request of the lines that are shown."""

    method: str = "GET"
    target: str = "/items/tea?size=2"
    path: str = "/items/tea"
    path_info: str = "/items/tea"
    query: str = "size=2"
    protocol: str = "HTTP/1.1"


def build_atoms() -> str:
    """Each atom with its meaning; those that mean the same share a row."""
    rows: dict[str, list[str]] = {}
    for name, atom in ATOMS.items():
        rows.setdefault(atom.meaning, []).append(f"%({name})s")
    for kind, meaning in NAMED.items():
        rows[f"{meaning} of that name, in any case"] = [f"%({SAMPLES[kind]})s"]
    return build_terms([(", ".join(names), meaning) for meaning, names in rows.items()])


def build_json_fields() -> str:
    """The fields of the preset `json`, as its module describes them."""
    found = FIELD.findall(presets.__doc__ or "")
    return build_terms([(name, f"{kind}: {meaning}" if meaning else kind) for name, kind, meaning in found])


def build_terms(rows: list[tuple[str, str]]) -> str:
    """Names beside their meanings."""
    lines = [
        f"<div><dt>{name}</dt><dd>{escape(meaning[:1].upper() + meaning[1:], quote=False)}.</dd></div>\n"
        for name, meaning in rows
    ]
    return f'<dl class="terms commands short">\n{"".join(lines)}</dl>'


def build_presets() -> str:
    """One line of each preset, for the same request; without colours, and of a process that there is not."""
    more = ("shop.example", "5f3a-1c")
    entry: Entry = (0.0, 200, 51, 0.00173, "GET", RequestLine(), "203.0.113.9", "-", "curl/8.5.0", None, more)
    lines = []
    with utc():
        for make in PRESETS.values():
            [line] = make(False).build_lines([entry], AT_S)
            lines.append(re.sub(r'"pid":\d+', '"pid":4711', line))
    return "\n".join(f'<pre class="wrap"><samp>{escape(line, quote=False)}</samp></pre>' for line in lines)


@contextmanager
def utc() -> Iterator[None]:
    """Local time is UTC meanwhile: the pages are the same wherever they are made."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
