"""Flask with Flask-Sock (`app`), and with Flask-SocketIO in threading mode (`socketio_app`): what their users write."""

from __future__ import annotations

import os
import time
from typing import Any

import flask
import flask_sock
import flask_socketio
from simple_websocket import Server as Socket

app = flask.Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": float(os.environ.get("PING_INTERVAL", "25"))}
sock = flask_sock.Sock(app)
ENDS: list[str] = []


@app.get("/plain")
def plain() -> str:
    return "plain"


@app.get("/slow")
def slow() -> str:
    time.sleep(0.1)
    return "slow"


@app.get("/ends")
def ends() -> flask.Response:
    """How the sockets have ended, and forget that."""
    found, ENDS[:] = list(ENDS), []
    return flask.jsonify(found)


@sock.route("/echo")
def echo(ws: Socket) -> None:
    """Each message comes back as it was: text as text, bytes as bytes."""
    try:
        while True:
            ws.send(ws.receive())
    except flask_sock.ConnectionClosed as closed:
        ENDS.append(f"{int(closed.reason)} {closed.message}")
        raise


@sock.route("/count/<int:number>")
def count(ws: Socket, number: int) -> None:
    """Sends so many messages, and returns: the server's side closes."""
    for n in range(number):
        ws.send(str(n))


@sock.route("/closes")
def closes(ws: Socket) -> None:
    ws.close(4001, "the server's reason")


@sock.route("/fails")
def fails(ws: Socket) -> None:
    ws.receive()
    raise RuntimeError("a socket's handler failed")


socketio_app = flask.Flask(__name__ + ".socketio")
socketio = flask_socketio.SocketIO(socketio_app, async_mode="threading", ping_interval=1, ping_timeout=5)


@socketio_app.get("/plain")
def socketio_plain() -> str:
    return "plain"


@socketio.on("ask")
def on_ask(data: Any) -> Any:
    """Answers the sender by the acknowledgement."""
    return {"echo": data, "transport": socketio.server.transport(flask.request.sid)}  # type: ignore[attr-defined]


@socketio.on("say")
def on_say(data: Any) -> None:
    """Tells everybody."""
    flask_socketio.emit("said", data, broadcast=True)


@socketio.on("leave")
def on_leave() -> None:
    """The server's side ends it."""
    flask_socketio.disconnect()
