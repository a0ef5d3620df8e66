"""Files that lie beside others in a coding: which is sent, when none is, and what is said of it. STATIC.md 5."""

from __future__ import annotations

import gc
import gzip
import os
import time
from pathlib import Path

import pytest

from tests.static.support import BIG, MODIFIED, Ticking, content_of, fields_of, open_descriptors, write

SOURCE = b"let p = 'a line of some length';\n" * 20
BR, ZST = b"brotli as far as anybody looks", b"zstd, and a little longer than brotli"
GZ = gzip.compress(SOURCE, 9, mtime=0)


def build(root: Path, source: bytes = SOURCE, **suffixes: bytes) -> Ticking:
    """A site with p.js and some siblings, one byte of `x` before the suffix for each."""
    write(root / "p.js", source)
    for suffix, content in suffixes.items():
        write(root / f"p.js.{suffix}", content)
    return Ticking(("/", root))


@pytest.mark.parametrize(
    ("accepted", "coding", "content"),
    [
        ("br", "br", BR),
        ("gzip, deflate, br, zstd", "br", BR),
        ("zstd", "zstd", ZST),
        ("gzip", "gzip", GZ),
        ("gzip;q=1.0, br;q=0.5", "gzip", GZ),
        ("", None, SOURCE),
        ("identity", None, SOURCE),
        ("notgzip", None, SOURCE),
        ("identity;q=0", None, SOURCE),
    ],
)
def test_the_sibling_that_suits(tmp_path: Path, accepted: str, coding: str | None, content: bytes) -> None:
    site = build(tmp_path, br=BR, zst=ZST, gz=GZ)
    for _ in range(2):
        reply = site.get("/p.js", HTTP_ACCEPT_ENCODING=accepted)
        fields = fields_of(reply)
        assert reply.status == 200
        assert content_of(reply) == content
        assert fields.get("Content-Encoding") == coding
        assert fields["Content-Type"] == "text/javascript; charset=utf-8"
        assert fields["Content-Length"] == str(len(content))
        assert fields["Vary"] == "Accept-Encoding"
        head = site.get("/p.js", "HEAD", HTTP_ACCEPT_ENCODING=accepted)
        assert (head.head, content_of(head)) == (reply.head, b"")


def test_each_coding_has_its_own_tag_and_conditions(tmp_path: Path) -> None:
    site = build(tmp_path, br=BR, gz=GZ)
    tags = {}
    for accepted in ("br", "gzip", "identity"):
        fields = fields_of(site.get("/p.js", HTTP_ACCEPT_ENCODING=accepted))
        tags[accepted] = fields["ETag"]
        same = site.get("/p.js", HTTP_ACCEPT_ENCODING=accepted, HTTP_IF_NONE_MATCH=fields["ETag"])
        assert same.status == 304
        assert fields_of(same)["ETag"] == fields["ETag"]
        assert fields_of(same)["Vary"] == "Accept-Encoding"
        assert "Content-Encoding" not in fields_of(same)
    assert len(set(tags.values())) == 3
    assert site.get("/p.js", HTTP_ACCEPT_ENCODING="br", HTTP_IF_NONE_MATCH=tags["gzip"]).status == 200
    assert site.get("/p.js", HTTP_ACCEPT_ENCODING="br", HTTP_IF_MATCH=tags["gzip"]).status == 412


@pytest.mark.parametrize("size", [1, 30], ids=["small", "large"])
def test_ranges_count_the_bytes_of_the_coding(tmp_path: Path, size: int) -> None:
    source = os.urandom(5000) * size
    coded = gzip.compress(source, 1)
    site = build(tmp_path, source, gz=coded)
    reply = site.get("/p.js", HTTP_ACCEPT_ENCODING="gzip", HTTP_RANGE="bytes=10-19")
    fields = fields_of(reply)
    assert reply.status == 206
    assert content_of(reply) == coded[10:20]
    assert fields["Content-Range"] == f"bytes 10-19/{len(coded)}"
    assert fields["Content-Encoding"] == "gzip"
    assert fields["Vary"] == "Accept-Encoding"
    whole = fields_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="gzip"))
    other = fields_of(site.get("/p.js"))
    assert fields["ETag"] == whole["ETag"] != other["ETag"]
    for tag, status in ((whole["ETag"], 206), (other["ETag"], 200)):
        asked = {"HTTP_ACCEPT_ENCODING": "gzip", "HTTP_RANGE": "bytes=0-0", "HTTP_IF_RANGE": tag}
        assert site.get("/p.js", **asked).status == status


