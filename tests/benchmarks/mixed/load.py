"""The measurements, one for each kind of row: a server that runs goes in, figures by name come out.

Called by `__main__`. The slow group is always driven by `client`. Where the row says so wrk drives the fast group, at
less cost for each request than a client in Python; silence is then looked for by wrk itself (answers later than 2 s
count as errors) and by asking the kernel, shortly before the end, how long its sockets have heard nothing.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tests.benchmarks.apps import HELLO
from tests.benchmarks.check import Client, longest_silence_s
from tests.benchmarks.load import ERRORS, RESULT, start_wrk
from tests.benchmarks.mixed.client import Figures, Group, connected, percentile
from tests.benchmarks.mixed.rows import Row
from tests.benchmarks.process import CLIENT_CORE, SERVER_CORE, TICK_S, MeasurementFailed, Running
from tests.benchmarks.workloads import Workload

APPLICATION = "tests.benchmarks.apps:mixed"
WARM_UP_S = 1
LOOK_BEFORE_END_S = 0.3
WRK_END_S = 10.0
# New calls one by one, further apart than the quarter of a second within which two of them would make a server wary.
CALLS = 30
CALL_EVERY_S = 0.4
WAKING_COUNT = 20  # requests of the others before each call, so that the loop and its watch are awake


class Wrk:
    """wrk on the fast group, and the look at its sockets."""

    def __init__(self, running: Running, group: Group, duration_s: int) -> None:
        workload = Workload("fast", "", APPLICATION, group.target, connections=group.connections)
        self.port = running.port
        self.failure: MeasurementFailed | None = None
        self.process = start_wrk(running, workload, duration_s)
        self.looker = threading.Timer(duration_s - LOOK_BEFORE_END_S, self.look)
        self.looker.start()

    def look(self) -> None:
        """Ask the kernel for sockets without an answer."""
        try:
            worst_s, count = longest_silence_s(self.port)
        except (OSError, subprocess.SubprocessError) as error:
            self.failure = MeasurementFailed(f"ss (package iproute2) did not answer: {error!r}")
            return
        if count:
            self.failure = MeasurementFailed(f"{count} connections heard nothing for up to {worst_s:.1f} s")

    def is_over(self, elapsed_s: float) -> bool:
        """Whether wrk has ended. elapsed_s: unused, it has its own clock."""
        return self.process.poll() is not None

    def finish(self) -> Figures:
        """What wrk counted. Raises MeasurementFailed."""
        output, _ = self.process.communicate(timeout=WRK_END_S)
        self.looker.join()
        if self.failure is not None:
            raise self.failure
        _, found, line = output.rpartition("RESULT ")
        result = {key: int(value) for key, value in RESULT.findall(line)}
        errors = [f"{result[name]} {name}" for name in ERRORS if found and result[name]]
        if self.process.returncode != 0 or errors or not result.get("requests"):
            raise MeasurementFailed(f"wrk: {', '.join(errors) or output[-300:]}")
        rate = result["requests"] / result["duration_us"] * 1e6
        return Figures(rate, result["p50_us"] / 1000, result["p99_us"] / 1000)

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        self.looker.cancel()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)


def drive(running: Running, fast: Group | None, slow: Group | None, driver: str, duration_s: int) -> dict[str, Figures]:
    """Both groups at once, or one alone; figures by the group's name. Raises MeasurementFailed."""
    own = [group for group in (slow, fast if driver == "own" else None) if group is not None]
    with connected(running.port, own) as client:
        if fast is None or driver == "own":
            return client.run(lambda elapsed_s: elapsed_s >= duration_s)
        wrk = Wrk(running, fast, duration_s)
        try:
            return client.run(wrk.is_over) | {fast.name: wrk.finish()}
        finally:
            wrk.end()


def measure_beside(running: Running, row: Row, duration_s: int) -> dict[str, float]:
    """The fast group alone, the slow one alone, both at once; each after a second of the same."""
    figures: dict[str, float] = {}
    for label, fast, slow in ((" alone", row.fast, None), (" alone", None, row.slow), ("", row.fast, row.slow)):
        drive(running, fast, slow, row.driver, WARM_UP_S)
        for name, got in drive(running, fast, slow, row.driver, duration_s).items():
            prefix = f"{name}{label}"
            figures |= {f"{prefix} /s": got.rate, f"{prefix} p50 ms": got.p50_ms, f"{prefix} p99 ms": got.p99_ms}
    return figures


def measure_unknown(running: Running, row: Row, duration_s: int) -> dict[str, float]:
    """How much longer an answer takes while the server meets a new call. duration_s: unused, CALLS are made.

    A delay is one answer's duration less what is usual; the worst of each call is taken by itself as well.
    """
    drive(running, row.fast, None, "own", WARM_UP_S)
    usual: list[float] = []
    delays: list[float] = []
    worst: list[float] = []
    with connected(running.port, (row.slow, row.fast)) as client:
        caller, *others = client.connections
        for _ in range(CALLS):
            due_at = time.monotonic() + CALL_EVERY_S
            for _ in range(WAKING_COUNT):
                usual += client.ask_once(others)
            caller.ask(time.monotonic())
            durations = client.ask_once(others)
            while caller.asked_at:
                for connection in client.turn(0.02):
                    connection.asked_at = 0.0
            delays += durations
            worst.append(max(durations))
            time.sleep(max(0.0, due_at - time.monotonic()))
    common_s = median(usual)
    values = (
        median(delays) - common_s,
        percentile(delays, 0.9) - common_s,
        percentile(worst, 0.9) - common_s,
        common_s,
    )
    names = ("delay p50 ms", "delay p90 ms", "worst p90 ms", "usual p50 ms")
    return {name: value * 1000 for name, value in zip(names, values, strict=True)}


def measure_single(running: Running, row: Row, duration_s: int) -> dict[str, float]:
    """Latency of one connection's answers."""
    drive(running, row.fast, None, row.driver, WARM_UP_S)
    got = drive(running, row.fast, None, row.driver, duration_s)[row.fast.name]
    return {"p50 us": got.p50_ms * 1000, "p99 us": got.p99_ms * 1000}


MEASUREMENTS: dict[str, Callable[[Running, Row, int], dict[str, float]]] = {
    "beside": measure_beside,
    "unknown": measure_unknown,
    "single": measure_single,
}


def measure(running: Running, row: Row, duration_s: int) -> dict[str, float]:
    """Figures of one run, after one right answer to each target. Raises MeasurementFailed."""
    for group in (row.fast, row.slow):
        client = Client(running.port, group.target.format(0))
        try:
            if client.ask() != HELLO:
                raise MeasurementFailed(f"{group.target}: unexpected content")
        finally:
            client.close()
    before_s, busy_before_s, began_at = used_by_us_s(running), busy_s(), time.monotonic()
    figures = MEASUREMENTS[row.kind](running, row, duration_s)
    others_s = busy_s() - busy_before_s - (used_by_us_s(running) - before_s)
    figures["others"] = max(0.0, others_s) / (time.monotonic() - began_at) * 100
    return figures


def used_by_us_s(running: Running) -> float:
    """CPU time of the server, of this process and of what it has started and reaped."""
    times = os.times()
    return running.cpu_time_s() + times.user + times.system + times.children_user + times.children_system


def busy_s() -> float:
    """CPU time of everybody, on the two cores of the measurement. proc(5): fields 4 and 5 are idle time."""
    names = {f"cpu{CLIENT_CORE}", f"cpu{SERVER_CORE}"}
    lines = (line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
    ticks = sum(int(field) for name, *fields in lines if name in names for field in (*fields[:3], *fields[5:8]))
    return ticks * TICK_S
