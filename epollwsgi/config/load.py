"""Where settings come from, and which wins.

    defaults < [tool.epollwsgi] of ./pyproject.toml < settings file < environment < command line

It knows files, variables and their order, and remembers the source of each value; what a value may be is in
`config.settings`.  `cli` passes in what was given on the command line and shows what comes out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from epollwsgi.config.gunicorn_names import GUNICORN_ONLY, Verdict, judge, known_worker_class
from epollwsgi.config.lines import Source, python_lines
from epollwsgi.config.python_file import put_first, read_module, read_python, read_text
from epollwsgi.config.settings import DEFAULTS, OPTIONS, Option, Settings
from epollwsgi.config.toml_file import read_toml
from epollwsgi.config.values import bind_of_port, hook
from epollwsgi.errors import ConfigError

Given = Mapping[str, object]  # names of settings with values as they were written

COMMAND_LINE = "command line"
GUNICORN_ARGS = "environment GUNICORN_CMD_ARGS"
PYPROJECT = "pyproject.toml"
SECTION = ("tool", "epollwsgi")
SETTINGS_FILES = ("epollwsgi.toml", "gunicorn.conf.py")
PREFIX = "EPOLLWSGI_"
OUR_TESTS = "EPOLLWSGI_TEST_"  # switches of the test suite, which starts servers that inherit them
# What Kubernetes, and Docker with its links, set where a service is named epollwsgi.
OF_A_SERVICE = re.compile(
    "EPOLLWSGI_(?:SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?)?)"
)
MOST_SHOWN = 100  # characters of a value in a message
PEERS = "FORWARDED_ALLOW_IPS"
VARIABLES = (  # other variables, and the setting that each one fills
    ("WEB_CONCURRENCY", "workers"),
    ("PORT", "bind"),
    (PEERS, "forwarded_allow_ips"),
    ("SCRIPT_NAME", "script_name"),
)


@dataclass(slots=True)
class Loaded:
    """Settings, the source of each that is not a default, the files read, and what the operator should be told."""

    settings: Settings = DEFAULTS
    sources: dict[str, str] = field(default_factory=dict)
    item_sources: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of settings that have several values
    files: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)  # of these files, but for modules
    found: list[str] = field(default_factory=list)  # those among them that nobody has named
    notes: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def set(self, source: Source | str, given: Given) -> None:
        """Take over values of one source, which wins over those before it. Raises ConfigError."""
        found: dict[str, Any] = {}
        source = source if isinstance(source, Source) else Source(source)
        for name, value in given.items():
            place = source.place(name)
            if name in GUNICORN_ONLY:
                self._set_foreign(place, name, value)
                continue
            if name not in OPTIONS:
                raise ConfigError(f"{place}: {escape(name)}: no such setting{did_you_mean(name)}")
            found[name] = convert(source, name, value)
            self.sources[name] = place
            if OPTIONS[name].many:
                self.item_sources[name] = tuple(source.place(name, item) for item in range(len(found[name])))
        self.settings = replace(self.settings, **found)

    def _set_foreign(self, place: str, name: str, value: object) -> None:
        """Take note of a setting that only gunicorn has; the last source that names it counts."""
        self.ignored.pop(name, None)
        self.refused.pop(name, None)
        verdict = judge(name, value)
        if verdict is Verdict.IGNORED:
            self.ignored[name] = place
        elif verdict is Verdict.REFUSED:
            written = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            self.refused[name] = f"{place}: {name} = {show_written(written)}: {GUNICORN_ONLY[name].reason}"

    def source(self, name: str, item: int = -1) -> str:
        """Where the value of a setting comes from, or one of its values where it has several."""
        items = self.item_sources.get(name, ())
        return items[item] if 0 <= item < len(items) else self.sources.get(name, "default")

    def locate(self, error: ConfigError) -> ConfigError:
        """The same mistake with its source before it, where it is told as `NAME = VALUE: ...`, as later steps do."""
        name = str(error).partition(" = ")[0]
        return ConfigError(f"{self.source(name)}: {error}") if name in OPTIONS and name in self.sources else error


def load(
    command_line: Given,
    environ: Mapping[str, str],
    gunicorn_args: Given | None = None,
    in_force: Collection[str] = (),
) -> Loaded:
    """All sources in their order. Raises ConfigError: one line with source, name, value and what is allowed.

    command_line, gunicorn_args: options by the names of their settings, lists where an option may be repeated.
    in_force: `found` of the settings that a server has, where it reads them again.
    """
    loaded = Loaded()
    if is_found(PYPROJECT, in_force):
        section = read_toml(PYPROJECT, SECTION)
        if section is not None:
            loaded.files.append(section[0].label)
            loaded.paths.append(os.path.abspath(PYPROJECT))
            loaded.found.append(PYPROJECT)
            loaded.set(*section)
    gunicorn_file = load_file(loaded, command_line, environ, gunicorn_args or {}, in_force)
    before = replace(loaded, sources=dict(loaded.sources))
    for variable, name in VARIABLES:
        # Empty ones are as good as unset; but as in gunicorn no peer is then trusted, unless a file names some.
        if environ.get(variable) or (variable == PEERS and PEERS in environ and name not in loaded.sources):
            value = bind_variable(environ[variable]) if name == "bind" else environ[variable]
            loaded.set(f"environment {variable}", {name: value})
    loaded.set(GUNICORN_ARGS, gunicorn_args or {})
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and not variable.startswith(OUR_TESTS) and not OF_A_SERVICE.fullmatch(variable):
            name, written = variable.removeprefix(PREFIX).lower(), environ[variable]
            has_items = name in OPTIONS and OPTIONS[name].many  # which a variable can only hold with commas
            loaded.set(f"environment {variable}", {name: written.split(",") if has_items else written})
    loaded.set(COMMAND_LINE, command_line)
    settle_script_name(loaded)
    for refusal in loaded.refused.values():
        raise ConfigError(refusal)
    if gunicorn_file:
        note_variables(loaded, before, gunicorn_file)
    settle_threads(loaded, gunicorn_file or ("GUNICORN_CMD_ARGS" if gunicorn_args else ""))
    return loaded


def note_variables(loaded: Loaded, before: Loaded, file: str) -> None:
    """Tell where a variable changes what a file in gunicorn's format says: in gunicorn these are but defaults.

    before: as it was when the file had been read.
    """
    for variable, name in VARIABLES:
        is_changed = getattr(loaded.settings, name) != getattr(before.settings, name)
        if is_changed and before.source(name).startswith(file) and loaded.source(name) == f"environment {variable}":
            loaded.notes.append(f"{name}: {variable} wins over {before.source(name)}; in gunicorn it does not")


def settle_script_name(loaded: Loaded) -> None:
    """SCRIPT_NAME in raw_env is a prefix, as in gunicorn, which looks at that variable in its own environment."""
    if loaded.source("script_name") not in ("default", "environment SCRIPT_NAME"):
        return
    for number, item in enumerate(loaded.settings.raw_env):
        name, _, value = item.partition("=")
        if name == "SCRIPT_NAME":
            loaded.set(loaded.source("raw_env", number), {"script_name": value})


def bind_variable(port: str) -> str:
    """The address that PORT stands for, as a text that the table converts. Raises ConfigError."""
    try:
        return str(bind_of_port(port))
    except ValueError:
        raise ConfigError(f"environment PORT: {port!r}: a number from 0 to 65535 is allowed") from None


def is_found(path: str, in_force: Collection[str]) -> bool:
    """Whether a settings file is there that nobody has named. Raises ConfigError where it was and is gone: to go on
    with defaults in the place of its settings is not what somebody wants who asks for a reload.
    """
    if os.path.isfile(path):
        return True
    if path in in_force:
        raise ConfigError(f"settings file {path}: {os.strerror(2)}: it was read before; without it only a new start")
    return False


def load_file(
    loaded: Loaded, command_line: Given, environ: Mapping[str, str], gunicorn_args: Given, in_force: Collection[str]
) -> str:
    """Read the settings file, if there is one; its name if it is in gunicorn's format, else ''."""
    named = command_line.get("config") or environ.get(PREFIX + "CONFIG") or gunicorn_args.get("config")
    path = str(named or loaded.settings.config)
    if not path:
        path = next((name for name in SETTINGS_FILES if is_found(name, in_force)), "")
        if not path:
            return ""
        loaded.found.append(path)
    put_first()
    module = path.removeprefix("python:") if path.startswith("python:") else ""
    path = path.removeprefix("file:")
    if not module:
        loaded.paths.append(os.path.abspath(path))
    in_python = bool(module) or not path.endswith(".toml")
    if in_python:
        names = read_module(module) if module else read_python(path)
        source = Source(path) if module else Source(path, path, python_lines(read_text(path)))
        given = select_settings(loaded, source, names)
    else:
        found = read_toml(path, SECTION if os.path.basename(path) == PYPROJECT else ())
        if found is None:
            raise ConfigError(f"settings file {path}: there is no table [{'.'.join(SECTION)}] in it")
        source, given = found
    if given.pop("config", None):
        loaded.notes.append(f"{source.place('config')}: config has no effect in a settings file")
    loaded.set(source, given)
    if source.label not in loaded.files:
        loaded.files.append(source.label)
    return path if in_python else ""


