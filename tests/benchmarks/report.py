"""Samples to Markdown: medians, ratios, and whether the bounds hold. Pure: no process, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from tests.benchmarks.load import Sample
from tests.benchmarks.workloads import Workload

OURS = "epollwsgi"
NONE = "-"

Results = Mapping[tuple[Workload, str], Sequence[Sample]]


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, columns padded so that it reads well as text too."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    padded = (" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(f"| {line} |" for line in padded)


def cost_us(results: Results, workload: Workload, server: str) -> float | None:
    """Median CPU time of a request; None where nothing was measured."""
    samples = results.get((workload, server))
    return median(sample.cpu_us for sample in samples) if samples else None


def judge(results: Results, workload: Workload) -> tuple[str, str, str]:
    """Three cells: ratios to the references, the bounds, whether they hold."""
    ours = cost_us(results, workload, OURS)
    references = {bound.reference: bound.factor for bound in workload.bounds} or {workload.reference: 0.0}
    ratios: dict[str, float] = {}
    for name in references:
        theirs = cost_us(results, workload, name)
        if ours is not None and theirs:
            ratios[name] = ours / theirs
    shown = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in ratios.items()) or NONE
    if not workload.bounds:
        return shown, NONE, NONE
    bounds = ", ".join(f"{bound.factor:.2f} x {bound.reference}" for bound in workload.bounds)
    missed = [bound.reference for bound in workload.bounds if ratios.get(bound.reference, 0.0) > bound.factor]
    unknown = (
        [OURS] if ours is None else [bound.reference for bound in workload.bounds if bound.reference not in ratios]
    )
    verdict = f"no ({', '.join(missed)})" if missed else f"not measured ({', '.join(unknown)})" if unknown else "yes"
    return shown, bounds, verdict


def misses_a_bound(results: Results, workload: Workload) -> bool:
    """Whether something measured is above what the issue allows."""
    return judge(results, workload)[2].startswith("no (")


def cost_table(results: Results, workloads: Sequence[Workload], servers: Sequence[str]) -> str:
    """CPU time per request, one row for each workload, one column for each server."""
    rows = []
    for workload in workloads:
        costs = [cost_us(results, workload, server) for server in servers]
        cells = [NONE if cost is None else f"{cost:.1f}" for cost in costs]
        rows.append([workload.title, *cells, *judge(results, workload)])
    return markdown_table(["CPU us per request", *servers, "ratio", "at most", "holds"], rows)


def latency_table(results: Results, workloads: Sequence[Workload], servers: Sequence[str]) -> str:
    """p50 and p99 of hello, in microseconds."""
    rows = []
    for workload in workloads:
        cells = []
        for server in servers:
            samples = results.get((workload, server))
            p50, p99 = ([sample.p50_us for sample in samples or ()], [sample.p99_us for sample in samples or ()])
            cells.append(f"{median(p50):,.0f} / {median(p99):,.0f}" if samples else NONE)
        rows.append([workload.title, *cells])
    return markdown_table(["p50 / p99 of hello, us", *servers], rows)
