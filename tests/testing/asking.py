"""Requests by the client of the standard library, and what a process looks like from the inside."""

from __future__ import annotations

import gc
import http.client
import os
import resource
import signal
import sys
import threading
from contextlib import closing
from dataclasses import dataclass


@dataclass
class Answer:
    """A whole response."""

    status: int
    body: bytes
    fields: http.client.HTTPMessage


def ask(
    address: tuple[str, int], path: str = "/", method: str = "GET", body: bytes | None = None, timeout_s: float = 20.0
) -> Answer:
    """One request on a connection of its own."""
    with closing(http.client.HTTPConnection(*address, timeout=timeout_s)) as connection:
        return ask_on(connection, path, method, body)


def ask_on(
    connection: http.client.HTTPConnection, path: str = "/", method: str = "GET", body: bytes | None = None
) -> Answer:
    """One request on a connection that may stay open."""
    connection.request(method, path, body)
    with connection.getresponse() as response:
        return Answer(response.status, response.read(), response.headers)


def descriptors() -> dict[int, str]:
    """Every descriptor of this process, with what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # that of the directory itself
    return found


def state_of_process() -> dict[str, object]:
    """What a server for tests must leave as it is."""
    umask = os.umask(0o077)
    os.umask(umask)
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd)
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "wakeup_fd": wakeup_fd,
        "switch_interval": sys.getswitchinterval(),
        "frozen": gc.get_freeze_count(),
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "umask": umask,
        "directory": os.getcwd(),
        "environ": dict(os.environ),
        "path": list(sys.path),
        "threads": {thread.name for thread in threading.enumerate()},
    }
