"""gunicorn's command lines and variables: every way to write an option, and which source wins."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from epollwsgi import command_line
from epollwsgi.cli import parse_command
from epollwsgi.command_line import complete_flag, gunicorn_arguments, load_settings
from epollwsgi.config.load import Loaded, load
from epollwsgi.errors import ConfigError, UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory as the current one, and no variable that is a setting."""
    for name in list(os.environ):
        if name.startswith(("EPOLLWSGI_", "GUNICORN_")) or name in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"):
            monkeypatch.delenv(name)
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        yield tmp_path
    finally:
        os.chdir(before)


def read_line(line: str, environ: Mapping[str, str] | None = None) -> tuple[str, Loaded]:
    """What a command line behind the word `epollwsgi` serves, and its settings."""
    found = parse_command(shlex.split(line))
    assert found is not None
    variables = dict(environ or {})
    return found[0], load(found[1], variables, gunicorn_arguments(variables.get("GUNICORN_CMD_ARGS", "")))


# --- ways to write ----------------------------------------------------------------------------------------------------

LINES: list[tuple[str, dict[str, object]]] = [
    ("app:app -w 2", {"workers": 2}),
    ("-w2 app:app", {"workers": 2}),
    ("app:app --workers=2", {"workers": 2}),
    ("app:app --workers 2", {"workers": 2}),
    ("-w 2 app:app -w 3", {"workers": 3}),
    ("--timeout 10 -t20 app:app --timeout=30", {"timeout": 30.0}),
    ("app:app --no-sendfile", {"sendfile": False}),
    ("app:app --no-control-socket", {"sendfile": True}),
    ("-b:8000 app:app", {"bind": "0.0.0.0:8000"}),
    ("-b 127.0.0.1:1 -b unix:x app:app", {"bind": "127.0.0.1:1 unix:x"}),
    ("--bind=127.0.0.1:1,[::1]:2 app:app", {"bind": "127.0.0.1:1 [::1]:2"}),
    ("-e A=1 --env B=2,3 app:app", {"raw_env": "A=1 B=2,3"}),
    ("-D -p x.pid -n shop app:app", {"daemon": True, "pidfile": "x.pid", "proc_name": "shop"}),
    ("-DRw2 app:app", {"daemon": True, "workers": 2}),
    ("-u 1000 -g www-data -m 007 app:app", {"user": "1000", "group": "www-data", "umask": 7}),
    ("--log-file=- app:app", {"errorlog": "-"}),
    ("--error-logfile x.log --log-level=DEBUG app:app", {"errorlog": "x.log", "loglevel": "debug"}),
    ("--limit-request-field_size 100 app:app", {"limit_request_field_size": 100}),
    ("-k gthread --threads 4 app:app", {"worker_class": "gthread", "threads": 4}),
    ("-k sync --threads 4 app:app", {"worker_class": "sync", "threads": 4}),
    ("-- app:app", {"workers": 1}),
    # argparse takes the beginning of an option that no other one has
    ("--error-log - --thread 3 --max-requests-j 7 app:app", {"errorlog": "-", "threads": 3, "max_requests_jitter": 7}),
    ("--graceful=9 --forwarded-allow '*' app:app", {"graceful_timeout": 9.0, "forwarded_allow_ips": "*"}),
    ("--pythonp /a --chd / --umas 0 app:app", {"pythonpath": "/a", "chdir": "/", "umask": 0}),
    ("--capture --preload --enable-stdio app:app", {"capture_output": True, "preload_app": True}),
]


@pytest.mark.parametrize(("line", "expected"), LINES, ids=[f"line{number}" for number in range(len(LINES))])
def test_line_means_what_it_means_to_gunicorn(line: str, expected: dict[str, object]) -> None:
    target, loaded = read_line(line)
    assert target == "app:app"
    for name, value in expected.items():
        found = getattr(loaded.settings, name)
        assert (" ".join(map(str, found)) if isinstance(found, tuple) else found) == value


@pytest.mark.parametrize("line", ["--access-log - app:app", "--limit 3 app:app", "--wo 3 app:app", "--w 3 app:app"])
def test_beginning_that_may_mean_several_options_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="No such option"):
        read_line(line)


def test_beginnings_are_completed_for_long_names_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete_flag("error-log") == "error-logfile"
    assert complete_flag("pid") == "pid"
    assert [complete_flag(letter) for letter in "bwktcDenpugm"] == list("bwktcDenpugm")
    assert read_line("-e A=1 app:app")[1].settings.raw_env == ("A=1",)
    monkeypatch.setattr(command_line, "LONG_NAMES", {"zebra"})
    assert [complete_flag(name) for name in ("z", "zebr", "zebras")] == ["z", "zebra", "zebras"]


# --- which source wins ------------------------------------------------------------------------------------------------

