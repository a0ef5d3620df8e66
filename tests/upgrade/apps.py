"""Applications for the tests of early hints (`hints`), of gunicorn.socket (`sockets`) and of threads (`threads`).

What each path does is said at its function. Nothing of a WebSocket library: bytes on a socket are all there is here.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]

PLAIN = [("Content-Type", "text/plain")]
PRELOAD = ("Link", "</style.css>; rel=preload; as=style")
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
BIG_COUNT = 60
BIG_VALUE = "x" * 8000
# What a call has left to say when its connection is handed over already; read by GET /notes.
NOTES: list[str] = []
HELD: list[socket.socket] = []


def answer(start: Start, body: bytes, status: str = "200 OK") -> list[bytes]:
    start(status, [*PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def notes(environ: Environ, start: Start) -> list[bytes]:
    return answer(start, json.dumps(NOTES).encode())


# --- early hints ------------------------------------------------------------------------------------------------------


def one_hint(environ: Environ, start: Start) -> list[bytes]:
    environ["wsgi.early_hints"]([PRELOAD])
    return answer(start, b"one")


def several_hints(environ: Environ, start: Start) -> list[bytes]:
    """As many as the query says, each with its number; the last after start_response, which has not sent anything."""
    count = int(environ["QUERY_STRING"])
    for number in range(count):
        environ["wsgi.early_hints"]([PRELOAD, ("X-Number", str(number))])
    start("200 OK", PLAIN)
    environ["wsgi.early_hints"]([("X-Number", str(count))])
    return [b"several"]


def no_fields(environ: Environ, start: Start) -> list[bytes]:
    environ["wsgi.early_hints"]([])
    return answer(start, b"none")


def hop_by_hop(environ: Environ, start: Start) -> list[bytes]:
    fields = [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("Content-Length", "7"), PRELOAD]
    environ["wsgi.early_hints"](fields)
    return answer(start, b"kept")


WRONG_HINTS: dict[str, Any] = {
    "line break in a value": [("Link", "a\r\nX-Injected: 1")],
    "line break in a name": [("Link\r\nX-Injected", "a")],
    "name of no token": [("a b", "c")],
    "value of bytes": [("Link", b"a")],
    "beyond Latin-1": [("Link", "\u2603")],
    "no pair": ["Link"],
    "None": None,
}


def wrong_hints(environ: Environ, start: Start) -> list[bytes]:
    """Says what each wrong argument raises; none may reach the wire."""
    raised = {}
    for name, fields in WRONG_HINTS.items():
        try:
            environ["wsgi.early_hints"](fields)
            raised[name] = ""
        except Exception as error:
            raised[name] = type(error).__name__
    return answer(start, json.dumps(raised).encode())


def uncaught_hints(environ: Environ, start: Start) -> list[bytes]:
    environ["wsgi.early_hints"](WRONG_HINTS["line break in a value"])
    return answer(start, b"never")


def fails_after_hints(environ: Environ, start: Start) -> list[bytes]:
    environ["wsgi.early_hints"]([PRELOAD])
    raise RuntimeError("after the hints")


def late_hints(environ: Environ, start: Start) -> Iterator[bytes]:
    """Hints behind the head, between the items, behind the last: none of them may be sent."""
    hints = environ["wsgi.early_hints"]
    write = start("200 OK", PLAIN)
    if environ["QUERY_STRING"] == "write":
        write(b"written ")
        hints([("X-Late", "write")])
    yield b"first "
    hints([("X-Late", "first")])
    yield b"second"
    hints([("X-Late", "second")])


def late_whole(environ: Environ, start: Start) -> Iterator[bytes]:
    """The same behind content that is the whole of what Content-Length has announced."""
    answer(start, b"whole")
    yield b"whole"
    environ["wsgi.early_hints"]([("X-Late", "whole")])


def gated_hints(environ: Environ, start: Start) -> list[bytes]:
    """Returns once the file named by the query is there: the hints are seen before."""
    environ["wsgi.early_hints"]([PRELOAD])
    wait_for(lambda: os.path.exists(environ["QUERY_STRING"]))
    return answer(start, b"gated")


def big_hints(environ: Environ, start: Start) -> list[bytes]:
    """More than a unix socket takes at once, and a response right behind."""
    environ["wsgi.early_hints"]([("Link", BIG_VALUE)] * BIG_COUNT)
    return answer(start, b"behind")


def has_hints(environ: Environ, start: Start) -> list[bytes]:
    return answer(start, repr("wsgi.early_hints" in environ).encode())


def quick(environ: Environ, start: Start) -> list[bytes]:
    return answer(start, b"quick")


# --- the socket -------------------------------------------------------------------------------------------------------


def show(environ: Environ, start: Start) -> list[bytes]:
    """An ordinary answer that says whether there was a socket, and what it was like."""
    sock = environ.get("gunicorn.socket")
    seen: dict[str, Any] = {"socket": sock is not None, "input": environ["wsgi.input"].read().decode()}
    if sock is not None:
        seen["blocking"] = not fcntl.fcntl(sock.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
        seen["timeout"] = sock.gettimeout()
        seen["peer"] = sock.getpeername()[1] if isinstance(sock.getpeername(), tuple) else 0
        seen["fd"] = sock.fileno()
        seen["epolls"] = epolls_that_watch(sock)
    return answer(start, json.dumps(seen).encode())


def epolls_that_watch(sock: socket.socket) -> int:
    """How many epolls of this process hold the socket's descriptor. proc(5), fdinfo."""
    count = 0
    for fd in os.listdir("/proc/self/fdinfo"):
        try:
            with open(f"/proc/self/fdinfo/{fd}") as file:
                lines = [line.split() for line in file if line.startswith("tfd:")]
        except OSError:
            continue
        count += any(int(words[1]) == sock.fileno() for words in lines)
    return count


