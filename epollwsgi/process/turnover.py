"""From one generation of workers to the next: reload, and upgrade in place. What fails leaves the old one serving.

`process.master` says when; this knows how, and what is wanted (`is_reload_wanted`, `is_upgrade_wanted`): however often
a signal came meanwhile, it is done once more.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from select import poll
from typing import Protocol

from epollwsgi.config.settings import Settings
from epollwsgi.errors import StartError
from epollwsgi.listener import Listener
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.process import upgrade
from epollwsgi.process.children import Children
from epollwsgi.process.fleet import Child, Fleet, Generation
from epollwsgi.process.hook_objects import HookServer
from epollwsgi.process.origin import Origin
from epollwsgi.process.signals import block_all, restore_blocked
from epollwsgi.process.systemd import Notifier

# A reload that is still booting after so long gives way to the next one.
SUPERSEDE_S = 5.0


@dataclass(slots=True)
class Tools:
    """What a master is given.

    begin: builds a generation from the settings as they are now, beside the one that is current, with the application
    loaded if that is preloaded and wanted; or of the same settings, with a failure to show; raises StartError.
    on_ready: the first generation serves.  on_current: another one does.  on_end: the master ends.
    """

    origin: Origin
    begin: Callable[[int, Generation, bool, str], Generation]
    notifier: Notifier
    children: Children
    poller: poll
    on_ready: Callable[[Generation], None]
    on_current: Callable[[Generation], None]
    on_end: Callable[[Generation], None]
    state: Callable[[], upgrade.State]  # of the rest of the server, for the next image


class Keeper(Protocol):
    """The master, as far as this knows it."""

    next_age: int
    hook_server: HookServer

    @property
    def settings(self) -> Settings: ...
    @property
    def log(self) -> ErrorLog: ...
    def retire(self, child: Child) -> None: ...
    def take_signals(self) -> bool: ...
    def note_current(self) -> None: ...


class Turnover:
    """See the module."""

    def __init__(self, master: Keeper, tools: Tools, fleet: Fleet) -> None:
        self.is_reload_wanted = False
        self.is_upgrade_wanted = False
        self._master = master
        self._tools = tools
        self._fleet = fleet
        self._dry_run: upgrade.DryRun | None = None

    def start_wanted(self, now: float) -> None:
        """Begin a reload or an upgrade that was asked for, unless another is under way."""
        pending = self._fleet.pending
        if self._dry_run is not None:
            return
        if pending is not None and now - pending.started_at <= SUPERSEDE_S:
            return
        if self.is_upgrade_wanted:
            self.is_upgrade_wanted = False
            self.drop_pending()
            self._begin_upgrade()
        elif self.is_reload_wanted:
            self.is_reload_wanted = False
            self.drop_pending()
            if self._tools.origin.command and self._is_loaded_here():
                self._begin_upgrade()
            else:
                self._begin_reload()

    def heeds(self, child: Child) -> bool:
        """Whether a change that a worker tells of is news: what follows it, or a dry run, is loaded after all changes.

        If that fails, those who show why know the files as they were when it began.
        """
        return not child.generation.is_over and self._dry_run is None

    def _is_loaded_here(self) -> bool:
        """Whether the master has the application, which only another image of it can load again.

        What a program has handed over is loaded again for `reload` alone: a program that runs once more may do more.
        """
        plan = self._fleet.current.plan
        return plan.settings.preload_app or (plan.settings.reload and plan.application is not None)

    # --- reload -----------------------------------------------------------------------------------------------------

    def _begin_reload(self) -> None:
        """Read the settings again; the new generation boots beside the old one."""
        current = self._fleet.current
        self._tools.notifier.reloading()
        self._master.log.info("reloading")
        current.hooks.call("on_reload", self._master.hook_server)
        try:
            self._tools.origin.restore()
            pending = self._tools.begin(current.number + 1, current, True, "")
        except (StartError, OSError) as error:
            problem = str(error)
        except Exception:
            problem = traceback.format_exc()
        else:
            self._boot(pending)
            return
        current.surroundings.enter()
        self._report_reload_failed(problem)
        self._show(problem)

    def _show(self, problem: str) -> None:
        """With --reload: workers that show it, and watch. Those of before have told of a change, and watch no more."""
        current = self._fleet.current
        if not current.plan.settings.reload:
            return
        try:
            pending = self._tools.begin(current.number + 1, current, False, problem)
        except (StartError, OSError) as error:
            self._report_reload_failed(str(error))
        else:
            self._boot(pending)

    def _boot(self, pending: Generation) -> None:
        """A new generation. With --reload it takes over at once."""
        pending.started_at = time.monotonic()
        self._fleet.pending = pending
        if pending.plan.settings.reload:
            self.take_over()

    def _report_reload_failed(self, message: str) -> None:
        first, _, more = message.partition("\n")
        self._master.log.write("error", f"reload failed, what was running goes on: {first}", more)
        self._tools.notifier.ready("reload failed: " + last_line(message))

    def abandon(self, message: str) -> None:
        """The new generation cannot boot: the old one goes on serving."""
        self.drop_pending()
        self._fleet.current.surroundings.enter()
        self._report_reload_failed(message)

    def drop_pending(self) -> None:
        """End the workers of the generation that was to follow."""
        pending = self._fleet.pending
        if pending is None:
            return
        self._fleet.pending = None
        self._fleet.over.append(pending)
        pending.is_over = pending.is_refused = True
        for listener in pending.listeners_without(self._fleet.current):
            listener.unlink()
            listener.close()
        for child in self._fleet.serving(pending):
            self._master.retire(child)

    def take_over(self) -> None:
        """The new generation is ready: the old one is drained, as fast as reload_overlap lets it."""
        old = self._fleet.take_over()
        self._master.note_current()
        self._tools.on_current(self._fleet.current)
        for listener in old.listeners_without(self._fleet.current):
            listener.shut()  # its workers take what waits there, then it is gone
        if old.target != self._fleet.current.target:
            self._fleet.current.hooks.call(
                "nworkers_changed", self._master.hook_server, self._fleet.current.target, old.target
            )
        self._master.log.info(f"generation {self._fleet.current.number} serves")
        self._tools.notifier.ready(f"generation {self._fleet.current.number} serves")

    # --- upgrade ----------------------------------------------------------------------------------------------------

    def _begin_upgrade(self) -> None:
        """Have the new code load itself somewhere else first."""
        log = self._master.log
        if not self._tools.origin.command:
            log.error("upgrade failed: nobody knows how to start this program again")
            return
        self._tools.notifier.reloading()
        log.info("upgrading: a dry run comes first")
        if self._master.settings.reload:
            from epollwsgi.process.sources import note_files, note_loaded

            note_loaded()  # if the dry run fails, what is saved meanwhile may mend it
            note_files(self._fleet.current.plan.paths)
        try:
            self._dry_run = upgrade.start_dry_run(self._tools.origin)
        except OSError as error:
            self._report_upgrade_failed(str(error))

    def on_foreign_death(self, pid: int, status: int) -> None:
        """A process that is no worker has ended; perhaps the dry run."""
        dry_run = self._dry_run
        if dry_run is None or pid != dry_run.pid:
            return
        self._dry_run = None
        problem = dry_run.problem(status)
        if not problem:
            self._execute()
            return
        self._report_upgrade_failed(problem)
        self._show(problem)

    def abandon_dry_run(self) -> None:
        """The server stops."""
        if self._dry_run is not None:
            with suppress(ProcessLookupError):
                os.kill(self._dry_run.pid, signal.SIGKILL)

    def _execute(self) -> None:
        """Become the new image; where that fails everything goes on as it was.

        The settings are read here once more and new addresses are bound here, where a mistake costs nothing.
        """
        current = self._fleet.current
        log = self._master.log
        blocked = block_all()
        trial: Generation | None = None
        problem = ""
        try:
            self._tools.origin.restore()
            trial = self._tools.begin(current.number + 1, current, False, "")
            if self._master.take_signals():
                log.info("upgrading: the master executes itself")
                current.hooks.call("pre_exec", self._master.hook_server)
                self._execute_with(list(dict.fromkeys([*self._fleet.listeners(), *trial.listeners])))
        except (StartError, OSError) as error:
            problem = str(error)
        except Exception:
            problem = traceback.format_exc()
        finally:
            if trial is not None:
                self._close_new(trial)
            current.surroundings.enter()
            restore_blocked(blocked)
        if problem:
            self._report_upgrade_failed(problem)
            self._show(problem)

    def _execute_with(self, listeners: list[Listener]) -> None:
        """Raises OSError."""
        children = list(self._fleet.children.values())
        scoreboard = self._tools.children.scoreboard
        state = {
            "scoreboard": scoreboard.fd,
            "generation": self._fleet.current.number,
            "next_age": self._master.next_age,
            **self._tools.state(),
            "listeners": [
                {"fd": one.fd, "key": one.key, "unlink_path": one.unlink_path, "inode": one.inode} for one in listeners
            ],
            "children": [child.describe() for child in children],
        }
        fds = [scoreboard.fd, *(one.fd for one in children), *(one.fd for one in listeners)]
        log = self._fleet.current.error_log
        log.flush(is_end=False)
        is_capturing = log.is_capturing
        log.release()  # the new image captures again; what it would release must survive till then
        try:
            upgrade.execute(self._tools.origin, state, fds)
        finally:
            if is_capturing:
                log.capture()

    def _close_new(self, trial: Generation) -> None:
        """What was opened for a generation that is not to be."""
        for listener in trial.listeners_without(self._fleet.current):
            listener.unlink()
            listener.close()
        trial.is_refused = True
        trial.close()

    def _report_upgrade_failed(self, message: str) -> None:
        self._master.log.write("error", "upgrade failed: what was running goes on", message)
        self._tools.notifier.ready("upgrade failed: " + last_line(message))


def last_line(message: str) -> str:
    """The end of a message, short enough for a status."""
    lines = message.strip().splitlines() or [""]
    return lines[-1][:200]
