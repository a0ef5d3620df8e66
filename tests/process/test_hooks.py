"""gunicorn's hooks: which functions are taken, what follows from a failure, and what hooks are handed."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.config.load import Loaded
from epollwsgi.config.python_file import read_python
from epollwsgi.config.settings import DEFAULTS, OPTIONS
from epollwsgi.errors import ConfigError, StartError
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.sink import Sink
from epollwsgi.process.hook_objects import HookConfig, HookLog, HookServer, HookWorker
from epollwsgi.process.hooks import HOOKS, HookFailed, Hooks, argument_count


class KeptLog(ErrorLog):
    """An error log whose file can be read."""

    def __init__(self, path: Path, level: str = "info") -> None:
        self.path = path
        super().__init__(Sink(str(path), 2), level)

    @property
    def text(self) -> str:
        return self.path.read_text("utf-8")


@pytest.fixture
def log(tmp_path: Path) -> KeptLog:
    return KeptLog(tmp_path / "log")


def hooks_of(log: KeptLog, directory: Path, source: str) -> Hooks:
    """The hooks of a settings file with that text. Raises ConfigError."""
    path = directory / "gunicorn.conf.py"
    path.write_text(textwrap.dedent(source))
    loaded = Loaded()
    loaded.set(str(path), {name: value for name, value in read_python(str(path)).items() if name in OPTIONS})
    return Hooks(loaded.settings, log)


# --- the table ------------------------------------------------------------------------------------------------------


def test_the_table_has_every_hook_of_the_settings() -> None:
    section = OPTIONS["on_starting"].section
    assert set(HOOKS) == {name for name, option in OPTIONS.items() if option.section == section} - {"ssl_context"}


def test_signatures_stand_with_the_most_arguments_first() -> None:
    for name, hook in HOOKS.items():
        counts = [signature.count(",") for signature in hook.signatures]
        assert counts == sorted(counts, reverse=True), name


class Callable2:
    """An object that can be called with two arguments."""

    def __call__(self, server: object, worker: object) -> None:
        pass


def three(a: object, b: object, c: object) -> None:
    pass


TAKEN: list[tuple[str, Callable[..., object], int]] = [
    ("on_starting", lambda server: None, 1),
    ("pre_fork", lambda server, worker: None, 2),
    ("pre_fork", lambda *arguments: None, 2),
    ("pre_fork", lambda server, worker, extra=1: None, 2),
    ("pre_fork", Callable2(), 2),
    ("pre_fork", Callable2().__call__, 2),
    ("pre_fork", partial(three, None), 2),
    ("nworkers_changed", three, 3),
    ("post_request", lambda worker, req: None, 2),
    ("post_request", lambda worker, req, environ: None, 3),
    ("post_request", lambda worker, req, environ, resp: None, 4),
    ("post_request", lambda worker, req, environ=None: None, 3),
    ("post_request", lambda worker, *rest: None, 4),
    ("when_ready", print, 1),
]


@pytest.mark.parametrize(("name", "function", "count"), TAKEN)
def test_functions_that_are_taken(name: str, function: Callable[..., object], count: int) -> None:
    assert argument_count(name, function) == count


REFUSED = {
    "def on_starting(): pass": "on_starting: a function that can be called with (server) is allowed",
    "def pre_fork(server): pass": "pre_fork: a function that can be called with (server, worker) is allowed",
    "def pre_fork(server, worker, third): pass": "called with (server, worker) is allowed",
    "def child_exit(server, *, worker): pass": "called with (server, worker) is allowed",
    "def nworkers_changed(server, new): pass": "called with (server, new_value, old_value) is allowed",
    "def post_request(worker): pass": (
        "post_request: a function that can be called with "
        "(worker, req) or (worker, req, environ) or (worker, req, environ, resp) is allowed"
    ),
    "def post_request(a, b, c, d, e): pass": "(worker, req) or",
    "async def when_ready(server): pass": "when_ready: a plain function is allowed, and this is async",
    "async def pre_request(worker, req): yield": "pre_request: a plain function is allowed, and this is async",
    "class Hook:\n    async def __call__(self, server): pass\non_exit = Hook()": "this is async",
}


@pytest.mark.parametrize("source", REFUSED)
def test_functions_that_are_refused(log: KeptLog, tmp_path: Path, source: str) -> None:
    """One line, with the place in the file."""
    with pytest.raises(ConfigError) as refused:
        hooks_of(log, tmp_path, f"\n{source}\n")
    text = str(refused.value)
    assert REFUSED[source] in text
    line = 3 if source.startswith("class") else 2
    assert text.startswith(f"{tmp_path / 'gunicorn.conf.py'}:{line}: ")
    assert "\n" not in text


def test_a_callable_without_source_is_named_as_it_is() -> None:
    with pytest.raises(ConfigError, match=r"^<built-in function getpid>: pre_fork: "):
        argument_count("pre_fork", os.getpid)


# --- calling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_get_what_the_table_names(log: KeptLog, tmp_path: Path, name: str) -> None:
    parameters = HOOKS[name].signatures[0]
    hooks = hooks_of(log, tmp_path, f"seen = []\ndef {name}({parameters}): seen.append(({parameters},))\n")
    arguments = tuple(range(parameters.count(",") + 1))
    hooks.call(name, *arguments)
    assert name in hooks
    function = hooks._found[name][0]
    assert function.__globals__["seen"] == [arguments]


def test_hooks_that_are_not_set_cost_nothing(log: KeptLog) -> None:
    hooks = Hooks(DEFAULTS, log)
    for name in HOOKS:
        assert name not in hooks
        hooks.call(name, None)
    assert hooks.pre_request is None
    assert hooks.post_request is None


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("error", ["ValueError('of the hook')", "SystemExit('of the hook')"])
def test_a_hook_that_fails(log: KeptLog, tmp_path: Path, name: str, error: str) -> None:
    """With its whole traceback, and no frame of the server's, in the log, or in the message of what ends the start."""
    parameters = HOOKS[name].signatures[0]
    hooks = hooks_of(log, tmp_path, f"def {name}({parameters}):\n    raise {error}\n")
    arguments = range(parameters.count(",") + 1)
    if HOOKS[name].is_fatal:
        with pytest.raises(HookFailed) as failed:
            hooks.call(name, *arguments)
        assert isinstance(failed.value, StartError)
        assert failed.value.exit_code == 1
        assert log.text == ""
        text = str(failed.value)
    else:
        hooks.call(name, *arguments)
        text = log.text
        assert text.count("[ERROR]") == 1
    assert f"the hook {name} failed: {HOOKS[name].consequence}\nTraceback (most recent call last):" in text
    assert text.rstrip().endswith(error.replace("('", ": ").removesuffix("')"))
    assert "gunicorn.conf.py" in text
    assert "hooks.py" not in text


