"""The command line: options made from the table of settings, and how its words become settings and what is served.

It knows click, the sources of settings and what a target may be; it opens nothing and loads no application. Called by
`cli`, and by the sub-commands that take the same words as the server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from epollwsgi import importer
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.load import COMMAND_LINE, Loaded, load
from epollwsgi.config.settings import DEFAULTS, OPTIONS, Option, Settings
from epollwsgi.config.show import show
from epollwsgi.config.values import StaticMount
from epollwsgi.errors import ConfigError, UsageError

if TYPE_CHECKING:
    import click

LEAST_BEGINNING = 3  # of an option's name
LONG_NAMES = {
    flag[2:]
    for flags in [row.flags for table in (OPTIONS, GUNICORN_ONLY) for row in table.values()]
    for flag in flags
    if flag.startswith("--")
}


def call_command(command: click.Command, arguments: Sequence[str]) -> Any:
    """What a command's callback returns, or an exit code where --help has answered. Raises UsageError, ConfigError."""
    import click

    name = command.name or "epollwsgi"
    try:
        return command.main(list(arguments), prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        raise UsageError(f"{error.format_message()} ({name} --help shows all options)") from None
    except click.Abort:
        raise KeyboardInterrupt from None
    except OSError as error:  # what --help or --version has to say
        drop_output()
        raise ConfigError(f"standard output: {error.strerror}") from None


def drop_output() -> None:
    """Standard output cannot be written: the interpreter would try once more with the rest when it ends."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def build_options(sections: Sequence[str] = ()) -> list[click.Option]:
    """An option for each row of the table that has flags, and a hidden one for each of gunicorn's that is ignored.

    sections: the help shows the options of these only.
    """
    import click

    options = [
        click.Option(
            [*option.flags, name],
            hidden=bool(sections) and option.section not in sections,
            **click_attributes(name, option),
        )
        for name, option in OPTIONS.items()
        if option.flags
    ]
    for name, foreign in GUNICORN_ONLY.items():
        if foreign.flags:
            more: dict[str, Any] = {"multiple": True} if foreign.metavar else {"is_flag": True}
            options.append(click.Option([*foreign.flags, name], hidden=True, **more))
    return options


def complete_flag(name: str) -> str:
    """An option's name without its dashes, whole where an unmistakable beginning is given, which gunicorn takes too."""
    if len(name) < LEAST_BEGINNING or name in LONG_NAMES:
        return name
    meant = [flag for flag in LONG_NAMES if flag.startswith(name)]
    return meant[0] if len(meant) == 1 else name


def click_attributes(name: str, option: Option) -> dict[str, Any]:
    """How click is told about an option."""
    attributes: dict[str, Any] = {"help": option.help}
    default = getattr(DEFAULTS, name)
    if option.metavar:
        attributes |= {"metavar": option.metavar, "type": str, "multiple": bool(option.many)}
        if default not in ("", ()) and name != "access_log_format":
            shown = ",".join(map(str, default)) if option.many else show(name, default).strip('"')
            attributes["help"] += f"  [{shown}]"
    else:
        attributes["is_flag"] = True
    if option.optional:
        attributes |= {"is_flag": False, "flag_value": option.optional}
    if not option.honoured:
        attributes["help"] += "  (not yet honoured)"
    return attributes


def given_values(ctx: click.Context, values: Mapping[str, object]) -> dict[str, object]:
    """The options that stand on the command line, by the names of their settings."""
    from click.core import ParameterSource

    given: dict[str, object] = {}
    for name, value in values.items():
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = OPTIONS.get(name)
            given[name] = option.const if option and not option.metavar else value
            if isinstance(value, tuple):
                given[name] = list(value)
    return given


def load_settings(given: Mapping[str, object], in_force: Collection[str] = ()) -> Loaded:
    """The settings from all their sources, with what stands on the command line. Raises ConfigError.

    in_force: as `load` has it.
    """
    return load(given, os.environ, gunicorn_arguments(os.environ.get("GUNICORN_CMD_ARGS", "")), in_force)


def gunicorn_arguments(text: str) -> dict[str, object]:
    """The options in GUNICORN_CMD_ARGS. Raises ConfigError."""
    import shlex

    import click

    if not text.strip():
        return {}

    @click.pass_context
    def collect(ctx: click.Context, /, words: tuple[str, ...], **values: object) -> dict[str, object]:
        if words:
            raise ConfigError(f"environment GUNICORN_CMD_ARGS: options alone are allowed, not {text!r}")
        return given_values(ctx, values)

    command = click.Command(
        "epollwsgi",
        callback=collect,
        params=[click.Argument(["words"], nargs=-1), *build_options()],
        add_help_option=False,
        context_settings={"token_normalize_func": complete_flag},
    )
    try:
        found: dict[str, object] = command.main(shlex.split(text), prog_name="epollwsgi", standalone_mode=False)
    except (click.ClickException, ValueError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        raise ConfigError(f"environment GUNICORN_CMD_ARGS: {message}") from None
    return found


def enter(settings: Settings) -> None:
    """Make directory, environment and umask what the settings say, before anything is opened. Raises ConfigError."""
    if settings.chdir:
        try:
            os.chdir(settings.chdir)
        except OSError as error:
            raise ConfigError(f"chdir = {settings.chdir!r}: {error.strerror}") from None
    if settings.tmp_upload_dir and not os.access(settings.tmp_upload_dir, os.W_OK | os.X_OK):
        reason = os.strerror(13) if os.path.isdir(settings.tmp_upload_dir) else "no such directory"
        raise ConfigError(f"tmp_upload_dir = {settings.tmp_upload_dir!r}: {reason}")
    for item in settings.raw_env:
        name, _, value = item.partition("=")
        os.environ[name] = value
    if settings.umask is not None:
        os.umask(settings.umask)


def as_directory(text: str) -> str:
    """A target, with a slash where it can only be meant as a directory: a bare name is a module for the server."""
    is_module = os.path.exists(f"{text}.py") or os.path.exists(os.path.join(text, "__init__.py"))
    return f"./{text}" if "/" not in text and os.path.isdir(text) and not is_module else text


def settle_target(loaded: Loaded, text: str) -> str:
    """Enter the directory of the settings and make the mounts those of `text`; the name of an application, or ''.

    text: an application or a directory; '': a site of the static mounts alone. Raises StartError.
    """
    settings = loaded.settings
    enter(settings)
    importer.prepare_path(settings.pythonpath)
    target = importer.parse_target(text, settings) if text else None
    if isinstance(target, importer.Directory):
        settings = loaded.settings = replace(settings, static=site_mounts(loaded, target.path))
    sources = [loaded.source("static", number) for number in range(len(settings.static))]
    importer.check_mounts(settings.static, "", sources)
    if target is None:
        for mount in settings.static:
            importer.check_site(mount.directory, settings.allow_source)
    return target.text if isinstance(target, importer.Application) else ""


def site_mounts(loaded: Loaded, directory: str) -> tuple[StaticMount, ...]:
    """The static mounts with a site at `/`; it takes the place of one in a settings file. Raises UsageError."""
    kept = [number for number, mount in enumerate(loaded.settings.static) if mount.prefix != "/"]
    others = tuple(loaded.settings.static[number] for number in kept)
    if len(others) < len(loaded.settings.static) and loaded.source("static") == COMMAND_LINE:
        raise UsageError(f"--static /=... and the directory {directory} both want to be served at /")
    loaded.item_sources["static"] = (*(loaded.source("static", number) for number in kept), COMMAND_LINE)
    loaded.sources["static"] = f"{COMMAND_LINE} and {loaded.source('static')}" if others else COMMAND_LINE
    return (*others, StaticMount("/", directory))
