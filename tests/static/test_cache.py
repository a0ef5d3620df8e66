"""static.cache: what is read from a file, what is said of it, and how much is kept. STATIC.md section 6."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epollwsgi.http.dates import format_date
from epollwsgi.static.beneath import OpenFile
from epollwsgi.static.cache import MEMORY_FILE_SIZE, FileCache, StaticFile, Tier, identity_of, load_file, memory_size
from tests.static.support import BIG, MODIFIED, open_descriptors, repeatable, write


def later() -> float:
    """A clock by which every file of a test was made long ago."""
    return time.time() + 10


def load(path: Path, now: float | None = None) -> StaticFile:
    fd = os.open(path, os.O_RDONLY)
    return load_file(os.fsencode(path.name), fd, os.fstat(fd), later if now is None else lambda: now)


def lines(head: bytes) -> dict[str, str]:
    return dict(line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:-1])


# --- one file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, MEMORY_FILE_SIZE - 1, MEMORY_FILE_SIZE])
def test_a_small_file_is_held_in_memory(tmp_path: Path, size: int) -> None:
    before = open_descriptors()
    file = load(write(tmp_path / "a.txt", BIG[:size]))
    assert file.content == BIG[:size]
    assert file.size == size
    assert file.file is None
    assert file.is_settled
    assert open_descriptors() == before
    assert lines(file.head) == {
        "Content-Type": "text/plain; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
        "ETag": file.etag,
        "Last-Modified": format_date(MODIFIED),
        "Accept-Ranges": "bytes",
        "Content-Length": str(size),
    }


def test_a_large_file_is_held_open(tmp_path: Path) -> None:
    before = open_descriptors()
    file = load(write(tmp_path / "a.bin", BIG[: MEMORY_FILE_SIZE + 1]))
    assert file.content is None
    assert file.size == MEMORY_FILE_SIZE + 1
    assert file.file is not None
    assert os.pread(file.file.fd, file.size + 1, 0) == BIG[: file.size]
    assert lines(file.head)["Content-Length"] == str(file.size)
    assert open_descriptors() == before + 1
    del file
    assert open_descriptors() == before


def test_the_tag_of_a_small_file_is_its_content_alone(tmp_path: Path) -> None:
    one = load(write(tmp_path / "one.txt", b"same"))
    two = load(write(tmp_path / "two.txt", b"same", MODIFIED + 5))
    other = load(write(tmp_path / "other.txt", b"sama"))
    assert one.etag == two.etag == f'"{hashlib.blake2b(b"same", digest_size=16).hexdigest()}"'
    assert one.etag != other.etag


def test_the_tag_of_a_large_file_is_its_time_and_size(tmp_path: Path) -> None:
    one = load(write(tmp_path / "one.bin", BIG))
    assert one.etag == f'"{MODIFIED * 1_000_000_000:x}-{len(BIG):x}"'
    assert load(write(tmp_path / "one.bin", BIG, MODIFIED + 1)).etag != one.etag
    assert load(write(tmp_path / "one.bin", BIG[:-1])).etag != one.etag


@pytest.mark.parametrize("content", [b"small", BIG], ids=["small", "large"])
def test_a_file_just_modified_has_a_weak_tag_and_is_not_kept(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a", content)
    now = time.time()
    os.utime(path, (now - 1.9, now - 1.9))
    fresh, old = load(path, now), load(path, now + 2)
    assert fresh.etag == "W/" + old.etag
    assert (fresh.is_settled, old.is_settled) == (False, True)
    assert fresh.last_modified == old.last_modified == int(now - 1.9)


def test_a_file_just_written_with_an_old_date_is_not_kept(tmp_path: Path) -> None:
    file = load(write(tmp_path / "a", b"unpacked"), time.time())
    assert not file.etag.startswith("W/")
    assert not file.is_settled


def test_a_time_that_was_in_the_future_becomes_recent_too(tmp_path: Path) -> None:
    now = time.time() + 10
    file = load(write(tmp_path / "a", b"x", now - 1), now)
    assert file.etag.startswith("W/")
    assert not file.is_settled


@pytest.mark.parametrize("modified", [0, 1, -86400])
def test_the_flattened_times_of_containers_are_not_told(tmp_path: Path, modified: float) -> None:
    file = load(write(tmp_path / "a", b"x", modified))
    assert file.last_modified is None
    assert b"Last-Modified" not in file.head + file.heads.not_modified


def test_a_time_in_the_future_is_clamped(tmp_path: Path) -> None:
    now = time.time() + 10
    file = load(write(tmp_path / "a", b"x", now + 86400), now)
    assert file.last_modified == int(now)
    assert not file.etag.startswith("W/")
    assert file.is_settled


def test_a_304_has_the_validators_and_nothing_about_content(tmp_path: Path) -> None:
    file = load(write(tmp_path / "app-3f2a1b9c.css", b"x"))
    assert file.heads.not_modified.startswith(b"HTTP/1.1 304 Not Modified\r\n")
    found = lines(file.heads.not_modified)
    assert {name: found[name] for name in ("ETag", "Last-Modified", "Cache-Control")} == {
        "ETag": file.etag,
        "Last-Modified": format_date(MODIFIED),
        "Cache-Control": "public, max-age=31536000, immutable",
    }
    assert not {"Content-Length", "Content-Type", "Accept-Ranges", "Content-Encoding"} & set(found)


def test_a_file_without_a_size_is_read_to_its_end() -> None:
    """A file of /proc says 0 bytes; the length must be that of what is sent."""
    path = Path("/proc/self/status")
    file = load(path)
    assert file.content
    assert file.size == len(file.content)
    assert lines(file.head)["Content-Length"] == str(len(file.content))


@pytest.mark.parametrize("sizes", [(1000, 500), (500, 1000), (MEMORY_FILE_SIZE, MEMORY_FILE_SIZE + 1)])
def test_a_file_that_changed_since_fstat_is_read_again(tmp_path: Path, sizes: tuple[int, int]) -> None:
    path = write(tmp_path / "a", BIG[: sizes[0]])
    fd = os.open(path, os.O_RDONLY)
    before = os.fstat(fd)
    path.write_bytes(BIG[: sizes[1]])
    file = load_file(b"a", fd, before, later)
    assert file.size == sizes[1]
    assert file.identity == identity_of(os.stat(path))
    assert lines(file.head)["Content-Length"] == str(sizes[1])


def test_one_reading_may_be_lost(tmp_path: Path) -> None:
    fd = os.open(write(tmp_path / "a", b"x"), os.O_RDONLY)
    wrong = os.stat(tmp_path)  # not what fstat says after the first reading
    assert load_file(b"a", fd, wrong, later).is_settled


def test_a_file_that_never_fits_its_size_is_cut_and_not_kept() -> None:
    path = Path("/proc/kallsyms")  # megabytes in a file of 0 bytes
    if not path.exists() or len(path.read_bytes()) <= MEMORY_FILE_SIZE:
        pytest.skip("this kernel has no long /proc/kallsyms")
    file = load(path)
    assert file.content is not None
    assert len(file.content) == file.size == MEMORY_FILE_SIZE
    assert lines(file.head)["Content-Length"] == str(MEMORY_FILE_SIZE)
    assert not file.is_settled


# --- many files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> StaticFile:
    return load(write(tmp_path / "a.txt", b"x" * 1000))


def another(file: StaticFile) -> StaticFile:
    """A file like this one, as its own object."""
    copy = object.__new__(StaticFile)
    for name in StaticFile.__slots__:
        setattr(copy, name, getattr(file, name))
    return copy


def test_the_number_of_files_is_bounded(small: StaticFile) -> None:
    random.seed(1)
    tier = Tier(10, 1 << 30)
    for number in range(100):
        tier.put((0, b"%d" % number), another(small))
        assert len(tier) == min(number + 1, 10)
        assert tier.get((0, b"%d" % number)) is not None  # the newest always stays
    kept = [number for number in range(100) if tier.get((0, b"%d" % number)) is not None]
    assert len(kept) == 10
    # Any one is dropped: were it the oldest, a scan over eleven files would never find one.
    assert kept != list(range(90, 100))


def test_the_bytes_are_bounded(small: StaticFile) -> None:
    each = memory_size((0, b"00"), small)
    assert each > 1000 + len(small.head)
    tier = Tier(1000, 5 * each)
    for number in range(50):
        tier.put((0, b"%02d" % number), another(small))
        assert tier.size <= 5 * each
    assert len(tier) == 5
    tier.put((0, b"x" * 6 * each), another(small))  # larger than all there is
    assert len(tier) == 5


def test_no_room_at_all(small: StaticFile) -> None:
    tier = Tier(0, 1 << 30)
    tier.put((0, b"a"), small)
    assert tier.get((0, b"a")) is None
    assert (len(tier), tier.size) == (0, 0)


@repeatable
@given(st.lists(st.tuples(st.sampled_from(("put", "drop", "get")), st.integers(0, 7)), max_size=60))
def test_a_tier_is_a_dict_that_forgets(steps: list[tuple[str, int]]) -> None:
    tier = Tier(4, 1 << 30)
    model: dict[int, StaticFile] = {}
    status = os.stat("/")
    for action, number in steps:
        key = (0, b"%d" % number)
        if action == "put":
            model[number] = StaticFile(b"a", status, b"x" * number, None, 0.0)
            tier.put(key, model[number])
            assert tier.get(key) is model[number]
        elif action == "drop":
            model.pop(number, None)
            tier.drop(key)
        found = {n: file for n in range(8) if (file := tier.get((0, b"%d" % n))) is not None}
        assert all(model[n] is file for n, file in found.items())
        assert len(found) == len(tier) <= 4
        assert tier.size == sum(memory_size((0, b"%d" % n), file) for n, file in found.items())


def test_files_go_into_their_tier_and_move_with_their_size(tmp_path: Path) -> None:
    cache = FileCache(max_count=10, max_size=1 << 20, max_descriptors=2)
    key = (0, b"a")
    cache.put(key, load(write(tmp_path / "a", b"small")))
    assert (len(cache.memory), len(cache.descriptors)) == (1, 0)
    cache.put(key, load(write(tmp_path / "a", BIG)))
    assert (len(cache.memory), len(cache.descriptors)) == (0, 1)
    file = cache.get(key)
    assert file is not None
    assert file.size == len(BIG)
    cache.drop(key)
    assert cache.get(key) is None
    assert (len(cache.memory), len(cache.descriptors)) == (0, 0)


def test_what_may_still_change_is_not_kept_and_what_was_is_forgotten(tmp_path: Path) -> None:
    cache = FileCache(max_count=10, max_size=1 << 20, max_descriptors=2)
    path = write(tmp_path / "a", b"old")
    cache.put((0, b"a"), load(path))
    assert cache.get((0, b"a")) is not None
    cache.put((0, b"a"), load(path, time.time()))
    assert cache.get((0, b"a")) is None


def test_descriptors_are_bounded_and_closed(tmp_path: Path) -> None:
    cache = FileCache(max_count=10, max_size=1 << 20, max_descriptors=3)
    path = write(tmp_path / "a", BIG)
    before = open_descriptors()
    for number in range(20):
        cache.put((0, b"%d" % number), load(path))
        assert open_descriptors() == before + min(number + 1, 3)
    cache.drop_directory(0)
    assert open_descriptors() == before


def test_a_dropped_file_stays_open_while_it_is_sent(tmp_path: Path) -> None:
    cache = FileCache(max_count=10, max_size=1 << 20, max_descriptors=1)
    path = write(tmp_path / "a", BIG)
    before = open_descriptors()
    cache.put((0, b"a"), load(path))
    file = cache.get((0, b"a"))
    assert file is not None
    sending: OpenFile | None = file.file
    del file
    cache.put((0, b"b"), load(path))
    assert sending is not None
    assert os.pread(sending.fd, 10, 0) == BIG[:10]
    assert open_descriptors() == before + 2
    sending = None
    assert open_descriptors() == before + 1
    cache.drop_directory(0)
    assert open_descriptors() == before
