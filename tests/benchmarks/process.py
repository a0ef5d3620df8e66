"""Start a server on its core, read what it has used, stop it. Knows no workload and no figure of merit.

Figures come from /proc: CPU time of a process holds that of all its threads, ended ones too, and children
are added, living (by their parent's number) and reaped (by the counters of who reaped them).
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.servers import HOST, Server, Task

REPOSITORY = Path(__file__).resolve().parents[2]
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
START_LIMIT_S = 15.0
STOP_LIMIT_S = 5.0

CORES = sorted(os.sched_getaffinity(0))
CLIENT_CORE, SERVER_CORE = CORES[0], CORES[-1]


class MeasurementFailed(Exception):
    """A server did not start, fell silent or answered wrongly: there is no figure."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts connections."""

    name: str
    pid: int
    port: int
    log: Path

    def cpu_time_s(self) -> float:
        """User and system time of the server so far, all processes and threads."""
        return sum(cpu_ticks(pid) for pid in family(self.pid)) * TICK_S

    def memory_kb(self) -> dict[str, int]:
        """Memory of all its processes: resident, its own alone, and its fair share of what is shared; swap counts."""
        total = {"Rss": 0, "Uss": 0, "Pss": 0}
        for pid in family(self.pid):
            sizes = read_rollup(pid)
            swap = sizes.get("Swap", 0)
            total["Rss"] += sizes["Rss"] + swap
            total["Uss"] += sizes["Private_Clean"] + sizes["Private_Dirty"] + swap
            total["Pss"] += sizes["Pss"] + sizes.get("SwapPss", swap)
        return total


def read_stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before them may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


def cpu_ticks(pid: int) -> int:
    """utime + stime + cutime + cstime; 0 for a process that has just gone (its parent's counters have it)."""
    try:
        return sum(int(field) for field in read_stat(pid)[11:15])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def family(root: int) -> list[int]:
    """The process and all its living descendants."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                parents[int(entry)] = int(read_stat(int(entry))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    members = [root]
    for member in members:  # grows while it is walked: a family is a tree
        members += [pid for pid, parent in parents.items() if parent == member]
    return members


def read_rollup(pid: int) -> dict[str, int]:
    """/proc/PID/smaps_rollup in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def raise_descriptor_limit() -> int:
    """Let this process, and what it starts, open as many descriptors as the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    """The environment of a server: the checkout importable from a working directory that has no settings in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("EPOLLWSGI_", "GUNICORN_"))}
    dropped = ("PORT", "WEB_CONCURRENCY")
    return {key: value for key, value in kept.items() if key not in dropped} | {"PYTHONPATH": str(REPOSITORY)}


def spawn(command: list[str], log: Path, directory: Path) -> subprocess.Popen[bytes]:
    """Start a command on the server's core, in a process group of its own."""
    pinned = ["taskset", "-c", str(SERVER_CORE), *command]
    with log.open("wb") as output:
        return subprocess.Popen(
            pinned,
            cwd=directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever is left of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            print(f"(pid {process.pid} outlived SIGTERM by {STOP_LIMIT_S:g} s and was killed)", file=sys.stderr)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_LIMIT_S)


def wait_until_it_accepts(process: subprocess.Popen[bytes], port: int, log: Path, name: str) -> None:
    """Return once the port takes a connection."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    tail = log.read_text(encoding="utf-8", errors="replace")[-600:].strip()
    how = "still silent" if process.poll() is None else f"exit code {process.returncode}"
    raise MeasurementFailed(f"{name} did not start ({how}): {tail}")


@contextmanager
def running(server: Server, application: str, directory: Path, scratch: Path) -> Iterator[Running]:
    """A server from its start to its end. Raises MeasurementFailed where it does not come up."""
    port = free_port()
    log = scratch / f"{server.name}.log"
    process = spawn(server.command(Task(port, application, directory, scratch)), log, scratch)
    try:
        wait_until_it_accepts(process, port, log, server.name)
        yield Running(server.name, process.pid, port, log)
    finally:
        stop(process)
