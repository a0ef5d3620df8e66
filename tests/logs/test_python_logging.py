"""Python's logging as the operator configures it: who gets the records, what is in them, mistakes, stuck handlers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.logs.files import open_files
from tests.support import ROOT, Client, Server, ServerFactory, wait_until

GET = b'GET %s HTTP/1.1\r\nHost: h.example\r\nUser-Agent: "agent"\r\n\r\n'


def table(
    directory: Path, names: tuple[str, ...] = ("gunicorn.error", "gunicorn.access"), **more: Any
) -> dict[str, Any]:
    """A configuration with a file of JSON for each of these loggers."""
    return {
        "version": 1,
        "formatters": {"fields": {"()": "tests.logs.configured.Fields"}},
        "handlers": {
            name: {"class": "logging.FileHandler", "filename": f"{directory}/{name}", "formatter": "fields"}
            for name in names
        },
        "loggers": {name: {"level": "DEBUG", "handlers": [name]} for name in names},
        **more,
    }


def ini(directory: Path) -> str:
    """The same as an ini file; the files lie beside it."""
    return (
        "[loggers]\nkeys=root, error, access\n[handlers]\nkeys=error, access\n[formatters]\nkeys=fields\n"
        "[logger_root]\nhandlers=\n"
        "[logger_error]\nlevel=DEBUG\nhandlers=error\nqualname=gunicorn.error\npropagate=0\n"
        "[logger_access]\nlevel=INFO\nhandlers=access\nqualname=gunicorn.access\n"
        "[handler_error]\nclass=FileHandler\nformatter=fields\nargs=('%(here)s/gunicorn.error', 'a')\n"
        "[handler_access]\nclass=FileHandler\nformatter=fields\nargs=('%(here)s/gunicorn.access', 'a')\n"
        "[formatter_fields]\nclass=tests.logs.configured.Fields\n"
    )


def write_json(directory: Path, configuration: dict[str, Any]) -> list[str]:
    (directory / "logging.json").write_text(json.dumps(configuration))
    return ["--log-config-json", f"{directory}/logging.json"]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ask(server: Server, *paths: bytes) -> list[int]:
    with Client(server.address) as client:
        return [client.request(GET % path).status for path in paths]


# --- records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ini", "json", "dict"])
def test_records_of_both_logs(start_server: ServerFactory, tmp_path: Path, form: str) -> None:
    if form == "json":
        options = write_json(tmp_path, table(tmp_path))
    elif form == "ini":
        (tmp_path / "logging.ini").write_text(ini(tmp_path))
        options = ["--log-config", f"{tmp_path}/logging.ini"]
    else:
        (tmp_path / "conf.py").write_text(f"threads = 2\nlogconfig_dict = {table(tmp_path)!r}\n")
        options = ["-c", f"{tmp_path}/conf.py"]
    server = start_server("tests.apps.logged:app", *options, "--access-logfile", "-")
    worker = server.worker_pid
    assert ask(server, b"/a%20b?c=d", b"/fail") == [200, 500]
    assert server.stop() == 0
    access = records(tmp_path / "gunicorn.access")
    assert [one["atoms"]["s"] for one in access] == ["200", "500"]
    assert access[0] == {
        "name": "gunicorn.access",
        "level": "INFO",
        "message": access[0]["message"],
        "pid": worker,
        "atoms": {
            "h": "127.0.0.1",
            "m": "GET",
            "U": "/a b",
            "q": "c=d",
            "s": "200",
            "B": 2,
            "a": r"\x22agent\x22",
            "{host}i": "h.example",
            "{x-none}i": "-",
            "{content-type}o": "text/plain",
            "{path_info}e": "/a b",
        },
    }
    line = r'127\.0\.0\.1 - - \[[^]]+\] "GET /a%20b\?c=d HTTP/1\.1" 200 2 "-" "\\x22agent\\x22"'
    assert re.fullmatch(line, access[0]["message"])
    errors = records(tmp_path / "gunicorn.error")
    [failure] = [one for one in errors if "the application failed" in one["message"]]
    assert failure["name"] == "gunicorn.error"
    assert failure["level"] == "ERROR"
    assert failure["error"] == ["ValueError", "failed on purpose", True]
    assert failure["traceback"].endswith("\nValueError: failed on purpose")
    ends = [one for one in errors if one["message"] == "stopping: open requests are finished"]
    assert [one["pid"] for one in ends] == [server.pid]
    assert any(one["level"] == "DEBUG" for one in errors), "the level of the logger holds, not that of loglevel"
    assert "ValueError" not in server.stderr_text(), "the logger takes the place of errorlog"
    assert "127.0.0.1 - -" not in server.stdout_text(), "the logger takes the place of accesslog"


NAMED: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "ours before gunicorn's": (
        ("gunicorn.error", "epollwsgi.error", "gunicorn.access"),
        {"epollwsgi.error", "gunicorn.access"},
    ),
    "ours": (("epollwsgi.error", "epollwsgi.access"), {"epollwsgi.error", "epollwsgi.access"}),
    "errors alone": (("gunicorn.error",), {"gunicorn.error", "accesslog"}),
    "access alone": (("gunicorn.access",), {"errorlog", "gunicorn.access"}),
    "neither": (("another",), {"errorlog", "accesslog"}),
}


@pytest.mark.parametrize(("names", "expected"), NAMED.values(), ids=NAMED)
def test_who_gets_the_records(
    start_server: ServerFactory, tmp_path: Path, names: tuple[str, ...], expected: set[str]
) -> None:
    options = ["--access-logfile", f"{tmp_path}/accesslog", "--error-logfile", f"{tmp_path}/errorlog"]
    server = start_server("tests.apps.logged:app", *options, *write_json(tmp_path, table(tmp_path, names)))
    assert ask(server, b"/fail") == [500]
    assert server.stop() == 0
    found = {
        path.name
        for path in tmp_path.iterdir()
        if path.name != "logging.json" and ("ValueError" in path.read_text() or "/fail HTTP" in path.read_text())
    }
    assert found == expected


def test_what_a_configuration_leaves_out(start_server: ServerFactory, tmp_path: Path) -> None:
    """Without loggers of its own gunicorn's go to the console; names of its handlers and formats stay known."""
    configuration = {"version": 1, "root": {"level": "WARNING", "handlers": ["console"]}, "handlers": {}}
    server = start_server("tests.apps.logged:app", *write_json(tmp_path, configuration))
    assert ask(server, b"/", b"/fail") == [200, 500]
    assert server.stop() == 0
    stamp = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] "
    assert re.search(rf'^{stamp}\[INFO\] 127\.0\.0\.1 - - .*"GET / ', server.stdout_text(), re.MULTILINE)
    assert re.search(
        rf"^{stamp}\[ERROR\] GET /fail .*: the application failed\nTrace", server.stderr_text(), re.MULTILINE
    )
    assert server.stdout_text().count('"GET / ') == 1, "once, not by the root logger again"


