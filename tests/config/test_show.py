"""--print-config: TOML that says the same when it is read back, with the source of each value."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tomllib
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epollwsgi.config.lines import Source
from epollwsgi.config.load import Loaded, convert, load
from epollwsgi.config.settings import DEFAULTS, OPTIONS, Settings
from epollwsgi.config.show import ACTS_ONCE, Unwritable, describe_settings, show, show_toml
from epollwsgi.config.values import hook
from epollwsgi.errors import ConfigError
from epollwsgi.setting_help import EXAMPLES
from tests.support import ServerFactory, clean_environment

steady = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
HELLO = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hello']\n"


def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "epollwsgi", *arguments],
        cwd=cwd,
        env=clean_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )


def read_back(loaded: Loaded, directory: Path) -> Settings:
    """The settings of a file that holds what is shown of others."""
    path = directory / "shown.toml"
    path.write_text(describe_settings(loaded), encoding="utf-8")
    return load({"config": str(path)}, {}).settings


def values_of(found: Settings) -> dict[str, object]:
    """All that a file in TOML can give."""
    return {
        name: getattr(found, name)
        for name, option in OPTIONS.items()
        if name not in ACTS_ONCE and option.parse is not hook
    }


# --- the way back ---------------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
plain = st.text(st.sampled_from("abcz019._-"), min_size=1, max_size=8).filter(lambda text: text[0] not in ".-")
numbers = st.integers(0, 2**31 - 1)
TOML_VALUES = st.recursive(
    st.one_of(words, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)
WRITTEN: dict[str, st.SearchStrategy[Any]] = {
    "bind": st.lists(
        st.one_of(
            st.builds("{}:{}".format, plain, st.integers(0, 65535)),
            st.builds("unix:/{}".format, plain),
            st.builds("unix:////{}?mode={:03o}".format, plain, st.integers(0, 0o777)),
            st.sampled_from(["[fe80::1%eth0]:80", "[::]", ":0", "fd://3", "unix:@x"]),
        ),
        min_size=1,
        max_size=3,
    ),
    "static": st.lists(st.builds("/{}={}".format, plain, words), max_size=3),
    "raw_env": st.lists(st.builds("A{}={}".format, st.integers(0, 99), words | st.just("")), max_size=3),
    "secure_scheme_headers": st.dictionaries(words, words, max_size=3),
    "logconfig_dict": st.dictionaries(words, TOML_VALUES, max_size=4),
    "umask": st.one_of(st.integers(0, 0o777), st.just("none")),
}
ANY_VALUE = st.one_of(
    words,
    numbers,
    st.booleans(),
    st.just("auto"),
    st.floats(0, 1e8),
    st.builds("{}{}".format, st.integers(0, 99999), st.sampled_from(["K", "M", "G", "ms", "s", "m", "h"])),
    st.lists(words, max_size=3),
)


def takes(name: str, value: object) -> bool:
    """Whether a setting can have a value."""
    try:
        convert(Source("x"), name, value)
    except ConfigError:
        return False
    return True


def drawn(name: str) -> st.SearchStrategy[Any]:
    """Values that a setting takes, as they are written; its example where nothing better was drawn."""
    example = EXAMPLES.get(name, not getattr(DEFAULTS, name))
    return WRITTEN.get(name, ANY_VALUE).map(lambda value: value if takes(name, value) else example)


NAMES = [name for name, option in OPTIONS.items() if name not in ACTS_ONCE and option.parse is not hook]
DRAWN = {name: st.tuples(st.just(name), drawn(name)) for name in NAMES}
WHOLE = st.lists(st.sampled_from(NAMES).flatmap(DRAWN.__getitem__), max_size=12).map(dict)


@given(written=WHOLE)
@steady
def test_what_is_shown_means_the_same_when_it_is_read_back(tmp_path: Path, written: dict[str, Any]) -> None:
    loaded = Loaded()
    loaded.set("test", written)
    assert values_of(read_back(loaded, tmp_path)) == values_of(loaded.settings)


@pytest.mark.parametrize("name", NAMES)
def test_each_example_is_read_back(tmp_path: Path, name: str) -> None:
    loaded = Loaded()
    loaded.set("test", {name: EXAMPLES.get(name, not getattr(DEFAULTS, name))})
    assert values_of(loaded.settings) != values_of(DEFAULTS) or name == "worker_class"
    assert values_of(read_back(loaded, tmp_path)) == values_of(loaded.settings)


@given(value=TOML_VALUES)
@steady
def test_values_are_written_as_toml(value: object) -> None:
    assert tomllib.loads(f"value = {show_toml(value)}")["value"] == value


@pytest.mark.parametrize(
    "value",
    [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), date(2026, 1, 2), time(1, 2, 3)],
    ids=["datetime", "date", "time"],
)
def test_moments_are_written_as_toml(value: object) -> None:
    assert tomllib.loads(f"value = {show_toml(value)}")["value"] == value


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "None"),
        (print, "a function"),
        ((1,), "a tuple"),
        (object(), "a object"),
        ({1: 2}, "a name that is a int"),
        ("\udcff", "no UTF-8"),
        (float("nan"), "not a number"),
    ],
    ids=["none", "function", "tuple", "object", "number-key", "surrogate", "nan"],
)
def test_values_that_toml_cannot_hold(value: object, what: str) -> None:
    for whole in (value, [value], {"a": value}):
        with pytest.raises(Unwritable, match=what):
            show_toml(whole)


@pytest.mark.parametrize(
    ("name", "written", "shown"),
    [
        ("keepalive", "2m", "120"),
        ("revalidate", "0.5ms", "0.0005"),
        ("timeout", 12345.678, "12345.678"),
        ("umask", "022", "0o022"),
        ("umask", None, '"none"'),
        ("workers", "auto", '"auto"'),
        ("limit_request_head", "1M", '"1M"'),
        ("limit_request_body", 0, "0"),
        ("limit_request_line", "0", "0"),
        ("limit_request_fields", 0, "0"),
        ("max_requests", 0, "0"),
        ("bind", "unix:/x?mode=660", '["unix:/x?mode=660"]'),
        ("static", {"/a": "b"}, '["/a=b"]'),
        ("proc_name", 'a"\\\n\x85', '"a\\"\\\\\\u000a\\u0085"'),
        ("secure_scheme_headers", {"X-A": "b", "x y": "c"}, '{ X-A = "b", "x y" = "c" }'),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_value_as_an_operator_writes_it(name: str, written: object, shown: str) -> None:
    assert show(name, convert(Source("x"), name, written)) == shown


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with an application hello.py and a site in pages/."""
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.html").write_text("<p>pages")
    return tmp_path


