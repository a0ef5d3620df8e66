"""Contradictions, missing files, bad input: one line with place, name and reason, the exit code, and nothing left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import epollwsgi
from epollwsgi.config.checks import check
from epollwsgi.config.load import load
from epollwsgi.errors import ConfigError
from tests.support import ServerFactory, clean_environment, exchange, parse_responses

HELLO = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A directory with an application, a site, a file and a directory `taken`, as the current one."""
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "pages").mkdir()
    for name in ("taken", "auto", "none"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "file.json").write_text("{}")
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        yield tmp_path
    finally:
        os.chdir(before)


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "epollwsgi", *arguments],
        cwd=cwd,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# A line of gunicorn.conf.py, what stands on the command line, and the whole message but for the first word.
MISTAKES: list[tuple[str, str, str]] = [
    # dangerous to ignore
    ("", "--certfile c.pem --keyfile k.pem", "command line: keyfile = 'k.pem': this server has no TLS yet; "),
    (
        "certfile = '/etc/tls/c.pem'",
        "",
        "gunicorn.conf.py:1: certfile = '/etc/tls/c.pem': this server has no TLS yet; ",
    ),
    (
        "",
        "--proxy-protocol",
        "command line: proxy_protocol = 'auto': this server does not read the PROXY protocol yet; ",
    ),
    ("proxy_protocol = True", "", "gunicorn.conf.py:1: proxy_protocol = 'auto': this server does not read the PROXY"),
    ("dirty_apps = ['a:B']", "", "gunicorn.conf.py:1: dirty_apps = 'a:B': there are no dirty workers here"),
    # addresses
    ("bind = []", "", "gunicorn.conf.py:1: bind = []: at least one address is allowed"),
    ("", "-b :1 -b 0.0.0.0:1", "command line: bind = '0.0.0.0:1': it is given twice"),
    ("", "-b [::1]:1 -b [0::1]:1", "command line: bind = '[0::1]:1': it is the same as [::1]:1"),
    ("", "-b unix:s -b unix:./taken/../s", "command line: bind = 'unix:./taken/../s': it is the same as unix:s"),
    ("", "-b fd://7,fd://7", "command line: bind = 'fd://7': it is given twice"),
    ("", "-b :1 -b 127.0.0.1:1", "command line: bind = '127.0.0.1:1': 0.0.0.0:1 covers 127.0.0.1:1 already; "),
    ("", "-b localhost:1 -b :1", "command line: bind = '0.0.0.0:1': 0.0.0.0:1 covers localhost:1 already; "),
    ("", "-b [::1]:1 -b [::]:1", "command line: bind = '[::]:1': [::]:1 covers [::1]:1 already; "),
    ("", "-b :65536", "command line: bind = ':65536': a port is a number from 0 to 65535; "),
    ("", "-b unix:gone/s", "command line: bind = 'unix:gone/s': No such file or directory: the directory gone"),
    ("", "-b unix:file/s", "command line: bind = 'unix:file/s': file is not a directory"),
    ("", "-b unix:taken", "command line: bind = 'unix:taken': Is a directory"),
    ("\nbind = ['a:1', 'unix:gone/s']", "", "gunicorn.conf.py:2: bind = 'unix:gone/s': No such file or directory: "),
    # files and directories
    ("", "-p gone/x.pid", "command line: pidfile = 'gone/x.pid': No such file or directory: the directory gone"),
    ("", "-p taken", "command line: pidfile = 'taken': Is a directory"),
    (
        "",
        "--log-file gone/e.log",
        "command line: errorlog = 'gone/e.log': No such file or directory: the directory gone",
    ),
    ("accesslog = 'taken'", "", "gunicorn.conf.py:1: accesslog = 'taken': Is a directory"),
    ("", "--log-config gone.ini", "command line: logconfig = 'gone.ini': No such file or directory"),
    ("", "--log-config-json taken", "command line: logconfig_json = 'taken': not a regular file"),
    ("", "--chdir gone", "command line: chdir = 'gone': No such file or directory"),
    ("chdir = 'file'", "", "gunicorn.conf.py:1: chdir = 'file': Not a directory"),
    ("tmp_upload_dir = 'gone'", "", "gunicorn.conf.py:1: tmp_upload_dir = 'gone': no such directory"),
    ("", "--reload --reload-extra-file gone.html", "command line: reload_extra_files = 'gone.html': No such file"),
    (
        "",
        "-p taken/x --access-logfile taken/../taken/x",
        "command line: pidfile = 'taken/x': accesslog is the same file",
    ),
    ("", "-p x -b unix:x", "command line: bind = 'x': pidfile is the same file"),
    ("user = 'no-such-user'", "", "gunicorn.conf.py:1: user = 'no-such-user': no such user"),
    ("", "-g no-such-group", "command line: group = 'no-such-group': no such group"),
    # sites
    ("", "--static pages=pages", "command line: static = 'pages=pages': /PREFIX=DIRECTORY is allowed"),
    ("", "--static /a=gone", "command line: static = '/a=gone': gone: No such file or directory"),
    ("", "--static /a=file", "command line: static = '/a=file': file: Not a directory"),
    ("", "--static /a=pages --static /a/=pages", "command line: static = '/a=pages': /a is given twice"),
    # values
    ("", "--limit-request-head 1T", "command line: limit_request_head = '1T': a size in bytes"),
    ("", "--header-timeout 2d", "command line: header_timeout = '2d': a duration"),
    ("", "--ready-path health", "command line: ready_path = 'health': a path that begins with a slash"),
    ("", "--workers -1", "command line: workers = '-1': auto, or a whole number"),
]


