"""The fixture of a master with workers and an application that may be broken; the work is in fleet.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.fleet import FleetFactory
from tests.support import ServerFactory


@pytest.fixture
def start_fleet(start_server: ServerFactory, tmp_path: Path) -> Iterator[FleetFactory]:
    """start_fleet(*options, workers=..., version=...) -> Fleet; ended with the test, with all its processes."""
    factory = FleetFactory(start_server, tmp_path)
    try:
        yield factory
    finally:
        factory.close()
