"""One measurement: wrk on the client's core against a server on its own, under the eyes of `check`.

Called by `__main__`. Knows how to run wrk and what makes a run void; not what a good figure is.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.check import SILENCE_LIMIT_S, Watcher, watch_sockets
from tests.benchmarks.process import CLIENT_CORE, MeasurementFailed, Running
from tests.benchmarks.servers import HOST
from tests.benchmarks.workloads import Workload

SCRIPT = Path(__file__).with_name("load.lua")
WARM_UP_S = 1
RESULT = re.compile(r"(\w++)=(\d++)")
ERRORS = ("connect", "read", "write", "status", "timeout")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run gave. `busy` is the share of the time for which the server's core was the server's."""

    cpu_us: float
    p50_us: float
    p99_us: float
    rate: float
    busy: float


def start_wrk(running: Running, workload: Workload, duration_s: int) -> subprocess.Popen[str]:
    """wrk with one thread; the seed keeps the queries and ids of one run out of the next."""
    options = [f"host={HOST}:{running.port}", f"path={workload.path}", f"seed={secrets.token_hex(4)}"]
    load = ["-t1", f"-c{workload.connections}", f"-d{duration_s}s", "--timeout", f"{SILENCE_LIMIT_S:g}s"]
    url = f"http://{HOST}:{running.port}{workload.path}"
    command = ["taskset", "-c", str(CLIENT_CORE), "wrk", *load, "-s", str(SCRIPT), url, "--"]
    return subprocess.Popen(
        [*command, *options, *workload.options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run_wrk(running: Running, workload: Workload, duration_s: int) -> dict[str, int]:
    """The figures of load.lua's last line. Raises MeasurementFailed where wrk met an error or a socket fell silent."""
    process = start_wrk(running, workload, duration_s)
    try:
        watch_sockets(running.port, process, duration_s)
        output, _ = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(5)
    _, found, line = output.rpartition("RESULT ")
    if process.returncode != 0 or not found:
        raise MeasurementFailed(f"wrk ended with {process.returncode}: {output[-300:]}")
    result = {key: int(value) for key, value in RESULT.findall(line)}
    errors = [f"{result[name]} {name}" for name in ERRORS if result[name]]
    if errors or not result["requests"]:
        raise MeasurementFailed(f"wrk met errors: {', '.join(errors) or 'no request was answered'}")
    return result


def measure(running: Running, workload: Workload, duration_s: int) -> Sample:
    """Warm up, then one run. Raises MeasurementFailed."""
    with Watcher(running.port, *workload.watched):
        run_wrk(running, workload, WARM_UP_S)
    with Watcher(running.port, *workload.watched) as watcher:
        before_s, began_at = running.cpu_time_s(), time.monotonic()
        result = run_wrk(running, workload, duration_s)
        used_s, took_s = running.cpu_time_s() - before_s, time.monotonic() - began_at
        count = result["requests"] + watcher.answered_count
    duration_us = result["duration_us"]
    return Sample(
        cpu_us=used_s / count * 1e6,
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        rate=result["requests"] / duration_us * 1e6,
        busy=used_s / took_s,
    )
