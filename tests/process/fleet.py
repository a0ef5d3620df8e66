"""A master, its workers and an application that a test may break and mend. Made by the fixture `start_fleet`.

What is known of processes comes from proc(5) and from the files that the application writes (`routes.note`); what is
known of a reload from its effect, except for its failure, which only the log tells.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.process.procfs import children_of, is_accepting, is_alive, read_proc, state_of
from tests.support import Client, Response, Server, ServerFactory, connect, wait_until

MODULE = "site_app"
TARGET = f"{MODULE}:app"
WAIT_S = 40.0
RELOAD_FAILED = "reload failed"
UPGRADE_FAILED = "upgrade failed"

GOOD = """\
from tests.process.routes import make_app
app = make_app({version!r}, is_ready={is_ready})
"""
# How new code may be broken: what stands in the module, and a word of the log that says so.
BROKEN: dict[str, tuple[str, str]] = {
    "raise": ("raise RuntimeError('broken on purpose')\n", "RuntimeError: broken on purpose"),
    "syntax": ("def app(:\n", "SyntaxError"),
    "import": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "attribute": ("def another(environ, start):\n    return []\n", "has no attribute app"),
    "exit": ("raise SystemExit(0)\n", "SystemExit"),
    "os._exit": ("import os\nos._exit(0)\n", ""),
    "killed": ("import os\nos.kill(os.getpid(), 9)\n", ""),
}
# An import that takes until somebody ends it.
HANGING = """\
import os, time
from tests.process.routes import note
note("hanging", os.getpid())
for _ in range(600):
    time.sleep(0.1)
"""


def write_whole(path: Path, text: str) -> None:
    """So that whoever reads it meanwhile gets the old or the new."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)


def all_received(client: Client) -> bytes:
    """What came until the end, were it a reset."""
    with suppress(ConnectionResetError):
        return client.read_to_end()
    return client.buffer


def is_port_free(port: int) -> bool:
    """Whether nobody listens there any more, so that a new server could."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen()
        except OSError:
            return False
    return True


class Fleet:
    """See the module. directory: where the application lies; master: its pid, of a daemon set by the test."""

    def __init__(self, server: Server, directory: Path, notes: Path) -> None:
        self.server = server
        self.directory = directory
        self.notes = notes
        self.master = server.pid

    @property
    def address(self) -> Any:
        return self.server.address

    # --- the application ----------------------------------------------------------------------------------------------

    def write(self, version: str, *, is_ready: bool = True) -> None:
        """New code that works."""
        write_app(self.directory, version, is_ready=is_ready)

    def write_broken(self, how: str = "raise") -> str:
        """New code that does not; the words that the log must have for it."""
        text, words = BROKEN[how]
        write_whole(self.directory / f"{MODULE}.py", text)
        return words

    def ask(self, path: str, content: bytes = b"") -> Response:
        """One request on a connection of its own."""
        length = b"Content-Length: %d\r\n" % len(content) if content else b""
        method = b"POST" if content else b"GET"
        head = method + b" " + path.encode() + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + length + b"\r\n"
        with Client(self.address, timeout_s=WAIT_S) as client:
            return client.request(head + content)

    def version(self) -> str:
        return self.ask("/version").body.decode()

    def client(self) -> Client:
        return Client(self.address, timeout_s=WAIT_S)

    def is_refused(self) -> bool:
        """Whether nobody listens any more."""
        try:
            connect(self.address).close()
        except ConnectionRefusedError:
            return True
        return False

    # --- what requests have noted -------------------------------------------------------------------------------------

    def noted(self, kind: str) -> dict[str, str]:
        """name -> text of what was noted so far."""
        directory = self.notes / kind
        if not directory.is_dir():
            return {}
        return {path.name: path.read_text() for path in directory.iterdir() if not path.name.startswith(".")}

    def note(self, kind: str, name: str) -> None:
        (self.notes / kind).mkdir(exist_ok=True)
        (self.notes / kind / name).touch()

    def release(self, name: str = "all") -> None:
        """Let held requests go on."""
        self.note("released", name)

    def wait_held(self, *tags: str) -> list[int]:
        """The workers that hold these requests, once they all do."""
        wait_until(lambda: set(tags) <= set(self.noted("held")), WAIT_S, f"{tags} to be held")
        held = self.noted("held")
        return [int(held[tag]) for tag in tags]

    # --- processes ----------------------------------------------------------------------------------------------------

    def workers(self) -> set[int]:
        """Living children of the master, without those of a dry run."""
        pids = [pid for pid in children_of(self.master) if is_alive(pid)]
        return {pid for pid in pids if b"--check-config" not in read_proc(pid, "cmdline")}

    def zombies(self) -> list[int]:
        return [pid for pid in children_of(self.master) if state_of(pid) == "Z"]

    def versions(self) -> dict[int, str]:
        """worker -> version that it has booted with; '' where it has not yet."""
        noted = self.noted("booted")
        return {pid: noted.get(str(pid), "") for pid in self.workers()}

    def wait_for_workers(self, count: int, version: str = "", *, without: Iterable[int] = ()) -> set[int]:
        """Exactly so many workers, all serving, with that version, and none of `without` among them."""
        unwanted = set(without)

        def found() -> set[int]:
            versions = self.versions()
            if len(versions) != count or unwanted & set(versions) or not all(versions.values()):
                return set()
            is_right = self._has(versions, version) and all(map(is_accepting, versions))
            return set(versions) if is_right else set()

        pids: set[int] = self.wait(found, f"{count} workers of version {version!r}")
        return pids

    @staticmethod
    def _has(versions: dict[int, str], version: str) -> bool:
        return not version or set(versions.values()) == {version}

    def send(self, number: int) -> None:
        """A signal to the master."""
        os.kill(self.master, number)

    def log(self) -> str:
        return self.server.stderr_text()

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """`wait_until` with the log in what is said of a failure."""
        try:
            return wait_until(condition, WAIT_S, what)
        except BaseException as error:
            error.add_note(f"workers {self.versions()}, log:\n{self.log()}")
            raise

    def wait_reaped(self) -> None:
        self.wait(lambda: not self.zombies(), f"{self.zombies()} to be reaped")

    def wait_for_log(self, pattern: str, count: int = 1) -> str:
        """The log, once a regular expression is found in it so many times."""
        self.wait(lambda: len(re.findall(pattern, self.log())) >= count, f"{pattern!r} in the log")
        return self.log()

    # --- what is done to it -------------------------------------------------------------------------------------------

    def reload(self, version: str, number: int = signal.SIGHUP) -> set[int]:
        """New code, HUP (or USR2); the new workers, once they are all that is left."""
        before = self.workers()
        self.write(version)
        self.send(number)
        return self.wait_for_workers(len(before), version, without=before)

    def fail_reload(self, how: str = "raise", number: int = signal.SIGHUP) -> str:
        """Broken code and HUP (or USR2): the same workers are left, and the log says why. What it has said."""
        before = self.workers()
        words = self.write_broken(how)
        return self.wait_for_failure(before, words, number)

    def wait_for_failure(self, before: set[int], words: str, number: int = signal.SIGHUP) -> str:
        """HUP (or USR2) that must fail: `words` are in the log, and these workers are left."""
        failed = RELOAD_FAILED if number == signal.SIGHUP else UPGRADE_FAILED
        said = len(self.log())
        self.send(number)
        self.wait(lambda: failed in self.log()[said:], f"{failed!r} in the log")
        self.wait(lambda: self.workers() == before, f"{before} to be left")
        text = self.log()[said:]
        assert words in text, text
        return text

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; no process must be left."""
        workers = self.workers()
        code = self.server.stop(number)
        wait_until(lambda: not any(map(is_alive, workers)), WAIT_S, f"the end of {workers}")
        return code


