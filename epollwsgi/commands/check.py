"""`epollwsgi check DIRECTORY`: what is wrong with a site, said before it is deployed.

Takes the words of the server's own command line and looks at what they would serve, through the eyes of the serving
code: what it would not send, or not as meant, is a finding. `commands.files` looks at the files, `commands.rules` at
the rules.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from epollwsgi.command_help import write_section
from epollwsgi.command_line import (
    as_directory,
    build_options,
    call_command,
    given_values,
    load_settings,
    settle_target,
)
from epollwsgi.commands.files import FileCheck
from epollwsgi.commands.rules import RuleCheck
from epollwsgi.commands.serving import open_handler
from epollwsgi.commands.show import count_of, show_path
from epollwsgi.commands.tree import open_root
from epollwsgi.errors import UsageError
from epollwsgi.importer import load_checked

if TYPE_CHECKING:
    import click

    from epollwsgi.config.settings import Settings

EXAMPLES: Final = (
    ("epollwsgi check ./html", "a site"),
    ("epollwsgi check app:app --static /assets=./public", "an application, and the files beside it"),
)
MAX_FINDINGS: Final = 10_000


def run(arguments: Sequence[str]) -> int:
    """The command; 1 where there is a finding. Raises StartError."""
    found = call_command(build_command(), arguments)
    if not isinstance(found, tuple):  # --help has answered
        return 0
    target, given = found
    loaded = load_settings(given)
    # A directory that looks like source code is one of the findings here.
    loaded.settings = replace(loaded.settings, allow_source=True)
    application = settle_target(loaded, as_directory(target or loaded.settings.wsgi_app))
    if not application and not loaded.settings.static:
        raise UsageError("nothing to check: name a directory or an application (epollwsgi check --help)")
    if application:
        load_checked(application, loaded.settings, loaded.source("static"))
    return report(loaded.settings, application)


def build_command() -> click.Command:
    """The click command; it returns (target, given values)."""
    import click

    @click.pass_context
    def collect(ctx: click.Context, /, target: str | None, **values: object) -> tuple[str, dict[str, object]]:
        return target or "", given_values(ctx, values)

    class Shown(click.Command):
        """Shows examples below the options."""

        def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            write_section(formatter, "Examples", EXAMPLES)

    return Shown(
        "epollwsgi check",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        callback=collect,
        params=[
            click.Argument(["target"], required=False, metavar="[DIRECTORY|APP]"),
            *build_options(("Static files",)),
        ],
        help="Look for mistakes in a site: compressed copies that are stale or corrupt, links that leave it, hidden "
        "files, unknown types, names that differ in case only, and what is wrong in _headers and _redirects. One line "
        "for each, exit code 1 if there is any. All options of the server are understood.",
    )


def report(settings: Settings, application: str) -> int:
    """Show all findings; the exit code. Raises ConfigError."""
    import click

    count = file_count = 0
    handler = open_handler(settings, application)
    for mount in settings.static:
        root = open_root(mount.directory, follow_symlinks=settings.follow_symlinks)
        rules = RuleCheck(mount.directory, mount.prefix, root)
        files = FileCheck(mount.directory, root, is_top=mount.prefix == "/", has_type=rules.has_type)
        for finding in chain(files.findings(), rules.findings(handler)):
            count += 1
            if count > MAX_FINDINGS:
                click.echo(f"... and more: {MAX_FINDINGS} findings are shown")
                return 1
            click.echo(str(finding))
        file_count += files.file_count
    where = ", ".join(show_path(os.fsencode(mount.directory)) for mount in settings.static) or application
    found = count_of(count, "finding") if count else "nothing found"
    click.echo(f"{where}: {found} in {count_of(file_count, 'file')}")
    return 1 if count else 0
