"""Calls that were given their connection's socket (WebSocket), each on a thread of its own, not counted in `threads`.

`leader` starts them, `process.worker` ends them. Shared: `calls`; the leader adds, each thread takes out its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from epollwsgi.baton import Baton
from epollwsgi.wsgi import Application, Exchange


class Upgrades:
    """See the module."""

    def __init__(self, application: Application, baton: Baton, log: Callable[[str], None]) -> None:
        self.calls: dict[Exchange, threading.Thread] = {}
        self._application = application
        self._baton = baton
        self._log = log
        self._is_ending = False  # the worker drains

    def start(self, exchange: Exchange) -> bool:
        """Make the call on a new thread; False if none can be started."""
        exchange.leads = False
        thread = threading.Thread(target=self._run, args=(exchange,), name="epollwsgi-upgrade", daemon=True)
        self.calls[exchange] = thread
        exchange.sink.become_owned()
        self._baton.unanswered[exchange] = True
        try:
            thread.start()
        except RuntimeError as error:
            self._log(f"no thread can be started: {error}")
            self.calls.pop(exchange, None)
            self._baton.unanswered.pop(exchange, None)
            return False
        if self._is_ending:
            exchange.sink.end_input()
        return True

    def _run(self, exchange: Exchange) -> None:
        try:
            exchange.run(self._application, False)
        finally:
            self._baton.unanswered.pop(exchange, None)
            self.calls.pop(exchange, None)

    def end(self) -> None:
        """The worker drains: the application reads the end of its sockets' input."""
        self._is_ending = True
        for exchange in list(self.calls):
            exchange.sink.end_input()
