"""Tests of the shop over a socket, with the fixture that epollwsgi brings for pytest.

    python -m pytest

`epollwsgi_server` makes servers on threads of the test's own process and closes them at its end, so the shop that is
served can be made for the test.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from shop import create_app

if TYPE_CHECKING:
    from epollwsgi.pytest_plugin import ServerFactory


def test_price(epollwsgi_server: ServerFactory) -> None:
    server = epollwsgi_server(create_app({"tea": 199}))
    with urlopen(f"{server.url}/items/tea") as response:
        item = json.load(response)
    assert item == {"name": "tea", "cents": 199, "at": f"{server.url}/items/tea"}


def test_what_is_not_sold(epollwsgi_server: ServerFactory) -> None:
    server = epollwsgi_server(create_app())
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{server.url}/items/gold")
    assert "GET /items/gold" in server.access_log


def test_files_come_from_the_server(epollwsgi_server: ServerFactory) -> None:
    """As epollwsgi.toml has it: the server sends them, with an ETag by content, and the application is not asked."""
    server = epollwsgi_server(create_app(), static={"/static": "static"})
    with urlopen(f"{server.url}/static/shop.css") as response:
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert b"max-width" in response.read()
