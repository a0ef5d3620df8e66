"""The server within a program: `epollwsgi.serve`, and what `testing.LiveServer` has in common with it.

It knows what a program may hand over to be served, and in which state a program wants its process back. The settings
are those of a settings file; `process.start` does the serving. A mistake is a StartError for the caller to catch.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from epollwsgi import importer
from epollwsgi.command_line import enter, settle_target
from epollwsgi.config.checks import check
from epollwsgi.config.load import Loaded, settle_script_name, settle_threads
from epollwsgi.errors import ConfigError
from epollwsgi.inspection import describe, describe_mismatch

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from epollwsgi.process.fleet import Plan

SERVE: Final = "serve()"
# A program reads no settings file, and has no command line whose words ask for something else than serving.
COMMAND_LINE_ONLY: Final = ("config", "check_config", "print_config")

_serving: list[int] = []  # the process that serves; its workers inherit that


def serve_application(application: WSGIApplication | str | os.PathLike[str] | None, given: Mapping[str, object]) -> int:
    """What `epollwsgi.serve` does; see there. Raises StartError."""
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            "serve() was called on a thread, and signals come to the main thread only; "
            "epollwsgi.testing.LiveServer serves in the background"
        )
    if _serving:
        here = "by this process" if _serving[0] == os.getpid() else "where a worker loads the application"
        raise ConfigError(
            f"serve() was called {here} while it serves; a script that is imported, too, calls it below "
            'if __name__ == "__main__":'
        )
    loaded = read_settings(SERVE, given)  # a mistake shows before anything is changed
    from epollwsgi.process.origin import find_origin
    from epollwsgi.process.start import run_master
    from epollwsgi.process.upgrade import DRY_RUN, take_state

    if os.environ.pop(DRY_RUN, ""):
        end_dry_run(application, given)
    state = take_state(os.environ)
    if loaded.settings.reload:
        from epollwsgi.process.sources import note_loaded

        note_loaded()
    with process_kept(is_upgraded=state is not None):
        return run_master(
            lambda old: make_plan(application, given), find_origin(is_command=False, is_program=True), state
        )


def end_dry_run(application: WSGIApplication | str | os.PathLike[str] | None, given: Mapping[str, object]) -> NoReturn:
    """This program runs to see whether it comes so far: look at all that a start looks at, and end. Raises StartError.

    What is registered for the end of the program is not called: it may concern the one that serves.
    """
    from epollwsgi.cli import check_plan
    from epollwsgi.process.ending import flush_output
    from epollwsgi.process.upgrade import DRY_RUN_PASSED

    check_plan(make_plan(application, given))
    flush_output()
    os._exit(DRY_RUN_PASSED)


@contextmanager
def process_kept(is_upgraded: bool) -> Iterator[None]:
    """What a server changes of its process is undone at the end: directory, environment, umask, sys.path, mask.

    is_upgraded: signals have been held back by the image before, until the handlers stand.
    """
    from epollwsgi.process.origin import find_surroundings

    before = find_surroundings()
    mask = set() if is_upgraded else signal.pthread_sigmask(signal.SIG_BLOCK, ())
    _serving.append(os.getpid())
    try:
        yield
    finally:
        _serving.clear()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        before.enter()
        before.close()


@contextmanager
def path_kept() -> Iterator[None]:
    """Whatever is imported meanwhile, sys.path is as before at the end."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


def make_plan(application: WSGIApplication | str | os.PathLike[str] | None, given: Mapping[str, object]) -> Plan:
    """What is to be served, with the process made what the settings say. Raises StartError."""
    from epollwsgi.cli import build_banner
    from epollwsgi.config.show import describe_ignored, describe_site_only
    from epollwsgi.process.fleet import Plan
    from epollwsgi.process.origin import is_restartable

    loaded = read_settings(SERVE, given)
    name, found = settle_served(SERVE, loaded, application)
    if found is not None and loaded.settings.reload and not is_restartable():
        raise ConfigError(
            f"{SERVE}: reload = True: nobody knows how to start this program again, which loads an application object "
            "anew; name the application, as in serve('shop:app', reload=True)"
        )
    return Plan(
        loaded.settings,
        name,
        lambda addresses: build_banner(loaded, name, addresses),
        found,
        warnings=list(filter(None, [describe_ignored(loaded), describe_site_only(loaded, name)])),
        static_source=loaded.source("static"),
        locate=loaded.locate,
    )


def read_settings(who: str, given: Mapping[str, object], defaults: Mapping[str, object] | None = None) -> Loaded:
    """The settings that a program gives by their names, and nothing else. Raises ConfigError.

    who: is named in messages.
    """
    for name in COMMAND_LINE_ONLY:
        if name in given:
            raise ConfigError(f"{who}: {name}: the command line has this setting, not a program")
    loaded = Loaded()
    loaded.set("default", defaults or {})
    loaded.set(who, given)
    for refusal in loaded.refused.values():
        raise ConfigError(refusal)
    settle_script_name(loaded)
    settle_threads(loaded, "")
    return loaded


def settle_served(
    who: str, loaded: Loaded, served: WSGIApplication | str | os.PathLike[str] | None
) -> tuple[str, WSGIApplication | None]:
    """The name of the application, '' for a site alone, and the application itself where it was handed over.

    A text is what it is on the command line, a path is a directory; without either it is the setting wsgi_app, or a
    site of the static mounts. Enters the directory of the settings, and what else they say of the process. Raises
    StartError.
    """
    settings = loaded.settings
    if served is None or isinstance(served, str | os.PathLike):
        text = settings.wsgi_app if served is None else os.fspath(served)
        if isinstance(served, os.PathLike) and "/" not in text:
            text = f"./{text}"
        if not text and not settings.static:
            raise ConfigError(f"{who}: nothing to serve: an application, a directory or static mounts are allowed")
        had_root = any(mount.prefix == "/" for mount in settings.static)
        name = settle_target(loaded, text)
        if text and not name:
            if had_root:
                raise ConfigError(f"{who}: static = '/=...' and the directory {text} both want to be served at /")
            loaded.sources["static"] = who
            loaded.item_sources.pop("static", None)
        check(loaded)
        return name, None
    if not callable(served):
        raise ConfigError(
            f"{who}: {describe(served)} is no WSGI application; that, its name, a directory or None is allowed"
        )
    name = name_of(served)
    if problem := describe_mismatch(served, name, is_made=False):
        raise ConfigError(f"{who}: {problem}")
    importer.refuse_monkey_patches()
    enter(settings)
    importer.check_mounts(settings.static, file_of(served), loaded.source("static"))
    check(loaded)
    return name, served


def name_of(application: object) -> str:
    """What a banner calls an application object."""
    return getattr(application, "__name__", "") or type(application).__name__


def file_of(application: object) -> str:
    """The file of the module that an application object comes from, or ''."""
    module = getattr(application, "import_name", None) or getattr(application, "__module__", None)
    return getattr(sys.modules.get(str(module)), "__file__", None) or ""
