"""Requests to the examples, by werkzeug or over a socket, with one kind of reply. Called by test_examples*.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from werkzeug.test import Client as WerkzeugClient

from examples.app import TOUR, Stop, app
from tests.support import Client, Server

STOPS = [stop for stops in TOUR.values() for stop in stops]


@dataclass
class Reply:
    """A response, whichever way it came."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str:
        """The value of a field; '' if there is none."""
        return next((value for key, value in self.fields if key.lower() == name.lower()), "")

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def cookies(self) -> dict[str, str]:
        """What Set-Cookie sets, without attributes."""
        lines = [value for key, value in self.fields if key.lower() == "set-cookie"]
        return dict(line.partition(";")[0].split("=", 1) for line in lines)


Ask = Callable[..., Reply]


def ask_wsgi(application: object, method: str, target: str, body: bytes = b"", **fields: str) -> Reply:
    """One request to an application object, through werkzeug's client."""
    client = WerkzeugClient(application, use_cookies=False)  # type: ignore[arg-type]
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    response = client.open(target, method=method, data=body, headers=headers)
    try:
        return Reply(response.status_code, list(response.headers.items()), response.data)
    finally:
        response.close()


def build_request(method: str, target: str, body: bytes = b"", **fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    lines += [f"Content-Length: {len(body)}"] if body or method in ("POST", "PUT") else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask_socket(server: Server, method: str, target: str, body: bytes = b"", **fields: str) -> Reply:
    """The same over a connection of its own."""
    with Client(server.address) as client:
        response = client.request(build_request(method, target, body, **fields))
    return Reply(response.status, response.fields, response.body)


def url_of(stop: Stop) -> str:
    with app.test_request_context():
        values: dict[str, Any] = dict(stop.values)
        return app.url_for(stop.endpoint, **values)
