"""What the master knows: its workers, their generations, and whom of them to start or drain. It touches no process.

    BOOTING  forked; the application is being loaded        -> READY, or ended
    READY    serves                                         -> DRAINING, or ended
    DRAINING has been told to finish what it has            -> ended

`Fleet` answers two questions after every event: whom to start, whom to retire; `master` does it. Whatever order events
come in, the answers lead to the same end: `target` ready workers of the current generation, and nobody else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epollwsgi.logs.files import LOG_FLAGS
from epollwsgi.logs.opening import close_logs
from epollwsgi.logs.reopening import reopen_handlers
from epollwsgi.process.hook_objects import HookConfig
from epollwsgi.process.origin import Surroundings
from epollwsgi.scoreboard import Slot

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from epollwsgi.config.settings import Settings
    from epollwsgi.errors import ConfigError
    from epollwsgi.listener import Listener
    from epollwsgi.logs.access_log import AccessLog
    from epollwsgi.logs.error_log import ErrorLog
    from epollwsgi.process.hook_objects import HookWorker
    from epollwsgi.process.hooks import Hooks
    from epollwsgi.process.privileges import Identity

FOREVER = float("inf")
# Workers that die before they are ready are started again ever more slowly.
BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
# Only one worker at a time is replaced because a request passed `timeout`, and only so often.
STUCK_INTERVAL_S = 10.0
STUCK = "timeout"


@dataclass(slots=True)
class Plan:
    """What is to be served, as the settings have it.

    application: where it is loaded already.  describe: the banner, given the addresses.  notes: what it tells of the
    settings.  warnings: what the log tells of them.  locate: a mistake in a setting with the place where it stands
    before it.  found: the settings files that nobody has named.  paths: of all settings files.  failure: with `reload`,
    why there is no such application now.
    """

    settings: Settings
    application_name: str
    describe: Callable[[Sequence[str]], str]
    application: WSGIApplication | None = None
    warnings: Sequence[str] = ()
    static_source: str = "static"
    locate: Callable[[ConfigError], ConfigError] = lambda error: error
    notes: Sequence[str] = ()
    found: Sequence[str] = ()
    paths: Sequence[str] = ()
    failure: str = ""


@dataclass(slots=True, eq=False)
class Generation:
    """Workers with the same settings, and the same release of the application."""

    number: int
    plan: Plan
    listeners: Sequence[Listener]
    surroundings: Surroundings
    error_log: ErrorLog
    access_log: AccessLog | None
    hooks: Hooks
    identity: Identity | None
    target: int
    started_at: float = 0.0
    failures: int = 0  # boots that failed, one after the other
    start_at: float = 0.0  # no worker is started before
    owns_logs: bool = True
    is_refused: bool = False  # it never came to serve
    is_over: bool = False  # its workers are retired as those of the next become ready

    def note_failure(self, now: float) -> None:
        """A worker died before it was ready; of several that were started together the first counts."""
        if now < self.start_at:
            return
        self.start_at = now + BACKOFF_S[min(self.failures, len(BACKOFF_S) - 1)]
        self.failures += 1

    def reopen_logs(self) -> None:
        """The log files were moved away: workers that are started from now on have the new ones."""
        self.error_log.reopen()
        if self.access_log is not None:
            self.access_log.reopen()
        self.give_logs()
        if not self.is_over:
            reopen_handlers(self.error_log.warning, is_wary=self.identity is not None)

    def give_logs(self) -> None:
        """The log files belong to who runs the workers: they open them again themselves."""
        settings = self.plan.settings
        if self.identity is None:
            return
        handled = self.error_log.files()
        for path in handled:  # a thread opens these again, maybe after the workers were told to
            with suppress(OSError):
                os.close(os.open(path, LOG_FLAGS | os.O_EXCL, 0o666))  # which follows no link
        for path in (settings.errorlog, settings.accesslog, *handled):
            if os.path.isfile(path):
                try:
                    self.identity.own(path)
                except OSError as error:
                    self.error_log.warning(f"{path} cannot be given to {self.identity}: {error.strerror}")

    def listeners_without(self, other: Generation) -> list[Listener]:
        """Those that another generation does not have."""
        return [one for one in self.listeners if one not in other.listeners]

    def log_fds(self) -> list[int]:
        """Where its logs are written, and what is captured for one of them."""
        fds = [log.fd for log in (self.error_log, self.access_log) if log is not None]
        return [*fds, 1, 2] if self.error_log.is_capturing else fds

    def close(self) -> None:
        """The generation is over."""
        self.surroundings.close()
        if self.owns_logs:
            close_logs(self.error_log, self.access_log, is_refused=self.is_refused)


@dataclass(slots=True, eq=False)
class Child:
    """One worker process. fd: the pipe in which it tells what becomes of it."""

    pid: int
    slot: int
    age: int
    generation: Generation
    fd: int
    started_at: float
    state: Slot = Slot.BOOTING
    replace: str = ""  # why it is to be replaced, successor first
    killed_at: float = FOREVER  # when it is killed if it is still there
    is_aborted: bool = False
    failure: tuple[int, str] | None = None  # why it could not be made ready: exit code of such a start, and message
    hook_worker: HookWorker | None = None
    has_missed_reopening: bool = False  # the logs were reopened while it could not be told
    unread: bytes = field(default=b"", repr=False)

    def describe(self) -> dict[str, Any]:
        """What the next image of the master has to know of it."""
        return {"pid": self.pid, "slot": self.slot, "age": self.age, "fd": self.fd, "state": int(self.state)}

    def take_messages(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The whole lines among what it has written so far; what is none of ours is passed over."""
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                yield message


