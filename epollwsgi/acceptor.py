"""Accepting connections from one listener: in bounded batches, and not at all while descriptors are short.

Level-triggered: what one turn leaves in the backlog, the next is told of. Called by the loop, last in its turn. Where
other workers have the same listener, `spread` says how many may be taken, and when this worker steps aside.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
from time import monotonic
from typing import Any

from epollwsgi.connection import Connection
from epollwsgi.http.fields import Environ
from epollwsgi.listener import Listener, admit
from epollwsgi.loop import EXCLUSIVE, IN
from epollwsgi.service import Service
from epollwsgi.spread import ACCEPTS_PER_TURN, Spread

# More than a backlog holds.
EVERYTHING = 1 << 16
PAUSE_S = 0.1
# A connection has at least so long for the first byte of its first request, whatever keepalive is.
FIRST_REQUEST_S = 5.0
# Idle connections closed at once when room is needed: so many, or this part of all. Each time all are looked at.
EVICTED = 16
EVICTED_PART = 64
# A connection that was just opened, or answered, is not idle yet: its next request may be under way.
SURELY_IDLE_S = 0.5
LOG_INTERVAL_S = 60.0
SHORTAGES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Acceptor:
    """One listener in the loop's epoll."""

    def __init__(self, service: Service, listener: Listener, limit: int) -> None:
        """limit: connections of the whole worker."""
        self.fd = listener.fd
        self.sock = listener.sock
        self.is_open = True
        self.is_in = False  # in the loop's epoll
        self.accepted_at = 0.0  # when a connection came at last (monotonic), while the backlog is being emptied
        self._service = service
        self._limit = limit
        self._fd_limit = descriptor_limit() * 9 // 10
        self._is_emptying = False
        self._is_paused = False
        self._none_idle_until = 0.0
        self._logged_at = float("-inf")
        self._is_unix = listener.is_unix
        name: Any = self.sock.getsockname()
        self._template: Environ | None = None  # None where each connection has a local address of its own
        if self._is_unix:
            self._template = service.template_for(None)
        elif not is_wildcard(name[0]):
            self._template = service.template_for((name[0], str(name[1])))
        if service.mine is not None:
            service.spread = service.spread or Spread(service.mine, service.loop, service.connections)
            service.spread.members.append(self)
        self.settle()

    def on_event(self, mask: int) -> None:
        """Connections wait."""
        self._service.loop.accepting.append(self)

    def accept(self) -> None:
        """Take what waits, up to a bound."""
        if not self.is_open:
            return
        spread = self._service.spread
        if spread is None or self._is_emptying:
            self._take(ACCEPTS_PER_TURN)
        else:
            self._take(spread.allowance())
            spread.on_accepted()

    def empty_backlog(self) -> None:
        """From now on take all that waits, whatever this worker has: nobody else may be left to do it."""
        self._is_emptying = True
        self.accepted_at = monotonic()
        for connection in list(self._service.connections):  # some came after the listener was shut
            admit(connection.sock)
        self._take(EVERYTHING)
        self.settle()

    def stop(self) -> None:
        """Accept no more; the listener itself is its owner's.

        What waits is taken once more: of several processes the kernel may have woken this one only. What comes after
        it has left epoll wakes another.
        """
        if not self.is_open:
            return
        self.is_open = False
        self.settle()
        self._take(EVERYTHING)

    def look_again(self) -> None:
        """Whether connections wait and nobody comes for them: who was woken is stuck, or has died. From any thread."""
        if self.is_in and self.has_waiting():
            self._service.loop.call_soon(self.accept)

    def settle(self) -> None:
        """Be in epoll, or not, as all that bears on it says by now."""
        spread = self._service.spread
        is_away = spread is not None and spread.is_away and not self._is_emptying
        wanted = self.is_open and not self._is_paused and not is_away
        if wanted is self.is_in:
            return
        self.is_in = wanted
        if wanted:
            self._service.loop.add_handler(self, IN if spread is None else IN | EXCLUSIVE)
        else:
            self._service.loop.remove_handler(self)
        if spread is not None:
            spread.note_listening()

    def has_waiting(self) -> bool:
        """Whether connections wait in the backlog."""
        if not self.is_open:
            return False
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def _take(self, count: int) -> None:
        """Accept up to `count` connections."""
        service = self._service
        nearly_full = self._limit * 9 // 10
        evicted = 0
        for _ in range(count):
            if len(service.connections) >= nearly_full and not self._make_room():
                return
            try:
                sock, peer = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in SHORTAGES:
                    self._on_shortage(error)
                    return
                continue  # that one has gone already, accept(2)
            self._add(sock, peer)
            if self._is_emptying:
                self.accepted_at = monotonic()
                admit(sock)
            if sock.fileno() >= self._fd_limit and not evicted:  # the lowest that was free: so many are in use
                evicted = self._close_idle()  # which gives back descriptors at the end of the next turn

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
        if self._close_idle() or len(self._service.connections) < self._limit:
            return True
        self._pause()
        self._log(f"{self._limit} connections are open and none is idle: accepting pauses (worker_connections)")
        return False

    def _close_idle(self) -> int:
        """Close connections that idle, longest first; how many. Where none did, they are looked at again later only."""
        now = self._service.loop.now
        if now < self._none_idle_until:
            return 0
        closed = close_idle(self._service, max(EVICTED, len(self._service.connections) // EVICTED_PART))
        if not closed:
            self._none_idle_until = now + PAUSE_S
        return closed

    def _on_shortage(self, error: OSError) -> None:
        """No descriptor is left: close idle connections, or leave the backlog alone for a moment; never spin."""
        closed = close_idle(self._service, EVICTED)
        if not closed:
            self._pause()
        self._log(f"cannot accept: {error.strerror}; " + (f"closed {closed} idle connections" if closed else "pausing"))

    def _pause(self) -> None:
        self._is_paused = True
        self.settle()
        self._service.loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._is_paused = False
        self.settle()

    def _log(self, message: str) -> None:
        now = self._service.loop.now
        if now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            self._service.error_log.warning(message)


def close_idle(service: Service, limit: int, idle_s: float = SURELY_IDLE_S, new_s: float = 0.0) -> int:
    """Close connections that have been idle for `idle_s`, longest first, at most `limit`; how many were closed.

    new_s: one that has not brought a request yet must have been open for so long: its first may be under way.
    """
    since = service.loop.now + service.keepalive_s - idle_s
    opened = service.loop.now + max(service.keepalive_s, FIRST_REQUEST_S) - new_s
    idle = [
        one
        for one in service.connections
        if one.is_idle and one.deadline <= since and (one.has_asked or one.deadline <= opened)
    ]
    idle.sort(key=lambda one: one.deadline)
    return sum(one.close_if_idle() for one in idle[:limit])


def is_wildcard(host: str) -> bool:
    """Whether a socket bound to host takes connections to any address."""
    return host in ("0.0.0.0", "::")


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return EVERYTHING if soft == resource.RLIM_INFINITY else soft
