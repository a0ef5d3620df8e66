"""Where settings come from, and which wins.

    defaults < [tool.epollwsgi] of ./pyproject.toml < settings file < environment < command line

It knows files, variables and their order, and remembers the source of each value; what a value may be is in
`config.settings`.  `cli` passes in what was given on the command line and shows what comes out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from epollwsgi.config import settings as table
from epollwsgi.config.settings import DEFAULTS, IGNORED, OPTIONS, Settings
from epollwsgi.config.values import bind_of_port
from epollwsgi.errors import ConfigError

Given = Mapping[str, object]  # names of settings with values as they were written

COMMAND_LINE = "command line"
GUNICORN_ARGS = "environment GUNICORN_CMD_ARGS"
PYPROJECT = "pyproject.toml"
SETTINGS_FILES = ("epollwsgi.toml", "gunicorn.conf.py")
PREFIX = "EPOLLWSGI_"
OUR_TESTS = "EPOLLWSGI_TEST_"  # switches of the test suite, which starts servers that inherit them
VARIABLES = (  # other variables, and the setting that each one fills
    ("WEB_CONCURRENCY", "workers"),
    ("PORT", "bind"),
    ("FORWARDED_ALLOW_IPS", "forwarded_allow_ips"),
    ("SCRIPT_NAME", "script_name"),
)


@dataclass(slots=True)
class Loaded:
    """Settings, the source of each that is not a default, the files read, and what the operator should be told."""

    settings: Settings = DEFAULTS
    sources: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)

    def set(self, source: str, given: Given) -> None:
        """Take over values of one source, which wins over those before it. Raises ConfigError."""
        found: dict[str, Any] = {}
        for name, value in given.items():
            if name in IGNORED:
                self.ignored[name] = source
                continue
            if name not in OPTIONS:
                raise ConfigError(f"{source}: {name}: no such setting{did_you_mean(name)}")
            found[name] = convert(source, name, value)
            self.sources[name] = source
        self.settings = replace(self.settings, **found)

    def source(self, name: str) -> str:
        """Where the value of a setting comes from."""
        return self.sources.get(name, "default")


def load(command_line: Given, environ: Mapping[str, str], gunicorn_args: Given | None = None) -> Loaded:
    """All sources in their order. Raises ConfigError: one line with source, name, value and what is allowed.

    command_line, gunicorn_args: options by the names of their settings, lists where an option may be repeated.
    """
    loaded = Loaded()
    if os.path.isfile(PYPROJECT):
        section = read_toml(PYPROJECT).get("tool", {}).get("epollwsgi")
        if section is not None:
            loaded.files.append(f"{PYPROJECT} [tool.epollwsgi]")
            loaded.set(loaded.files[-1], as_table(loaded.files[-1], section))
    gunicorn_file = load_file(loaded, command_line, environ, gunicorn_args or {})
    for variable, name in VARIABLES:
        if environ.get(variable):
            value = bind_variable(environ[variable]) if name == "bind" else environ[variable]
            loaded.set(f"environment {variable}", {name: value})
    loaded.set(GUNICORN_ARGS, gunicorn_args or {})
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and not variable.startswith(OUR_TESTS):
            loaded.set(f"environment {variable}", {variable.removeprefix(PREFIX).lower(): environ[variable]})
    loaded.set(COMMAND_LINE, command_line)
    settle_threads(loaded, gunicorn_file or ("GUNICORN_CMD_ARGS" if gunicorn_args else ""))
    return loaded


def bind_variable(port: str) -> str:
    """The address that PORT stands for, as a text that the table converts. Raises ConfigError."""
    try:
        return str(bind_of_port(port))
    except ValueError:
        raise ConfigError(f"environment PORT: {port!r}: a number from 0 to 65535 is allowed") from None


def load_file(loaded: Loaded, command_line: Given, environ: Mapping[str, str], gunicorn_args: Given) -> str:
    """Read the settings file, if there is one; its name if it is in gunicorn's format, else ''."""
    named = command_line.get("config") or environ.get(PREFIX + "CONFIG") or gunicorn_args.get("config")
    path = str(named or loaded.settings.config or next(filter(os.path.isfile, SETTINGS_FILES), ""))
    if not path:
        return ""
    module = path.removeprefix("python:") if path.startswith("python:") else ""
    path = path.removeprefix("file:")
    in_python = bool(module) or not path.endswith(".toml")
    if in_python:
        given = select_settings(loaded, path, read_module(module) if module else read_python(path))
    else:
        given = read_toml(path)
        if os.path.basename(path) == PYPROJECT:
            given = as_table(path, given.get("tool", {}).get("epollwsgi", {}))
    loaded.files.append(path)
    loaded.set(path, given)
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


def convert(source: str, name: str, value: object) -> object:
    """The value of a setting as its table entry reads it. Raises ConfigError."""
    option = OPTIONS[name]
    try:
        if name == "worker_class":
            value = known_worker_class(value)
        if not option.many:
            return option.parse(value)
        return tuple(option.parse(item) for item in split_items(value, option.many))
    except ValueError as error:
        written = repr(value) if not callable(value) else "a function"
        raise ConfigError(f"{source}: {name} = {written}: {error}") from None


