"""Fixtures for every test: factories of live servers that end them whatever happens. The work is in support.py."""

from __future__ import annotations

import compileall
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT, ServerFactory

# A shell starts what it puts into the background with INT ignored, and programs inherit that: tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Once, by whoever starts the workers: a server under test writes no bytecode, and would compile all it imports."""
    if not hasattr(config, "workerinput"):
        for name in ("epollwsgi", "tests"):
            compileall.compile_dir(ROOT / name, quiet=2, rx=re.compile(r"/test_\w+\.py$|/benchmarks/"))


def run_factory() -> Iterator[ServerFactory]:
    # Not tmp_path: the path of a unix socket has room for 107 bytes only.
    directory = Path(tempfile.mkdtemp(prefix="ew"))
    factory = ServerFactory(directory)
    try:
        yield factory
    finally:
        factory.close()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def start_server() -> Iterator[ServerFactory]:
    """start_server(target, *options, bind=..., cwd=..., env=...) -> Server; ended with the test."""
    yield from run_factory()


@pytest.fixture(scope="module")
def start_module_server() -> Iterator[ServerFactory]:
    """As start_server, for servers that the tests of a whole module share."""
    yield from run_factory()


@pytest.fixture
def server(start_server: ServerFactory) -> ServerFactory:
    """The same factory under its short name: server(target, *options) -> Server."""
    return start_server
