"""`python -m tests.benchmarks.access_log`: CPU time that an access log in a file costs a request.

Two servers run side by side, one with the log; wrk asks them in turn: a slow spell of the machine falls on both.
The figure is the median of the differences between neighbouring runs. Exit 1 where one is above the bound.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import which

from tests.benchmarks.__main__ import build_site
from tests.benchmarks.load import WARM_UP_S, run_wrk
from tests.benchmarks.machine import describe
from tests.benchmarks.process import CLIENT_CORE, CORES, MeasurementFailed, Running, running
from tests.benchmarks.report import OURS, markdown_table
from tests.benchmarks.servers import SERVERS, Server, Task
from tests.benchmarks.workloads import WORKLOADS, Workload

BOUND_US = 1.5
NAMES = ("hello", "browser", "flask", "static-1k", "static-20k", "static-200k")
CHOSEN = tuple(workload for workload in WORKLOADS if workload.name in NAMES)
LOG_NAME = "access.log"
PLAIN = next(server for server in SERVERS if server.name == OURS)


def with_log(options: Sequence[str]) -> Server:
    """The server with an access log in its scratch directory."""

    def command(task: Task) -> list[str]:
        return [*PLAIN.command(task), "--access-logfile", str(task.scratch / LOG_NAME), *options]

    return replace(PLAIN, name=f"{OURS} with a log", command=command)


def cost_us(process: Running, workload: Workload, seconds: int) -> float:
    """CPU time of the server for one request. Raises MeasurementFailed."""
    before_s = process.cpu_time_s()
    count = run_wrk(process, workload, seconds)["requests"]
    return (process.cpu_time_s() - before_s) / count * 1e6


def compare(workload: Workload, logging: Server, site: Path, rounds: int, seconds: int) -> list[tuple[float, float]]:
    """Cost without and with the log, for each round. Raises MeasurementFailed."""
    pairs = []
    with tempfile.TemporaryDirectory(prefix="epollwsgi-benchmark-") as name:
        scratch = Path(name)
        for number in (0, 1):
            (scratch / str(number)).mkdir()
        with (
            running(PLAIN, workload.application, site, scratch / "0") as plain,
            running(logging, workload.application, site, scratch / "1") as logged,
        ):
            for process in (plain, logged):
                run_wrk(process, workload, WARM_UP_S)
            for number in range(rounds):
                order = (plain, logged) if number % 2 == 0 else (logged, plain)
                costs = {process.name: cost_us(process, workload, seconds) for process in order}
                pairs.append((costs[plain.name], costs[logged.name]))
                print(f"{workload.name}: {pairs[-1][0]:.2f} {pairs[-1][1]:.2f} us", file=sys.stderr, flush=True)
            if not (scratch / "1" / LOG_NAME).stat().st_size:
                raise MeasurementFailed("nothing was logged")
    return pairs


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.access_log", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="pairs of runs; the median counts (default 9)")
    parser.add_argument("--seconds", type=int, default=3, help="length of a run (default 3)")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--format", default="", help="access_log_format (default: the server's)")
    arguments = parser.parse_args()
    if len(CORES) < 2 or which("wrk") is None or which("taskset") is None:
        print("needs two cores, wrk and taskset (packages wrk and util-linux)", file=sys.stderr)
        return 1
    os.sched_setaffinity(0, {CLIENT_CORE})
    logging = with_log(["--access-logformat", arguments.format] if arguments.format else [])
    rows = []
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="epollwsgi-benchmark-site-") as name:
        build_site(Path(name) / "site")
        for workload in (workload for workload in CHOSEN if workload.name in arguments.only):
            pairs = compare(workload, logging, Path(name) / "site", arguments.rounds, arguments.seconds)
            without, logged = (statistics.median(column) for column in zip(*pairs, strict=True))
            difference = statistics.median(after - before for before, after in pairs)
            worst = max(worst, difference)
            verdict = "yes" if difference <= BOUND_US else "no"
            rows.append([workload.title, f"{without:.2f}", f"{logged:.2f}", f"{difference:.2f}", verdict])
    print(describe({OURS: PLAIN.version() or ""}))
    print(markdown_table(["us a request", "no log", "log", "difference", f"at most {BOUND_US}"], rows))
    return int(worst > BOUND_US)


if __name__ == "__main__":
    sys.exit(main())
