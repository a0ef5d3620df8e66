"""static.variants: what is compressed here, once, and kept. STATIC.md section 5, `--compress`."""

from __future__ import annotations

import gc
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.codings import SUFFIXES, available
from epollwsgi.static.variants import USES_BEFORE_COMPRESSION
from tests.static.support import Ticking, content_of, fields_of, open_descriptors, write

TEXT = b"a line that repeats itself, and so it compresses\n" * 40
NOISE = os.urandom(4000).hex().encode()  # half of it is air
CODINGS = [coding.token for coding in available()]


def ask(site: Ticking, path: str = "/a.txt", accepted: str = "gzip", **fields: str) -> tuple[str | None, bytes]:
    reply = site.get(path, HTTP_ACCEPT_ENCODING=accepted, **fields)
    assert fields_of(reply)["Content-Length"] == str(len(content_of(reply)))
    return fields_of(reply).get("Content-Encoding"), content_of(reply)


def decode(token: str, content: bytes) -> bytes:
    coding = next(coding for coding in SUFFIXES.values() if coding.token == token)
    return b"".join(coding.decode([content]))


class Queue:
    """In the place of the helper thread: what is to be done waits until somebody does it."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def run(self, work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        self.jobs.append((work, done))
        return True

    def do_all(self) -> None:
        while self.jobs:
            work, done = self.jobs.pop(0)
            done(work())


@pytest.mark.parametrize("token", CODINGS)
@pytest.mark.parametrize("content", [TEXT, TEXT * 2000, NOISE * 40], ids=["small", "large", "large result"])
def test_a_text_that_is_asked_for_often(tmp_path: Path, token: str, content: bytes) -> None:
    write(tmp_path / "a.txt", content)
    queue = Queue()
    site = Ticking(("/", tmp_path), compress=True, run=queue.run)
    plain = fields_of(site.get("/a.txt"))
    assert plain["Vary"] == "Accept-Encoding"  # from the first answer on
    for _ in range(USES_BEFORE_COMPRESSION):
        assert not queue.jobs
        assert ask(site, accepted=token) == (None, content)
    for _ in range(5):
        assert ask(site, accepted=token) == (None, content)  # until it is there
    assert len(queue.jobs) == 1
    queue.do_all()
    site.tick()
    coding, coded = ask(site, accepted=token)
    assert coding == token
    assert len(coded) < len(content)
    assert decode(token, coded) == content
    assert ask(site, accepted="identity") == (None, content)
    fields = fields_of(site.get("/a.txt", HTTP_ACCEPT_ENCODING=token))
    assert fields["ETag"] != plain["ETag"]
    assert fields["Last-Modified"] == plain["Last-Modified"]
    assert fields["Accept-Ranges"] == "bytes"
    same = site.get("/a.txt", HTTP_ACCEPT_ENCODING=token, HTTP_IF_NONE_MATCH=fields["ETag"])
    assert same.status == 304
    part = site.get("/a.txt", HTTP_ACCEPT_ENCODING=token, HTTP_RANGE="bytes=5-9", HTTP_IF_RANGE=fields["ETag"])
    assert part.status == 206
    assert content_of(part) == coded[5:10]
    for _ in range(3):  # it is a file of the cache like any other
        site.tick()
        assert ask(site, accepted=token) == (token, coded)
    assert not queue.jobs
    write(tmp_path / "a.txt", content + b"changed")
    site.tick()
    assert ask(site, accepted=token) == (None, content + b"changed")


def test_what_is_not_compressed(tmp_path: Path) -> None:
    write(tmp_path / "short.txt", b"x" * 511)
    write(tmp_path / "enough.txt", b"x" * 512)
    write(tmp_path / "p.png", TEXT)
    write(tmp_path / "noise.txt", os.urandom(4000))
    write(tmp_path / "fixed.txt", TEXT)
    write(tmp_path / "sibling.txt", TEXT)
    write(tmp_path / "sibling.txt.gz", gzip.compress(TEXT, mtime=0))
    write(tmp_path / "_headers", b"/fixed.txt\n  Cache-Control: public, no-transform\n")
    site = Ticking(("/", tmp_path), compress=True)
    coded = {}
    for path in ("/short.txt", "/enough.txt", "/p.png", "/noise.txt", "/fixed.txt", "/sibling.txt"):
        for _ in range(10):
            coded[path] = ask(site, path)[0]
        assert ask(site, path, "identity")[0] is None
    assert coded == {
        "/short.txt": None, "/enough.txt": "gzip", "/p.png": None, "/noise.txt": None, "/fixed.txt": None,
        "/sibling.txt": "gzip",
    }  # fmt: skip
    assert ask(site, "/sibling.txt") == ("gzip", gzip.compress(TEXT, mtime=0))
    assert not {"Vary"} & set(fields_of(site.get("/p.png")))


def test_no_transform_of_one_path_only(tmp_path: Path) -> None:
    write(tmp_path / "a.html", TEXT)
    write(tmp_path / "_headers", b"/a\n  Cache-Control: no-transform\n")
    site = Ticking(("/", tmp_path), compress=True)
    for _ in range(5):
        ask(site, "/a.html")
    assert ask(site, "/a.html")[0] == "gzip"
    assert ask(site, "/a") == (None, TEXT)


def test_a_range_is_never_compressed_on_the_fly(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXT)
    queue = Queue()
    site = Ticking(("/", tmp_path), compress=True, run=queue.run)
    for _ in range(10):
        reply = site.get("/a.txt", HTTP_ACCEPT_ENCODING="gzip", HTTP_RANGE="bytes=0-4")
        assert content_of(reply) == TEXT[:5]
        assert "Content-Encoding" not in fields_of(reply)
    assert not queue.jobs


def test_nothing_is_compressed_unless_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXT)
    site = Ticking(("/", tmp_path))
    for _ in range(10):
        assert ask(site) == (None, TEXT)
    assert "Vary" not in fields_of(site.get("/a.txt"))


def test_a_file_that_changes_while_it_is_compressed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", TEXT * 2000)
    queue = Queue()
    site = Ticking(("/", tmp_path), compress=True, run=queue.run)
    for _ in range(5):
        ask(site)
    write(path, TEXT[::-1] * 2000)  # in its place
    queue.do_all()
    site.tick()
    assert ask(site) == (None, TEXT[::-1] * 2000)


def test_results_count_as_memory_and_descriptors(tmp_path: Path) -> None:
    gc.collect()
    before = open_descriptors()
    for number in range(8):
        write(tmp_path / f"{number}.txt", NOISE * 40 + bytes([number]))
    site = Ticking(("/", tmp_path), compress=True, max_descriptors=8)
    root = open_descriptors() - before
    for _ in range(3):
        for number in range(8):
            for _ in range(5):
                ask(site, f"/{number}.txt")
        site.tick()
        assert open_descriptors() <= before + root + 8
    assert site.handler._shelf.cache.descriptors.size > 100_000
    del site
    assert open_descriptors() == before


def test_a_full_helper_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXT)
    allowed = False
    queue = Queue()
    site = Ticking(("/", tmp_path), compress=True, run=lambda work, done: allowed and queue.run(work, done))
    for _ in range(10):
        assert ask(site) == (None, TEXT)
    allowed = True
    for _ in range(10):
        ask(site)
    queue.do_all()
    assert ask(site)[0] == "gzip"
