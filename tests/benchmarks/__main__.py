"""`python -m tests.benchmarks`: measure all servers on all workloads and print the table for the README.

Each measurement starts a server anew, and the servers take turns within a workload, so that a slow spell of the
machine falls on all of them. Progress goes to stderr, the tables to stdout. Exit 1 where a measurement of epollwsgi
failed or a bound does not hold; another server that fails is said below the tables.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from random import Random
from shutil import which

from tests.benchmarks.load import Sample, measure
from tests.benchmarks.machine import describe
from tests.benchmarks.process import CLIENT_CORE, CORES, MeasurementFailed, raise_descriptor_limit, running
from tests.benchmarks.report import OURS, cost_table, latency_table, misses_a_bound
from tests.benchmarks.servers import SERVERS, Server
from tests.benchmarks.workloads import (
    LATENCIES,
    MANY_COUNT,
    MANY_SIZE,
    NAMES,
    SITE,
    SITE_DATE,
    WORKLOADS,
    Workload,
)

Results = dict[tuple[Workload, str], list[Sample]]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What to measure and how often."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each pair; the median counts (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of a run (default 3; below 3 hides silence)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    names = [server.name for server in SERVERS]
    parser.add_argument("--servers", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    return parser.parse_args(arguments)


def installed(names: Sequence[str]) -> dict[str, str]:
    """Versions of those that are installed; the others are said and left out."""
    versions: dict[str, str] = {}
    for server in SERVERS:
        if server.name in names:
            version = server.version()
            if version is None:
                print(f"{server.name} is not installed: left out", file=sys.stderr)
            else:
                versions[server.name] = version
    return versions


def build_site(directory: Path) -> None:
    """The files of the static workloads."""
    directory.mkdir()
    (directory / "many").mkdir()
    for name, size in SITE.items():
        if name == "coded.html":
            content = Random(size).randbytes(size // 2).hex().encode("ascii")
            write(directory / f"{name}.gz", gzip.compress(content, 9, mtime=0))
            write(directory / name, content)
        else:
            write(directory / name, b"<!doctype html>\n".ljust(min(size, 1 << 20), b"."), size)
    for number in range(1, MANY_COUNT + 1):
        write(directory / "many" / f"{number}.html", b"%d" % number, MANY_SIZE)


def write(path: Path, content: bytes, size: int = 0) -> None:
    """A file of the site, all of one date. size: with zeros behind the content."""
    path.write_bytes(content)
    if size:
        os.truncate(path, size)
    moment = parsedate_to_datetime(SITE_DATE).timestamp()
    os.utime(path, (moment, moment))


def measure_once(server: Server, workload: Workload, site: Path, seconds: int) -> Sample:
    """Start the server in a directory of its own, measure, stop it. Raises MeasurementFailed."""
    with tempfile.TemporaryDirectory(prefix="epollwsgi-benchmark-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)  # nginx's worker drops root
        with running(server, workload.application, site, scratch) as process:
            return measure(process, workload, seconds)


def measure_all(
    workloads: Sequence[Workload], servers: Sequence[Server], site: Path, rounds: int, seconds: int
) -> tuple[Results, list[str]]:
    """Samples and failures of every pair that fits together."""
    results: Results = defaultdict(list)
    failures: list[str] = []
    for number in range(rounds):
        for workload in workloads:
            able = [server for server in servers if workload.needs in server.serves]
            for server in able if number % 2 == 0 else reversed(able):
                label = f"{number + 1}/{rounds} {workload.name}, {workload.title}: {server.name}"
                try:
                    sample = measure_once(server, workload, site, seconds)
                except MeasurementFailed as error:
                    failures.append(f"{label}: {error}")
                    print(f"FAILED {failures[-1]}", file=sys.stderr, flush=True)
                    continue
                results[workload, server.name].append(sample)
                figures = f"{sample.cpu_us:.2f} us, {sample.rate:,.0f}/s, busy {sample.busy:.0%}"
                print(f"{label}: {figures}", file=sys.stderr, flush=True)
    return results, failures


def main() -> int:
    """Measure and print."""
    options = parse_arguments()
    if len(CORES) < 2 or which("wrk") is None or which("taskset") is None:
        print("needs two cores, wrk and taskset (packages wrk and util-linux)", file=sys.stderr)
        return 1
    raise_descriptor_limit()
    os.sched_setaffinity(0, {CLIENT_CORE})
    versions = installed(options.servers)
    servers = [server for server in SERVERS if server.name in versions]
    costs = [workload for workload in WORKLOADS if workload.name in options.only]
    latencies = [workload for workload in LATENCIES if workload.name in options.only]
    with tempfile.TemporaryDirectory(prefix="epollwsgi-benchmark-site-") as name:
        os.chmod(name, 0o755)
        build_site(Path(name) / "site")
        results, failures = measure_all(
            [*costs, *latencies], servers, Path(name) / "site", options.rounds, options.seconds
        )
    print(describe(versions))
    print(f"Median of {options.rounds} x {options.seconds} s by `python -m tests.benchmarks`;")
    print("server on one core, wrk on another, 64 connections where nothing else is said.\n")
    if costs:
        print(cost_table(results, costs, list(versions)), end="\n\n")
    if latencies:
        able = [server.name for server in servers if "application" in server.serves]
        print(latency_table(results, latencies, able), end="\n\n")
    for failure in failures:
        print(f"- failed: {failure}")
    return int(any(OURS in failure for failure in failures) or any(misses_a_bound(results, each) for each in costs))


if __name__ == "__main__":
    sys.exit(main())
