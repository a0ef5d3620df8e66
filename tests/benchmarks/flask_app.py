"""Hello by Flask; in a module of its own, so that measuring `apps` does not import Flask."""

from __future__ import annotations

from flask import Flask, Response

from tests.benchmarks.apps import HELLO

app = Flask(__name__)


@app.get("/")
def hello() -> Response:
    """Answer what `apps.hello` answers."""
    return Response(HELLO, mimetype="text/plain")
