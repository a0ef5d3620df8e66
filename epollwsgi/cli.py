"""The command `epollwsgi [OPTIONS] [APP|DIRECTORY]`: options made from the table, and the order of a start.

It knows how a start is put together and how an operator is spoken to; each step lives in a lower layer.  A mistake of
the user ends in one message and the exit code of its class in `errors`, never in a traceback of ours.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from epollwsgi import __version__
from epollwsgi.command_line import build_options, call_command, enter, given_values, load_settings, settle_target
from epollwsgi.commands.table import COMMANDS, run_command
from epollwsgi.config.load import (
    Loaded,
    describe_ignored,
    describe_not_honoured,
    describe_settings,
)
from epollwsgi.config.settings import OPTIONS
from epollwsgi.errors import StartError, UsageError

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
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words and words[0] in COMMANDS:
            return run_command(words[0], words[1:])
        return start(words, is_command=arguments is None)
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
    found = call_command(build_command(), arguments)
    return found if isinstance(found, tuple) else None


def load_all(target: str, given: Mapping[str, object]) -> tuple[Loaded, str]:
    """The settings of all sources, and what they serve. Raises StartError."""
    loaded = load_settings(given)
    if not (target or loaded.settings.wsgi_app or loaded.settings.static or loaded.settings.print_config):
        import click

        click.echo(build_command().get_help(click.Context(build_command(), info_name="epollwsgi")))
        raise UsageError("nothing to serve: name an application or a directory")
    return loaded, target or loaded.settings.wsgi_app


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
            formatter.write("\nCommands, each with a --help of its own:\n")
            for name, (_, what) in COMMANDS.items():
                formatter.write(f"  epollwsgi {name:<10} {what}\n")
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


# --- a start --------------------------------------------------------------------------------------------------------


def make_plan(loaded: Loaded, target_text: str) -> Plan:
    """What is to be served: what is named, or a site of the static mounts. Raises StartError."""
    from epollwsgi.process.fleet import Plan

    application_name = settle_target(loaded, target_text)
    return Plan(
        loaded.settings,
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
