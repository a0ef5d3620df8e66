"""Servers that the tests of one module share; what they must not have logged is checked at their end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import Server, ServerFactory


def run_shared(start: ServerFactory, target: str) -> Iterator[Server]:
    server = start(target)
    yield server
    assert "Traceback" not in server.stderr_text()
    assert server.stop() == 0
    assert "ResourceWarning" not in server.stderr_text()


@pytest.fixture(scope="module")
def echo(start_module_server: ServerFactory) -> Iterator[Server]:
    """tests.apps.echo: answers with what it saw."""
    yield from run_shared(start_module_server, "tests.apps.echo:app")


@pytest.fixture(scope="module")
def shapes(start_module_server: ServerFactory) -> Iterator[Server]:
    """tests.apps.shapes: the path chooses what it does."""
    yield from run_shared(start_module_server, "tests.apps.shapes:app")