def test_the_last_of_three_ways_wins(start_server: ServerFactory, tmp_path: Path) -> None:
    """A table before JSON before ini, as in gunicorn."""
    (tmp_path / "ini").mkdir()
    (tmp_path / "json").mkdir()
    (tmp_path / "logging.ini").write_text(ini(tmp_path / "ini"))
    options = ["--log-config", f"{tmp_path}/logging.ini", *write_json(tmp_path, table(tmp_path / "json"))]
    server = start_server("tests.apps.logged:app", *options)
    assert ask(server, b"/fail") == [500]
    assert server.stop() == 0
    assert list((tmp_path / "ini").iterdir()) == []
    assert records(tmp_path / "json" / "gunicorn.error")


def test_an_application_that_configures_logging_silences_nobody(start_server: ServerFactory, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import logging.config\nfrom tests.apps.logged import app\n"
        "logging.config.dictConfig({'version': 1, 'root': {'level': 'INFO', 'handlers': []}})\n"
    )
    server = start_server("own:app", *write_json(tmp_path, table(tmp_path)), cwd=tmp_path)
    assert ask(server, b"/fail") == [500]
    assert server.stop() == 0
    assert [one["error"][0] for one in records(tmp_path / "gunicorn.error") if "error" in one] == ["ValueError"]
    assert len(records(tmp_path / "gunicorn.access")) == 1


