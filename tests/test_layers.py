"""The house: which module stands in which layer, and that each imports only from layers below its own.

LAYERS is the list that README.md draws (`python -m tests.readme_parts`). Modules of later layers that do not exist yet
are not listed; a module that is listed and missing fails, as does one that exists and is not listed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "epollwsgi"
MOST_LINES = 400

LAYERS: tuple[tuple[int, tuple[str, ...], str], ...] = (
    (0, ("errors", "inspection", "logs/files"), "every exception; what applications look like; opening log files"),
    (
        1,
        (
            *("http/grammar", "http/dates", "config/values", "spool", "file_wrapper", "pagecache", "helper"),
            *("config/lines", "config/differences", "config/destinations", "logs/writer", "logs/sink", "logs/text"),
            "logs/reopening",
            *("baton", "seats", "states", "scoreboard", "codings", "commands/show", "commands/table"),
        ),
        "patterns beside their ABNF, dates, converters, codings, spools, states, figures of all workers",
    ),
    (
        2,
        (
            *("http/fields", "http/response", "http/conditional", "http/negotiation", "outbox"),
            *("config/settings", "config/toml_file", "config/gunicorn_names", "config/python_file", "logs/syslog"),
        ),
        "fields, responses, conditions and preferences as values; the one table of settings; what waits to be sent",
    ),
    (
        3,
        (
            *("http/head", "http/forwarded", "config/load", "importer", "logs/error_log", "logs/python_logging"),
            *("static/paths", "static/media_types", "static/beneath"),
        ),
        "heads of requests; sources of settings, module:attr, logs; from a URL to a file",
    ),
    (
        4,
        (
            *("http/body", "http/memory", "http/refused", "static/heads", "static/rules", "listener", "loop"),
            *("routes", "sink", "logs/format", "logs/exclude", "config/show", "command_help"),
        ),
        "contents; `_headers` and `_redirects`; listening sockets; epoll and deadlines; what is learned of routes",
    ),
    (
        5,
        (
            *("static/cache", "static/replies", "answer", "config/checks"),
            *("logs/atoms", "logs/entry", "logs/presets", "logs/statsd"),
        ),
        "open files; what the application gives to response",
    ),
    (
        6,
        (
            "static/siblings",
            "static/fresh",
            "static/mounts",
            "static/listing",
            "wsgi",
            "command_line",
            "logs/access_log",
        ),
        "compressed copies, roots, listings; one call of the application",
    ),
    (
        7,
        ("static/shelf", "crew", "upgrades", "body", "logs/opening", "logs/standin", "logs/notes"),
        "the threads of a worker; collecting a request's content; opening the logs",
    ),
    (8, ("static/variants", "static/lookup", "leader"), "file of a path; which thread calls the application"),
    (9, ("static/handler",), "file to reply"),
    (9, ("spread",), "which worker takes a new connection"),
    (10, ("service",), "what all connections of a worker share"),
    (11, ("output",), "the sending half of a connection"),
    (12, ("dispatch",), "who answers a request"),
    (13, ("connection",), "one socket: read, dispatch, send, close"),
    (14, ("acceptor",), "accepts connections"),
    (
        15,
        (
            *(
                "process/signals",
                "process/cpus",
                "process/title",
                "process/ending",
                "process/systemd",
                "process/pidfile",
            ),
            *("process/daemon", "process/privileges", "process/origin", "process/probe", "process/broken_page"),
            *("process/hooks", "process/hook_objects", "process/engines", "process/sources"),
        ),
        "signals; pid file, user, daemon, service manager; hooks; what --reload watches",
    ),
    (16, ("process/request_hooks", "process/reloader", "process/fleet", "process/upgrade"), "who starts, who ends"),
    (17, ("process/station", "process/children"), "what a worker reports; the processes of a master"),
    (18, ("process/worker", "process/turnover"), "a worker from its first connection to its last; reload, upgrade"),
    (19, ("process/boot", "process/background"), "the life of a worker process; a worker on a thread"),
    (20, ("process/master",), "keeps the workers alive"),
    (21, ("process/start",), "makes a server of settings"),
    (22, ("commands/siblings", "commands/serving", "commands/tree"), "what sub-commands know of a site"),
    (23, ("commands/copies", "commands/files", "commands/rules", "setting_help"), "copies to write, mistakes to find"),
    (24, ("commands/check", "commands/compress", "commands/explain", "completion"), "the sub-commands"),
    (25, ("cli",), "the command"),
    (26, ("program", "__main__"), "a program that serves; python -m epollwsgi"),
    (27, ("__init__", "testing"), "serve(), the version; a server within a test"),
    (28, ("pytest_plugin",), "fixtures of pytest"),
)
LAYER_OF = {module: number for number, modules, _ in LAYERS for module in modules}
PURE = ("http/", "static/paths")
IMPURE = ("socket", "select", "time", "os", "asyncio", "threading", "tempfile")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


MODULES = [(name_of(path), path) for path in sorted(PACKAGE.rglob("*.py"))]
each_module = pytest.mark.parametrize(("module", "path"), MODULES, ids=[name for name, _ in MODULES])


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Each module and name imported anywhere in a file, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: line {node.lineno}: relative imports hide the layer"
            yield from ((node.module or "", alias.name) for alias in node.names)


def layer_of_import(module: str, name: str) -> tuple[str, int] | None:
    """The module of ours that an import means, and its layer; None for any other."""
    if module.partition(".")[0] != "epollwsgi":
        return None
    if (module, name) == ("epollwsgi", "__version__"):
        return None  # set before anything else is imported, and it pulls in nothing
    inner = module.partition(".")[2].replace(".", "/")
    for found in (f"{inner}/{name}".strip("/"), inner or "__init__"):
        if found in LAYER_OF:
            return found, LAYER_OF[found]
    raise AssertionError(f"{module} {name}: no layer is known for it")


def test_each_module_has_one_layer() -> None:
    listed = [module for _, names, _ in LAYERS for module in names]
    assert len(listed) == len(set(listed))
    existing = {name for name, _ in MODULES if not name.endswith("/__init__")}
    assert existing - set(listed) == set(), "these modules stand in no layer"
    assert set(listed) - existing == set(), "these modules do not exist"


@each_module
def test_imports_come_from_lower_layers_only(module: str, path: Path) -> None:
    if module.endswith("/__init__"):
        assert list(imports(path)) == [], "a sub-package's __init__ holds a docstring and no imports"
        return
    own = LAYER_OF[module]
    found = {target for pair in imports(path) if (target := layer_of_import(*pair))}
    wrong = [f"{name} (layer {layer})" for name, layer in sorted(found) if layer >= own]
    assert wrong == [], f"{module} stands in layer {own}"


@each_module
def test_modules_are_small_and_say_what_they_are_for(module: str, path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= MOST_LINES
    assert ast.get_docstring(ast.parse(text)), "no docstring"


def test_pure_modules_know_no_socket_and_no_clock() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES
        if module.startswith(PURE)
        for name, _ in imports(path)
        if name.partition(".")[0] in IMPURE or name.startswith("epollwsgi.config")
    ]
    assert wrong == []


def test_the_rule_finds_what_it_forbids(tmp_path: Path) -> None:
    """The walk over imports sees those in functions and under TYPE_CHECKING."""
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from epollwsgi.process.worker import Worker\n"
        "def f():\n    import epollwsgi.cli\n    from epollwsgi.config import values as v\n"
    )
    found = {layer_of_import(*pair) for pair in imports(path)}
    assert found == {
        None,
        ("process/worker", LAYER_OF["process/worker"]),
        ("cli", LAYER_OF["cli"]),
        ("config/values", 1),
    }
