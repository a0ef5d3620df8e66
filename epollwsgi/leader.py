"""Who runs the application, and where: the one function through which every request to it goes.

A quick route is called at once, on the thread that leads the loop; so is one that nobody knows yet, unless there is a
reason to doubt it (`routes`). All others are handed to another thread (`crew`), and wait in a bounded queue while all
are in the application. Called by `dispatch`; what is here runs on the thread that leads.
"""

from __future__ import annotations

import ctypes
import sys
import traceback
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from epollwsgi.answer import UNKNOWN, name_request
from epollwsgi.crew import Crew, do_nothing
from epollwsgi.errors import RequestTimedOut
from epollwsgi.http import response as r
from epollwsgi.http.fields import Environ
from epollwsgi.http.head import RequestLine
from epollwsgi.loop import BATCH_WAIT_S, Loop
from epollwsgi.routes import QUICK_S, Route, Routes
from epollwsgi.seats import LeadLost
from epollwsgi.sink import Sink
from epollwsgi.upgrades import Upgrades
from epollwsgi.wsgi import Application, Exchange

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings

CHECK_S = 0.5
RETRY_AFTER = b"Retry-After: 1\r\n"


class Log(Protocol):
    """Where the leader says what it has learned."""

    def debug(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def write(self, level: str, message: str, detail: str = "") -> None: ...


class Leader:
    """Calls the application, or has it called; owns what is known of its routes."""

    def __init__(self, loop: Loop, application: Application, settings: Settings, log: Log) -> None:
        self._loop = loop
        self._application = application
        self._settings = settings
        self._log = log
        self.routes = Routes()
        self._known = self.routes.known
        self.crew = Crew(loop, application, settings.threads, self._on_overrun, self._log_problem)
        self.upgrades = Upgrades(application, self.crew.baton, log.warning)
        self.on_stuck: Callable[[], None] = do_nothing  # a call passed `timeout`: its thread may never come back
        self._is_checking = False
        self._is_pool = settings.dispatch == "pool" and settings.threads > 1
        if self._is_pool:
            self.crew.give_away_permit()

    def call(self, sink: Sink, request: RequestLine, environ: Environ, keep: bool, plain: bool) -> None:
        """Answer one request. keep, plain: see Exchange. Raises LeadLost only.

        Its duration counts from the call before it, or the poll: what lies between is small, and asking is not free.
        """
        loop = self._loop
        crew = self.crew
        route: Route = request.path_notes.route or self._find_route(request)
        exchange = Exchange()
        exchange.sink = sink
        exchange.request = request
        exchange.environ = environ
        exchange.route = route
        exchange.baton = crew.baton
        exchange.keep = keep
        exchange.plain = plain
        exchange.leads = True
        exchange.head = None
        exchange.framing = UNKNOWN
        exchange.is_done = False
        is_quick = route.is_quick
        if not (is_quick and crew.has_permit and crew.standby) and not self._may_call(route):
            self._hand_off(exchange)
            return
        started_at = loop.clock
        exchange.run(self._application, is_quick)
        if not exchange.leads:
            raise LeadLost
        ended_at = loop.clock = monotonic()
        if not is_quick or ended_at - started_at >= QUICK_S:
            route.note_duration(ended_at - started_at)
        if loop.batch:
            if not loop.batch_at:
                loop.batch_at = ended_at
            elif ended_at - loop.batch_at > BATCH_WAIT_S:
                loop.flush()

    def call_with_socket(self, sink: Sink, request: RequestLine, environ: Environ) -> None:
        """A WebSocket request: the application gets the socket, on a thread of its own; 503 if there are too many."""
        exchange = Exchange()
        exchange.sink = sink
        exchange.request = request
        exchange.environ = environ
        exchange.route = self._find_route(request)
        exchange.baton = self.crew.baton
        exchange.keep = exchange.plain = exchange.leads = exchange.is_done = False
        exchange.head = None
        exchange.framing = UNKNOWN
        exchange.is_upgrade = True
        sink.asked_at = self._loop.clock
        if len(self.upgrades.calls) >= self._settings.upgrade_threads:
            self._answer(exchange, 503, f"upgrade_threads = {self._settings.upgrade_threads} are in use")
            return
        environ["gunicorn.socket"] = sink.hand_over_socket()
        if not self.upgrades.start(exchange):
            self._answer(exchange, 503, "no thread can be started")

    def _log_problem(self, message: str, detail: str) -> None:
        """Of the crew."""
        self._log.write("error" if detail else "warning", message, detail)

    def _find_route(self, request: RequestLine) -> Route:
        """What a request is remembered by: its path, and the method if that is not GET."""
        key = request.path if request.method == "GET" else f"{request.method} {request.path}"
        route = self._known.get(key) or self.routes.add(key)
        request.path_notes.route = route
        return route

    def _may_call(self, route: Route) -> bool:
        """Whether the leader makes this call itself."""
        crew = self.crew
        if self._is_pool or not crew.is_ready():
            return False
        if not route.is_quick:
            if not crew.is_main_bound and not self.routes.may_try(route, self._loop.clock):
                return False
            if self._loop.batch:
                self._loop.flush()
            crew.baton.hurry()
        return True

    def _hand_off(self, exchange: Exchange) -> None:
        """To another thread, or into the queue; 503 where that is full."""
        crew = self.crew
        if len(crew.queue) >= self._settings.queue_size:
            self._answer(exchange, 503, f"queue_size = {self._settings.queue_size} requests wait for a thread")
            return
        exchange.started_at = self._loop.clock
        exchange.sink.asked_at = exchange.sink.asked_at or exchange.started_at
        crew.hand_off(exchange)
        self._check_later()

    # --- what takes too long ----------------------------------------------------------------------------------------

    def _on_overrun(self, exchange: Exchange) -> None:
        """Told by the watch: the loop has been taken over."""
        if exchange.is_done:  # its connection is the loop's again, but who led it has not come back to look for more
            self._loop.call_soon(exchange.sink.list_ready)
        changes = self.routes.note_overrun(exchange.route, monotonic())
        self._log.debug(f"the loop was taken over: {changes}")
        if not self._is_checking:
            self._loop.call_soon(self._check_later)

    def _check_later(self) -> None:
        if not self._is_checking:
            self._is_checking = True
            self._loop.call_later(CHECK_S, self._check)

    def _check(self) -> None:
        """Twice a second while calls are under way elsewhere: what has waited, or run, for too long."""
        crew = self.crew
        now = monotonic()
        self._expire_queue(now)
        for seat, exchange in list(crew.at_work.items()):
            if exchange is not None:
                self._judge(seat.ident, exchange, now - exchange.started_at)
        self._is_checking = bool(crew.at_work or crew.queue)
        if self._is_checking:
            self._loop.call_later(CHECK_S, self._check)

    def _expire_queue(self, now: float) -> None:
        """503 for requests that waited longer than queue_timeout; the threads take from the queue meanwhile."""
        queue = self.crew.queue
        timeout_s = self._settings.queue_timeout
        while timeout_s and queue:
            try:
                exchange = queue.popleft()
            except IndexError:
                return
            if now - exchange.started_at < timeout_s and not exchange.sink.gone:
                queue.appendleft(exchange)
                self.crew.staff()  # a thread may have found the queue empty just now
                return
            if exchange.sink.gone:
                exchange.drop()
            elif self.crew.baton.unanswered.pop(exchange, None) is not None:
                self._answer(exchange, 503, f"waited longer than queue_timeout = {timeout_s:g} s for a thread")

    def _judge(self, ident: int, exchange: Exchange, age_s: float) -> None:
        """Log a call past slow_request_time with its stack; answer 504 for one that has not begun by timeout."""
        settings = self._settings
        if settings.slow_request_time and age_s >= settings.slow_request_time and not exchange.is_reported:
            exchange.is_reported = True
            self._report(
                ident, exchange, f"running for {age_s:.1f} s (slow_request_time = {settings.slow_request_time:g})"
            )
        if not settings.timeout or age_s < settings.timeout or exchange.is_upgrade:
            return
        sink = exchange.sink  # the thread gives it up once it is not the one to answer
        if self.crew.baton.unanswered.pop(exchange, None) is None:
            return  # it has begun: only send_timeout counts from then on
        self._report(ident, exchange, f"no response after timeout = {settings.timeout:g} s, answered with 504")
        sink.take_back()
        self._answer(exchange, 504, "", sink)
        self.on_stuck()
        if settings.timeout_interrupt:
            interrupt(ident)

    def _report(self, ident: int, exchange: Exchange, what: str) -> None:
        frame = sys._current_frames().get(ident)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        self._log.write("warning", f"{name_request(exchange.request, exchange.environ)}: {what}", stack)

    def _answer(self, exchange: Exchange, status: int, why: str, sink: Sink | None = None) -> None:
        """A short page of the server's own instead of the application's answer; the connection is closed after it."""
        sink = sink or exchange.sink
        if why:
            self._log.debug(f"{name_request(exchange.request, exchange.environ)}: {status}: {why}")
        extra = RETRY_AFTER if status == 503 else b""
        page = r.build_error(status, exchange.request.method, extra)
        if sink.log is not None:
            sink.log(sink, exchange.request, exchange.environ, status, r.content_size(page), page)
        sink.respond(r.insert_fields(page, sink.loop.common + r.CLOSE), False)


def interrupt(ident: int) -> None:
    """Raise RequestTimedOut in a thread of the application, as soon as it runs Python code again. Python's C API."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(RequestTimedOut))
