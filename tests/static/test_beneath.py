"""static.beneath: the same table of rules for the kernel's way and for the walk. STATIC.md section 1."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from epollwsgi.errors import ConfigError
from epollwsgi.static.beneath import (
    MAX_LINKS,
    Opener,
    OpenFile,
    Root,
    open_by_kernel,
    open_by_walk,
    probe_openat2,
)
from tests.static.support import open_descriptors
from tests.support import ROOT, clean_environment

has_openat2 = pytest.mark.skipif(probe_openat2() != 0, reason="this kernel or sandbox refuses openat2")
both_ways = pytest.mark.parametrize(
    "opener", [pytest.param(open_by_kernel, marks=has_openat2, id="kernel"), pytest.param(open_by_walk, id="walk")]
)

LINKS = {
    "to_file": "a.txt",
    "to_dir": "d",
    "to_dir_slash": "d/",
    "to_dir_dots": "./d/.//",
    "d/up": "../a.txt",
    "d/up_dir": "..",
    "chain": "to_dir/up",
    "through": "d/e/../../a.txt",
    "d/e/deep": "../../to_dir/b.txt",
    "file_slash": "a.txt/",
    "file_dot": "a.txt/.",
    "dangling": "nothing",
    "loop": "loop",
    "loop_a": "loop_b",
    "loop_b": "loop_a",
    "absolute": "/etc/hostname",
    "out": "../outside/secret",
    "out_dir": "../outside",
    "out_and_back": "../root/a.txt",
    "d/out": "../../outside/secret",
    "d/out_and_back": "../../root/a.txt",
    "via_out_dir": "out_dir/secret",
    "magic": "/proc/self/root",
}

ROWS: list[tuple[bytes, bytes | int]] = [
    (b"a.txt", b"a"),
    (b"d/b.txt", b"b"),
    (b"d/e/c.txt", b"c"),
    (b"d//e/./c.txt", b"c"),
    (b"d/../a.txt", b"a"),
    (b"d/e/../../a.txt", b"a"),
    (b"\xff\xfe", b"bytes"),
    (b"a\\b", b"backslash"),
    # links that stay beneath the root
    (b"to_file", b"a"),
    (b"to_dir/b.txt", b"b"),
    (b"to_dir_slash/b.txt", b"b"),
    (b"to_dir_dots/e/c.txt", b"c"),
    (b"d/up", b"a"),
    (b"to_dir/up", b"a"),
    (b"d/up_dir/a.txt", b"a"),
    (b"to_dir/up_dir/to_dir/b.txt", b"b"),
    (b"chain", b"a"),
    (b"through", b"a"),
    (b"d/e/deep", b"b"),
    # directories
    (b".", errno.EISDIR),
    (b"d", errno.EISDIR),
    (b"d/", errno.EISDIR),
    (b"d/..", errno.EISDIR),
    (b"to_dir", errno.EISDIR),
    (b"to_dir/", errno.EISDIR),
    (b"to_dir_slash", errno.EISDIR),
    (b"d/up_dir", errno.EISDIR),
    # what is not there
    (b"", errno.ENOENT),
    (b"nothing", errno.ENOENT),
    (b"A.TXT", errno.ENOENT),
    (b"a.txt.", errno.ENOENT),
    (b"nothing/a.txt", errno.ENOENT),
    (b"d/nothing", errno.ENOENT),
    (b"dangling", errno.ENOENT),
    (b"dangling/x", errno.ENOENT),
    (b"a.txt/", errno.ENOTDIR),
    (b"a.txt/b", errno.ENOTDIR),
    (b"a.txt/..", errno.ENOTDIR),
    (b"to_file/b", errno.ENOTDIR),
    (b"file_slash", errno.ENOTDIR),
    (b"file_dot", errno.ENOTDIR),
    (b"x" * 256, errno.ENAMETOOLONG),
    (b"d/../" * 818 + b"a.txt", b"a"),  # 4,095 bytes
    (b"d/../" * 818 + b"/a.txt", errno.ENAMETOOLONG),
    (b"x/" * 4000, errno.ENAMETOOLONG),
    (b"socket", errno.ENXIO),
    # loops
    (b"loop", errno.ELOOP),
    (b"loop/x", errno.ELOOP),
    (b"loop_a", errno.ELOOP),
    (b"link0", b"a"),  # MAX_LINKS links
    (b"one_more", errno.ELOOP),
    # what leads out
    (b"..", errno.EXDEV),
    (b"../outside/secret", errno.EXDEV),
    (b"../root/a.txt", errno.EXDEV),
    (b"d/../../outside/secret", errno.EXDEV),
    (b"d/../../root/a.txt", errno.EXDEV),
    (b"/etc/hostname", errno.EXDEV),
    (b"//a.txt", errno.EXDEV),
    (b"absolute", errno.EXDEV),
    (b"inside_but_absolute", errno.EXDEV),
    (b"out", errno.EXDEV),
    (b"out_dir", errno.EXDEV),
    (b"out_dir/secret", errno.EXDEV),
    (b"out_and_back", errno.EXDEV),
    (b"d/out", errno.EXDEV),
    (b"d/out_and_back", errno.EXDEV),
    (b"to_dir/out", errno.EXDEV),
    (b"via_out_dir", errno.EXDEV),
    (b"magic", errno.EXDEV),
    (b"magic/etc/hostname", errno.EXDEV),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("beneath")
    root = base / "root"
    (root / "d" / "e").mkdir(parents=True)
    (base / "outside").mkdir()
    (base / "outside" / "secret").write_bytes(b"secret")
    for name, content in ((b"a.txt", b"a"), (b"d/b.txt", b"b"), (b"d/e/c.txt", b"c"), (b"\xff\xfe", b"bytes")):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(content)
    (root / "a\\b").write_bytes(b"backslash")
    for link, target in LINKS.items():
        (root / link).symlink_to(target)
    (root / "inside_but_absolute").symlink_to(root / "a.txt")
    (root / "one_more").symlink_to("link0")
    for number in range(MAX_LINKS):
        (root / f"link{number}").symlink_to("a.txt" if number == MAX_LINKS - 1 else f"link{number + 1}")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        where = os.open(root, os.O_PATH)
        sock.bind(f"/proc/self/fd/{where}/socket")  # tmp_path may be longer than an address may be
        os.close(where)
    return root


@pytest.fixture
def root_fd(tree: Path) -> Iterator[int]:
    fd = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def read(opener: Opener, root_fd: int, path: bytes) -> bytes | int:
    """Content of the file, or the number of the error; EISDIR for a directory."""
    try:
        fd = opener(root_fd, path)
    except OSError as error:
        return error.errno or 0
    try:
        return os.read(fd, 100)
    except IsADirectoryError:
        return errno.EISDIR
    finally:
        os.close(fd)


@both_ways
@pytest.mark.parametrize(("path", "expected"), ROWS, ids=[repr(path[:40])[2:-1] for path, _ in ROWS])
def test_rules(opener: Opener, root_fd: int, path: bytes, expected: bytes | int) -> None:
    before = open_descriptors()
    assert read(opener, root_fd, path) == expected
    assert open_descriptors() == before


@both_ways
def test_descriptors_are_closed_on_exec_and_never_wait(opener: Opener, root_fd: int) -> None:
    fd = opener(root_fd, b"a.txt")
    assert not os.get_inheritable(fd)
    os.close(fd)
    fd = opener(root_fd, b"fifo")  # returns at once although nobody writes
    assert not os.get_blocking(fd)
    os.close(fd)


@both_ways
def test_a_directory_that_cannot_be_read_can_be_passed_through(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"a")
    tmp_path.chmod(0o755)
    (tmp_path / "d").chmod(0o311)
    fd = os.open(tmp_path, os.O_PATH)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read every directory
        assert read(opener, fd, b"d/a") == b"a"
        assert read(opener, fd, b"d") == errno.EACCES
    finally:
        os.seteuid(user)
        os.close(fd)
        (tmp_path / "d").chmod(0o755)


@both_ways
def test_what_is_renamed_meanwhile_never_leads_out(opener: Opener, tmp_path: Path) -> None:
    """A link, and a directory on the way, are swapped for ones that lead out, all the time."""
    (tmp_path / "out" / "x").mkdir(parents=True)
    (tmp_path / "out" / "x" / "name").write_bytes(b"secret")
    (tmp_path / "out" / "name").write_bytes(b"secret")
    root = tmp_path / "root"
    (root / "in" / "x").mkdir(parents=True)
    (root / "in" / "x" / "name").write_bytes(b"public")
    (root / "good").symlink_to("in")
    (root / "bad").symlink_to("../out")
    (root / "absolute").symlink_to(tmp_path / "out")
    (root / "dir" / "x").mkdir(parents=True)
    (root / "dir" / "x" / "name").write_bytes(b"public")
    (root / "dir" / "x" / "up").symlink_to("../x/name")
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set() and swaps < 100_000:
            for source in ("good", "bad", "absolute"):
                os.link(root / source, root / "new", follow_symlinks=False)
                os.replace(root / "new", root / "link")
                (root / "link2").unlink(missing_ok=True)
                os.link(root / source, root / "link2", follow_symlinks=False)
            os.rename(root / "dir", root / "dir2")
            os.symlink("../out", root / "dir")
            os.unlink(root / "dir")
            os.rename(root / "dir2", root / "dir")
            swaps += 1

    thread = threading.Thread(target=swap)
    fd = os.open(root, os.O_PATH)
    seen: dict[bytes | int, int] = {}
    before = open_descriptors()
    thread.start()
    try:
        end_at = time.monotonic() + 0.8
        while time.monotonic() < end_at:
            for path in (b"link/x/name", b"link2/x/name", b"dir/x/name", b"dir/x/up", b"link/x/../x/name"):
                result = read(opener, fd, path)
                seen[result] = seen.get(result, 0) + 1
    finally:
        stop.set()
        thread.join()
        os.close(fd)
    assert swaps > 0
    assert seen.get(b"public")
    assert seen.get(errno.EXDEV)
    assert set(seen) <= {b"public", errno.EXDEV, errno.ENOENT, errno.EAGAIN, errno.ELOOP, errno.ENOTDIR}
    assert open_descriptors() == before - 1


def test_an_open_file_lives_as_long_as_its_last_holder(tree: Path) -> None:
    fd = os.open(tree / "a.txt", os.O_RDONLY)
    first = OpenFile(fd)
    second = first
    del first
    assert os.fstat(fd).st_size == 1
    del second
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# --- roots ------------------------------------------------------------------------------------------------------------


def content(root: Root, name: bytes = b"a.txt") -> bytes:
    fd = root.open(name)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", ["nothing", "file", "nothing/more"])
def test_a_root_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"cannot serve the directory .*: (No such file|Not a directory)"):
        Root(str(tmp_path / name))


@both_ways
def test_a_root_follows_its_name(tmp_path: Path, opener: Opener) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_bytes(name.encode())
    link = tmp_path / "current"
    link.symlink_to("one")
    before = open_descriptors()
    root = Root(str(link), opener)
    assert content(root) == b"one"
    assert not root.refresh()

    link.unlink()
    link.symlink_to("two")
    assert content(root) == b"one"  # until it is looked up again
    assert root.refresh()
    assert content(root) == b"two"
    assert not root.refresh()

    link.unlink()
    assert root.refresh()
    assert root.fd == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        content(root)
    assert not root.refresh()

    link.symlink_to("one")
    assert root.refresh()
    assert content(root) == b"one"
    assert open_descriptors() == before + 1
    del root
    assert open_descriptors() == before


def test_a_relative_root_stays_where_it_was_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.txt").write_bytes(b"a")
    monkeypatch.chdir(tmp_path)
    root = Root("site")
    monkeypatch.chdir("/")
    assert not root.refresh()
    assert content(root) == b"a"


# --- where openat2 is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM, errno.EACCES])
def test_a_refusal_is_logged_and_the_walk_is_taken(tree: Path, error: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.static.sandboxed", str(error), str(tree)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("seccomp is not available here")
    assert (done.returncode, done.stderr) == (0, "")
    log, *lines = done.stdout.splitlines()
    assert log == f"openat2 is not available ({os.strerror(error)}): static files are opened component by component"
    assert lines == ["/a.txt 200", "/d/up 200", "/out 404", "/absolute 404", "/d/e/deep 200"]


def test_both_ways_agree_on_any_path(root_fd: int) -> None:
    """Every path of up to three of these components, by both ways."""
    if probe_openat2() != 0:
        pytest.skip("this kernel or sandbox refuses openat2")
    parts = (b"a.txt", b"d", b"e", b"..", b".", b"", b"to_dir", b"up_dir", b"out_dir", b"up", b"absolute", b"root")
    paths = [b"/".join((one, two, three)) for one in parts for two in parts for three in parts]
    walked = [read(open_by_walk, root_fd, path) for path in paths]
    assert walked == [read(open_by_kernel, root_fd, path) for path in paths]
