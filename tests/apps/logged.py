"""An application that says something: it prints, fails, and writes where an application may."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

print("printed at import")


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise ValueError("failed on purpose")
    if path == "/say":
        say(environ)
    body = str(os.getpid()).encode() if path == "/pid" else b"ok"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def say(environ: WSGIEnvironment) -> None:
    """One line by each way out of a process."""
    print("by print")
    print("by stderr", file=sys.stderr)
    os.write(1, b"by descriptor 1\n")
    os.write(2, b"by descriptor 2\n")
    ctypes.CDLL(None).dprintf(1, b"by C code\n")
    subprocess.run(["/bin/sh", "-c", "echo by a child; echo by stderr of a child >&2"], check=True)
    print("by wsgi.errors", file=environ["wsgi.errors"])