@pytest.mark.parametrize(("file", "line", "message"), MISTAKES, ids=[f"mistake{n}" for n in range(len(MISTAKES))])
def test_mistake_ends_the_start_with_one_line(here: Path, file: str, line: str, message: str) -> None:
    if file:
        (here / "gunicorn.conf.py").write_text(f"{file}\n")
    before = sorted(here.rglob("*"))
    words = line.split()
    done = run(here, *([] if "bind" in file or "-b" in words else ["-b", "127.0.0.1:0"]), "hello:app", *words)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"epollwsgi: {message}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert sorted(here.rglob("*")) == before, "something is left behind"


@pytest.mark.parametrize("number", range(0, len(MISTAKES), 6))
def test_check_config_finds_the_same(here: Path, number: int) -> None:
    file, line, message = MISTAKES[number]
    if file:
        (here / "gunicorn.conf.py").write_text(f"{file}\n")
    done = run(here, "hello:app", *line.split(), "--check-config")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"epollwsgi: {message}")  # before it may be what is only noted


SANE: list[dict[str, object]] = [
    {"reload": True, "preload_app": True},
    {"reload": True, "daemon": True},
    {"max_requests_jitter": 5},
    {"worker_class": "sync", "threads": 4},
    {"statsd_prefix": "x"},
    {"reload_overlap": 4, "workers": 2},
    {"graceful_timeout": 5, "timeout": 60},
    {"initgroups": True},
    {"limit_request_line": "1M", "limit_request_head": "16K"},
    {"accesslog": "both.log", "errorlog": "both.log"},
    {"accesslog": "none"},
    {"accesslog": "auto", "errorlog": "-", "pidfile": "auto.pid"},
    {"bind": ["127.0.0.1:0", "127.0.0.1:0"]},
    {"bind": ["0.0.0.0:1", "[::]:1", "0.0.0.0:2", "unix:a", "unix:@a", "unix:@b"]},
    {"bind": ["0.0.0.0:1", "shop.example:1", "127.0.0.1:2"]},
    {"bind": ["0.0.0.0:1", "127.0.0.1:1"], "reuse_port": True},
    {"reload_extra_files": ["gone.html"]},
    {"reload_extra_files": ["templates/*.html", "file"], "reload": True},
    {"pythonpath": "/no/such/place"},
    {"ca_certs": "gone.pem", "cert_reqs": 2, "ciphers": "X"},
    {"proxy_allow_ips": "*", "proxy_protocol": "off"},
    {"logconfig": "file", "logconfig_json": "file.json"},
    {"pidfile": "taken/x.pid", "bind": "unix:taken/s"},
]


@pytest.mark.parametrize("given", SANE, ids=["-".join(given) for given in SANE])
def test_combination_that_means_something_is_no_mistake(here: Path, given: dict[str, object]) -> None:
    check(load(given, {}))


def test_mistake_names_the_line_of_the_one_value(here: Path) -> None:
    (here / "epollwsgi.toml").write_text(
        '[[static]]\nprefix = "/a"\ndirectory = "pages"\n\n[[static]]\nprefix = "/a/"\ndirectory = "taken"\n'
    )
    done = run(here, "hello:app")
    assert done.returncode == 1
    assert done.stderr == "epollwsgi: epollwsgi.toml:5: static = '/a=taken': /a is given twice\n"


def test_mount_of_a_file_beside_the_named_site_has_its_own_source(here: Path) -> None:
    (here / "epollwsgi.toml").write_text('static = ["/gone=gone"]\n')
    done = run(here, "./pages")
    assert done.stderr == "epollwsgi: epollwsgi.toml:1: static = '/gone=gone': gone: No such file or directory\n"


