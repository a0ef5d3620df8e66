"""Settings files in Python as people have written them for gunicorn: forms of values, helpers, imports, mistakes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gunicorn.config import Config

from epollwsgi.command_line import gunicorn_arguments
from epollwsgi.config.load import Loaded, load
from epollwsgi.config.values import TCPBind, UnixBind
from epollwsgi.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty directory as the current one; what files import or put into sys.path is forgotten afterwards."""
    before, path, modules = os.getcwd(), list(sys.path), set(sys.modules)
    os.chdir(tmp_path)
    try:
        yield tmp_path
    finally:
        os.chdir(before)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            del sys.modules[name]


def read(text: str, environ: dict[str, str] | None = None) -> Loaded:
    """The settings with this file as gunicorn.conf.py."""
    Path("gunicorn.conf.py").write_text(text)
    return load({}, environ or {})


# --- forms of values ------------------------------------------------------------------------------------------------

FORMS: list[tuple[str, str, object]] = [
    ("bind = '127.0.0.1:1'", "bind", (TCPBind("127.0.0.1", 1),)),
    ("bind = ['127.0.0.1:1', 'unix:/run/x.sock']", "bind", (TCPBind("127.0.0.1", 1), UnixBind("/run/x.sock"))),
    ("bind = ('a:1', 'b:2')", "bind", (TCPBind("a", 1), TCPBind("b", 2))),
    ("bind = 'a:1,b:2'", "bind", (TCPBind("a", 1), TCPBind("b", 2))),
    ("bind = ':' + str(5000 + 1)", "bind", (TCPBind("0.0.0.0", 5001),)),
    ("bind = 'unix:///tmp/x.sock'", "bind", (UnixBind("/tmp/x.sock"),)),
    ("bind = '0.0.0.0'", "bind", (TCPBind("0.0.0.0", 8000),)),
    ("bind = None", "bind", (TCPBind("127.0.0.1", 8000),)),
    ("raw_env = ['A=1', 'B=2,3']", "raw_env", ("A=1", "B=2,3")),
    ("raw_env = 'A=1,2'", "raw_env", ("A=1,2",)),
    ("raw_env = []", "raw_env", ()),
    ("raw_env = ['spring.name=x', 'X-Y=']", "raw_env", ("spring.name=x", "X-Y=")),
    ("workers = '3'", "workers", 3),
    ("import multiprocessing\nworkers = multiprocessing.cpu_count() * 2 + 1", "workers", 2 * (os.cpu_count() or 1) + 1),
    ("import os\nworkers = os.environ.get('NO_SUCH_NAME', 2)", "workers", 2),
    ("timeout = 60", "timeout", 60.0),
    ("timeout = '60'", "timeout", 60.0),
    ("timeout = 0", "timeout", 0.0),
    ("keepalive = 5", "keepalive", 5.0),
    ("umask = 0o007", "umask", 7),
    ("umask = '0o22'", "umask", 0o22),
    ("umask = '18'", "umask", 18),
    ("umask = 18", "umask", 18),
    ("umask = 0", "umask", 0),
    ("umask = None", "umask", None),
    ("user = 1000", "user", "1000"),
    ("user = 'www-data'", "user", "www-data"),
    ("group = None", "group", ""),
    ("accesslog = None", "accesslog", "auto"),
    ("accesslog = '-'", "accesslog", "-"),
    ("errorlog = '-'", "errorlog", "-"),
    ("errorlog = None", "errorlog", "-"),
    ("loglevel = 'INFO'", "loglevel", "info"),
    ("loglevel = 'warn'", "loglevel", "warning"),
    ("sendfile = None", "sendfile", True),
    ("sendfile = True", "sendfile", True),
    ("sendfile = False", "sendfile", False),
    ("sendfile = 'false'", "sendfile", False),
    ("preload_app = True", "preload_app", True),
    ("preload_app = 'true'", "preload_app", True),
    ("daemon = False", "daemon", False),
    ("tmp_upload_dir = None", "tmp_upload_dir", ""),
    ("pidfile = None", "pidfile", ""),
    ("limit_request_line = 0", "limit_request_line", 2**31 - 1),
    ("limit_request_fields = 0", "limit_request_fields", 2**31 - 1),
    ("limit_request_fields = 100_000", "limit_request_fields", 100_000),
    ("syslog_addr = 'localhost:514'", "syslog_addr", "localhost:514"),
    ("limit_request_field_size = 0", "limit_request_field_size", 2**31 - 1),
    ("max_requests = 1000\nmax_requests_jitter = 50", "max_requests_jitter", 50),
    ("reload_extra_files = 'a.html'", "reload_extra_files", ("a.html",)),
    ("reload_extra_files = ['a.html', 'b,c.html']", "reload_extra_files", ("a.html", "b,c.html")),
    ("forwarded_allow_ips = '*'", "forwarded_allow_ips", ("*",)),
    ("forwarded_allow_ips = '10.0.0.1, 10.1.0.0/16'", "forwarded_allow_ips", ("10.0.0.1", "10.1.0.0/16")),
    ("forwarded_allow_ips = ''", "forwarded_allow_ips", ()),
    ("secure_scheme_headers = {'X-P': 'https'}", "secure_scheme_headers", (("X-P", "https"),)),
    ("logconfig_dict = {'version': 1}", "logconfig_dict", {"version": 1}),
    ("logconfig_dict = {}", "logconfig_dict", None),
    ("proxy_protocol = False", "proxy_protocol", "off"),
    ("proxy_protocol = 'off'", "proxy_protocol", "off"),
    ("cert_reqs = 0", "cert_reqs", 0),
    ("header_map = 'Refuse'", "header_map", "refuse"),
    ("worker_class = 'gthread'", "worker_class", "gthread"),
    ("from gunicorn.workers.gthread import ThreadWorker\nworker_class = ThreadWorker", "worker_class", "gthread"),
    ("wsgi_app = 'shop:app'", "wsgi_app", "shop:app"),
    ("chdir = '/tmp'", "chdir", "/tmp"),
    ("pythonpath = '/a,/b'", "pythonpath", "/a,/b"),
    ("from pathlib import Path\npidfile = Path('/run') / 'x.pid'", "pidfile", "/run/x.pid"),
    ("print_config = True", "print_config", True),
    ("def chdir_of(name): pass\nproc_name = 'shop'", "proc_name", "shop"),
]


