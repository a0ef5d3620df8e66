"""What tests share: live servers, and under one name the raw connections and the strict reader of responses.

A `Server` is a real `python -m epollwsgi` process on a free port; the fixtures that start one are in conftest.py.
`connections` and `responses` hold the rest, which tests import from here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.connections import (
    Address,
    Client,
    Failed,
    connect,
    exchange,
    exchange_many,
    splits,
    try_exchange_many,
)
from tests.responses import BadResponse, Response, Truncated, parse_head, parse_responses, parse_stream

__all__ = [
    "Address",
    "BadResponse",
    "Client",
    "Failed",
    "Response",
    "Server",
    "ServerFactory",
    "Truncated",
    "connect",
    "exchange",
    "exchange_many",
    "parse_head",
    "parse_responses",
    "parse_stream",
    "raised_descriptor_limit",
    "require_tool",
    "splits",
    "stop_all",
    "try_exchange_many",
    "wait_until",
]

ROOT = Path(__file__).resolve().parent.parent
ALL_TOOLS = os.environ.get("EPOLLWSGI_TEST_ALL", "") not in ("", "0")

# Variables that the server reads for settings: a test must not inherit them from whoever runs it.
SETTING_VARIABLES = ("GUNICORN_CMD_ARGS", "WEB_CONCURRENCY", "PORT", "FORWARDED_ALLOW_IPS", "SCRIPT_NAME", "LISTEN_FDS")
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 40.0


def require_tool(name: str, package: str) -> str:
    """Path of a program; without it the test is skipped, or fails where EPOLLWSGI_TEST_ALL=1."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed: apt install {package}"
        if ALL_TOOLS:
            pytest.fail(message)
        pytest.skip(message)
    return path


def collect_events(client: Client, request: bytes, *words: str) -> list[str]:
    """What an application of `shapes` noted since it was asked last, once each of `words` begins one, or time is up.

    Calls end on threads of their own: what they note last may come after the client has its answer.
    """
    events: list[str] = []
    for _ in range(100):
        events += json.loads(client.request(request).body)
        if all(any(event.startswith(word) for event in events) for word in words):
            break
        time.sleep(0.02)
    return events


def wait_until(condition: Callable[[], Any], timeout_s: float = 30.0, what: str = "") -> Any:
    """The first true value of `condition`, asked every few milliseconds; fails after `timeout_s`."""
    end_at = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end_at:
            pytest.fail(f"waited {timeout_s:g} s in vain for {what or condition}")
        time.sleep(0.005)


