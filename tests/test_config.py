"""Settings: what each converter takes and refuses, the table as a whole, and which source wins."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from epollwsgi.config import values as v
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.load import Loaded, load
from epollwsgi.config.settings import DEFAULTS, OPTIONS, Settings
from epollwsgi.config.show import describe_ignored, describe_not_honoured, show
from epollwsgi.errors import ConfigError

# --- converters -----------------------------------------------------------------------------------------------------

TAKEN: list[tuple[Callable[[object], object], object, object]] = [
    (v.bind, "127.0.0.1:8000", v.TCPBind("127.0.0.1", 8000)),
    (v.bind, "LocalHost:0", v.TCPBind("localhost", 0)),
    (v.bind, "example.org", v.TCPBind("example.org", 8000)),
    (v.bind, ":80", v.TCPBind("0.0.0.0", 80)),
    (v.bind, "tcp://10.0.0.1:65535", v.TCPBind("10.0.0.1", 65535)),
    (v.bind, "[::1]:8000", v.TCPBind("::1", 8000)),
    (v.bind, "[::]", v.TCPBind("::", 8000)),
    (v.bind, "[FE80::1%eth0]:1", v.TCPBind("fe80::1%eth0", 1)),
    (v.bind, "unix:/run/x.sock", v.UnixBind("/run/x.sock")),
    (v.bind, "unix:///run/x.sock", v.UnixBind("/run/x.sock")),
    (v.bind, "unix://x.sock", v.UnixBind("x.sock")),
    (v.bind, "unix:x.sock", v.UnixBind("x.sock")),
    (v.bind, "unix:@name", v.UnixBind("@name")),
    (v.bind, "fd://3", v.FDBind(3)),
    (v.static_mount, "/=html", v.StaticMount("/", "html")),
    (v.static_mount, "/assets/=./public", v.StaticMount("/assets", "./public")),
    (v.static_mount, "/a/b=/srv/x=y", v.StaticMount("/a/b", "/srv/x=y")),
    (v.size(), "65536", 65536),
    (v.size(), 65536, 65536),
    (v.size(), "64K", 65536),
    (v.size(), "64k", 65536),
    (v.size(), "1M", 1 << 20),
    (v.size(), "2GiB", 2 << 30),
    (v.size(), " 0 ", 0),
    (v.size(16, 100, zero=999), "0", 999),
    (v.size(16, 100, zero=999), 0, 999),
    (v.seconds(), "75", 75.0),
    (v.seconds(), 75, 75.0),
    (v.seconds(), 0.25, 0.25),
    (v.seconds(), "0.5ms", 0.0005),
    (v.seconds(), "2s", 2.0),
    (v.seconds(), "1m", 60.0),
    (v.seconds(), "1.5h", 5400.0),
    (v.whole(1, 9), "9", 9),
    (v.whole(1, 9), 1, 1),
    (v.whole(1, 9, zero=9), "0", 9),
    (v.or_auto(v.whole(1, 9)), "Auto", None),
    (v.or_auto(v.whole(1, 9)), "3", 3),
    (v.boolean, True, True),
    (v.boolean, "Yes", True),
    (v.boolean, "0", False),
    (v.boolean, "off", False),
    (v.octal, "022", 0o22),
    (v.octal, "22", 22),
    (v.octal, "18", 0o22),
    (v.octal, "0", 0),
    (v.octal, "0x12", 0o22),
    (v.octal, "0o077", 0o77),
    (v.octal, 0o22, 0o22),
    (v.octal, "none", None),
    (v.choice("drop", "refuse"), "DROP", "drop"),
    (v.text, Path("/x"), "/x"),
    (v.text, None, ""),
    (v.text_or_number, 1000, "1000"),
    (v.peer, "10.0.0.0/8", "10.0.0.0/8"),
    (v.peer, "::1", "::1"),
    (v.peer, "*", "*"),
    (v.peer, "unix", "unix"),
    (v.environment_item, "A=b=c", "A=b=c"),
    (v.environment_item, "A=", "A="),
    (v.url_prefix, "/shop/", "/shop"),
    (v.url_prefix, "", ""),
    (v.pairs, {"X-A": "b"}, (("X-A", "b"),)),
    (v.mapping, {}, None),
]
REFUSED_VALUES: list[tuple[Callable[[object], object], tuple[object, ...]]] = [
    (v.bind, ("", "8000", "a b:1", "host:", "host:65536", "host:-1", "host:٣", "host:x", "::1:80", None, 80)),
    (v.bind, ("[::1", "[::1]80", "[nonsense]:1", "[127.0.0.1]:1", "unix:", "unix:@", "unix:a\0b")),
    (v.bind, ("unix:" + "x" * 108, "fd://", "fd://x", "fd://-1", "http://a:1", "a/b:1")),
    (v.static_mount, ("", "x", "assets=x", "/a", "/a=", "=x", "/a//b=x", "/a/../b=x", "//=x")),
    (v.static_mount, ("/a?b=x", "/a b=x", "/%41=x", "/./=x", "/a=x\0", 3)),
    (v.size(), ("", "x", "-1", "1.5K", "1T", "1 K", True, 1.5, None, "٣", "9" * 19)),
    (v.size(10, 20), (9, 21, "9", "1K", 0)),
    (v.seconds(), ("", "x", "-1", -1, "1d", "1 s", True, "nan", "inf", "1e3", float("nan"), None)),
    (v.seconds(0.001), (0, "0", "0.5us", 1e9)),
    (v.whole(1, 9), ("", "0", "10", 0, 10, True, 1.0, "1.0", "+1", "٣", "0x1", None)),
    (v.or_auto(v.whole(1, 9)), ("automatic", 0)),
    (v.boolean, ("", "x", 2, 0.0, None, [])),
    (v.octal, ("08", "512", "01000", "0x200", "-1", -1, 0o1000, "x", True, 1.5)),
    (v.choice("a", "b"), ("", "c", "ab", 1)),
    (v.text, (1, True, [], b"x")),
    (v.peer, ("", "host", "10.0.0.0/33", "10.0.0.1/8", "1.2.3")),
    (v.environment_item, ("", "A", "=x", " =x", "A B=x", "A=\0")),
    (v.url_prefix, ("shop", "/a//b", "/a?b", "/a b")),
    (v.hook, ("text",)),
    (v.pairs, ([1], {"a": 1})),
    (v.mapping, ("text",)),
]
REFUSED = [(convert, value) for convert, values in REFUSED_VALUES for value in values]


@pytest.mark.parametrize(("convert", "written", "value"), TAKEN)
def test_converter_takes(convert: Callable[[object], object], written: object, value: object) -> None:
    found = convert(written)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("convert", "written"), REFUSED)
def test_converter_refuses_with_what_is_allowed(convert: Callable[[object], object], written: object) -> None:
    with pytest.raises(ValueError, match=r"allowed|takes|has at most|stands in|holds no|is not an|is a number"):
        convert(written)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8000", "[::1]:80", "unix:/run/x", "unix:@x", "fd://3", "/=html", "/a/b=c=d"]
)
def test_addresses_and_mounts_are_shown_as_they_are_written(text: str) -> None:
    convert = v.static_mount if text.startswith("/") else v.bind
    assert str(convert(text)) == text


# --- the table ------------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_contract() -> None:
    expected: dict[str, object] = {
        "bind": (v.TCPBind("127.0.0.1", 8000),),
        "threads": 8,
        "keepalive": 75.0,
        "header_timeout": 15.0,
        "body_timeout": 30.0,
        "body_min_rate": 500,
        "send_timeout": 60.0,
        "timeout": 30.0,
        "graceful_timeout": 30.0,
        "body_buffer_size": 65536,
        "limit_request_line": 8190,
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        "limit_request_head": 65536,
        "limit_request_body": 1 << 30,
        "output_watermark": 262144,
        "response_spool": 1 << 30,
        "switch_interval": 0.0005,
        "upgrade_threads": 64,
        "timeout_interrupt": False,
        "queue_size": 1024,
        "queue_timeout": 30.0,
        "slow_request_time": 5.0,
        "drain_delay": 0.0,
        "ready_path": "",
        "revalidate": 1.0,
        "forwarded_fields": ("proto",),
        "forwarded_allow_ips": ("127.0.0.1", "::1"),
        "script_name": "",
        "static": (),
        "header_map": "drop",
        "umask": None,
    }
    assert {name: getattr(Settings(), name) for name in expected} == expected


def test_no_option_stands_for_two_settings() -> None:
    flags = [flag for option in OPTIONS.values() for flag in option.flags]
    flags += [flag for foreign in GUNICORN_ONLY.values() for flag in foreign.flags]
    assert len(flags) == len(set(flags))
    assert not set(OPTIONS) & set(GUNICORN_ONLY)


@pytest.mark.parametrize("name", OPTIONS)
def test_row_is_whole(name: str) -> None:
    """Each default is shown as TOML that its own converter takes back, and the help reads as a phrase."""
    option, default = OPTIONS[name], getattr(DEFAULTS, name)
    assert option.help
    assert not option.help.endswith(".")
    assert option.metavar or isinstance(default, bool)
    assert option.many in ("", "items", "list")
    if option.parse in (v.hook, v.mapping):
        return
    written = tomllib.loads(f"value = {show(name, default)}")["value"]
    assert (tuple(map(option.parse, written)) if option.many else option.parse(written)) == default


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULTS.keepalive = 1  # type: ignore[misc]


# --- sources --------------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty directory as the current one."""
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        yield tmp_path
    finally:
        os.chdir(before)


