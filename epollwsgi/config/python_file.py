"""Settings files in Python, as gunicorn has them: run, and what they define. Knows no setting. Called by `config.load`.

A file finds the modules beside it if it stands where the server is started, as with gunicorn: that directory comes
first in sys.path. It is run anew at each reload, from its source.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import Any, Final

from epollwsgi.errors import ConfigError

GUNICORN_IS_GONE: Final = "it imports gunicorn, which is not installed: install that too, or drop the import"
MODULE_NAME: Final = "__config__"  # of the file as a module: gunicorn's name


def read_python(path: str) -> dict[str, Any]:
    """The names that a settings file in Python defines. Raises ConfigError, with the traceback if it fails."""
    try:
        if not (stat.S_ISREG(os.stat(path).st_mode) or path == os.devnull):  # which hides the file that is there
            raise ConfigError(f"settings file {path}: not a regular file")
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise ConfigError(f"settings file {path}: {error.strerror}") from None
    return guarded(path, lambda: run_file(os.path.abspath(path)))


def run_file(path: str) -> dict[str, Any]:
    """Run a file, source or compiled, as a module that its own functions find in sys.modules later on."""
    from pkgutil import read_code
    from types import ModuleType

    with open(path, "rb") as file:
        code = read_code(file)
        if code is None:
            file.seek(0)
            code = compile(file.read(), path, "exec", dont_inherit=True)
    module = ModuleType(MODULE_NAME)
    module.__file__ = path
    sys.modules[MODULE_NAME] = module
    exec(code, vars(module))
    return vars(module)


def read_module(name: str) -> dict[str, Any]:
    """The names that a module with settings defines, `-c python:NAME`. Raises ConfigError."""
    return guarded(f"python:{name}", lambda: import_anew(name))


def import_anew(name: str) -> dict[str, Any]:
    """Import a module, once more if it was imported before: a reload wants the settings as they are now."""
    import importlib

    importlib.invalidate_caches()
    before = sys.modules.pop(name, None)
    try:
        return vars(importlib.import_module(name))
    except BaseException:
        if before is not None:
            sys.modules[name] = before  # hooks of the settings in effect may ask for it
        raise


def put_first() -> None:
    """The current directory can be imported from. For the caller, before it reads settings that may need it."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)


def read_text(path: str) -> str:
    """The text of a settings file in Python that has been run; '' where it cannot be read any more."""
    import tokenize

    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


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
        hint = ""
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "gunicorn":
            hint = f" ({GUNICORN_IS_GONE})"
        raise ConfigError(f"settings file {source}: it raised{hint}\n{''.join(lines).rstrip()}") from None
