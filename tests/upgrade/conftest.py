"""The server with the applications of `apps`, shared by a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import Server, ServerFactory


@pytest.fixture(scope="module")
def server(start_module_server: ServerFactory) -> Iterator[Server]:
    one = start_module_server("tests.upgrade.apps:app", "--log-level", "debug")
    yield one
    assert one.is_running()
    assert one.stop() == 0
