"""USR2: the master becomes a new program under the same process id, or stays what it is. OPERATIONS.md 2, 6.3, 6.16."""

from __future__ import annotations

import os
import shutil
import signal
import site
import socket
import sys
from pathlib import Path

import pytest

from tests.process.fleet import BROKEN, MODULE, RELOAD_FAILED, UPGRADE_FAILED, WAIT_S, Fleet, FleetFactory, write_whole
from tests.process.load import Load, soak_rounds
from tests.process.procfs import children_of, descriptor_paths, image_of, is_alive, listening_socket
from tests.support import ROOT, Client, connect, wait_until


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def upgrade(fleet: Fleet, version: str) -> set[int]:
    """New code and USR2; the new workers, of a new image of the same process."""
    before = image_of(fleet.master)
    workers = fleet.reload(version, signal.SIGUSR2)
    assert image_of(fleet.master) != before
    assert fleet.server.is_running()
    return workers


def test_upgrades_under_load(start_fleet: FleetFactory) -> None:
    """Three in a row: no client notices, the listener is the same socket, and nothing is left behind."""
    fleet = start_fleet(workers=2)
    listener = listening_socket(fleet.server.port)
    with Load(fleet.address, kept=8, fresh=8) as load:
        load.wait_for_more(30)
        upgrade(fleet, "2")
        before = sorted(descriptor_paths(fleet.master))
        for version in range(3, 3 + soak_rounds(2, 10)):
            load.wait_for_more(30)
            upgrade(fleet, str(version))
        load.wait_for_more(30)
    assert listening_socket(fleet.server.port) == listener
    wait_until(lambda: len(descriptor_paths(fleet.master)) <= len(before), what=f"descriptors to be closed: {before}")
    fleet.wait_reaped()
    assert "Traceback" not in fleet.log()
    assert fleet.stop() == 0