def test_a_parent_that_is_named_gets_the_records_of_both_logs(start_server: ServerFactory, tmp_path: Path) -> None:
    server = start_server("tests.apps.logged:app", *write_json(tmp_path, table(tmp_path, ("gunicorn",))))
    assert ask(server, b"/1", b"/fail") == [200, 500]
    assert server.stop() == 0
    names = [one["name"] for one in records(tmp_path / "gunicorn")]
    assert names.count("gunicorn.access") == 2
    assert "gunicorn.error" in names
    assert "stopping" not in server.stderr_text()


# --- files ----------------------------------------------------------------------------------------------------------


def test_files_of_handlers_are_opened_again(start_server: ServerFactory, tmp_path: Path) -> None:
    server = start_server("tests.apps.logged:app", "-w", "2", *write_json(tmp_path, table(tmp_path)))
    assert ask(server, b"/1") == [200]
    wait_until(lambda: records(tmp_path / "gunicorn.access"), 15, "the first record")
    for name in ("gunicorn.error", "gunicorn.access"):
        (tmp_path / name).rename(tmp_path / f"{name}.old")
    server.send_signal(signal.SIGUSR1)

    def have_moved() -> bool:
        files = {f"{tmp_path}/gunicorn.error", f"{tmp_path}/gunicorn.access"}
        return all(files <= open_files(pid) for pid in [server.pid, *server.worker_pids])

    wait_until(have_moved, 20, "all to have opened the new files")
    assert ask(server, b"/2") == [200]
    assert server.stop() == 0
    assert [one["atoms"]["U"] for one in records(tmp_path / "gunicorn.access")] == ["/2"]


def test_files_of_the_applications_own_handlers_are_opened_again(start_server: ServerFactory, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import logging\nfrom tests.apps.logged import app\n"
        f"logging.basicConfig(filename={str(tmp_path / 'own.log')!r})\n"
    )
    server = start_server("own:app", cwd=tmp_path)
    (tmp_path / "own.log").rename(tmp_path / "old.log")
    server.send_signal(signal.SIGUSR1)
    wait_until(lambda: f"{tmp_path}/own.log" in open_files(server.worker_pid), 20, "the new file")
    assert server.stop() == 0


def test_they_are_opened_again_where_the_libraries_are_out_of_reach_by_then(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "import logging, sys\nfrom tests.apps.logged import app\n"
        f"logging.basicConfig(filename={str(tmp_path / 'own.log')!r})\n"
        "sys.meta_path.clear()\n"  # as for a worker whose user may not read them
    )
    server = start_server("own:app", cwd=tmp_path)
    (tmp_path / "own.log").rename(tmp_path / "old.log")
    server.send_signal(signal.SIGUSR1)
    wait_until(lambda: f"{tmp_path}/own.log" in open_files(server.worker_pid), 20, "the new file")
    assert server.stop() == 0
    assert "Traceback" not in server.stderr_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_new_files_of_handlers_belong_to_who_runs_the_workers(start_server: ServerFactory) -> None:
    with TemporaryDirectory() as name:  # tmp_path lies where nobody else may look
        directory = Path(name)
        directory.chmod(0o755)
        options = [*write_json(directory, table(directory)), "--user", "nobody", "--preload"]
        server = start_server("tests.apps.logged:app", *options)
        paths = [directory / one for one in ("gunicorn.error", "gunicorn.access")]
        for round in range(3):  # workers are told while a thread of the master opens the files
            for path in paths:
                path.rename(f"{path}.{round}")
            server.send_signal(signal.SIGUSR1)
            wait_until(lambda: {str(path) for path in paths} <= open_files(server.worker_pid), 20, "the new files")
            assert ask(server, b"/") == [200]
            wait_until(lambda: len(records(paths[1])) == 1, 20, "the record of that")
        assert server.stop() == 0


