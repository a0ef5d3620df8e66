"""The command `epollwsgi [OPTIONS] [APP|DIRECTORY]`: options made from the table, and the order of a start.

It knows how a start is put together and how an operator is spoken to; each step lives in a lower layer.  A mistake of
the user ends in one message and the exit code of its class in `errors`, never in a traceback of ours.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
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

SUMMARY = "Serve a WSGI application or a directory of files."
EXAMPLES = """\
  epollwsgi app:app                            the application `app` in app.py
  epollwsgi 'shop:create_app("live")'          what a factory returns
  epollwsgi ./html                             a static site
  epollwsgi app:app --static /assets=./public  both: files first, the rest to the application
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code of the process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until a worker has its own: TERM ends a start like INT
    try:
        return start(arguments) if arguments is not None else end(start(sys.argv[1:]))
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


def start(arguments: Sequence[str]) -> int:
    """Read the settings, then serve, or do what the options ask for instead. Raises StartError."""
    import click

    command = build_command()
    try:
        found = command.main(list(arguments), prog_name="epollwsgi", standalone_mode=False)
    except click.ClickException as error:
        raise UsageError(f"{error.format_message()} (epollwsgi --help shows all options)") from None
    except click.Abort:
        raise KeyboardInterrupt from None
    if not isinstance(found, tuple):  # --help or --version has answered
        return 0
    target, given = found
    loaded = load(given, os.environ, gunicorn_arguments(command, os.environ.get("GUNICORN_CMD_ARGS", "")))
    if not (target or loaded.settings.wsgi_app or loaded.settings.static or loaded.settings.print_config):
        click.echo(command.get_help(click.Context(command, info_name="epollwsgi")))
        raise UsageError("nothing to serve: name an application or a directory")
    return run(loaded, target or loaded.settings.wsgi_app)


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


def run(loaded: Loaded, target_text: str) -> int:
    """Serve what is named, a site of the static mounts where nothing is; the exit code. Raises StartError."""
    from epollwsgi import importer

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
    if settings.print_config or settings.check_config:
        if settings.print_config:
            print(describe_settings(loaded))
        if application_name:
            load_checked(loaded, application_name)
        return 0
    return serve(loaded, application_name)


def serve(loaded: Loaded, application_name: str, application: WSGIApplication | None = None) -> int:
    """Open listeners, load the application unless it is there, run the worker; the exit code. Raises StartError."""
    from epollwsgi.listener import open_listeners
    from epollwsgi.log import open_logs
    from epollwsgi.process.worker import Worker  # before the application, which may patch what the server is made of

    log, access_log = open_logs(loaded.settings)
    listeners = open_listeners(loaded.settings)
    try:
        if application is None and application_name:
            application = load_checked(loaded, application_name)
        say(build_banner(loaded, application_name, [str(listener) for listener in listeners]))
        if ignored := describe_ignored(loaded):
            log.warning(ignored)
        code = Worker(loaded.settings, application, listeners, log, access_log).run()
    finally:
        for listener in listeners:  # a unix socket would stay behind
            listener.close()
    log.report_held_back()
    return code


def end(code: int) -> int:
    """The exit code; where threads of the application are still at work the process ends here. OPERATIONS.md 2."""
    if threading.active_count() > 1:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    return code


def serve_object(application: WSGIApplication, given: Mapping[str, object]) -> int:
    """What `epollwsgi.serve` does."""
    from epollwsgi import importer

    loaded = Loaded()
    loaded.set("serve()", given)
    enter(loaded.settings)
    importer.check_mounts(loaded.settings.static, "", loaded.source("static"))
    return serve(loaded, getattr(application, "__name__", "") or type(application).__name__, application)


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


def load_checked(loaded: Loaded, application_name: str) -> WSGIApplication:
    """The application, unless a static mount would publish its source. Raises StartError."""
    from epollwsgi import importer

    application = importer.load_application(application_name)
    source = loaded.source("static")
    importer.check_mounts(loaded.settings.static, importer.module_file(application_name), source)
    return application


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
