"""`python -m tests.benchmarks.startup`: time from exec to the first answer of a Flask application.

The application is the one of examples/, served with nothing else; a client asks every few milliseconds meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.check import Client
from tests.benchmarks.machine import describe
from tests.benchmarks.process import CLIENT_CORE, MeasurementFailed, free_port, spawn, stop
from tests.benchmarks.report import OURS, markdown_table
from tests.benchmarks.servers import SERVERS, Server, Task

BOUND_S = 0.5
LIMIT_S = 10.0
PAUSE_S = 0.002


def time_to_answer_s(server: Server, application: str, path: str) -> float:
    """Seconds from exec to the end of the first answer. Raises MeasurementFailed."""
    with tempfile.TemporaryDirectory(prefix="epollwsgi-benchmark-") as name:
        scratch = Path(name)
        log = scratch / "server.log"
        port = free_port()
        command = server.command(Task(port, application, scratch, scratch))
        began_at = time.monotonic()
        process = spawn(command, log, scratch)
        try:
            while time.monotonic() - began_at < LIMIT_S and process.poll() is None:
                try:
                    client = Client(port, path)
                except OSError:
                    time.sleep(PAUSE_S)
                    continue
                client.ask()
                took_s = time.monotonic() - began_at
                client.close()
                return took_s
        finally:
            stop(process)
        raise MeasurementFailed(f"{server.name} did not start: {log.read_text(errors='replace')[-600:].strip()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit 1 above the bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.startup", description=__doc__)
    able = {server.name: server for server in SERVERS if "application" in server.serves}
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--application", default="examples.app:app", metavar="MODULE:ATTR")
    parser.add_argument("--path", default="/app")
    parser.add_argument(
        "--servers", nargs="+", choices=list(able), default=[OURS], metavar="NAME", help=", ".join(able)
    )
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, {CLIENT_CORE})
    versions = {name: able[name].version() for name in options.servers}
    times: dict[str, list[float]] = {name: [] for name, version in versions.items() if version is not None}
    try:
        for _ in range(options.rounds):
            for name, taken in times.items():
                taken.append(time_to_answer_s(able[name], options.application, options.path))
    except MeasurementFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(describe({name: version for name, version in versions.items() if version is not None}))
    print(f"From exec to the first answer of {options.application}, median of {options.rounds}.\n")
    rows = [
        [name, f"{median(taken):.3f}", f"{max(taken):.3f}", "yes" if median(taken) < BOUND_S else "no"]
        for name, taken in times.items()
    ]
    print(markdown_table(["seconds", "median", "worst", f"below {BOUND_S:g}"], rows))
    return int(OURS in times and median(times[OURS]) >= BOUND_S)


if __name__ == "__main__":
    sys.exit(main())
