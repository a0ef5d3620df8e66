"""A process that imports what it is told and watches it, as a worker with --reload does. Started by test_reloader.

usage: python -m tests.process.watched ENGINE MODULE [EXTRA ...]      in the directory of the modules

It writes `watching`, or `watching after a failure`, and `changed FILE` on standard output, and answers each line of
its standard input, the name of a module, with `imported MODULE`. With ENGINE `none` it can open no file for an engine.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
from contextlib import suppress

from epollwsgi.config.settings import Settings
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.sink import Sink
from epollwsgi.process.reloader import start_watching
from epollwsgi.process.sources import note_loading


def use_all_descriptors() -> None:
    """So that an engine of the kernel cannot be had."""
    limit = 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with suppress(OSError):
        for _ in range(limit):
            os.dup(0)


def main() -> None:
    choice, module, *extra = sys.argv[1:]
    for package in ("select", "watchfiles", "logging"):  # what is needed below
        with suppress(ImportError):
            importlib.import_module(package)
    # The checkout is no part of the application: somebody may be at work there.
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    globals().pop("__file__")
    sys.path[:] = [os.getcwd(), *(entry for entry in sys.path if not os.path.isdir(f"{entry}/epollwsgi"))]
    log = ErrorLog(Sink("-", 2), "debug")
    note_loading()
    failed: BaseException | None = None
    try:
        importlib.import_module(module)
    except Exception as error:
        failed = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)  # without this file
    if choice == "none":
        use_all_descriptors()
        choice = "inotify"
    settings = Settings(reload=True, reload_engine=choice, reload_extra_files=tuple(extra))
    start_watching(settings, lambda file: print("changed", file, flush=True), log, failed)
    print("watching after a failure" if failed else "watching", flush=True)
    for line in sys.stdin:
        importlib.import_module(line.strip())
        print("imported", line.strip(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
