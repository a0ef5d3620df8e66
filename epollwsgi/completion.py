"""Completion in bash, zsh and fish: options and their values, applications, directories, sub-commands.

click has the scripts and the protocol: a shell that has read `_EPOLLWSGI_COMPLETE=bash_source epollwsgi` starts the
command again with the words so far in COMP_WORDS, for each stroke of TAB. This module knows what may stand where. It
reads the names of files, and of modules their text; it imports and runs none of them. Called by `cli`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from epollwsgi.commands.table import COMMANDS
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.settings import OPTIONS, Option
from epollwsgi.config.values import Choice

if TYPE_CHECKING:
    Item = CompletionItem[Any]
else:
    Item = CompletionItem  # no generic class in click 8.1
Items = Iterable[Item]

VARIABLE: Final = "_EPOLLWSGI_COMPLETE"
METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
MOST_NAMES: Final = 1000  # of a directory that are looked at
MOST_READ: Final = 64 << 10  # bytes of a module that are looked at
NO_APPLICATIONS: Final = re.compile(r"(?:setup|conftest|manage|test_.*|.*_test|gunicorn\.conf)\.py")
APPLICATION: Final = re.compile(
    r"^(?:(app|application)[ \t]*(?::[^=\n]+)?=(?!=)|def (app|application)\()", re.MULTILINE
)
FACTORY: Final = re.compile(r"^def create_app\(", re.MULTILINE)


def complete(command: click.Command) -> int:
    """Answer the shell; the exit code. command: the server's own."""
    shell, _, action = os.environ[VARIABLE].partition("_")
    kind = SHELLS.get(shell)
    if kind is None or action not in ("source", "complete"):
        return 1
    completion = kind(command, {}, "epollwsgi", VARIABLE)
    try:
        answer = completion.source() if action == "source" else completion.complete()
    except (KeyError, ValueError):  # no shell has asked: COMP_WORDS or COMP_CWORD is not there, or no number
        return 1
    if answer:
        click.echo(os.fsencode(answer.rstrip("\n")))  # names of files may hold any bytes
    return 0


# --- which command, and its parameters ------------------------------------------------------------------------------


class OwnComplete(ShellComplete):
    """What all shells have in common: sub-commands as the first word, and values by the table."""

    def get_completions(self, args: list[str], incomplete: str) -> list[Item]:
        """What may stand in place of `incomplete`, after the words in `args`."""
        found = []
        if args and args[0] in COMMANDS:
            self.cli = import_module(COMMANDS[args[0]][0]).build_command()
            args = args[1:]
        elif not args:
            found = [Item(name, help=what) for name, (_, what) in COMMANDS.items() if name.startswith(incomplete)]
        for parameter in self.cli.params:
            if not getattr(parameter, "is_flag", False):
                parameter.type = Completed(parameter)
        found += super().get_completions(args, incomplete)
        flag, equals, _ = incomplete.partition("=")
        if equals and flag.startswith("--"):  # the shell replaces the whole word
            found = [Item(f"{flag}={item.value}") if item.type == "plain" else item for item in found]
        return found


class OwnBash(OwnComplete, BashComplete):
    """bash, which takes words apart at colons and equals signs, and replaces the last part only."""

    kept = 0  # characters of the word that stand before that part

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        parts = split_arg_string(os.environ["COMP_WORDS"])
        index = int(os.environ["COMP_CWORD"])
        before, incomplete, last = join_parts([*parts[:index], parts[index] if index < len(parts) else ""])
        self.kept = len(incomplete) - len(last)
        return before[1:], incomplete

    def format_completion(self, item: Item) -> str:
        """A line of the answer."""
        return f"{item.type},{item.value[self.kept :] if item.type == 'plain' else item.value}"


class OwnZsh(OwnComplete, ZshComplete):
    """zsh."""