# --- reload ---------------------------------------------------------------------------------------------------------


def test_a_reload_takes_the_new_configuration_and_keeps_the_old_one_if_that_is_wrong(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    server = start_server("tests.apps.logged:app", *write_json(tmp_path, table(tmp_path)))
    (tmp_path / "wrong").mkdir()
    wrong = table(tmp_path / "wrong")
    wrong["loggers"]["gunicorn.access"]["level"] = "LOUD"  # found when the other logger has its new handler already
    write_json(tmp_path, wrong)
    server.send_signal(signal.SIGHUP)
    old = tmp_path / "gunicorn.error"
    wait_until(lambda: any("reload failed" in one["message"] for one in records(old)), 20, "the failure")
    assert ask(server, b"/fail") == [500]
    wait_until(lambda: any("error" in one for one in records(old)), 20, "the record of the old worker")
    before = server.worker_pid
    write_json(tmp_path, table(tmp_path / "new"))
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: len(pids := server.worker_pids) == 1 and before not in pids, 20, "the new worker")
    assert ask(server, b"/fail") == [500]
    assert server.stop() == 0
    new = records(tmp_path / "new" / "gunicorn.error")
    assert any("error" in one for one in new)
    assert any(one["message"].startswith("stopping") and one["pid"] == server.pid for one in new)


# --- handlers that are stuck ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGQUIT], ids=["TERM", "QUIT"])
def test_a_stuck_handler_harms_no_request_and_no_stop(
    start_server: ServerFactory, tmp_path: Path, signal_number: int
) -> None:
    names = ("gunicorn.error", "gunicorn.access")
    configuration = table(tmp_path, names)
    configuration["handlers"] = {"stuck": {"()": "tests.logs.configured.Stuck", "directory": str(tmp_path)}}
    configuration["loggers"] = {name: {"level": "INFO", "handlers": ["stuck"]} for name in names}
    server = start_server("tests.apps.logged:app", *write_json(tmp_path, configuration), "-w", "2")
    for _ in range(3):
        assert ask(server, *[b"/fail"] * 300) == [500] * 300
    os.kill(server.worker_pids[0], signal.SIGKILL)  # the master forks while its own thread is stuck
    wait_until(lambda: len(server.worker_pids) == 2, 20, "the next worker")
    assert ask(server, b"/") == [200]
    assert not (tmp_path / "handled").exists()
    assert server.stop(signal_number) == 0


def test_lost_records_are_counted_and_reported(start_server: ServerFactory, tmp_path: Path) -> None:
    configuration = table(tmp_path, ("gunicorn.error",))
    configuration["handlers"] = {"stuck": {"()": "tests.logs.configured.Stuck", "directory": str(tmp_path)}}
    configuration["loggers"]["gunicorn.error"]["handlers"] = ["stuck"]
    server = start_server("tests.apps.logged:app", *write_json(tmp_path, configuration), "--access-logfile", "none")
    asked = 600
    assert ask(server, *[b"/fail"] * asked) == [500] * asked
    (tmp_path / "released").touch()

    def accounted() -> tuple[int, int]:
        lines = (tmp_path / "handled").read_text().splitlines() if (tmp_path / "handled").exists() else []
        reports = [line for line in lines if "lines for logging were lost: it does not keep up" in line]
        return len([line for line in lines if "failed" in line]), sum(int(line.split()[0]) for line in reports)

    def all_told() -> bool:
        nonlocal asked
        assert ask(server, b"/fail") == [500]  # what was lost is told with the next line, once a second
        asked += 1
        with contextlib.suppress(pytest.fail.Exception):
            wait_until(lambda: sum(accounted()) == asked, 1.5)
        return sum(accounted()) == asked

    wait_until(all_told, 60, "as many lines, and reports of lost ones, as were to be written")
    assert 0 < accounted()[1] < 600
    assert server.stop() == 0


