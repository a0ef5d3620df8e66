"""Makes the parts of README.md that come from the code: `python -m tests.readme_parts` rewrites them.

Between `<!-- NAME:begin -->` and `<!-- NAME:end -->` the page holds what the function of that name in PARTS returns;
test_readme.py compares. The commands of the page are read here too, so that nothing states them a second time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from epollwsgi.config.settings import DEFAULTS, OPTIONS, Option
from epollwsgi.config.show import show
from epollwsgi.process.signals import MASTER_SIGNALS, WORKER_SIGNALS, Table
from tests.test_layers import LAYERS
from tests.test_shared_state import build_table

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "README.md"
COMMAND = r"<!-- command:%s -->\n```sh\n(.+)\n```\n"


def build_settings() -> str:
    """The settings that have an effect, and below them the names of the others."""
    rows = ["| setting | option | default | meaning |", "|---|---|---|---|"]
    rows += [build_setting(name, option) for name, option in OPTIONS.items() if option.honoured]
    waiting = [f"`{name}`" for name, option in OPTIONS.items() if not option.honoured and not option.refusal]
    refused = [f"`{name}`" for name, option in OPTIONS.items() if option.refusal]
    return (
        "\n".join(rows)
        + f"\n\nAccepted and checked, but not yet honoured: {', '.join(waiting)}."
        + f" Refused until they are: {', '.join(refused)}."
    )


def build_setting(name: str, option: Option) -> str:
    """One row of the table of settings."""
    flags = ", ".join(f"`{flag}`" for flag in option.flags) + (f" {option.metavar}" if option.metavar else "")
    value = getattr(DEFAULTS, name)
    default = value if isinstance(value, str) else show(name, value).strip('"')
    shown = f"`{default}`" if default not in ("", "[]") else ""
    if option.unit == "seconds":
        shown += " s"
    return f"| `{name}` | {flags if option.flags else ''} | {shown} | {option.help.replace('|', chr(92) + '|')} |"


def build_signals() -> str:
    """The signals that the master takes."""
    return build_signal_rows("signal to the master", MASTER_SIGNALS)


def build_worker_signals() -> str:
    """The signals that a worker takes."""
    return build_signal_rows("signal to a worker", WORKER_SIGNALS)


def build_signal_rows(head: str, signals: Table) -> str:
    """A row for each signal, by its name without SIG."""
    rows = [f"| {number.name.removeprefix('SIG')} | {text} |" for number, (_, text) in signals.items()]
    return "\n".join([f"| {head} | effect |", "|---|---|", *rows])


def build_layers() -> str:
    """The layers, highest first."""
    lines = []
    for number, modules, purpose in reversed(LAYERS):
        lines.append(f"{number:>3}  {purpose}")
        lines.append(f"       {'  '.join(modules)}")
    return "```text\n" + "\n".join(lines) + "\n```"


PARTS: dict[str, Callable[[], str]] = {
    "settings": build_settings,
    "signals": build_signals,
    "worker-signals": build_worker_signals,
    "layers": build_layers,
    "shared-state": build_table,
}


def fill(page: str) -> str:
    """The page with every part made anew. Raises ValueError if a pair of markers is not there exactly once."""
    for name, build in PARTS.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise ValueError(f"the page must hold {begin!r} and {end!r} once each")
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{build()}\n{end}{rest.partition(end)[2]}"
    return page


def command(name: str) -> str:
    """The one-line command of that name, as the page gives it: `run` or `test`."""
    found = re.findall(COMMAND % name, PAGE.read_text("utf-8"))
    if len(found) != 1:
        raise ValueError(f"README.md must give the command {name!r} once")
    return str(found[0])


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text("utf-8")), "utf-8")
