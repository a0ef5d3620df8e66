"""HUP: a new generation takes over without a failed request, or the old one goes on. OPERATIONS.md 2, 3 and 6.16."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.process.fleet import BROKEN, HANGING, MODULE, WAIT_S, Fleet, FleetFactory, write_app, write_whole
from tests.process.load import Load, soak_rounds
from tests.process.procfs import children_of, descriptor_paths, is_alive
from tests.support import Client, connect, wait_until

STORM_PAUSE_S = 0.008
# What ends an import that hangs, after the 5 s that it is given.
ENDERS = (signal.SIGUSR2, signal.SIGHUP)[: soak_rounds(1, 2)]


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


# --- new code ---------------------------------------------------------------------------------------------------------


def test_new_code_is_served_by_new_workers(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=2)
    assert fleet.version() == "1"
    for version in ("2", "3"):
        workers = fleet.reload(version)
        response = fleet.ask("/version")
        assert response.body == version.encode()
        assert int(response["X-Worker"]) in workers
    assert "Traceback" not in fleet.log()
    assert fleet.stop() == 0


def test_kept_connections_are_told_to_go(start_fleet: FleetFactory) -> None:
    """A request in time on a kept connection of a drained worker is its last; one under way is finished."""
    fleet = start_fleet("--graceful-timeout", "300", workers=1)
    [old] = fleet.workers()
    with fleet.client() as held:
        held.send(get("/hold?held"))
        fleet.wait_held("held")
        for attempt in range(3):  # the connection stays for 2 s: on a busy machine the test may be late
            if ask_while_draining(fleet, str(attempt + 2)):
                break
        else:
            pytest.fail("no connection was kept for long enough to be asked on")
        assert is_alive(old)
        fleet.release()
        response = held.read_response()
        assert (response.body, response["X-Version"]) == (b"released", "1")
        assert held.read_to_end() == b""
    fleet.wait_for_workers(1, without=[old])
    assert fleet.stop() == 0


def ask_while_draining(fleet: Fleet, version: str) -> bool:
    """Reload, and ask on a connection of the worker that is retired; False if that was closed before."""
    with fleet.client() as kept:
        first = kept.request(get("/version"))
        assert "close" not in first.tokens
        fleet.write(version)
        fleet.send(signal.SIGHUP)
        wait_until(lambda: fleet.version() == version, WAIT_S, "new code")
        if kept.wait_readable(0.05):
            assert kept.receive() == b"", kept.buffer
            return False
        kept.send(get("/version"))
        data = kept.read_to_end()
        if not data:
            return False
        assert b"X-Worker: " + first["X-Worker"].encode() in data, data
        assert b"Connection: close" in data, data
        return True


def test_idle_connections_end_cleanly(start_fleet: FleetFactory) -> None:
    """Nobody asks on them: their old worker closes them in time, and is gone."""
    fleet = start_fleet("--graceful-timeout", "300", workers=1)
    with fleet.client() as one, fleet.client() as other:
        for client in (one, other):
            client.request(get("/version"))
        [old] = fleet.workers()
        fleet.reload("2")
        assert not is_alive(old)
        for client in (one, other):
            assert client.read_to_end() == b""
    assert fleet.stop() == 0


# --- broken code ------------------------------------------------------------------------------------------------------


def test_broken_code_leaves_the_old_serving(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=2)
    workers = fleet.workers()
    for how in BROKEN:
        text = fleet.fail_reload(how)
        assert fleet.workers() == workers, how
        assert fleet.version() == "1"
        if how in ("raise", "syntax"):
            assert text.count("Traceback") + text.count(f'{MODULE}.py", line 1') >= 1, text
    fleet.reload("2")
    assert fleet.version() == "2"
    assert fleet.stop() == 0


@pytest.mark.parametrize("number", ENDERS)
def test_import_that_hangs_is_overtaken(start_fleet: FleetFactory, number: int) -> None:
    """The old generation serves meanwhile; the next HUP, or USR2, ends what hangs."""
    fleet = start_fleet(workers=2)
    old = fleet.workers()
    write_whole(fleet.directory / f"{MODULE}.py", HANGING)
    fleet.send(signal.SIGHUP)
    wait_until(lambda: fleet.noted("hanging"), WAIT_S, "the import")
    assert fleet.version() == "1"
    fleet.write("2")
    fleet.send(number)
    fleet.wait_for_workers(2, "2", without=old)
    assert not any(is_alive(int(pid)) for pid in fleet.noted("hanging"))
    assert fleet.stop() == 0


def test_stop_while_a_generation_boots(start_fleet: FleetFactory) -> None:
    fleet = start_fleet("--graceful-timeout", "300", workers=2)
    write_whole(fleet.directory / f"{MODULE}.py", HANGING)
    fleet.send(signal.SIGHUP)
    wait_until(lambda: fleet.noted("hanging"), WAIT_S, "the import")
    assert fleet.stop() == 0
    assert not any(is_alive(int(pid)) for pid in fleet.noted("hanging"))


def test_ready_path_decides(start_fleet: FleetFactory) -> None:
    """Code that can be imported but does not answer ready_path is not served."""
    fleet = start_fleet("--ready-path", "/ready", workers=2)
    workers = fleet.workers()
    fleet.write("2", is_ready=False)
    fleet.wait_for_failure(workers, "ready_path")
    assert fleet.version() == "1"
    fleet.reload("3")
    assert fleet.version() == "3"
    assert fleet.stop() == 0


# --- settings ---------------------------------------------------------------------------------------------------------

BAD_SETTINGS = [
    ("epollwsgi.toml", "workers = \n", "epollwsgi.toml"),
    ("epollwsgi.toml", "wrokers = 2\n", "wrokers"),
    ("epollwsgi.toml", "workers = 'many'\n", "'many'"),
    ("gunicorn.conf.py", "import no_such_settings\n", "no_such_settings"),
]


def test_broken_settings_leave_the_old_serving(start_fleet: FleetFactory, tmp_path: Path) -> None:
    fleet = start_fleet(workers=2)
    workers = fleet.workers()
    for name, text, words in BAD_SETTINGS:
        write_whole(tmp_path / name, text)
        said = fleet.wait_for_failure(workers, words)
        assert name in said
        assert fleet.version() == "1"
        (tmp_path / name).unlink()
    fleet.reload("2")
    assert fleet.stop() == 0


def test_settings_files_come_and_go(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """One that nobody has named is read when it appears; one that was read must not be missed without a word."""
    project, own = tmp_path / "pyproject.toml", tmp_path / "epollwsgi.toml"
    project.write_text("[tool.epollwsgi]\nworkers = 2\n")
    fleet = start_fleet()
    workers = fleet.wait_for_workers(2)
    own.write_text("workers = 3\nworker_class = 'sync'\n")
    fleet.send(signal.SIGHUP)
    workers = fleet.wait_for_workers(3, without=workers)
    assert "settings file epollwsgi.toml has appeared, and is read" in fleet.log()
    assert "threads = 1 (worker_class = sync, epollwsgi.toml:2)" in fleet.log(), "what a banner would say"
    (tmp_path / "gunicorn.conf.py").write_text("workers = 4\n")
    for path, number in ((own, signal.SIGHUP), (project, signal.SIGHUP), (own, signal.SIGUSR2)):
        text = path.read_text()
        path.unlink()
        said = fleet.wait_for_failure(workers, f"settings file {path.name}: No such file or directory", number)
        assert "gunicorn.conf.py" not in said
        write_whole(path, text)
    fleet.send(signal.SIGHUP)
    fleet.wait_for_workers(3, without=workers)
    assert fleet.log().count("has appeared") == 1
    assert fleet.stop() == 0


def can_connect(path: Path) -> bool:
    try:
        connect(str(path)).close()
    except OSError:
        return False
    return True


def test_workers_and_bind_change(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """The settings file is read again: other addresses, other numbers; a bind that fails changes nothing."""
    settings = tmp_path / "epollwsgi.toml"
    settings.write_text("bind = ['unix:a.sock', 'unix:b.sock']\nworkers = 1\n")
    fleet = start_fleet(bind=(), wait=False)
    a, b, c = (tmp_path / f"{name}.sock" for name in "abc")
    wait_until(lambda: can_connect(a) and can_connect(b), WAIT_S, "the sockets")
    [old] = fleet.wait_for_workers(1)
    inode = b.stat().st_ino

    settings.write_text("bind = ['unix:b.sock', 'unix:c.sock']\nworkers = 3\n")
    fleet.send(signal.SIGHUP)
    workers = fleet.wait_for_workers(3, without=[old])
    wait_until(lambda: not can_connect(a), WAIT_S, "the first socket to be closed")
    for path in (b, c):
        with Client(str(path)) as client:
            assert int(client.request(get("/pid")).body) in workers
    assert b.stat().st_ino == inode
    assert not a.exists()

    settings.write_text("bind = ['unix:missing/d.sock']\nworkers = 1\n")
    fleet.wait_for_failure(workers, "missing/d.sock")
    with Client(str(b)) as client:
        assert int(client.request(get("/pid")).body) in workers
    assert fleet.stop() == 0
    assert not b.exists()
    assert not c.exists()


def test_reload_overlap_bounds_the_workers(start_fleet: FleetFactory) -> None:
    """Three workers and one more at most, while each is replaced; requests are answered all the while."""
    fleet = start_fleet("--reload-overlap", "1", workers=3)
    before = fleet.workers()
    fleet.write("2")
    most = 0
    with Load(fleet.address, kept=2, fresh=2):
        fleet.send(signal.SIGHUP)

        def is_over() -> bool:
            nonlocal most
            alive = [pid for pid in children_of(fleet.master) if is_alive(pid)]
            most = max(most, len(alive))
            return not before & set(alive)

        wait_until(is_over, WAIT_S, "the old workers to end")
        fleet.wait_for_workers(3, "2", without=before)
    assert most <= 4, "one more than workers"
    assert fleet.stop() == 0


# --- releases ---------------------------------------------------------------------------------------------------------


def flip(link: Path, target: Path) -> None:
    """Let a symbolic link point elsewhere, at once."""
    draft = link.with_name("draft")
    draft.symlink_to(target)
    draft.replace(link)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
@pytest.mark.parametrize("start", ["PWD", "chdir"])
def test_flipped_release_is_loaded(start_fleet: FleetFactory, tmp_path: Path, number: int, start: str) -> None:
    """The directory is entered again by its name. The old release may be deleted afterwards."""
    releases = [tmp_path / name for name in ("one", "two")]
    for directory in releases:
        directory.mkdir()
        write_app(directory, f"release {directory.name}")
    current = tmp_path / "current"
    current.symlink_to(releases[0])
    if start == "PWD":
        fleet = start_fleet(workers=2, cwd=current, env={"PWD": str(current)})
    else:
        fleet = start_fleet("--chdir", str(current), workers=2)
    assert fleet.version() == "release one"
    before = fleet.workers()
    flip(current, releases[1])
    fleet.send(number)
    fleet.wait_for_workers(2, "release two", without=before)
    assert fleet.version() == "release two"
    assert fleet.stop() == 0


# --- under load -------------------------------------------------------------------------------------------------------


def test_reloads_under_load(start_fleet: FleetFactory) -> None:
    """Half of them bring broken code; no client notices anything."""
    fleet = start_fleet(workers=2)
    ways = list(BROKEN)
    with Load(fleet.address, kept=8, fresh=8) as load:
        for number in range(soak_rounds(4, 20)):
            load.wait_for_more(30)
            if number % 2:
                fleet.fail_reload(ways[number // 2 % len(ways)])
            else:
                fleet.reload(f"round {number}")
        load.wait_for_more(30)
    assert len(load.report.versions) >= soak_rounds(2, 10)
    assert fleet.stop() == 0


def test_unix_socket_under_load(start_fleet: FleetFactory) -> None:
    """Reloads, an upgrade and a death on demand lose nothing there either."""
    fleet = start_fleet(workers=2, bind="unix")
    with Load(fleet.address, kept=4, fresh=8) as load:
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP):
            load.wait_for_more(50)
            fleet.reload(f"after {load.report.answered}", number)
        load.wait_for_more(50)
        os.kill(min(fleet.workers()), signal.SIGTERM)
        load.wait_for_more(50)
    assert fleet.stop() == 0


def test_lone_client(start_fleet: FleetFactory) -> None:
    """The kernel tells one worker of a connection. If that one is just leaving, no next connection makes up for it."""
    fleet = start_fleet(workers=2)
    for number in range(soak_rounds(5, 100)):
        version = f"round {number}"
        fleet.write(version)
        fleet.send(signal.SIGHUP)
        fleet.wait(lambda version=version: fleet.version() == version, "new code")  # type: ignore[misc]
        fleet.wait_for_workers(2, version)
    assert fleet.stop() == 0


def storm(fleet: Fleet, numbers: list[int]) -> None:
    """So many signals, a few milliseconds apart; the code is that of version `last` before the last of them."""
    for position, number in enumerate(numbers):
        if position == len(numbers) - 1:
            fleet.write("last")
        elif position % 10 == 5:
            fleet.write_broken()
        elif position % 10 == 0:
            fleet.write(f"storm {position}")
        fleet.send(number)
        time.sleep(STORM_PAUSE_S)


def settle(fleet: Fleet, count: int) -> None:
    """One consistent state: so many workers of the last version, of the same master, and nothing else going on."""
    wait_until(lambda: set(fleet.versions().values()) == {"last"}, WAIT_S, "the last version")
    fleet.wait_for_workers(count, "last")
    workers = fleet.workers()
    for _ in range(10):
        assert fleet.version() == "last"
    if fleet.workers() != workers:  # a last reload was still to come
        fleet.wait_for_workers(count, "last", without=workers)


def test_hundred_reloads_in_a_second(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=2)
    with Load(fleet.address, kept=4, fresh=4) as load:
        load.wait_for_more(20)
        storm(fleet, [signal.SIGHUP] * 100)
        settle(fleet, 2)
        load.wait_for_more(20)
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_storm_of_reloads_and_upgrades(start_fleet: FleetFactory) -> None:
    """HUP and USR2 in turn, at any moment of one another: the same process is the master in the end."""
    fleet = start_fleet(workers=2)
    with Load(fleet.address, kept=4, fresh=4) as load:
        for _ in range(soak_rounds(1, 5)):
            load.wait_for_more(20)
            storm(fleet, [signal.SIGHUP, signal.SIGUSR2, signal.SIGHUP] * 33)
            settle(fleet, 2)
        load.wait_for_more(20)
    assert fleet.server.is_running()
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_nothing_is_left_behind(start_fleet: FleetFactory) -> None:
    """Descriptors of the master are as many after ten reloads as after one, broken ones among them."""
    fleet = start_fleet(workers=2)
    fleet.reload("2")
    fleet.fail_reload()
    before = sorted(descriptor_paths(fleet.master))
    for number in range(soak_rounds(2, 10)):
        fleet.fail_reload()
        fleet.reload(str(number))
    wait_until(lambda: len(descriptor_paths(fleet.master)) <= len(before), what=f"descriptors to be closed: {before}")
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_workers_inherit_nothing_of_generations_before(start_fleet: FleetFactory) -> None:
    """A worker of the sixth generation has no more open than one of the second."""
    fleet = start_fleet(workers=2)

    def most() -> int:
        return max(len(descriptor_paths(pid)) for pid in fleet.workers())

    fleet.reload("1")
    before = most()
    for number in range(4):
        fleet.reload(str(number))
    fleet.wait(lambda: most() <= before, f"no more than {before} descriptors in each worker")
    assert fleet.stop() == 0
