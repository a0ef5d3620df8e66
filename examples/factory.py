"""An application factory: a function that makes the application when the server starts.

    epollwsgi 'examples.factory:create_app()'
    epollwsgi "examples.factory:create_app('Ada')"      # then open http://127.0.0.1:8000/hello

The arguments are literals: text, numbers, True, False, None, lists and dicts of them. Knows Flask and nothing of
epollwsgi.
"""

from __future__ import annotations

from flask import Flask, Response, jsonify


def create_app(name: str = "world") -> Flask:
    """A new application that greets `name`. Two calls give two applications that share nothing."""
    app = Flask(__name__, static_folder=None)

    @app.get("/hello")
    def hello() -> Response:
        return Response(f"Hello, {name}!\n", mimetype="text/plain")

    @app.get("/api/name")
    def api_name() -> Response:
        return jsonify(name=name)

    return app
