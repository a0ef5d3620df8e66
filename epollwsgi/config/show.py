"""Settings as an operator reads them: one value, all of them with their sources, and what has no effect.

It knows how a value is written in TOML and what the operator should be told of a `Loaded`; it reads nothing. Called by
`cli` and `command_line`, and by the tables of the documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isnan
from typing import Final

from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.load import Loaded, escape
from epollwsgi.config.settings import DEFAULTS, OPTIONS
from epollwsgi.config.values import pairs, show_size

HEAD: Final = """\
# The settings in effect, each with where it comes from. This is TOML, for `epollwsgi -c FILE` to read.
"""
COMMENT_COLUMN: Final = 48
BARE_KEY: Final = re.compile("[A-Za-z0-9_-]+", re.ASCII)
ACTS_ONCE: Final = ("config", "check_config", "print_config")  # of use on a command line, not in a file
SITE_ONLY: Final = ("listing", "spa")


class Unwritable(ValueError):
    """A value that TOML cannot hold; the message says what it is."""


# --- one value ------------------------------------------------------------------------------------------------------


def show(name: str, value: object) -> str:
    """A value as an operator writes it in a settings file. Raises Unwritable."""
    option = OPTIONS[name]
    if value is None:
        return quote("none" if option.unit == "octal" or option.metavar in ("FUNCTION", "TABLE") else "auto")
    if option.parse is pairs and isinstance(value, tuple):
        return show_toml(dict(value))
    if isinstance(value, tuple):
        return show_toml([str(item) for item in value])
    if isinstance(value, bool):
        return show_toml(value)
    if isinstance(value, int):
        if value and is_no_limit(name, value):
            return "0"
        if option.unit == "octal":
            return f"0o{value:03o}"
        shown = show_size(value) if option.unit == "bytes" else str(value)
        return shown if shown.isdigit() else quote(shown)
    return show_toml(value)


def is_no_limit(name: str, value: int) -> bool:
    """True where 0 is the way to write a value: it stands for no limit."""
    try:
        return OPTIONS[name].parse(0) == value
    except ValueError:
        return False


def show_toml(value: object) -> str:
    """A value in TOML, on one line. Raises Unwritable."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if isnan(value):
            raise Unwritable("not a number")
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, list):
        return "[" + ", ".join(map(show_toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{show_key(key)} = {show_toml(item)}" for key, item in value.items()) + " }"
    if type(value).__module__ == "datetime" and hasattr(value, "isoformat"):  # what TOML itself has made
        return str(value.isoformat())
    raise Unwritable("a function" if callable(value) else "None" if value is None else f"a {type(value).__name__}")


def quote(text: str) -> str:
    """A TOML string. Raises Unwritable."""
    if re.search("[\ud800-\udfff]", text):
        raise Unwritable("bytes that are no UTF-8")
    escaped = re.sub(r'["\\]', r"\\\g<0>", text)
    return '"' + re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'


def show_key(key: object) -> str:
    """The name of a TOML value, in quotes where it needs them. Raises Unwritable."""
    if not isinstance(key, str):
        raise Unwritable(f"a name that is a {type(key).__name__}")
    return key if BARE_KEY.fullmatch(key) else quote(key)


# --- all of them ----------------------------------------------------------------------------------------------------


def describe_settings(loaded: Loaded) -> str:
    """All settings as a file in TOML, each value with its source in a comment; what TOML cannot hold is a comment."""
    sections: dict[str, list[str]] = {}
    tables: list[str] = []
    for name, option in OPTIONS.items():
        value, source = getattr(loaded.settings, name), escape(loaded.source(name))
        try:
            if option.metavar == "TABLE" and isinstance(value, dict):
                tables += ["", *show_table(name, value, source)]
                line = f"# {name}: see the table at the end"
            else:
                is_comment = name in ACTS_ONCE or (value is None and option.metavar in ("TABLE", "FUNCTION"))
                line = f"{'# ' * is_comment}{name} = {show(name, value)}"
        except Unwritable as error:
            line = f"# {name}: TOML cannot hold {error}"
        sections.setdefault(option.section, []).append(f"{line:<{COMMENT_COLUMN}}  # {source}")
    lines = [HEAD + f"# Files read: {escape(', '.join(loaded.files)) or 'none'}"]
    for section, shown in sections.items():
        lines += ["", f"# --- {section}", *shown]
    return "\n".join([*lines, *tables]) + "\n"


def show_table(name: str, table: Mapping[str, object], source: str = "") -> list[str]:
    """The lines of a TOML table with the tables in it. Raises Unwritable."""
    lines = [f"[{name}]" + (f"  # {source}" if source else "")]
    inner = []
    for key, value in table.items():
        if isinstance(value, dict) and value:
            inner += ["", *show_table(f"{name}.{show_key(key)}", value)]
        else:
            lines.append(f"{show_key(key)} = {show_toml(value)}")
    return lines + inner


# --- what has no effect ---------------------------------------------------------------------------------------------


def describe_not_honoured(loaded: Loaded) -> str:
    """`not yet honoured: workers (4), ...` for settings that are checked but have no effect yet, or ''."""
    found = [
        name if callable(value) or isinstance(value, Mapping) else f"{name} ({show(name, value)})"
        for name, option in OPTIONS.items()
        if not (option.honoured or option.needs)
        and (value := getattr(loaded.settings, name)) != getattr(DEFAULTS, name)
        and value != option.in_effect
    ]
    return "not yet honoured: " + ", ".join(found) if found else ""


def describe_site_only(loaded: Loaded, application_name: str) -> str:
    """A warning about settings of a site alone that stand beside an application, or ''."""
    found = [f"{name} ({loaded.source(name)})" for name in SITE_ONLY if getattr(loaded.settings, name)]
    return f"of no effect beside an application: {', '.join(found)}" if found and application_name else ""


def describe_ignored(loaded: Loaded) -> str:
    """One warning about options of gunicorn that mean nothing here, or ''."""
    names = [f"{name} ({source}): {GUNICORN_ONLY[name].reason}" for name, source in loaded.ignored.items()]
    return "without meaning here, ignored: " + "; ".join(names) if names else ""
