"""The master: keeps the workers alive, and changes them without losing a request. One thread, no application code.

Everything that comes (signals, reports of workers, deaths, moments) only changes what is known: `fleet`, and what is
wanted. Then `_reconcile` compares the two and does what is missing; so a storm of signals ends in one state.

    started -> serving <-> reloading (a new generation boots; the old one serves)
                  |    <-> upgrading (a dry run; then this process executes itself)
                  +--> stopping -> ended
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from contextlib import suppress
from select import POLLIN
from typing import NoReturn

from epollwsgi.config.settings import Settings
from epollwsgi.errors import ApplicationFailed, StartError, start_error
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.process.boot import Errand, live
from epollwsgi.process.children import describe_status
from epollwsgi.process.fleet import FOREVER, Child, Fleet, Generation, hook_config
from epollwsgi.process.hook_objects import HookLog, HookServer, HookWorker
from epollwsgi.process.signals import MASTER_SIGNALS, SignalPipe
from epollwsgi.process.systemd import Notifier
from epollwsgi.process.turnover import Tools, Turnover
from epollwsgi.scoreboard import Slot

TICK_S = 1.0
QUICK_STOP_S = 2.0
KILL_AFTER_S = 2.0  # a worker that was aborted, or has not ended within graceful_timeout of its own
LATE_S = 1.0
NO_CODE = -1


class Master:
    """See the module."""

    def __init__(self, tools: Tools, fleet: Fleet, next_age: int = 1, is_up: bool = False) -> None:
        self.fleet = fleet
        self._tools = tools
        self._children = tools.children
        self.next_age = next_age
        self._is_up = is_up  # every worker of the first generation was ready once
        self._exit_code = NO_CODE
        self._signals: SignalPipe | None = None
        self._stop_kind = ""  # the name of the action
        self._doors_close_at = FOREVER
        self._killed_count = 0
        self._looked_at = time.monotonic()
        self._judged_at = 0.0  # workers are not judged before: this process itself was late
        self._watchdog_at = 0.0
        self.hook_server = HookServer(
            hook_config(fleet.current),
            HookLog(fleet.current.error_log),
            os.getpid(),
            lambda: fleet.current.target,
            lambda: {pid: child.hook_worker for pid, child in fleet.children.items() if child.hook_worker},
        )
        self._turnover = Turnover(self, tools, fleet)

    # --- what is current --------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """Those of the current generation."""
        return self.fleet.current.plan.settings

    @property
    def log(self) -> ErrorLog:
        """The error log of the current generation."""
        return self.fleet.current.error_log

    # --- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until a signal ends it, or the first start fails; the exit code. Raises StartError for the latter."""
        signals = self._signals = SignalPipe(MASTER_SIGNALS, self._on_signal)
        self._tools.poller.register(signals.fd, POLLIN)
        self._start_hooks()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # after an upgrade they were held back until now
        try:
            while self._exit_code == NO_CODE:
                try:
                    self._turn(signals)
                except StartError:
                    raise
                except Exception:  # a fault of our own, or no memory: the workers serve on, and so it must
                    self.log.write("critical", "a turn of the master failed", traceback.format_exc())
                    time.sleep(TICK_S)
        except StartError:
            self._end_all()
            raise
        finally:
            signals.close()
            self.fleet.current.hooks.call("on_exit", self.hook_server)
            self._tools.on_end(self.fleet.current)
        return self._exit_code

    def _turn(self, signals: SignalPipe) -> None:
        """What there is to do, then what has come."""
        self._reap()
        self._reconcile(time.monotonic())
        if self._exit_code != NO_CODE:
            return
        for fd, _ in self._tools.poller.poll(self._wait_s() * 1000):
            if fd == signals.fd:
                signals.on_event(POLLIN)
            else:
                self._on_report(fd)
        self._note_lateness()

    def take_signals(self) -> bool:
        """Act on signals that have come but were not read yet; False where the server is to stop."""
        if self._signals is not None:
            self._signals.on_event(POLLIN)
        return not self._stop_kind

    def note_current(self) -> None:
        """Another generation is current: what hooks see of it."""
        self.hook_server.cfg = hook_config(self.fleet.current)
        self.hook_server.log = HookLog(self.fleet.current.error_log)

    def _start_hooks(self) -> None:
        """As gunicorn does when the number of workers is set for the first time."""
        if not self._is_up:
            self.fleet.current.hooks.call("nworkers_changed", self.hook_server, self.fleet.current.target, None)

    def _wait_s(self) -> float:
        """Until something has to be done without being told."""
        now = time.monotonic()
        moments = [now + TICK_S, self._doors_close_at]
        moments += [one.start_at for one in (self.fleet.current, self.fleet.pending) if one and one.start_at > now]
        moments += [one.killed_at for one in self.fleet.children.values()]
        if self._tools.notifier.watchdog_s:
            moments.append(self._watchdog_at)
        return max(0.0, min(moments) - now)

    def _note_lateness(self) -> None:
        """After a stall (SIGSTOP, a frozen machine) the workers get a moment before they are judged."""
        now = time.monotonic()
        if now - self._looked_at > TICK_S + LATE_S:
            self._judged_at = now + 2 * TICK_S
        self._looked_at = now

    def announce(self, notifier: Notifier) -> None:
        """After an upgrade in place: the service manager was told that a reload began."""
        notifier.main_pid(os.getpid())
        notifier.ready("upgraded in place")

    # --- signals ----------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        action, _ = MASTER_SIGNALS[signal.Signals(number)]
        self.log.debug(f"signal {signal.Signals(number).name} in the master")
        getattr(self, action)()

    def reap(self) -> None:
        """CHLD: the loop looks after its children in each turn."""

    def reload(self) -> None:
        """HUP."""
        self._turnover.is_reload_wanted = True

    def upgrade(self) -> None:
        """USR2."""
        self._turnover.is_upgrade_wanted = True

    def reopen_logs(self) -> None:
        """USR1: first here, where rights may be higher, then in the workers."""
        for generation in self.fleet.generations():
            generation.reopen_logs()
        for child in self.fleet.children.values():
            child.has_missed_reopening = child.state is Slot.BOOTING
            self._children.send(child, signal.SIGUSR1)

    def add_worker(self) -> None:
        """TTIN."""
        self._set_target(self.fleet.current.target + 1)

    def remove_worker(self) -> None:
        """TTOU."""
        self._set_target(max(1, self.fleet.current.target - 1))

    def retire_workers(self) -> None:
        """WINCH."""
        if self.settings.daemon:
            self._set_target(0)

    def _set_target(self, target: int) -> None:
        for generation in (self.fleet.current, self.fleet.pending):
            if generation is not None and generation.target != target:
                before, generation.target = generation.target, target
                generation.hooks.call("nworkers_changed", self.hook_server, target, before)

    def stop_gracefully(self) -> None:
        """TERM: drain_delay of normal service, then the doors are closed."""
        if not self._stop_kind:
            self._stop_kind = "stop_gracefully"
            self._tools.notifier.stopping()
            self._doors_close_at = time.monotonic() + self.settings.drain_delay
            self.log.info("stopping: open requests are finished")

    def stop_quickly(self) -> None:
        """INT, QUIT."""
        if self._stop_kind != "stop_quickly":
            self._stop_kind = "stop_quickly"
            self._tools.notifier.stopping()
            self._doors_close_at = time.monotonic()

    # --- workers ----------------------------------------------------------------------------------------------------

    def _start(self, generation: Generation) -> None:
        """One worker more."""
        age, self.next_age = self.next_age, self.next_age + 1
        hook_worker = HookWorker(age, os.getpid(), hook_config(generation), HookLog(generation.error_log))
        generation.hooks.call("pre_fork", self.hook_server, hook_worker)
        master_pid = os.getpid()

        def live_on(slot: int, fd: int) -> NoReturn:
            self._let_go(generation)
            live(Errand(generation, self._children.scoreboard, slot, fd, master_pid, self.hook_server, hook_worker))

        try:
            child = self._children.start(generation, age, live_on)
        except (OSError, RuntimeError) as error:
            generation.note_failure(time.monotonic())
            self.log.error(f"a worker cannot be started: {error}")
            return
        child.hook_worker = hook_worker
        hook_worker.pid = child.pid
        self.log.debug(f"worker {child.pid} started")

    def _let_go(self, generation: Generation) -> None:
        """In a new worker: what belongs to the master, and to other generations."""
        if self._signals is not None:
            self._signals.abandon()
        for other in self.fleet.generations():
            if other is not generation:
                for listener in other.listeners_without(generation):
                    listener.close()
                other.close()

    def _on_report(self, fd: int) -> None:
        """A worker has written into its pipe."""
        child, messages = self._children.read(fd)
        if child is None:
            return
        for message in messages:
            if message.get("ready") and child.state is Slot.BOOTING:
                self._children.set_state(child, Slot.READY)
                child.generation.failures = 0
                if child.has_missed_reopening:
                    self._children.send(child, signal.SIGUSR1)
            elif message.get("draining"):
                self._children.set_state(child, Slot.DRAINING)
            elif "failed" in message:
                child.failure = (int(message["failed"]), str(message.get("message", "")))
            elif "replace" in message and not child.replace:
                child.replace = str(message["replace"])
                self.log.info(f"worker {child.pid} is to be replaced ({child.replace})")
            elif "changed" in message and self._turnover.heeds(child):
                self.log.info(f"{message['changed']} has changed: restarting")
                self._turnover.is_reload_wanted = True

    def _reap(self) -> None:
        """Whoever has ended: workers, the dry run, and processes that are none of ours."""
        for pid, status in self._children.reap():
            child = self.fleet.children.get(pid)
            if child is not None:
                self._on_report(child.fd)
                self._children.forget(child)
                self._on_death(child, status)
            else:
                self._turnover.on_foreign_death(pid, status)

    def _on_death(self, child: Child, status: int) -> None:
        generation = child.generation
        if child.hook_worker is not None:
            generation.hooks.call("child_exit", self.hook_server, child.hook_worker)
        if self._stop_kind or (child.state is Slot.DRAINING and child.failure is None):
            self.log.debug(f"worker {child.pid} {describe_status(status)}")
            return
        if child.state is Slot.READY:
            self.log.error(f"worker {child.pid} {describe_status(status)}: it is replaced")
            return
        code, message = child.failure or (
            ApplicationFailed.exit_code,
            f"a worker {describe_status(status)} at its start",
        )
        if not self._is_up:
            raise start_error(code, message)
        if generation is self.fleet.pending:
            self._turnover.abandon(message)
        elif not generation.is_over:
            generation.note_failure(time.monotonic())
            self.log.write("error", f"worker {child.pid} ended before it was ready: tried again", message)

    # --- what is missing --------------------------------------------------------------------------------------------

    def _reconcile(self, now: float) -> None:
        """One look at what is and what should be."""
        for child in list(self.fleet.children.values()):
            self._judge(child, now)
        self._watch(now)
        if self._stop_kind:
            self._go_on_stopping(now)
            return
        if self._is_up:
            self._turnover.start_wanted(now)
        while (generation := self.fleet.whom_to_start(now)) is not None:
            self._start(generation)
        if self.fleet.is_pending_ready():
            self._turnover.take_over()
        while (unneeded := self.fleet.whom_to_retire(now)) is not None:
            self.retire(unneeded)
        for generation in self.fleet.forget_ended():
            generation.close()
        if not self._is_up and len(self.fleet.serving(self.fleet.current, Slot.READY)) >= self.fleet.current.target:
            self._is_up = True
            self._tools.on_ready(self.fleet.current)
            self.fleet.current.hooks.call("when_ready", self.hook_server)

    def _judge(self, child: Child, now: float) -> None:
        """A worker whose loop is silent is aborted; one that should have ended is killed."""
        if now >= child.killed_at:
            child.killed_at = FOREVER
            self._killed_count += 1
            if not child.is_aborted:
                self.log.warning(f"worker {child.pid} was killed: it did not end in time (graceful_timeout)")
            self._children.send(child, signal.SIGKILL)
            return
        timeout_s = child.generation.plan.settings.timeout
        if not timeout_s or child.state is Slot.BOOTING or child.is_aborted or now < self._judged_at:
            return
        if self._children.silence_s(child) > max(timeout_s, 2 * TICK_S):
            self.log.error(f"worker {child.pid}: its loop is silent for longer than timeout = {timeout_s:g} s")
            child.is_aborted = True
            child.killed_at = now + KILL_AFTER_S
            self._children.send(child, signal.SIGABRT)

    def retire(self, child: Child) -> None:
        """Drain a worker: others are there in its place."""
        self._children.set_state(child, Slot.DRAINING)
        child.killed_at = time.monotonic() + child.generation.plan.settings.graceful_timeout + KILL_AFTER_S
        self._children.send(child, signal.SIGTERM)

    def _watch(self, now: float) -> None:
        """The service manager's watchdog."""
        if self._tools.notifier.watchdog_s and now >= self._watchdog_at:
            self._watchdog_at = now + self._tools.notifier.watchdog_s
            self._tools.notifier.watchdog()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _go_on_stopping(self, now: float) -> None:
        """Close the doors when it is time; end when nobody is left."""
        self._turnover.abandon_dry_run()
        if now >= self._doors_close_at:
            self._doors_close_at = FOREVER
            self._close_doors(now)
        if not self.fleet.children:
            if self._killed_count:
                self.log.warning(f"{self._killed_count} workers were killed at the end")
            self._exit_code = 0

    def _close_doors(self, now: float) -> None:
        """No new connection comes from now on; the workers take those that wait, finish, and end."""
        is_graceful = self._stop_kind == "stop_gracefully"
        self._children.scoreboard.is_stopping = True
        for listener in self.fleet.listeners():
            if is_graceful:
                listener.shut()
            else:
                listener.unlink()
                listener.close()
        number, patience_s = signal.SIGQUIT, QUICK_STOP_S
        if is_graceful:
            number, patience_s = signal.SIGTERM, self.settings.graceful_timeout + KILL_AFTER_S
        for child in self.fleet.children.values():
            child.killed_at = min(child.killed_at, now + patience_s)
            self._children.send(child, number)

    def _end_all(self) -> None:
        """The first start has failed: nobody stays behind."""
        for child in self.fleet.children.values():
            self._children.send(child, signal.SIGKILL)
        for pid in list(self.fleet.children):
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        for listener in self.fleet.listeners():
            listener.unlink()
            listener.close()
