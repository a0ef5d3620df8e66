"""Accepting connections from one listener: in bounded batches, and not at all while descriptors are short.

Level-triggered: what one turn leaves in the backlog, the next is told of. Called by the loop, last in its turn.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from epollwsgi.connection import Connection
from epollwsgi.http.fields import Environ
from epollwsgi.listener import Listener
from epollwsgi.service import Service

ACCEPTS_PER_TURN = 64
PAUSE_S = 0.1
# A connection has at least so long for the first byte of its first request, whatever keepalive is.
FIRST_REQUEST_S = 5.0
# Idle connections closed at once when room is needed.
EVICTED = 16
# A connection that was just opened, or answered, is not idle yet: its next request may be under way.
SURELY_IDLE_S = 0.5
LOG_INTERVAL_S = 60.0
SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Acceptor:
    """One listener in the loop's epoll."""

    def __init__(self, service: Service, listener: Listener, limit: int) -> None:
        """limit: connections of the whole worker."""
        self.fd = listener.fd
        self._service = service
        self._sock = listener.sock
        self._limit = limit
        self._is_open = True
        self._logged_at = float("-inf")
        self._is_unix = listener.is_unix
        name: Any = self._sock.getsockname()
        self._template: Environ | None = None  # None where each connection has a local address of its own
        if self._is_unix:
            self._template = service.template_for(None)
        elif not is_wildcard(name[0]):
            self._template = service.template_for((name[0], str(name[1])))
        service.loop.add_acceptor(self)

    def on_event(self, mask: int) -> None:
        """Connections wait."""
        self._service.loop.accepting.append(self)

    def accept(self) -> None:
        """Take what waits, up to a bound."""
        if not self._is_open:
            return
        service = self._service
        for _ in range(ACCEPTS_PER_TURN):
            if len(service.connections) >= self._limit * 9 // 10 and not self._make_room():
                return
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in SHORTAGES:
                    self._on_shortage(error)
                    return
                continue  # that one has gone already, accept(2)
            self._add(sock, peer)

    def drain(self) -> None:
        """Take all that waits in the backlog, then stop for good; the listener itself is its owner's."""
        self.accept()
        self.stop()

    def stop(self) -> None:
        """Accept no more."""
        if self._is_open:
            self._is_open = False
            self._service.loop.remove_acceptor(self)

    def _add(self, sock: socket.socket, peer: Any) -> None:
        sock.setblocking(False)
        if self._is_unix:
            peer = ("", "")
        template = self._template
        if template is None:
            name = sock.getsockname()
            template = self._service.template_for((name[0], str(name[1])))
        connection = Connection(self._service, sock, (peer[0], str(peer[1])), template)
        try:
            self._service.loop.add_client(connection)
        except OSError as error:
            sock.close()
            self._log(f"epoll refused a connection: {error.strerror}")
            return
        self._service.connections.add(connection)
        self._service.loop.set_deadline(
            connection, self._service.loop.now + max(self._service.keepalive_s, FIRST_REQUEST_S)
        )

    def _make_room(self) -> bool:
        """False where the limit is reached and no connection is idle: accepting pauses."""
        service = self._service
        if close_idle(service, EVICTED) or len(service.connections) < self._limit:
            return True
        self._pause()
        self._log(f"{self._limit} connections are open and none is idle: accepting pauses (worker_connections)")
        return False

    def _on_shortage(self, error: OSError) -> None:
        """No descriptor is left: close idle connections, or leave the backlog alone for a moment; never spin."""
        closed = close_idle(self._service, EVICTED)
        if not closed:
            self._pause()
        self._log(f"cannot accept: {error.strerror}; " + (f"closed {closed} idle connections" if closed else "pausing"))

    def _pause(self) -> None:
        loop = self._service.loop
        loop.remove_acceptor(self)
        loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._is_open:
            self._service.loop.add_acceptor(self)

    def _log(self, message: str) -> None:
        now = self._service.loop.now
        if now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            self._service.error_log.warning(message)


def close_idle(service: Service, limit: int, idle_s: float = SURELY_IDLE_S) -> int:
    """Close connections that have been idle for `idle_s`, longest first, at most `limit`; how many were closed."""
    since = service.loop.now + service.keepalive_s - idle_s
    idle = [one for one in service.connections if one.is_idle and one.deadline <= since]
    idle.sort(key=lambda one: one.deadline)
    return sum(one.close_if_idle() for one in idle[:limit])


def is_wildcard(host: str) -> bool:
    """Whether a socket bound to host takes connections to any address."""
    return host in ("0.0.0.0", "::")
