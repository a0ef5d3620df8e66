"""Settings files in TOML, and the file and line of whatever is wrong in a settings file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epollwsgi.config.lines import MARK, Source, python_lines, toml_lines
from epollwsgi.config.load import load
from epollwsgi.config.values import StaticMount
from epollwsgi.errors import ConfigError

TOOL = ("tool", "epollwsgi")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- what a file may hold -------------------------------------------------------------------------------------------

STATIC = {
    "list": 'static = ["/a=./public", "/b=files"]\n',
    "table": '[static]\n"/a" = "./public"\n"/b" = "files"\n',
    "inline": 'static = { "/a" = "./public", "/b" = "files" }\n',
    "dotted": 'static."/a" = "./public"\nstatic."/b" = "files"\n',
    "tables": '[[static]]\nprefix = "/a"\ndirectory = "./public"\n\n[[static]]\ndirectory = "files"\nprefix = "/b/"\n',
    "list-of-tables": 'static = [{ prefix = "/a", directory = "./public" }, "/b=files"]\n',
}
FILES: dict[str, tuple[str, Callable[[str], str]]] = {
    "epollwsgi.toml": ("epollwsgi.toml", lambda text: text),
    "pyproject": ("pyproject.toml", lambda text: in_section(text)),
}


def in_section(text: str) -> str:
    """The text as the section of a pyproject.toml, which begins with other things."""
    lines = text.replace("[[static]]", "[[tool.epollwsgi.static]]").replace("[static]", "[tool.epollwsgi.static]")
    return f'[project]\nname = "x"\nkeepalive = 1\n\n[tool.epollwsgi]\n{lines}'


@pytest.mark.parametrize("form", STATIC)
@pytest.mark.parametrize("file", FILES)
def test_static_mounts_in_each_form(here: Path, file: str, form: str) -> None:
    name, wrap = FILES[file]
    (here / name).write_text(wrap(STATIC[form]))
    loaded = load({}, {})
    assert loaded.settings.static == (StaticMount("/a", "./public"), StaticMount("/b", "files"))


def test_named_pyproject_is_read_by_its_section(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "pyproject.toml").write_text("[tool.epollwsgi]\nkeepalive = 3\n")
    loaded = load({"config": "sub/pyproject.toml"}, {})
    assert loaded.settings.keepalive == 3
    assert loaded.source("keepalive") == "sub/pyproject.toml:2"
    assert loaded.files == ["sub/pyproject.toml [tool.epollwsgi]"]


def test_pyproject_that_is_read_twice_is_named_once(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.epollwsgi]\nkeepalive = 3\n")
    assert load({"config": "pyproject.toml"}, {}).files == ["pyproject.toml [tool.epollwsgi]"]


def test_pyproject_of_others_means_nothing(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.ruff]\nline-length = 120\n")
    loaded = load({}, {})
    assert (loaded.files, loaded.sources) == ([], {})


def test_tables_of_settings(here: Path) -> None:
    (here / "epollwsgi.toml").write_text(
        'raw_env = { A = "1", B = "x=y" }\n[secure_scheme_headers]\nX-FORWARDED-PROTO = "https"\n'
        '[logconfig_dict]\nversion = 1\n[logconfig_dict.handlers.a]\nclass = "logging.NullHandler"\n'
    )
    loaded = load({}, {})
    assert loaded.settings.raw_env == ("A=1", "B=x=y")
    assert loaded.settings.secure_scheme_headers == (("X-FORWARDED-PROTO", "https"),)
    assert loaded.settings.logconfig_dict == {"version": 1, "handlers": {"a": {"class": "logging.NullHandler"}}}
    assert loaded.source("logconfig_dict") == "epollwsgi.toml:4"
    assert loaded.source("secure_scheme_headers") == "epollwsgi.toml:2"


def test_paths_are_taken_from_the_start_directory(here: Path) -> None:
    """As gunicorn does it: where the file lies changes nothing."""
    (here / "conf").mkdir()
    (here / "conf" / "own.toml").write_text('static = ["/a=public"]\npidfile = "x.pid"\n')
    settings = load({"config": "conf/own.toml"}, {}).settings
    assert (settings.static, settings.pidfile) == ((StaticMount("/a", "public"),), "x.pid")


@pytest.mark.parametrize("file", ["epollwsgi.toml", "gunicorn.conf.py"])
def test_file_that_names_another(here: Path, file: str) -> None:
    (here / file).write_text('keepalive = 3\nconfig = "other.toml"\n')
    loaded = load({}, {})
    assert f"{file}:2: config has no effect in a settings file" in loaded.notes
    assert (loaded.settings.config, loaded.settings.keepalive) == ("", 3)


# --- mistakes -------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, str, str]] = {
    "value": ("epollwsgi.toml", "# c\n\nkeepalive = 'soon'\n", "epollwsgi.toml:3: keepalive = 'soon': a duration"),
    "crlf": ("epollwsgi.toml", "# c\r\nkeepalive = 'soon'\r\n", "epollwsgi.toml:2: keepalive = 'soon'"),
    "name": (
        "epollwsgi.toml",
        "timeout = 1\nkeepalife = 3\n",
        "epollwsgi.toml:2: keepalife: no such setting; did you mean keepalive?",
    ),
    "dashes": (
        "epollwsgi.toml",
        "keep-alive = 3\n",
        "epollwsgi.toml:1: keep-alive: no such setting; did you mean keepalive?",
    ),
    "option": (
        "epollwsgi.toml",
        "log-file = 'x'\n",
        "epollwsgi.toml:1: log-file: no such setting; did you mean errorlog?",
    ),
    "switch": (
        "epollwsgi.toml",
        "no-sendfile = true\n",
        "epollwsgi.toml:1: no-sendfile: no such setting; did you mean sendfile?",
    ),
    "capitals": (
        "epollwsgi.toml",
        "Workers = 3\n",
        "epollwsgi.toml:1: Workers: no such setting; did you mean workers?",
    ),
    "table": ("epollwsgi.toml", "timeout = 1\n[server]\nworkers = 3\n", "epollwsgi.toml:2: server: no such setting"),
    "quoted": ("epollwsgi.toml", '"keep alive" = 3\n', "epollwsgi.toml:1: keep alive: no such setting"),
    "controls": ("epollwsgi.toml", r'"a\u001b[2J\n" = 3' + "\n", r"epollwsgi.toml:1: a\x1b[2J\n: no such setting"),
    "section": (
        "pyproject.toml",
        "[project]\nworkers = 1\n[tool.epollwsgi]\nworkers = 0\n",
        "pyproject.toml:4: workers = 0: auto, or a whole number from 1 to 4096 is allowed",
    ),
    "section-by-dots": (
        "pyproject.toml",
        "[tool]\nepollwsgi.workers = 0\n",
        "pyproject.toml [tool.epollwsgi]: workers = 0: auto",
    ),
    "no-section": (
        "pyproject.toml",
        "[tool]\nepollwsgi = 3\n",
        "pyproject.toml [tool.epollwsgi]: a table of settings is",
    ),
    "mount-of-a-table": (
        "epollwsgi.toml",
        '[static]\n"/a" = "x"\n"b" = "x"\n',
        "epollwsgi.toml:3: static = 'b=x': /PREFIX=DIRECTORY is allowed",
    ),
    "mount-without-text": (
        "epollwsgi.toml",
        '[static]\n"/a" = 3\n',
        "epollwsgi.toml:1: static = {'/a': 3}: '/a': a table of texts is allowed",
    ),
    "mount-of-tables": (
        "epollwsgi.toml",
        '[[static]]\nprefix = "/a"\ndirectory = "x"\n[[static]]\nprefix = "/b"\npath = "x"\n',
        "epollwsgi.toml:4: static = {'prefix': '/b', 'path': 'x'}: a table with prefix and directory is allowed",
    ),
    "item": ("epollwsgi.toml", 'bind = [\n  ":1",\n  "x y",\n]\n', "epollwsgi.toml:3: bind = 'x y': HOST:PORT"),
    "long": ("epollwsgi.toml", f"loglevel = '{'x' * 5000}'\n", "xxx... (5002 characters): debug, info"),
    "escapes": ("epollwsgi.toml", r'loglevel = "a\u001b[2J\u0085\n"' + "\n", r"loglevel = 'a\x1b[2J\x85\n': debug"),
    "syntax": ("epollwsgi.toml", "timeout = 1\nkeepalive = \n", "epollwsgi.toml:2: not TOML: "),
    "end": ("epollwsgi.toml", 'timeout = 1\nkeepalive = """x\n', "epollwsgi.toml:2: not TOML: "),
    "twice": ("epollwsgi.toml", "timeout = 1\ntimeout = 2\n", "epollwsgi.toml:2: not TOML: "),
    "deep": ("epollwsgi.toml", f"bind = {'[' * 20000}\n", "epollwsgi.toml"),
    "python": (
        "gunicorn.conf.py",
        "import os\n\nkeepalive = 'soon'\n",
        "gunicorn.conf.py:3: keepalive = 'soon': a duration",
    ),
    "python-twice": (
        "gunicorn.conf.py",
        "keepalive = 3\nif True:\n    keepalive = 'soon'\n",
        "gunicorn.conf.py: keepalive = 'soon': a duration",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_told_in_one_line_with_its_place(here: Path, name: str) -> None:
    file, text, expected = MISTAKES[name]
    (here / file).write_bytes(text.encode())
    with pytest.raises(ConfigError) as caught:
        load({}, {})
    message = str(caught.value)
    assert expected in message
    assert len(message) < 400
    assert message.isprintable()


def test_bytes_that_are_no_text(here: Path) -> None:
    (here / "epollwsgi.toml").write_bytes(b"# c\nproc_name = '\xff'\n")
    with pytest.raises(ConfigError, match=r"^epollwsgi\.toml:2: not TOML: a byte that is no UTF-8$"):
        load({}, {})


def test_named_file_without_the_section(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.ruff]\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml: there is no table \[tool\.epollwsgi\]"):
        load({"config": "pyproject.toml"}, {})


@pytest.mark.parametrize(("path", "reason"), [("missing.toml", 2), ("dir.toml", 21)], ids=["missing", "directory"])
def test_file_that_cannot_be_read(here: Path, path: str, reason: int) -> None:
    (here / "dir.toml").mkdir()
    with pytest.raises(ConfigError) as caught:
        load({"config": path}, {})
    assert str(caught.value) == f"settings file {path}: {os.strerror(reason)}"


# --- lines ----------------------------------------------------------------------------------------------------------

TEXT = '''\
keepalive = 1
[tool.other]
keepalive = 2
note = """
keepalive = 3
[tool.epollwsgi]
keepalive = 4
"""
[ tool . "epollwsgi" ]  # here
'timeout' = 1
bind = [
  "keepalive = 5",
]
[[tool.epollwsgi.static]]
prefix = "/a"
[[tool.epollwsgi.static]]
prefix = "/b"
[tool.epollwsgi.raw_env]
A = "x"
"B" = "y"
[tool.epollwsgi.logconfig_dict.handlers.a]
x = 1
[tool.epollwsgi.logconfig_dict.handlers.b]
'''


def test_lines_are_those_of_keys_that_the_parser_found() -> None:
    assert toml_lines(TEXT, TOOL) == {
        "timeout": [10],
        "bind": [11, 12],
        "static": [14, 14, 16],
        "raw_env": [18, 19, 20],
        "logconfig_dict": [21, 21, 23],
    }
    assert toml_lines(TEXT, ())["keepalive"] == [1]


ARRAYS = [  # from the second line on, and the lines of the items; none where a text may stand for several items
    ('bind = [ # ] "\n"a",\n\n  \'b]\', "c\\"",\n]\n', [3, 5, 5]),
    ("bind = [\n1, 1979-05-27 07:32:00,\n[ 2,\n3 ], { a = [1] },\n4 ]\n", [3, 3, 4, 5, 6]),
    ('"bind"=["""x\n, \\"\n""""","y",\n\'\'\'\nz\'\'\', ""]\n', []),
    ('bind = ["""\nx, \\"\n""""","y",\n\'\'\'\nz\'\'\']\n', []),
    ('bind = ["""\nx \\"\n""""","y",\n\'\'\'\nz\'\'\', "w"]\n', [2, 4, 5, 6]),
    ('bind = [\n"a",\n"b,c"]\n', []),
    ("bind = []\n", []),
]


@pytest.mark.parametrize(("text", "lines"), ARRAYS, ids=[str(number) for number in range(len(ARRAYS))])
def test_lines_of_the_items_of_an_array(text: str, lines: list[int]) -> None:
    assert toml_lines(f"other = 1\n{text}after = ['x']\n", ())["bind"] == [2, *lines]
    inner = toml_lines(f"[tool.epollwsgi]\n{text}", TOOL)
    assert inner["bind"] == [2, *lines]


def test_text_that_holds_the_mark_has_no_lines() -> None:
    assert toml_lines("keepalive = 1\n", ()) == {"keepalive": [1]}
    assert toml_lines(f"# {MARK}\nkeepalive = 1\n", ()) == {}


def test_places() -> None:
    source = Source("x.toml", "x.toml", {"static": [3, 4, 6], "bind": [8]})
    assert [source.place("static", item) for item in (-1, 0, 1, 2)] == ["x.toml:3", "x.toml:4", "x.toml:6", "x.toml:3"]
    assert source.place("bind", 5) == "x.toml:8"
    assert source.place("other") == Source("x.toml").place("bind") == "x.toml"


keys = st.sampled_from(["alpha", "b-c", "d_e", '"f g"', "'h.i'", '"j\\"k"', "7"])
texts = st.sampled_from(
    ['"x"', "'''\nalpha = 1\n[t]\n'''", '"""\nb-c = 2\n"""', "[\n  1,\n  2,\n]", "{ alpha = 1 }", "3 # alpha = 4"]
)


@given(
    rows=st.lists(st.tuples(keys, texts), unique_by=lambda row: row[0], max_size=6), before=st.lists(texts, max_size=3)
)
@settings(derandomize=True, database=None, deadline=None, max_examples=100)
def test_lines_are_never_wrong(rows: list[tuple[str, str]], before: list[str]) -> None:
    """Whatever strings and arrays stand around, a key has its own line or none."""
    text = "".join(f"key{number} = {value}\n" for number, value in enumerate(before)) + "[t]\n"
    expected = {}
    for key, value in rows:
        name = {'"j\\"k"': 'j"k'}.get(key, key.strip("\"'"))
        expected[name.replace('"k', '\\"k') if "k" in name else name] = [text.count("\n") + 1]
        text += f"{key} = {value}\n"
    found = toml_lines(text, ("t",))
    assert {name: lines[:1] for name, lines in found.items()} == {
        name.replace('\\"', '"'): lines for name, lines in expected.items()
    }


PYTHON: dict[str, tuple[str, dict[str, list[int]]]] = {
    "plain": ("import os\nbind = 'x'\nworkers: int = 2\n", {"os": [1], "bind": [2], "workers": [3]}),
    "last": ("bind = 1\nbind = 2\n", {"bind": [2]}),
    "block": ("if x:\n    bind = 1\n", {"bind": [2]}),
    "either": ("if x:\n    bind = 1\nelse:\n    bind = 2\n", {}),
    "after": ("bind = 1\nif x:\n    bind = 2\n", {}),
    "plain-after": ("if x:\n    bind = 1\nelse:\n    bind = 2\nbind = 3\n", {"bind": [5]}),
    "changed": ("bind = 1\nbind += 2\n", {}),
    "function": ("def f():\n    bind = 1\n", {"f": [1]}),
    "global": ("bind = 1\ndef f():\n    global bind\n    bind = 2\n", {"f": [2]}),
    "class": ("class A:\n    bind = 1\n", {"A": [1]}),
    "several": ("a, (b, *c) = x\n", {"a": [1], "b": [1], "c": [1]}),
    "star": ("bind = 1\nfrom x import *\n", {}),
    "globals": ("bind = 1\nglobals()['bind'] = 2\n", {}),
    "exec": ("bind = 1\ndef f():\n    exec('bind = 2', vars())\n", {}),
    "broken": ("bind = \n", {}),
    "list": ("bind = [\n  'a',\n  # b\n  'b'\n  'c',\n]\n", {"bind": [1, 2, 4]}),
    "tuple": ("x: tuple = (\n  1,\n  2)\na, b = (\n  1,\n  2)\n", {"x": [1, 2, 3], "a": [4], "b": [4]}),
    "list-of-calls": ("bind = [\n  'a',\n  *f(),\n]\n", {"bind": [1]}),
    "list-changed": ("bind = [\n  'a',\n]\nbind.insert(0, 'b')\n", {"bind": [1]}),
}


@pytest.mark.parametrize("name", PYTHON)
def test_lines_of_python_files(name: str) -> None:
    text, expected = PYTHON[name]
    found = python_lines(text)
    assert found == expected
