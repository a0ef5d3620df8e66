"""From the positional argument to what is served: `module:attr` to an application, or a directory.

It knows how applications are named and found and what their failures look like to their author; it knows neither the
command line nor the server.  `cli` calls it, after it has entered the directory that the operator wants.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, cast

from epollwsgi.config.settings import Settings
from epollwsgi.config.values import StaticMount
from epollwsgi.errors import ApplicationFailed, ApplicationNotFound, ConfigError, UsageError
from epollwsgi.inspection import describe, describe_candidates, describe_mismatch, patch_lines, patched_by

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

USUAL_NAMES = ("app", "application", "create_app()")  # tried in this order where only a module is named
SOURCE_MARKS = ("__init__.py", "pyproject.toml", "manage.py", ".git", ".env")
MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class Application:
    """A WSGI application by its name, `module`, `module:attr` or `module:factory(...)`."""

    text: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A static site."""

    path: str


def parse_target(text: str, settings: Settings) -> Application | Directory:
    """What the positional argument means. Raises UsageError; ConfigError for a directory that must not be a site.

    Only a text that contains a slash, or is `.` or `..`, is a directory; slashes between a factory's brackets are none.
    """
    if text in (".", "..") or "/" in text.partition("(")[0]:
        check_site(text, settings.allow_source)
        return Directory(text)
    parse_name(text)
    return Application(text)


