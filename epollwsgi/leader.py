"""Who runs the application, and where: the one function through which every application call goes.

Today the call is made on the loop's own thread. What is learned already is which routes are quick: only before those
may batched output wait (DESIGN.md 2, output batching). Called by `dispatch`.
"""

from __future__ import annotations

from time import monotonic

from epollwsgi.http.fields import Environ
from epollwsgi.loop import BATCH_WAIT_S, Loop
from epollwsgi.wsgi import Application, Exchange, Route, Sink

# A route is quick after so many calls in a row under this duration, in seconds.
QUICK_S = 0.001
QUICK_CALLS = 3
# Routes remembered; emptied when full, because clients choose the paths.
ROUTES = 4096


class Leader:
    """Calls the application; owns what is known of its routes."""

    def __init__(self, loop: Loop, application: Application) -> None:
        self._loop = loop
        self._application = application
        self._routes: dict[str, Route] = {}

    def call(self, sink: Sink, environ: Environ, path: str, keep: bool, plain: bool) -> None:
        """Answer one request. path: what it is remembered by; keep, plain: see Exchange. Never raises.

        Its duration counts from the call before it, or the poll: what lies between is small, and asking is not free.
        """
        loop = self._loop
        route = self._routes.get(path) or self._new_route(path)
        is_quick = route.quick_calls >= QUICK_CALLS
        if not is_quick and loop.batch:
            loop.flush()
        exchange = Exchange()
        exchange.sink = sink
        exchange.environ = environ
        exchange.route = route
        exchange.keep = keep
        exchange.plain = plain
        started_at = loop.clock
        exchange.run(self._application, is_quick)
        ended_at = loop.clock = monotonic()
        if ended_at - started_at >= QUICK_S:
            route.quick_calls = 0
        elif not is_quick:
            route.quick_calls += 1
        if loop.batch:
            if not loop.batch_at:
                loop.batch_at = ended_at
            elif ended_at - loop.batch_at > BATCH_WAIT_S:
                loop.flush()

    def _new_route(self, path: str) -> Route:
        if len(self._routes) >= ROUTES:
            self._routes.clear()
        route = self._routes[path] = Route()
        return route
