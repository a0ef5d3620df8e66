"""`epollwsgi compress`: what is written, what is kept, and that nothing half done is ever seen."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from epollwsgi.codings import CODINGS, Coding, available
from epollwsgi.commands.copies import Job, Outcome, Result, Unfinished, remove_unfinished, write_copy
from tests.connections import Client
from tests.static.support import MODIFIED, write
from tests.static.tools import command_line, make_noise, make_text, run_tool, without_modules
from tests.support import ServerFactory, clean_environment, wait_until

PLAIN = make_text(5000)
FILES = {
    "index.html": PLAIN,
    "p.js": make_text(3000, 2),
    "d/style.css": make_text(2000, 3),
    "d/exact.svg": make_text(512, 4),
    "d/short.svg": make_text(511, 5),
    "photo.png": PLAIN,
    "no-extension": PLAIN,
    "noise.txt": make_noise(2000),
    "archive.tar.gz": make_noise(2000),
    ".hidden.txt": PLAIN,
    ".cache/config.txt": PLAIN,
    "_headers": PLAIN,
    "_redirects": PLAIN,
}
WORTH_IT = ("index.html", "p.js", "d/style.css", "d/exact.svg")
CODED = [f"{name}{coding.suffix.decode()}" for name in WORTH_IT for coding in available()]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for number, (name, content) in enumerate(FILES.items()):
        path = write(tmp_path / "site" / name, content, MODIFIED)
        os.utime(path, ns=(1, MODIFIED * 1_000_000_000 + 123_456_789 + number))
        path.chmod(0o640)
    return tmp_path / "site"


def all_files(site: Path) -> dict[str, Path]:
    return {path.relative_to(site).as_posix(): path for path in site.rglob("*") if not path.is_dir()}


def written_by_us(site: Path) -> list[str]:
    return sorted(set(all_files(site)) - set(FILES))


def decode(path: Path) -> bytes:
    coding = next(coding for coding in CODINGS if os.fsencode(path).endswith(coding.suffix))
    return b"".join(coding.decode([path.read_bytes()]))


def identities(site: Path) -> dict[str, tuple[int, int]]:
    return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in all_files(site).items()}


def test_what_is_written(site: Path) -> None:
    done = run_tool("compress", "./site", cwd=site.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert written_by_us(site) == sorted(CODED)
    for name in CODED:
        source, copy = site / name.rpartition(".")[0], site / name
        assert decode(copy) == source.read_bytes()
        assert copy.stat().st_size < source.stat().st_size
        assert copy.stat().st_mtime_ns == source.stat().st_mtime_ns
        assert copy.stat().st_mode == source.stat().st_mode
        assert copy.stat().st_nlink == 1
    assert done.stdout.startswith("./site: 5 files worth compressing, 12.5 kB\n")
    assert len(re.findall(r"^  \.\w+ +4 written, 0 kept, 1 would not be smaller; ", done.stdout, re.MULTILINE)) == len(
        available()
    )


def test_the_server_sends_them(site: Path, server: ServerFactory) -> None:
    assert run_tool("compress", str(site), cwd=site.parent).returncode == 0
    running = server(str(site), "--allow-source")
    with Client(running.address) as client:
        for coding in available():
            request = f"GET /p.js HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding.token}\r\n\r\n".encode()
            response = client.request(request)
            assert response["Content-Encoding"] == coding.token
            assert b"".join(coding.decode([response.body])) == FILES["p.js"]


def test_only_what_changed_is_written_again(site: Path) -> None:
    run_tool("compress", "site", cwd=site.parent)
    before = identities(site)
    done = run_tool("compress", "site", cwd=site.parent)
    assert done.returncode == 0
    assert identities(site) == before
    assert re.search(r"^  \.gz +0 written, 4 kept, 1 would not be smaller; ", done.stdout, re.MULTILINE)
    write(site / "p.js", make_text(4000, 9), MODIFIED + 10)
    assert run_tool("compress", "site", cwd=site.parent).returncode == 0
    after = identities(site)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"p.js", *(name for name in CODED if name.startswith("p.js"))}
    assert decode(site / "p.js.gz") == make_text(4000, 9)
    assert run_tool("compress", "--force", "site", cwd=site.parent).returncode == 0
    forced = identities(site)
    assert {name for name in after if forced[name] != after[name]} == set(CODED)


def test_a_copy_of_an_older_file_is_renewed_whatever_its_time(site: Path) -> None:
    """The file was replaced by an older one: the copy is newer, and still wrong."""
    run_tool("compress", "site", cwd=site.parent)
    write(site / "p.js", make_text(3000, 7), MODIFIED - 1000)
    assert run_tool("compress", "site", cwd=site.parent).returncode == 0
    for coding in available():
        copy = site / f"p.js{coding.suffix.decode()}"
        assert decode(copy) == make_text(3000, 7)
        assert copy.stat().st_mtime_ns == (site / "p.js").stat().st_mtime_ns


def test_the_copies_of_others_are_kept_if_right(site: Path) -> None:
    run_tool("compress", "site", cwd=site.parent)
    for name in CODED:
        os.utime(site / name, (MODIFIED + 5, MODIFIED + 5))
    (site / "p.js.gz").write_bytes(b"\x1f\x8b broken")
    before = identities(site)
    assert run_tool("compress", "site", cwd=site.parent).returncode == 0
    after = identities(site)
    assert {name for name in before if after[name] != before[name]} == {"p.js.gz"}
    assert decode(site / "p.js.gz") == FILES["p.js"]


def test_a_stale_copy_that_would_not_be_smaller_goes(site: Path) -> None:
    write(site / "noise.txt.gz", b"stale", MODIFIED - 5)
    assert run_tool("compress", "site", cwd=site.parent).returncode == 0
    assert not (site / "noise.txt.gz").exists()


def test_copies_of_vanished_files_are_named(site: Path) -> None:
    run_tool("compress", "site", cwd=site.parent)
    (site / "p.js").unlink()
    done = run_tool("compress", "site", cwd=site.parent)
    assert done.returncode == 0
    for coding in available():
        assert f"\np.js{coding.suffix.decode()}: there is no file that it is a copy of" in done.stdout
    assert "archive.tar" not in done.stdout
    assert (site / "p.js.gz").exists()


def test_any_number_of_processes_writes_the_same(site: Path) -> None:
    seen = []
    for jobs in ("1", "2", "7"):
        assert run_tool("compress", "--force", "-j", jobs, "site", cwd=site.parent).returncode == 0
        seen.append({name: path.read_bytes() for name, path in all_files(site).items()})
    assert seen[0] == seen[1] == seen[2]


def test_links_are_left_alone(site: Path) -> None:
    outside = write(site.parent / "outside" / "o.txt", PLAIN)
    target = write(site.parent / "outside" / "target", b"precious")
    (site / "linked").symlink_to("../outside")
    (site / "loop").symlink_to(".")
    (site / "file.txt").symlink_to("index.html")
    (site / "p.js.gz").symlink_to("../outside/target")
    assert run_tool("compress", "site", cwd=site.parent).returncode == 0
    assert sorted(path.name for path in outside.parent.iterdir()) == ["o.txt", "target"]
    assert target.read_bytes() == b"precious"
    assert not (site / "p.js.gz").is_symlink()
    assert not (site / "file.txt.gz").exists()


def test_odd_names(site: Path) -> None:
    name = os.fsdecode(b"\xff\xfe\n\\odd.txt")
    write(site / name, PLAIN)
    done = run_tool("compress", "site", cwd=site.parent)
    assert done.returncode == 0
    assert decode(site / f"{name}.gz") == PLAIN
    (site / name).unlink()
    assert "\n\\xff\\xfe\\n\\\\odd.txt.gz: there is no file" in run_tool("compress", "site", cwd=site.parent).stdout


def test_what_cannot_be_written_is_said(site: Path) -> None:
    (site / "p.js.gz" / "x").mkdir(parents=True)
    done = run_tool("compress", "site", cwd=site.parent)
    assert done.returncode == 1
    assert done.stderr == f"p.js.gz: {os.strerror(errno.EISDIR)}\n"
    assert [name for name in CODED if name != "p.js.gz"] == [name for name in CODED if (site / name).is_file()]
    assert written_by_us(site) == sorted(name for name in CODED if name != "p.js.gz")


def test_a_disk_that_is_full_leaves_nothing(site: Path) -> None:
    done = run_tool("compress", "site", cwd=site.parent, limits="FSIZE=100")
    assert done.returncode == 1
    assert f": {os.strerror(errno.EFBIG)}\n" in done.stderr
    assert written_by_us(site) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["DIRECTORY", "epollwsgi compress --help"]),
        (["nowhere"], 1, ["nowhere", "No such file or directory"]),
        (["site/p.js"], 1, ["site/p.js", "this is a file"]),
        (["-j", "0", "site"], 2, ["--jobs", "1<=x<=256"]),
        (["--nonsense", "site"], 2, ["--nonsense"]),
        (["source"], 1, ["source", "pyproject.toml", "--allow-source"]),
    ],
)
def test_mistakes(site: Path, arguments: list[str], code: int, words: list[str]) -> None:
    write(site.parent / "source" / "pyproject.toml", b"")
    done = run_tool("compress", *arguments, cwd=site.parent)
    assert done.returncode == code
    assert done.stderr.startswith("epollwsgi: ")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert done.stdout == ""


def test_only_gzip_where_nothing_else_is_installed(site: Path, tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    env = without_modules(tmp_path / "modules", ("brotli", "brotlicffi", "zstandard", "backports", "compression"))
    done = run_tool("compress", "site", cwd=site.parent, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert written_by_us(site) == sorted(f"{name}.gz" for name in WORTH_IT)
    assert "  .br   not written: brotli is not installed (pip install 'epollwsgi[compress]')\n" in done.stdout
    assert "  .zst  not written: zstandard is not installed" in done.stdout


# --- the terminal, and interruptions --------------------------------------------------------------------------------


def test_a_progress_bar_on_a_terminal_only(site: Path) -> None:
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            command_line("compress", "site"),
            cwd=site.parent,
            env=clean_environment({"TERM": "xterm", "COLUMNS": "100"}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=slave,
        )
        os.close(slave)
        shown = b""
        end_at = time.monotonic() + 30
        while time.monotonic() < end_at:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    shown += os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
        out, _ = process.communicate(timeout=30)
    finally:
        os.close(master)
    assert process.returncode == 0
    assert b"compressing  [" in shown
    assert b"100%" in shown
    assert out.startswith(b"site: 5 files worth compressing")


@pytest.fixture
def large_site(tmp_path: Path) -> Path:
    """A site that keeps two processes busy for longer than any test waits, with a few files done soon."""
    for number in range(4):
        write(tmp_path / "site" / f"small{number}.txt", make_text(20_000, number))
    text = make_text(300_000 if any(coding.token == "br" for coding in available()) else 3_000_000, 99)
    for number in range(100):
        write(tmp_path / "site" / f"large{number}.txt", text)
    return tmp_path / "site"


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted(large_site: Path, number: signal.Signals, jobs: str) -> None:
    process = subprocess.Popen(
        command_line("compress", "-j", jobs, "site"),
        cwd=large_site.parent,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:

        def copies() -> list[Path]:
            return [path for path in large_site.iterdir() if path.suffix != ".txt"]

        wait_until(copies, 60, "the first copy")
        children = children_of(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        for child in children:
            wait_until(lambda: is_gone(child), 30, "the end of a process")  # noqa: B023
    finally:
        process.kill()
        process.wait()
    if number != signal.SIGKILL:
        assert process.returncode == 1
        assert err == "stopped; run it again for the rest\n"
        assert "104 files worth compressing" in out
    for path in copies():
        assert path.suffix in (".br", ".zst", ".gz"), path
        assert decode(path) == path.with_suffix("").read_bytes()
    assert len(copies()) < 104 * len(available())


# --- one copy -------------------------------------------------------------------------------------------------------


def test_a_file_that_changes_meanwhile_gets_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", PLAIN)
    gzip = CODINGS[-1]

    class Appending:
        """An encoder in whose time something is added to the file."""

        def __init__(self, library: object, level: int) -> None:
            self.encoder = gzip.new_encoder(library, level)
            self.compress = self.encoder.compress

        def flush(self) -> bytes:
            with path.open("ab") as file:
                file.write(b"more")
            return self.encoder.flush()

    monkeypatch.setattr("epollwsgi.commands.copies.CODINGS", (replace(gzip, new_encoder=Appending),))
    job = Job(str(tmp_path), b"", b"a.txt", "gzip", len(PLAIN))
    assert write_copy(job) == Outcome(job, Result.CHANGED)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_where_files_without_a_name_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file system takes the flag for a wish to write to a directory. open(2)"""
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    write(tmp_path / "a.txt", PLAIN)
    write(tmp_path / "noise.txt", make_noise(1000))
    for name, size, result in ((b"a.txt", len(PLAIN), Result.WRITTEN), (b"noise.txt", 1000, Result.LARGER)):
        assert write_copy(Job(str(tmp_path), b"", name, "gzip", size)).result is result
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.txt.gz", "noise.txt"]
    assert decode(tmp_path / "a.txt.gz") == PLAIN
    fd = os.open(tmp_path, os.O_PATH)
    try:
        unfinished = Unfinished(fd)
        assert os.fsdecode(unfinished.name) in os.listdir(tmp_path)
        assert unfinished.name.startswith(b".")  # so that it is never served
        remove_unfinished()  # as on a signal
        os.close(unfinished.fd)
    finally:
        os.close(fd)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.txt.gz", "noise.txt"]


@pytest.mark.parametrize("coding", available(), ids=lambda coding: coding.token)
def test_large_contents_take_a_quicker_level(coding: Coding) -> None:
    for size, quick in ((100, False), (20_000_000, False), (100, True)):
        encoder = coding.encoder(size, quick=quick)
        coded = encoder.compress(PLAIN) + encoder.flush()
        assert b"".join(coding.decode([coded])) == PLAIN
