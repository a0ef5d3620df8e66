"""A Flask application that says where it thinks it is, and who it thinks has asked."""

from __future__ import annotations

from typing import Any
from wsgiref.util import request_uri

from flask import Flask, jsonify, request, url_for

app = Flask(__name__)


@app.route("/", defaults={"path": ""})
@app.route("/<path:path>")
def where(path: str) -> Any:
    """JSON; `environ` holds its texts."""
    return jsonify(
        url=url_for("where", path=path, _external=True),
        uri=request_uri(request.environ),
        client=request.remote_addr,
        is_secure=request.is_secure,
        peer=request.environ["epollwsgi.peer"],
        environ={key: value for key, value in request.environ.items() if isinstance(value, str)},
    )
