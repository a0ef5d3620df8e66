"""`epollwsgi check`: one line for each mistake, nothing for a site without any."""

from __future__ import annotations

import contextlib
import gzip
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from epollwsgi.codings import CODINGS, Coding, available
from epollwsgi.commands.tree import open_root, read_folder, walk
from tests.static.support import MODIFIED, write
from tests.static.tools import call_tool, command_line, make_text, run_tool
from tests.support import clean_environment, wait_until

TEXT = make_text(2000)
CLEAN = {
    "index.html": TEXT,
    "404.html": b"<title>lost</title>",
    "p.js": TEXT,
    "p.js.gz": gzip.compress(TEXT, mtime=0),
    "d/index.html": b"<title>d</title>",
    "d/a.txt": b"a",
    "archive.tar.gz": b"not a copy of anything",
    "gr\u00fcn.txt": b"green",
    ".well-known/security.txt": b"Contact: x",
    "_headers": b"/d/*\n  X-Team: one\n/LICENSE\n  Content-Type: text/plain\n",
    "_redirects": b"/old /d/ 302\n/blog/* /d/:splat\n/gone /404.html 404\n/elsewhere https://other.example/ 302\n",
    "LICENSE": b"a type that _headers gives",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, content in CLEAN.items():
        write(tmp_path / "site" / name, content)
    (tmp_path / "site" / "link.txt").symlink_to("d/a.txt")
    (tmp_path / "site" / "round").symlink_to("d")
    (tmp_path / "site" / "d" / "up").symlink_to("..")
    return tmp_path / "site"


Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """check(*options) of the site: the exit code and the lines for findings."""

    def call(*options: str) -> tuple[int, list[str]]:
        code, out, err = call_tool(monkeypatch, capsys, "check", *options, "./site", cwd=site.parent)
        assert err == ""
        *lines, summary = out.splitlines()
        assert summary.startswith("./site: ")
        assert (summary.startswith("./site: nothing found in ")) == (not lines)
        return code, lines

    return call


def test_a_site_without_mistakes(site: Path) -> None:
    done = run_tool("check", "./site", cwd=site.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"./site: nothing found in {len(CLEAN) + 3} files\n"
    assert run_tool("check", "site", cwd=site.parent).stdout == done.stdout
    assert run_tool("check", str(site), cwd=site).returncode == 0


def make_stale(site: Path) -> None:
    os.utime(site / "p.js.gz", (MODIFIED - 1, MODIFIED - 1))


def make_fifo(site: Path) -> None:
    os.mkfifo(site / "d" / "fifo")


def make_socket(site: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(site / "s"))  # sun_path is short


def put(name: str, content: bytes = b"x") -> Callable[[Path], object]:
    return lambda site: write(site / name, content)


def link(name: str, target: str) -> Callable[[Path], object]:
    return lambda site: (site / name).symlink_to(target)


# What is wrong, and the one line about it: where, what it is, what to do.
MISTAKES: list[tuple[Callable[[Path], object], str, str, str]] = [
    (make_stale, "p.js.gz", "older than its source", "epollwsgi compress"),
    (put("p.js.gz", gzip.compress(TEXT[::-1])), "p.js.gz", "a compressed copy of p.js", "epollwsgi compress"),
    (put("p.js.gz", gzip.compress(TEXT)[:-4]), "p.js.gz", "a compressed copy of p.js", "epollwsgi compress"),
    (put("p.js.gz", b""), "p.js.gz", "a compressed copy of p.js", "epollwsgi compress"),
    (
        # The trailer is right, which is all that a server looks at.
        put("p.js.gz", b"\x1f\x8b\x08" + bytes(50) + gzip.compress(TEXT)[-8:]),
        "p.js.gz",
        "corrupt",
        "epollwsgi compress",
    ),
    (put(".env"), ".env", "dot-file", "keep it out"),
    (put("d/.hidden"), "d/.hidden", "dot-file", "keep it out"),
    (put(".git/config"), ".git", "dot-directory", "keep it out"),
    (put(".well-known/.x"), ".well-known/.x", "dot-file", "keep it out"),
    (put("d/.well-known/x"), "d/.well-known", "dot-directory", "keep it out"),
    (put("data.unheard-of"), "data.unheard-of", "application/octet-stream", "Content-Type"),
    (put("CNAME"), "CNAME", "application/octet-stream", "Content-Type"),
    (put("INDEX.html"), "index.html", "INDEX.html by case only", "rename"),
    (put("D/x.txt"), "d", "D by case only", "rename"),
    (put("GR\u00dcN.txt"), "gr\u00fcn.txt", "GR\u00dcN.txt by case only", "rename"),
    (put("d/_redirects"), "d/_redirects", "no effect below the root", "keep it out"),
    (put("epollwsgi.toml"), "epollwsgi.toml", "never served", "keep it out"),
    (make_fifo, "d/fifo", "a FIFO", "remove it"),
    (make_socket, "s", "a socket", "remove it"),
    (link("out.txt", "../secret.txt"), "out.txt", "leaves the site", "relative"),
    (link("absolute.txt", "/etc/hostname"), "absolute.txt", "leaves the site", "relative"),
    (link("back.txt", "../site/d/a.txt"), "back.txt", "leaves the site", "relative"),
    (link("d/out", "../.."), "d/out", "leaves the site", "relative"),
    (link("dangling.txt", "nothing"), "dangling.txt", "leads nowhere", "correct it"),
    (link("loop", "loop"), "loop", "circle", "correct it"),
    (link("what", "LICENSE"), "what", "application/octet-stream", "Content-Type"),
    (put("odd\n\x1b[31m"), "odd\\n\\x1b[31m", "octet-stream", "Content-Type"),
    (put("_headers", b"/*\n  Date: x\n/LICENSE\n  Content-Type: a/b\n"), "_headers:2", "Date", "line"),
    (put("_headers", b"/LICENSE\n  Content-Type: a/b\n\nnonsense\n"), "_headers:4", "", "line"),
    (put("_redirects", b"/old /d/\n/only\n"), "_redirects:2", "", "line"),
    (put("_redirects", b"/old /d/ 299\n"), "_redirects:1", "299", "line"),
    (put("_redirects", b"/x/* https://:splat/ 302\n"), "_redirects:1", "", "line"),
    (put("_redirects", b"/one /two\n/two /d/ 302\n/self /self\n"), "_redirects:3", "leads to itself", "remove"),
    (put("_redirects", b"# grows\n/a/* /a/b/:splat 302\n"), "_redirects:2", "on and on", "straight"),
    (put("_redirects", b"/old /nowhere\n"), "_redirects:1", "/nowhere, which does not exist", "correct"),
    (put("_redirects", b"/d/a.txt /old\n"), "_redirects:1", "never applies", "301!"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "place", "what", "advice"), MISTAKES, ids=[f"{m[1]!r} {m[2][:30]}" for m in MISTAKES])
def test_a_mistake(
    site: Path, check: Check, make: Callable[[Path], object], place: str, what: str, advice: str
) -> None:
    make(site)
    code, lines = check()
    assert code == 1
    assert len(lines) == 1, lines
    found_place, found = lines[0].split(": ", 1)
    assert found_place == f"./site/{place}"
    assert what in found
    assert advice in found[found.index(what) :]


def test_a_circle_of_redirects_is_said_of_each_rule(site: Path, check: Check) -> None:
    write(site / "_redirects", b"/one /two\n/two /three 302\n/three /one 308\n/other /d/\n")
    code, lines = check()
    assert code == 1
    assert [line.partition(": ")[0] for line in lines] == [f"./site/_redirects:{number}" for number in (1, 2, 3)]
    assert all("/one to /two" in line or "/two to /three" in line for line in lines)


@pytest.mark.parametrize("coding", available(), ids=lambda coding: coding.token)
def test_copies_of_each_coding(site: Path, check: Check, coding: Coding) -> None:
    """A newer copy of another version is found by decoding it, which no server has the time for."""
    encoder = coding.encoder(len(TEXT))
    right = encoder.compress(TEXT) + encoder.flush()
    path = site / f"d/a.js{coding.suffix.decode()}"
    write(site / "d/a.js", TEXT)
    write(path, right)
    assert check() == (0, [])
    for wrong in (right[:-1], right + b"x", b"nonsense"):
        write(path, wrong)
        assert len(check()[1]) == 1
    write(path, right, MODIFIED + 100)
    write(site / "d/a.js", TEXT[::-1])
    code, lines = check()
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"./site/d/a.js{coding.suffix.decode()}: a compressed copy of a.js, not to be used: ")


def test_everything_that_compress_writes_passes(site: Path, check: Check) -> None:
    assert run_tool("compress", "--force", "site", cwd=site.parent).returncode == 0
    assert len(list(site.glob("*.gz"))) > 2
    assert check() == (0, [])


def test_links_that_are_allowed(site: Path, check: Check) -> None:
    write(site.parent / "outside" / "x.txt", b"x")
    (site / "out").symlink_to("../outside")
    (site / "x.txt").symlink_to("../outside/x.txt")
    assert check()[0] == 1
    assert check("--follow-symlinks") == (0, [])


def test_the_rules_of_a_mount_are_those_below_its_prefix(site: Path) -> None:
    write(site / "_redirects", b"/one /two\n/two /one\n")
    (site.parent / "app.py").write_text("def app(environ, start_response):\n    return []\n")
    done = run_tool("check", "app:app", "--static", "/assets=./site", cwd=site.parent)
    assert done.returncode == 1
    assert "./site/_redirects:1: leads round in a circle" in done.stdout
    assert ".well-known" in done.stdout  # only allowed at the top of a site


def test_an_application_is_loaded(site: Path) -> None:
    (site.parent / "broken.py").write_text("import nonexistent_module_of_ours\n")
    (site.parent / "app.py").write_text("def app(environ, start_response):\n    return []\n")
    done = run_tool("check", "app:app", cwd=site.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "app:app: nothing found in 0 files\n"
    done = run_tool("check", "broken:app", cwd=site.parent)
    assert done.returncode == 3
    assert "nonexistent_module_of_ours" in done.stderr
    assert run_tool("check", "app:other", cwd=site.parent).returncode == 4
    done = run_tool("check", "app:app", "--static", "/=.", cwd=site.parent)
    assert done.returncode == 1
    assert "own module" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["nothing to check", "epollwsgi check --help"]),
        (["./nowhere"], 1, ["./nowhere", "No such file or directory"]),
        (["./site/p.js"], 1, ["./site/p.js", "this is a file"]),
        (["--nonsense", "./site"], 2, ["--nonsense", "epollwsgi check --help"]),
        (["./site", "./other"], 2, ["./other"]),
        (["--backlog", "many", "./site"], 1, ["backlog", "'many'"]),
        (["-c", "missing.toml", "./site"], 1, ["missing.toml"]),
    ],
)
def test_mistakes_on_the_command_line(site: Path, arguments: list[str], code: int, words: list[str]) -> None:
    done = run_tool("check", *arguments, cwd=site.parent)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("epollwsgi: ")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr


