"""How this process was started: directory, environment, umask, sys.path and command, to be entered again.

A reload reads the settings as a new start would, so what the last start changed is undone first. The directory is
entered by its name: a release behind a symbolic link that was flipped meanwhile is the one that is loaded.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

from epollwsgi.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Origin:
    """See the module. command: how to start it again; empty where nobody can know.

    is_program: it starts a program that calls `epollwsgi.serve`, and takes no options of the server.
    """

    directory: str
    environ: dict[str, str]
    umask: int
    sys_path: tuple[str, ...]
    command: tuple[str, ...] = ()
    is_program: bool = False

    def restore(self) -> None:
        """Be where the start was. Raises OSError where its directory is gone."""
        os.chdir(self.directory)
        os.umask(self.umask)
        set_environment(self.environ)
        sys.path[:] = self.sys_path

    def command_with(self, option: str) -> list[str]:
        """The command with one option more, put before the others so that nothing hides it."""
        count = len(sys.argv) - 1
        head = self.command[: len(self.command) - count]
        return [*head, option, *self.command[len(head) :]]


def find_origin(is_command: bool, is_program: bool = False) -> Origin:
    """That of this process, asked before anything is changed. is_command: started as `epollwsgi`."""
    directory = name_of_directory()
    umask = os.umask(0o077)
    os.umask(umask)
    command: tuple[str, ...] = ()
    if (is_command or (is_program and is_restartable())) and sys.executable and len(sys.orig_argv) >= len(sys.argv):
        command = (sys.executable, *sys.orig_argv[1:])
    path = tuple(entry for entry in sys.path if entry not in ("", os.getcwd()))
    return Origin(directory, dict(os.environ), umask, path, command, is_program)


def is_restartable() -> bool:
    """Whether the interpreter was started for a program, and nobody sits before it."""
    return bool(sys.argv) and sys.argv[0] not in ("", "-") and not sys.flags.interactive


def name_of_directory() -> str:
    """The current directory by the name that its user gave it ($PWD), where that is right. Raises ConfigError."""
    try:
        here = os.getcwd()
    except OSError as error:
        raise ConfigError(f"the directory of the start: {error.strerror}") from None
    name = os.environ.get("PWD", "")
    try:
        return name if os.path.isabs(name) and os.path.samefile(name, here) else here
    except OSError:
        return here


def set_environment(environ: dict[str, str]) -> None:
    """Make os.environ that, without ever being empty in between."""
    os.environ.update(environ)
    for name in [name for name in os.environ if name not in environ]:
        del os.environ[name]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the settings of one generation have made of the process; its workers enter it, whatever came since.

    directory: a descriptor, so that a worker started later loads the release that its generation had.
    """

    directory: int
    environ: dict[str, str] = field(repr=False)
    umask: int
    sys_path: tuple[str, ...]

    def enter(self) -> None:
        """In a child of the master."""
        os.fchdir(self.directory)
        os.umask(self.umask)
        set_environment(self.environ)
        sys.path[:] = self.sys_path

    def close(self) -> None:
        """The generation is over."""
        os.close(self.directory)


def find_surroundings() -> Surroundings:
    """Those of this moment."""
    umask = os.umask(0o077)
    os.umask(umask)
    return Surroundings(os.open(".", os.O_PATH | os.O_CLOEXEC), dict(os.environ), umask, tuple(sys.path))
