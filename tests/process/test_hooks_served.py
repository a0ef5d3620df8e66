"""A settings file with every hook, as operators have them, served by the real master: who is called, where, when."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import Client, Server, ServerFactory, wait_until

APP = """\
import os

def app(environ, start_response):
    body = f"{os.getpid()} {environ['PATH_INFO']}".encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""
# Each hook writes what it was given as one line; a few do what they are used for.
SETTINGS = """\
import glob
import json
import os
import sys
import threading
import time
import traceback

workers = 2
threads = 4
loglevel = "debug"
VERSION = 1


def note(hook, **given):
    line = json.dumps({"hook": hook, "process": os.getpid(), "version": VERSION, **given}) + "\\n"
    fd = os.open("events", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line.encode())
    os.close(fd)


def on_starting(server):
    server.begun = "in on_starting"
    note("on_starting", pid=server.pid, workers=server.cfg.workers, address=server.address)


def when_ready(server):
    open("ready", "w").close()
    note("when_ready", pids=sorted(server.WORKERS), wanted=server.num_workers, begun=server.begun)


def pre_fork(server, worker):
    worker.label = f"number {worker.age}"
    note("pre_fork", age=worker.age, pid=str(worker.pid), ppid=worker.ppid)


def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)
    note("post_fork", age=worker.age, pid=worker.pid, ppid=worker.ppid, master=server.pid,
         label=getattr(worker, "label", ""))


def post_worker_init(worker):
    open(f"live_{worker.pid}", "w").close()
    note("post_worker_init", pid=worker.pid, app=worker.wsgi.__name__, same=worker.app.wsgi() is worker.wsgi)


def pre_request(worker, req):
    req.started_at = time.monotonic()
    worker.log.debug("%s %s", req.method, req.path)


def post_request(worker, req, environ, resp):
    took = time.monotonic() - req.started_at
    note("post_request", path=req.path, query=req.query, status=resp.status_code, sent=resp.sent, is_right=took >= 0,
         on_main=threading.current_thread() is threading.main_thread(), pid=worker.pid)
    if req.path == "/retire":
        worker.alive = False


def worker_int(worker):
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in sys._current_frames().items():
        lines.append(f"# Thread: {names.get(ident, '')}({ident})")
        lines += [line.rstrip() for line in traceback.format_stack(frame)]
    worker.log.info("worker received INT or QUIT\\n" + "\\n".join(lines))
    note("worker_int", pid=worker.pid)


def worker_abort(worker):
    worker.log.info("worker received SIGABRT signal")
    note("worker_abort", pid=worker.pid)


def worker_exit(server, worker):
    note("worker_exit", pid=worker.pid, label=worker.label)


def child_exit(server, worker):
    note("child_exit", pid=worker.pid, age=worker.age)
    for path in glob.glob(f"live_{worker.pid}"):  # as prometheus_client.multiprocess.mark_process_dead does
        os.unlink(path)


def nworkers_changed(server, new_value, old_value):
    note("nworkers_changed", new=new_value, old=old_value)


def on_reload(server):
    note("on_reload")


def pre_exec(server):
    note("pre_exec")


def on_exit(server):
    note("on_exit", begun=getattr(server, "begun", ""), workers=server.cfg.workers)
"""


class Scene:
    """A server with these settings, and what its hooks have noted."""

    def __init__(self, directory: Path, start_server: ServerFactory) -> None:
        self.directory = directory
        self.start_server = start_server
        (directory / "app.py").write_text(APP)
        self.write(SETTINGS)

    def write(self, settings: str) -> None:
        (self.directory / "gunicorn.conf.py").write_text(settings)

    def start(self, *options: str) -> Server:
        return self.start_server("app:app", *options, cwd=self.directory)

    def fail(self, *options: str) -> tuple[int, str]:
        """A start that must not succeed: exit code and what was said."""
        server = self.start_server("app:app", *options, cwd=self.directory, wait=False)
        return server.process.wait(30), server.stderr_text()

    def events(self, hook: str = "") -> list[dict[str, Any]]:
        path = self.directory / "events"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [row for row in rows if hook in ("", row["hook"])]

    def wait_for(self, hook: str, count: int = 1, **given: object) -> list[dict[str, Any]]:
        """What was noted by a hook, once there are so many that were given such values."""

        def found() -> list[dict[str, Any]]:
            rows = [row for row in self.events(hook) if given.items() <= row.items()]
            return rows if len(rows) >= count else []

        rows: list[dict[str, Any]] = wait_until(found, 30, f"{count} calls of {hook} with {given} in {self.events()}")
        return rows

    def live_files(self) -> set[int]:
        return {int(path.name.removeprefix("live_")) for path in self.directory.glob("live_*")}


