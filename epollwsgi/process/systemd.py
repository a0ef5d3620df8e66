"""What a service manager is told (sd_notify(3)) and what it hands over (sd_listen_fds(3)).

Called by the master. Without the variables of systemd everything here does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping

from epollwsgi.errors import ConfigError

FIRST_FD = 3  # SD_LISTEN_FDS_START
# Meant for the master alone. By name: an application may have a LISTEN_ADDRESS of its own.
VARIABLES = (
    *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"),
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
)


class Notifier:
    """Tells the service manager how it stands. Nothing waits and nothing raises: serving does not depend on it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = ("\0" + name[1:] if name[:1] == "@" else name) if name[:1] in ("/", "@") else ""
        self._sock: socket.socket | None = None
        self.watchdog_s = watchdog_interval(environ) if self._address else 0.0

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Give back the descriptor; the next message opens another."""
        sock, self._sock = getattr(self, "_sock", None), None
        if sock is not None:
            sock.close()

    def send(self, **fields: object) -> None:
        """One message of `NAME=value` lines."""
        if not self._address:
            return
        lines = [f"{name}={' '.join(str(value).splitlines())}" for name, value in fields.items()]
        try:
            if self._sock is None:  # kept: a ping must go out also when descriptors are short
                self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            message = "\n".join(lines).encode("utf-8", "replace")
            self._sock.sendto(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)
        except OSError:
            pass

    def ready(self, status: str) -> None:
        """The server serves, after a start or a reload."""
        self.send(READY=1, STATUS=status)

    def reloading(self) -> None:
        """A reload begins; `ready` ends it, also one that failed."""
        self.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def stopping(self) -> None:
        """The final stop has begun."""
        self.send(STOPPING=1)

    def status(self, text: str) -> None:
        """A line for `systemctl status`."""
        self.send(STATUS=text)

    def main_pid(self, pid: int) -> None:
        """Which process is the master."""
        self.send(MAINPID=pid)

    def watchdog(self) -> None:
        """The master is alive; due every `watchdog_s`, unless that is 0."""
        self.send(WATCHDOG=1)


def watchdog_interval(environ: Mapping[str, str]) -> float:
    """Seconds between signs of life: half of what the manager waits; 0 where none are asked of this process."""
    limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not is_number(limit) or (pid and pid != str(os.getpid())):
        return 0.0
    return int(limit) / 2_000_000


def passed_listeners(environ: Mapping[str, str]) -> list[int]:
    """The descriptors of listeners that the manager opened for this process, in its order; none survives an exec.

    Raises ConfigError where the variables make no sense.
    """
    for name in ("LISTEN_PID", "LISTEN_FDS"):
        value = environ.get(name, "")
        if value and not is_number(value):
            raise ConfigError(f"environment {name} = {value!r}: a number is allowed")
    if environ.get("LISTEN_PID", "") != str(os.getpid()):
        return []  # for another process: a shell between, or the parent
    found: list[int] = []
    for fd in range(FIRST_FD, FIRST_FD + int(environ.get("LISTEN_FDS") or 0)):
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise ConfigError(
                f"environment LISTEN_FDS = {environ['LISTEN_FDS']!r}: descriptor {fd}: {error.strerror}"
            ) from None
        found.append(fd)
    return found


def strip(environ: MutableMapping[str, str]) -> None:
    """Take out what is meant for the master alone."""
    for name in VARIABLES:
        environ.pop(name, None)


def is_number(text: str) -> bool:
    """True for a number as systemd writes them."""
    return text.isascii() and text.isdigit() and len(text) <= 18