def test_a_sibling_asked_for_by_its_own_name_is_a_file_like_any_other(tmp_path: Path) -> None:
    site = build(tmp_path, gz=GZ, br=BR)
    write(tmp_path / "p.js.gz.br", b"never looked at")
    fields = fields_of(site.get("/p.js.gz", HTTP_ACCEPT_ENCODING="gzip, br"))
    assert fields["Content-Type"] == "application/gzip"
    assert not {"Content-Encoding", "Vary"} & set(fields)


def test_what_has_no_siblings_does_not_vary(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"a")
    (tmp_path / "a.txt.gz").mkdir()
    assert "Vary" not in fields_of(Ticking(("/", tmp_path)).get("/a.txt", HTTP_ACCEPT_ENCODING="gzip"))


@pytest.mark.parametrize(
    ("coded", "fault"),
    [
        (gzip.compress(SOURCE + b"x", mtime=0), "its CRC-32 or length"),
        (gzip.compress(SOURCE, mtime=0)[:-1], "its CRC-32 or length"),
        (gzip.compress(SOURCE, mtime=0) + b"\0", "its CRC-32 or length"),
        (b"", "is no gzip file"),
        (b"\x1f\x8b\x08", "is no gzip file"),
        (b"no gzip" * 10, "is no gzip file"),
    ],
    ids=["another", "cut", "longer", "empty", "head only", "no gzip"],
)
@pytest.mark.parametrize("repeat", [1, 200, 4000], ids=["small", "large", "later"])
def test_a_gzip_file_of_something_else_is_not_used(tmp_path: Path, coded: bytes, fault: str, repeat: int) -> None:
    source = SOURCE * repeat
    if len(coded) > 100 and repeat > 1:
        coded = gzip.compress(source + b"x")
    site = build(tmp_path, source, gz=coded)
    for _ in range(3):
        reply = site.get("/p.js", HTTP_ACCEPT_ENCODING="gzip")
        assert content_of(reply) == source
        assert "Content-Encoding" not in fields_of(reply)
    assert len(site.log) == 1
    assert "p.js.gz is not used" in site.log[0]
    assert fault in site.log[0]
    write(tmp_path / "p.js.gz", gzip.compress(source))
    site.tick()
    for _ in range(2):  # that of a large source is reckoned beside the loop
        site.get("/p.js", HTTP_ACCEPT_ENCODING="gzip")
    assert fields_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="gzip"))["Content-Encoding"] == "gzip"


def test_the_checksum_of_a_large_source_is_reckoned_elsewhere(tmp_path: Path) -> None:
    jobs = []
    source = SOURCE * 4000
    write(tmp_path / "p.js", source)
    coded = gzip.compress(source)
    write(tmp_path / "p.js.gz", coded)

    def run(work: object, done: object) -> bool:
        jobs.append((work, done))
        return True

    site = Ticking(("/", tmp_path), run=run)
    for _ in range(3):
        reply = site.get("/p.js", HTTP_ACCEPT_ENCODING="gzip")
        assert "Content-Encoding" not in fields_of(reply)
        assert fields_of(reply)["Vary"] == "Accept-Encoding"
    ((work, done),) = jobs
    done(work())  # type: ignore[operator]
    assert content_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="gzip")) == coded
    assert len(jobs) == 1


@pytest.mark.parametrize("suffix", ["br", "zst", "gz"])
def test_what_is_older_than_its_source_is_not_used(tmp_path: Path, suffix: str) -> None:
    site = build(tmp_path, **{suffix: GZ})
    path = tmp_path / f"p.js.{suffix}"
    os.utime(path, ns=(0, MODIFIED * 10**9 - 1))
    assert "Content-Encoding" not in fields_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="gzip, br, zstd"))
    assert [f"{path.name} is not used: is older than its source"] == site.log
    os.utime(path, ns=(0, MODIFIED * 10**9))  # the same moment, to the nanosecond
    site.tick()
    assert "Content-Encoding" in fields_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="gzip, br, zstd"))