def test_old_workers_finish_what_they_have(start_fleet: FleetFactory) -> None:
    """A request in the application, and a response half sent, while the master under them becomes another program."""
    fleet = start_fleet("--graceful-timeout", "300", workers=1)
    [old] = fleet.workers()
    before = image_of(fleet.master)
    with fleet.client() as held, fleet.client() as dripping:
        held.send(get("/hold?held"))
        dripping.send(get("/drip?dripping"))
        assert set(fleet.wait_held("held", "dripping")) == {old}
        fleet.write("2")
        fleet.send(signal.SIGUSR2)
        wait_until(lambda: fleet.version() == "2", WAIT_S, "new code")
        assert image_of(fleet.master) != before
        assert old in children_of(fleet.master)
        fleet.release()
        assert held.read_response().body == b"released"
        assert dripping.read_response().body == b"first second"
    fleet.wait_for_workers(1, "2", without=[old])
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_everything_works_after_an_upgrade(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """Crashes are seen, signals taken, the socket and the pid file removed in the end: nothing was forgotten."""
    (tmp_path / "epollwsgi.toml").write_text("bind = ['unix:a.sock']\npidfile = 'master.pid'\n")
    fleet = start_fleet("-w", "2", bind=(), wait=False)
    wait_until((tmp_path / "a.sock").exists, WAIT_S, "the socket")
    fleet.server.unix_path = str(tmp_path / "a.sock")
    fleet.wait_for_workers(2)
    workers = upgrade(fleet, "2")
    assert int((tmp_path / "master.pid").read_text()) == fleet.master
    victim = min(workers)
    os.kill(victim, signal.SIGKILL)
    workers = fleet.wait_for_workers(2, "2", without=[victim])
    fleet.send(signal.SIGTTIN)
    assert workers < fleet.wait_for_workers(3)
    fleet.send(signal.SIGTTOU)
    fleet.wait_for_workers(2)
    fleet.reload("3")
    with Client(str(tmp_path / "a.sock")) as client:
        assert client.request(get("/version")).body == b"3"
    assert fleet.stop() == 0
    assert not (tmp_path / "a.sock").exists()
    assert not (tmp_path / "master.pid").exists()


def test_failed_dry_run_keeps_everything(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """Code that cannot be loaded, and settings that cannot be read: the same image, the same workers."""
    fleet = start_fleet(workers=2)
    workers, image = fleet.workers(), image_of(fleet.master)
    for how in ("raise", "killed"):
        fleet.fail_reload(how, signal.SIGUSR2)
        assert fleet.version() == "1"
    fleet.write("2")
    write_whole(tmp_path / "epollwsgi.toml", "wrokers = 2\n")
    fleet.wait_for_failure(workers, "wrokers", signal.SIGUSR2)
    (tmp_path / "epollwsgi.toml").unlink()
    assert image_of(fleet.master) == image
    assert fleet.workers() == workers
    fleet.wait_reaped()
    upgrade(fleet, "3")
    assert fleet.version() == "3"
    assert fleet.stop() == 0


BREAKING = """\
import os, sys
from pathlib import Path
from tests.process.routes import make_app
if "--check-config" in sys.argv:
    Path(sys.executable).unlink()
app = make_app("2")
"""


def test_failed_exec_keeps_everything(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """The interpreter vanishes right after the dry run: the old image goes on, with all that it had."""
    python = tmp_path / "python"
    python.symlink_to(os.path.realpath(sys.executable))
    path = os.pathsep.join([str(ROOT), *site.getsitepackages()])
    fleet = start_fleet(workers=2, python=str(python), env={"PYTHONPATH": path})
    workers, image = fleet.workers(), image_of(fleet.master)
    with Load(fleet.address, kept=2, fresh=2) as load:
        load.wait_for_more(20)
        write_whole(tmp_path / f"{MODULE}.py", BREAKING)
        fleet.wait_for_failure(workers, "No such file or directory", signal.SIGUSR2)
        load.wait_for_more(20)
    assert image_of(fleet.master) == image
    victim = min(workers)
    os.kill(victim, signal.SIGKILL)
    fleet.wait_for_workers(2, without=[victim])
    fleet.reload("3")
    assert fleet.version() == "3"
    assert fleet.stop() == 0


def test_server_that_cannot_be_imported(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """The release that is broken may be one of the server itself: the dry run must notice that as well."""
    library = tmp_path / "library"
    shutil.copytree(ROOT / "epollwsgi", library / "epollwsgi", ignore=shutil.ignore_patterns("__pycache__"))
    path = os.pathsep.join([str(library), str(ROOT)])
    fleet = start_fleet(workers=2, env={"PYTHONPATH": path})
    workers, image = fleet.workers(), image_of(fleet.master)
    for name in ("process/worker.py", "loop.py", "process/upgrade.py"):
        module = library / "epollwsgi" / name
        text = module.read_text()
        write_whole(module, text + "\nimport no_such_part\n")
        fleet.wait_for_failure(workers, "no_such_part", signal.SIGUSR2)
        assert fleet.version() == "1"
        write_whole(module, text)
    assert image_of(fleet.master) == image
    upgrade(fleet, "2")
    assert fleet.stop() == 0


BAD_BINDS = {
    "no directory": ("unix:missing/a.sock", "missing/a.sock"),
    "in use": ("127.0.0.1:{port}", "Address already in use"),
}


@pytest.mark.parametrize("why", BAD_BINDS)
def test_bind_that_fails_keeps_everything(start_fleet: FleetFactory, tmp_path: Path, why: str) -> None:
    """A dry run must not bind what is served already, but what is new may fail: HUP survives that, and so does USR2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address, words = BAD_BINDS[why]
        address = address.format(port=taken.getsockname()[1])
        (tmp_path / "epollwsgi.toml").write_text("bind = ['unix:a.sock']\n")
        fleet = start_fleet("-w", "2", bind=(), wait=False)
        fleet.wait((tmp_path / "a.sock").exists, "the socket")
        fleet.server.unix_path = str(tmp_path / "a.sock")
        workers = fleet.wait_for_workers(2)
        write_whole(tmp_path / "epollwsgi.toml", f"bind = ['unix:a.sock', '{address}']\n")
        fleet.wait_for_failure(workers, words, signal.SIGHUP)
        fleet.send(signal.SIGUSR2)
        fleet.wait(lambda: fleet.log().count(words) > 1, "the failure")
        for _ in range(20):
            assert fleet.version() == "1"
        assert fleet.server.is_running()
    write_whole(tmp_path / "epollwsgi.toml", "bind = ['unix:a.sock']\n")
    fleet.reload("2")
    upgrade(fleet, "3")
    assert fleet.version() == "3"
    assert fleet.stop() == 0


def test_preloaded_application_is_reloaded(start_fleet: FleetFactory) -> None:
    """With --preload the master holds the code, and must become a new image to get rid of it."""
    fleet = start_fleet("--preload", "-w", "2")
    wait_until(lambda: len(fleet.workers()) == 2, WAIT_S, "two workers")
    assert fleet.version() == "1"
    with Load(fleet.address, kept=4, fresh=4) as load:
        load.wait_for_more(20)
        for version in ("2", "3"):
            before = fleet.workers()
            said = len(fleet.log())
            words = fleet.write_broken()
            fleet.send(signal.SIGHUP)
            wait_until(lambda said=said, words=words: words in fleet.log()[said:], WAIT_S, "the failure")  # type: ignore[misc]
            assert fleet.version() != version
            fleet.write(version)
            fleet.send(signal.SIGHUP)

            def is_over(before: set[int] = before) -> bool:
                return len(fleet.workers()) == 2 and not before & fleet.workers()

            wait_until(is_over, WAIT_S, "new workers")
            assert fleet.version() == version
    assert fleet.stop() == 0


def wait_for_boots(fleet: Fleet, count: int) -> None:
    """Of the dry run, and then of the new worker."""
    wait_until(lambda: len(fleet.noted("boots")) >= count, WAIT_S, f"{count} boots")


def test_stop_at_any_moment_of_an_upgrade(start_fleet: FleetFactory) -> None:
    """TERM right behind USR2, during the dry run or the exec, ends the server as ever."""
    for round_number in range(soak_rounds(3, 12)):
        fleet = start_fleet(workers=1)
        tries = len(fleet.noted("boots"))
        fleet.send(signal.SIGUSR2)
        wait_for_boots(fleet, tries + round_number % 3)
        assert fleet.stop() == 0
        assert not [pid for pid in map(int, fleet.noted("booted")) if is_alive(pid)]


@pytest.mark.parametrize("how", ["raise", "os._exit"])
def test_new_code_that_breaks_after_the_dry_run(start_fleet: FleetFactory, how: str) -> None:
    """The dry run succeeds, the exec too, and then the new workers cannot boot: those that were kept go on."""
    text, _ = BROKEN[how]
    fleet = start_fleet(workers=2)
    workers = fleet.workers()
    breaking = f"import sys\nif '--check-config' not in sys.argv:\n    {text}".replace("\nos.", "\n    os.")
    write_whole(fleet.directory / f"{MODULE}.py", breaking + "def app(environ, start):\n    return []\n")
    image = image_of(fleet.master)
    fleet.send(signal.SIGUSR2)
    wait_until(lambda: image_of(fleet.master) != image, WAIT_S, "the new image")
    log = fleet.wait_for_log(f"tried again|another is tried|{RELOAD_FAILED}|{UPGRADE_FAILED}")
    if how == "raise":
        assert "\nRuntimeError: broken on purpose\n" in log
    fleet.wait(lambda: fleet.workers() == workers, "the old workers alone")
    assert fleet.version() == "1"
    fleet.write("3")
    fleet.send(signal.SIGHUP)  # not `reload`: a worker that is tried again may be there just now
    fleet.wait_for_workers(2, "3", without=workers)
    assert fleet.version() == "3"
    assert fleet.stop() == 0


def test_unix_socket_outlives_the_upgrade(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """The same inode, never refused."""
    abstract = f"@epollwsgi-upgrade-{os.getpid()}"
    (tmp_path / "epollwsgi.toml").write_text(f"bind = ['unix:a.sock', 'unix:{abstract}']\n")
    fleet = start_fleet("-w", "1", bind=(), wait=False)
    wait_until((tmp_path / "a.sock").exists, WAIT_S, "the socket")
    fleet.server.unix_path = str(tmp_path / "a.sock")
    fleet.wait_for_workers(1)
    inode = (tmp_path / "a.sock").stat().st_ino
    upgrade(fleet, "2")
    assert (tmp_path / "a.sock").stat().st_ino == inode
    for address in (str(tmp_path / "a.sock"), abstract):
        connect(address).close()
        with Client(address) as client:
            assert client.request(get("/version")).body == b"2"
    assert fleet.stop() == 0