def origins(text: str) -> dict[str, tuple[str, str]]:
    """Each setting that is shown, with its value and its source."""
    found = re.findall(r"^(?:# )?(\w+)(?: = |: )(.*?) +# (.*)$", text, re.MULTILINE)
    return {name: (value, source) for name, value, source in found}


def test_each_value_names_its_source(site: Path) -> None:
    (site / "pyproject.toml").write_text(
        "[tool.other]\nkeepalive = 1\n\n[tool.epollwsgi]\nkeepalive = 5\nbacklog = 9\n"
    )
    (site / "gunicorn.conf.py").write_text("import os\n\n\ndef when_ready(server):\n    pass\n\nthreads = 3\n")
    done = run(
        "--print-config", "--backlog", "10", "hello:app", cwd=site, env={"EPOLLWSGI_REVALIDATE": "2s", "PORT": "0"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = origins(done.stdout)
    assert list(found) == sorted(
        OPTIONS, key=lambda name: list(dict.fromkeys(o.section for o in OPTIONS.values())).index(OPTIONS[name].section)
    )
    assert found["keepalive"] == ("5", "pyproject.toml:5")
    assert found["backlog"] == ("10", "command line")
    assert found["revalidate"] == ("2", "environment EPOLLWSGI_REVALIDATE")
    assert found["bind"] == ('["0.0.0.0:0"]', "environment PORT")
    assert found["threads"] == ("3", "gunicorn.conf.py:7")
    assert found["send_timeout"] == ("60", "default")
    assert found["wsgi_app"] == ('"hello:app"', "command line")
    assert found["when_ready"] == ("TOML cannot hold a function", "gunicorn.conf.py:4")
    assert "# Files read: pyproject.toml [tool.epollwsgi], gunicorn.conf.py\n" in done.stdout
    sections = re.findall("^# --- (.*)$", done.stdout, re.MULTILINE)
    assert sections == list(dict.fromkeys(option.section for option in OPTIONS.values()))
    held = tomllib.loads(done.stdout)
    assert not set(held) & {"config", "check_config", "print_config", "when_ready"}


def test_what_acts_once_is_a_comment(site: Path) -> None:
    (site / "own.toml").write_text("keepalive = 4\n")
    done = run("-c", "own.toml", "--print-config", "--check-config", "hello:app", cwd=site)
    found = origins(done.stdout)
    assert found["config"] == ('"own.toml"', "command line")
    assert found["check_config"] == found["print_config"] == ("true", "command line")
    assert "config" not in tomllib.loads(done.stdout)


LAYOUTS: dict[str, tuple[list[str], dict[str, object]]] = {
    "application": (["hello:app", "--static", "/p=pages"], {"wsgi_app": "hello:app", "static": ["/p=pages"]}),
    "directory": (["./pages"], {"wsgi_app": "", "static": ["/=./pages"]}),
    "mounts": (["--static", "/=pages"], {"wsgi_app": "", "static": ["/=pages"]}),
    "nothing": ([], {"wsgi_app": "", "static": []}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_served_is_among_it(site: Path, layout: str) -> None:
    """The file alone starts the same, and shows the same; only the sources differ."""
    arguments, expected = LAYOUTS[layout]
    more = ["-e", 'QUOTED="\\ü', "-k", "sync", "--limit-request-body", "0", "-b", "127.0.0.1:0"]
    done = run("--print-config", *arguments, *more, cwd=site)
    assert (done.returncode, origins(done.stdout)["raw_env"][1]) == (0, "command line")
    (site / "shown.toml").write_text(done.stdout, encoding="utf-8")
    held = tomllib.loads(done.stdout)
    assert held | expected == held
    again = run("--print-config", "-c", "shown.toml", cwd=site)
    assert again.returncode == 0
    assert tomllib.loads(again.stdout) == held
    assert held["threads"] == 1


def test_a_directory_takes_the_place_of_an_application_in_a_file(site: Path) -> None:
    (site / "epollwsgi.toml").write_text('wsgi_app = "hello:app"\n')
    done = run("--print-config", "./pages", cwd=site)
    assert origins(done.stdout)["wsgi_app"] == ('""', "command line")
    assert tomllib.loads(done.stdout)["static"] == ["/=./pages"]


def test_a_server_starts_from_what_is_shown(start_server: ServerFactory, site: Path) -> None:
    done = run("--print-config", "hello:app", "--keep-alive", "7", cwd=site)
    (site / "shown.toml").write_text(done.stdout, encoding="utf-8")
    server = start_server("", "-c", "shown.toml", cwd=site)
    assert "hello:app" in server.stderr_text()
    assert server.stop() == 0


def test_logging_configuration_is_a_table(site: Path) -> None:
    (site / "gunicorn.conf.py").write_text(
        "threads = 2\nlogconfig_dict = {'version': 1, 'handlers': {'a b': {'class': 'logging.NullHandler'}},"
        " 'root': {'handlers': ['a b']}}\n"
    )
    done = run("--print-config", "hello:app", cwd=site)
    assert done.returncode == 0, done.stderr
    assert "\n[logconfig_dict]  # gunicorn.conf.py:2\nversion = 1\n" in done.stdout
    held = tomllib.loads(done.stdout)["logconfig_dict"]
    assert held == {
        "version": 1,
        "handlers": {"a b": {"class": "logging.NullHandler"}},
        "root": {"handlers": ["a b"]},
    }


def test_logging_configuration_with_objects_is_a_comment(site: Path) -> None:
    (site / "gunicorn.conf.py").write_text("import logging\nlogconfig_dict = {'version': 1, 'x': logging}\n")
    loaded = load_in(site)
    assert "# logconfig_dict: TOML cannot hold a module" in describe_settings(loaded)
    assert "logconfig_dict" not in tomllib.loads(describe_settings(loaded))


def load_in(directory: Path) -> Loaded:
    """What is loaded where a directory is the current one."""
    before = os.getcwd()
    os.chdir(directory)
    try:
        return load({}, {})
    finally:
        os.chdir(before)


def test_bytes_that_are_no_text_are_a_comment(site: Path) -> None:
    command = [os.fsencode(sys.executable), b"-m", b"epollwsgi", b"--print-config", b"-e", b"A=\xff", b"hello:app"]
    done = subprocess.run(command, cwd=site, env=clean_environment(), capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"# raw_env: TOML cannot hold bytes that are no UTF-8" in done.stdout
    assert "raw_env" not in tomllib.loads(done.stdout.decode())


def test_the_locale_changes_nothing(site: Path) -> None:
    done = run("--print-config", "-n", "naïve", "hello:app", cwd=site, env={"PYTHONIOENCODING": "ascii"})
    assert tomllib.loads(done.stdout)["proc_name"] == "naïve"


def test_reader_that_leaves_early(site: Path) -> None:
    command = f"{sys.executable} -m epollwsgi --print-config hello:app | head -c 10"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=site,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("# The sett", "")


@pytest.mark.parametrize("words", ["--print-config hello:app", "--help", "--version", "check --help"])
def test_output_that_cannot_be_written(site: Path, words: str) -> None:
    command = f"{sys.executable} -m epollwsgi {words} > /dev/full"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=site,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"epollwsgi: standard output: {os.strerror(errno.ENOSPC)}\n")


def test_no_output_at_all(site: Path) -> None:
    command = f"exec {sys.executable} -m epollwsgi --print-config hello:app >&-"
    done = subprocess.run(["sh", "-c", command], cwd=site, env=clean_environment(), timeout=30, check=False)
    assert done.returncode == 0


def test_it_is_printed_before_the_application_fails(site: Path) -> None:
    (site / "broken.py").write_text("raise RuntimeError('no luck')\n")
    done = run("--print-config", "broken:app", cwd=site)
    assert done.returncode == 3
    assert tomllib.loads(done.stdout)["wsgi_app"] == "broken:app"
    assert "no luck" in done.stderr


# --- --check-config -------------------------------------------------------------------------------------------------

CHECKED: dict[str, tuple[str, list[str], int, str]] = {
    "sound": ("", ["hello:app"], 0, ""),
    "setting": (
        "keepalive = 'soon'\n",
        ["hello:app"],
        1,
        r"epollwsgi: epollwsgi\.toml:1: keepalive = 'soon': .*allowed\n",
    ),
    "nothing": ("", [], 2, r"epollwsgi: nothing to serve: .*\n"),
    "option": ("", ["--nonsense", "hello:app"], 2, r"epollwsgi: .*--nonsense.*\n"),
    "module": ("", ["nowhere:app"], 3, r"epollwsgi: .*no module named nowhere.*\n"),
    "attribute": ("", ["hello:nothing"], 4, r"epollwsgi: hello has no attribute nothing.*\n"),
    "ignored": ("", ["--spew", "hello:app"], 0, r"epollwsgi: .*spew \(command line\).*\n"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_check_config(site: Path, name: str) -> None:
    """One line where something is wrong, none where nothing is; and nothing is left behind."""
    text, arguments, code, expected = CHECKED[name]
    (site / "epollwsgi.toml").write_text(text)
    before = sorted(site.rglob("*"))
    more = ["-b", "unix:never", "-p", "never.pid", "--error-logfile", "never.log", "--access-logfile", "never.log"]
    done = run("--check-config", *more, *arguments, cwd=site)
    assert done.returncode == code, done.stderr
    assert re.fullmatch(expected, done.stderr)
    if name != "nothing":
        assert done.stdout == ""
    assert sorted(site.rglob("*")) == before


def test_check_config_mentions_a_slip_of_the_pen(site: Path) -> None:
    (site / "gunicorn.conf.py").write_text("threads = 2\nkeep_alive = 3\n")
    done = run("--check-config", "hello:app", cwd=site)
    assert done.returncode == 0
    assert done.stderr == "epollwsgi: gunicorn.conf.py:2: keep_alive is no setting; did you mean keepalive?\n"
