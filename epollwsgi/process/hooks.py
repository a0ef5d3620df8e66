"""gunicorn's hooks: functions of a settings file in Python, called as the server and its workers come and go.

HOOKS is the whole list: what each is called with, and what follows if it raises. `process.master` and `process.boot`
call them by name and hand over the objects of `process.hook_objects`; the two hooks of a request are called by
`process.request_hooks`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from epollwsgi.errors import ConfigError, StartError
from epollwsgi.inspection import takes

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings
    from epollwsgi.logs.error_log import ErrorLog

Function = Callable[..., object]


class HookFailed(StartError):
    """A hook raised without which the server, or the worker, does not start; the message holds its traceback."""


@dataclass(frozen=True, slots=True)
class Hook:
    """What a hook is called with, the most arguments first, and what follows from an exception in it."""

    signatures: tuple[str, ...]
    consequence: str
    is_fatal: bool = False

    def describe_failure(self, name: str) -> str:
        """The line that goes before the traceback."""
        return f"the hook {name} failed: {self.consequence}"


_SERVER, _WORKER, _BOTH = ("server",), ("worker",), ("server, worker",)
_AFTER_REQUEST = ("worker, req, environ, resp", "worker, req, environ", "worker, req")
_GOES_ON = "the server goes on"
_ENDS = "the worker ends all the same"

HOOKS: dict[str, Hook] = {
    "on_starting": Hook(_SERVER, "the server does not start", is_fatal=True),
    "on_reload": Hook(_SERVER, "the reload goes on"),
    "when_ready": Hook(_SERVER, _GOES_ON),
    "pre_fork": Hook(_BOTH, "the worker is forked all the same"),
    "post_fork": Hook(_BOTH, "the worker does not start", is_fatal=True),
    "post_worker_init": Hook(_WORKER, "the worker does not start", is_fatal=True),
    "worker_int": Hook(_WORKER, _ENDS),
    "worker_abort": Hook(_WORKER, _ENDS),
    "pre_exec": Hook(_SERVER, "the upgrade goes on"),
    "pre_request": Hook(("worker, req",), "the request is answered with 500"),
    "post_request": Hook(_AFTER_REQUEST, "the response stays as it is"),
    "child_exit": Hook(_BOTH, _GOES_ON),
    "worker_exit": Hook(_BOTH, _ENDS),
    "nworkers_changed": Hook(("server, new_value, old_value",), _GOES_ON),
    "on_exit": Hook(_SERVER, "the server ends all the same"),
}


class Hooks:
    """The hooks that the settings hold, checked once, so that no mistake shows at the first call only."""

    def __init__(self, settings: Settings, log: ErrorLog) -> None:
        """Raises ConfigError for a function that cannot be called as the table says."""
        self._log = log
        self._found = find_hooks(settings)

    def __contains__(self, name: str) -> bool:
        """Whether the settings hold this hook."""
        return name in self._found

    def call(self, name: str, *arguments: object) -> None:
        """Call a hook if there is one, with all that the table names. Raises HookFailed where the table says so."""
        found = self._found.get(name)
        if found is None:
            return
        function, count = found
        try:
            function(*arguments[:count])
        except BaseException as error:
            hook = HOOKS[name]
            if hook.is_fatal and isinstance(error, KeyboardInterrupt):
                raise  # the operator ends the start, not the hook
            failure = hook.describe_failure(name)
            if hook.is_fatal:
                raise HookFailed(f"{failure}\n{own_traceback(error)}") from None
            self._log.write("error", failure, own_traceback(error))

    @property
    def pre_request(self) -> Function | None:
        """`pre_request(worker, req)`, for `request_hooks.wrap_application`; it may raise."""
        found = self._found.get("pre_request")
        return found and found[0]

    @property
    def post_request(self) -> Function | None:
        """`post_request(worker, req, environ, resp)`, whatever the function itself takes; it may raise."""
        found = self._found.get("post_request")
        if found is None or found[1] == 4:
            return found and found[0]
        function, count = found
        return lambda *arguments: function(*arguments[:count])


def find_hooks(settings: Settings) -> dict[str, tuple[Function, int]]:
    """The hooks that the settings hold, each with the number of arguments that it is called with.

    Raises ConfigError for a function that cannot be called as the table says.
    """
    functions = {name: getattr(settings, name) for name in HOOKS}
    return {name: (one, argument_count(name, one)) for name, one in functions.items() if one is not None}


def argument_count(name: str, function: Function) -> int:
    """How many arguments a hook is called with. Raises ConfigError."""
    import inspect  # only wanted where there are hooks

    signatures = HOOKS[name].signatures
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigError(f"{place_of(function)}: {name}: a plain function is allowed, and this is async")
    for signature in signatures:
        count = signature.count(",") + 1
        if takes(function, count):
            return count
    allowed = " or ".join(f"({signature})" for signature in reversed(signatures))
    raise ConfigError(f"{place_of(function)}: {name}: a function that can be called with {allowed} is allowed")


def place_of(function: Function) -> str:
    """`FILE:LINE` of a function, or what it is."""
    import inspect

    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    inner = inspect.unwrap(inner)
    code = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)


def own_traceback(error: BaseException) -> str:
    """The traceback as the author of the hook knows it: without the frame that called it."""
    frames = error.__traceback__ and error.__traceback__.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()