def split_items(value: object, many: str) -> Iterable[object]:
    """The items of a setting that has several: a text is split at commas; a 'list' also within its items."""
    if value is None:
        return []
    if isinstance(value, str):
        return [item for item in value.split(",") if item.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError("a list of texts is allowed")
    if many == "items":
        return value
    return [part for item in value for part in (split_items(item, many) if isinstance(item, str) else [item])]


def known_worker_class(value: object) -> object:
    """A class of gunicorn's by the word for it. Raises ValueError with the reason for one that cannot be had here."""
    if not isinstance(value, str):
        raise ValueError("gthread or sync is allowed; there are no worker classes to replace here")
    if value in ("gthread", "sync"):
        return value
    if value.startswith("gunicorn.workers.") and value.endswith((".SyncWorker", ".ThreadWorker")):
        return "sync" if value.endswith(".SyncWorker") else "gthread"
    if "gevent" in value or "eventlet" in value:
        raise ValueError(
            "gthread or sync is allowed; slow calls need no green threads here, and patched sockets break them"
        )
    if "uvicorn" in value or "asgi" in value.lower():
        raise ValueError("gthread or sync is allowed; this server runs WSGI applications, not ASGI ones")
    raise ValueError("gthread or sync is allowed; this server has one kind of worker and loads no other")


def did_you_mean(name: str, among: Iterable[str] = ()) -> str:
    """`; did you mean NAME?` for the nearest name, or nothing."""
    from difflib import get_close_matches  # only wanted for a mistake

    near = get_close_matches(name.lower().replace("-", "_"), list(among) or [*OPTIONS, *IGNORED], 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


# --- files ----------------------------------------------------------------------------------------------------------


def read_toml(path: str) -> dict[str, Any]:
    """A TOML file. Raises ConfigError."""
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path}: not TOML: {error}") from None


def as_table(source: str, value: object) -> dict[str, Any]:
    """The table that settings stand in. Raises ConfigError."""
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: a table of settings is allowed")
    return value


def read_python(path: str) -> dict[str, Any]:
    """The names that a settings file in Python defines. Raises ConfigError, with the traceback if it fails."""
    import runpy

    if not os.path.isfile(path):
        raise ConfigError(
            f"settings file {path}: {os.strerror(2) if not os.path.exists(path) else 'not a regular file'}"
        )
    return guarded(path, lambda: runpy.run_path(path, run_name="__config__"))


def read_module(name: str) -> dict[str, Any]:
    """The names that a module with settings defines, `-c python:NAME`. Raises ConfigError."""
    import importlib

    return guarded(f"python:{name}", lambda: vars(importlib.import_module(name)))


def guarded(source: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `read` returns; an exception of the file's own code becomes a ConfigError with its traceback."""
    import traceback

    try:
        return read()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith("<frozen ") and frame.filename != __file__]
        lines = traceback.format_list(own) + traceback.format_exception_only(error)
        raise ConfigError(f"settings file {source}: it raised\n{''.join(lines).rstrip()}") from None


def select_settings(loaded: Loaded, source: str, names: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among the names of a file in Python, which may hold helpers and imports of its own."""
    given = {}
    for name, value in names.items():
        if name in OPTIONS or name in IGNORED:
            if value is not None:  # None is gunicorn's word for 'not set'
                given[name] = value
        elif not name.startswith("_") and isinstance(value, str | int | float | list) and did_you_mean_closely(name):
            loaded.notes.append(f"{source}: {name} is no setting{did_you_mean(name)}")
    return given


def did_you_mean_closely(name: str) -> bool:
    """True if a name differs from that of a setting by hardly more than a slip of the pen."""
    from difflib import get_close_matches

    return bool(get_close_matches(name, [*OPTIONS, *IGNORED], 1, 0.88))


# --- what the operator is told --------------------------------------------------------------------------------------


def describe_not_honoured(loaded: Loaded) -> str:
    """`not yet honoured: workers (4), ...` for settings that are checked but have no effect yet, or ''."""
    found = [
        name if callable(value) or isinstance(value, Mapping) else f"{name} ({table.show(name, value)})"
        for name, option in OPTIONS.items()
        if not option.honoured
        and (value := getattr(loaded.settings, name)) != getattr(DEFAULTS, name)
        and value != option.in_effect
    ]
    return "not yet honoured: " + ", ".join(found) if found else ""


def describe_ignored(loaded: Loaded) -> str:
    """One warning about options of gunicorn that mean nothing here, or ''."""
    names = [f"{name} ({source})" for name, source in loaded.ignored.items()]
    return "without meaning here, ignored: " + ", ".join(names) if names else ""


def describe_settings(loaded: Loaded) -> str:
    """Each setting with its value and where it comes from, for --print-config."""
    lines = [f"{name} = {table.show(name, getattr(loaded.settings, name))}" for name in OPTIONS]
    width = min(48, max(map(len, lines)))
    return "\n".join(f"{line:<{width}}  # {loaded.source(name)}" for line, name in zip(lines, OPTIONS, strict=True))
