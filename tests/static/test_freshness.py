"""static.handler: what is remembered, for how long, and within which bounds. STATIC.md section 6."""

from __future__ import annotations

import errno
import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.static.beneath import open_by_walk
from epollwsgi.static.lookup import MAX_PAGE_DEPTH
from epollwsgi.static.replies import Reply
from epollwsgi.static.shelf import MEMO_COUNT
from tests.static.rows import FOUND, MISSING, REFUSED
from tests.static.support import BIG, COMMON, Ticking, content_of, fields_of, open_descriptors, write

# --- what is remembered until the next tick -------------------------------------------------------------------------


def test_fresh_holds_whole_responses_of_plain_gets(alone: Ticking) -> None:
    alone.tick()
    fresh = alone.handler.fresh.plain
    assert fresh == {}
    alone.get("/a.txt", "HEAD")
    alone.get("/a.txt", HTTP_RANGE="bytes=0-0")
    alone.get("/a.txt", HTTP_IF_NONE_MATCH="*")
    for path in ("/big.bin", "/nothing", "/d", "/%zz"):
        alone.get(path)
    assert fresh == {}
    for path in ("/a.txt", "/", "/%61.txt", "/empty"):
        reply = alone.get(path)
        assert fresh[path] == reply.head + COMMON + b"\r\n" + reply.body
    assert set(fresh) == {"/a.txt", "/", "/%61.txt", "/empty"}
    kept, size = fresh["/a.txt"], alone.handler.fresh.size
    alone.get("/a.txt")  # as for a request of HTTP/1.0, which needs a head of its own
    assert fresh["/a.txt"] is kept
    assert alone.handler.fresh.size == size
    alone.tick()
    assert fresh == {}
    assert alone.handler.fresh.plain is fresh  # the connection may keep the dict


def system_calls(handler: Ticking, path: str, **fields: str) -> list[str]:
    """The functions of os that one request calls."""
    calls: list[str] = []

    def count(frame: object, event: str, function: Any) -> None:
        if event == "c_call" and getattr(function, "__module__", "") == "posix":
            calls.append(function.__name__)

    sys.setprofile(count)
    try:
        handler.get(path, "GET", "", **fields)
    finally:
        sys.setprofile(None)
    return calls


def test_a_second_costs_one_stat_and_an_answer_none(site: Path) -> None:
    handler = Ticking(("/", site))
    # One more for its directory: has a compressed sibling come? One of an open file: does its head still fit?
    for path, again in (("/a.txt", []), ("/d/", []), ("/big.bin", ["fstat"])):
        handler.get(path)
        handler.tick()
        assert system_calls(handler, path) == ["stat", "stat", *again]
        assert system_calls(handler, path) == again
        assert system_calls(handler, path, HTTP_IF_NONE_MATCH="*") == again
    handler.get("/about.html")
    handler.tick()
    handler.get("/a.txt")
    assert system_calls(handler, "/about.html") == ["stat"]  # the directory is known by now
    handler.get("/nothing")
    assert system_calls(handler, "/nothing") == []


def test_the_search_for_a_404_page_is_bounded(tmp_path: Path) -> None:
    handler = Ticking(("/", tmp_path))
    assert system_calls(handler, "/" + "x/" * 4000).count("stat") <= MAX_PAGE_DEPTH + 3
    for number in range(MAX_PAGE_DEPTH):
        assert system_calls(handler, f"/{'y/' * 20}{number}").count("stat") <= 23 - 20 * (number > 0)


def test_a_known_miss_costs_the_application_nothing(tmp_path: Path) -> None:
    handler = Ticking(("/", tmp_path), alone=False)
    assert handler.ask("/api") is None
    write(tmp_path / "api", b"now a file")
    assert handler.ask("/api") is None  # not looked at again
    handler.tick()
    assert handler.content("/api") == b"now a file"