FILE = "bind = 'unix:file'\nworkers = 2\nforwarded_allow_ips = '10.0.0.2'\nthreads = 2\n"
PLATFORM = {"PORT": "3000", "WEB_CONCURRENCY": "3", "FORWARDED_ALLOW_IPS": "10.0.0.3", "SCRIPT_NAME": "/three"}
ARGS = {"GUNICORN_CMD_ARGS": "-b unix:args -w 4 --forwarded-allow-ips 10.0.0.4"}
OWN = {
    "EPOLLWSGI_BIND": "unix:own",
    "EPOLLWSGI_WORKERS": "5",
    "EPOLLWSGI_FORWARDED_ALLOW_IPS": "10.0.0.5",
    "EPOLLWSGI_SCRIPT_NAME": "/five",
}
LINE = "-b unix:line -w 6 --forwarded-allow-ips 10.0.0.6 --script-name /six app:app"
ORDER: list[tuple[str, dict[str, str], str, str, int, str]] = [
    # the file, variables, command line -> bind, workers, the last figure of the peer
    ("", {}, "app:app", "127.0.0.1:8000", 1, ""),
    (FILE, {}, "app:app", "unix:file", 2, "2"),
    ("", PLATFORM, "app:app", "0.0.0.0:3000", 3, "3"),
    (FILE, PLATFORM, "app:app", "0.0.0.0:3000", 3, "3"),
    (FILE, PLATFORM | ARGS, "app:app", "unix:args", 4, "4"),
    (FILE, PLATFORM | ARGS | OWN, "app:app", "unix:own", 5, "5"),
    (FILE, PLATFORM | ARGS | OWN, LINE, "unix:line", 6, "6"),
    (FILE, PLATFORM, LINE, "unix:line", 6, "6"),
    (FILE, ARGS, "app:app", "unix:args", 4, "4"),
    (FILE, OWN, "app:app", "unix:own", 5, "5"),
    ("", PLATFORM | OWN, "app:app", "unix:own", 5, "5"),
]


@pytest.mark.parametrize(
    ("file", "environ", "line", "bind", "workers", "peer"), ORDER, ids=[f"order{n}" for n in range(len(ORDER))]
)
def test_later_source_wins(file: str, environ: dict[str, str], line: str, bind: str, workers: int, peer: str) -> None:
    if file:
        Path("gunicorn.conf.py").write_text(file)
    _, loaded = read_line(line, environ)
    assert [str(found) for found in loaded.settings.bind] == [bind]
    assert loaded.settings.workers == workers
    assert loaded.settings.forwarded_allow_ips == ((f"10.0.0.{peer}",) if peer else ("127.0.0.1", "::1"))


def test_variable_that_wins_over_gunicorns_file_is_noted() -> None:
    """In gunicorn these are defaults, and the file wins: whoever comes from there must not search for it."""
    Path("gunicorn.conf.py").write_text(FILE)
    assert read_line("app:app", PLATFORM)[1].notes == [
        "workers: WEB_CONCURRENCY wins over gunicorn.conf.py:2; in gunicorn it does not",
        "bind: PORT wins over gunicorn.conf.py:1; in gunicorn it does not",
        "forwarded_allow_ips: FORWARDED_ALLOW_IPS wins over gunicorn.conf.py:3; in gunicorn it does not",
    ]
    assert read_line("-b :1 -w 1 --forwarded-allow-ips '*' app:app", PLATFORM)[1].notes == []


def test_file_named_in_the_arguments_of_the_environment_is_read() -> None:
    Path("a.py").write_text("workers = 7\nthreads = 2\n")
    Path("b.py").write_text("workers = 8\nthreads = 2\n")
    assert read_line("app:app", {"GUNICORN_CMD_ARGS": "-c a.py"})[1].settings.workers == 7
    assert read_line("-c b.py app:app", {"GUNICORN_CMD_ARGS": "-c a.py"})[1].settings.workers == 8
    assert read_line("app:app", {"GUNICORN_CMD_ARGS": "-c a.py -w 9"})[1].settings.workers == 9


def test_application_named_in_the_file() -> None:
    Path("gunicorn.conf.py").write_text("wsgi_app = 'shop:app'\nthreads = 2\n")
    target, loaded = read_line("")
    assert (target, loaded.settings.wsgi_app) == ("", "shop:app")


def test_empty_variables_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PLATFORM, *ARGS):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("FORWARDED_ALLOW_IPS")
    loaded = load_settings({})
    assert loaded.sources == {}


