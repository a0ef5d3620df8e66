"""A chat over WebSockets, with Flask-Sock: whoever has the page open reads what anybody writes.

    epollwsgi examples.chat             # then open http://127.0.0.1:8000/chat in two windows

Needs flask-sock, which the extra `examples` brings. Each visitor's socket has a thread of its own as long as the page
is open (the setting upgrade_threads bounds their number); all other requests are served beside them. Knows Flask and
nothing of epollwsgi. Whatever a visitor sends has a bound.
"""

from __future__ import annotations

import json
import socket
import struct
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock
from urllib.parse import urlsplit

try:
    from flask_sock import ConnectionClosed, Sock
except ImportError as error:
    raise ImportError("examples.chat needs flask-sock: pip install flask-sock") from error

from flask import Flask, abort, redirect, render_template, request, url_for
from simple_websocket import Server as Socket
from werkzeug.wrappers import Response

NAME_LENGTH_MAX = 30
TEXT_LENGTH_MAX = 500
# A visitor that takes nothing for so long is let go: the others wait meanwhile.
SEND_TIMEOUT_S = 2
# Asked so often whether they are still there, visitors that have gone without a word are noticed.
PING_INTERVAL_S = 25

app = Flask(__name__, static_url_path="/chat/static")
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": PING_INTERVAL_S, "max_message_size": 4096}
sock = Sock(app)


class Room:
    """Who listens. Each visitor's own thread calls it, so that a lock keeps the set whole."""

    def __init__(self) -> None:
        self._sockets: set[Socket] = set()
        self._lock = Lock()

    def enter(self, ws: Socket) -> int:
        """How many are there now."""
        with self._lock:
            self._sockets.add(ws)
            return len(self._sockets)

    def leave(self, ws: Socket) -> int:
        """How many are left."""
        with self._lock:
            self._sockets.discard(ws)
            return len(self._sockets)

    def tell(self, **message: str | int) -> None:
        """Send a message to everybody. One at a time: two threads must not write into one socket at once."""
        text = json.dumps(message | {"time": datetime.now(UTC).isoformat(timespec="seconds")})
        with self._lock:
            for ws in self._sockets:
                try:
                    ws.send(text)
                except ConnectionClosed:
                    pass  # its own thread is about to leave
                except OSError:
                    with suppress(OSError):
                        ws.sock.shutdown(socket.SHUT_RDWR)


room = Room()


@app.get("/")
def root() -> Response:
    """Where no site is served beside it."""
    return redirect(url_for("page"))


@app.get("/chat")
def page() -> str:
    return render_template("chat.html", name_length_max=NAME_LENGTH_MAX, text_length_max=TEXT_LENGTH_MAX)


@app.before_request
def refuse_other_sites() -> None:
    """A page of another site could open the socket too, in the name of its reader: browsers say whose page it is."""
    if request.origin and urlsplit(request.origin).netloc != request.host:
        abort(403)


@sock.route("/chat/socket")
def talk(ws: Socket) -> None:
    """One visitor, from the opening of the page to its end. A message is {"name": ..., "text": ...}."""
    ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_S, 0))
    room.tell(visitors=room.enter(ws))
    try:
        while True:
            message = read_message(ws.receive())
            if message is None:
                ws.close(1007, 'a message must be {"name": ..., "text": ...}')
                return
            name, text = message
            if text:
                room.tell(name=name or "somebody", text=text)
    finally:
        room.tell(visitors=room.leave(ws))


def read_message(data: str | bytes) -> tuple[str, str] | None:
    """Name and text, cut to their bounds; None where data is no message."""
    try:
        message = json.loads(data)
        name, text = message["name"], message["text"]
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(name, str) or not isinstance(text, str):
        return None
    return name.strip()[:NAME_LENGTH_MAX], text.strip()[:TEXT_LENGTH_MAX]


@app.after_request
def keep_to_this_site(response: Response) -> Response:
    """The page takes its script and style from here, and talks to nobody else."""
    response.headers["Content-Security-Policy"] = "default-src 'self'"
    return response