def test_what_clients_can_fill_is_bounded(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"a")
    write(tmp_path / "big.txt", b"b" * 60_000)
    handler = Ticking(("/", tmp_path))
    for number in range(MEMO_COUNT + 100):
        handler.get(f"/{number}")
    inner = handler.handler
    assert len(inner._found) == MEMO_COUNT
    assert len(inner._shelf._absent) <= MEMO_COUNT
    assert handler.content("/a.txt") == b"a"  # all the same
    handler.tick()
    handler.get("/." * 200 + "/big.txt")
    spelt = [f"/{'/' * (number % 100)}{'./' * (number // 100)}big.txt" for number in range(400)]
    assert all(len(handler.content(path)) == 60_000 for path in spelt)
    assert len(inner.fresh.plain) == len(spelt)
    assert len(set(map(id, inner.fresh.plain.values()))) == 1  # one response, however it is spelt
    for number in range(500):
        write(tmp_path / f"{number}.txt", b"c" * 60_000)
    handler.tick()
    assert all(len(handler.content(f"/{number}.txt")) == 60_000 for number in range(500))
    assert 300 < len(inner.fresh.plain) < 500
    assert sum(len(path) + len(response) for path, response in inner.fresh.plain.items()) <= 25 * 1024 * 1024
    assert not any(len(path) > 300 for path in (*inner._found, *inner.fresh.plain))
    handler.tick()
    handler.get("/big.txt")
    assert set(inner.fresh.plain) == {"/big.txt"}  # there is room again


# --- changes --------------------------------------------------------------------------------------------------------


def replace(path: Path, content: bytes) -> None:
    write(path.with_name("new"), content)
    os.replace(path.with_name("new"), path)


def rewrite(path: Path, content: bytes) -> None:
    write(path, content)


@pytest.mark.parametrize("change", [replace, rewrite])
@pytest.mark.parametrize("contents", [(b"one", b"two!"), (b"one", BIG), (BIG, b"one"), (BIG, BIG[::-1])])
def test_a_changed_file_is_seen_with_the_next_tick(
    tmp_path: Path, change: Callable[[Path, bytes], None], contents: tuple[bytes, bytes]
) -> None:
    path = write(tmp_path / "a.txt", contents[0])
    handler = Ticking(("/", tmp_path))
    before = fields_of(handler.get("/a.txt"))
    assert handler.content("/a.txt") == contents[0]
    opened = len(handler.opened)
    handler.tick()
    assert handler.content("/a.txt") == contents[0]
    assert len(handler.opened) == opened  # an unchanged file is not opened again
    change(path, contents[1])
    handler.tick()
    assert handler.content("/a.txt") == contents[1]
    assert len(handler.opened) == opened + 1
    after = fields_of(handler.get("/a.txt"))
    assert after["Content-Length"] == str(len(contents[1]))
    if len(contents[0]) != len(contents[1]) or len(contents[0]) < 65536:
        assert after["ETag"] != before["ETag"]


def test_an_open_file_that_was_replaced_is_sent_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bin", BIG)
    handler = Ticking(("/", tmp_path))
    reply = handler.get("/a.bin")
    replace(path, BIG[::-1])
    handler.tick()
    assert handler.content("/a.bin") == BIG[::-1]
    assert content_of(reply) == BIG


def test_new_and_removed_files_are_seen(tmp_path: Path) -> None:
    handler = Ticking(("/", tmp_path))
    assert handler.get("/a").status == 404
    write(tmp_path / "a.html", b"page")
    handler.tick()
    assert handler.content("/a") == b"page"
    write(tmp_path / "a", b"exact")
    handler.tick()
    assert handler.content("/a") == b"exact"
    (tmp_path / "a").unlink()
    handler.tick()
    assert handler.content("/a") == b"page"
    (tmp_path / "a.html").unlink()
    write(tmp_path / "a" / "index.html", b"index")
    handler.tick()
    assert handler.get("/a").status == 301
    assert handler.content("/a/") == b"index"
    assert len(handler.handler._shelf.cache.memory) == 1