# --- mistakes -------------------------------------------------------------------------------------------------------

FILES = {
    "not json": ("logging.json", "{", "logconfig_json = 'logging.json': Expecting property name"),
    "no object": ("logging.json", "[]", "an object is allowed, as logging.config.dictConfig takes it"),
    "no version": ("logging.json", '{"version": 2}', "logconfig_json = 'logging.json': Unsupported version: 2"),
    "unknown class": (
        "logging.json",
        '{"version": 1, "handlers": {"h": {"class": "no.such.Handler"}}}',
        "Unable to configure handler 'h': Cannot resolve 'no.such.Handler': No module named 'no'",
    ),
    "missing directory": (
        "logging.json",
        '{"version": 1, "handlers": {"h": {"class": "logging.FileHandler", "filename": "/missing/x"}}}',
        "Unable to configure handler 'h': /missing/x: No such file or directory",
    ),
    "handler that raises": (
        "logging.json",
        '{"version": 1, "handlers": {"h": {"()": "tests.logs.configured.Failing"}}}',
        "Unable to configure handler 'h': /var/log/nobody: Permission denied",
    ),
    "unknown level": (
        "logging.json",
        '{"version": 1, "loggers": {"gunicorn.error": {"level": "LOUD"}}}',
        "Unable to configure logger 'gunicorn.error': Unknown level: 'LOUD'",
    ),
    "missing json": ("missing.json", "", "logconfig_json = 'missing.json': No such file or directory"),
    "no sections": ("logging.ini", "", "logconfig = 'logging.ini': 'formatters' is missing"),
    "no ini file": ("logging.ini", "x = 1\n", "logconfig = 'logging.ini': File contains no section headers"),
    "no qualname": (
        "logging.ini",
        "[loggers]\nkeys=root,a\n[logger_a]\nhandlers=\n",
        "logconfig = 'logging.ini': 'qualname' is missing",
    ),
    "missing ini": ("missing.ini", "", "logconfig = 'missing.ini': No such file or directory"),
}


@pytest.mark.parametrize(("name", "text", "words"), FILES.values(), ids=FILES)
def test_mistakes_are_one_line(start_server: ServerFactory, tmp_path: Path, name: str, text: str, words: str) -> None:
    if text or name == "logging.ini":
        (tmp_path / name).write_text(text)
    option = "--log-config-json" if name.endswith("json") else "--log-config"
    expect_line(start_server("tests.apps.logged:app", "--check-config", option, name, cwd=tmp_path, wait=False), words)


def test_a_mistake_ends_a_start_too(start_server: ServerFactory, tmp_path: Path) -> None:
    (tmp_path / "logging.json").write_text('{"version": 2}')
    server = start_server("tests.apps.logged:app", "--log-config-json", "logging.json", cwd=tmp_path, wait=False)
    expect_line(server, "logconfig_json = 'logging.json': Unsupported version: 2")


def expect_line(server: Server, words: str) -> None:
    """It ends with one line about a mistake in its settings."""
    assert server.process.wait(20) == 1
    [line] = server.stderr_text().splitlines()
    assert line.startswith("epollwsgi: ")
    assert words in line


# --- loggers that applications look for -----------------------------------------------------------------------------

HANDS_ON = """\
import logging
handlers = logging.getLogger("gunicorn.error").handlers
logger = logging.getLogger("shop")
logger.handlers = handlers
logger.setLevel(logging.getLogger("gunicorn.error").level)
logger.propagate = False
logger.info("by %s", "import")

def app(environ, start_response):
    logger.debug("a detail")
    try:
        raise KeyError("lost")
    except KeyError:
        logger.exception("it is\\nlost")
    logging.getLogger("epollwsgi.error").warning("by its own name")
    start_response("200 OK", [])
    return [b"ok"]
"""