def write_app(directory: Path, version: str, *, is_ready: bool = True) -> None:
    write_whole(directory / f"{MODULE}.py", GOOD.format(version=version, is_ready=is_ready))


class FleetFactory:
    """start_fleet(*options, ...) -> Fleet; the fixture ends every process that came of it, orphans among them."""

    def __init__(self, start_server: ServerFactory, directory: Path) -> None:
        self.start_server = start_server
        self.directory = directory
        self.notes = Path(tempfile.mkdtemp(prefix="notes", dir=directory))
        self.fleets: list[Fleet] = []

    def __call__(
        self,
        *options: str,
        version: str = "1",
        target: str = TARGET,
        workers: int = 0,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        wait: bool = True,
        **more: Any,
    ) -> Fleet:
        """Write the application unless it is there, start a server with it, and wait for its workers.

        workers: -w.  wait: False returns before the server is up.  more: for `start_server`.
        """
        directory = self.directory if cwd is None else cwd
        if not (directory / f"{MODULE}.py").exists():
            write_app(directory, version)
        given = ["-w", str(workers), *options] if workers else list(options)
        env = {"FLEET_NOTES": str(self.notes), **(env or {})}
        server = self.start_server(target, *given, cwd=directory, env=env, wait=wait, **more)
        fleet = Fleet(server, directory, self.notes)
        self.fleets.append(fleet)
        if wait and workers:
            fleet.wait_for_workers(workers)
        return fleet

    def close(self) -> None:
        """Kill whatever was started with our directory of notes in its environment: nobody else has that."""
        for fleet in self.fleets:
            fleet.server.kill()
        mark = f"FLEET_NOTES={self.notes}\0".encode()
        for _ in range(10):
            pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            left = [pid for pid in pids if mark in read_proc(pid, "environ") and is_alive(pid)]
            if not left:
                return
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


StartFleet = Callable[..., Fleet]
