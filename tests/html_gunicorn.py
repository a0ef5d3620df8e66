"""The tables of html/gunicorn.html: what becomes of each setting of gunicorn 27. Called by html_tables and test_html.

A setting of gunicorn's stands in one of four lists: it means the same here, or something a little different, or it is
accepted without an effect, or it is refused. Knows the tables of the code; what gunicorn has is the test's to compare.
"""

from __future__ import annotations

from html import escape

from epollwsgi.config.differences import DIFFERENCES
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY, Foreign
from epollwsgi.config.settings import OPTIONS, Option

# Settings that gunicorn does not have.
OWN = frozenset(
    """
    access_log_exclude admin allow_source body_buffer_size body_min_rate body_timeout compress dispatch drain_delay
    follow_symlinks forwarded_fields header_timeout limit_request_body limit_request_head limit_spool_total listing
    max_worker_age max_worker_memory no_server_header output_watermark pretty queue_size queue_timeout ready_path
    reload_overlap response_spool revalidate script_name send_timeout slow_request_time spa static switch_interval
    timeout_interrupt upgrade_threads
    """.split()
)


def names_that_mean_the_same() -> list[str]:
    """In the order of the table of settings."""
    return [name for name in OPTIONS if name not in OWN and name not in DIFFERENCES and not OPTIONS[name].refusal]


def names_that_differ() -> list[str]:
    """In the order of the table of settings."""
    return [name for name in OPTIONS if name not in OWN and name in DIFFERENCES and not OPTIONS[name].refusal]


def names_without_effect() -> list[str]:
    """Every value of them is accepted."""
    return [name for name, row in GUNICORN_ONLY.items() if row.refuses is None]


def names_refused() -> list[str]:
    """Some values of them are refused, or all but gunicorn's default."""
    of_the_table = [name for name, option in OPTIONS.items() if option.refusal]
    return of_the_table + [name for name, row in GUNICORN_ONLY.items() if row.refuses is not None]


def build_same() -> str:
    """The names alone, each leading to its row."""
    links = [f'<a href="settings.html#{name}"><code>{name}</code></a>' for name in names_that_mean_the_same()]
    return f'<p class="names">{" ".join(links)}</p>'


def build_differences() -> str:
    """A name and what is different, for each."""
    rows = [
        f'<div id="{name}"><dt><a href="settings.html#{name}">{name}</a></dt>'
        f"<dd>{escape(DIFFERENCES[name], quote=False)}</dd></div>\n"
        for name in names_that_differ()
    ]
    return f'<dl class="terms commands short">\n{"".join(rows)}</dl>'


def build_without_effect() -> str:
    """A name and the reason, for each."""
    return build_reasons(names_without_effect())


def build_refused() -> str:
    """A name and the reason, for each."""
    return build_reasons(names_refused())


def build_reasons(names: list[str]) -> str:
    """Names whose reasons are the same share a row, named by the first."""
    reasons: dict[str, list[str]] = {}
    for name in names:
        reason = OPTIONS[name].refusal if name in OPTIONS else GUNICORN_ONLY[name].reason
        reasons.setdefault(reason, []).append(name)
    rows = []
    for reason, group in reasons.items():
        shown = "<br>".join(f'<span id="{name}">{show_name(name)}</span>' for name in group)
        text = escape(reason[:1].upper() + reason[1:], quote=False)
        rows.append(f"<div><dt>{shown}</dt><dd>{text}.</dd></div>\n")
    return f'<dl class="terms commands">\n{"".join(rows)}</dl>'


def show_name(name: str) -> str:
    """The name of a setting, with its option where that is named otherwise."""
    row: Foreign | Option = OPTIONS[name] if name in OPTIONS else GUNICORN_ONLY[name]
    spelled = "--" + name.replace("_", "-")
    return name if not row.flags or spelled in row.flags else f"{name}, {row.flags[-1]}"