@pytest.fixture
def without_logging(tmp_path: Path) -> dict[str, str]:
    """An environment without the package setproctitle, which alone imports logging before the application does."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "setproctitle.py").write_text("raise ImportError")
    return {"PYTHONPATH": f"{hidden}:{ROOT}"}


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["loaded in the worker", "preloaded"])
@pytest.mark.parametrize("when", ["imported by the application", "imported before"])
def test_an_application_that_hands_on_gunicorns_handlers(
    start_server: ServerFactory, tmp_path: Path, preload: list[str], when: str, without_logging: dict[str, str]
) -> None:
    (tmp_path / "shop.py").write_text(HANDS_ON)
    if when == "imported before":
        (tmp_path / "hidden" / "setproctitle.py").write_text("import logging\nraise ImportError")
    server = start_server("shop:app", *preload, cwd=tmp_path, env=without_logging)
    assert ask(server, b"/") == [200]
    assert server.stop() == 0
    lines = server.stderr_text().splitlines()
    stamp = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] "
    assert [line for line in lines if re.fullmatch(stamp + r"\[INFO\] by import", line)]
    [number] = [number for number, line in enumerate(lines) if re.fullmatch(stamp + r"\[ERROR\] it is", line)]
    assert lines[number + 1 : number + 3] == ["lost", "Traceback (most recent call last):"]
    assert "KeyError: 'lost'" in lines
    assert [line for line in lines if re.fullmatch(stamp + r"\[WARNING\] by its own name", line)]
    assert "a detail" not in server.stderr_text(), "the level is handed on too"


def test_an_application_that_gives_gunicorns_logger_handlers(start_server: ServerFactory, tmp_path: Path) -> None:
    """As the LOGGING of a Django project does."""
    configuration = table(tmp_path, ("gunicorn.error",))
    (tmp_path / "shop.py").write_text(
        f"import logging.config\nlogging.config.dictConfig({configuration!r})\nfrom tests.apps.logged import app\n"
    )
    server = start_server("shop:app", cwd=tmp_path)
    assert ask(server, b"/fail") == [500]
    assert server.stop() == 0
    assert [one["error"][0] for one in records(tmp_path / "gunicorn.error") if "error" in one] == ["ValueError"]
    assert "ValueError" not in server.stderr_text()


def test_an_application_that_gives_gunicorns_logger_a_handler_beside(
    start_server: ServerFactory, tmp_path: Path
) -> None:
    """Both logs have all events, and what the application says by that logger, once each. As gunicorn has it."""
    (tmp_path / "shop.py").write_text(
        "import logging\nlog = logging.getLogger('gunicorn.error')\nlog.addHandler(logging.FileHandler('own'))\n"
        "from tests.apps.logged import app as inner\n"
        "def app(*call):\n    log.warning('by its own')\n    return inner(*call)\n"
    )
    server = start_server("shop:app", "--error-logfile=log", cwd=tmp_path)
    assert ask(server, b"/fail") == [500]
    assert server.stop() == 0
    for name in ("log", "own"):
        lines = (tmp_path / name).read_text().splitlines()
        assert sum("by its own" in line and "log.warning" not in line for line in lines) == 1, name
        assert sum(line.startswith("ValueError") for line in lines) == 1, name


# How an application gives gunicorn's logger a handler; options; who gets the lines. As gunicorn has it.
GIVES_ACCESS: dict[str, tuple[str, tuple[str, ...], set[str]]] = {
    "in place": ("logging.config.dictConfig(table)", ("--access-logfile=log", "--preload"), {"gunicorn.access"}),
    "beside": ("logging.getLogger('gunicorn.access').addHandler(own)", ("--access-logfile=log",), {"log", "own"}),
    "syslog": ("logging.getLogger('epollwsgi.access').addHandler(own)", ("--log-syslog",), {"own"}),
    "not asked for": ("logging.config.dictConfig(table)", ("--statsd-host=127.0.0.1:9",), set()),
}


@pytest.mark.parametrize(("gives", "options", "expected"), GIVES_ACCESS.values(), ids=GIVES_ACCESS)
def test_an_application_that_gives_gunicorns_access_logger_handlers(
    start_server: ServerFactory, tmp_path: Path, gives: str, options: tuple[str, ...], expected: set[str]
) -> None:
    (tmp_path / "shop.py").write_text(
        f"import logging.config\ntable = {table(tmp_path, ('gunicorn.access',))!r}\n"
        f"own = logging.FileHandler('own', delay=True)\n{gives}\n"
        "from tests.apps.logged import app\n"
    )
    server = start_server("shop:app", *options, cwd=tmp_path)
    assert ask(server, b"/a", b"/b") == [200, 200]
    assert server.stop() == 0
    texts = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file() and path.name != "shop.py"}
    assert {name for name, text in texts.items() if "GET /a HTTP/1.1" in text} == expected
    assert all(text.count("GET /a HTTP/1.1") == 1 == text.count("GET /b HTTP/1.1") for text in texts.values() if text)
    if "gunicorn.access" in expected:
        assert [one["atoms"]["U"] for one in records(tmp_path / "gunicorn.access")] == ["/a", "/b"]


FILTER = """
import logging
class Quiet(logging.Filter):
    def filter(self, record):
        if record.args["U"] == "/odd":
            raise ValueError
        return record.args["U"] != "/health" and "GET /hidden HTTP" not in record.getMessage()