def test_a_cached_file_that_is_now_behind_a_link_out_is_not_served(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "d" / "a.txt", b"inside")
    write(tmp_path / "out" / "a.txt", b"secret")
    handler = Ticking(("/", root))
    assert handler.content("/d/a.txt") == b"inside"
    os.rename(root / "d", root / "e")
    (root / "d").symlink_to("../out")
    handler.tick()
    assert handler.get("/d/a.txt").status == 404


def test_a_flipped_root_is_seen(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name / "a.txt", name.encode())
    link = tmp_path / "current"
    link.symlink_to("one")
    handler = Ticking(("/", link))
    assert handler.content("/a.txt") == b"one"
    (tmp_path / "new").symlink_to("two")
    os.replace(tmp_path / "new", link)
    handler.tick()
    assert handler.content("/a.txt") == b"two"
    assert handler.log == [f"static root {link} is another directory now"]
    link.unlink()
    handler.tick()
    handler.tick()
    assert handler.get("/a.txt").status == 404
    assert handler.log[1:] == [f"static root {link} is gone"]
    link.symlink_to("one")
    handler.tick()
    assert handler.content("/a.txt") == b"one"


def test_a_flipped_root_is_seen_at_once_as_a_whole(tmp_path: Path) -> None:
    """Not page by page as `revalidate` runs out for each: pages of two releases do not fit together."""
    for name in ("one", "two"):
        for file in ("a.txt", "b.txt"):
            write(tmp_path / name / file, name.encode())
    link = tmp_path / "current"
    link.symlink_to("one")
    handler = Ticking(("/", link), revalidate=60)
    assert handler.content("/a.txt") == handler.content("/b.txt") == b"one"
    link.unlink()
    link.symlink_to("two")
    handler.tick()
    assert handler.content("/a.txt") == handler.content("/b.txt") == b"two"


def test_a_file_just_written_is_told_weakly_and_read_again(tmp_path: Path) -> None:
    now = time.time()
    write(tmp_path / "a.txt", b"one", now)
    handler = Ticking(("/", tmp_path), clock=lambda: now + 1.9)
    assert fields_of(handler.get("/a.txt"))["ETag"].startswith('W/"')
    assert handler.get("/a.txt", HTTP_IF_NONE_MATCH=fields_of(handler.get("/a.txt"))["ETag"]).status == 304
    assert len(handler.opened) == 1  # within a tick it is kept
    handler.tick()
    assert handler.content("/a.txt") == b"one"
    assert len(handler.opened) == 2


@pytest.mark.parametrize("revalidate", [0, 0.5])
def test_without_revalidation_every_request_looks(tmp_path: Path, revalidate: float) -> None:
    path = write(tmp_path / "a.txt", b"one")
    handler = Ticking(("/", tmp_path), revalidate=revalidate)
    assert handler.content("/a.txt") == b"one"
    assert handler.handler.fresh.plain == {}
    assert handler.content("/a.txt") == b"one"
    assert len(handler.opened) == 1
    replace(path, b"two")
    assert handler.content("/a.txt") == b"two"
    path.unlink()
    assert handler.get("/a.txt").status == 404
    write(path, b"three")
    assert handler.content("/a.txt") == b"three"


def test_a_longer_time_between_two_looks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one")
    handler = Ticking(("/", tmp_path), revalidate=5)
    assert handler.content("/a.txt") == b"one"
    replace(path, b"two")
    for _ in range(4):
        handler.tick()
        assert handler.content("/a.txt") == b"one"
    handler.tick()  # five seconds later at the latest
    assert handler.content("/a.txt") == b"two"


# --- descriptors ----------------------------------------------------------------------------------------------------


@pytest.fixture
def few_descriptors() -> Iterator[Callable[[int], None]]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def leave(count: int) -> None:
        """Allow so many descriptors more than are open."""
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        while not held or held[-1] <= highest:  # no gap may be left below
            held.append(os.open("/dev/null", os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1 + count, limits[1]))

    held: list[int] = []
    yield leave
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for fd in held:
        os.close(fd)


