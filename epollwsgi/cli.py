"""The command `epollwsgi [OPTIONS] [APP|DIRECTORY]`: options made from the table, and the order of a start.

It knows how a start is put together and how an operator is spoken to; each step lives in a lower layer.  A mistake of
the user ends in one message and the exit code of its class in `errors`, never in a traceback of ours.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from epollwsgi import __version__
from epollwsgi.config.load import (
    COMMAND_LINE,
    Loaded,
    describe_ignored,
    describe_not_honoured,
    describe_settings,
    load,
)
from epollwsgi.config.settings import DEFAULTS, IGNORED, OPTIONS, Option, Settings, show
from epollwsgi.config.values import StaticMount
from epollwsgi.errors import ConfigError, StartError, UsageError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    import click

    from epollwsgi.process.fleet import Plan

SUMMARY = "Serve a WSGI application or a directory of files."
EXAMPLES = """\
  epollwsgi app:app                            the application `app` in app.py
  epollwsgi 'shop:create_app("live")'          what a factory returns
  epollwsgi ./html                             a static site
  epollwsgi app:app --static /assets=./public  both: files first, the rest to the application
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code of the process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until a master has its own: TERM ends a start like INT
    try:
        return start(sys.argv[1:] if arguments is None else arguments, is_command=arguments is None)
    except StartError as error:
        say(f"epollwsgi: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        say("epollwsgi: stopped\n")
        return 0


def say(text: str) -> None:
    """Something for the operator, on standard error, if there is one."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


# --- the command line -----------------------------------------------------------------------------------------------


def start(arguments: Sequence[str], is_command: bool = False) -> int:
    """Read the settings, then serve, or do what the options ask for instead. Raises StartError.

    is_command: the process was started for nothing else, so that its command can be started again.
    """
    found = parse_command(arguments)
    if found is None:  # --help or --version has answered
        return 0

    from epollwsgi.process.origin import find_origin
    from epollwsgi.process.start import run_master  # before the settings: the dry run of an upgrade wants it sound
    from epollwsgi.process.upgrade import take_state

    state = take_state(os.environ)
    origin = find_origin(is_command)
    loaded, target = load_all(*found)
    plan = make_plan(loaded, target)
    if loaded.settings.print_config:
        print(describe_settings(loaded))
    if loaded.settings.print_config or loaded.settings.check_config:
        check_plan(plan)
        return 0
    plans = [plan]  # the first is made already; a reload makes another

    def read() -> Plan:
        return plans.pop() if plans else make_plan(*load_all(*found))

    return run_master(read, origin, state)


def parse_command(arguments: Sequence[str]) -> tuple[str, dict[str, object]] | None:
    """The positional argument and the options given; None where an option has answered already. Raises UsageError."""
    import click

    try:
        found = build_command().main(list(arguments), prog_name="epollwsgi", standalone_mode=False)
    except click.ClickException as error:
        raise UsageError(f"{error.format_message()} (epollwsgi --help shows all options)") from None
    except click.Abort:
        raise KeyboardInterrupt from None
    return found if isinstance(found, tuple) else None


def load_all(target: str, given: Mapping[str, object]) -> tuple[Loaded, str]:
    """The settings of all sources, and what they serve. Raises StartError."""
    command = build_command()
    loaded = load(given, os.environ, gunicorn_arguments(command, os.environ.get("GUNICORN_CMD_ARGS", "")))
    if not (target or loaded.settings.wsgi_app or loaded.settings.static or loaded.settings.print_config):
        import click

        click.echo(command.get_help(click.Context(command, info_name="epollwsgi")))
        raise UsageError("nothing to serve: name an application or a directory")
    return loaded, target or loaded.settings.wsgi_app


def gunicorn_arguments(command: click.Command, text: str) -> dict[str, object]:
    """The options in GUNICORN_CMD_ARGS. Raises ConfigError."""
    import shlex

    import click

    if not text.strip():
        return {}
    try:
        found = command.main(shlex.split(text), prog_name="epollwsgi", standalone_mode=False)
    except (click.ClickException, ValueError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        raise ConfigError(f"environment GUNICORN_CMD_ARGS: {message}") from None
    if not isinstance(found, tuple) or found[0]:
        raise ConfigError(f"environment GUNICORN_CMD_ARGS: options alone are allowed, not {text!r}")
    return dict(found[1])


def build_command() -> click.Command:
    """The click command, with an option for each row of the table that has flags; it returns (target, given values)."""
    import click

    class Grouped(click.Command):
        """Shows the options under the headings of the table."""

        def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            sections: dict[str, list[tuple[str, str]]] = {}
            for parameter in self.get_params(ctx)[1:]:  # the first is the argument
                option = OPTIONS.get(str(parameter.name))
                record = parameter.get_help_record(ctx)
                if record is not None:
                    sections.setdefault(option.section if option else "Start", []).append(record)
            for section, records in sections.items():
                with formatter.section(section):
                    formatter.write_dl(records, col_max=34)

        def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            formatter.write("\nExamples:\n" + EXAMPLES)

    @click.pass_context
    def collect(ctx: click.Context, /, target: str | None, **values: object) -> tuple[str, dict[str, object]]:
        return target or "", given_values(ctx, values)

    def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted:
            click.echo(f"epollwsgi {__version__}")
            ctx.exit()

    version = click.Option(
        ["-v", "--version", "version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show_version,
        help="show the version and exit",
    )
    return Grouped(
        "epollwsgi",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        callback=collect,
        params=[click.Argument(["target"], required=False, metavar="[APP|DIRECTORY]"), *build_options(), version],
        help=SUMMARY,
    )


def build_options() -> list[click.Option]:
    """An option for each row of the table that has flags, and a hidden one for each of gunicorn's that is ignored."""
    import click

    options = [
        click.Option([*option.flags, name], **click_attributes(name, option))
        for name, option in OPTIONS.items()
        if option.flags
    ]
    for name, flags in IGNORED.items():
        switches = [flag.removesuffix(".") for flag in flags]
        if switches:
            more: dict[str, Any] = {"is_flag": True} if flags[0].endswith(".") else {"multiple": True}
            options.append(click.Option([*switches, name], hidden=True, **more))
    return options


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


# --- a start --------------------------------------------------------------------------------------------------------


def make_plan(loaded: Loaded, target_text: str) -> Plan:
    """What is to be served: what is named, or a site of the static mounts. Raises StartError."""
    from epollwsgi import importer
    from epollwsgi.process.fleet import Plan

    settings = loaded.settings
    enter(settings)
    importer.prepare_path(settings.pythonpath)
    target = importer.parse_target(target_text, settings) if target_text else None
    if isinstance(target, importer.Directory):
        settings = loaded.settings = replace(settings, static=site_mounts(loaded, target.path))
    importer.check_mounts(settings.static, "", loaded.source("static"))
    application_name = target.text if isinstance(target, importer.Application) else ""
    if not application_name and target is None:
        for mount in settings.static:
            importer.check_site(mount.directory, settings.allow_source)
    return Plan(
        settings,
        application_name,
        lambda addresses: build_banner(loaded, application_name, addresses),
        warnings=list(filter(None, [describe_ignored(loaded)])),
        static_source=loaded.source("static"),
    )


def check_plan(plan: Plan) -> None:
    """Look at all that a start looks at, and load the application as a worker would. Raises StartError."""
    from epollwsgi import importer
    from epollwsgi.process.hooks import find_hooks
    from epollwsgi.process.privileges import find_identity

    find_hooks(plan.settings)
    identity = find_identity(plan.settings)
    if identity is not None:
        identity.drop(plan.settings.initgroups)
    if plan.application_name:
        importer.load_checked(plan.application_name, plan.settings, plan.static_source)


def serve_object(application: WSGIApplication, given: Mapping[str, object]) -> int:
    """What `epollwsgi.serve` does."""
    from epollwsgi import importer
    from epollwsgi.process.fleet import Plan
    from epollwsgi.process.origin import find_origin
    from epollwsgi.process.start import run_master

    name = getattr(application, "__name__", "") or type(application).__name__

    def read() -> Plan:
        loaded = Loaded()
        loaded.set("serve()", given)
        enter(loaded.settings)
        importer.check_mounts(loaded.settings.static, "", loaded.source("static"))
        return Plan(loaded.settings, name, lambda addresses: build_banner(loaded, name, addresses), application)

    return run_master(read, find_origin(is_command=False), None)


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


def site_mounts(loaded: Loaded, directory: str) -> tuple[StaticMount, ...]:
    """The static mounts with a site at `/`; it takes the place of one in a settings file. Raises UsageError."""
    others = tuple(mount for mount in loaded.settings.static if mount.prefix != "/")
    if len(others) < len(loaded.settings.static) and loaded.source("static") == COMMAND_LINE:
        raise UsageError(f"--static /=... and the directory {directory} both want to be served at /")
    loaded.sources["static"] = f"{COMMAND_LINE} and {loaded.source('static')}" if others else COMMAND_LINE
    return (*others, StaticMount("/", directory))


def build_banner(loaded: Loaded, application_name: str, addresses: Sequence[str]) -> str:
    """What is served, where, and how to stop it."""
    settings = loaded.settings
    rows = [("at", address) for address in addresses]
    if application_name:
        rows.insert(0, ("serving", application_name))
    rows += [
        ("files", f"{mount.prefix} from {mount.directory}  ({loaded.source('static')})") for mount in settings.static
    ]
    rows += [("settings", name) for name in loaded.files]
    rows += [("note", note) for note in loaded.notes]
    if text := describe_not_honoured(loaded):
        rows.append(("note", text))
    how = "Ctrl+C" if sys.stdin is not None and sys.stdin.isatty() else f"kill {os.getpid()}"
    rows.append(("pid", f"{os.getpid()}; stop with {how}"))
    return f"epollwsgi {__version__}\n" + "".join(f"  {label:<9} {text}\n" for label, text in rows)