def settle_threads(loaded: Loaded, gunicorn_source: str) -> None:
    """threads = 1 for who asks for gunicorn's sync worker, by name or by a gunicorn configuration that names none.

    Code that was never run with threads must not be exposed to them by a change of one word in a command line.
    """
    if "threads" in loaded.sources:
        return
    if loaded.settings.worker_class == "sync":
        reason = f"worker_class = sync, {loaded.source('worker_class')}"
    elif gunicorn_source and "worker_class" not in loaded.sources:
        reason = f"{gunicorn_source} names neither worker_class nor threads, which is sync in gunicorn"
    else:
        return
    loaded.settings = replace(loaded.settings, threads=1)
    loaded.sources["threads"] = reason
    loaded.notes.append(f"threads = 1 ({reason}); more with --threads N")


# --- one value ------------------------------------------------------------------------------------------------------


def convert(source: Source, name: str, value: object) -> object:
    """The value of a setting as its table entry reads it. Raises ConfigError."""
    option = OPTIONS[name]
    written, item = value, -1
    found = []
    try:
        if name == "worker_class":
            value = known_worker_class(value)
        if not option.many:
            return option.parse(value)
        for item, written in enumerate(split_items(value, option)):  # noqa: B007
            found.append(option.parse(written))
    except ValueError as error:
        raise ConfigError(f"{source.place(name, item)}: {name} = {show_written(written)}: {error}") from None
    return tuple(found)