def test_settings_come_from_the_same_files(site: Path) -> None:
    (site.parent / "epollwsgi.toml").write_text('static = ["/=site"]\n')
    done = run_tool("check", cwd=site.parent)
    assert (done.returncode, done.stdout) == (0, f"site: nothing found in {len(CLEAN) + 3} files\n")


def test_help(site: Path) -> None:
    done = run_tool("check", "--help", cwd=site.parent)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: epollwsgi check [OPTIONS] [DIRECTORY|APP]\n")
    assert "--static" in done.stdout
    assert "--backlog" not in done.stdout  # understood, and of no interest here


def test_a_directory_with_an_odd_name(site: Path) -> None:
    odd = os.fsdecode(b"./\xff\n")
    site.rename(site.parent / odd)
    done = run_tool("check", odd, cwd=site.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("./\\xff\\n: nothing found in ")
    (site.parent / odd / ".env").touch()
    assert run_tool("check", odd, cwd=site.parent).stdout.startswith("./\\xff\\n/.env: a dot-file")


def test_a_reader_that_has_seen_enough(site: Path) -> None:
    for number in range(3000):
        (site / "d" / f"{number}.unheard-of").touch()
    script = "set -o pipefail; " + shlex.join(command_line("check", "./site")) + " | head -n 1"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=site.parent,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped(site: Path, number: signal.Signals) -> None:
    """No exit code 0 for a site that was not looked at to its end."""
    (site / "d" / "large.js").write_bytes(b"")
    os.truncate(site / "d" / "large.js", 1 << 34)  # 16 GiB without a block on disk: its check sum takes long
    write(site / "d" / "large.js.gz", gzip.compress(b""), time.time() + 100)
    process = subprocess.Popen(
        command_line("check", "./site"),
        cwd=site.parent,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        large = str(site / "d" / "large.js")
        wait_until(lambda: large in open_files(process.pid), 30, "the large file to be read")
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (1, "", "epollwsgi check: stopped\n")


def open_files(pid: int) -> set[str]:
    """What a process has open."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(fd))
    return found


# --- trees without end ----------------------------------------------------------------------------------------------


def test_many_findings_are_cut(site: Path) -> None:
    for number in range(10_050):
        (site / "d" / f"{number}.unheard-of").touch()
    done = run_tool("check", "./site", cwd=site.parent)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert len(lines) == 10_001
    assert lines[-1] == "... and more: 10000 findings are shown"


def test_a_walk_is_bounded(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path / f"d{number:02}" / "a.txt", b"a")
    root = open_root(str(tmp_path))
    folders = list(walk(root, max_entries=25))
    assert [folder.error for folder in folders if folder.error] == [
        "there are too many files: the rest was not looked at"
    ]
    assert sum(len(folder.entries) for folder in folders) == 25
    folders = list(walk(root, max_entries=40))
    assert [folder.error for folder in folders if folder.error] == []
    assert sum(len(folder.entries) for folder in folders) == 40
    folders = list(walk(root, max_entries=5))
    assert len(folders) == 1
    assert folders[0].error


def test_a_tree_too_deep_for_a_path(site: Path, check: Check) -> None:
    """Its files cannot be asked for either: the kernel takes no path of 4096 bytes."""
    fd = os.open(site / "d", os.O_PATH)
    for _ in range(22):
        os.mkdir("n" * 200, dir_fd=fd)
        deeper = os.open("n" * 200, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    code, lines = check()
    assert code == 1
    assert len(lines) == 1
    assert "File name too long" in lines[0]


def test_a_directory_that_goes_away(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.txt", b"a")
    root = open_root(str(tmp_path))
    found = walk(root)
    assert next(found).path == b""
    (tmp_path / "d" / "a.txt").unlink()
    (tmp_path / "d").rmdir()
    assert [folder.error for folder in found] == ["No such file or directory"]
    assert read_folder(root, b"none", 10).error == "No such file or directory"


def test_a_directory_that_becomes_a_link_is_not_walked_out_of(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "secret.txt", b"x")
    write(tmp_path / "site" / "d" / "a.txt", b"a")
    found = walk(open_root(str(tmp_path / "site")))
    next(found)
    (tmp_path / "site" / "d").rename(tmp_path / "site" / "e")
    (tmp_path / "site" / "d").symlink_to("../outside")
    assert [(folder.entries, folder.error) for folder in found] == [([], "Invalid cross-device link")]


def test_every_coding_has_its_suffix_checked() -> None:
    assert {coding.suffix for coding in CODINGS} == {b".br", b".zst", b".gz"}
