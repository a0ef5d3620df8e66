"""Settings files in TOML: read, and the table that settings stand in. Knows no setting. Called by `config.load`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from epollwsgi.config.lines import Source, toml_lines
from epollwsgi.errors import ConfigError

PLACE: Final = re.compile(r"\(at line (?P<line>[0-9]+), column (?P<column>[0-9]+)\)$")


def read_toml(path: str, section: Sequence[str] = ()) -> tuple[Source, dict[str, Any]] | None:
    """A table of a TOML file and where it stands; None where the file has no such table. Raises ConfigError.

    section: the names that lead to the table; none: the whole file.
    """
    text, table = parse_toml(path)
    for name in section:
        if not isinstance(table, dict) or name not in table:
            return None
        table = table[name]
    label = f"{path} [{'.'.join(section)}]" if section else path
    if not isinstance(table, dict):
        raise ConfigError(f"{label}: a table of settings is allowed")
    return Source(label, path, toml_lines(text, section)), table


def parse_toml(path: str) -> tuple[str, Any]:
    """The text of a TOML file and what it says. Raises ConfigError: one line with the place of a mistake."""
    import tomllib

    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"settings file {path}: {error.strerror}") from None
    try:
        text = data.decode().replace("\r\n", "\n")
        return text, tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not TOML: a byte that is no UTF-8") from None
    except RecursionError:
        raise ConfigError(f"settings file {path}: not TOML: nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        words = str(error)
        if match := PLACE.search(words):
            words = f"{words[: match.start()]}(column {match['column']})"
        line = int(match["line"]) if match else text.rstrip("\n").count("\n") + 1  # "at end of document"
        raise ConfigError(f"{path}:{line}: not TOML: {words}") from None