@pytest.fixture
def scene(tmp_path: Path, start_server: ServerFactory) -> Scene:
    return Scene(tmp_path, start_server)


def ask(server: Server, path: str = "/") -> int:
    """The pid of the worker that answers."""
    with Client(server.address) as client:
        body = client.request(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()).body
    pid, _, seen = body.decode().partition(" ")
    assert seen == path.partition("?")[0]
    return int(pid)


def column(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row[name] for name in names) for row in rows)


def test_from_start_to_end(scene: Scene) -> None:
    server = scene.start()
    master = server.pid
    [ready] = scene.wait_for("when_ready")
    assert (scene.directory / "ready").exists()
    pids = sorted(server.worker_pids)
    assert column(scene.events("on_starting"), "process", "pid", "workers") == [(master, master, 2)]
    assert scene.events("on_starting")[0]["address"] == [["127.0.0.1", 0]]
    assert (ready["process"], ready["pids"], ready["wanted"]) == (master, pids, 2)
    assert ready["begun"] == "in on_starting", "what a hook sets on the server is there for the next"
    assert column(scene.events("nworkers_changed"), "process", "new", "old") == [(master, 2, None)]
    assert column(scene.events("pre_fork"), "age", "process", "pid", "ppid") == [
        (1, master, "[booting]", master),
        (2, master, "[booting]", master),
    ]
    forked = scene.events("post_fork")
    assert column(forked, "process", "pid", "ppid", "master") == [(pid, pid, master, master) for pid in pids]
    assert column(forked, "age", "label") == [(1, "number 1"), (2, "number 2")]
    loaded = scene.events("post_worker_init")
    assert column(loaded, "process", "pid", "app", "same") == [(pid, pid, "app", True) for pid in pids]
    for pid in pids:
        assert f"Worker spawned (pid: {pid})" in server.stderr_text()
    assert scene.live_files() == set(pids)

    assert server.stop() == 0
    assert column(scene.events("worker_exit"), "process", "pid") == [(pid, pid) for pid in pids]
    assert column(scene.events("child_exit"), "process", "pid") == [(master, pid) for pid in pids]
    assert column(scene.events("on_exit"), "process", "begun") == [(master, "in on_starting")]
    assert scene.events()[-1]["hook"] == "on_exit"
    assert scene.live_files() == set()
    for hook in ("worker_int", "worker_abort", "on_reload", "pre_exec"):
        assert scene.events(hook) == []
    assert "Traceback" not in server.stderr_text()


@pytest.mark.parametrize("threads", ["1", "4"])
def test_requests(scene: Scene, threads: str) -> None:
    server = scene.start("--threads", threads)
    answered = [ask(server, f"/number/{number}?n={number}") for number in range(6)]
    rows = scene.wait_for("post_request", 6)
    assert column(rows, "path", "query", "status", "pid") == [
        (f"/number/{number}", f"n={number}", 200, pid) for number, pid in enumerate(answered)
    ]
    assert all(row["process"] == row["pid"] and row["is_right"] for row in rows)
    assert all(row["sent"] == len(f"{row['pid']} {row['path']}") for row in rows)
    assert {row["on_main"] for row in rows} == {threads == "1"}
    server.wait_for_log("GET /number/5")
    assert server.stop() == 0
    assert len(scene.events("post_request")) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_worker_int(scene: Scene, number: int) -> None:
    """With stacks of all threads in the log, line by line."""
    server = scene.start()
    scene.wait_for("when_ready")
    pids = sorted(server.worker_pids)
    assert server.stop(number) == 0
    assert column(scene.events("worker_int"), "process", "pid") == [(pid, pid) for pid in pids]
    assert column(scene.events("worker_exit"), "pid") == [(pid,) for pid in pids]
    assert column(scene.events("child_exit"), "pid") == [(pid,) for pid in pids]
    assert len(scene.events("on_exit")) == 1
    text = server.stderr_text()
    assert "[INFO] worker received INT or QUIT\n# Thread: " in text
    assert "\\x0a" not in text


def test_worker_abort(scene: Scene) -> None:
    """The stacks of faulthandler are in the log as well, and the worker is replaced."""
    server = scene.start()
    scene.wait_for("when_ready")
    first = server.worker_pids[0]
    os.kill(first, signal.SIGABRT)
    scene.wait_for("worker_abort", pid=first)
    scene.wait_for("child_exit", pid=first)
    scene.wait_for("post_worker_init", 3)
    text = server.stderr_text()
    assert "worker received SIGABRT signal" in text
    assert "most recent call first" in text
    assert scene.live_files() == set(server.worker_pids)
    assert first not in scene.live_files()
    ask(server)


