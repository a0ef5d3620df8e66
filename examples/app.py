"""The example application: a Flask application to click through.

    epollwsgi examples.app:app          # then open http://127.0.0.1:8000/app

It knows Flask and nothing of epollwsgi, so it runs on any WSGI server. TOUR lists what there is to see: the home page
is made from it, and a test holds it against the routes. Whatever costs time or space here has a bound.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, NamedTuple

from flask import Flask, Response, abort, jsonify, redirect, render_template, request, send_file, session, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

PIECE_SIZE = 64 * 1024
ECHO_SIZE_MAX = 1024 * 1024
ZEROS_MIB_MAX = 256
EVENT_COUNT = 8
GREETING_LENGTH_MAX = 60

app = Flask(__name__, static_folder="static", static_url_path="/app/static")
app.config.update(
    # Every worker must read the sessions of the others, so the key may not be made up at the start of each. The
    # session holds nothing but a number of visits; an application with users takes its key from a safe place.
    SECRET_KEY=os.environ.get("EXAMPLES_SECRET_KEY", "an example, not a secret"),
    SESSION_COOKIE_SAMESITE="Lax",
    TEMPLATES_AUTO_RELOAD=False,
)


class Stop(NamedTuple):
    """One thing to see: the endpoint with its query, what it is called, what it shows, the same from a shell."""

    endpoint: str
    values: dict[str, int | float | str]
    title: str
    text: str
    command: str


TOUR: dict[str, tuple[Stop, ...]] = {
    "What you send": (
        Stop(
            "form",
            {},
            "Form and file upload",
            "Choose files of any size. They are read in pieces; size and SHA-256 come back.",
            "curl -F note=hello -F file=@README.md {url}",
        ),
        Stop(
            "api_echo",
            {},
            "JSON echo",
            "POST a JSON value and get it back with what arrived around it.",
            "curl -H 'Content-Type: application/json' -d '{{\"answer\": 42}}' {url}",
        ),
        Stop(
            "api_digest",
            {},
            "Digest of a raw body",
            "PUT anything, announced or chunked, without a form around it.",
            "curl -T README.md {url}",
        ),
        Stop(
            "cookies",
            {},
            "Cookies and a session",
            "A signed session counts your visits; a plain cookie keeps a greeting.",
            "curl -c jar -b jar {url}",
        ),
        Stop(
            "show_environ",
            {},
            "The environ of your request",
            "Everything the server told the application about the request, key by key.",
            "curl {url}",
        ),
    ),
    "What comes back": (
        Stop("api_time", {}, "JSON", "The time here, as a small JSON object.", "curl {url}"),
        Stop(
            "stream",
            {},
            "A streamed response",
            "Twenty lines from a generator within a second, each sent when it is made.",
            "curl -N {url}",
        ),
        Stop(
            "events",
            {},
            "Server-sent events",
            "A page that shows eight events as they arrive, and then the end of the feed.",
            "curl -N {url}/feed",
        ),
        Stop(
            "download_source",
            {},
            "A file by send_file",
            "The source of this application, with validators and ranges.",
            "curl -r 0-99 {url}",
        ),
        Stop(
            "download_zeros",
            {"mib": 16},
            "A large file by send_file",
            "Zeros from a sparse file, 1 to 256 MiB; a server may send them without reading them.",
            "curl -o /dev/null '{url}'",
        ),
    ),
    "When it is slow or broken": (
        Stop(
            "slow",
            {"seconds": 1},
            "A slow route",
            "Sleeps for up to ten seconds. Try another page in a second tab meanwhile: it does not wait.",
            "curl '{url}'",
        ),
        Stop(
            "error",
            {},
            "An error",
            "Raises an exception: you get a 500, the server's log gets the traceback.",
            "curl -i {url}",
        ),
        Stop(
            "error",
            {"when": "midway"},
            "An error half-way",
            "Raises after the first line was sent: the client must be able to tell that something is missing.",
            "curl -i '{url}'",
        ),
    ),
}


# --- pages ------------------------------------------------------------------------------------------------------------


@app.get("/")
def root() -> BaseResponse:
    """Only reached where the site in html/ is not served beside the application."""
    return redirect(url_for("home"))


@app.get("/app")
def home() -> str:
    return render_template("home.html", tour=TOUR, software=request.environ.get("SERVER_SOFTWARE", "unknown"))


class Upload(NamedTuple):
    """What a form's file turned out to be."""

    name: str
    media_type: str
    size: int
    sha256: str


@app.route("/app/form", methods=["GET", "POST"])
def form() -> str:
    """A form; after a POST, the same page with what was received."""
    if request.method == "GET":
        return render_template("form.html", fields=[], uploads=None)
    uploads = [
        Upload(file.filename or "", file.mimetype, *digest_pieces(file.stream))
        for file in request.files.getlist("file")
        if file.filename
    ]
    return render_template("form.html", fields=sorted(request.form.items()), uploads=uploads)


@app.route("/app/cookies", methods=["GET", "POST"])
def cookies() -> str | BaseResponse:
    """Counts visits in the session. A POST sets the plain cookie, or deletes both."""
    if request.method == "GET":
        session["visits"] = session.get("visits", 0) + 1
        return render_template(
            "cookies.html",
            visits=session["visits"],
            greeting=request.cookies.get("greeting", ""),
            greeting_length_max=GREETING_LENGTH_MAX,
        )
    response = redirect(url_for("cookies"), 303)
    if "forget" in request.form:
        session.clear()
        response.delete_cookie("greeting")
    else:
        greeting = request.form.get("greeting", "")[:GREETING_LENGTH_MAX]
        response.set_cookie("greeting", greeting, max_age=86_400, httponly=True, samesite="Lax")
    return response


