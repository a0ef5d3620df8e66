"""static.handler: from a path to a file, over real directories. STATIC.md sections 1, 2 and 8."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.config.values import StaticMount
from epollwsgi.errors import ConfigError
from epollwsgi.static.beneath import open_by_kernel, open_by_walk
from epollwsgi.static.handler import StaticHandler
from tests.static.rows import FOUND, MISSING, REFUSED
from tests.static.support import COMMON, FILES, Ticking, build_site, content_of, fields_of, write


@pytest.mark.parametrize(("path", "name"), FOUND)
def test_found(alone: Ticking, beside: Ticking, path: str, name: str) -> None:
    for handler in (alone, beside):
        reply = handler.get(path)
        assert reply.status == 200
        assert content_of(reply) == FILES[name]
        assert fields_of(reply)["Content-Length"] == str(len(FILES[name]))


@pytest.mark.parametrize("path", MISSING, ids=lambda path: path[:30])
def test_missing(alone: Ticking, beside: Ticking, path: str) -> None:
    reply = alone.get(path)
    assert reply.status == 404
    assert b"secret" not in reply.head + content_of(reply)
    assert beside.ask(path) is None
    assert beside.ask(path) is None  # from memory too


@pytest.mark.parametrize("path", REFUSED)
def test_refused(alone: Ticking, beside: Ticking, path: str) -> None:
    opened = len(alone.opened)
    assert alone.get(path).status == 400
    assert alone.get(path, "HEAD").body == b""
    assert beside.ask(path) is None
    assert len(alone.opened) == opened


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dir.html").mkdir()
    (tmp_path / "index.html").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    handler = Ticking(("/", tmp_path))
    for path in ("/fifo", "/dir", "/null", "/"):
        assert handler.get(path).status == 404


def test_unreadable_and_oddly_named_files(tmp_path: Path) -> None:
    write(tmp_path / "secret.txt", b"x").chmod(0)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.txt")).write_bytes(b"bytes")
    write(tmp_path / "a\\b\r\n%41.txt", b"odd")
    handler = Ticking(("/", tmp_path))
    assert handler.content("/%ff%fe.txt") == b"bytes"
    assert handler.content("/a%5cb%0d%0a%2541.txt") == b"odd"
    user = os.geteuid()
    try:
        if user == 0:
            tmp_path.chmod(0o755)
            os.seteuid(65534)
        assert handler.get("/secret.txt").status == 404
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("opener", [None, open_by_kernel, open_by_walk])
def test_links(tmp_path: Path, opener: Any) -> None:
    root = build_site(tmp_path / "root")
    write(tmp_path / "outside" / "index.html", b"outside")
    for link, target in {
        "in": "a.txt",
        "in_dir": "d",
        "up_and_down": "d/../a.txt",
        "out": "../outside/index.html",
        "out_dir": "../outside",
        "back": "../root/a.txt",
        "abs": str(root / "a.txt"),
        "abs_dir": str(root / "d"),
        "gone": "nothing",
        "self": "self",
    }.items():
        (root / link).symlink_to(target)
    more = {} if opener is None else {"opener": opener}
    handler = StaticHandler([StaticMount("/", str(root))], alone=True, revalidate=1, log=print, **more)
    handler.on_tick(1, COMMON)

    def status(path: str) -> int:
        reply = handler.answer("GET", path, "", {})
        assert reply is not None
        assert b"outside" not in content_of(reply)
        return reply.status

    assert [status(path) for path in ("/in", "/in_dir/", "/in_dir/b.txt", "/up_and_down")] == [200] * 4
    assert status("/in_dir") == 301
    for path in ("/out", "/out_dir", "/out_dir/", "/out_dir/index.html", "/back", "/abs", "/abs_dir", "/abs_dir/"):
        assert status(path) == 404
    assert [status(path) for path in ("/gone", "/self")] == [404, 404]


# --- mounts ---------------------------------------------------------------------------------------------------------


def test_the_longest_prefix_wins(tmp_path: Path) -> None:
    for name in ("root", "assets", "deep"):
        write(tmp_path / name / "a.txt", name.encode())
    write(tmp_path / "root" / "assets" / "only-root.txt", b"hidden by the longer prefix")
    write(tmp_path / "root" / "assetsx", b"another name")
    write(tmp_path / "assets" / ".well-known" / "x", b"secret")
    mounts = [("/", tmp_path / "root"), ("/assets/deep", tmp_path / "deep"), ("/assets", tmp_path / "assets")]
    for ordered in (mounts, mounts[::-1]):
        handler = Ticking(*ordered)
        assert handler.content("/a.txt") == b"root"
        assert handler.content("/assets/a.txt") == b"assets"
        assert handler.content("/assets/deep/a.txt") == b"deep"
        assert handler.content("/assets/deep/../a.txt") == b"assets"
        assert handler.content("/assets/../a.txt") == b"root"
        assert handler.content("/%61ssets/a.txt") == b"assets"
        assert handler.content("/assetsx") == b"another name"
        assert handler.get("/assets/only-root.txt").status == 404
        assert handler.get("/assets/.well-known/x").status == 404
        assert handler.get("/assets/../../a.txt").status == 400


def test_beside_an_application_a_miss_under_a_prefix_is_its_own(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"a")
    write(tmp_path / "404.html", b"not for the application")
    handler = Ticking(("/assets", tmp_path), alone=False)
    assert handler.content("/assets/a.txt") == b"a"
    for path in ("/assets/none", "/assets", "/assets/", "/a.txt", "/", "/assets/../a.txt", "/assetsx", "/assets/..%2f"):
        assert handler.ask(path) is None
    alone = Ticking(("/assets", tmp_path))
    assert alone.content("/assets/a.txt") == b"a"
    assert content_of(alone.get("/assets/none")) == b"not for the application"
    assert alone.get("/a.txt").status == 404
    assert b"Not found" in alone.get("/a.txt").body
    assert alone.get("/assets").status == 301


def test_a_prefix_with_a_dot_is_what_the_operator_wants(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"a")
    handler = Ticking(("/.files", tmp_path))
    assert handler.content("/.files/a.txt") == b"a"


def test_a_missing_root_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot serve the directory .*/none: No such file or directory"):
        Ticking(("/", tmp_path / "none"))