@pytest.mark.parametrize(("text", "name", "value"), FORMS, ids=[f"{row[1]}-{n}" for n, row in enumerate(FORMS)])
def test_form_of_a_value(text: str, name: str, value: object) -> None:
    loaded = read(f"{text}\nthreads = 2\n")
    assert getattr(loaded.settings, name) == value
    assert loaded.notes == []
    assert loaded.ignored == {}


MASKS = ("0", "7", "18", "22", "007", "022", "0022", "0o22", "0x12", "077", "00")


@pytest.mark.parametrize("written", MASKS)
def test_umask_is_what_it_is_to_gunicorn(written: str) -> None:
    """On the command line; and in a file, where gunicorn has no number with a zero before it."""
    config = Config()
    config.set("umask", config.parser().parse_args(["-m", written]).umask)
    assert load(gunicorn_arguments(f"-m {written}"), {}).settings.umask == config.umask
    if not (written.startswith("0") and written[1:].isdigit() and int(written)):
        config.set("umask", written)
        assert read(f"umask = {written!r}\n").settings.umask == config.umask


# --- names and code -------------------------------------------------------------------------------------------------


def test_other_names_of_a_file_are_left_alone() -> None:
    """Helpers, names in capitals, functions and modules whose names are settings, drafts of settings that are set."""
    loaded = read(
        "import os, sys as compress\nfrom importlib import reload\n"
        "WORKERS = 9\nTIMEOUT = 9\nBIND = 'x'\nport = 8000\nuse_loglevel = 'x'\n"
        "def admin(): pass\nclass listing: pass\n"
        "log_level = 'debug'\nloglevel = log_level\ngraceful_timeout_ = 7\ngraceful_timeout = graceful_timeout_\n"
        "threads = 3\n"
    )
    assert loaded.settings.threads == 3
    assert loaded.settings.workers == 1
    assert loaded.settings.loglevel == "debug"
    assert loaded.settings.graceful_timeout == 7
    assert (loaded.settings.reload, loaded.settings.compress, loaded.settings.listing) == (False, False, False)
    assert loaded.notes == []
    assert set(loaded.sources) == {"threads", "loglevel", "graceful_timeout"}


def test_slip_in_a_name_is_noted() -> None:
    loaded = read("threads = 2\nmax_request = 100\n")
    assert loaded.notes == ["gunicorn.conf.py:2: max_request is no setting; did you mean max_requests?"]


def test_modules_beside_the_start_are_found_and_stars_work(here: Path) -> None:
    (here / "shared_settings.py").write_text("workers = 5\nthreads = 2\n__all__ = ['workers', 'threads']\n")
    (here / "deploy").mkdir()
    (here / "deploy" / "conf.py").write_text("from shared_settings import *\n")
    settings = load({"config": "deploy/conf.py"}, {}).settings
    assert (settings.workers, settings.threads) == (5, 2)


def test_file_knows_its_own_place_and_module(here: Path) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "live.py").write_text(
        "import os, sys, dataclasses\n"
        "here = os.path.dirname(__file__)\nchdir = os.path.join(here, '..')\n"
        "assert os.path.isabs(__file__) and __name__ == '__config__'\n"
        "@dataclasses.dataclass\nclass Sizes:\n    small: 'int' = 2\n"
        "threads = Sizes().small\n"
        "def when_ready(server):\n    return sys.modules[__name__].threads\n"
    )
    settings = load({"config": "file:conf/live.py"}, {}).settings
    assert settings.chdir == f"{here}/conf/.."
    assert settings.when_ready is not None
    assert settings.when_ready(None) == 2


