"""Runs a test's body for several servers at once: what takes long in it is waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.support import Server, ServerFactory

THREADS = (1, 2, 8)


def start_each(start_server: ServerFactory, target: str, *options: str, module: str = "epollwsgi") -> dict[int, Server]:
    """A server for each number of threads."""
    return {threads: start_server(target, "--threads", str(threads), *options, module=module) for threads in THREADS}


def run_for_each(servers: dict[int, Server], body: Callable[[Server, int], None]) -> None:
    """body(server, threads) for all of them side by side; raises what one of them raises."""
    with ThreadPoolExecutor(len(servers)) as pool:
        calls = [pool.submit(body, server, threads) for threads, server in servers.items()]
    for call in calls:
        call.result()
