"""How a server comes to be: settings, listeners, logs and hooks made into a generation, and a master that keeps it.

`cli` calls `run_master` with what reads the settings; everything that a start, a reload and an upgrade have in common
is here, and so is what goes with the whole server: banner, pid file, daemon, service manager.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from select import poll
from typing import TYPE_CHECKING

from epollwsgi.config.settings import Settings
from epollwsgi.config.values import FDBind
from epollwsgi.errors import ConfigError, StartError
from epollwsgi.listener import Listener, by_key, open_listeners
from epollwsgi.logs.opening import access_for_loggers, captures_output, close_logs, configures_logging, open_logs
from epollwsgi.logs.sink import is_captured
from epollwsgi.logs.standin import stand_in
from epollwsgi.process import daemon, systemd
from epollwsgi.process.children import NO_SLOT, Children
from epollwsgi.process.cpus import usable_cpus
from epollwsgi.process.fleet import Child, Fleet, Generation, Plan, hook_config
from epollwsgi.process.hook_objects import HookLog, HookWorker
from epollwsgi.process.hooks import Hooks
from epollwsgi.process.master import Master
from epollwsgi.process.origin import Origin, find_surroundings
from epollwsgi.process.pidfile import PidFile
from epollwsgi.process.privileges import find_identity, warn_of_root
from epollwsgi.process.systemd import Notifier
from epollwsgi.process.title import set_title
from epollwsgi.process.turnover import Tools
from epollwsgi.process.upgrade import State
from epollwsgi.scoreboard import Scoreboard, Slot

if TYPE_CHECKING:
    from epollwsgi.logs.error_log import ErrorLog

Read = Callable[[Plan | None], Plan]


def run_master(read: Read, origin: Origin, state: State | None) -> int:
    """Serve until a signal ends it; the exit code. Raises StartError.

    read: the settings as they are now, with the process made what they say; it is given what they are to follow on,
    None for a start.  state: left by the image before this one.
    """
    daemon.fill_standard_descriptors()  # or a pipe of ours would be what the application prints to
    return Server(read, origin, state).run()


class Server:
    """One server, from its start to its end."""

    def __init__(self, read: Read, origin: Origin, state: State | None) -> None:
        self._read = read
        self._origin = origin
        self._state = state
        self._notifier = Notifier(os.environ)
        self._parting: daemon.Parting | None = None
        self._pid_file: PidFile | None = None
        if state is not None and state["pidfile"]:
            self._pid_file = PidFile(state["pidfile"])
        # Sockets of the service manager take the place of `bind`, and are its own: they outlive this server.
        self._passed: list[int] = systemd.passed_listeners(os.environ) if state is None else state["passed"]

    def run(self) -> int:
        """See `run_master`."""
        plan = self._read(None)
        watch_settings(plan)
        if plan.settings.daemon and self._state is None:
            self._parting = daemon.detach()
        try:
            return self._run(plan)
        except StartError as error:
            if self._parting is None:
                raise
            sys.stderr.write(f"epollwsgi: {error}\n")
            sys.stderr.flush()
            self._parting.done(error.exit_code)
            return error.exit_code

    def _run(self, plan: Plan) -> int:
        state = self._state
        poller = poll()
        kept: dict[str, list[Listener]] = {}
        if state is not None:
            kept = by_key(Listener.adopt(**one) for one in state["listeners"])
        first = self._build(plan, 1 if state is None else state["generation"] + 1, kept)
        scoreboard: Scoreboard | None = None
        try:
            self._claim_pid_file(first.plan.settings)
            scoreboard, children = self._take_workers(first, kept)
            fleet = Fleet(first, children=children)
            if state is not None:
                fleet.over = list(dict.fromkeys(child.generation for child in children.values()))
                for old in fleet.over:
                    for listener in old.listeners_without(first):
                        listener.shut()
            tools = Tools(
                origin=self._origin,
                begin=self.begin,
                notifier=self._notifier,
                children=Children(
                    children, scoreboard, poller, lambda count: fleet.current.error_log.note_workers(count)
                ),
                poller=poller,
                on_ready=self._on_ready,
                on_current=self._on_current,
                on_end=self._on_end,
                state=self._describe,
            )
            master = Master(tools, fleet, 1 if state is None else state["next_age"], is_up=state is not None)
            self._set_title(first)
            if state is None:
                first.hooks.call("on_starting", master.hook_server)
            else:
                first.error_log.info(f"upgraded in place, process {os.getpid()} goes on")
                settle_output(first)
                master.announce(self._notifier)
        except BaseException:
            for listener in first.listeners:
                listener.unlink()
                listener.close()
            if self._pid_file is not None:
                self._pid_file.release()
            first.is_refused = True
            first.close()
            if scoreboard is not None:
                scoreboard.close()
            raise
        try:
            return master.run()
        except StartError:
            first.is_refused = True
            raise
        finally:  # the program may go on, and serve again
            fleet.current.error_log.flush()
            fleet.current.error_log.release()
            for generation in fleet.generations():
                generation.close()
            scoreboard.close()

    # --- generations ------------------------------------------------------------------------------------------------

    def begin(self, number: int, old: Generation, loads: bool, failure: str = "") -> Generation:
        """A generation of the settings as they are now, with the listeners of the old one kept. Raises StartError.

        loads: load an application that is preloaded.  failure: as a Plan has it; the settings are the old one's then.
        """
        if failure:
            plan = replace(old.plan, failure=failure)
        else:
            watch_settings(old.plan)  # what is saved while they are read counts too
            plan = self._read(old.plan)
        tell_news(plan, old.plan, old.error_log)
        try:
            return self._build(plan, number, by_key(old.listeners), loads and not failure)
        except ConfigError as error:
            raise plan.locate(error) from None

    def _build(self, plan: Plan, number: int, kept: Mapping[str, list[Listener]], loads: bool = True) -> Generation:
        if self._passed:
            plan = replace(plan, settings=replace(plan.settings, bind=tuple(map(FDBind, self._passed))))
        settings = plan.settings
        identity = find_identity(settings)
        error_log, access_log = open_logs(settings, plan.application_name, is_wary=identity is not None)
        listeners: list[Listener] = []
        try:
            hooks = Hooks(settings, error_log)
            listeners = open_listeners(settings, kept, identity.own if identity is not None else None)
            if loads and settings.preload_app and plan.application is None and plan.application_name:
                if not configures_logging(settings):
                    stand_in(error_log, settings.loglevel, access_for_loggers(settings, access_log))
                with captured_output(settings, error_log):
                    plan = preload(plan, error_log)
        except BaseException:
            for listener in listeners:
                if all(listener not in group for group in kept.values()):
                    listener.unlink()
                    listener.close()
            close_logs(error_log, access_log, is_refused=True)
            raise
        generation = Generation(
            number=number,
            plan=plan,
            listeners=listeners,
            surroundings=find_surroundings(),
            error_log=error_log,
            access_log=access_log,
            hooks=hooks,
            identity=identity,
            target=settings.workers or usable_cpus(),
        )
        generation.give_logs()
        return generation

    def _take_workers(
        self, first: Generation, kept: Mapping[str, list[Listener]]
    ) -> tuple[Scoreboard, dict[int, Child]]:
        """The scoreboard, and the workers that the image before has left: they serve until others are ready."""
        if self._state is None:
            return Scoreboard.create(), {}
        has_slots = True
        try:
            scoreboard = Scoreboard.adopt(self._state["scoreboard"])
        except ValueError:  # of another version
            os.close(self._state["scoreboard"])
            scoreboard = Scoreboard.create()
            has_slots = False
        listeners = [listener for group in kept.values() for listener in group]
        over = replace(first, number=first.number - 1, listeners=listeners, surroundings=find_surroundings())
        over.is_over = True
        over.owns_logs = False
        children = {
            one["pid"]: Child(
                pid=one["pid"],
                slot=one["slot"] if has_slots else NO_SLOT,
                age=one["age"],
                generation=over,
                fd=one["fd"],
                started_at=0.0,
                state=Slot(one["state"]),
            )
            for one in self._state["children"]
        }
        for child in children.values():
            os.set_inheritable(child.fd, False)
            child.hook_worker = HookWorker(child.age, os.getpid(), hook_config(over), HookLog(over.error_log))
            child.hook_worker.pid = child.pid
        return scoreboard, children

    def _describe(self) -> State:
        """What the next image has to know of all this."""
        return {"passed": self._passed, "pidfile": self._pid_file.path if self._pid_file is not None else ""}

    # --- what goes with the whole server ----------------------------------------------------------------------------

    def _on_ready(self, generation: Generation) -> None:
        """The first generation serves."""
        plan = generation.plan
        sys.stderr.write(plan.describe([str(listener) for listener in generation.listeners]))
        sys.stderr.flush()
        for warning in plan.warnings:
            generation.error_log.warning(warning)
        if generation.identity is None:
            warn_of_root(plan.settings, generation.error_log)
        self._notifier.main_pid(os.getpid())
        self._notifier.ready(f"{generation.target} workers serve")
        if self._parting is not None:
            self._parting.done(0, generation.log_fds())
        settle_output(generation)

    def _on_current(self, generation: Generation) -> None:
        """A new generation serves: what its settings say of the whole server."""
        try:
            self._claim_pid_file(generation.plan.settings)
        except StartError as error:
            generation.error_log.error(f"the pid file stays where it is: {error}")
        self._set_title(generation)
        settle_output(generation)

    def _on_end(self, generation: Generation) -> None:
        """The master ends."""
        if self._pid_file is not None:
            self._pid_file.release()
        self._notifier.close()

    def _claim_pid_file(self, settings: Settings) -> None:
        """Write the pid file, unless that is done; remove one of another name. Raises ConfigError."""
        before = self._pid_file
        wanted = PidFile(settings.pidfile) if settings.pidfile else None
        if wanted is not None and (before is None or before.path != wanted.path):
            wanted.claim()
        elif wanted is not None:
            wanted = before
        if before is not None and before is not wanted:
            before.release()
        self._pid_file = wanted

    def _set_title(self, generation: Generation) -> None:
        plan = generation.plan
        set_title(f"{plan.settings.proc_name or 'epollwsgi'}: master [{plan.application_name or 'static'}]")


def watch_settings(plan: Plan) -> None:
    """With --reload: workers that are started from now on watch the settings files, and know them as they are now."""
    if plan.settings.reload:
        from epollwsgi.process.sources import note_files

        note_files(plan.paths)


def tell_news(plan: Plan, old: Plan, log: ErrorLog) -> None:
    """What the settings that were read again give rise to and did not before."""
    for name in [name for name in plan.found if name not in old.found]:
        log.info(f"settings file {name} has appeared, and is read")
    for note in [note for note in plan.notes if note not in old.notes]:
        log.info(note)
    for warning in [warning for warning in plan.warnings if warning not in old.warnings]:
        log.warning(warning)


def settle_output(generation: Generation) -> None:
    """In a master, after the banner: capture_output, as a generation has it."""
    log = generation.error_log
    if captures_output(generation.plan.settings):
        log.capture()
    else:
        log.release()


@contextmanager
def captured_output(settings: Settings, log: ErrorLog) -> Iterator[None]:
    """What is printed meanwhile goes where capture_output says; what is printed later, where it went before."""
    if is_captured() or not captures_output(settings):
        yield
        return
    log.capture()
    try:
        yield
    finally:
        log.release()


def preload(plan: Plan, log: ErrorLog) -> Plan:
    """With the application, loaded once for all workers; with --reload, why there is none. Raises StartError."""
    import gc

    from epollwsgi import importer

    importer.prepare_path(plan.settings.pythonpath)
    if plan.settings.reload:
        from epollwsgi.process.sources import note_loading

        note_loading()
    try:
        application = importer.load_checked(plan.application_name, plan.settings, plan.static_source)
    except StartError as error:
        if not plan.settings.reload:
            raise
        log.write("error", "the application cannot be loaded", str(error))
        return replace(plan, failure=str(error))
    gc.collect()
    gc.freeze()  # the pages of what was loaded stay shared: the collector of a worker does not write into them
    return replace(plan, application=application)
