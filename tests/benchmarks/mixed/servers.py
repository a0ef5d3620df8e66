"""The servers of `tests.benchmarks.servers` with a number of threads, and epollwsgi as a plain pool.

A server without a row in OPTIONS runs with the threads that it chooses: granian's own number, bjoern's one.
"""

from __future__ import annotations

import importlib
from dataclasses import replace

from tests.benchmarks.mixed.rows import POOL
from tests.benchmarks.report import OURS
from tests.benchmarks.servers import SERVERS, Server, Task, version_of_epollwsgi

OPTIONS = {
    "epollwsgi": ("--threads={}",),
    POOL: ("--threads={}", "--dispatch=pool"),
    "gunicorn": ("--threads={}",),  # the last one counts
    "waitress": ("--threads={}",),
}


def version_of_pool() -> str | None:
    """None while the checkout has no setting that makes it a plain pool."""
    version = version_of_epollwsgi()
    known = version and importlib.import_module("epollwsgi.config.settings").OPTIONS
    return version if known and "dispatch" in known else None


def with_threads(server: Server, threads: int) -> Server:
    """The same server, `threads` of them in the application; options stand before the application, which is last."""
    options = [option.format(threads) for option in OPTIONS.get(server.name, ())]

    def command(task: Task) -> list[str]:
        words = server.command(task)
        return [*words[:-1], *options, words[-1]] if options else words

    return replace(server, command=command)


BY_NAME = {server.name: server for server in SERVERS if "application" in server.serves}
BY_NAME[POOL] = replace(BY_NAME[OURS], name=POOL, version=version_of_pool)
