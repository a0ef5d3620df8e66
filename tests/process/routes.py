"""The application that the tests of the master serve: routes that wait, die, grow or fork, and what each must answer.

A test writes a small module around `make_app`, with a version of its own, and breaks or mends it (`fleet`).
/NAME/ARGUMENT runs NAME; the query is the request's tag and stands in the answer, so that `load` can check it byte for
byte. What a test has to know of a process lies in files of the directory FLEET_NOTES: `booted/PID` holds its version.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.apps.base import App, Environ, Start

# How long a request is held at most where the test that holds it has gone.
HOLD_S = 60.0
LARGE_SIZE = 200_000
PIECES = 12
KEPT: list[bytes] = []


def note(kind: str, name: object, text: str = "") -> None:
    """A file KIND/NAME, whole as soon as it is there."""
    directory = Path(os.environ["FLEET_NOTES"], kind)
    directory.mkdir(exist_ok=True)
    draft = directory / f".{name}.{os.getpid()}"
    draft.write_text(text)
    draft.rename(directory / str(name))


def is_noted(kind: str, name: object) -> bool:
    return Path(os.environ["FLEET_NOTES"], kind, str(name)).exists()


# --- what is answered -------------------------------------------------------------------------------------------------


def piece(tag: str, number: int) -> bytes:
    return f"piece {number} of {tag}\n".encode() * 40


def expected_content(kind: str, tag: str, content: bytes = b"") -> bytes:
    """The body that a client must get from a route that `load` asks for."""
    if kind == "echo":
        return content or f"echo of {tag}\n".encode()
    if kind == "large":
        return (f"{tag}," * (LARGE_SIZE // len(tag))).encode()
    if kind == "chunked":
        return b"".join(piece(tag, number) for number in range(PIECES))
    assert kind == "slow", kind
    return f"slept for {tag}\n".encode()


class Call:
    """One request, as a route sees it."""

    def __init__(self, environ: Environ, version: str) -> None:
        _, self.name, self.argument = (environ["PATH_INFO"] + "//").split("/")[:3]
        self.tag: str = environ["QUERY_STRING"]
        self.content: bytes = environ["wsgi.input"].read()
        self.version = version

    def number(self, default: float = 0.0) -> float:
        return float(self.argument or default)


def wait_for(kind: str, name: object) -> None:
    """Until the test has made that file, within a bound."""
    end_at = time.monotonic() + HOLD_S
    while not is_noted(kind, name) and time.monotonic() < end_at:
        time.sleep(0.01)


# --- the routes -------------------------------------------------------------------------------------------------------


def same(call: Call) -> bytes:
    """echo, large: answered at once."""
    return expected_content(call.name, call.tag, call.content)


def chunked(call: Call) -> Iterator[bytes]:
    for number in range(PIECES):
        yield piece(call.tag, number)


def slow(call: Call) -> bytes:
    time.sleep(call.number(0.05))
    return expected_content("slow", call.tag)


def hold(call: Call) -> bytes:
    """Held until the test notes released/all, or released/ARGUMENT."""
    note("held", call.tag, str(os.getpid()))
    wait_for("released", call.argument or "all")
    return b"released"


def drip(call: Call) -> Iterator[bytes]:
    """The first half at once, the second once released."""
    yield b"first "
    note("held", call.tag, str(os.getpid()))
    wait_for("released", call.argument or "all")
    yield b"second"


def huge(call: Call) -> bytes:
    """So many megabytes: more than the buffers of a connection hold."""
    return b"x" * int(call.number(16) * 1_000_000)


def leave(call: Call) -> bytes:
    os._exit(int(call.number(3)))


def fault(call: Call) -> bytes:
    ctypes.string_at(0)
    return b"still here"


def kill(call: Call) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b"still here"


def stuck(call: Call) -> bytes:
    """A call in C that keeps the interpreter's lock and that no signal ends: a mutex taken twice.

    Who sees the note finds the worker stuck: from there on the lock is not let go of, nor asked for.
    """
    sys.setswitchinterval(1000)
    note("sticking", call.tag, str(os.getpid()))
    directory = Path(os.environ["FLEET_NOTES"])
    (directory / "held").mkdir(exist_ok=True)
    before, after = (os.fsencode(directory / kind / call.tag) for kind in ("sticking", "held"))
    library = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(64)
    library.rename(before, after)
    for _ in range(2):
        library.pthread_mutex_lock(mutex)
    return b"still here"


def stuck_soon(call: Call) -> bytes:
    """The same a moment later, in a thread of its own: the answer is gone and the loop asleep by then."""

    def stick() -> None:
        time.sleep(call.number(0.3))
        stuck(call)

    threading.Thread(target=stick, daemon=True).start()
    return b"soon"


def grow(call: Call) -> bytes:
    """So many megabytes more, used and kept."""
    KEPT.append(b"x" * int(call.number(100) * 1_000_000))
    return b"grown"


def fork(call: Call) -> bytes:
    """A child of the worker that outlives it. 3.12 warns of fork beside threads; that is what is tried here."""
    pid = os.fork()
    if not pid:
        time.sleep(HOLD_S)
        os._exit(0)
    return str(pid).encode()


def spawn(call: Call) -> bytes:
    """A child of the worker that ends while nobody waits for it."""
    return str(subprocess.Popen([sys.executable, "-c", ""]).pid).encode()


def thread(call: Call) -> bytes:
    """A thread that would keep the interpreter from ending."""
    threading.Thread(target=time.sleep, args=(HOLD_S,), daemon=False).start()
    return b"started"


def fail(call: Call) -> bytes:
    raise RuntimeError(f"failed on purpose: {call.tag}")


def pid(call: Call) -> bytes:
    return str(os.getpid()).encode()


def version(call: Call) -> bytes:
    return call.version.encode()


def variables(call: Call) -> bytes:
    """The names of all variables of the environment."""
    return " ".join(sorted(os.environ)).encode()


ROUTES: dict[str, Callable[[Call], bytes | Iterator[bytes]]] = {
    "echo": same, "large": same, "chunked": chunked, "slow": slow, "hold": hold, "drip": drip, "huge": huge,
    "exit": leave, "fault": fault, "kill": kill, "stuck": stuck, "stuck_soon": stuck_soon, "grow": grow, "fork": fork,
    "spawn": spawn, "thread": thread, "fail": fail, "pid": pid, "version": version, "variables": variables,
}  # fmt: skip


def make_app(of_version: str, *, is_ready: bool = True) -> App:
    """The application; its process is noted. is_ready: what /ready answers."""
    note("booted", os.getpid(), of_version)
    note("boots", f"{time.monotonic_ns()}.{os.getpid()}", of_version)
    atexit.register(note, "atexit", os.getpid())

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        call = Call(environ, of_version)
        fields: list[tuple[str, str]] = [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))]
        fields += [("X-Version", of_version), ("X-Tag", call.tag)]
        route: Any = ROUTES.get(call.name)
        status = "404 Not Found"
        answer: bytes | Iterator[bytes] = b""
        if call.name == "ready":
            status = "200 OK" if is_ready else "503 Service Unavailable"
        elif route is not None:
            status, answer = "200 OK", route(call)
        if isinstance(answer, bytes):
            start(status, [*fields, ("Content-Length", str(len(answer)))])
            return [answer]
        start(status, fields)
        return answer

    return app
