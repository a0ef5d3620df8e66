"""Every row of the two tables of signals, OPERATIONS.md 2; what HUP and USR2 do is in test_reload and test_upgrade."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.process.fleet import MODULE, TARGET, WAIT_S, Fleet, FleetFactory, all_received, is_port_free, write_whole
from tests.process.load import Load
from tests.process.procfs import children_of, descriptor_paths, is_accepting, is_alive
from tests.support import wait_until

QUICK = [signal.SIGINT, signal.SIGQUIT]
# Of graceful_timeout: so long that a test which waits for it fails.
ENDLESS_S = "300"
ATTEMPTS = 3


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


# --- master: TERM, INT, QUIT ------------------------------------------------------------------------------------------


def test_term_ends_master_and_workers(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=2)
    assert fleet.ask("/version").body == b"1"
    assert fleet.stop() == 0
    assert is_port_free(fleet.server.port)
    assert "Traceback" not in fleet.log()


@pytest.mark.parametrize("number", QUICK)
def test_quick_stop_does_not_wait_for_the_application(start_fleet: FleetFactory, number: signal.Signals) -> None:
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=2)
    with fleet.client() as client:
        client.send(get("/hold?held"))
        fleet.wait_held("held")
        assert fleet.stop(number) == 0
        assert b"200 OK" not in all_received(client)
    assert is_port_free(fleet.server.port)
    assert "Traceback" not in fleet.log()


def test_quick_stop_gives_requests_a_second(start_fleet: FleetFactory) -> None:
    """A request that is done soon after INT is answered. On a busy machine that second may pass unused: tried again."""
    for attempt in range(ATTEMPTS):
        fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=1)
        with fleet.client() as client:
            tag = f"held{attempt}"
            client.send(get(f"/hold/{tag}?{tag}"))
            fleet.wait_held(tag)
            fleet.send(signal.SIGINT)
            wait_until(fleet.is_refused, WAIT_S, "the listener to be closed")
            fleet.release(tag)
            data = client.read_to_end()
        assert fleet.stop(signal.SIGINT) == 0
        if data.endswith(b"\r\n\r\nreleased"):
            return
    pytest.fail(f"{ATTEMPTS} times no answer came: {data!r}")


@pytest.mark.parametrize("number", QUICK)
def test_quick_stop_in_the_midst_of_a_graceful_one(start_fleet: FleetFactory, number: signal.Signals) -> None:
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=2)
    with fleet.client() as client:
        client.send(get("/hold?held"))
        [holder] = fleet.wait_held("held")
        fleet.send(signal.SIGTERM)
        wait_until(fleet.is_refused, WAIT_S, "the listener to be closed")
        assert is_alive(holder)
        assert fleet.stop(number) == 0


def test_signals_to_the_whole_group(start_fleet: FleetFactory) -> None:
    """A supervisor sends TERM to every process, in any order: what is under way is finished all the same."""
    for masters_turn in (0, 2):
        fleet = start_fleet(workers=2)
        with fleet.client() as client:
            tag = f"held{masters_turn}"
            client.send(get(f"/hold/{tag}?{tag}"))
            fleet.wait_held(tag)
            pids = list(fleet.workers())
            pids.insert(masters_turn, fleet.master)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            wait_until(fleet.is_refused, WAIT_S, "the listener to be closed")
            fleet.release(tag)
            response = client.read_response()
            assert (response.status, response.body) == (200, b"released")
            assert client.read_to_end() == b""
        assert fleet.stop() == 0
        assert "Traceback" not in fleet.log()


def test_interrupt_from_a_terminal(start_fleet: FleetFactory) -> None:
    """Ctrl+C reaches all processes at once."""
    fleet = start_fleet(workers=2)
    for pid in [*fleet.workers(), fleet.master]:
        os.kill(pid, signal.SIGINT)
    assert fleet.stop(signal.SIGINT) == 0
    assert "Traceback" not in fleet.log()


# --- master: USR1 -----------------------------------------------------------------------------------------------------


def has_reopened(pid: int, directory: Path, names: set[str]) -> bool:
    """Whether it has no descriptor of a renamed log, and one of each new log."""
    paths = set(descriptor_paths(pid))
    logs = {str(directory / name) for name in names}
    return not any(path.startswith(str(directory)) and path.endswith(".1") for path in paths) and logs <= paths


def test_logs_are_reopened_in_all_processes(start_fleet: FleetFactory, tmp_path: Path) -> None:
    fleet = start_fleet("--error-logfile", "error.log", "--access-logfile", "access.log", workers=2)
    assert fleet.ask("/pid?first").status == 200
    wait_until((tmp_path / "access.log").read_text, what="a line in the access log")
    for name in ("error.log", "access.log"):
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    fleet.send(signal.SIGUSR1)
    workers = fleet.workers()
    for pid in workers:
        names = {"error.log", "access.log"}
        wait_until(lambda pid=pid, names=names: has_reopened(pid, tmp_path, names), what=f"worker {pid}")  # type: ignore[misc]
    wait_until(lambda: has_reopened(fleet.master, tmp_path, {"error.log"}), what="the master")
    sizes = [(tmp_path / f"{name}.1").stat().st_size for name in ("error.log", "access.log")]

    assert fleet.ask("/fail?second").status == 500
    wait_until(lambda: "/fail?second" in (tmp_path / "access.log").read_text(), what="the access line")
    assert "failed on purpose: second" in (tmp_path / "error.log").read_text()
    fleet.send(signal.SIGHUP)
    fleet.wait_for_workers(2, without=workers)
    line = re.compile(rf"^\[[^]]+\] \[{fleet.master}\] ", re.MULTILINE)
    wait_until(lambda: line.search((tmp_path / "error.log").read_text()), what="a line of the master")
    assert sizes == [(tmp_path / f"{name}.1").stat().st_size for name in ("error.log", "access.log")]


def test_logs_are_reopened_under_load(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """Every answer has its line, in one file or another."""
    fleet = start_fleet("--access-logfile", "access.log", workers=2)
    files = ["access.log"]
    with Load(fleet.address, kept=4, fresh=4) as load:
        for number in range(3):
            load.wait_for_more(30)
            files.append(f"access.log.{number}")
            (tmp_path / "access.log").rename(tmp_path / files[-1])
            fleet.send(signal.SIGUSR1)
            wait_until((tmp_path / "access.log").exists, what="the new log")
    assert fleet.stop() == 0
    lines = [line for name in files for line in (tmp_path / name).read_text().splitlines()]
    assert len(lines) == load.report.answered


SLOW_BOOT = """\
from tests.process.routes import make_app, note, wait_for
import os
note("booting", os.getpid())
wait_for("released", "boot")
app = make_app("2")
"""


def test_logs_are_reopened_in_a_worker_that_boots(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """A rotation in the midst of a reload: who becomes ready afterwards has the new file, and not the old one."""
    fleet = start_fleet("--access-logfile", "access.log", workers=1)
    before = fleet.workers()
    write_whole(tmp_path / f"{MODULE}.py", SLOW_BOOT)
    fleet.send(signal.SIGHUP)
    fleet.wait(lambda: fleet.noted("booting"), "a worker that boots")
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    fleet.send(signal.SIGUSR1)
    fleet.wait((tmp_path / "access.log").exists, "the new log")
    fleet.release("boot")
    [worker] = fleet.wait_for_workers(1, "2", without=before)
    fleet.wait(lambda: has_reopened(worker, tmp_path, {"access.log"}), f"worker {worker} to open the new log")
    os.kill(worker, signal.SIGKILL)
    [later] = fleet.wait_for_workers(1, "2", without=[worker])
    fleet.ask("/version?later")
    fleet.wait(lambda: "/version?later" in (tmp_path / "access.log").read_text(), "a line of a later worker")
    assert has_reopened(later, tmp_path, {"access.log"})
    assert fleet.stop() == 0


# --- master: TTIN, TTOU, WINCH ----------------------------------------------------------------------------------------


def test_one_worker_more_one_less_never_none(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=1)
    for count in (2, 3):
        fleet.send(signal.SIGTTIN)
        fleet.wait_for_workers(count)
    for count in (2, 1):
        fleet.send(signal.SIGTTOU)
        fleet.wait_for_workers(count)
    [last] = fleet.workers()
    for _ in range(3):
        fleet.send(signal.SIGTTOU)
    assert fleet.ask("/pid").body == str(last).encode()
    fleet.send(signal.SIGTTIN)  # had they counted, this would not bring a second one
    assert last in fleet.wait_for_workers(2)
    assert fleet.stop() == 0


def test_resize_of_the_terminal_does_nothing(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=2)
    before = fleet.workers()
    for pid in (fleet.master, *before):
        os.kill(pid, signal.SIGWINCH)
    assert fleet.ask("/version").body == b"1"
    fleet.send(signal.SIGTTIN)
    assert before < fleet.wait_for_workers(3)
    assert fleet.stop() == 0


def test_daemon_without_workers(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """WINCH of a daemon drains all its workers; TTIN brings one back, TERM ends it, and its pid file goes."""
    fleet = start_fleet("-D", "-p", "master.pid", "-w", "2", "--error-logfile", "error.log")
    assert fleet.server.process.wait(WAIT_S) == 0
    fleet.master = int((tmp_path / "master.pid").read_text())
    workers = fleet.wait_for_workers(2)
    with fleet.client() as client:
        client.send(get("/hold?held"))
        fleet.wait_held("held")
        fleet.send(signal.SIGWINCH)
        wait_until(lambda: len(fleet.workers()) == 1, WAIT_S, "the idle worker to end")
        fleet.release()
        assert client.read_response().body == b"released"
    wait_until(lambda: not fleet.workers(), WAIT_S, "the workers to end")
    assert is_alive(fleet.master)
    fleet.send(signal.SIGTTIN)
    fleet.wait_for_workers(1, without=workers)
    assert fleet.ask("/version").body == b"1"
    fleet.send(signal.SIGTERM)
    wait_until(lambda: not is_alive(fleet.master), WAIT_S, "the end of the daemon")
    assert not (tmp_path / "master.pid").exists()
    assert is_port_free(fleet.server.port)


# --- master: CHLD -----------------------------------------------------------------------------------------------------


def test_children_are_reaped_and_replaced(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=2)
    victim = min(fleet.workers())
    os.kill(victim, signal.SIGKILL)
    fleet.wait_for_workers(2, without=[victim])
    assert victim not in children_of(fleet.master)
    fleet.send(signal.SIGCHLD)  # of nobody
    assert fleet.stop() == 0


# --- workers ----------------------------------------------------------------------------------------------------------


def hold_one(fleet: Fleet) -> int:
    """A client holds a request; the worker that has it."""
    [pid] = fleet.wait_held("held")
    return pid


def test_worker_drains_on_term(start_fleet: FleetFactory) -> None:
    """What it has is finished, by itself, while its successor serves."""
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=2)
    with fleet.client() as client:
        client.send(get("/hold?held"))
        holder = hold_one(fleet)
        [other] = fleet.workers() - {holder}
        os.kill(holder, signal.SIGTERM)
        wait_until(lambda: len(fleet.workers()) == 3, WAIT_S, "a successor")
        fleet.wait(lambda: sum(map(is_accepting, fleet.workers())) == 2, "the successor to serve")
        assert {holder, other} < fleet.workers()
        for _ in range(5):
            assert fleet.ask("/version").status == 200
        assert is_alive(holder)
        fleet.release()
        response = client.read_response()
        assert (response.body, response["X-Worker"]) == (b"released", str(holder))
        assert client.read_to_end() == b""
    assert other in fleet.wait_for_workers(2, without=[holder])
    assert fleet.stop() == 0


def test_worker_ends_at_once(start_fleet: FleetFactory) -> None:
    fleet = start_fleet("--graceful-timeout", ENDLESS_S, workers=2)
    for number in QUICK:
        with fleet.client() as client:
            tag = f"held{number}"
            client.send(get(f"/hold?{tag}"))
            [holder] = fleet.wait_held(tag)
            os.kill(holder, number)
            fleet.wait_for_workers(2, without=[holder])
            assert fleet.ask("/version").body == b"1"
    assert fleet.stop() == 0


def test_worker_reopens_its_own_logs(start_fleet: FleetFactory, tmp_path: Path) -> None:
    fleet = start_fleet("--access-logfile", "access.log", workers=2)
    one, other = fleet.workers()
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    os.kill(one, signal.SIGUSR1)
    wait_until(lambda: has_reopened(one, tmp_path, {"access.log"}), what="the new log")
    assert str(tmp_path / "access.log.1") in descriptor_paths(other)
    assert fleet.workers() == {one, other}


def test_aborted_worker_says_where_it_was(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=2)
    with fleet.client() as client:
        client.send(get("/hold?held"))
        holder = hold_one(fleet)
        os.kill(holder, signal.SIGABRT)
        fleet.wait_for_workers(2, without=[holder])
    log = fleet.wait_for_log("in wait_for")
    assert "Fatal Python error: Aborted" in log
    assert "routes.py" in log
    assert fleet.stop() == 0


FOR_THE_MASTER = (signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE)


def test_worker_is_not_ended_by_what_is_for_its_master(start_fleet: FleetFactory) -> None:
    """A terminal, or `kill 0`, sends to the whole group."""
    fleet = start_fleet(workers=2)
    before = fleet.workers()
    for number in FOR_THE_MASTER:
        for pid in before:
            os.kill(pid, number)
        for _ in range(10):
            assert fleet.ask("/version").body == b"1"
        assert fleet.workers() == before, number
    assert fleet.stop() == 0


# --- the start --------------------------------------------------------------------------------------------------------


def test_command_of_the_master_is_the_operators(start_fleet: FleetFactory) -> None:
    """One worker by default, and a master as well: what is signalled is the process that was started."""
    fleet = start_fleet()
    [worker] = fleet.wait_for_workers(1)
    assert fleet.ask("/pid").body == str(worker).encode()
    assert worker != fleet.master
    shown = subprocess.run(["ps", "-o", "ppid=", "-p", str(worker)], capture_output=True, text=True, check=True)
    assert int(shown.stdout) == fleet.server.pid
    assert TARGET in fleet.log()
    assert fleet.stop() == 0
