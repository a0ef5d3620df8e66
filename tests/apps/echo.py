"""Answers every request with what it saw: the environ, and length and SHA-256 of the content, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def describe(environ: WSGIEnvironment) -> bytes:
    """Strings and booleans as they are, tuples as lists, of everything else the name of its type."""
    digest, size = hashlib.sha256(), 0
    while part := environ["wsgi.input"].read(1 << 16):
        digest.update(part)
        size += len(part)
    seen = {
        key: value if isinstance(value, (str, bool, tuple)) else f"<{type(value).__name__}>"
        for key, value in environ.items()
    }
    return json.dumps({"environ": seen, "length": size, "sha256": digest.hexdigest()}).encode("ascii")


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = describe(environ)
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
