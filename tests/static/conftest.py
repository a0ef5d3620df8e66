"""Fixtures: the tree of support.py, served alone and beside an application."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.static.support import Ticking, build_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def alone(site: Path) -> Ticking:
    return Ticking(("/", site))


@pytest.fixture(scope="module")
def beside(site: Path) -> Ticking:
    return Ticking(("/", site), alone=False)