def test_only_what_a_worker_or_a_start_rests_on_is_fatal() -> None:
    assert {name for name, hook in HOOKS.items() if hook.is_fatal} == {"on_starting", "post_fork", "post_worker_init"}


def test_an_operator_may_end_a_start_in_the_midst_of_a_hook(log: KeptLog, tmp_path: Path) -> None:
    hooks = hooks_of(log, tmp_path, "def on_starting(server): raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        hooks.call("on_starting", None)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_post_request_is_called_with_four_and_gets_what_it_takes(log: KeptLog, tmp_path: Path, count: int) -> None:
    parameters = ("worker, req", "worker, req, environ", "worker, req, environ, resp")[count - 2]
    hooks = hooks_of(log, tmp_path, f"def post_request({parameters}): return ({parameters})")
    assert hooks.post_request is not None
    assert hooks.post_request(1, 2, 3, 4) == (1, 2, 3, 4)[:count]


# --- the log that hooks write to ------------------------------------------------------------------------------------


def lines_of(text: str) -> list[str]:
    """Without time and pid."""
    return [line.split("] ", 2)[-1] if line.startswith("[") else line for line in text.splitlines()]


LOGGED: list[tuple[tuple[Any, ...], str]] = [
    (("plain",), "plain"),
    (("100% of it",), "100% of it"),
    (("worker %s of %d", "seven", 8), "worker seven of 8"),
    (("%(pid)s and %(age)d", {"pid": 1, "age": 2}), "1 and 2"),
    (("%s", {}), "{}"),
    (("%s", (1, 2)), "(1, 2)"),
    ((ValueError("an object"),), "an object"),
    (("%d workers", "many"), "'%d workers' with ('many',): %d format: a real number is required, not str"),
    (("none %s",), "none %s"),
    (("too", "many"), "'too' with ('many',): not all arguments converted during string formatting"),
    (("tab\tand\x1b[31m",), "tab\\x09and\\x1b[31m"),
]


@pytest.mark.parametrize(("arguments", "expected"), LOGGED)
def test_messages_are_formatted_as_logging_does(log: KeptLog, arguments: tuple[Any, ...], expected: str) -> None:
    HookLog(log).info(*arguments)
    assert lines_of(log.text) == [f"[INFO] {expected}"]


def test_levels(log: KeptLog) -> None:
    hook_log = HookLog(log)
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(hook_log, level)("at %s", level)
    assert lines_of(log.text) == [f"[{level.upper()}] at {level}" for level in ("info", "warning", "error", "critical")]


def test_a_message_that_is_not_wanted_is_not_made(log: KeptLog) -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("made")

    HookLog(log).debug(Costly())
    HookLog(log).debug("%s", Costly())
    assert log.text == ""


def test_lines_below_the_first_stand_as_they_are(log: KeptLog) -> None:
    HookLog(log).info("stacks:\n%s", "  File one\n    call()")
    assert lines_of(log.text) == ["[INFO] stacks:", "  File one", "    call()"]


def test_exceptions_are_logged_with_their_tracebacks(log: KeptLog) -> None:
    hook_log = HookLog(log)
    try:
        raise ValueError("of the hook")
    except ValueError as error:
        kept = error
        hook_log.exception("first")
        hook_log.info("second", exc_info=True)
        hook_log.info("third", exc_info=False, extra={"key": 1}, stack_info=False, stacklevel=2)
    hook_log.warning("fourth", exc_info=kept)
    text = log.text
    assert text.count("ValueError: of the hook") == 3
    heads = [line for line in lines_of(text) if line.startswith("[")]
    assert heads == ["[ERROR] first", "[INFO] second", "[INFO] third", "[WARNING] fourth"]


# --- the settings that hooks read -----------------------------------------------------------------------------------


def settings_with(**given: object) -> HookConfig:
    loaded = Loaded()
    loaded.set("test", given)
    return HookConfig(loaded.settings)


def test_every_setting_is_an_attribute() -> None:
    cfg = HookConfig(DEFAULTS)
    for name in OPTIONS:
        getattr(cfg, name)


GUNICORN_FORMS: list[tuple[dict[str, object], str, object]] = [
    ({"bind": "127.0.0.1:80,[::1]:81"}, "address", [("127.0.0.1", 80), ("::1", 81)]),
    ({"bind": ["unix:/run/x", "fd://3"]}, "address", ["/run/x", 3]),
    ({"bind": ["127.0.0.1:80", "unix:/run/x"]}, "bind", ["127.0.0.1:80", "unix:/run/x"]),
    ({"raw_env": ["A=1", "B=x=y"]}, "env", {"A": "1", "B": "x=y"}),
    ({}, "env", {}),
    ({}, "uid", os.geteuid()),
    ({}, "gid", os.getegid()),
    ({"user": "root", "group": "root"}, "uid", 0),
    ({"user": "root", "group": "root"}, "gid", 0),
    ({"user": 12, "group": "13"}, "uid", 12),
    ({"user": 12, "group": "13"}, "gid", 13),
    ({}, "is_ssl", False),
    ({"certfile": "x"}, "is_ssl", True),
    ({"worker_class": "sync"}, "worker_class_str", "sync"),
    ({"secure_scheme_headers": {"X": "y"}}, "secure_scheme_headers", {"X": "y"}),
    ({"reload_extra_files": ["a", "b"]}, "reload_extra_files", ["a", "b"]),
    ({"timeout": "2m"}, "timeout", 120.0),
    ({}, "worker_tmp_dir", None),  # one of gunicorn's that is ignored here
]


@pytest.mark.parametrize(("given", "name", "expected"), GUNICORN_FORMS)
def test_settings_have_the_forms_of_gunicorn(given: dict[str, object], name: str, expected: object) -> None:
    assert getattr(settings_with(**given), name) == expected


def test_what_the_server_has_found_out_takes_the_place_of_the_setting() -> None:
    cfg = HookConfig(replace(DEFAULTS, workers=None), workers=3, proc_name="app:app")
    assert (cfg.workers, cfg.proc_name) == (3, "app:app")
    assert cfg.settings["workers"].get() == 3


def test_settings_by_name() -> None:
    settings = settings_with(threads=5).settings
    assert set(settings) == set(OPTIONS)
    threads = settings["threads"]
    assert (threads.name, threads.get(), threads.value, threads.default) == ("threads", 5, 5, 8)


def test_settings_can_only_be_read() -> None:
    cfg = HookConfig(DEFAULTS)
    for name in ("workers", "anything"):
        with pytest.raises(AttributeError, match=f"cfg.{name}: a hook can read settings, not change them"):
            setattr(cfg, name, 1)
    with pytest.raises(AttributeError, match="cfg has no setting 'set'; a hook can read settings, not change them"):
        cfg.set("workers", 2)
    with pytest.raises(AttributeError, match="no setting 'worker'"):
        _ = cfg.worker
    assert not hasattr(cfg, "__deepcopy__")


# --- server and worker ----------------------------------------------------------------------------------------------


def test_what_hooks_see_of_the_server(log: KeptLog) -> None:
    cfg, hook_log = HookConfig(DEFAULTS, proc_name="app:app"), HookLog(log)
    workers: dict[int, HookWorker] = {}
    server = HookServer(cfg, hook_log, 17, lambda: len(workers) + 1, lambda: workers)
    assert (server.cfg, server.log, server.pid, server.num_workers, server.WORKERS) == (cfg, hook_log, 17, 1, {})
    assert server.proc_name == "app:app"
    assert server.address == [("127.0.0.1", 8000)]
    worker = workers[21] = HookWorker(1, 17, cfg, hook_log)
    assert (server.num_workers, server.WORKERS) == (2, {21: worker})
    server.WORKERS.clear()
    assert workers, "a copy was asked for"
    server.started_at = 3.5  # type: ignore[attr-defined]  # hooks keep things here
    assert vars(server)["started_at"] == 3.5


def test_what_hooks_see_of_a_worker(log: KeptLog) -> None:
    cfg, hook_log = HookConfig(DEFAULTS), HookLog(log)
    worker = HookWorker(3, 17, cfg, hook_log)
    assert (worker.age, worker.ppid, worker.cfg, worker.log) == (3, 17, cfg, hook_log)
    assert (worker.pid, worker.nr, worker.alive, worker.booted, worker.wsgi) == ("[booting]", 0, True, False, None)
    assert not hasattr(worker, "tmp")
    with pytest.raises(RuntimeError, match="not loaded yet"):
        worker.app.wsgi()
    worker.enter_process(21, lambda: 5, lambda: True, lambda: None)

    def application(environ: object, start_response: object) -> list[bytes]:
        return []

    worker.app.callable = application
    assert (worker.pid, worker.nr, str(worker)) == (21, 5, "<Worker 21>")
    assert (worker.wsgi, worker.app.wsgi()) == (application, application)


def test_a_hook_has_its_worker_replaced_by_saying_that_it_is_not_alive(log: KeptLog) -> None:
    worker = HookWorker(1, 17, HookConfig(DEFAULTS), HookLog(log))
    asked: list[int] = []
    running = [True]
    worker.enter_process(21, int, lambda: bool(running), lambda: asked.append(1))
    worker.alive = True
    assert asked == []
    worker.alive = False
    worker.alive = False
    assert asked == [1]
    assert not worker.alive


def test_a_worker_that_drains_is_not_alive_and_is_not_told_so_again(log: KeptLog) -> None:
    worker = HookWorker(1, 17, HookConfig(DEFAULTS), HookLog(log))
    asked: list[int] = []
    worker.enter_process(21, int, lambda: False, lambda: asked.append(1))
    assert not worker.alive
    worker.alive = False
    assert asked == []