def echo(environ: Environ, start: Start) -> list[bytes]:
    """Gives back what comes, until the end of input; then the socket was taken."""
    sock: socket.socket = environ["gunicorn.socket"]
    sock.sendall(ACCEPTED)
    while data := sock.recv(65536):
        sock.sendall(data)
    NOTES.append(f"end {threading.current_thread() is threading.main_thread()}")
    raise StopIteration


def taken_in_iterator(environ: Environ, start: Start) -> Iterator[bytes]:
    """StopIteration from the iterable is its end, not the sign: an ordinary response follows."""
    answer(start, b"")
    return iter(())


def closes_early(environ: Environ, start: Start) -> list[bytes]:
    """Closes the socket itself, and stays until another connection has got its number."""
    sock: socket.socket = environ["gunicorn.socket"]
    number = sock.fileno()
    sock.sendall(ACCEPTED)
    sock.recv(65536)
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()
    wait_for(lambda: is_open(number))
    NOTES.append("reused")
    if environ["QUERY_STRING"] == "responds":
        return answer(start, b"too late")
    raise StopIteration


def closes_late(environ: Environ, start: Start) -> list[bytes]:
    """Keeps the socket object; GET /close closes it, long after the connection has ended."""
    HELD.append(environ["gunicorn.socket"])
    HELD[-1].sendall(ACCEPTED)
    raise StopIteration


def close_held(environ: Environ, start: Start) -> list[bytes]:
    while HELD:
        HELD.pop().close()
    return answer(start, b"closed")


def refuses(environ: Environ, start: Start) -> list[bytes]:
    return answer(start, b"not here", "426 Upgrade Required")


def fails(environ: Environ, start: Start) -> list[bytes]:
    raise RuntimeError("asked to fail")


def stops_after_head(environ: Environ, start: Start) -> list[bytes]:
    """StopIteration when a part of an ordinary response has been sent: a fault like any other."""
    start("200 OK", PLAIN)(b"part")
    raise StopIteration


def streams(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    for number in range(50):
        yield b"%d," % number


def forgets(environ: Environ, start: Start) -> list[bytes]:
    """Empties environ, as an application may; the socket goes on."""
    sock: socket.socket = environ["gunicorn.socket"]
    environ.clear()
    sock.sendall(ACCEPTED)
    while data := sock.recv(65536):
        sock.sendall(data)
    raise StopIteration


def says_goodbye(environ: Environ, start: Start) -> list[bytes]:
    """At the end of input it still has a word for the client."""
    sock: socket.socket = environ["gunicorn.socket"]
    sock.sendall(ACCEPTED)
    sock.recv(65536)
    sock.sendall(b"goodbye")
    raise StopIteration


def hints_on_socket(environ: Environ, start: Start) -> list[bytes]:
    environ["wsgi.early_hints"]([PRELOAD])
    return echo(environ, start)


# --- threads ----------------------------------------------------------------------------------------------------------

INSIDE: dict[int, int] = {}
LOCK = threading.Lock()


def inside(environ: Environ, start: Start) -> list[bytes]:
    """Stays for the milliseconds of the query; says how many calls were inside with it, and on which thread it ran."""
    mine = threading.get_ident()
    with LOCK:
        INSIDE[mine] = 1
        INSIDE.update({ident: max(most, len(INSIDE)) for ident, most in INSIDE.items()})
    time.sleep(int(environ["QUERY_STRING"]) / 1000)
    with LOCK:
        most = INSIDE.pop(mine)
    seen = {
        "most": most,
        "is_main": threading.current_thread() is threading.main_thread(),
        "multithread": environ["wsgi.multithread"],
        "multiprocess": environ["wsgi.multiprocess"],
        "run_once": environ["wsgi.run_once"],
    }
    return answer(start, json.dumps(seen).encode())


# --- all of them ------------------------------------------------------------------------------------------------------

PATHS: dict[str, Callable[[Environ, Start], Any]] = {
    "/" + shape.__name__: shape
    for shape in (
        *(notes, one_hint, several_hints, no_fields, hop_by_hop, wrong_hints, uncaught_hints, fails_after_hints),
        *(late_hints, late_whole, gated_hints, big_hints, has_hints, quick),
        *(show, echo, taken_in_iterator, closes_early, closes_late, close_held, refuses, fails, stops_after_head),
        *(streams, forgets, says_goodbye, hints_on_socket, inside),
    )
}


def app(environ: Environ, start: Start) -> Any:
    return PATHS[environ["PATH_INFO"]](environ, start)


# --- helpers ----------------------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Raises TimeoutError."""
    end_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_at:
            raise TimeoutError
        time.sleep(0.005)


def is_open(fd: int) -> bool:
    """Whether a descriptor number is in use in this process, by a connected socket."""
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            return sock.getpeername() is not None and not select.select([sock], [], [], 0)[2]
    except OSError:
        return False
