"""The command `epollwsgi [OPTIONS] [APP|DIRECTORY]`: options made from the table, and the order of a start.

It knows how a start is put together and how an operator is spoken to; each step lives in a lower layer.  A mistake of
the user ends in one message and the exit code of its class in `errors`, never in a traceback of ours.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from epollwsgi import __version__
from epollwsgi.command_help import write_epilog, write_options
from epollwsgi.command_line import (
    build_options,
    call_command,
    complete_flag,
    drop_output,
    given_values,
    load_settings,
    settle_target,
)
from epollwsgi.commands.table import COMMANDS, run_command
from epollwsgi.config.checks import check
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.load import COMMAND_LINE, Loaded
from epollwsgi.config.show import describe_ignored, describe_not_honoured, describe_settings, describe_site_only
from epollwsgi.errors import ConfigError, StartError, UsageError

if TYPE_CHECKING:
    import click

    from epollwsgi.process.fleet import Plan

SUMMARY = "Serve a WSGI application or a directory of files."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code of the process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until a master has its own: TERM ends a start like INT
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if "_EPOLLWSGI_COMPLETE" in os.environ:
            from epollwsgi.completion import complete

            return complete(build_command())
        if words and words[0] in COMMANDS:
            return run_command(words[0], words[1:])
        return start(words, is_command=arguments is None)
    except StartError as error:
        say(f"epollwsgi: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        if arguments is None:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # a second one changes nothing
        say("epollwsgi: stopped\n")
        if arguments is None:
            end_process(0)
        return 0


def say(text: str) -> None:
    """Something for the operator, on standard error, if there is one; it may quote what would upset a terminal."""
    text = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
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
    plans: list[Plan] = []  # the first is made below; a reload makes another

    def read(old: Plan | None) -> Plan:
        return plans.pop() if plans else make_plan(*load_all(*found, in_force=old.found if old is not None else ()))

    try:
        plan = make_plan(loaded, target)
        plans.append(plan)
        if is_checked(loaded, plan, is_named=bool(found[0])):
            return 0
        code = run_master(read, origin, state)
    except ConfigError as error:
        raise loaded.locate(error) from None
    if is_command:
        end_process(code)
    return code


def end_process(code: int) -> NoReturn:
    """The server has ended. Signals that come now change nothing, and threads that a preloaded application has left
    running are not waited for.
    """
    from epollwsgi.process.ending import run_exit_functions

    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    run_exit_functions()
    os._exit(code)


def is_checked(loaded: Loaded, plan: Plan, *, is_named: bool) -> bool:
    """Do what --print-config and --check-config ask for; False where a server is wanted. Raises StartError.

    is_named: the command line says what is served. What is in order is passed over in silence.
    """
    if not (loaded.settings.print_config or loaded.settings.check_config):
        return False
    if loaded.settings.print_config:
        sources = loaded.sources | ({"wsgi_app": COMMAND_LINE} if is_named else {})
        settings = replace(loaded.settings, wsgi_app=plan.application_name)
        write_output(describe_settings(replace(loaded, settings=settings, sources=sources)))
    check_plan(plan)  # first: a mistake is one line
    for text in filter(None, [*plan.warnings, *loaded.notes, describe_not_honoured(loaded)]):
        say(f"epollwsgi: {text}\n")
    return True


def write_output(text: str) -> None:
    """A text on standard output in UTF-8, whatever the locale; a reader may leave early. Raises ConfigError."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        if not isinstance(error, BrokenPipeError):
            raise ConfigError(f"standard output: {error.strerror}") from None


def help_setting(name: str, given: Mapping[str, object]) -> None:
    """Show all about one setting, with its value if the settings can be read. Raises UsageError."""
    from epollwsgi.setting_help import describe_setting

    try:
        loaded, problem = load_settings(given), ""
    except ConfigError as error:
        loaded, problem = None, str(error).partition("\n")[0]
    write_output(describe_setting(name, loaded, problem))


def parse_command(arguments: Sequence[str]) -> tuple[str, dict[str, object]] | None:
    """The positional argument and the options given; None where an option has answered already. Raises UsageError."""
    found = call_command(build_command(), arguments)
    return found if isinstance(found, tuple) else None