def test_a_shortage_of_descriptors(tmp_path: Path, few_descriptors: Callable[[int], None]) -> None:
    for number in range(10):
        write(tmp_path / f"{number}.bin", BIG + bytes([number]))
    handler = Ticking(("/", tmp_path), max_descriptors=100)
    few_descriptors(4)
    for number in range(10):  # those that are only cached are given up
        assert handler.content(f"/{number}.bin") == BIG + bytes([number])
    assert any("Too many open files" in message for message in handler.log)

    handler.tick()
    sending: list[Reply] = []
    while (reply := handler.get(f"/{len(sending)}.bin")).status == 200:
        sending.append(reply)
    assert 0 < len(sending) < 10
    assert (reply.status, fields_of(reply)["Retry-After"]) == (503, "1")
    assert [content_of(one)[-1] for one in sending] == list(range(len(sending)))
    number = len(sending)
    sending.clear()
    assert handler.content(f"/{number}.bin")[-1] == number


def test_a_root_is_not_lost_for_want_of_a_descriptor(tmp_path: Path, few_descriptors: Callable[[int], None]) -> None:
    for name in ("one", "two"):
        write(tmp_path / name / "a.txt", name.encode())
    link = tmp_path / "current"
    link.symlink_to("one")
    handler = Ticking(("/", link))
    assert handler.content("/a.txt") == b"one"
    link.unlink()
    link.symlink_to("two")
    few_descriptors(0)
    handler.tick()
    assert handler.content("/a.txt") == b"one"
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0] + 8, limits[1]))
    handler.tick()
    assert handler.content("/a.txt") == b"two"


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_cannot_be_opened_just_now(tmp_path: Path, alone: bool, number: int) -> None:
    write(tmp_path / "a.txt", b"a")
    fails = True

    def opener(root_fd: int, name: bytes) -> int:
        if fails:
            raise OSError(number, os.strerror(number))
        return open_by_walk(root_fd, name)

    handler = Ticking(("/", tmp_path), alone=alone, opener=opener)
    for method in ("GET", "HEAD"):
        reply = handler.get("/a.txt", method)
        assert reply.status == 503
        assert fields_of(reply)["Retry-After"] == "1"
        assert fields_of(reply)["Cache-Control"] == "no-cache"
    if alone:
        assert handler.get("/a.txt", "POST").status == 503
    fails = False
    assert handler.content("/a.txt") == b"a"  # it was not taken for missing


@pytest.mark.parametrize("number", [errno.EACCES, errno.EXDEV, errno.ELOOP, errno.ENXIO, errno.EIO, errno.EOVERFLOW])
def test_every_other_error_is_a_miss(tmp_path: Path, number: int) -> None:
    write(tmp_path / "a.txt", b"a")

    def opener(root_fd: int, name: bytes) -> int:
        raise OSError(number, os.strerror(number))

    assert Ticking(("/", tmp_path), opener=opener).get("/a.txt").status == 404
    assert Ticking(("/", tmp_path), opener=opener, alone=False).ask("/a.txt") is None


def test_no_descriptor_is_left_behind(site: Path) -> None:
    gc.collect()
    before = open_descriptors()
    handler = Ticking(("/", site), max_descriptors=0)
    for path, _ in FOUND:
        handler.get(path)
    for path in (*MISSING, *REFUSED, "/d", "/l", "/.git", "/m", "/sp%20ace"):
        handler.get(path)
        handler.tick()
    assert open_descriptors() == before + 1
    del handler
    assert open_descriptors() == before


@pytest.mark.parametrize("limit", [0, 3, 8])
def test_descriptors_are_bounded(tmp_path: Path, limit: int) -> None:
    for number in range(20):
        write(tmp_path / f"{number}.bin", BIG + bytes([number]))
    gc.collect()
    none = open_descriptors()
    handler = Ticking(("/", tmp_path), max_descriptors=limit)
    before = open_descriptors()
    for _ in range(3):
        for number in range(20):
            assert handler.content(f"/{number}.bin")[-1] == number
            assert open_descriptors() <= before + limit
        handler.tick()
    assert open_descriptors() == before + limit - limit // 4
    del handler
    assert open_descriptors() == none
