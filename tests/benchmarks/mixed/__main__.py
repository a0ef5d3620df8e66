"""`python -m tests.benchmarks.mixed`: slow requests beside fast ones, server by server, against the bounds of issue 3.

Each measurement starts a server anew, and the servers take turns within a load. Progress goes to stderr, the tables to
stdout. Exit 1 where a measurement of epollwsgi failed or a bound does not hold; another server that fails, a connection
without an answer for 2 s included, is said below the tables.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import which

from tests.benchmarks.machine import describe
from tests.benchmarks.mixed.load import APPLICATION, measure
from tests.benchmarks.mixed.report import bounds_table, figures_table, misses_a_bound
from tests.benchmarks.mixed.rows import NAMES, ROWS, Row
from tests.benchmarks.mixed.servers import BY_NAME, with_threads
from tests.benchmarks.process import CLIENT_CORE, CORES, MeasurementFailed, raise_descriptor_limit, running
from tests.benchmarks.report import OURS

TOOLS = ("wrk", "taskset", "ss")
QUIET_PERCENT = 10.0  # others' CPU below which no further try is made
LEAST_SECONDS = 3  # the look at silent sockets comes shortly before the end, and silence means 2 s


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What to measure and how often."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mixed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each pair; the median counts (default 3)")
    parser.add_argument(
        "--tries", type=int, default=1, help="for each run; the one with the least of others' CPU counts"
    )
    parser.add_argument("--seconds", type=int, default=4, help="length of a run (default 4, at least 3)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    names = list(BY_NAME)
    parser.add_argument("--servers", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--driver", choices=("own", "wrk"), help="what drives the fast group (default: as the row has it)"
    )
    options = parser.parse_args(arguments)
    if options.seconds < LEAST_SECONDS or min(options.rounds, options.tries) < 1:
        parser.error(f"at least {LEAST_SECONDS} seconds, 1 round and 1 try")
    return options


def installed(names: Sequence[str]) -> dict[str, str]:
    """Versions of those that can be run; the others are said and left out."""
    versions: dict[str, str] = {}
    for name in names:
        version = BY_NAME[name].version()
        if version is None:
            print(f"{name} is not installed, or has no such option yet: left out", file=sys.stderr)
        else:
            versions[name] = version
    return versions


def measure_once(name: str, row: Row, seconds: int) -> dict[str, float]:
    """Start the server in a directory of its own, measure, stop it. Raises MeasurementFailed."""
    with tempfile.TemporaryDirectory(prefix="epollwsgi-benchmark-") as directory:
        scratch = Path(directory)
        with running(with_threads(BY_NAME[name], row.threads), APPLICATION, scratch, scratch) as process:
            return measure(process, row, seconds)


def measure_in_peace(name: str, row: Row, seconds: int, tries: int) -> dict[str, float]:
    """The run out of `tries` in which others used the machine least. Raises MeasurementFailed if one of them fails."""
    best: dict[str, float] = {}
    for _ in range(tries):
        figures = measure_once(name, row, seconds)
        if not best or figures["others"] < best["others"]:
            best = figures
        if best["others"] < QUIET_PERCENT:
            break
    return best


def measure_all(
    rows: Sequence[Row], servers: Sequence[str], rounds: int, seconds: int, tries: int
) -> tuple[dict[tuple[str, str], list[dict[str, float]]], list[tuple[str, str]]]:
    """Figures of every pair, and failures with the server's name."""
    results: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    failures: list[tuple[str, str]] = []
    for number in range(rounds):
        for row in rows:
            able = [name for name in servers if name in row.servers]
            for name in able if number % 2 == 0 else reversed(able):
                label = f"{number + 1}/{rounds} {row.name}: {name}"
                try:
                    figures = measure_in_peace(name, row, seconds, tries)
                except MeasurementFailed as error:
                    failures.append((name, f"{label}: {error}"))
                    print(f"FAILED {failures[-1][1]}", file=sys.stderr, flush=True)
                    continue
                results[row.name, name].append(figures)
                shown = ", ".join(f"{figure} {value:,.2f}" for figure, value in figures.items())
                print(f"{label}: {shown}; load {os.getloadavg()[0]:.2f}", file=sys.stderr, flush=True)
    return results, failures


def main() -> int:
    """Measure and print."""
    options = parse_arguments()
    if len(CORES) < 2 or not all(which(tool) for tool in TOOLS):
        print(f"needs two cores and {', '.join(TOOLS)} (packages wrk, util-linux, iproute2)", file=sys.stderr)
        return 1
    raise_descriptor_limit()
    os.sched_setaffinity(0, {CLIENT_CORE})
    versions = installed(options.servers)
    rows = [replace(row, driver=options.driver or row.driver) for row in ROWS if row.name in options.only]
    load = os.getloadavg()[0]
    results, failures = measure_all(rows, list(versions), options.rounds, options.seconds, options.tries)
    print(describe(versions))
    print(f"Median of {options.rounds} x {options.seconds} s by `python -m tests.benchmarks.mixed`;")
    print(f"load average before: {load:.2f}.")
    print("Server on one core, clients on another; granian with the threads it chooses.\n")
    for row in rows:
        print(f"{row.name}: {row.title} (fast group by {'wrk' if row.driver == 'wrk' else 'the own client'})\n")
        print(figures_table(results, row, list(versions)), end="\n\n")
    print(bounds_table(results, rows), end="\n\n")
    for _, failure in failures:
        print(f"- failed: {failure}")
    return int(any(name == OURS for name, _ in failures) or any(misses_a_bound(results, row) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
