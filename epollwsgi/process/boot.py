"""The life of a worker process, from the fork to its end: who it is, what it loads, what it says when that fails.

`process.master` forks and calls `live`, which never returns. Everything that the master must not have on its hands
(the application, its user's rights) begins here.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import traceback
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from epollwsgi.errors import ApplicationFailed, StartError
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.opening import access_for_loggers, captures_output, configures_logging
from epollwsgi.logs.standin import adopt, stand_in
from epollwsgi.process import systemd
from epollwsgi.process.fleet import Generation
from epollwsgi.process.hook_objects import HookServer, HookWorker
from epollwsgi.process.hooks import Hooks
from epollwsgi.process.request_hooks import wrap_application
from epollwsgi.process.station import Station
from epollwsgi.process.title import set_title
from epollwsgi.process.worker import Worker
from epollwsgi.scoreboard import Scoreboard

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from epollwsgi.process.broken_page import Replaceable
    from epollwsgi.process.sources import Sources

PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class Errand:
    """What a new worker is told. fd: the pipe to its master."""

    generation: Generation
    scoreboard: Scoreboard
    slot: int
    fd: int
    master_pid: int
    hook_server: HookServer
    hook_worker: HookWorker


def live(errand: Errand) -> NoReturn:
    """In the child, signals as the system has them: load, serve, end. Whatever happens, the process ends here."""
    try:
        _live(errand)
    except BaseException:
        errand.generation.error_log.write("critical", "a worker failed", traceback.format_exc())
        errand.generation.error_log.flush()
        os._exit(1)
    finally:
        errand.generation.error_log.flush()
        os._exit(0)


def _live(errand: Errand) -> None:
    settings = errand.generation.plan.settings
    log = errand.generation.error_log
    settle(errand)
    hook_worker = errand.hook_worker
    station = Station(
        settings,
        errand.scoreboard,
        errand.slot,
        errand.fd,
        errand.master_pid,
        errand.generation.hooks,
        errand.hook_server,
        hook_worker,
        errand.generation.log_fds(),
    )
    try:
        if errand.generation.identity is not None:
            errand.generation.identity.drop(settings.initgroups)
        die_with_parent(errand.master_pid)
        watch_faults(log, errand.generation.hooks, hook_worker)
        hook_worker.enter_process(os.getpid(), station.requests, station.is_serving, station.report_hook)
        failure = call_hook(errand, "post_fork", errand.hook_server, hook_worker)
        access_log = access_for_loggers(settings, errand.generation.access_log)
        if not configures_logging(settings):
            stand_in(log, settings.loglevel, access_log)
        loading = load(errand, station, is_wanted=not failure)
        if not configures_logging(settings):
            adopt(log, access_log)
        hook_worker.app.callable = loading.application
        hook_worker.booted = True
        if failure := failure or call_hook(errand, "post_worker_init", hook_worker):
            loading.fail(failure, log)
    except StartError as error:
        station.report_failure(error.exit_code, str(error))
        return
    except Exception:
        station.report_failure(ApplicationFailed.exit_code, traceback.format_exc())
        return
    serve(errand, station, loading)
    log.report_held_back()
    log.flush()  # before the application's own words at the end, which may shut logging down
    station.say_goodbye()


def settle(errand: Errand) -> None:
    """The process is a worker now: its environment, output and title."""
    plan, log = errand.generation.plan, errand.generation.error_log
    errand.generation.surroundings.enter()
    if captures_output(plan.settings):
        log.capture()
    else:
        log.release()  # the generation before may have had it
    systemd.strip(os.environ)
    set_title(f"{plan.settings.proc_name or 'epollwsgi'}: worker [{plan.application_name or 'static'}]")


def serve(errand: Errand, station: Station, loading: Loading) -> None:
    """Serve what was loaded, or the page that says why it could not be, until the worker is told to end."""
    generation, application = errand.generation, loading.application
    settings, hooks, log = generation.plan.settings, generation.hooks, generation.error_log
    if application is not None and (hooks.pre_request or hooks.post_request):
        application = wrap_application(application, hooks.pre_request, hooks.post_request, errand.hook_worker)
    on_unready = None
    if loading.failure:  # its page answers ready_path, too, and is to be seen
        settings = replace(settings, ready_path="")
    elif settings.reload and settings.ready_path and application is not None:
        from epollwsgi.process.broken_page import Replaceable

        application = served = Replaceable(application)
        on_unready = partial(show_unready, served, loading, log)
    worker = Worker(settings, application, generation.listeners, log, generation.access_log, station)
    worker.on_unready = on_unready or worker.on_unready
    worker.run()


@dataclass(slots=True)
class Loading:
    """What a worker has got to serve.

    failure: with --reload, why `application` is a page that says so.  sources: what is watched then.
    """

    application: WSGIApplication | None
    failure: str = ""
    sources: Sources | None = None

    def fail(self, failure: str, log: ErrorLog, details: str = "") -> None:
        """With --reload: what was loaded is not ready; tried again when a file has changed.  details: for the page."""
        from epollwsgi.process.broken_page import IS_NOT_READY, broken_application

        log.write("error", "the application is not ready", failure)
        if not self.failure:
            self.failure = f"{failure}\n{details}" if details else failure
            self.application = broken_application(self.failure, IS_NOT_READY)
        if self.sources is not None:
            self.sources.fail(self.failure)


def load(errand: Errand, station: Station, *, is_wanted: bool) -> Loading:
    """The application, or with --reload a page with the traceback where there is none. Raises StartError."""
    from epollwsgi import importer

    plan = errand.generation.plan
    settings = plan.settings
    application, failure = plan.application, plan.failure
    if is_wanted and application is None and plan.application_name and not failure:
        importer.prepare_path(settings.pythonpath)
        if settings.reload:  # imported there only: a start without it does not pay for it
            from epollwsgi.process.sources import note_loading

            note_loading()
        try:
            application = importer.load_checked(plan.application_name, settings, plan.static_source)
        except StartError as error:
            if not settings.reload:
                raise
            failure = str(error)
            errand.generation.error_log.write("error", "the application cannot be loaded", failure)
    if failure:
        from epollwsgi.process.broken_page import broken_application

        application = broken_application(failure)
    loading = Loading(application, failure)
    if settings.reload:
        from epollwsgi.process.reloader import start_watching

        loading.sources = start_watching(settings, station.report_change, errand.generation.error_log, failure)
    return loading


def call_hook(errand: Errand, name: str, *arguments: object) -> str:
    """One without which a worker does not start. Raises StartError; with --reload what is wrong, to be shown."""
    try:
        errand.generation.hooks.call(name, *arguments)
    except StartError as error:
        if not errand.generation.plan.settings.reload:
            raise
        return str(error)
    return ""


def show_unready(served: Replaceable, loading: Loading, log: ErrorLog, problem: str) -> bool:
    """With --reload: ready_path was not answered as it should, and the page comes in the application's place."""
    loading.fail(problem, log, served.traceback)
    if loading.application is not None:
        served.application = loading.application
    return True


def die_with_parent(master_pid: int) -> None:
    """TERM when the master dies, whatever kills it. Must come after the last change of identity. prctl(2)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != master_pid:
        os._exit(0)


def watch_faults(log: ErrorLog, hooks: Hooks, hook_worker: HookWorker) -> None:
    """Stacks of all threads in the log when the process dies of a fault, or is aborted because its loop is silent."""

    def on_abort(number: int, frame: FrameType | None) -> None:
        hooks.call("worker_abort", hook_worker)
        os._exit(1)

    if "worker_abort" in hooks:
        signal.signal(signal.SIGABRT, on_abort)  # faulthandler calls what it finds after it has written
    try:
        faulthandler.enable(log.fd)
    except (OSError, ValueError):
        pass  # a closed log
