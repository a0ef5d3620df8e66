"""Deploys while the site is served: flipped roots, rsync, files written in their place. STATIC.md section 6."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.connections import Client, Failed, exchange
from tests.responses import Truncated, parse_responses
from tests.static.support import BIG, Ticking, content_of, fields_of, write
from tests.support import Server, ServerFactory, require_tool, wait_until


def flip(link: Path, target: str) -> None:
    new = link.with_name("flip")
    new.symlink_to(target)
    os.replace(new, link)


def release(base: Path, name: str, *hashes: str) -> Path:
    root = base / name
    write(root / "index.html", name.encode())
    for one in hashes:
        write(root / "assets" / f"app.{one}.js", f"{name} {one}".encode())
    return root


# --- old releases ---------------------------------------------------------------------------------------------------


def test_hashed_assets_of_the_release_before_stay_reachable(tmp_path: Path) -> None:
    release(tmp_path, "one", "0a1b2c3d")
    write(tmp_path / "one" / "plain.js", b"one")
    release(tmp_path, "two", "4e5f6a7b")
    link = tmp_path / "current"
    link.symlink_to("one")
    site = Ticking(("/", link))
    assert site.content("/assets/app.0a1b2c3d.js") == b"one 0a1b2c3d"
    flip(link, "two")
    site.tick()
    assert site.content("/") == b"two"
    for _ in range(2):
        assert site.content("/assets/app.0a1b2c3d.js") == b"one 0a1b2c3d"
        assert site.content("/assets/app.4e5f6a7b.js") == b"two 4e5f6a7b"
        assert site.get("/plain.js").status == 404  # a name without a hash means what it means now
        site.tick()
    site.tick(590)
    assert site.content("/assets/app.0a1b2c3d.js") == b"one 0a1b2c3d"
    site.tick(10)
    assert site.get("/assets/app.0a1b2c3d.js").status == 404
    assert site.content("/assets/app.4e5f6a7b.js") == b"two 4e5f6a7b"
    assert not site.handler._shelf.cache.memory.files.keys() - {
        (site.handler._mounts[0].directory.number, name)
        for name in (b"index.html", b"assets/app.4e5f6a7b.js", b"404.html")
    }


def test_the_newest_release_that_has_an_asset_counts_and_old_ones_are_bounded(tmp_path: Path) -> None:
    link = tmp_path / "current"
    for number in range(12):
        release(tmp_path, f"r{number}", f"{number:07x}a", "c0ffee00")
    link.symlink_to("r0")
    site = Ticking(("/", link))
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 12):
        flip(link, f"r{number}")
        site.tick()
    assert site.content("/assets/app.c0ffee00.js") == b"r11 c0ffee00"
    shutil.rmtree(tmp_path / "r11" / "assets")
    site.tick()
    assert site.content("/assets/app.c0ffee00.js") == b"r10 c0ffee00"
    assert site.content("/assets/app.0000003a.js") == b"r3 0000003a"
    assert site.get("/assets/app.0000002a.js").status == 404  # eight releases
    assert len(os.listdir("/proc/self/fd")) <= before + 8


def test_a_deleted_release_and_a_root_that_was_gone(tmp_path: Path) -> None:
    release(tmp_path, "one", "0a1b2c3d")
    release(tmp_path, "two", "4e5f6a7b")
    link = tmp_path / "current"
    link.symlink_to("one")
    site = Ticking(("/", link))
    link.unlink()
    site.tick()
    assert site.get("/").status == 404
    link.symlink_to("two")
    site.tick()
    assert site.content("/assets/app.0a1b2c3d.js") == b"one 0a1b2c3d"
    shutil.rmtree(tmp_path / "one")
    site.tick()
    assert site.get("/assets/app.0a1b2c3d.js").status == 404


# --- under load -----------------------------------------------------------------------------------------------------

SIZES = {"small.txt": 3000, "medium.txt": 60_000, "large.bin": 300_000, "p.js": 20_000}
VERSION = re.compile(rb"v(\d+);")


def content_of_version(name: str, number: int) -> bytes:
    """Every byte tells its version, all versions have one length."""
    piece = b"v%06d;" % number
    return (piece * (SIZES[name] // len(piece) + 1))[: SIZES[name]]


def write_version(root: Path, number: int) -> None:
    for name in SIZES:
        content = content_of_version(name, number)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        if name == "p.js":
            (root / "p.js.gz").write_bytes(gzip.compress(content, 1))


class Load(threading.Thread):
    """Asks for all files again and again; every body has to be of one version, and a tag of one version only."""

    def __init__(self, server: Server, coding: str) -> None:
        super().__init__()
        self.server = server
        self.coding = coding
        self.ended = threading.Event()
        self.problems: list[str] = []
        self.seen: dict[str, dict[str, int]] = {name: {} for name in SIZES}
        self.count = 0

    def run(self) -> None:
        end_at = time.monotonic() + 30
        while not self.ended.is_set() and not self.problems and time.monotonic() < end_at:
            for name in SIZES:
                self.ask(name)

    def ask(self, name: str) -> None:
        lines = f"GET /{name} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {self.coding}\r\nConnection: close\r\n\r\n"
        try:
            (response,) = parse_responses(exchange(self.server.address, [lines.encode()], count=0))
        except (Truncated, Failed, ConnectionResetError):
            return  # a file that was cut while it was sent: the client is told
        if response.status != 200:
            self.problems.append(f"{name}: {response.status}")
            return
        body = gzip.decompress(response.body) if response.get("Content-Encoding") == "gzip" else response.body
        versions = {int(number) for number in VERSION.findall(body)}
        if len(versions) != 1 or len(body) != SIZES[name]:
            self.problems.append(f"{name}: versions {versions}, {len(body)} bytes")
            return
        version = versions.pop()
        tag = response["ETag"]
        if not tag.startswith("W/") and self.seen[name].setdefault(tag, version) != version:
            self.problems.append(f"{name}: {tag} stands for {self.seen[name][tag]} and {version}")
        self.count += 1


def under_load(server: Server, change: list[int], step: object) -> None:
    """Call step(number) for each number while clients read; then the last version has to be there."""
    loads = [Load(server, coding) for coding in ("gzip", "identity")]
    for load in loads:
        load.start()
    try:
        for number in change:
            step(number)  # type: ignore[operator]
            time.sleep(0.15)
        last = change[-1]

        def is_last() -> bool:
            with Client(server.address) as client:
                return all(
                    client.request(f"GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).body
                    == content_of_version(name, last)
                    for name in SIZES
                )

        wait_until(is_last, 10, "the last version")
    finally:
        for load in loads:
            load.ended.set()
        for load in loads:
            load.join(30)
    assert [load.problems for load in loads] == [[], []]
    assert all(load.count > 5 for load in loads)
    assert "Traceback" not in server.stderr_text()


def test_a_root_flipped_under_load(server: ServerFactory, tmp_path: Path) -> None:
    for number in range(8):
        write_version(tmp_path / f"r{number}", number)
    link = tmp_path / "current"
    link.symlink_to("r0")
    running = server(str(link))
    under_load(running, list(range(1, 8)), lambda number: flip(link, f"r{number}"))


def test_rsync_under_load(server: ServerFactory, tmp_path: Path) -> None:
    rsync = require_tool("rsync", "rsync")
    for number in range(6):
        write_version(tmp_path / f"r{number}", number)
    root = tmp_path / "root"
    write_version(root, 0)
    running = server(str(root))

    def step(number: int) -> None:
        command = [rsync, "-rt", "--delete", "--checksum", f"{tmp_path}/r{number}/", f"{root}/"]
        subprocess.run(command, check=True, timeout=30)

    under_load(running, list(range(1, 6)), step)


def test_renames_under_load(server: ServerFactory, tmp_path: Path) -> None:
    """What rsync does, one file after the other."""
    root = tmp_path / "root"
    write_version(root, 0)
    running = server(str(root))

    def step(number: int) -> None:
        write_version(tmp_path / "next", number)
        for path in sorted((tmp_path / "next").iterdir()):
            os.replace(path, root / path.name)

    under_load(running, list(range(1, 8)), step)


def test_a_large_file_written_in_its_place_gets_a_new_head(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bin", BIG)
    site = Ticking(("/", tmp_path))
    old = fields_of(site.get("/a.bin"))["ETag"]
    path.write_bytes(BIG[::-1])  # within the second: the same length, another time
    for _ in range(2):
        reply = site.get("/a.bin")
        assert content_of(reply) == BIG[::-1]
        assert fields_of(reply)["ETag"].removeprefix("W/") != old
    path.write_bytes(BIG + b"longer")
    reply = site.get("/a.bin")
    assert content_of(reply) == BIG + b"longer"
    assert fields_of(reply)["Content-Length"] == str(len(BIG) + 6)


@pytest.mark.parametrize("range_", ["", "Range: bytes=0-9\r\n"])
def test_a_prebuilt_response_does_not_outlive_its_file(server: ServerFactory, tmp_path: Path, range_: str) -> None:
    path = write(tmp_path / "a.bin", BIG)
    running = server(str(tmp_path))
    request = f"GET /a.bin HTTP/1.1\r\nHost: a\r\n{range_}\r\n".encode()
    wanted = slice(0, 10) if range_ else slice(None)
    with Client(running.address) as client:
        for _ in range(5):
            before = client.request(request)
            assert before.body == BIG[wanted]
        path.write_bytes(BIG[::-1])

        def has_changed() -> bool:
            response = client.request(request)
            is_new = response.body == BIG[::-1][wanted]
            assert is_new == (response["ETag"].removeprefix("W/") != before["ETag"])
            return is_new

        wait_until(has_changed, 10, "the new content")
