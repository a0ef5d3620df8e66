"""What a service manager hears and hands over: real datagrams, real descriptors."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from epollwsgi.errors import ConfigError
from epollwsgi.process import systemd
from epollwsgi.process.systemd import Notifier, passed_listeners
from tests.support import clean_environment

OWN = str(os.getpid())


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """The socket of a manager, and the environment that names it."""
    directory = Path(tempfile.mkdtemp(prefix="ew"))  # the path of a unix socket has room for 107 bytes only
    name = f"{directory}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name if request.param == "path" else f"\0{name}")
        sock.settimeout(10)
        yield sock, {"NOTIFY_SOCKET": name if request.param == "path" else f"@{name}"}
    shutil.rmtree(directory)


def heard(sock: socket.socket) -> list[str]:
    """The lines of the next message."""
    return sock.recv(4096).decode().split("\n")


def test_manager_hears_each_message(manager: tuple[socket.socket, dict[str, str]]) -> None:
    sock, environ = manager
    with closing(Notifier(environ)) as notifier:
        notifier.ready("4 workers serve")
        notifier.status("busy\nREADY=1")
        notifier.main_pid(1234)
        notifier.watchdog()
        notifier.stopping()
        notifier.send(A=1, B="ä")
        assert heard(sock) == ["READY=1", "STATUS=4 workers serve"]
        assert heard(sock) == ["STATUS=busy READY=1"], "a line break would begin another field"
        assert heard(sock) == ["MAINPID=1234"]
        assert heard(sock) == ["WATCHDOG=1"]
        assert heard(sock) == ["STOPPING=1"]
        assert heard(sock) == ["A=1", "B=ä"]


def test_reload_carries_the_time(manager: tuple[socket.socket, dict[str, str]]) -> None:
    """Of CLOCK_MONOTONIC in microseconds: without it Type=notify-reload waits for ever."""
    sock, environ = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    with closing(Notifier(environ)) as notifier:
        notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    first, second = heard(sock)
    assert first == "RELOADING=1"
    name, _, number = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before // 1000 <= int(number) <= after // 1000


def test_manager_that_does_not_read_is_not_waited_for(manager: tuple[socket.socket, dict[str, str]]) -> None:
    sock, environ = manager
    with closing(Notifier(environ)) as notifier:
        for _ in range(2000):  # net.unix.max_dgram_qlen is 512 at most on common systems, and a send would block
            notifier.watchdog()
        assert heard(sock) == ["WATCHDOG=1"]
        notifier.status("there is room again")
        sock.setblocking(False)
        last = []
        for _ in range(3000):
            try:
                last = heard(sock)
            except BlockingIOError:
                break
        assert last == ["STATUS=there is room again"]


SHORT = """
import os, resource, sys
from epollwsgi.process.systemd import Notifier

notifier = Notifier({"NOTIFY_SOCKET": sys.argv[1]})
notifier.ready("serves")
resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    os.open(os.devnull, os.O_RDONLY)
except OSError as error:
    print(error.strerror)
Notifier({"NOTIFY_SOCKET": sys.argv[1]}).status("lost, and no error")
notifier.watchdog()
"""


def test_message_goes_out_when_descriptors_are_short(manager: tuple[socket.socket, dict[str, str]]) -> None:
    """The watchdog would kill a server that cannot say that it is well."""
    sock, environ = manager
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHORT, environ["NOTIFY_SOCKET"]],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Too many open files\n", "")
    assert [heard(sock), heard(sock)] == [["READY=1", "STATUS=serves"], ["WATCHDOG=1"]]
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard(sock)


@pytest.mark.parametrize(
    "name", [None, "", "relative", "vsock:2:9", "@", "/nowhere/at/all", "/" + "x" * 200, "/dev/null"]
)
def test_without_a_manager_nothing_happens(name: str | None) -> None:
    with closing(Notifier({} if name is None else {"NOTIFY_SOCKET": name})) as notifier:
        notifier.ready("serves")
        notifier.reloading()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": OWN}, 15.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": ""}, 0.25),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "-1"}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
        ({}, 0.0),
    ],
)
def test_watchdog_is_due_twice_as_often_as_it_is_looked_at(environ: dict[str, str], interval_s: float) -> None:
    with closing(Notifier(environ | {"NOTIFY_SOCKET": "@nobody"})) as notifier:
        assert notifier.watchdog_s == pytest.approx(interval_s)
    with closing(Notifier(environ)) as notifier:
        assert notifier.watchdog_s == 0.0, "nobody to tell"


# --- listeners ------------------------------------------------------------------------------------------------------

PASSED = """
import os, socket
from epollwsgi.process.systemd import passed_listeners

for number in (103, 104):
    os.dup2(socket.create_server(("127.0.0.1", 0)).detach(), number)
for number in (3, 4):
    os.dup2(number + 100, number)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:admin"}
print([os.get_inheritable(fd) for fd in (3, 4)], passed_listeners(environ), [os.get_inheritable(fd) for fd in (3, 4)])
os._exit(0 if len(environ) == 3 else 1)
"""


def test_descriptors_are_taken_and_go_no_further() -> None:
    done = subprocess.run(
        [sys.executable, "-u", "-c", PASSED], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "[True, True] [3, 4] [False, False]\n"), done.stderr


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "", "LISTEN_PID": OWN},
        {"LISTEN_FDS": "0", "LISTEN_PID": OWN},
        {"LISTEN_PID": OWN},
    ],
)
def test_descriptors_of_another_process_are_left_alone(environ: dict[str, str]) -> None:
    assert passed_listeners(environ) == []


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"LISTEN_PID": OWN, "LISTEN_FDS": "two"}, "environment LISTEN_FDS = 'two': a number is allowed"),
        ({"LISTEN_PID": OWN, "LISTEN_FDS": "-1"}, "environment LISTEN_FDS = '-1': a number is allowed"),
        ({"LISTEN_PID": "me", "LISTEN_FDS": "1"}, "environment LISTEN_PID = 'me': a number is allowed"),
    ],
)
def test_mistake_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        passed_listeners(environ)
    assert str(caught.value) == message


def test_descriptor_that_is_not_open_is_named() -> None:
    code = (
        "import os\nfrom epollwsgi.errors import ConfigError\nfrom epollwsgi.process.systemd import passed_listeners\n"
        "os.closerange(3, 100)\n"
        "try:\n    passed_listeners({'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '999999999'})\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    expected = "environment LISTEN_FDS = '999999999': descriptor 3: Bad file descriptor\n"
    assert done.stdout == expected, done.stderr


def test_workers_see_none_of_it() -> None:
    mine = {"LISTEN_ADDRESS": "an application's own", "HOME": "/", "NOTIFY": "x"}
    environ = mine | dict.fromkeys(systemd.VARIABLES, "1")
    systemd.strip(environ)
    assert environ == mine
    systemd.strip(environ)
    assert {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"} <= set(
        systemd.VARIABLES
    )
