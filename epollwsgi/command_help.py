"""How `--help` looks: options under the headings of the table, commands and examples, at any width from 60 columns up.

It knows click's formatter and the table; nothing is decided here. Called by `cli`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from epollwsgi.config.settings import OPTIONS

if TYPE_CHECKING:
    import click

Row = tuple[str, str]  # what is typed, and what it does

INDENT: Final = 2
MOST_LEFT: Final = 34  # columns for options, at most
SOURCES: Final = """\
Each setting may also stand in ./epollwsgi.toml, in [tool.epollwsgi] of ./pyproject.toml, in a file in gunicorn's \
format (./gunicorn.conf.py), and in the environment as EPOLLWSGI_NAME; the command line wins over all of them. \
`epollwsgi --help-setting NAME` tells all about one, `epollwsgi --print-config` what is in effect and why."""
EXAMPLES: Final[tuple[Row, ...]] = (
    ("epollwsgi app:app", "the application `app` in app.py"),
    ("epollwsgi 'shop:create_app(\"live\")'", "what a factory returns"),
    ("epollwsgi ./html", "a static site"),
    ("epollwsgi app:app --static /assets=./public", "both: files first, the rest to the application"),
    ("epollwsgi -w auto -b :8000 -p run.pid app:app", "a worker for each CPU, reachable from other machines"),
    ("epollwsgi --reload app:app", "for development: restarts when the code changes"),
    (
        'eval "$(_EPOLLWSGI_COMPLETE=bash_source epollwsgi)"',
        "in ~/.bashrc: completion by TAB; for other shells zsh_source or fish_source",
    ),
)


def write_options(formatter: click.HelpFormatter, context: click.Context, command: click.Command) -> None:
    """The options, section by section."""
    sections: dict[str, list[Row]] = {}
    for parameter in command.get_params(context)[1:]:  # the first is the argument
        option = OPTIONS.get(str(parameter.name))
        record = parameter.get_help_record(context)
        if record is not None:
            if parameter.name == "help":  # click's own words begin with a capital
                record = record[0], "show this help and exit"
            sections.setdefault(option.section if option else "Start", []).append(record)
    for section, rows in sections.items():
        write_section(formatter, section, rows)


def write_epilog(formatter: click.HelpFormatter, commands: Mapping[str, tuple[str, str]]) -> None:
    """Where settings stand, the commands, the examples."""
    from textwrap import wrap

    formatter.write_paragraph()
    formatter.write("".join(f"{line}\n" for line in wrap(SOURCES, formatter.width, break_on_hyphens=False)))
    rows = [(f"epollwsgi {name}", what) for name, (_, what) in commands.items()]
    write_section(formatter, "Commands, each with a --help of its own", rows)
    write_section(formatter, "Examples", EXAMPLES)


def write_section(formatter: click.HelpFormatter, heading: str, rows: Iterable[Row]) -> None:
    """A heading and its rows in two columns, of which the left one is never the wider."""
    from textwrap import wrap

    left = min(MOST_LEFT, formatter.width * 2 // 5)
    formatter.write_paragraph()
    formatter.write_heading(heading)
    for typed, what in rows:
        names = wrap_names(typed, formatter.width - INDENT)
        texts = wrap(what, formatter.width - left, break_on_hyphens=False)
        if texts and len(names[-1]) <= left - 2 * INDENT:
            names[-1] = f"{names[-1]:<{left - INDENT}}{texts.pop(0)}"
        formatter.write("".join(f"{'':{INDENT}}{line}\n" for line in names))
        formatter.write("".join(f"{'':{left}}{line}\n" for line in texts))


def wrap_names(typed: str, width: int) -> list[str]:
    """The names of an option on as few lines as they need, each whole."""
    lines = [""]
    for name in typed.split(", "):
        joined = f"{lines[-1]}, {name}" if lines[-1] else name
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines[-1] += ","
            lines.append(name)
    return lines
