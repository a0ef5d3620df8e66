"""A headless Chromium, driven over two pipes by its DevTools protocol: pages are opened as a visitor would.

`Browser` is the process, `Tab` one page in it. A tab keeps what went wrong in `failures`: requests that failed or were
answered with 400 or more, errors on the console, exceptions. Only loopback addresses can be reached. Knows nothing of
what a test expects; test_html.py and test_examples.py call it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any, Self

from tests.support import require_tool

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)
# The browser reads commands from descriptor 3 and writes to 4; both ends are above 9 until here, so none is in the way.
LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
ANSWER_TIMEOUT_S = 30.0


class Browser:
    """One Chromium with a profile of its own, as a context manager."""

    def __init__(self) -> None:
        program = require_tool("chromium", "chromium")
        self.profile = tempfile.mkdtemp(prefix="ew-browser")
        flags = [*FLAGS, f"--user-data-dir={self.profile}"]
        child_in, self.write_fd = high_pipe()
        self.read_fd, child_out = high_pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(child_in), str(child_out), program, *flags, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(child_in, child_out),
            start_new_session=True,
        )
        os.close(child_in)
        os.close(child_out)
        self.buffer = b""
        self.last_id = 0
        self.tabs: dict[str, Tab] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.write_fd)  # Chromium ends with its pipe
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # a group of its own: the browser and its helpers
        self.process.wait()
        os.close(self.read_fd)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method: str, session: str = "", **parameters: Any) -> Any:
        """Send one command and return its result; events that come first are given to their tabs."""
        self.last_id += 1
        message: dict[str, Any] = {"id": self.last_id, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write_fd, data) :]
        end_at = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            answer = self.read(end_at)
            if answer.get("id") == self.last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def read(self, end_at: float) -> dict[str, Any]:
        """The next message; an event is given to its tab as well."""
        while b"\0" not in self.buffer:
            if not select.select([self.read_fd], [], [], max(0.0, end_at - time.monotonic()))[0]:
                raise TimeoutError("the browser says nothing")
            data = os.read(self.read_fd, 1 << 16)
            if not data:
                raise RuntimeError(f"the browser has ended with {self.process.wait(5)}")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        tab = self.tabs.get(message.get("sessionId", ""))
        if tab is not None and "method" in message:
            tab.on_event(message["method"], message["params"])
        return message

    def open(self, url: str, width: int = 1200, height: int = 900, dark: bool = False, script: bool = True) -> Tab:
        """A new tab with the page loaded and no request of it under way."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self.tabs[session] = Tab(self, target, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        tab.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        tab.call("Emulation.setScriptExecutionDisabled", value=not script)
        tab.navigate(url)
        return tab


class Tab:
    """One page; `requests` holds the URLs asked for, `failures` what went wrong, in words."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.browser = browser
        self.target = target
        self.session = session
        self.requests: dict[str, str] = {}  # by the browser's id
        self.open_requests: set[str] = set()
        self.failures: list[str] = []
        self.loaded = False

    def call(self, method: str, **parameters: Any) -> Any:
        return self.browser.call(method, self.session, **parameters)

    def navigate(self, url: str) -> None:
        self.loaded = False
        error = self.call("Page.navigate", url=url).get("errorText")
        if error:
            self.failures.append(f"{url}: {error}")
        else:
            self.wait()

    def follow(self, expression: str) -> None:
        """Evaluate what makes the page go elsewhere, and wait until that is loaded."""
        self.loaded = False
        self.evaluate(expression)
        self.wait()

    def wait(self) -> None:
        """Until the page is loaded and no request of it is under way."""
        end_at = time.monotonic() + ANSWER_TIMEOUT_S
        while not self.loaded or self.open_requests:
            self.browser.read(end_at)

    def on_event(self, method: str, what: dict[str, Any]) -> None:
        """Called for each event of the page."""
        match method:
            case "Page.loadEventFired":
                self.loaded = True
            case "Network.requestWillBeSent":
                self.requests[what["requestId"]] = what["request"]["url"]
                self.open_requests.add(what["requestId"])
            case "Network.loadingFinished":
                self.open_requests.discard(what["requestId"])
            case "Network.loadingFailed":
                self.open_requests.discard(what["requestId"])
                self.failures.append(f"{self.requests.get(what['requestId'])}: {what['errorText']}")
            case "Network.responseReceived" if what["response"]["status"] >= 400:
                self.failures.append(f"{what['response']['url']}: {what['response']['status']}")
            case "Log.entryAdded" if what["entry"]["level"] in ("error", "warning"):
                self.failures.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled" if what["type"] in ("error", "warning", "assert"):
                self.failures.append(f"console: {what['args']}")
            case "Runtime.exceptionThrown":
                self.failures.append(f"exception: {what['exceptionDetails']}")

    def evaluate(self, expression: str) -> Any:
        """The JSON value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)
        del self.browser.tabs[self.session]


def high_pipe() -> tuple[int, int]:
    """A pipe whose ends are not below 10."""
    low = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in low]
    for fd in low:
        os.close(fd)
    return high[0], high[1]