def test_file_is_read_anew_each_time(here: Path) -> None:
    """A reload finds what was written a moment ago, with the same size, too; so it is with a module."""
    for workers in (2, 3, 4):
        (here / "settings_module.py").write_text(f"workers = {workers}\n")
        assert read(f"workers = {workers}\n").settings.workers == workers
        assert load({"config": "./settings_module.py"}, {}).settings.workers == workers
    os.unlink("gunicorn.conf.py")
    for workers in (2, 30, 400):
        (here / "settings_module.py").write_text(f"workers = {workers}\n")
        loaded = load({"config": "python:settings_module"}, {})
        assert loaded.settings.workers == workers
        assert loaded.source("workers").startswith("python:settings_module")
    (here / "settings_module.py").write_text("threads = 2\n")
    loaded = load({"config": "python:settings_module"}, {})
    assert (loaded.settings.threads, loaded.settings.workers) == (2, 1), "a setting that is gone stays in effect"
    before = sys.modules["settings_module"]
    (here / "settings_module.py").write_text("threads = 2 / 0\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        load({"config": "python:settings_module"}, {})
    assert sys.modules["settings_module"] is before


def test_file_without_the_extension_and_a_compiled_one(here: Path) -> None:
    import py_compile

    (here / "gunicorn.conf").write_text("workers = 6\n")
    assert load({"config": "gunicorn.conf"}, {}).settings.workers == 6
    (here / "source.py").write_text("workers = 7\n")
    py_compile.compile("source.py", "settings.pyc")
    assert load({"config": "settings.pyc"}, {}).settings.workers == 7


def test_hooks_may_be_named_by_texts(here: Path) -> None:
    (here / "our_hooks.py").write_text("def ready(server):\n    return 'ready'\n")
    settings = read("when_ready = 'our_hooks.ready'\ndef on_exit(server):\n    return 'over'\n").settings
    assert settings.when_ready is not None
    assert settings.when_ready(None) == "ready"
    assert settings.on_exit is not None
    assert settings.on_exit(None) == "over"
    for text, reason in (
        ("our_hooks.missing", "AttributeError"),
        ("no_such_hooks.ready", "ModuleNotFoundError"),
        ("ready", "MODULE.FUNCTION"),
        ("os.sep", "MODULE.FUNCTION"),
    ):
        with pytest.raises(ConfigError, match=rf"^gunicorn\.conf\.py:1: when_ready = '{text}': .*{reason}"):
            read(f"when_ready = '{text}'\n")


BROKEN = [
    ("workers = 1.5", "gunicorn.conf.py:1: workers = 1.5: auto, or a whole number"),
    ("workers = []", "gunicorn.conf.py:1: workers = []: "),
    ("bind = 8000", "gunicorn.conf.py:1: bind = 8000: a list of texts is allowed"),
    ("bind = ['a:1', 'b:x']", "gunicorn.conf.py:1: bind = 'b:x': a port is a number"),
    ("\ntimeout = 'half a minute'", "gunicorn.conf.py:2: timeout = 'half a minute': a duration"),
    ("raw_env = ['A']", "gunicorn.conf.py:1: raw_env = 'A': NAME=VALUE is allowed"),
    ("raw_env = {'A': 1}", "gunicorn.conf.py:1: raw_env = "),
    ("daemon = 2", "gunicorn.conf.py:1: daemon = 2: true or false is allowed"),
    ("loglevel = 'loud'", "gunicorn.conf.py:1: loglevel = 'loud': debug, info, warning, error or critical"),
    ("umask = '099'", "gunicorn.conf.py:1: umask = '099': octal digits"),
    ("secure_scheme_headers = ['X-P']", "gunicorn.conf.py:1: secure_scheme_headers = ['X-P']: a table"),
    ("when_ready = 3", "gunicorn.conf.py:1: when_ready = 3: a function"),
    ("ready_path = 'health'", "gunicorn.conf.py:1: ready_path = 'health': a path that begins with a slash"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[row[0].strip().partition(" ")[0] for row in BROKEN])
def test_broken_value_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(message)
    assert "allowed" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_that_fails_shows_its_own_lines_only() -> None:
    with pytest.raises(ConfigError) as caught:
        read("import json\n\ndef inner():\n    return json.loads('{')\n\nworkers = inner()\n")
    text = str(caught.value)
    assert text.startswith("settings file gunicorn.conf.py: it raised\n")
    assert 'gunicorn.conf.py", line 6, in <module>' in text
    assert "JSONDecodeError" in text
    assert "python_file.py" not in text
    with pytest.raises(ConfigError, match="SyntaxError"):
        read("workers = = 3\n")
    with pytest.raises(ConfigError, match="SystemExit"):
        read("raise SystemExit(3)\n")