def show_written(value: object) -> str:
    """A value as somebody wrote it, on one line and not too long."""
    if callable(value):
        return "a class" if isinstance(value, type) else "a function"
    text = escape(repr(value))
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}... ({len(text)} characters)"


def escape(text: str) -> str:
    """A text that a terminal can be given: what cannot be printed stands there as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def split_items(value: object, option: Option) -> Iterable[object]:
    """The items of a setting that has several: the texts of a 'list' are split at commas, others are one item each.

    A table stands for items KEY=VALUE where that is how an item is written, as for static mounts.
    """
    many = option.many
    if value is None:
        return []
    if isinstance(value, Mapping) and "=" in option.metavar:
        return [join_item(*pair) for pair in value.items()]
    if isinstance(value, str):
        return [item for item in (value.split(",") if many == "list" else [value]) if item.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError("a list of texts is allowed")
    if many == "items":
        return value
    return [part for item in value for part in (split_items(item, option) if isinstance(item, str) else [item])]


def join_item(key: object, value: object) -> str:
    """An item of which a table holds the two halves. Raises ValueError."""
    if not isinstance(key, str) or not isinstance(value, str | os.PathLike) or "=" in key:
        raise ValueError(f"{key!r}: a table of texts is allowed, and no = in their names")
    return f"{key}={os.fspath(value)}"


def did_you_mean(name: str, among: Iterable[str] = ()) -> str:
    """`; did you mean NAME?` for the setting of that option, or else for the nearest name, or nothing."""
    from difflib import get_close_matches  # only wanted for a mistake

    if among:
        near = get_close_matches(name.lower(), list(among), 1, 0.6)
    else:
        flag = f"--{name.lstrip('-').replace('_', '-')}"
        near = [known for known, option in (OPTIONS | GUNICORN_ONLY).items() if flag in option.flags]
        near = near or get_close_matches(name.lower().replace("-", "_"), [*OPTIONS, *GUNICORN_ONLY], 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


# --- files ----------------------------------------------------------------------------------------------------------


def select_settings(loaded: Loaded, source: Source, names: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among the names of a file in Python, which may hold helpers and imports of its own."""
    given = {name: value for name, value in names.items() if is_setting(name, value)}
    for name, value in names.items():
        if name.startswith("_") or name in OPTIONS or name in GUNICORN_ONLY:
            continue
        if isinstance(value, str | int | float | list) and (meant := meant_closely(name)) and meant not in given:
            loaded.notes.append(f"{source.place(name)}: {name} is no setting; did you mean {meant}?")
    return given


def is_setting(name: str, value: object) -> bool:
    """True if a name of a file in Python is a setting with a value: None is gunicorn's word for 'not set'.

    A function or a module whose name happens to be that of a setting is none where the setting takes no functions.
    """
    if value is None or (name not in OPTIONS and name not in GUNICORN_ONLY):
        return False
    is_code = callable(value) or isinstance(value, type(os))
    return not is_code or name in GUNICORN_ONLY or name == "worker_class" or OPTIONS[name].parse is hook


def meant_closely(name: str) -> str:
    """The setting whose name differs from this one by hardly more than a slip of the pen, or ''."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, [*OPTIONS, *GUNICORN_ONLY], 1, 0.88)), "")
