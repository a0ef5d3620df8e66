"""Every setting of gunicorn's is honoured, or ignored with a reason, or refused with one; gunicorn is the oracle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config, make_settings

from epollwsgi.command_line import gunicorn_arguments
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY, Verdict, judge, known_worker_class
from epollwsgi.config.load import load
from epollwsgi.config.settings import OPTIONS
from epollwsgi.config.show import describe_ignored
from epollwsgi.errors import ConfigError

GUNICORN = make_settings()
TEXT_OF_TYPE = {None: "x", int: "7"}  # a value for an option, by what argparse is told of it
TEXTS = {  # for options whose value is not any text
    "bind": "127.0.0.1:7",
    "worker_class": "gthread",
    "loglevel": "debug",
    "raw_env": "A=1",
    "umask": "022",
    "reload_engine": "poll",
    "forwarded_allow_ips": "10.0.0.0/8",
    "proxy_allow_ips": "10.0.0.0/8",
    "uwsgi_allow_ips": "10.0.0.0/8",
    "proxy_protocol": "off",
    "header_map": "refuse",
    "cert_reqs": "1",
    "limit_request_line": "4000",
    "limit_request_field_size": "4000",
    "control_socket_mode": "0660",
    "syslog_addr": "udp://127.0.0.1:5514",
    "syslog_facility": "local3",
    "statsd_host": "127.0.0.1:8125",
    "access_log_format": "%(h)s",
    "reload_extra_files": "x*",
    "http_protocols": "h1,h2",
    "chdir": "/",
}
NEEDS_OTHERS = ("config",)  # named in the command line, it must exist


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty directory as the current one."""
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        yield tmp_path
    finally:
        os.chdir(before)


def test_every_name_of_gunicorn_is_known_once() -> None:
    assert set(GUNICORN) <= set(OPTIONS) | set(GUNICORN_ONLY)
    assert not set(GUNICORN_ONLY) & set(OPTIONS)
    assert set(GUNICORN_ONLY) <= set(GUNICORN), "the table is of gunicorn's settings"


@pytest.mark.parametrize("name", sorted(GUNICORN))
def test_every_option_of_gunicorn_is_an_option(name: str) -> None:
    flags = set(GUNICORN[name].cli or ())
    row: Any = OPTIONS[name] if name in OPTIONS else GUNICORN_ONLY[name]
    assert flags <= set(row.flags)
    if flags:
        assert bool(row.metavar) == (GUNICORN[name].action not in ("store_true", "store_const"))


@pytest.mark.parametrize("name", sorted(GUNICORN_ONLY))
def test_row_has_gunicorns_default_and_a_reason(name: str) -> None:
    default = GUNICORN[name].get()
    row = GUNICORN_ONLY[name]
    assert row.reason
    assert not row.reason.endswith(".")
    assert "\n" not in row.reason
    if callable(default) or name == "control_socket":  # a function that does nothing; a path of the user's
        assert row.default is None
    elif name != "ssl_version":
        assert (list(row.default) if isinstance(row.default, tuple) else row.default) == (
            default if name != "http_protocols" and name != "uwsgi_allow_ips" else ",".join(default)
        )


@pytest.mark.parametrize("name", sorted(GUNICORN_ONLY))
def test_gunicorns_default_is_taken_in_silence(name: str) -> None:
    default = GUNICORN[name].get()
    if not callable(default) and name != "control_socket":
        assert judge(name, default) is Verdict.SILENT
        written = ",".join(default) if isinstance(default, list) else str(default or "")
        assert judge(name, written) is Verdict.SILENT
    assert judge(name, None) is Verdict.SILENT


def option_rows() -> Iterator[tuple[str, str]]:
    for name, setting in sorted(GUNICORN.items()):
        if name not in NEEDS_OTHERS:
            yield from ((name, flag) for flag in setting.cli or ())


@pytest.mark.parametrize(("name", "flag"), list(option_rows()))
def test_every_spelling_of_an_option_means_what_it_means_to_gunicorn(name: str, flag: str) -> None:
    """Both parsers are given the same words, and find the same setting with the same text."""
    is_switch = GUNICORN[name].action in ("store_true", "store_const")
    value = TEXTS.get(name) or TEXT_OF_TYPE.get(GUNICORN[name].type, "7")
    forms = [[flag]] if is_switch else [[flag, value], [f"{flag}={value}" if flag.startswith("--") else flag + value]]
    if name == "proxy_protocol":
        forms.append([flag])
    for words in forms:
        parsed = vars(Config().parser().parse_args(words))
        [expected] = [found for found, got in parsed.items() if got not in (None, [])]
        given = gunicorn_arguments(" ".join(words))
        assert list(given) == [expected] == [name]
        assert str(given[name]).strip("[]'\"") == str(parsed[name]).strip("[]'\"") or name in (
            "umask",
            "control_socket_mode",
        )


# --- what becomes of values -----------------------------------------------------------------------------------------

