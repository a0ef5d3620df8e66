"""The upgrade in place: a dry run of the new code, then the master executes itself under the same process id.

What the new image needs goes through one inherited memfd: listeners, scoreboard, the pipes and ages of the workers.
Signals are blocked around the exec and stay so until the new image's handlers stand; those that come meanwhile wait.
Called by `process.master`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from epollwsgi.errors import ConfigError
from epollwsgi.process.origin import Origin
from epollwsgi.process.signals import fork

VARIABLE = "_EPOLLWSGI_STATE"  # the descriptor of the memfd; not a setting
DRY_RUN = "_EPOLLWSGI_DRY_RUN"  # tells `epollwsgi.serve` in a program to check what it is given, and no more
DRY_RUN_PASSED = 83  # what such a program ends with then: 0 is the end of any that does not come so far
OUTPUT_SIZE = 65536
State = dict[str, Any]


def save(state: State) -> int:
    """A descriptor of a memfd that holds the state."""
    fd = os.memfd_create("epollwsgi-state")
    with open(os.dup(fd), "wb") as file:
        file.write(json.dumps(state).encode("ascii"))
    return fd


def take_state(environ: MutableMapping[str, str]) -> State | None:
    """What the image before has left, taken out of the environment; None for a start of its own. Raises ConfigError."""
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        with open(int(text), "rb") as file:
            file.seek(0)
            state: State = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"environment {VARIABLE}: no state of an upgrade: {error}") from None
    return state


def execute(origin: Origin, state: State, fds: Iterable[int]) -> None:
    """Become the new image; `fds` stay open in it, and signals blocked. Raises OSError, with everything as it was."""
    kept = [*fds, save(state)]
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        with inherited(kept):
            os.chdir(origin.directory)
            os.execve(origin.command[0], list(origin.command), {**origin.environ, VARIABLE: str(kept[-1])})
    finally:
        os.fchdir(here)
        os.close(here)
        os.close(kept[-1])


@contextmanager
def inherited(fds: Iterable[int]) -> Iterator[None]:
    """Descriptors that survive an exec, for as long as this lasts."""
    fds = list(fds)
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        yield
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)


@dataclass(slots=True)
class DryRun:
    """`--check-config` of the command, or the program up to its call of `serve`, in a process of its own."""

    pid: int
    fd: int
    is_program: bool

    def problem(self, status: int) -> str:
        """What was wrong, by the status of its end; '' for nothing. Asked once."""
        code = os.waitstatus_to_exitcode(status)
        if code == (DRY_RUN_PASSED if self.is_program else 0):
            return ""
        early = "the program ended before it called epollwsgi.serve" if self.is_program and not code else ""
        return "\n".join(filter(None, (self.read_output(), early))) or "the dry run failed"

    def read_output(self) -> str:
        """What it has said; once, after its end."""
        with open(self.fd, "rb") as file:
            file.seek(0)
            return file.read(OUTPUT_SIZE).decode("utf-8", "replace").strip()


def start_dry_run(origin: Origin) -> DryRun:
    """Start it. Raises OSError."""
    fd = os.memfd_create("epollwsgi-dry-run", os.MFD_CLOEXEC)
    try:
        pid = fork()
    except OSError:
        os.close(fd)
        raise
    if pid == 0:
        try:
            become_dry_run(origin, fd)
        finally:
            os._exit(127)
    return DryRun(pid, fd, origin.is_program)


def become_dry_run(origin: Origin, fd: int) -> None:
    """In the child: the command with --check-config, its words into `fd`; or the program, told by a variable."""
    for standard in (1, 2):
        os.dup2(fd, standard)
    command, environ = list(origin.command), {**origin.environ, DRY_RUN: "1"}
    if origin.is_program:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    else:
        command, environ = origin.command_with("--check-config"), origin.environ
    try:
        os.chdir(origin.directory)
        os.umask(origin.umask)
        os.execve(command[0], command, environ)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
