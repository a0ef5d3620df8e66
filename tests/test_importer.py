"""What the positional argument means, how an application is found, and what its author is told when it is not."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.config.settings import Settings
from epollwsgi.config.values import StaticMount
from epollwsgi.errors import ApplicationFailed, ApplicationNotFound, ConfigError, StartError, UsageError
from epollwsgi.importer import (
    Application,
    Directory,
    check_mounts,
    load_application,
    module_file,
    parse_name,
    parse_target,
    prepare_path,
)

WSGI = "def {}(environ, start_response):\n    return []\n"
numbers = itertools.count()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """An empty directory as the current one and first in sys.path; modules loaded from it are forgotten afterwards."""
    directory, path, known = os.getcwd(), sys.path[:], set(sys.modules)
    os.chdir(tmp_path)
    prepare_path("")
    try:
        yield tmp_path
    finally:
        os.chdir(directory)
        sys.path[:] = path
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]
        importlib.invalidate_caches()


@pytest.fixture
def write(here: Path) -> Callable[[str], str]:
    """Writes a module of a name that no other test uses; returns the name."""

    def write_module(text: str) -> str:
        name = f"written_{next(numbers)}"
        (here / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return name

    return write_module


# --- application or directory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["app", "shop.wsgi", "shop.wsgi:application", "shop:app.wsgi", "a:f()", "a:f('x/y', n=[1])", "html", "é:é"]
)
def test_application_names(here: Path, text: str) -> None:
    (here / "html").mkdir()
    assert parse_target(text, Settings()) == Application(text)


@pytest.mark.parametrize("text", [".", "./html", "html/", "..", "/", "./html/.."])
def test_directories(here: Path, text: str) -> None:
    (here / "html").mkdir()
    assert parse_target(text, Settings(allow_source=True)) == Directory(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":app", "app:", "a b", "a-b", "1a", "a..b", "a:b c", "a:b(", "a:b)", "a:1", "a:b[0]", "a:b()()"),
        *("a:'x'", "a:f(x)", "a:f(1 + g())", "a:f(*[1])", "a:f(**{})", "a:f(open('x'))", "a:b.c.", "a:b;c"),
        *("a:(b, c)", "a:b\n(1)x"),
    ],
)
def test_malformed_names_are_mistakes_of_the_command_line(here: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text, Settings())
    assert repr(text) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("mark", ["__init__.py", "pyproject.toml", "manage.py", ".git", ".env"])
def test_directory_of_source_is_no_site(here: Path, mark: str) -> None:
    (here / "site").mkdir()
    (here / "site" / mark).touch()
    with pytest.raises(ConfigError, match="--allow-source") as caught:
        parse_target("./site", Settings())
    assert mark in str(caught.value)
    assert parse_target("./site", Settings(allow_source=True)) == Directory("./site")


def test_what_is_no_directory(here: Path) -> None:
    (here / "shop.py").touch()
    with pytest.raises(ConfigError, match=r"this is a file; .* did you mean shop\?"):
        parse_target("./shop.py", Settings())
    with pytest.raises(ConfigError, match="No such file or directory"):
        parse_target("./nowhere", Settings())


# --- loading --------------------------------------------------------------------------------------------------------


def test_names_lead_to_objects(write: Callable[[str], str]) -> None:
    module = write(
        WSGI.format("app")
        + "class Sub:\n    def wsgi(self, environ, start_response):\n        return []\nsub = Sub()\n"
        + "def make(*names, **more):\n    def made(environ, start_response):\n        return [names, more]\n"
        + "    return made\n"
    )
    loaded = sys.modules
    assert load_application(f"{module}:app") is loaded[module].app
    assert load_application(module) is loaded[module].app
    assert load_application(f"{module}:sub.wsgi") == loaded[module].sub.wsgi
    made: Any = load_application(f"{module}:make('a/b', 2, flag=None, items=[1, (2,)])")
    assert made({}, None) == [("a/b", 2), {"flag": None, "items": [1, (2,)]}]
    assert module_file(f"{module}:app").endswith(f"{module}.py")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (WSGI.format("application"), "application"),
        ("app = 3\n" + WSGI.format("application"), "application"),
        (WSGI.format("made") + "def create_app():\n    return made\n", "made"),
        (WSGI.format("application") + WSGI.format("app"), "app"),
    ],
)
def test_usual_names_are_tried(write: Callable[[str], str], text: str, found: str) -> None:
    module = write(text)
    assert load_application(module) is getattr(sys.modules[module], found)


def test_shapes_of_applications_that_pass(write: Callable[[str], str]) -> None:
    module = write(
        "import functools\n"
        "class A:\n    def __init__(self, environ, start_response):\n        pass\n"
        "class B:\n    def __call__(self, environ, start_response):\n        return []\n"
        "class C:\n    def __call__(self, *args):\n        return []\n"
        "b = B()\nc = C()\nd = functools.partial(lambda x, e, s: [], 1)\ne = lambda e, s, extra=None: []\n"
    )
    for name in ("A", "b", "c", "d", "e"):
        assert load_application(f"{module}:{name}") is getattr(sys.modules[module], name)


def load_failing(text: str, kind: type[StartError]) -> str:
    with pytest.raises(StartError) as caught:
        load_application(text)
    assert type(caught.value) is kind
    return str(caught.value)


def test_import_error_shows_the_applications_own_traceback(here: Path, write: Callable[[str], str]) -> None:
    module = write("def first():\n    second()\n\ndef second():\n    return {}['nope']\n\nfirst()\n")
    message = load_failing(f"{module}:app", ApplicationFailed)
    assert message.splitlines()[1] == "Traceback (most recent call last):"
    assert "KeyError: 'nope'" in message
    assert "in first" in message
    assert "in second" in message
    files = {line.split('"')[1] for line in message.splitlines() if line.startswith('  File "')}
    assert files == {str(here / f"{module}.py")}, "frames that are not the application's"


def test_chained_exceptions_show_no_frames_of_ours(here: Path, write: Callable[[str], str]) -> None:
    inner = write("1 / 0\n")
    module = write(
        f"try:\n    import {inner}\nexcept ZeroDivisionError as error:\n    raise ValueError('x') from error\n"
    )
    message = load_failing(module, ApplicationFailed)
    assert "ZeroDivisionError" in message
    assert "ValueError: x" in message
    assert "importer.py" not in message
    assert "importlib" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(:\n", "SyntaxError"),
        ("import sys\nsys.exit('stop')\n", "SystemExit: stop"),
        ("import nowhere_to_be_found\n", "No module named 'nowhere_to_be_found'"),
        ("from os import nothing_of_it\n", "cannot import name 'nothing_of_it'"),
        ("class E(BaseException): pass\nraise E('own')\n", "E: own"),
    ],
)
def test_ways_to_fail_while_imported(write: Callable[[str], str], text: str, expected: str) -> None:
    module = write(text)
    message = load_failing(f"{module}:app", ApplicationFailed)
    assert message.startswith(f"importing {module} failed\n")
    assert expected in message
    assert f"{module}.py" in message


def test_control_c_passes_through(write: Callable[[str], str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_application(write("raise KeyboardInterrupt\n"))


def test_missing_modules(here: Path) -> None:
    (here / "package").mkdir()
    (here / "package" / "__init__.py").touch()
    assert "there is no module named nowhere, looked for in" in load_failing("nowhere:app", ApplicationFailed)
    assert str(here) in load_failing("nowhere:app", ApplicationFailed)
    message = load_failing("package.missing:app", ApplicationFailed)
    assert "there is no module named package.missing" in message
    assert "(nowhere was not found)" in load_failing("nowhere.deep:app", ApplicationFailed)


def test_directory_without_code_is_pointed_out(here: Path) -> None:
    (here / "site_of_pages").mkdir()
    message = load_failing("site_of_pages", ApplicationFailed)
    assert message.endswith("did you mean ./site_of_pages")
    (here / "html").mkdir()  # a module of the standard library has this name
    message = load_failing("html", ApplicationNotFound)
    assert message.endswith("did you mean ./html")


def test_missing_attribute_names_the_candidates(write: Callable[[str], str]) -> None:
    module = write(
        "from os.path import join\nimport json\n\n"
        "class Flaskish:\n    wsgi_app = None\n    __call__ = lambda s, e, r: []\n\n"
        "site = Flaskish()\n"
        + WSGI.format("shop")
        + "def create_app(config=None):\n    return shop\n\ndef helper(one):\n    pass\n\n"
        + "_hidden = shop\nfrom flask import request, session  # proxies: to look at them raises now\n"
    )
    message = load_failing(f"{module}:ap", ApplicationNotFound)
    assert message == (
        f"{module} has no attribute ap; candidates found: {module}:create_app(), {module}:shop, {module}:site"
    )
    empty = write("x = 1\n")
    assert "nothing in it looks like a WSGI application" in load_failing(f"{empty}:app", ApplicationNotFound)
    assert "has none of app, application, create_app()" in load_failing(empty, ApplicationNotFound)
    assert "has no attribute x.y.z" in load_failing(f"{empty}:x.y.z", ApplicationNotFound)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("number", ApplicationNotFound, "is 3, not a WSGI application"),
        ("number()", ApplicationNotFound, "is 3, which cannot be called"),
        ("nothing()", ApplicationNotFound, "returned None, not a WSGI application"),
        ("fails()", ApplicationFailed, "RuntimeError: inside"),
        ("leaves()", ApplicationFailed, "SystemExit: 0"),
        ("needs()", ApplicationFailed, "missing 1 required positional argument"),
        ("nothing", ApplicationNotFound, "as a factory it is written"),
        ("asgi", ApplicationNotFound, "ASGI"),
        ("coroutine", ApplicationNotFound, "ASGI"),
        ("gives_asgi()", ApplicationNotFound, "ASGI"),
        ("single", ApplicationNotFound, "cannot be called with (environ, start_response)"),
        ("moody.app", ApplicationFailed, "ValueError: not now"),
    ],
)
def test_what_is_no_application(write: Callable[[str], str], name: str, kind: type[StartError], expected: str) -> None:
    module = write(
        "number = 3\ndef nothing():\n    pass\ndef fails():\n    raise RuntimeError('inside')\n"
        "def leaves():\n    raise SystemExit(0)\ndef needs(x):\n    pass\ndef single(x):\n    pass\n"
        "class ASGI:\n    async def __call__(self, scope, receive, send):\n        pass\nasgi = ASGI()\n"
        "async def coroutine(environ, start_response):\n    return []\ndef gives_asgi():\n    return asgi\n"
        "class Moody:\n    @property\n    def app(self):\n        raise ValueError('not now')\nmoody = Moody()\n"
    )
    message = load_failing(f"{module}:{name}", kind)
    assert expected in message
    assert "importer.py" not in message


# --- monkey patches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "fake", "line"),
    [
        (
            "gevent",
            ("monkey", "def is_module_patched(name):\n    return name == 'socket'\ndef patch_all():\n    pass\n"),
            "monkey.patch_all()",
        ),
        (
            "eventlet",
            ("patcher", "def is_monkey_patched(name):\n    return True\ndef monkey_patch():\n    pass\n"),
            "patcher.monkey_patch()",
        ),
    ],
)
def test_monkey_patches_end_the_start(
    here: Path, write: Callable[[str], str], library: str, fake: tuple[str, str], line: str
) -> None:
    """With stand-ins for the libraries, which say what the real ones say after they were asked to patch."""
    (here / library).mkdir()
    (here / library / "__init__.py").touch()
    (here / library / f"{fake[0]}.py").write_text(fake[1])
    module = write(f"# {line} in a comment is not it\nfrom {library} import {fake[0]}\n{line}\n{WSGI.format('app')}")
    message = load_failing(f"{module}:app", ApplicationFailed)
    assert library in message
    assert message.endswith(f"delete this line:\n  {here / module}.py:3: {line}")


# --- paths and mounts -----------------------------------------------------------------------------------------------


def test_search_path(here: Path) -> None:
    (here / "lib").mkdir()
    prepare_path("lib, /nowhere")
    prepare_path("lib, /nowhere")
    assert sys.path[:3] == [str(here / "lib"), "/nowhere", str(here)]
    assert sys.path.count(str(here)) == 1


def test_mount_that_would_publish_the_application(here: Path, write: Callable[[str], str]) -> None:
    module = write(WSGI.format("app"))
    load_application(f"{module}:app")
    file = module_file(f"{module}:app")
    (here / "public").mkdir()
    (here / "linked").symlink_to(here)
    check_mounts([StaticMount("/", "public")], file, "here")
    for directory in (".", str(here), "public/..", "linked", "/"):
        with pytest.raises(ConfigError, match="own module") as caught:
            check_mounts([StaticMount("/x", directory)], file, "command line")
        assert f"command line: static = '/x={directory}'" in str(caught.value)


def test_mounts_that_cannot_be_served(here: Path) -> None:
    (here / "file").touch()
    (here / "a").mkdir()
    for directory, words in (("missing", "No such file or directory"), ("file", "Not a directory")):
        with pytest.raises(ConfigError, match=words):
            check_mounts([StaticMount("/", directory)], "", "here")
    with pytest.raises(ConfigError, match="/ is given twice"):
        check_mounts([StaticMount("/", "a"), StaticMount("/", "a")], "", "here")


def test_name_is_shown_without_its_arguments() -> None:
    assert str(parse_name("a.b:c.d('secret')")) == "a.b:c.d"
    assert str(parse_name("a.b")) == "a.b"