"""
# Who gives gunicorn's access logger a filter, and how.
FILTERED = {
    "a hook": ("gunicorn.conf.py", "def on_starting(server):\n    server.log.access_log.addFilter(Quiet())\n"),
    "the application": ("shop.py", "logging.getLogger('gunicorn.access').addFilter(Quiet())\n"),
    "for its handler": ("shop.py", "logging.getLogger('gunicorn.access').handlers[0].addFilter(Quiet())\n"),
}


@pytest.mark.parametrize(("name", "gives"), FILTERED.values(), ids=FILTERED)
def test_filters_of_gunicorns_access_logger(start_server: ServerFactory, tmp_path: Path, name: str, gives: str) -> None:
    (tmp_path / name).write_text(FILTER + gives)
    with (tmp_path / "shop.py").open("a") as file:
        file.write("from tests.apps.logged import app\n")
    server = start_server("shop:app", "--access-logfile=log", cwd=tmp_path)
    assert ask(server, b"/health", b"/a", b"/hidden", b"/odd") == [200] * 4
    assert server.stop() == 0
    assert [line.split()[6] for line in (tmp_path / "log").read_text().splitlines()] == ["/a", "/odd"]


def test_a_line_of_the_applications_own_goes_into_the_access_log(start_server: ServerFactory, tmp_path: Path) -> None:
    """By the handler that stands in, wherever it was handed on."""
    (tmp_path / "shop.py").write_text(
        "import logging\nown = logging.getLogger('shop')\n"
        "own.handlers = logging.getLogger('gunicorn.access').handlers\n"
        "own.error('a line\\nof %s own', 'its')\nfrom tests.apps.logged import app\n"
    )
    server = start_server("shop:app", "--access-logfile=log", cwd=tmp_path)
    assert ask(server, b"/a") == [200]
    assert server.stop() == 0
    [own, line] = (tmp_path / "log").read_text().splitlines()
    assert own == r"a line\x0aof its own"
    assert "GET /a HTTP/1.1" in line


def test_without_logging_nothing_of_it_is_imported(
    start_server: ServerFactory, tmp_path: Path, without_logging: dict[str, str]
) -> None:
    (tmp_path / "plain.py").write_text(
        "import sys\n\ndef app(environ, start_response):\n    start_response('200 OK', [])\n"
        "    return [str('logging' in sys.modules).encode()]\n"
    )
    server = start_server("plain:app", cwd=tmp_path, env=without_logging)
    with Client(server.address) as client:
        assert client.request(GET % b"/").body == b"False"
    assert server.stop() == 0