def test_a_sibling_lies_within_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    site = build(root)
    write(tmp_path / "secret.br", b"secret")
    (root / "p.js.br").symlink_to("../secret.br")
    os.mkfifo(root / "p.js.zst")
    write(root / "real.gz", GZ)
    (root / "p.js.gz").symlink_to("real.gz")
    reply = site.get("/p.js", HTTP_ACCEPT_ENCODING="br")
    assert content_of(reply) == SOURCE
    assert any("p.js.br is not used" in line for line in site.log)
    assert content_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br, zstd, gzip")) == GZ


def test_siblings_come_change_and_go(tmp_path: Path) -> None:
    site = build(tmp_path)
    assert "Vary" not in fields_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br"))
    for content in (BR, ZST, BIG):
        write(tmp_path / "p.js.br", content)
        site.tick()
        for _ in range(2):
            assert content_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br")) == content
        assert fields_of(site.get("/p.js"))["Vary"] == "Accept-Encoding"
    write(tmp_path / "p.js", SOURCE + b"more", MODIFIED + 5)  # the sibling is the older one now
    site.tick()
    assert content_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br")) == SOURCE + b"more"
    write(tmp_path / "p.js.br", BR, MODIFIED + 5)
    site.tick()
    assert content_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br")) == BR
    (tmp_path / "p.js.br").unlink()
    site.tick()
    reply = site.get("/p.js", HTTP_ACCEPT_ENCODING="br")
    assert content_of(reply) == SOURCE + b"more"
    assert "Vary" not in fields_of(reply)


def test_a_link_beside_a_file_may_come_to_life_anywhere(tmp_path: Path) -> None:
    site = build(tmp_path)
    (tmp_path / "p.js.br").symlink_to("elsewhere/p.br")
    (tmp_path / "elsewhere").mkdir()
    site.tick()
    assert content_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br")) == SOURCE
    write(tmp_path / "elsewhere" / "p.br", BR)
    site.tick()
    assert content_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br")) == BR


def test_a_sibling_just_written_is_told_weakly_and_read_again(tmp_path: Path) -> None:
    write(tmp_path / "p.js", SOURCE)
    now = time.time()
    write(tmp_path / "p.js.br", BR, now)
    site = Ticking(("/", tmp_path), clock=lambda: now + 1)
    assert fields_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br"))["ETag"].startswith('W/"')
    before = os.stat(tmp_path / "p.js.br")
    (tmp_path / "p.js.br").write_bytes(BR[::-1])
    os.utime(tmp_path / "p.js.br", ns=(before.st_mtime_ns, before.st_mtime_ns))
    site.tick()
    assert content_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br")) == BR[::-1]


@pytest.mark.parametrize("limit", [0, 4, 16])
def test_descriptors_of_siblings_count(tmp_path: Path, limit: int) -> None:
    gc.collect()
    before = open_descriptors()
    for number in range(10):
        write(tmp_path / f"{number}.bin", BIG + bytes([number]))
        for suffix in ("br", "zst"):
            write(tmp_path / f"{number}.bin.{suffix}", BIG[1:] + bytes([number]))
    site = Ticking(("/", tmp_path), max_descriptors=limit)
    root = open_descriptors() - before
    for accepted in ("br", "zstd", "identity") * 2:
        for number in range(10):
            assert content_of(site.get(f"/{number}.bin", HTTP_ACCEPT_ENCODING=accepted))[-1] == number
        site.tick()
        assert open_descriptors() <= before + root + limit
    del site
    assert open_descriptors() == before


def test_a_rule_that_says_the_coding_ends_negotiation(tmp_path: Path) -> None:
    """As for content that exists in one coding only, under its plain name."""
    write(tmp_path / "_headers", b"/p.js\n  Content-Encoding: gzip\n")
    site = build(tmp_path, GZ, br=BR)
    fields = fields_of(site.get("/p.js", HTTP_ACCEPT_ENCODING="br"))
    assert fields["Content-Encoding"] == "gzip"
    assert "Vary" not in fields
