"""Files of logs: a start that is refused leaves none behind, and root follows no links that others have put there."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from epollwsgi.logs.files import open_file, open_wary
from tests.logs.files import open_files
from tests.support import Client, ServerFactory, wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
TARGET = "tests.apps.logged:app"
NOBODY = 65534


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where another user may write, too; tmp_path lies where nobody else may look."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


# --- starts that are refused ----------------------------------------------------------------------------------------

HANDLERS = {"h": {"class": "logging.FileHandler", "filename": "handled"}}
CONFIGURED = {"version": 1, "handlers": HANDLERS, "loggers": {}}  # the logs stay where they are
REFUSED: dict[str, tuple[str, tuple[str, ...], int]] = {
    "an address in use": (TARGET, ("--bind", "127.0.0.1:{port}"), 1),
    "no application": ("tests.apps.missing:app", (), 3),
    "no application, preloaded": ("tests.apps.missing:app", ("--preload", "--log-config-json", "logging.json"), 3),
    "no attribute": ("tests.apps.logged:missing", ("-w", "2"), 4),
    "the other log": (TARGET, ("--access-logfile", "/proc/log", "--log-config-json", "logging.json"), 1),
    "a pid file": (TARGET, ("--pid", "pid"), 1),
    "only checked": (TARGET, ("--check-config", "--log-config-json", "logging.json"), 0),
}


@pytest.mark.parametrize(("target", "options", "code"), REFUSED.values(), ids=REFUSED)
def test_a_start_that_is_refused_leaves_no_log(
    start_server: ServerFactory, tmp_path: Path, target: str, options: tuple[str, ...], code: int
) -> None:
    (tmp_path / "logging.json").write_text(json.dumps(CONFIGURED))
    (tmp_path / "pid").write_text(str(os.getpid()))  # who lives
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        given = [option.format(port=taken.getsockname()[1]) for option in options]
        options = ("--error-logfile", "errors", "--access-logfile", "access", *given)
        server = start_server(target, *options, cwd=tmp_path, wait=False)
        assert server.process.wait(30) == code, server.stderr_text()
    assert {path.name for path in tmp_path.iterdir()} == {"logging.json", "pid"}


def test_a_log_stays_that_was_there_or_has_a_line(start_server: ServerFactory, tmp_path: Path) -> None:
    (tmp_path / "access").touch()
    (tmp_path / "talks.py").write_text("print('a word')\nraise SystemExit\n")
    options = ["--access-logfile", "access", "--error-logfile", "errors", "--capture-output"]
    server = start_server("talks:app", *options, cwd=tmp_path, wait=False)
    assert server.process.wait(30) == 3
    assert (tmp_path / "errors").read_text() == "a word\n"
    assert (tmp_path / "access").read_text() == ""


def test_a_reload_that_is_refused_leaves_no_log(start_server: ServerFactory, tmp_path: Path) -> None:
    settings = tmp_path / "epollwsgi.toml"
    settings.write_text("errorlog = 'first'\n")
    (tmp_path / "shop.py").write_text("from tests.apps.logged import app\n")
    server = start_server("shop:app", cwd=tmp_path)
    settings.write_text("errorlog = 'second'\n")
    (tmp_path / "shop.py").write_text("app = None\n")
    server.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload failed" in (tmp_path / "first").read_text(), 20, "the failure")
    wait_until(lambda: not (tmp_path / "second").exists(), 20, "the file to be removed")
    assert server.stop() == 0


# --- links ----------------------------------------------------------------------------------------------------------


def test_who_made_a_file_is_told(tmp_path: Path) -> None:
    for is_wary in (False, True):
        path = str(tmp_path / f"log {is_wary}")
        for is_new in (True, False):
            fd, is_made = open_file(path, is_wary=is_wary)
            os.close(fd)
            assert is_made is is_new


@as_root
def test_links_of_root_are_followed_and_those_of_the_kernel(directory: Path) -> None:
    target = directory / "target"
    (directory / "first").symlink_to("second")
    (directory / "second").symlink_to(target)
    (directory / "loop").symlink_to("loop")
    (directory / "null").symlink_to("/dev/null")
    for path in ("first", "first", "null"):
        os.close(open_file(str(directory / path), is_wary=True)[0])
    assert target.exists()
    reader, writer = os.pipe()  # as the end of /dev/stdout: a link of the kernel's whose text is no path
    (directory / "pipe").symlink_to(f"/proc/self/fd/{writer}")
    fd, is_made = open_file(str(directory / "pipe"), is_wary=True)
    assert not is_made
    assert os.write(fd, b"a line") == len(os.read(reader, 100))
    for one in (reader, writer, fd):
        os.close(one)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_file(str(directory / "loop"), is_wary=True)


@as_root
def test_links_of_others_are_not_followed(directory: Path) -> None:
    target = directory / "target"
    target.touch()
    (directory / "link").symlink_to(target)
    (directory / "chain").symlink_to("link")
    os.lchown(directory / "link", NOBODY, NOBODY)
    for path in ("link", "chain"):
        with pytest.raises(OSError, match=f"{directory}/link is a symbolic link of uid {NOBODY}"):
            open_file(str(directory / path), is_wary=True)
        with pytest.raises(OSError, match="is a symbolic link"), open(directory / path, "a", opener=open_wary):
            pass
        os.close(open_file(str(directory / path))[0])


def link_by_nobody(path: Path, target: Path) -> None:
    if path.exists():
        path.rename(f"{path}.old")
    path.symlink_to(target)
    os.lchown(path, NOBODY, NOBODY)


@as_root
def test_root_opens_no_link_again_that_the_user_of_its_workers_has_put_there(
    start_server: ServerFactory, directory: Path
) -> None:
    """As logs, and as files of handlers, the application's too; everything goes on in the old files."""
    (directory / "private").mkdir(mode=0o700)
    target = directory / "private" / "target"
    target.write_text("")
    link_by_nobody(directory / "late", target)
    handlers: dict[str, object] = {"h": {"class": "logging.FileHandler", "filename": f"{directory}/handled"}}
    handlers["l"] = {"class": "logging.FileHandler", "filename": f"{directory}/late", "delay": True}
    configuration = {
        "version": 1, "handlers": handlers, "loggers": {"shop": {"handlers": ["h"]}, "late": {"handlers": ["l"]}}
    }  # fmt: skip
    (directory / "logging.json").write_text(json.dumps(configuration))
    (directory / "shop.py").write_text(
        "import contextlib, logging\nlogging.getLogger('own').addHandler(logging.FileHandler('own'))\n"
        "with contextlib.suppress(PermissionError): logging.getLogger('late').error('as root')\n"
        "from tests.apps.logged import app\n"
    )
    paths = [directory / name for name in ("errors", "access", "handled", "own")]
    options = ["--error-logfile", str(paths[0]), "--access-logfile", str(paths[1]), "--user", str(NOBODY)]
    options += ["--group", str(NOBODY), "--preload", "--log-config-json", f"{directory}/logging.json"]
    server = start_server("shop:app", *options, cwd=directory)
    for path in paths:
        link_by_nobody(path, target)
    server.send_signal(signal.SIGUSR1)

    def said() -> bool:
        text = (directory / "errors.old").read_text()
        return all(f"cannot be opened again: {path} is a symbolic link of uid" in text for path in paths)

    wait_until(said, 20, "what is wrong with each")
    with Client(server.address) as client:
        assert client.request(b"GET /fail HTTP/1.1\r\nHost: h\r\n\r\n").status == 500
    wait_until(lambda: "/fail" in (directory / "access.old").read_text(), 20, "the line in the old file")
    assert str(target) not in open_files(server.pid) | open_files(server.worker_pid)
    for path in paths:
        path.unlink()
    server.send_signal(signal.SIGUSR1)
    wait_until(lambda: {str(path) for path in paths} <= open_files(server.worker_pid), 20, "the new files")
    assert server.stop() == 0
    assert target.read_text() == ""


@as_root
@pytest.mark.parametrize("option", ["--error-logfile", "--access-logfile"])
def test_such_a_link_is_a_mistake_at_the_start(start_server: ServerFactory, directory: Path, option: str) -> None:
    (directory / "target").touch()
    (directory / "link").symlink_to("target")
    os.lchown(directory / "link", NOBODY, NOBODY)
    options = [option, f"{directory}/link", "--user", str(NOBODY), "--group", str(NOBODY)]
    server = start_server(TARGET, *options, wait=False)
    assert server.process.wait(30) == 1
    [line] = server.stderr_text().splitlines()
    assert f"log = '{directory}/link': {directory}/link is a symbolic link of uid {NOBODY}" in line
