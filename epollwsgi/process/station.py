"""A worker's line to its master: what it reports, its row of the scoreboard, whether the master is still there.

`process.boot` makes it in the worker; `process.worker` uses it. A report is one line of JSON in a pipe of its own, so
that what an exit status says means nothing: an application can choose that. Reports may come from any thread.
"""

from __future__ import annotations

import errno
import json
import os
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from epollwsgi.process.daemon import leave_terminal
from epollwsgi.process.ending import run_exit_functions
from epollwsgi.scoreboard import Scoreboard

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings
    from epollwsgi.process.hook_objects import HookServer, HookWorker
    from epollwsgi.process.hooks import Hooks

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
# A traceback longer than the pipe waits for the master; a thread that has gone on without one must not.
MESSAGE_SIZE = 32 * 1024


class Station:
    """See the module."""

    def __init__(
        self,
        settings: Settings,
        scoreboard: Scoreboard,
        slot: int,
        fd: int,
        master_pid: int,
        hooks: Hooks,
        hook_server: HookServer,
        hook_worker: HookWorker,
        log_fds: Sequence[int],
    ) -> None:
        self.mine = scoreboard.slot(slot)
        self.hooks = hooks
        self.hook_server = hook_server
        self.hook_worker = hook_worker
        self._settings = settings
        self._scoreboard = scoreboard
        self._fd = fd
        self._master_pid = master_pid
        self._started_at = time.monotonic()
        self._log_fds = log_fds
        self._has_asked = False
        self._is_draining = False

    # --- reports ----------------------------------------------------------------------------------------------------

    def report_ready(self) -> None:
        """It takes connections from now on."""
        self.beat()
        if self._settings.daemon:
            leave_terminal(self._log_fds)
        self._report({"ready": True})

    def report_draining(self) -> None:
        """It takes none any more."""
        self._is_draining = True
        self._report({"draining": True})

    def report_failure(self, exit_code: int, message: str) -> None:
        """It could not be made ready. exit_code: what a start that fails so ends with (OPERATIONS.md 1)."""
        self._report({"failed": exit_code, "message": message[-MESSAGE_SIZE:]})

    def report_stuck(self) -> None:
        """A request passed `timeout`: its thread may never come back."""
        self._report({"replace": "timeout"})

    def report_max_requests(self) -> None:
        """max_requests have been answered."""
        self._ask("max_requests")

    def report_hook(self) -> None:
        """A hook has set worker.alive to False."""
        self._ask("a hook")

    def report_change(self, file: str) -> None:
        """--reload: a file has changed."""
        self._report({"changed": file})

    def _ask(self, reason: str) -> None:
        """To be replaced, once."""
        if not self._has_asked:
            self._has_asked = True
            self._report({"replace": reason})

    def _report(self, message: dict[str, object]) -> None:
        data = json.dumps(message).encode("ascii") + b"\n"
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EBADF):  # the master has gone: noticed by is_orphan
                raise

    # --- once a second ----------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """It is alive; and a look at its age and memory, which may ask for a successor."""
        self.mine.beat()
        settings = self._settings
        if settings.max_worker_age and time.monotonic() - self._started_at > settings.max_worker_age:
            self._ask("max_worker_age")
        if settings.max_worker_memory and resident_size() > settings.max_worker_memory:
            self._ask("max_worker_memory")

    def note(self, requests: int, in_flight: int) -> None:
        """Figures of the scoreboard."""
        self.mine.requests = requests
        self.mine.in_flight = in_flight

    def is_orphan(self) -> bool:
        """The master is no longer the parent."""
        return os.getppid() != self._master_pid

    def requests(self) -> int:
        """Answered so far, as the scoreboard has it."""
        return self.mine.requests

    def is_serving(self) -> bool:
        """Not on its way out."""
        return not self._is_draining

    def is_final(self) -> bool:
        """The whole server stops: there is nobody else to take what waits in the backlog."""
        return self._scoreboard.is_stopping or self.is_orphan()

    # --- the rest ---------------------------------------------------------------------------------------------------

    def max_requests(self) -> int:
        """After how many requests this worker asks to be replaced; 0: never."""
        settings = self._settings
        return settings.max_requests and settings.max_requests + random.randint(0, settings.max_requests_jitter)

    def call_hook(self, name: str) -> None:
        """One of the hooks that are given the worker."""
        self.hooks.call(name, self.hook_worker)

    def say_goodbye(self) -> None:
        """The last thing: what others have asked to be called at the end, then what they wrote."""
        self.hooks.call("worker_exit", self.hook_server, self.hook_worker)
        run_exit_functions()

    def abandon(self) -> None:
        """In a process that the application forked."""
        os.close(self._fd)


def resident_size() -> int:
    """Memory of this process, in bytes. proc_pid_statm(5)."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE_SIZE
