"""A Flask application that uses what Flask has: forms, files, cookies, sessions, streams, files, redirects, errors."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import flask

app = flask.Flask(__name__)
app.secret_key = "of the tests"


@app.route("/")
def index() -> str:
    return "index"


@app.route("/form", methods=["POST"])
def form() -> flask.Response:
    files = {
        name: [file.filename, hashlib.sha256(file.stream.read()).hexdigest()]
        for name, file in flask.request.files.items()
    }
    return flask.jsonify(form=flask.request.form.to_dict(flat=False), files=files)


@app.route("/args/<path:path>")
def args(path: str) -> flask.Response:
    return flask.jsonify(path=path, args=flask.request.args.to_dict(flat=False), url=flask.request.url)


@app.route("/json", methods=["POST"])
def json() -> flask.Response:
    return flask.jsonify(flask.request.get_json())


@app.route("/cookies")
def cookies() -> flask.Response:
    flask.session["count"] = flask.session.get("count", 0) + 1
    response = flask.jsonify(cookies=dict(flask.request.cookies), count=flask.session["count"])
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


@app.route("/stream")
def stream() -> flask.Response:
    def lines() -> Iterator[str]:
        for number in range(3):
            yield f"{flask.request.args['word']} {number}\n"

    return flask.Response(flask.stream_with_context(lines()), mimetype="text/plain")


@app.route("/file")
def file() -> flask.Response:
    return flask.send_file(__file__, mimetype="text/plain", conditional=True)


@app.route("/memory")
def memory() -> flask.Response:
    return flask.send_file(io.BytesIO(b"x" * 100_000), mimetype="text/plain", download_name="x")


@app.route("/redirect")
def redirect() -> flask.typing.ResponseReturnValue:
    return flask.redirect(flask.url_for("index"))


@app.route("/error")
def error() -> str:
    raise ValueError("secret of the application")
