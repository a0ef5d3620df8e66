"""Makes the tables of html/ from the code: `python -m tests.html_tables` rewrites them in the pages.

Between `<!-- NAME:begin -->` and `<!-- NAME:end -->` a page holds what the function of that name in its part of TABLES
returns. Knows the tables of settings, signals, hooks and media types and the classes of errors; test_html.py compares
the pages with what is made here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from html import escape
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from epollwsgi import errors
from epollwsgi.config.load import PREFIX, VARIABLES, load
from epollwsgi.config.settings import DEFAULTS, OPTIONS, Option
from epollwsgi.config.show import show
from epollwsgi.http.response import REASONS
from epollwsgi.process.hooks import HOOKS, Hook
from epollwsgi.process.signals import MASTER_SIGNALS, WORKER_SIGNALS, Table
from epollwsgi.static.media_types import CHARSET, MEDIA_TYPES, TYPES
from tests import html_gunicorn, html_logs

SITE = Path(__file__).resolve().parent.parent / "html"
NOTHING = ('""', "[]", "none", '"none"')
UNITS = {"": "", "seconds": " seconds", "bytes": " bytes", "octal": ""}
HEAD = (
    '<thead><tr><th scope="col">Setting, option, variable</th><th scope="col">Default</th>'
    '<th scope="col">Meaning</th></tr></thead>'
)
LATER = "not yet honoured"
MISTAKES = (
    ("epollwsgi.toml", 'workers = 2\nkeep_alive = "75s"\n'),
    ("epollwsgi.toml", 'bind = "127.0.0.1:99999"\n'),
    ("gunicorn.conf.py", 'import os\n\ntimeout = "half a minute"\n'),
)


def build_settings() -> str:
    """A table for each section of the settings, in the order in which the code declares them."""
    sections: dict[str, list[str]] = {}
    for name, option in OPTIONS.items():
        sections.setdefault(option.section, []).append(build_setting(name, option))
    names = {section: re.sub("[^a-z]+", "-", section.lower()) for section in sections}
    links = [f'<li><a href="#{name}">{escape(section, quote=False)}</a></li>\n' for section, name in names.items()]
    return f'<ul class="jump">\n{"".join(links)}</ul>\n' + "\n".join(
        f'<h3 id="{names[section]}">{escape(section, quote=False)}</h3>\n'
        '<table class="settings">\n'
        f"{HEAD}\n"
        f"<tbody>\n{''.join(rows)}</tbody>\n</table>"
        for section, rows in sections.items()
    )


def build_setting(name: str, option: Option) -> str:
    """One row: name, flags and variable, default with its unit, meaning."""
    forms = [*show_flags(option), *show_variables(name, option)]
    more = "".join(f"<br><code>{escape(form, quote=False)}</code>" for form in forms)
    default = show_default(name, option)
    later = "" if option.honoured else f' <span class="later">{"refused so far" if option.refusal else LATER}</span>'
    return (
        f'<tr id="{name}"><th scope="row"><code class="setting">{name}</code>{more}</th>'
        f"<td>{default}</td><td>{escape(option.help, quote=False)}{later}</td></tr>\n"
    )


def show_variables(name: str, option: Option) -> list[str]:
    """The environment variables that fill a setting; a function or a table fits into none."""
    if option.metavar in ("FUNCTION", "TABLE"):
        return []
    return [PREFIX + name.upper(), *(variable for variable, setting in VARIABLES if setting == name)]


def show_flags(option: Option) -> list[str]:
    """The flags as they are typed: short and long on one line, what else there is below it."""
    if not option.flags:
        return []
    short = [flag for flag in option.flags if not flag.startswith("--")]
    long = [flag for flag in option.flags if flag.startswith("--")]
    first = ", ".join(short + long[:1])
    metavar = f"[={option.metavar}]" if option.optional else f" {option.metavar}" if option.metavar else ""
    return [first + metavar, *long[1:]]


def show_default(name: str, option: Option) -> str:
    """The default as in a settings file, without the quotes of a text."""
    text = show(name, getattr(DEFAULTS, name))
    if text in NOTHING:
        return "none"
    if len(text) > 2 and text.startswith('"'):
        text = text[1:-1].replace('\\"', '"')
    return f"<code>{escape(text, quote=False)}</code>{UNITS[option.unit]}"


def build_mistakes() -> str:
    """What is said of a few mistakes in settings files."""
    lines = [describe_load(name, text) for name, text in MISTAKES]
    return f'<pre class="wrap"><samp>{escape(chr(10).join(lines), quote=False)}</samp></pre>'


def describe_load(name: str, text: str) -> str:
    """What ends a start in a directory with that file, or else what is noted of it."""
    before = os.getcwd()
    with TemporaryDirectory() as directory:
        Path(directory, name).write_text(text, "utf-8")
        os.chdir(directory)
        try:
            return "\n".join(load({}, {}).notes)
        except errors.ConfigError as error:
            return f"epollwsgi: {error}"
        finally:
            os.chdir(before)


def build_one_thread() -> str:
    """What the first lines of a start say of a settings file that names neither class nor threads."""
    text = describe_load("gunicorn.conf.py", "workers = 3\n")
    return f'<pre class="wrap"><samp>{escape(text, quote=False)}</samp></pre>'


def build_signals() -> str:
    """A table of the signals that the master takes."""
    return build_signal_rows(MASTER_SIGNALS)


def build_worker_signals() -> str:
    """A table of the signals that a worker takes."""
    return build_signal_rows(WORKER_SIGNALS)


def build_signal_rows(signals: Table) -> str:
    """A row for each signal, by its name without SIG."""
    rows = [(number.name.removeprefix("SIG"), escape(text, quote=False)) for number, (_, text) in signals.items()]
    return build_rows(("Signal", "Effect"), rows)


def build_hooks() -> str:
    """What each hook is called with, when, and what follows if it raises."""
    return f'<dl class="terms commands">\n{"".join(build_hook(name, hook) for name, hook in HOOKS.items())}</dl>'


def build_hook(name: str, hook: Hook) -> str:
    """One hook; the signatures that it may have instead stand below the first."""
    signatures = "<br>".join([f"{name}({hook.signatures[0]})", *(f"or ({one})" for one in hook.signatures[1:])])
    when = OPTIONS[name].help
    text = f"{when[:1].upper()}{when[1:]}. If it raises, {hook.consequence}."
    return f'<div id="{name}"><dt>{signatures}</dt><dd>{escape(text, quote=False)}</dd></div>\n'


def build_exit_codes() -> str:
    """A table of the classes that end a start, by their exit codes."""
    codes = [(kind.exit_code, describe(kind)) for kind in errors.StartError.__subclasses__()]
    return build_rows(("Code", "Meaning"), [(0, "Stopped by a signal."), *sorted(codes)])


def build_refusals() -> str:
    """A table of the refusals of a request, by their statuses."""
    kinds = sorted((kind.status, describe(kind)) for kind in errors.HTTPError.__subclasses__())
    rows = [
        (f"{status} {REASONS[status]}", "<br>".join(text for _, text in group))
        for status, group in groupby(kinds, key=lambda kind: kind[0])
    ]
    return build_rows(("Status", "When"), rows)


def build_media_types() -> str:
    """A table of the endings of names, by the media type that they stand for."""
    head = '<thead><tr><th scope="col">Content-Type</th><th scope="col">Ending of the name</th></tr></thead>'
    rows = []
    for name, text in TYPES.items():
        endings = text.split()
        charset = CHARSET if MEDIA_TYPES[endings[0].encode("ascii")].endswith(CHARSET.encode("ascii")) else ""
        shown = ", ".join(f".{ending}" for ending in endings)
        rows.append(f'<tr><th scope="row">{name}{charset}</th><td>{shown}</td></tr>\n')
    return f'<table class="types">\n{head}\n<tbody>\n{"".join(rows)}</tbody>\n</table>'


def build_rows(heads: tuple[str, str], rows: list[tuple[int, str]] | list[tuple[str, str]]) -> str:
    """A plain table of two columns."""
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = "".join(f'<tr><th scope="row" class="number">{key}</th><td>{text}</td></tr>\n' for key, text in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def describe(kind: type) -> str:
    """The first line of a class's docstring."""
    return escape((kind.__doc__ or "").strip().partition("\n")[0], quote=False)


