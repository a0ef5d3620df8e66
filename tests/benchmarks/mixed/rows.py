"""What is asked of the servers side by side, and how they have to fare: the speed bounds of issue 3, one table.

Knows names of figures, not how they are measured (`load`) or judged (`report`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.mixed.client import Group

FAST = Group("fast", 16, "/")
POOL = "epollwsgi pool"  # the checkout with --dispatch pool


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure of epollwsgi is `at` least or most `factor`, or that times its own figure `of` or that of `server`."""

    figure: str
    at: str
    factor: float
    of: str = ""
    server: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One load. `kind` names its measurement in `load`; `driver` is what makes the fast group's requests."""

    name: str
    title: str
    kind: str
    slow: Group
    bounds: tuple[Bound, ...]
    servers: tuple[str, ...]
    fast: Group = FAST
    threads: int = 8
    driver: str = "own"


def column_of(group: str) -> tuple[str, tuple[str, ...]]:
    """The three figures of a group."""
    return f"{group}: /s, p50, p99 ms", (f"{group} /s", f"{group} p50 ms", f"{group} p99 ms")


# What others used of the machine's cores, in percent of one: much of it, and the figures are those of a shared machine.
OTHERS = ("others' CPU %", ("others",))
COLUMNS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "beside": (*map(column_of, ("fast alone", "fast", "slow alone", "slow")), OTHERS),
    "unknown": (
        ("delay: p50, p90 ms", ("delay p50 ms", "delay p90 ms")),
        ("worst of each call: p90 ms", ("worst p90 ms",)),
        ("usual: p50 ms", ("usual p50 ms",)),
        OTHERS,
    ),
    "single": (("p50, p99 us", ("p50 us", "p99 us")), OTHERS),
}

SIDE_BY_SIDE = ("epollwsgi", "granian", "gunicorn", "waitress")
WITH_BJOERN = (*SIDE_BY_SIDE, "bjoern")
FASTER_THAN_THEY = tuple(Bound("fast /s", "least", 1.0, server=name) for name in SIDE_BY_SIDE[1:])
LIKE_A_POOL = (
    Bound("fast /s", "least", 1.0, server=POOL),
    Bound("slow /s", "least", 1.0, server=POOL),
    Bound("fast p99 ms", "most", 15.0),
)

ROWS = (
    Row(
        "sleep",
        "4 clients on a route that sleeps 100 ms beside 16 on a fast one",
        "beside",
        Group("slow", 4, "/sleep?ms=100"),
        (
            Bound("fast /s", "least", 0.8, of="fast alone /s"),
            Bound("fast p99 ms", "most", 5.0),
            Bound("slow /s", "least", 38.0),
            *FASTER_THAN_THEY,
        ),
        WITH_BJOERN,
    ),
    Row(
        "compute",
        "4 clients on a route that computes 50 ms beside 16 on a fast one",
        "beside",
        Group("slow", 4, "/compute?ms=50"),
        (
            Bound("fast /s", "least", 3.0, server="granian"),
            Bound("fast p99 ms", "most", 1.0, server="granian"),
        ),
        WITH_BJOERN,
    ),
    Row(
        "pool",
        "32 clients on a route that sleeps 20 ms beside 16 on a fast one, threads = 32",
        "beside",
        Group("slow", 32, "/sleep?ms=20"),
        (
            Bound("slow /s", "least", 0.9, of="slow alone /s"),
            Bound("slow p99 ms", "most", 3.0, of="slow alone p99 ms"),
        ),
        SIDE_BY_SIDE,
        threads=32,
    ),
    Row(
        "paths",
        "the same, a path of its own in every slow request, one prefix in common",
        "beside",
        Group("slow", 32, "/sleep/{0}?ms=20"),
        LIKE_A_POOL,
        ("epollwsgi", POOL),
        threads=32,
    ),
    Row(
        "strangers",
        "the same, nothing in common",
        "beside",
        Group("slow", 32, "/sleep-{0}/{0}?ms=20"),
        LIKE_A_POOL,
        ("epollwsgi", POOL),
        threads=32,
    ),
    *(
        Row(
            f"unknown-{count}",
            f"{others}, asking just after a call that computes 50 ms and was not met before",
            "unknown",
            Group("slow", 1, "/compute-{0}/{0}?ms=50"),
            (Bound("delay p90 ms", "most", 10.0),),
            WITH_BJOERN,
            fast=Group("fast", count, "/"),
        )
        for count, others in ((1, "1 other"), (4, "4 others at once"))
    ),
    Row(
        "single",
        "1 connection",
        "single",
        Group("slow", 0, "/sleep?ms=20"),
        (Bound("p50 us", "most", 1.15, server="bjoern"),),
        WITH_BJOERN,
        fast=Group("fast", 1, "/"),
        driver="wrk",
    ),
)
NAMES = tuple(row.name for row in ROWS)