@contextlib.contextmanager
def raised_descriptor_limit(count: int) -> Iterator[None]:
    """Let this process open `count` descriptors; skips where the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"needs RLIMIT_NOFILE {count}, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- servers --------------------------------------------------------------------------------------------------------

HTTP_ADDRESS = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[0-9.]+):(\d+)")
UNIX_ADDRESS = re.compile(r"unix:([^\s,;)]+)")
# Sets limits of setrlimit(2) for what it then becomes: NAME=VALUE, ...
SET_LIMITS = (
    "import os, resource, sys\n"
    "for limit in sys.argv[1].split():\n"
    "    name, _, value = limit.partition('=')\n"
    "    resource.setrlimit(getattr(resource, 'RLIMIT_' + name), (int(value),) * 2)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


class Server:
    """A running server process. `stop` ends it as an operator would; `kill` ends it for certain."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, bind: Sequence[str]) -> None:
        self.process = process
        self.directory = directory
        self.bind = tuple(bind)
        self.tcp_addresses: list[tuple[str, int]] = []
        self.unix_path = ""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def worker_pids(self) -> list[int]:
        """The children of the master: its workers, oldest first."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def worker_pid(self) -> int:
        """The worker, where there is one; the process itself where that has no master."""
        pids = self.worker_pids or [self.pid]
        [pid] = pids
        return pid

    @property
    def port(self) -> int:
        return self.tcp_addresses[0][1]

    @property
    def address(self) -> Address:
        return self.tcp_addresses[0] if self.tcp_addresses else self.unix_path

    @property
    def url(self) -> str:
        host, port = self.tcp_addresses[0]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stderr_text(self) -> str:
        return (self.directory / "stderr").read_text("utf-8", "replace")

    def stdout_text(self) -> str:
        return (self.directory / "stdout").read_text("utf-8", "replace")

    def wait_for_log(self, text: str, timeout_s: float = 30.0) -> str:
        """All of stderr, once it holds `text`."""
        wait_until(lambda: text in self.stderr_text(), timeout_s, f"{text!r} in the error log")
        return self.stderr_text()

    def is_running(self) -> bool:
        return self.process.poll() is None

    def cpu_time_s(self) -> float:
        """User and system time that the worker has used, all threads."""
        fields = Path(f"/proc/{self.worker_pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_memory_size(self) -> int:
        """VmHWM in bytes: the most memory that the worker ever held."""
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.worker_pid}/status").read_text())[1]) * 1024  # type: ignore[index]

    def descriptor_count(self) -> int:
        """Of the worker."""
        return len(os.listdir(f"/proc/{self.worker_pid}/fd"))

    def learn_addresses(self) -> None:
        """Wait until the banner has named every address; fails with the server's words if it ends before."""

        def named() -> bool:
            ended = self.process.poll() is not None
            text = self.stderr_text()
            if not ended:
                text = text[: text.rfind("\n") + 1]  # a line half written may hold half a port
            tcp = dict.fromkeys((host.strip("[]"), int(port)) for host, port in HTTP_ADDRESS.findall(text))
            unix = dict.fromkeys(UNIX_ADDRESS.findall(text))
            tcp_expected = sum(not bind.startswith(("unix:", "fd:")) for bind in self.bind)
            unix_expected = sum(bind.startswith("unix:") for bind in self.bind)
            self.tcp_addresses, self.unix_path = list(tcp), next(iter(unix), "")
            if len(tcp) >= tcp_expected and len(unix) >= unix_expected:
                return True
            if ended:
                pytest.fail(f"the server ended with {self.process.returncode} before its banner:\n{self.stderr_text()}")
            return False

        wait_until(named, START_TIMEOUT_S, f"the address of the server in its banner:\n{self.stderr_text()}")

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The worker does not run meanwhile: all that is sent to it arrives in one turn of its loop."""
        pid = self.worker_pid
        state = Path(f"/proc/{pid}/stat")
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", what="the worker to stop")
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def stop(self, sig: int = signal.SIGTERM, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Send `sig`, wait for the end, return the exit code (negative: killed by that signal)."""
        if self.is_running():
            self.send_signal(sig)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the server did not end within {timeout_s:g} s of signal {sig}:\n{self.stderr_text()}")

    def kill(self) -> None:
        if self.is_running():
            with contextlib.suppress(OSError):
                self.process.send_signal(signal.SIGSTOP)  # it must not start another worker meanwhile
                for pid in self.worker_pids:
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()


def clean_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a server under test: ours without any setting, with the checkout importable."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in SETTING_VARIABLES and not name.startswith(("EPOLLWSGI_", "COVERAGE_", "PYTEST_"))
    }
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH", ""))))
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # several test processes must not race to write the same files
    env.update(extra or {})
    return env


class ServerFactory:
    """Starts servers and ends every one of them, whatever happened in between. Made by fixtures only."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers: list[Server] = []

    def __call__(
        self,
        target: str = "",
        *options: str,
        bind: str | Sequence[str] = "127.0.0.1:0",
        cwd: str | Path | None = None,
        env: dict[str, str] | None = None,
        limits: str = "",
        python: str = sys.executable,
        module: str = "epollwsgi",
        wait: bool = True,
    ) -> Server:
        """Start `python -m epollwsgi -b BIND OPTIONS TARGET` and wait for its banner.

        bind: one address or several; "unix" alone means a unix socket in the server's own directory.
        cwd: an empty directory unless given, so that the checkout's own pyproject.toml is not read.
        limits: of setrlimit(2), as in "NOFILE=64".  module: what is run; `tests.alone` is a worker only.
        wait: False returns before the server is up.
        """
        directory = self.directory / f"server{len(self.servers)}"
        directory.mkdir()
        (directory / "cwd").mkdir()
        binds = [bind] if isinstance(bind, str) else list(bind)
        binds = [f"unix:{directory}/s" if one == "unix" else one for one in binds]
        command = ["-W", "error::ResourceWarning", "-m", module, *(x for one in binds for x in ("-b", one))]
        command += [*options, *([target] if target else [])]
        if limits:
            command = ["-c", SET_LIMITS, limits, *command]
        with open(directory / "stdout", "wb") as out, open(directory / "stderr", "wb") as err:
            process = subprocess.Popen(
                [python, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=directory / "cwd" if cwd is None else cwd,
                env=clean_environment(env),
            )
        server = Server(process, directory, binds)
        self.servers.append(server)
        if wait:
            server.learn_addresses()
        return server

    def close(self) -> None:
        for server in self.servers:
            server.kill()


def stop_all(servers: Sequence[Server]) -> None:
    """End them at the same time; each must end cleanly, with nothing to complain of."""
    for server in servers:
        server.send_signal(signal.SIGTERM)
    for server in servers:
        assert server.process.wait(STOP_TIMEOUT_S) == 0, server.stderr_text()
        assert "Traceback" not in server.stderr_text()