def test_an_empty_list_of_peers_is_nobody() -> None:
    """As in gunicorn, where the variable is the default: whoever empties it wants no field to be believed."""
    empty = {"FORWARDED_ALLOW_IPS": ""}
    loaded = read_line("app:app", empty)[1]
    assert loaded.settings.forwarded_allow_ips == ()
    assert loaded.source("forwarded_allow_ips") == "environment FORWARDED_ALLOW_IPS"
    assert read_line("--forwarded-allow-ips '*' app:app", empty)[1].settings.forwarded_allow_ips == ("*",)
    Path("gunicorn.conf.py").write_text(FILE)
    loaded = read_line("app:app", empty)[1]
    assert loaded.settings.forwarded_allow_ips == ("10.0.0.2",)
    assert loaded.notes == []


def test_list_in_a_variable_has_commas() -> None:
    loaded = load({}, {"EPOLLWSGI_RAW_ENV": "A=1,B=2", "EPOLLWSGI_STATIC": "/a=x,/b=y", "EPOLLWSGI_BIND": "a:1,b:2"})
    assert loaded.settings.raw_env == ("A=1", "B=2")
    assert [str(mount) for mount in loaded.settings.static] == ["/a=x", "/b=y"]
    assert len(loaded.settings.bind) == 2


BROKEN = [
    ({"PORT": "http"}, "environment PORT: 'http': "),
    ({"PORT": "70000"}, "environment PORT: '70000': "),
    ({"WEB_CONCURRENCY": "many"}, "environment WEB_CONCURRENCY: workers = 'many': "),
    ({"WEB_CONCURRENCY": "0"}, "environment WEB_CONCURRENCY: workers = '0': "),
    ({"FORWARDED_ALLOW_IPS": "fe80::1%a"}, "environment FORWARDED_ALLOW_IPS: forwarded_allow_ips = 'fe80::1%a': "),
    ({"FORWARDED_ALLOW_IPS": "proxy"}, "environment FORWARDED_ALLOW_IPS: forwarded_allow_ips = 'proxy': "),
    ({"SCRIPT_NAME": "shop"}, "environment SCRIPT_NAME: script_name = 'shop': "),
    ({"GUNICORN_CMD_ARGS": "-w many"}, "environment GUNICORN_CMD_ARGS: workers = 'many': "),
    ({"GUNICORN_CMD_ARGS": "-w"}, "environment GUNICORN_CMD_ARGS: "),
    ({"GUNICORN_CMD_ARGS": "--no-such"}, "environment GUNICORN_CMD_ARGS: "),
    ({"EPOLLWSGI_WORKERS": "many"}, "environment EPOLLWSGI_WORKERS: workers = 'many': "),
]


@pytest.mark.parametrize(("environ", "message"), BROKEN, ids=[f"broken{number}" for number in range(len(BROKEN))])
def test_broken_variable_is_one_line_with_its_name(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_line("app:app", environ)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


# --- where each value of a list comes from ----------------------------------------------------------------------------


def test_source_of_each_value_of_a_list(here: Path) -> None:
    (here / "epollwsgi.toml").write_text('[static]\n"/a" = "x"\n"/b" = "y"\n')
    loaded = load({}, {})
    assert [loaded.source("static", number) for number in (0, 1)] == ["epollwsgi.toml:2", "epollwsgi.toml:3"]
    assert loaded.source("static") == "epollwsgi.toml:1"
    loaded = load({"static": ["/c=z"]}, {})
    assert loaded.source("static", 0) == "command line"
    assert loaded.source("bind", 0) == "default"


@pytest.mark.parametrize(
    ("given", "environ", "expected", "source"),
    [
        ({"raw_env": ["SCRIPT_NAME=/a"]}, {}, "/a", "command line"),
        ({"raw_env": ["SCRIPT_NAME=/a", "B=1", "SCRIPT_NAME=/b"]}, {}, "/b", "command line"),
        ({"raw_env": ["SCRIPT_NAME=/a"]}, {"SCRIPT_NAME": "/b"}, "/a", "command line"),
        ({"raw_env": ["SCRIPT_NAME=/a"], "script_name": "/b"}, {}, "/b", "command line"),
        ({"raw_env": ["B=1"]}, {"SCRIPT_NAME": "/b"}, "/b", "environment SCRIPT_NAME"),
    ],
    ids=["given", "twice", "variable", "setting", "variable-alone"],
)
def test_script_name_in_raw_env(
    given: dict[str, object], environ: dict[str, str], expected: str, source: str, here: Path
) -> None:
    """`-e SCRIPT_NAME=/shop` is how a prefix is given to gunicorn."""
    loaded = load(given, environ)
    assert (loaded.settings.script_name, loaded.source("script_name")) == (expected, source)


def test_script_name_in_raw_env_must_be_a_path(here: Path) -> None:
    with pytest.raises(ConfigError, match="command line: script_name = 'x': a path such as /shop"):
        load({"raw_env": ["SCRIPT_NAME=x"]}, {})