def test_child_exit_of_a_worker_that_was_killed(scene: Scene) -> None:
    server = scene.start()
    scene.wait_for("when_ready")
    first = server.worker_pids[0]
    os.kill(first, signal.SIGKILL)
    [row] = scene.wait_for("child_exit", pid=first)
    assert row["process"] == server.pid
    scene.wait_for("post_worker_init", 3)
    assert scene.events("worker_exit") == []


def test_nworkers_changed(scene: Scene) -> None:
    server = scene.start()
    scene.wait_for("when_ready")
    server.send_signal(signal.SIGTTIN)
    scene.wait_for("nworkers_changed", new=3, old=2)
    scene.wait_for("post_worker_init", 3)
    server.send_signal(signal.SIGTTOU)
    [row] = scene.wait_for("nworkers_changed", new=2, old=3)
    assert row["process"] == server.pid
    scene.wait_for("child_exit")
    assert len(server.worker_pids) == 2


def test_a_worker_that_a_hook_takes_out_of_service(scene: Scene) -> None:
    """`worker.alive = False`, as hooks do that watch memory: it is replaced, the request is answered."""
    server = scene.start("-w", "1")
    scene.wait_for("when_ready")
    first = ask(server, "/retire")
    scene.wait_for("child_exit", pid=first)
    assert len(scene.events("worker_exit")) == 1
    assert ask(server) != first
    assert server.stop() == 0


# --- reload and upgrade ---------------------------------------------------------------------------------------------


def test_a_reload_brings_new_hooks(scene: Scene) -> None:
    server = scene.start()
    scene.wait_for("when_ready")
    old = sorted(server.worker_pids)
    scene.write(SETTINGS.replace("VERSION = 1", "VERSION = 2").replace("workers = 2", "workers = 3"))
    server.send_signal(signal.SIGHUP)
    [row] = scene.wait_for("on_reload")
    assert row["process"] == server.pid
    scene.wait_for("child_exit", 2)
    assert column(scene.wait_for("post_worker_init", 3, version=2), "process") == [
        (pid,) for pid in sorted(server.worker_pids)
    ]
    assert column(scene.events("worker_exit"), "pid", "version") == [(pid, 1) for pid in old]
    scene.wait_for("nworkers_changed", new=3, old=2)
    ask(server)
    assert scene.wait_for("post_request", version=2)
    assert server.stop() == 0
    assert column(scene.events("on_exit"), "version", "workers") == [(2, 3)]
    assert len(scene.events("worker_exit")) == 5
    assert scene.live_files() == set()


def test_a_hook_that_cannot_be_called_fails_the_reload(scene: Scene) -> None:
    server = scene.start()
    scene.wait_for("when_ready")
    pids = set(server.worker_pids)
    scene.write(SETTINGS.replace("def pre_fork(server, worker):", "def pre_fork(worker):"))
    server.send_signal(signal.SIGHUP)
    text = server.wait_for_log("reload failed")
    line = SETTINGS[: SETTINGS.index("def pre_fork")].count("\n") + 1
    assert f"gunicorn.conf.py:{line}: pre_fork: a function that can be called with (server, worker) is allowed" in text
    assert set(server.worker_pids) == pids
    ask(server)


def test_a_hook_that_fails_in_new_workers_fails_the_reload(scene: Scene) -> None:
    server = scene.start()
    scene.wait_for("when_ready")
    pids = set(server.worker_pids)
    scene.write(SETTINGS + "\n\ndef post_worker_init(worker):\n    raise ValueError('of the hook')\n")
    server.send_signal(signal.SIGHUP)
    text = server.wait_for_log("reload failed")
    assert "ValueError: of the hook" in text
    wait_until(lambda: set(server.worker_pids) == pids, 30, "the old workers alone")
    ask(server)


def test_an_upgrade(scene: Scene) -> None:
    """The master is another image with the same pid; each worker is seen off by child_exit, the old ones too."""
    server = scene.start()
    scene.wait_for("when_ready")
    old = sorted(server.worker_pids)
    scene.write(SETTINGS.replace("VERSION = 1", "VERSION = 2"))
    server.send_signal(signal.SIGUSR2)
    [row] = scene.wait_for("pre_exec")
    assert (row["process"], row["version"]) == (server.pid, 1)
    scene.wait_for("post_worker_init", 2, version=2)
    rows = scene.wait_for("child_exit", 2, process=server.pid)
    assert column(rows, "pid") == [(pid,) for pid in old]
    ask(server)
    assert server.stop() == 0
    assert scene.live_files() == set()


