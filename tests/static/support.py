"""What the tests of static files share: a tree of files, a handler with its seconds, readers of a Reply."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from hypothesis import settings

from epollwsgi.config.values import StaticMount
from epollwsgi.static.beneath import open_by_walk
from epollwsgi.static.handler import Reply, StaticHandler

# The same examples in every run, on any machine, with nothing written into the checkout.
repeatable = settings(derandomize=True, deadline=None, database=None)

MODIFIED = 1_577_836_800  # 2020-01-01T00:00:00Z
A_TXT = bytes(32 + number % 95 for number in range(1000))
BIG = bytes(number * 7 % 251 for number in range(200_000))
COMMON = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: test\r\n"

FILES = {
    "a.txt": A_TXT,
    "empty": b"",
    "big.bin": BIG,
    "edge.bin": BIG[: 64 * 1024],
    "over.bin": BIG[: 64 * 1024 + 1],
    "index.html": b"<title>start</title>",
    "about.html": b"<title>about</title>",
    "404.html": b"<title>lost</title>",
    "p.js": b"let p;",
    "p.js.gz": b"\x1f\x8b not really",
    "app.3f2a1b9c.js": b"let app;",
    "d/index.html": b"<title>d</title>",
    "d/b.txt": b"b",
    "d/404.html": b"<title>lost in d</title>",
    "d/e/c.txt": b"c",
    "l/x.txt": b"x",
    "both": b"exact",
    "both.html": b"page",
    "m/index.html": b"directory",
    "m.html": b"page beside a directory",
    "sp ace/index.html": b"<title>sp ace</title>",
    ".env": b"secret",
    ".git/config": b"secret",
    ".git/404.html": b"secret page",
    "d/.hidden": b"secret",
    ".well-known/security.txt": b"Contact: x",
    ".well-known/.secret": b"secret",
    "d/.well-known/x": b"secret",
    "_headers": b"secret",
    "_redirects": b"secret",
    "epollwsgi.toml": b"secret",
    "d/pyproject.toml": b"secret",
}


def write(path: Path, content: bytes, modified: float = MODIFIED) -> Path:
    """Write a file whose last modification is long past."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (modified, modified))
    return path


def build_site(root: Path) -> Path:
    """The tree of FILES below `root`."""
    for name, content in FILES.items():
        write(root / name, content)
    return root


def fields_of(reply: Reply) -> dict[str, str]:
    """The field lines of a reply, by name; fails where the head is not a status line and complete, single lines."""
    status_line, *lines, last = reply.head.split(b"\r\n")
    assert last == b""
    assert status_line.startswith(b"HTTP/1.1 %d " % reply.status)
    pairs = [line.decode("latin-1").split(": ", 1) for line in lines]
    assert len({name.lower() for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def content_of(reply: Reply) -> bytes:
    """What a connection would send as content."""
    if reply.file is None:
        assert reply.count == 0
        return reply.body
    assert reply.body == b""
    return os.pread(reply.file.fd, reply.count, reply.offset)


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


class Ticking:
    """A handler, its seconds, what it logged and which files it opened. Every file counts as 10 seconds old."""

    def __init__(self, *mounts: tuple[str, Path], alone: bool = True, revalidate: float = 1, **more: Any) -> None:
        self.log: list[str] = []
        self.opened = opened = []  # type: list[bytes]
        self.now = 100.0

        def opener(root_fd: int, name: bytes) -> int:  # without `self`, so that the last reference ends it all
            opened.append(name)
            return open_by_walk(root_fd, name)

        options: dict[str, Any] = {"opener": opener, "clock": lambda: time.time() + 10, "log": self.log.append} | more
        found = [StaticMount(prefix, str(directory)) for prefix, directory in mounts]
        self.handler = StaticHandler(found, alone=alone, revalidate=revalidate, **options)
        self.handler.on_tick(self.now, COMMON)

    def tick(self, seconds: float = 1) -> None:
        self.now += seconds
        self.handler.on_tick(self.now, COMMON)

    def ask(self, path: str, method: str = "GET", query: str = "", **fields: str) -> Reply | None:
        return self.handler.answer(method, path, query, fields)

    def get(self, path: str, method: str = "GET", query: str = "", **fields: str) -> Reply:
        reply = self.ask(path, method, query, **fields)
        assert reply is not None
        return reply

    def content(self, path: str) -> bytes:
        reply = self.get(path)
        assert reply.status == 200
        return content_of(reply)
