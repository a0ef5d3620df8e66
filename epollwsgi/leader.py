"""Who runs the application, and where: the one function through which every application call goes.

Today the call is made on the loop's own thread. What is learned already is which routes are quick: only before those may
batched output wait (DESIGN.md 2, output batching). Called by `connection`.
"""

from __future__ import annotations

from time import monotonic

from epollwsgi.loop import BATCH_WAIT_S, Loop
from epollwsgi.wsgi import Application, Exchange

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
        self._quick_calls: dict[str, int] = {}

    def call(self, exchange: Exchange, route: str) -> None:
        """Run one exchange; route: what its duration is remembered by. Never raises."""
        loop = self._loop
        quick_calls = self._quick_calls.get(route, 0)
        is_quick = quick_calls >= QUICK_CALLS
        if not is_quick and loop.batch:
            loop.flush()
        started_at = monotonic()
        exchange.run(self._application, is_quick)
        ended_at = monotonic()
        if ended_at - started_at >= QUICK_S:
            self._quick_calls.pop(route, None)
        elif not is_quick:
            self._learn(route, quick_calls + 1)
        if loop.batch:
            if not loop.batch_at:
                loop.batch_at = ended_at
            elif ended_at - loop.batch_at > BATCH_WAIT_S:
                loop.flush()

    def _learn(self, route: str, quick_calls: int) -> None:
        if len(self._quick_calls) >= ROUTES:
            self._quick_calls.clear()
        self._quick_calls[route] = quick_calls
