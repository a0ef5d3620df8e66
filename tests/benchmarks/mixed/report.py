"""Figures to Markdown: medians, and whether the bounds hold. Pure: no process, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from tests.benchmarks.mixed.rows import COLUMNS, Bound, Row
from tests.benchmarks.report import NONE, OURS, markdown_table

# Others that used more of a core than this make a verdict doubtful, whichever way it goes.
SHARED_PERCENT = 25.0

Results = Mapping[tuple[str, str], Sequence[Mapping[str, float]]]


def value_of(results: Results, row: Row, server: str, figure: str) -> float | None:
    """Median over the rounds; None where nothing was measured."""
    samples = results.get((row.name, server))
    return median(sample[figure] for sample in samples) if samples else None


def show(value: float | None) -> str:
    """Three digits that matter, or more before the point."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def figures_table(results: Results, row: Row, servers: Sequence[str]) -> str:
    """One line for each server, related figures in one column."""
    columns = COLUMNS[row.kind]
    lines = []
    for server in servers:
        if server in row.servers:
            cells = [[show(value_of(results, row, server, name)) for name in names] for _, names in columns]
            lines.append([server, *(NONE if NONE in cell else " / ".join(cell) for cell in cells)])
    return markdown_table(["", *(heading for heading, _ in columns)], lines)


def judge(results: Results, row: Row, bound: Bound) -> tuple[str, str, str]:
    """Three cells: what was measured, what it is held against, whether it holds."""
    ours = value_of(results, row, OURS, bound.figure)
    is_absolute = not (bound.of or bound.server)
    reference = 1.0 if is_absolute else value_of(results, row, bound.server or OURS, bound.of or bound.figure)
    limit_text = f"at {bound.at} "
    if is_absolute:
        limit_text += show(bound.factor)
    else:
        limit_text += f"{bound.factor:g} x {bound.server or bound.of} ({show(reference)})"
    if ours is None or reference is None:
        return show(ours), limit_text, f"not measured ({OURS if ours is None else bound.server})"
    limit = bound.factor * reference
    holds = ours >= limit if bound.at == "least" else ours <= limit
    ratio = "" if is_absolute or not reference else f" ({ours / reference:.3f} x)"
    return f"{show(ours)}{ratio}", limit_text, ("yes" if holds else "no") + doubt(results, row, bound)


def doubt(results: Results, row: Row, bound: Bound) -> str:
    """What to add to a verdict from a machine that was not ours alone."""
    others = [value_of(results, row, server, "others") or 0.0 for server in {OURS, bound.server or OURS}]
    return f" (shared: {max(others):.0f} %)" if max(others) > SHARED_PERCENT else ""


def misses_a_bound(results: Results, row: Row) -> bool:
    """Whether something measured is not what the issue asks for."""
    return any(judge(results, row, bound)[2].split()[0] == "no" for bound in row.bounds)


def bounds_table(results: Results, rows: Sequence[Row]) -> str:
    """Every bound of the rows."""
    lines = [[row.name, bound.figure, *judge(results, row, bound)] for row in rows for bound in row.bounds]
    return markdown_table(["load", "figure", OURS, "bound", "holds"], lines)
