"""What the things in an application's module look like, to whoever is about to serve one of them.

It knows the shapes of WSGI applications, ASGI ones and factories, and the traces of monkey patches; it imports nothing
of the application and calls nothing of it.  `importer` asks it when it has to say what is wrong, or what was meant.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

FACTORY_NAMES = ("create_app", "make_app", "get_app", "create_application", "make_application", "get_wsgi_application")
PATCH_CALLS = ("patch_all", "patch_socket", "patch_thread", "patch_select", "patch_ssl", "patch_time", "monkey_patch")


def describe(value: object) -> str:
    """A value in a few words."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)[:60]
    return f"a {type(value).__name__}"


def describe_candidates(module: ModuleType) -> str:
    """`; it has NAME, NAME()` for what looks like a WSGI application or a factory of one."""
    names = [f"{module.__name__}:{name}" for name in sorted(set(candidates(module)))]
    return f"; candidates found: {', '.join(names[:8])}" if names else "; nothing in it looks like a WSGI application"


def candidates(module: ModuleType) -> Iterator[str]:
    """Names of a module's attributes that look like WSGI applications or factories of one."""
    for name, value in list(vars(module).items()):
        if name.startswith("_") or isinstance(value, ModuleType):
            continue
        try:
            shape = shape_of(name, value, module.__name__)
        except Exception:
            continue  # a proxy, such as Flask's request: it stands for nothing now
        if shape:
            yield name + shape.removeprefix("application")


def shape_of(name: str, value: object, home: str) -> str:
    """`application`, `()` for a factory of one, or '' for anything else. Raises what looking at `value` raises."""
    if not callable(value):
        return ""
    if name in FACTORY_NAMES and not isinstance(value, type):
        return "()"
    if hasattr(value, "wsgi_app") and not isinstance(value, type):
        return "application"
    if (isinstance(value, type) or hasattr(value, "__code__")) and getattr(value, "__module__", None) != home:
        return ""  # imported from elsewhere
    is_fit = not isinstance(value, type) and required_count(value) == 2 and takes(value, 2)
    return "application" if is_fit else ""


def required_count(function: Callable[..., Any]) -> int:
    """How many arguments must be given by position; -1 if unknown."""
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return -1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional and parameter.default is parameter.empty for parameter in parameters)


def takes(function: Callable[..., Any], count: int) -> bool:
    """True if so many arguments may be given by position, or if nobody can say."""
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def describe_mismatch(found: Callable[..., Any], name: str, *, is_made: bool) -> str:
    """Why a callable cannot be a WSGI application, or ''.  is_made: a factory has returned it."""
    import inspect

    call = found if inspect.isroutine(found) or isinstance(found, type) else getattr(found, "__call__", found)  # noqa: B004
    if inspect.iscoroutinefunction(call) or (takes(found, 3) and required_count(found) == 3):
        return f"{name} looks like an ASGI application; this server runs WSGI applications (PEP 3333)"
    if takes(found, 2):
        return ""
    hint = f"; as a factory it is written {name}()" if not is_made and takes(found, 0) else ""
    return f"{name} cannot be called with (environ, start_response), so it is not a WSGI application{hint}"


def patched_by() -> str:
    """The library that has replaced parts of the standard library which the event loop stands on, or ''."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and any(map(gevent.is_module_patched, ("socket", "threading", "select"))):
        return "gevent"
    if eventlet is not None and any(map(eventlet.is_monkey_patched, ("socket", "thread", "select"))):
        return "eventlet"
    return ""


def patch_lines() -> Iterator[str]:
    """`FILE:LINE: SOURCE` of each patching call in modules that are neither libraries nor ours."""
    libraries = os.path.dirname(os.__file__) + os.sep
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in ("gevent", "eventlet", "epollwsgi") or not isinstance(file, str):
            continue
        if not file.endswith(".py") or "site-packages" in file or file.startswith(libraries):
            continue
        try:
            with open(file, encoding="utf-8") as opened:
                source = opened.read()
            calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        except (OSError, SyntaxError, ValueError):
            continue
        for call in calls:
            called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if called in PATCH_CALLS:
                yield f"{file}:{call.lineno}: {source.splitlines()[call.lineno - 1].strip()}"
