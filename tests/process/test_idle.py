"""Servers to which nothing happens: nobody is taken for stuck, nothing leaks to other programs, and a site alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.process.fleet import Fleet, FleetFactory
from tests.process.procfs import children_of, descriptors, is_accepting, is_alive, read_proc, state_of
from tests.support import Client, wait_until

CLOEXEC = 0o2000000
# Longer than a worker that gives no sign is borne with, see `--timeout` below: a negative takes its time.
SILENCE_S = 4.5


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def start_site(start_fleet: FleetFactory, tmp_path: Path, *options: str) -> Fleet:
    """Two workers that serve files and nothing else."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("the page")
    fleet = start_fleet("-w", "2", *options, target="./site")
    fleet.wait(lambda: len(serving(fleet)) == 2, "two workers")
    return fleet


def serving(fleet: Fleet) -> set[int]:
    """Workers of a site: they note nothing."""
    return {pid for pid in fleet.workers() if is_accepting(pid)}


def test_idle_workers_are_left_alone(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """They beat though nothing happens: with threads, with one, and without an application."""
    fleets = [start_fleet("--timeout", "1", "--threads", threads, workers=2) for threads in ("8", "1")]
    fleets.append(start_site(start_fleet, tmp_path, "--timeout", "1"))
    before = [fleet.workers() for fleet in fleets]
    time.sleep(SILENCE_S)
    assert [fleet.workers() for fleet in fleets] == before
    for fleet in fleets:
        assert "silent" not in fleet.log()
        assert fleet.stop() == 0


def test_frozen_machine(start_fleet: FleetFactory) -> None:
    """Everything stands still for longer than `timeout` (a paused container): nobody is to blame."""
    fleet = start_fleet("--timeout", "2", workers=2)
    workers = fleet.workers()
    with fleet.client() as client:
        assert client.request(get("/version")).body == b"1"
        everybody = [fleet.master, *workers]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        for pid in everybody:
            wait_until(lambda pid=pid: state_of(pid) == "T", what=f"process {pid} to be stopped")  # type: ignore[misc]
        time.sleep(SILENCE_S)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        assert client.request(get("/version")).body == b"1"
    fleet.send(signal.SIGTTIN)
    assert workers < fleet.wait_for_workers(3)
    assert "silent" not in fleet.log()
    assert fleet.stop() == 0


def test_site_alone(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """Files are served by workers like any other: replaced, reloaded, upgraded, stopped."""
    fleet = start_site(start_fleet, tmp_path)

    def replaced(old: set[int]) -> bool:
        return len(serving(fleet)) == 2 and not old & fleet.workers()

    for number in (signal.SIGHUP, signal.SIGUSR2):
        before = fleet.workers()
        fleet.send(number)
        fleet.wait(lambda before=before: replaced(before), "other workers")  # type: ignore[misc]
    victim = min(fleet.workers())
    os.kill(victim, signal.SIGKILL)
    fleet.wait(lambda: len(serving(fleet)) == 2 and victim not in fleet.workers(), "a successor")
    with fleet.client() as kept, fleet.client() as late:
        assert kept.request(get("/")).body == b"the page"
        assert late.request(get("/")).body == b"the page"
        fleet.send(signal.SIGTERM)
        fleet.wait(fleet.is_refused, "the listener to be closed")
        if late.is_quiet(0):
            assert late.request(get("/")).tokens == {"close"}
        assert kept.read_to_end() == b""
    assert fleet.stop() == 0
    assert "Traceback" not in fleet.log()


def inheritable(pid: int) -> dict[int, str]:
    """Descriptors, beside the standard ones, that a program started by this process would get."""
    found = {}
    for fd, name in descriptors(pid).items():
        info = read_proc(pid, f"fdinfo/{fd}").decode()
        flags = next((line.split()[1] for line in info.splitlines() if line.startswith("flags:")), "")
        if fd > 2 and flags and not int(flags, 8) & CLOEXEC:
            found[fd] = name
    return found


def test_nothing_is_inherited_by_programs(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """No listener, log, pipe or scoreboard for what the application runs, nor the variable of an upgrade."""
    (tmp_path / "epollwsgi.toml").write_text("bind = ['unix:a.sock', '127.0.0.1:0']\n")
    fleet = start_fleet(
        "-w", "2", "--access-logfile", "access.log", "--error-logfile", "error.log", bind=(), wait=False
    )
    fleet.wait((tmp_path / "a.sock").exists, "the socket")
    fleet.server.unix_path = str(tmp_path / "a.sock")
    fleet.wait_for_workers(2)
    with Client(str(tmp_path / "a.sock")) as client:
        variables = client.request(get("/variables")).body
        assert b"FLEET_NOTES" in variables
    for number in (None, signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR2):
        if number is not None:
            fleet.reload(f"{number}", number)
        for pid in (fleet.master, *fleet.workers()):
            assert inheritable(pid) == {}, f"process {pid} after {number}"
        with Client(str(tmp_path / "a.sock")) as client:
            assert client.request(get("/variables")).body == variables
    assert all(is_alive(pid) for pid in children_of(fleet.master))
    assert fleet.stop() == 0
