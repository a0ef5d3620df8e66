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
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from epollwsgi.errors import ApplicationFailed, StartError
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.opening import captures_output, configures_logging
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
    plan = errand.generation.plan
    settings = plan.settings
    log = errand.generation.error_log
    errand.generation.surroundings.enter()
    if captures_output(settings):
        log.capture()
    else:
        log.release()  # the generation before may have had it
    systemd.strip(os.environ)
    set_title(f"{settings.proc_name or 'epollwsgi'}: worker [{plan.application_name or 'static'}]")
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
        errand.generation.hooks.call("post_fork", errand.hook_server, hook_worker)
        if not configures_logging(settings):
            stand_in(log, settings.loglevel)
        application, is_broken = load(errand, station)
        if not configures_logging(settings):
            adopt(log)
        hook_worker.app.callable = application
        hook_worker.booted = True
        errand.generation.hooks.call("post_worker_init", hook_worker)
    except StartError as error:
        station.report_failure(error.exit_code, str(error))
        return
    except Exception:
        station.report_failure(ApplicationFailed.exit_code, traceback.format_exc())
        return
    hooks = errand.generation.hooks
    if application is not None and (hooks.pre_request or hooks.post_request):
        application = wrap_application(application, hooks.pre_request, hooks.post_request, hook_worker)
    if is_broken:  # its page answers ready_path, too, and is to be seen
        settings = replace(settings, ready_path="")
    worker = Worker(settings, application, errand.generation.listeners, log, errand.generation.access_log, station)
    worker.run()
    log.report_held_back()
    log.flush()  # before the application's own words at the end, which may shut logging down
    station.say_goodbye()


def load(errand: Errand, station: Station) -> tuple[WSGIApplication | None, bool]:
    """The application, or with --reload a page with the traceback where there is none: then True. Raises StartError."""
    from epollwsgi import importer

    plan = errand.generation.plan
    settings = plan.settings
    if plan.application is not None or not plan.application_name:
        application = plan.application
        failure = ""
    else:
        importer.prepare_path(settings.pythonpath)
        if settings.reload:  # imported there only: a start without it does not pay for it
            from epollwsgi.process.sources import note_loading

            note_loading()
        try:
            application = importer.load_checked(plan.application_name, settings, plan.static_source)
            failure = ""
        except StartError as error:
            if not settings.reload:
                raise
            failure = str(error)
            errand.generation.error_log.write("error", "the application cannot be loaded", failure)
            from epollwsgi.process.broken_page import broken_application

            application = broken_application(failure)
    if settings.reload:
        from epollwsgi.process.reloader import start_watching

        start_watching(settings, station.report_change, errand.generation.error_log, failure)
    return application, bool(failure)


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