def test_a_hook_that_cannot_be_called_fails_the_upgrade(scene: Scene) -> None:
    """The dry run finds it, so that the master does not become an image that cannot start."""
    server = scene.start()
    scene.wait_for("when_ready")
    pids = set(server.worker_pids)
    scene.write(SETTINGS.replace("def pre_fork(server, worker):", "def pre_fork(worker):"))
    server.send_signal(signal.SIGUSR2)
    text = server.wait_for_log("upgrade failed")
    assert "pre_fork: a function that can be called with (server, worker) is allowed" in text
    assert scene.events("pre_exec") == []
    assert set(server.worker_pids) == pids
    ask(server)


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["on_starting(server)", "post_fork(server, worker)", "post_worker_init(worker)"])
def test_a_failure_that_ends_the_start(scene: Scene, hook: str) -> None:
    """With exit code 1 and the hook's own traceback, once."""
    scene.write(f"{SETTINGS}\n\ndef {hook}:\n    raise ValueError('of the hook')\n")
    code, text = scene.fail()
    assert code == 1
    name = hook.partition("(")[0]
    assert f"epollwsgi: the hook {name} failed: " in text
    assert "ValueError: of the hook" in text
    assert text.count("Traceback (most recent call last)") == text.count("the hook ")
    assert "/epollwsgi/" not in text


@pytest.mark.parametrize("options", [(), ("--check-config",)])
def test_a_hook_that_cannot_be_called_ends_the_start(scene: Scene, options: tuple[str, ...]) -> None:
    scene.write("workers = 2\n\n\ndef post_request(worker):\n    pass\n")
    code, text = scene.fail(*options)
    assert code == 1
    [line] = [line for line in text.splitlines() if line.startswith("epollwsgi: ")]
    assert line.endswith(
        "gunicorn.conf.py:4: post_request: a function that can be called with "
        "(worker, req) or (worker, req, environ) or (worker, req, environ, resp) is allowed"
    )
    assert "Traceback" not in text


# Hooks whose failure is logged.
LOGGED = (
    "when_ready(server)",
    "pre_fork(server, worker)",
    "post_request(worker, req)",
    "nworkers_changed(server, new_value, old_value)",
    "on_reload(server)",
    "pre_exec(server)",
    "worker_abort(worker)",
    "worker_int(worker)",
    "worker_exit(server, worker)",
    "child_exit(server, worker)",
    "on_exit(server)",
)


def test_failures_that_are_logged(scene: Scene) -> None:
    """Whatever they raise, SystemExit too; nothing else comes of it."""
    hooks = (f"def {hook}:\n    raise SystemExit('of {hook.partition('(')[0]}')" for hook in LOGGED)
    scene.write("\n\n\n".join([SETTINGS, *hooks, ""]))
    server = scene.start()

    def wait_failed(*names: str) -> None:
        for name in names:
            text = server.wait_for_log(f"SystemExit: of {name}", 30)
            assert f"[ERROR] the hook {name} failed: " in text

    wait_failed("when_ready", "pre_fork", "nworkers_changed")
    scene.wait_for("post_worker_init", 2)
    ask(server)
    wait_failed("post_request")
    for number, name in ((signal.SIGHUP, "on_reload"), (signal.SIGUSR2, "pre_exec")):
        before = set(server.worker_pids)
        server.send_signal(number)
        wait_failed(name)
        wait_until(partial(are_others, server, before), 30, f"other workers after {name}")
        ask(server)
    for number, name in ((signal.SIGABRT, "worker_abort"), (signal.SIGINT, "worker_int")):
        before = set(server.worker_pids)
        os.kill(min(before), number)
        wait_failed(name, "child_exit")
        wait_until(lambda before=before: len(set(server.worker_pids) - before) == 1, 30, "a successor")  # type: ignore[misc]
        ask(server)
    assert server.stop() == 0
    wait_failed("worker_exit", "on_exit")


def are_others(server: Server, before: set[int]) -> bool:
    """Whether two workers are there, and none of these."""
    now = set(server.worker_pids)
    return len(now) == 2 and not now & before


def test_a_failing_pre_request_answers_500(scene: Scene) -> None:
    begun = "req.started_at = time.monotonic()\n"
    scene.write(SETTINGS.replace(begun, f"{begun}    raise ValueError('of the hook')\n"))
    server = scene.start()
    with Client(server.address) as client:
        response = client.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert response.status == 500
    assert b"hook" not in response.body
    text = server.wait_for_log("ValueError: of the hook")
    assert "the hook pre_request failed: the request is answered with 500" in text
    assert scene.wait_for("post_request", status=500)