@dataclass(slots=True)
class Fleet:
    """See the module. pending: the generation that is to follow `current`; `over` are those before it."""

    current: Generation
    pending: Generation | None = None
    over: list[Generation] = field(default_factory=list)
    children: dict[int, Child] = field(default_factory=dict)
    stuck_at: float = -FOREVER  # when a worker was last replaced for STUCK

    def serving(self, generation: Generation, *states: Slot) -> list[Child]:
        """Its workers in one of these states (booting or ready), oldest first."""
        states = states or (Slot.BOOTING, Slot.READY)
        found = [one for one in self.children.values() if one.generation is generation and one.state in states]
        return sorted(found, key=lambda one: one.age)

    def whom_to_start(self, now: float) -> Generation | None:
        """The generation that wants one worker more now."""
        for generation in (self.current, self.pending):
            if generation is None or now < generation.start_at:
                continue
            lasting = [one for one in self.serving(generation) if not self._is_leaving(one, now)]
            if len(lasting) < self._allowed(generation):
                return generation
        return None

    def whom_to_retire(self, now: float) -> Child | None:
        """A worker that is not needed any more, because others are ready in its place."""
        for generation in self.over:
            rest = self.serving(generation)
            if rest and self.current.plan.settings.reload:
                return rest[0]  # nobody wants to see the old code once more
            if rest and len(rest) > self.current.target - len(self.serving(self.current, Slot.READY)):
                return rest[0]
        serving = self.serving(self.current)
        leaving = [one for one in serving if self._is_leaving(one, now)]
        lasting = [one for one in serving if one not in leaving]
        ready = [one for one in lasting if one.state is Slot.READY]
        if leaving and len(ready) + len(leaving) > self.current.target:
            if leaving[0].replace == STUCK:
                self.stuck_at = now
            return leaving[0]
        if len(lasting) > self.current.target:
            return lasting[0] if len(ready) == len(lasting) else next(one for one in lasting[::-1] if one not in ready)
        return None

    def is_pending_ready(self) -> bool:
        """Whether enough workers of the next generation are ready for it to take over."""
        pending = self.pending
        return pending is not None and len(self.serving(pending, Slot.READY)) >= min(pending.target, overlap(pending))

    def take_over(self) -> Generation:
        """The pending generation is the current one from now on; the one before it is returned."""
        assert self.pending is not None
        old, self.current, self.pending = self.current, self.pending, None
        old.is_over = True
        self.over.append(old)
        return old

    def generations(self) -> list[Generation]:
        """All there are."""
        return [*self.over, self.current, *([self.pending] if self.pending is not None else [])]

    def listeners(self) -> list[Listener]:
        """All there are, each once."""
        return list(dict.fromkeys(one for generation in self.generations() for one in generation.listeners))

    def forget_ended(self) -> list[Generation]:
        """Generations over and without workers, taken out."""
        inhabited = {one.generation for one in self.children.values()}
        ended = [one for one in self.over if one not in inhabited]
        self.over = [one for one in self.over if one in inhabited]
        return ended

    def _allowed(self, generation: Generation) -> int:
        """How many workers a generation may have now: a reload may add so many as reload_overlap says."""
        if generation is self.pending:
            return min(generation.target, overlap(generation))
        old = sum(one.generation.is_over for one in self.children.values())
        if not old or overlap(generation) >= generation.target:
            return generation.target
        ready = len(self.serving(generation, Slot.READY))
        return min(generation.target, max(ready, generation.target + overlap(generation) - old))

    def _is_leaving(self, child: Child, now: float) -> bool:
        """Whether it is to be replaced now; for a stuck request one at a time, and not often."""
        if child.replace != STUCK:
            return bool(child.replace)
        others = [one for one in self.children.values() if one.replace == STUCK and one.age < child.age]
        return not others and now >= self.stuck_at + STUCK_INTERVAL_S


def overlap(generation: Generation) -> int:
    """Workers that a reload may add for a while."""
    return generation.plan.settings.reload_overlap or generation.target


def hook_config(generation: Generation) -> HookConfig:
    """The settings of a generation, as hooks see them."""
    plan = generation.plan
    return HookConfig(
        plan.settings, workers=generation.target, proc_name=plan.settings.proc_name or plan.application_name
    )