def check_site(path: str, allow_source: bool) -> None:
    """Refuses a directory that is none, or that holds source code. Raises ConfigError."""
    try:
        names = os.listdir(path)
    except NotADirectoryError:
        hint = ""
        if path.endswith(".py"):
            module = os.path.normpath(path)[:-3].replace("/", ".")
            hint = (
                f"; an application is named by its module: did you mean {module}?" if MODULE.fullmatch(module) else ""
            )
        raise ConfigError(f"{path}: a site is a directory, and this is a file{hint}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    marks = [mark for mark in SOURCE_MARKS if mark in names]
    if marks and not allow_source:
        raise ConfigError(
            f"{path}: holds {', '.join(marks)}, so it looks like source code, which a site would publish; "
            "name the directory of the site itself, or add --allow-source"
        )


# --- names ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name:
    """The parts of an application's name; `arguments` is None unless it is to be called as a factory."""

    module: str
    attributes: tuple[str, ...] = ()
    arguments: tuple[tuple[object, ...], dict[str, object]] | None = None

    def __str__(self) -> str:
        path = ".".join(self.attributes)
        return f"{self.module}:{path}" if path else self.module


def parse_name(text: str) -> Name:
    """The parts of `module`, `module:attr.sub` or `module:factory('x', y=1)`. Raises UsageError."""
    module, colon, expression = text.partition(":")
    if not MODULE.fullmatch(module):
        raise UsageError(
            f"{text!r} names no application: MODULE, MODULE:ATTRIBUTE or MODULE:FACTORY() is allowed, "
            "or a directory, written with a slash"
        )
    if not colon:
        return Name(module)
    try:
        node = ast.parse(expression, mode="eval").body
        arguments: tuple[tuple[object, ...], dict[str, object]] | None = None
        if isinstance(node, ast.Call):
            if any(keyword.arg is None for keyword in node.keywords):
                raise ValueError("** is not allowed")
            keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
            arguments = (tuple(ast.literal_eval(argument) for argument in node.args), keywords)
            node = node.func
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            raise ValueError("no name")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise UsageError(
            f"{text!r}: after the colon stands the name of an application, or of a factory with literal arguments "
            "in brackets, such as create_app('production')"
        ) from None
    return Name(module, (node.id, *attributes), arguments)


# --- loading --------------------------------------------------------------------------------------------------------


def prepare_path(pythonpath: str) -> None:
    """Put the directories of the setting `pythonpath`, then the current one, first in sys.path."""
    directories = [os.path.abspath(part.strip()) for part in pythonpath.split(",") if part.strip()]
    directories.append(os.getcwd())
    sys.path[:] = directories + [entry for entry in sys.path if entry not in directories]
    importlib.invalidate_caches()


def load_application(text: str) -> WSGIApplication:
    """The application of that name. Raises UsageError, ApplicationFailed, ApplicationNotFound."""
    name = parse_name(text)
    module = import_module(name.module)
    if name.attributes:
        found = look_up(module, name)
        if name.arguments is not None:
            found = call_factory(found, name)
        elif callable(found) and (problem := describe_mismatch(found, str(name), is_made=False)):
            raise ApplicationNotFound(problem)
    else:
        found, name = find_usual(module)
    refuse_monkey_patches()
    if not callable(found):
        what = "returned" if name.arguments is not None else "is"
        called = f"{name}()" if name.arguments is not None else str(name)
        raise ApplicationNotFound(
            f"{called} {what} {describe(found)}, not a WSGI application{describe_candidates(module)}"
        )
    if name.arguments is not None and (problem := describe_mismatch(found, str(name), is_made=True)):
        raise ApplicationNotFound(problem)
    return cast("WSGIApplication", found)


def load_checked(text: str, settings: Settings, source: str = "static") -> WSGIApplication:
    """The application, unless a static mount would publish its source. source: of the mounts. Raises StartError."""
    application = load_application(text)
    check_mounts(settings.static, module_file(text), source)
    return application


def import_module(module: str) -> ModuleType:
    """Import the application's module. Raises ApplicationFailed with the application's own traceback."""
    try:
        found = importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise ApplicationFailed(describe_missing(module, error.name)) from None
        raise ApplicationFailed(f"importing {module} failed\n{own_traceback(error)}") from None
    if getattr(found, "__file__", None) is None and hasattr(found, "__path__"):  # a directory without any code
        raise ApplicationFailed(
            f"{module} is a directory without __init__.py, not a module{did_you_mean_directory(module)}"
        )
    return found


def look_up(module: ModuleType, name: Name) -> object:
    """The attribute that a name names. Raises ApplicationNotFound with the candidates, ApplicationFailed."""
    found: object = module
    for attribute in name.attributes:
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ApplicationNotFound(
                f"{name.module} has no attribute {'.'.join(name.attributes)}{describe_candidates(module)}"
            ) from None
        except Exception as error:
            raise ApplicationFailed(f"reading {name} failed\n{own_traceback(error)}") from None
    return found


def call_factory(factory: object, name: Name) -> object:
    """What a factory returns. Raises ApplicationFailed with its traceback, ApplicationNotFound for one that is none."""
    if not callable(factory):
        raise ApplicationNotFound(f"{name} is {describe(factory)}, which cannot be called")
    arguments, keywords = name.arguments or ((), {})
    try:
        return factory(*arguments, **keywords)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ApplicationFailed(f"calling {name}() failed\n{own_traceback(error)}") from None


def find_usual(module: ModuleType) -> tuple[object, Name]:
    """The first of the usual names that the module has. Raises ApplicationNotFound."""
    for usual in USUAL_NAMES:
        name = parse_name(f"{module.__name__}:{usual}")
        found = getattr(module, name.attributes[0], None)
        if callable(found):
            if name.arguments is not None:
                return call_factory(found, name), name
            if problem := describe_mismatch(found, str(name), is_made=False):
                raise ApplicationNotFound(problem)
            return found, name
    tried = ", ".join(USUAL_NAMES)
    raise ApplicationNotFound(
        f"{module.__name__} has none of {tried}{describe_candidates(module)}{did_you_mean_directory(module.__name__)}"
    )


def module_file(text: str) -> str:
    """The file of an application's module once it is loaded, or ''."""
    return getattr(sys.modules.get(parse_name(text).module), "__file__", None) or ""


def check_mounts(mounts: Iterable[StaticMount], file: str, source: str | Sequence[str]) -> None:
    """Refuses mounts that cannot be served, or that would publish the application's module. Raises ConfigError.

    source: of all, or of each.
    """
    seen: set[str] = set()
    for number, mount in enumerate(mounts):
        here = f"{source if isinstance(source, str) else source[number]}: static = {str(mount)!r}"
        if mount.prefix in seen:
            raise ConfigError(f"{here}: {mount.prefix} is given twice")
        seen.add(mount.prefix)
        try:
            os.listdir(mount.directory)
        except OSError as error:
            raise ConfigError(f"{here}: {mount.directory}: {error.strerror}") from None
        root = os.path.realpath(mount.directory)
        if file and os.path.commonpath((root, os.path.realpath(file))) == root:
            raise ConfigError(f"{here}: the directory holds the application's own module {file} and would publish it")


# --- what went wrong, in the author's terms -------------------------------------------------------------------------


def own_traceback(error: BaseException) -> str:
    """The traceback as the application's author knows it, without frames of this module and of the import system."""

    def is_ours(frame: TracebackType) -> bool:
        filename = frame.tb_frame.f_code.co_filename
        return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")

    def trim(frame: TracebackType | None) -> TracebackType | None:
        while frame is not None and is_ours(frame):
            frame = frame.tb_next
        return frame

    seen: BaseException | None = error
    for _ in range(16):  # causes and contexts passed through the same frames
        if seen is None:
            break
        seen.__traceback__ = trim(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
    return "".join(traceback.format_exception(error)).rstrip()


def describe_missing(module: str, missing: str) -> str:
    """There is no such module: where it was looked for, and what may have been meant."""
    part = "" if missing == module else f" ({missing} was not found)"
    hint = did_you_mean_directory(module)
    return f"there is no module named {module}{part}, looked for in {os.getcwd()} and sys.path{hint}"


def did_you_mean_directory(module: str) -> str:
    """`; did you mean ./NAME` where a directory of that name exists."""
    return f"; did you mean ./{module}" if os.path.isdir(module) else ""


def refuse_monkey_patches() -> None:
    """gevent and eventlet replace what the event loop stands on. Raises ApplicationFailed with the line to delete."""
    if library := patched_by():
        places = "".join(f"\n  {place}" for place in patch_lines())
        raise ApplicationFailed(
            f"the application patches the standard library with {library}, which this server does not need "
            "and cannot run with (slow requests do not hold up others here); delete "
            + (f"this line:{places}" if places else "the call of patch_all() or monkey_patch()")
        )
