"""Mutable state that several threads share: all of it, with who owns it. README.md has the same table.

A module that makes a thread, a lock or a queue has a row; what is made so is named in it. A row names nothing that is
not there. `python -m tests.readme_parts` writes the table of README.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from tests.test_layers import PACKAGE

PRIMITIVES = ("Thread", "Lock", "RLock", "Event", "Condition", "Semaphore", "Timer", "SimpleQueue", "Queue", "local")


class Row(NamedTuple):
    """owner: who changes it.  rule: what makes that safe."""

    module: str
    names: tuple[str, ...]
    owner: str
    rule: str


SHARED = (
    Row("baton", ("held", "unanswered"), "leader puts and takes, watch takes; calls", "`dict.pop` by name is atomic"),
    Row(
        "baton",
        ("is_parked", "is_calm", "is_hurried", "_gate"),
        "watch parks, leader wakes it",
        "each writes before it looks",
    ),
    Row("seats", ("order", "lock"), "whoever gives an order; the seat waits", "handed over with the lock"),
    Row("crew", ("queue", "permits", "standby"), "leader appends, seats take", "one atomic operation of a deque"),
    Row("crew", ("at_work", "seats"), "each seat its own entry; whoever makes one", "one atomic operation of a dict"),
    Row("crew", ("leader", "has_permit"), "whoever hands the loop over", "goes with the baton"),
    Row("upgrades", ("calls",), "leader adds, each thread takes out its own", "one atomic operation of a dict"),
    Row("loop", ("inbox", "calls", "is_asleep"), "any thread appends, loop takes", "append, then look who sleeps"),
    Row(
        "loop",
        ("handlers", "ready", "events", "batch", "closing"),
        "the thread that leads",
        "goes with the baton; a thread that has lost the loop touches nothing",
    ),
    Row("output", ("is_owned", "state", "outbox"), "loop, or one call's thread", "one way back: the loop's inbox"),
    Row("output", ("gone",), "loop and the call's thread", "only ever set"),
    Row("routes", ("last", "is_quick", "is_slow"), "whoever made the call", "hints: each value is replaced whole"),
    Row("spool", ("used", "_lock"), "whoever spools", "`_lock`"),
    Row("helper", ("_jobs", "_thread"), "loop puts, thread takes", "`SimpleQueue`; results by `loop.call_soon`"),
    Row("service", ("_reports_later",), "whoever writes a limited line; loop", "asked twice, it reports once more"),
    Row("scoreboard", ("_map",), "each worker its slot, master reads", "aligned words of shared memory"),
    Row("logs/access_log", ("entries", "_flushing"), "any thread appends, one flushes", "`_flushing` is only tried"),
    Row("logs/error_log", ("_kinds",), "whoever writes a limited line; loop", "counts that may miss one, no more"),
    Row("logs/sink", ("lost_count", "rest", "turn", "_lock"), "whoever writes a line", "one at a time, by `turn`"),
    Row("logs/writer", ("_queue", "_thread", "lost_count", "_lock"), "any thread puts, one writes", "`_lock`"),
    Row("logs/reopening", (), "a thread for each USR1", "handlers of `logging` have locks of their own"),
    Row("process/station", ("_has_asked",), "loop; calls, by their hooks", "the master takes the first"),
    Row("process/reloader", (), "a thread watches files", "says once, by `on_change`, that one has changed"),
    Row("process/sources", ("LOADED", "BEFORE"), "who imports; who watches", "one atomic operation of a dict"),
    Row("process/sources", ("_told",), "worker tells once, watching thread takes", "one value, replaced whole"),
    Row("process/broken_page", ("application", "traceback"), "loop; whoever made the call", "each is replaced whole"),
    Row("process/engines", ("_stop",), "watching thread", "`Event`, for the library it uses"),
    Row("process/background", ("_ready", "_thread", "_lock"), "thread of the server; its test", "`Event`; `_lock`"),
)  # fmt: skip


def build_table() -> str:
    """The table of README.md."""
    rows = ["| module | state | who changes it | what makes that safe |", "|---|---|---|---|"]
    for row in SHARED:
        names = ", ".join(f"`{name}`" for name in row.names)
        rows.append(f"| `{row.module}` | {names} | {row.owner} | {row.rule} |")
    return "\n".join(rows)


def modules() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE).with_suffix(""))


@cache
def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def primitives_in(module: str) -> Iterator[tuple[str, str]]:
    """What is made, and the name of the attribute that it is given to; '' where it is given to a variable, or none."""
    named: dict[ast.Call, str] = {}
    for node in ast.walk(parse(module)):
        value = getattr(node, "value", None) if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Call):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target  # type: ignore[attr-defined]
            named[value] = target.attr if isinstance(target, ast.Attribute) else ""
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            is_of_threads = not isinstance(function, ast.Attribute) or getattr(function.value, "id", "") == "threading"
            if name in PRIMITIVES and is_of_threads:
                yield name, named.get(node, "")


def attributes_of(module: str) -> set[str]:
    """All that the module and its objects have: what is assigned to an attribute, or to a name of the module."""
    found = {node.target.id for node in parse(module).body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


@pytest.mark.parametrize("row", SHARED, ids=lambda row: f"{row.module}-{row.names[0] if row.names else 'thread'}")
def test_a_row_names_what_is_there(row: Row) -> None:
    assert set(row.names) <= attributes_of(row.module)


def test_whatever_makes_threads_or_locks_has_a_row() -> None:
    listed = {(row.module, name) for row in SHARED for name in ("", *row.names)}
    made = {(module, name) for module in modules() for _, name in primitives_in(module)}
    assert made, "nothing is found"
    assert not made - listed