Tables = Mapping[str, Callable[[], str]]

TABLES: dict[str, Tables] = {
    "settings.html": {
        "mistakes": build_mistakes,
        "settings": build_settings,
        "exit-codes": build_exit_codes,
        "refusals": build_refusals,
    },
    "gunicorn.html": {
        "one-thread": build_one_thread,
        "differences": html_gunicorn.build_differences,
        "same": html_gunicorn.build_same,
        "without-effect": html_gunicorn.build_without_effect,
        "refused": html_gunicorn.build_refused,
    },
    "logs.html": {
        "presets": html_logs.build_presets,
        "atoms": html_logs.build_atoms,
        "json-fields": html_logs.build_json_fields,
    },
    "static.html": {"media-types": build_media_types},
    "processes.html": {"signals": build_signals, "worker-signals": build_worker_signals, "hooks": build_hooks},
}


def fill(page: str, tables: Tables) -> str:
    """The page with every table made anew. Raises ValueError if a pair of markers is not there exactly once."""
    for name, build in tables.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise ValueError(f"the page must hold {begin!r} and {end!r} once each")
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{build()}\n{end}{rest.partition(end)[2]}"
    return page


def main() -> None:
    """Rewrite the pages."""
    for name, tables in TABLES.items():
        path = SITE / name
        path.write_text(fill(path.read_text("utf-8"), tables), "utf-8")


if __name__ == "__main__":
    main()