REFUSED: list[tuple[str, object]] = [
    ("protocol", "uwsgi"),
    ("http_protocols", "h2"),
    ("http2_cleartext", "prior-knowledge"),
    ("http2_cleartext", "both"),
    ("http2_cleartext", True),
    ("asgi_loop", "uvloop"),
    ("asgi_lifespan", "on"),
    ("asgi_disconnect_grace_period", 5),
    ("dirty_apps", ["app:Task"]),
    ("dirty_apps", "app:Task"),
]
IGNORED: list[tuple[str, object]] = [
    ("worker_tmp_dir", "/dev/shm"),
    ("logger_class", "shop.logging.Logger"),
    ("logger_class", dict),
    ("http_protocols", "h2, h1"),
    ("http2_cleartext", "upgrade"),
    ("dirty_workers", 2),
    ("on_dirty_starting", print),
    ("spew", True),
    ("spew", "true"),
    ("control_socket", "/run/x.ctl"),
    ("control_socket_mode", "0660"),
    ("http_parser", "fast"),
    ("paste", "production.ini"),
    ("raw_paste_global_conf", ["a=b"]),
    ("root_path", "/api"),
    ("permit_obsolete_folding", True),
    ("uwsgi_allow_ips", "10.0.0.1"),
]
SILENT: list[tuple[str, object]] = [
    ("spew", False),
    ("spew", "false"),
    ("worker_tmp_dir", ""),
    ("dirty_apps", []),
    ("dirty_workers", "0"),
    ("control_socket_mode", "0600"),
    ("control_socket_mode", "0o600"),
    ("control_socket_disable", True),
    ("ssl_version", 5),
    ("do_handshake_on_connect", True),
    ("http_protocols", "H1"),
    ("http2_cleartext", False),
    ("uwsgi_allow_ips", ["127.0.0.1", "::1"]),
    ("asgi_loop", "auto"),
    ("http2_max_frame_size", 16384),
]
JUDGED = [
    (name, value, verdict)
    for verdict, rows in ((Verdict.REFUSED, REFUSED), (Verdict.IGNORED, IGNORED), (Verdict.SILENT, SILENT))
    for name, value in rows
]


@pytest.mark.parametrize(
    ("name", "value", "verdict"), JUDGED, ids=[f"{name}-{number}" for number, (name, _, _) in enumerate(JUDGED)]
)
def test_value_is_judged(name: str, value: object, verdict: Verdict) -> None:
    assert judge(name, value) is verdict
    if verdict is Verdict.REFUSED:
        with pytest.raises(ConfigError) as caught:
            load({name: value}, {})
        message = str(caught.value)
        assert message.startswith(f"command line: {name} = ")
        assert message.endswith(GUNICORN_ONLY[name].reason)
        assert "\n" not in message
        return
    loaded = load({name: value}, {})
    assert describe_ignored(loaded) == (
        f"without meaning here, ignored: {name} (command line): {GUNICORN_ONLY[name].reason}"
        if verdict is Verdict.IGNORED
        else ""
    )


def test_last_source_of_a_setting_without_meaning_counts(here: Path) -> None:
    (here / "gunicorn.conf.py").write_text(
        "protocol = 'uwsgi'\nworker_tmp_dir = '/dev/shm'\nspew = False\nhttp_parser = 'fast'\n"
    )
    with pytest.raises(ConfigError, match=r"^gunicorn\.conf\.py:1: protocol = 'uwsgi': "):
        load({}, {})
    loaded = load({"protocol": ["http"], "worker_tmp_dir": "/tmp", "http_parser": "auto"}, {}, {"spew": True})
    assert loaded.ignored == {"spew": "environment GUNICORN_CMD_ARGS", "worker_tmp_dir": "command line"}


def test_warning_is_one_line_with_each_name_its_source_and_its_reason(here: Path) -> None:
    (here / "gunicorn.conf.py").write_text(
        "logger_class = 'x.Y'\n\nworker_tmp_dir = '/dev/shm'\nhttp_parser = 'fast'\n"
    )
    text = describe_ignored(load({}, {"EPOLLWSGI_SPEW": "1"}))
    assert "\n" not in text
    for part in (
        "logger_class (gunicorn.conf.py:1)",
        "worker_tmp_dir (gunicorn.conf.py:3)",
        "environment EPOLLWSGI_SPEW",
    ):
        assert part in text
    for name in ("logger_class", "worker_tmp_dir", "http_parser", "spew"):
        assert f": {GUNICORN_ONLY[name].reason}" in text


# --- worker classes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("sync", "sync"),
        ("gthread", "gthread"),
        (" GThread ", "gthread"),
        ("gunicorn.workers.sync.SyncWorker", "sync"),
        ("gunicorn.workers.gthread.ThreadWorker", "gthread"),
        ("egg:gunicorn#sync", "sync"),
    ],
)
def test_worker_class_that_is_had(written: str, word: str) -> None:
    assert known_worker_class(written) == word


def test_worker_class_that_is_imported() -> None:
    from gunicorn.workers.gthread import ThreadWorker

    assert known_worker_class(ThreadWorker) == "gthread"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("gevent", "green threads"),
        ("gevent_pywsgi", "green threads"),
        ("gunicorn.workers.ggevent.GeventWorker", "green threads"),
        ("geventwebsocket.gunicorn.workers.GeventWebSocketWorker", "flask-sock"),
        ("eventlet", "green threads"),
        ("tornado", "Tornado"),
        ("asgi", "not ASGI"),
        ("uvicorn.workers.UvicornWorker", "not ASGI"),
        ("uvicorn_worker.UvicornH11Worker", "not ASGI"),
        ("aiohttp.GunicornWebWorker", "aiohttp"),
        ("egg:meinheld#gunicorn_worker", "replaces that one"),
        ("shop.workers.OwnWorker", "loads no other"),
        (dict, "loads no other"),
        (3, "no worker classes to replace"),
    ],
    ids=str,
)
def test_worker_class_that_is_refused_with_its_reason(written: object, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"worker_class": written}, {})
    message = str(caught.value)
    assert message.startswith("command line: worker_class = ")
    assert "gthread or sync is allowed" in message
    assert reason in message