def test_later_sources_win(here: Path) -> None:
    """Each source in turn gets its say on one more setting than the next."""
    names = ["keepalive", "header_timeout", "body_timeout", "send_timeout", "graceful_timeout", "revalidate"]
    (here / "pyproject.toml").write_text("[tool.epollwsgi]\n" + "".join(f"{name} = 1\n" for name in names[:5]))
    (here / "epollwsgi.toml").write_text("".join(f"{name} = 2\n" for name in names[:4]))
    arguments = dict.fromkeys(names[:3], "3")
    environ = {f"EPOLLWSGI_{name.upper()}": "4" for name in names[:2]}
    loaded = load({"keepalive": "5s"}, environ, arguments)
    assert [getattr(loaded.settings, name) for name in names] == [5, 4, 3, 2, 1, DEFAULTS.revalidate]
    assert [loaded.source(name) for name in names] == [
        "command line",
        "environment EPOLLWSGI_HEADER_TIMEOUT",
        "environment GUNICORN_CMD_ARGS",
        "epollwsgi.toml:4",
        "pyproject.toml:6",
        "default",
    ]
    assert loaded.files == ["pyproject.toml [tool.epollwsgi]", "epollwsgi.toml"]


def test_named_file_is_read_instead_of_the_usual_ones(here: Path) -> None:
    (here / "epollwsgi.toml").write_text("keepalive = 1\n")
    (here / "gunicorn.conf.py").write_text("keepalive = 2\n")
    (here / "other.toml").write_text("keepalive = 3\n")
    (here / "other.py").write_text("keepalive = 4\n")
    assert load({}, {}).settings.keepalive == 1
    assert load({"config": "other.toml"}, {}).settings.keepalive == 3
    assert load({"config": "file:other.py"}, {}).settings.keepalive == 4
    assert load({}, {"EPOLLWSGI_CONFIG": "other.py"}).settings.keepalive == 4
    assert load({}, {}, {"config": "other.toml"}).settings.keepalive == 3
    (here / "epollwsgi.toml").unlink()
    assert load({}, {}).settings.keepalive == 2