class OwnFish(OwnComplete, FishComplete):
    """fish; what it is told must not end at the first comma."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')


SHELLS: Final[dict[str, type[OwnComplete]]] = {"bash": OwnBash, "zsh": OwnZsh, "fish": OwnFish}


def join_parts(parts: list[str]) -> tuple[list[str], str, str]:
    """The words that bash took apart, the last of them, and the part of it that bash will replace.

    The signs of an option's value go: `--bind = :8000` is `--bind` with `:8000`.
    """
    words: list[str] = []
    is_open = False  # the word before goes on
    last = ""
    for part in parts:
        is_sign = bool(part) and not part.strip(":=")
        last = "" if is_sign else part
        if is_sign and words and words[-1].startswith("--") and part[0] == "=":
            words.append(part[1:])
        elif is_open or (is_sign and words and not words[-1].startswith("-")):
            words[-1] += part
        else:
            words.append(part)
        is_open = is_sign
    return words[:-1], words[-1], last


# --- values ---------------------------------------------------------------------------------------------------------


class Completed(click.types.StringParamType):
    """The values of one parameter."""

    def __init__(self, parameter: click.Parameter) -> None:
        self._name = str(parameter.name)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Item]:
        """What may stand in place of `incomplete`."""
        if find := BY_NAME.get(self._name):
            return list(find(incomplete))
        option = OPTIONS.get(self._name)
        return list(option_values(self._name, option, incomplete)) if option else []


def option_values(name: str, option: Option, incomplete: str) -> Items:
    """Values of a setting."""
    if isinstance(option.parse, Choice):
        before = incomplete[: incomplete.rfind(",") + 1] if option.many == "list" else ""
        return matching((before + word for word in option.parse.allowed), incomplete)
    if option.metavar in ("FILE", "DIR", "DIRS"):
        return [Item(incomplete, type="file" if option.metavar == "FILE" else "dir")]
    if "=" in option.metavar:
        return mount_values(incomplete) if name == "static" else []
    try:
        takes_auto = option.parse("auto") is None
    except ValueError:
        takes_auto = False
    return matching(["auto"], incomplete) if takes_auto else []


def matching(words: Iterable[str], incomplete: str) -> Items:
    """The words that begin so."""
    return [Item(word) for word in words if word.startswith(incomplete)]


def setting_names(incomplete: str) -> Items:
    """Names for --help-setting."""
    return matching([*OPTIONS, *GUNICORN_ONLY], incomplete)


def methods(incomplete: str) -> Items:
    """Request methods."""
    return matching(METHODS, incomplete.upper())


def directories(incomplete: str) -> Items:
    """The shell's own list of directories."""
    return [Item(incomplete, type="dir")]


def mount_values(incomplete: str) -> Items:
    """/PREFIX=DIR, from the equals sign on."""
    prefix, equals, path = incomplete.partition("=")
    if not equals:
        return []
    parent, _, begun = path.rpartition("/")
    before = f"{prefix}={parent}/" if "/" in path else f"{prefix}="
    names = [entry.name for entry in listing(parent or ("/" if "/" in path else ".")) if entry.is_dir()]
    return [Item(f"{before}{name}/") for name in names if name.startswith(begun)]


def users(incomplete: str) -> Items:
    """Names of users."""
    import pwd

    return matching(sorted(entry.pw_name for entry in pwd.getpwall()), incomplete)


def groups(incomplete: str) -> Items:
    """Names of groups."""
    import grp

    return matching(sorted(entry.gr_name for entry in grp.getgrall()), incomplete)


def targets(incomplete: str) -> Items:
    """What the server may serve: a directory where there is a slash, else an application; both where nothing is."""
    if "/" in incomplete or incomplete.startswith((".", "~")):
        return directories(incomplete)
    found = [name for name in applications(incomplete) if name.startswith(incomplete)]
    sites = [f"./{entry.name}/" for entry in listing(".") if entry.is_dir()] if not incomplete else []
    return [Item(name) for name in found + sites]


BY_NAME: Final[dict[str, Callable[[str], Items]]] = {
    "target": targets,
    "directory": directories,
    "method": methods,
    "asked": setting_names,
    "user": users,
    "group": groups,
}


# --- applications ---------------------------------------------------------------------------------------------------


def applications(incomplete: str) -> Iterator[str]:
    """Names of what look like WSGI applications, in the directory that the begun name leads to."""
    package = incomplete.partition(":")[0].rpartition(".")[0]
    if package and not all(part.isidentifier() for part in package.split(".")):
        return
    before = f"{package}." if package else ""
    for entry in listing(os.path.join(".", *package.split("."))):
        name = entry.name.removesuffix(".py")
        if not name.isidentifier():
            continue
        if name != entry.name and not NO_APPLICATIONS.fullmatch(entry.name):
            yield from applications_in(f"{before}{name}", entry.path)
        elif name == entry.name and entry.is_dir():
            yield from applications_in(f"{before}{name}", os.path.join(entry.path, "__init__.py"))
            yield from applications_in(f"{before}{name}.wsgi", os.path.join(entry.path, "wsgi.py"))


def applications_in(module: str, path: str) -> Iterator[str]:
    """What a module's text gives a name of an application to."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_READ)
    except OSError:
        return
    names = dict.fromkeys(match[1] or match[2] for match in APPLICATION.finditer(text))
    yield from (f"{module}:{name}" for name in names)
    if not names and FACTORY.search(text):
        yield module  # create_app is found by the server; its brackets would need quotes


def listing(directory: str) -> list[os.DirEntry[str]]:
    """The entries of a directory that are not hidden, by name; none where it cannot be read."""
    from itertools import islice

    try:
        with os.scandir(directory) as entries:
            found = [entry for entry in islice(entries, MOST_NAMES) if not entry.name.startswith((".", "__pycache__"))]
    except OSError:
        return []
    return sorted(found, key=lambda entry: entry.name)