@app.get("/app/environ")
def show_environ() -> str:
    """The environ as a table, without what some servers copy into it from the environment of their process."""
    rows = [
        (key, type(value).__name__, str(value) if isinstance(value, str | int | tuple) else "")
        for key, value in sorted(request.environ.items())
        if key not in os.environ or os.environ[key] != value
    ]
    return render_template("environ.html", rows=rows)


# --- streams and files ------------------------------------------------------------------------------------------------


@app.get("/app/stream")
def stream() -> Response:
    """Lines from a generator: ?count=20&pause=0.05 (seconds)."""
    count = int(read_number("count", 20, 1, 50))
    pause_s = read_number("pause", 0.05, 0, 0.2)

    def lines() -> Iterator[str]:
        started_at = time.monotonic()
        for number in range(1, count + 1):
            yield f"line {number} of {count}, {time.monotonic() - started_at:.2f} s after the first\n"
            if number < count:
                time.sleep(pause_s)

    # Without nosniff a browser may hold plain text back until it has seen enough to guess its type.
    return Response(lines(), mimetype="text/plain", headers={"X-Content-Type-Options": "nosniff"})


@app.get("/app/events")
def events() -> str:
    return render_template("events.html", count=EVENT_COUNT)


@app.get("/app/events/feed")
def events_feed() -> Response:
    """A finite text/event-stream: ?pause=0.125 (seconds). It goes on after Last-Event-ID.

    Like every stream of WSGI it keeps a thread of the server while it lasts.
    """
    pause_s = read_number("pause", 0.125, 0, 1)
    last = request.headers.get("Last-Event-ID", "")
    first = int(last) + 1 if last.isdecimal() and len(last) < 5 else 1
    if first > EVENT_COUNT:
        return Response(status=204)  # tells an EventSource not to connect again

    def feed() -> Iterator[str]:
        yield "retry: 1000\n\n"
        for number in range(first, EVENT_COUNT + 1):
            data = json.dumps({"number": number, "of": EVENT_COUNT, "time": datetime.now(UTC).isoformat()})
            yield f"id: {number}\ndata: {data}\n\n"
            if number < EVENT_COUNT:
                time.sleep(pause_s)
        yield "event: end\ndata: {}\n\n"

    return Response(feed(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


@app.get("/app/download/source")
def download_source() -> Response:
    return send_file(__file__, mimetype="text/x-python", as_attachment=True, download_name="app.py")


@app.get("/app/download/zeros")
def download_zeros() -> Response:
    """A file of ?mib=16 mebibytes, made of a hole: it takes no room on the disk."""
    size = int(read_number("mib", 16, 1, ZEROS_MIB_MAX)) * 1024 * 1024
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the response closes it, after the last byte
    file.truncate(size)
    response = send_file(file, mimetype="application/octet-stream", as_attachment=True, download_name="zeros.bin")
    response.content_length = size
    return response


# --- JSON -------------------------------------------------------------------------------------------------------------


@app.get("/api/time")
def api_time() -> Response:
    now = datetime.now(UTC)
    return jsonify(utc=now.isoformat(), unix=now.timestamp(), python=platform.python_version())


@app.post("/api/echo")
def api_echo() -> Response:
    if (request.content_length or 0) > ECHO_SIZE_MAX:
        abort(413, f"at most {ECHO_SIZE_MAX} bytes")
    value = request.get_json()
    return jsonify(json=value, content_type=request.content_type, size=request.content_length, args=request.args)


@app.route("/api/digest", methods=["POST", "PUT"])
def api_digest() -> Response:
    size, sha256 = digest_pieces(request.stream)
    return jsonify(size=size, sha256=sha256)


# --- slow and broken --------------------------------------------------------------------------------------------------


@app.get("/slow")
def slow() -> str:
    """Sleeps ?seconds=1, at most 10; on a server with threads the other routes answer meanwhile."""
    seconds = read_number("seconds", 1, 0, 10)
    time.sleep(seconds)
    return render_template("slow.html", seconds=seconds)


@app.get("/error")
def error() -> Response:
    """Raises before the response starts, or with ?when=midway after its first line."""
    if request.args.get("when") != "midway":
        raise RuntimeError("the example application was asked to fail")

    def lines() -> Iterator[str]:
        yield "one line of two\n"
        raise RuntimeError("the example application was asked to fail half-way")

    return Response(lines(), mimetype="text/plain", headers={"X-Content-Type-Options": "nosniff"})


@app.errorhandler(HTTPException)
def show_http_error(error: HTTPException) -> BaseResponse:
    """Every error as a page, or as JSON below /api/; the fields of the error (Allow, say) stay."""
    response = BaseResponse(status=error.code, headers=error.get_headers())
    if request.path.startswith("/api/"):
        response.content_type = "application/json"
        response.data = json.dumps({"status": error.code, "error": error.description})
    else:
        response.data = render_template("error.html", error=error)
    return response


# --- shared -----------------------------------------------------------------------------------------------------------


def read_number(name: str, default: float, low: float, high: float) -> float:
    """The query parameter `name` as a number from low to high; anything else is a 400."""
    text = request.args.get(name, "")
    try:
        number = float(text) if text else default
    except ValueError:
        number = math.nan
    if not low <= number <= high:  # not a number is never between the two
        abort(400, f"{name} must be a number from {low:g} to {high:g}.")
    return number


def digest_pieces(stream: IO[bytes]) -> tuple[int, str]:
    """Size and SHA-256 of what is left in a stream; memory holds one piece of it."""
    digest = hashlib.sha256()
    size = 0
    while piece := stream.read(PIECE_SIZE):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