def test_address_that_another_has_is_told_in_the_systems_words(here: Path) -> None:
    """What only the system knows stays with it: the check says nothing, the start does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        check(load({"bind": address}, {}))
        done = run(here, "-b", address, "-p", "x.pid", "hello:app")
    assert done.returncode == 1
    assert address in done.stderr
    assert "Address already in use" in done.stderr
    assert not (here / "x.pid").exists()


def test_reload_refuses_what_a_start_refuses(start_server: ServerFactory, here: Path) -> None:
    """The old settings go on serving; what a file imports from beside it is not read anew, the file is."""
    settings = here / "gunicorn.conf.py"
    settings.write_text("threads = 2\nbind = '127.0.0.1:0'\n")
    server = start_server("hello:app", cwd=here)
    for text, message in (
        ("certfile = 'c.pem'\n", "gunicorn.conf.py:1: certfile = 'c.pem': this server has no TLS yet"),
        ("\npidfile = 'gone/x.pid'\n", "gunicorn.conf.py:2: pidfile = 'gone/x.pid': No such file or directory"),
        ("protocol = 'uwsgi'\n", "gunicorn.conf.py:1: protocol = 'uwsgi': this server speaks HTTP"),
        (
            "\nchdir = 'gone'\n",
            "what was running goes on: gunicorn.conf.py:2: chdir = 'gone': No such file or directory",
        ),
        ("access_log_format = '%(zz)s'\n", "gunicorn.conf.py:1: access_log_format = '%(zz)s': %(zz)s is no atom"),
        ("user = 'no-such-user'\n", "gunicorn.conf.py:1: user = 'no-such-user': no such user"),
    ):
        settings.write_text(text)
        server.send_signal(signal.SIGHUP)
        assert "reload failed" in server.wait_for_log(message)
        [response] = parse_responses(exchange(server.address, [b"GET / HTTP/1.0\r\n\r\n"]))
        assert response.body == b"hello"
    assert server.stop() == 0


def test_serve_is_checked_too(here: Path) -> None:
    (here / "program.py").write_text(
        "import epollwsgi\nfrom hello import app\n"
        "for given in ({'certfile': 'x'}, {'bind': [':1', '0.0.0.0:1']}, {'pidfile': 'gone/x'}):\n"
        "    try:\n        epollwsgi.serve(app, **given)\n"
        "    except epollwsgi.errors.ConfigError as error:\n        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=here,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["serve()"] * 3, done.stderr
    for line, part in zip(lines, ("certfile = 'x'", "it is given twice", "the directory gone"), strict=True):
        assert part in line


def test_what_is_wrong_with_several_is_told_in_a_fixed_order(here: Path) -> None:
    with pytest.raises(ConfigError, match="certfile"):
        check(load({"certfile": "x", "bind": [], "pidfile": "gone/x"}, {}))


def test_a_start_in_a_directory_that_is_gone(here: Path) -> None:
    script = f"cd pages && rmdir ../pages && exec {sys.executable} -m epollwsgi --check-config hello:app"
    environ = clean_environment() | {"PYTHONPATH": str(Path(epollwsgi.__file__).parent.parent)}
    done = subprocess.run(
        ["sh", "-c", script], cwd=here, env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "epollwsgi: the directory of the start: No such file or directory\n"


@pytest.mark.parametrize(("name", "path"), [("errorlog", "shut/e.log"), ("accesslog", "old"), ("pidfile", "shut/x")])
def test_what_this_user_may_not_write(here: Path, name: str, path: str) -> None:
    """Asked as a user without privileges, whoever runs the tests."""
    (here / "shut").mkdir()
    (here / "old").write_text("")
    (here / "shut").chmod(0o555)
    (here / "old").chmod(0o444)
    here.chmod(0o755)
    loaded = load({name: path}, {})
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match=f"{name} = '{path}': Permission denied"):
            check(loaded)
    finally:
        if is_root:
            os.seteuid(0)
        (here / "shut").chmod(0o755)


def test_dev_null_hides_the_settings_file(here: Path) -> None:
    (here / "gunicorn.conf.py").write_text("workers = 5\n")
    assert load({"config": os.devnull}, {}).settings.workers == 1


def test_a_settings_file_that_may_not_be_read(here: Path) -> None:
    (here / "settings.py").symlink_to("settings.py")
    with pytest.raises(ConfigError, match=r"^settings file settings.py: Too many levels of symbolic links$"):
        load({"config": "settings.py"}, {})


def test_a_url_is_no_ipv6_address() -> None:
    with pytest.raises(ConfigError, match="HOST:PORT") as caught:
        load({"bind": "http://0.0.0.0:80"}, {})
    assert "IPv6 address" not in str(caught.value)


def test_a_settings_file_that_imports_gunicorn_where_that_is_gone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "gunicorn.conf.py").write_text("from gunicorn.glogging import Logger\n")
    monkeypatch.setitem(sys.modules, "gunicorn", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "gunicorn.glogging", None)
    with pytest.raises(ConfigError) as caught:
        load({}, {})
    first = str(caught.value).partition("\n")[0]
    assert first == (
        "settings file gunicorn.conf.py: it raised (it imports gunicorn, which is not installed: install that too, "
        "or drop the import)"
    )


def test_check_config_tells_what_has_no_effect_yet(here: Path) -> None:
    done = run(here, "--check-config", "--admin", "127.0.0.1:9", "hello:app")
    assert (done.returncode, done.stderr) == (0, 'epollwsgi: not yet honoured: admin ("127.0.0.1:9")\n')