def test_typed_values_and_texts_mean_the_same(here: Path) -> None:
    (here / "a.toml").write_text(
        'bind = ["127.0.0.1:1", "unix:x"]\nlimit_request_head = "1M"\nsendfile = false\numask = 0o22\nkeepalive = 1.5\n'
        'static = ["/a=b,c"]\nworkers = "auto"\n'
    )
    (here / "b.toml").write_text(
        'bind = "127.0.0.1:1,unix:x"\nlimit_request_head = 1048576\nsendfile = "no"\numask = "022"\n'
        'keepalive = "1500ms"\nstatic = ["/a=b,c"]\nworkers = "auto"\n'
    )
    first, second = (load({"config": name}, {}).settings for name in ("a.toml", "b.toml"))
    for name in OPTIONS:
        if name != "config":
            assert getattr(first, name) == getattr(second, name), name
    assert first.bind == (v.TCPBind("127.0.0.1", 1), v.UnixBind("x"))
    assert first.static == (v.StaticMount("/a", "b,c"),)
    assert first.workers is None


def test_variables_of_a_service_are_no_settings(here: Path) -> None:
    """Kubernetes sets them in every container where a service has this name."""
    environ = {
        "EPOLLWSGI_SERVICE_HOST": "10.0.0.1",
        "EPOLLWSGI_SERVICE_PORT": "80",
        "EPOLLWSGI_SERVICE_PORT_HTTP": "80",
        "EPOLLWSGI_PORT": "tcp://10.0.0.1:80",
        "EPOLLWSGI_PORT_80_TCP": "tcp://10.0.0.1:80",
        "EPOLLWSGI_PORT_80_TCP_PROTO": "tcp",
        "EPOLLWSGI_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load({}, environ).sources == {}
    with pytest.raises(ConfigError, match="no such setting"):
        load({}, {"EPOLLWSGI_PORTS": "80"})


def test_variables_of_platforms(here: Path) -> None:
    environ = {
        "PORT": "5000",
        "WEB_CONCURRENCY": "3",
        "FORWARDED_ALLOW_IPS": "10.0.0.1, 10.1.0.0/16",
        "SCRIPT_NAME": "/shop",
        "EPOLLWSGI_TEST_ALL": "1",
        "HOME": "/",
    }
    settings = load({}, environ).settings
    assert settings.bind == (v.TCPBind("0.0.0.0", 5000),)
    assert settings.workers == 3
    assert settings.forwarded_allow_ips == ("10.0.0.1", "10.1.0.0/16")
    assert settings.script_name == "/shop"
    assert load({"bind": ["[::1]:1"]}, environ).settings.bind == (v.TCPBind("::1", 1),)
    assert load({}, environ | {"EPOLLWSGI_BIND": ":1"}).settings.bind == (v.TCPBind("0.0.0.0", 1),)


def test_settings_file_in_python(here: Path) -> None:
    (here / "gunicorn.conf.py").write_text(
        "import multiprocessing\nfrom pathlib import Path\n\nroot = Path('/x')\nbind = '127.0.0.1:' + str(9000)\n"
        "workers = 2 * 2\nworker_class = 'gthread'\nthreads = 4\nerrorlog = None\naccesslog = '-'\nspew = True\n"
        "secure_scheme_headers = {'X-P': 'https'}\nraw_env = ['A=1']\ndef when_ready(server):\n    pass\n"
        "def ssl_context(config, make):\n    pass\n"
    )
    loaded = load({}, {})
    assert loaded.settings.bind == (v.TCPBind("127.0.0.1", 9000),)
    assert loaded.settings.workers == 4
    assert loaded.settings.accesslog == "-"
    assert loaded.settings.errorlog == "-"
    assert loaded.settings.secure_scheme_headers == (("X-P", "https"),)
    assert callable(loaded.settings.when_ready)
    assert describe_ignored(loaded) == (
        f"without meaning here, ignored: spew (gunicorn.conf.py:11): {GUNICORN_ONLY['spew'].reason}"
    )
    assert "ssl_context" not in describe_not_honoured(loaded), "without certfile it has no effect in gunicorn either"
    assert loaded.notes == []


def test_slip_in_a_python_file_is_mentioned(here: Path) -> None:
    (here / "c.py").write_text("threads = 2\nkeep_alive = 3\nx = 5\n")
    assert load({"config": "c.py"}, {}).notes == ["c.py:2: keep_alive is no setting; did you mean keepalive?"]


SYNC = [
    ({"worker_class": "sync"}, {}, {}, "", 1),
    ({"worker_class": "gthread"}, {}, {}, "", 8),
    ({"worker_class": "sync", "threads": "4"}, {}, {}, "", 4),
    ({}, {}, {"backlog": "10"}, "", 1),
    ({}, {}, {"threads": "3"}, "", 3),
    ({}, {}, {"worker_class": "gthread"}, "", 8),
    ({"worker_class": "gthread"}, {}, {"backlog": "10"}, "", 8),
    ({}, {}, {}, "backlog = 10\n", 1),
    ({}, {}, {}, "threads = 2\n", 2),
    ({}, {}, {}, "worker_class = 'sync'\n", 1),
    ({}, {}, {}, "worker_class = 'gunicorn.workers.sync.SyncWorker'\n", 1),
    ({}, {}, {}, "worker_class = 'gunicorn.workers.gthread.ThreadWorker'\n", 8),
    ({}, {"EPOLLWSGI_THREADS": "5"}, {}, "backlog = 10\n", 5),
    ({}, {}, {}, "", 8),
]


@pytest.mark.parametrize(("line", "environ", "arguments", "file", "threads"), SYNC)
def test_gunicorns_sync_worker_means_one_thread(
    here: Path, line: dict[str, str], environ: dict[str, str], arguments: dict[str, str], file: str, threads: int
) -> None:
    if file:
        (here / "gunicorn.conf.py").write_text(file)
    loaded = load(line, environ, arguments)
    assert loaded.settings.threads == threads
    assert bool(loaded.notes) == (threads == 1)
    if threads == 1:
        assert "--threads" in loaded.notes[0]
    assert "threads" not in describe_not_honoured(loaded) or threads not in (1, 8)


# --- mistakes: one line with the source, the name, the value and what is allowed ------------------------------------

MISTAKES: list[tuple[str, str, list[str]]] = [
    ("epollwsgi.toml", "keepalive = 'soon'\n", ["epollwsgi.toml", "keepalive", "'soon'", "duration", "allowed"]),
    (
        "epollwsgi.toml",
        "keepalife = 3\n",
        ["epollwsgi.toml", "keepalife", "no such setting", "did you mean keepalive?"],
    ),
    ("epollwsgi.toml", "header-timeout = 3\n", ["header-timeout", "did you mean header_timeout?"]),
    ("epollwsgi.toml", "bind = 'x y'\n", ["epollwsgi.toml", "bind", "'x y'", "HOST:PORT", "unix:PATH"]),
    ("epollwsgi.toml", "bind = 8000\n", ["bind = 8000", "list of texts"]),
    ("epollwsgi.toml", "when_ready = 'x'\n", ["when_ready", "settings file in Python"]),
    ("epollwsgi.toml", "keepalive = \n", ["epollwsgi.toml:1: not TOML", "column 13"]),
    ("epollwsgi.toml", "[server]\nkeepalive = 1\n", ["server", "no such setting"]),
    (
        "pyproject.toml",
        "[tool.epollwsgi]\nworkers = 0\n",
        ["pyproject.toml:2: workers = 0", "auto", "1 to"],
    ),
    ("pyproject.toml", "[tool]\nepollwsgi = 3\n", ["pyproject.toml", "a table"]),
    ("gunicorn.conf.py", "worker_class = 'gevent'\n", ["gunicorn.conf.py", "gevent", "green threads"]),
    ("gunicorn.conf.py", "worker_class = 'uvicorn.workers.UvicornWorker'\n", ["uvicorn", "WSGI", "not ASGI"]),
    ("gunicorn.conf.py", "worker_class = 'tornado'\n", ["tornado", "one kind of worker"]),
    ("gunicorn.conf.py", "worker_class = object\n", ["worker_class", "gthread or sync"]),
    ("gunicorn.conf.py", "loglevel = 'loud'\n", ["loglevel", "'loud'", "debug, info, warning, error or critical"]),
]


@pytest.mark.parametrize(("file", "text", "expected"), MISTAKES)
def test_mistake_in_a_file(here: Path, file: str, text: str, expected: list[str]) -> None:
    (here / file).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load({}, {})
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"EPOLLWSGI_KEEPALIVE": "x"}, ["environment EPOLLWSGI_KEEPALIVE", "keepalive = 'x'"]),
        ({"EPOLLWSGI_KEEPALIFE": "1"}, ["environment EPOLLWSGI_KEEPALIFE", "did you mean keepalive?"]),
        ({"PORT": "http"}, ["environment PORT", "'http'", "0 to 65535"]),
        ({"WEB_CONCURRENCY": "many"}, ["environment WEB_CONCURRENCY", "workers = 'many'", "auto"]),
        ({"EPOLLWSGI_CONFIG": "missing.toml"}, ["missing.toml", "No such file"]),
        ({"EPOLLWSGI_CONFIG": "missing.py"}, ["missing.py", "No such file"]),
        ({"EPOLLWSGI_CONFIG": "."}, ["settings file .", "not a regular file"]),
    ],
)
def test_mistake_in_the_environment(here: Path, environ: dict[str, str], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, environ)
    assert all(part in str(caught.value) for part in expected), str(caught.value)


def test_failing_python_file_shows_its_own_traceback(here: Path) -> None:
    (here / "gunicorn.conf.py").write_text("def f():\n    raise RuntimeError('no luck')\n\nf()\n")
    with pytest.raises(ConfigError) as caught:
        load({}, {})
    text = str(caught.value)
    assert "no luck" in text
    assert "in f" in text
    assert "load.py" not in text
    assert "runpy" not in text


# --- what the operator is shown -------------------------------------------------------------------------------------


def test_what_has_no_effect_is_named_only_where_it_was_changed(here: Path) -> None:
    assert describe_not_honoured(load({}, {})) == ""
    assert describe_ignored(load({}, {})) == ""
    assert describe_not_honoured(load({"admin": "", "timeout": "30"}, {})) == ""
    assert describe_not_honoured(load({"admin": "x:1", "timeout": "31"}, {})) == 'not yet honoured: admin ("x:1")'


def test_unknown_keyword_of_serve_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"serve\(\): bnd: no such setting; did you mean bind\?"):
        Loaded().set("serve()", {"bnd": "x"})