def load_all(target: str, given: Mapping[str, object], in_force: Collection[str] = ()) -> tuple[Loaded, str]:
    """The settings of all sources, and what they serve. in_force: as `load` has it. Raises StartError."""
    loaded = load_settings(given, in_force)
    if not (target or loaded.settings.wsgi_app or loaded.settings.static or loaded.settings.print_config):
        import click

        click.echo(build_command().get_help(click.Context(build_command(), info_name="epollwsgi")))
        hint = f" ({GUNICORN_ONLY['paste'].reason})" if "paste" in loaded.ignored else ""
        raise UsageError(f"nothing to serve: name an application or a directory{hint}")
    return loaded, target or loaded.settings.wsgi_app


def build_command() -> click.Command:
    """The click command, with an option for each row of the table that has flags; it returns (target, given values)."""
    import click

    class Grouped(click.Command):
        """Shows the options under the headings of the table."""

        def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            write_options(formatter, ctx, self)

        def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            write_epilog(formatter, COMMANDS)

    @click.pass_context
    def collect(ctx: click.Context, /, target: str | None, asked: str, **values: object) -> object:
        given = given_values(ctx, values)
        if not asked:
            return target or "", given
        help_setting(asked, given)
        return None

    def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
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
    about = click.Option(["--help-setting", "asked"], metavar="NAME", help="show all about one setting and exit")
    return Grouped(
        "epollwsgi",
        context_settings={
            "help_option_names": ["-h", "--help"],
            "token_normalize_func": complete_flag,
            "max_content_width": 110,
        },
        callback=collect,
        params=[
            click.Argument(["target"], required=False, metavar="[APP|DIRECTORY]"),
            *build_options(),
            about,
            version,
        ],
        help=SUMMARY,
    )


# --- a start --------------------------------------------------------------------------------------------------------


def make_plan(loaded: Loaded, target_text: str) -> Plan:
    """What is to be served: what is named, or a site of the static mounts. Raises StartError."""
    from epollwsgi.process.fleet import Plan

    try:
        application_name = settle_target(loaded, target_text)
    except ConfigError as error:
        raise loaded.locate(error) from None
    check(loaded)
    return Plan(
        loaded.settings,
        application_name,
        lambda addresses: build_banner(loaded, application_name, addresses),
        warnings=list(filter(None, [describe_ignored(loaded), describe_site_only(loaded, application_name)])),
        static_source=loaded.source("static"),
        locate=loaded.locate,
        notes=tuple(loaded.notes),
        found=tuple(loaded.found),
        paths=tuple(loaded.paths),
    )


def check_plan(plan: Plan) -> None:
    """Look at all that a start looks at, and load the application as a worker would. Raises StartError."""
    from epollwsgi import importer
    from epollwsgi.logs.opening import checked_logs
    from epollwsgi.process.hooks import find_hooks
    from epollwsgi.process.privileges import find_identity

    with checked_logs(plan.settings):
        find_hooks(plan.settings)
        identity = find_identity(plan.settings)
        if identity is not None:
            identity.drop(plan.settings.initgroups)
        if plan.application_name and plan.application is None:
            importer.load_checked(plan.application_name, plan.settings, plan.static_source)


def build_banner(loaded: Loaded, application_name: str, addresses: Sequence[str]) -> str:
    """What is served, where, and how to stop it."""
    settings = loaded.settings
    rows = [("at", address) for address in addresses]
    if application_name:
        rows.insert(0, ("serving", application_name))
    rows += [
        ("files", f"{mount.prefix} from {mount.directory}  ({loaded.source('static', number)})")
        for number, mount in enumerate(settings.static)
    ]
    rows += [("settings", name) for name in loaded.files]
    rows += [("note", note) for note in loaded.notes]
    if text := describe_not_honoured(loaded):
        rows.append(("note", text))
    how = "Ctrl+C" if sys.stdin is not None and sys.stdin.isatty() else f"kill {os.getpid()}"
    rows.append(("pid", f"{os.getpid()}; stop with {how}"))
    return f"epollwsgi {__version__}\n" + "".join(f"  {label:<9} {text}\n" for label, text in rows)
