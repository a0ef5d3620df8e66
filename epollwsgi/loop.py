"""The event loop of a worker: epoll, deadlines, batched output, closing. One turn has one work list.

    poll -> events -> ready connections -> deadlines -> batched output -> closing -> accepts

Connections are registered once, edge-triggered, for reading and writing; whoever stops before EAGAIN puts itself on the
`ready` list, and poll does not wait while that is not empty. Only the loop closes, at the end of a turn, and accepts
come last, so that a descriptor is never used again within a turn. See epoll(7).

Knows no HTTP: what it drives is a `Handler` (an acceptor, the wake-up) or a `Client` (a connection).
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from time import monotonic, time
from typing import Protocol

from epollwsgi.http.dates import format_date

IN = select.EPOLLIN
OUT = select.EPOLLOUT
RDHUP = select.EPOLLRDHUP
GONE = select.EPOLLHUP | select.EPOLLERR
CLIENT_EVENTS = IN | OUT | RDHUP | select.EPOLLET

EVENTS_PER_TURN = 128
# How long batched output may wait for the end of its turn, in seconds. A send wakes the peer, which costs up to 16 us.
BATCH_WAIT_S = 0.0005
# A poll that would sleep is asked for this long first while log lines wait: the log is written when nothing happens.
IDLE_S = 0.05
FOREVER = float("inf")


class Handler(Protocol):
    """Whatever has a descriptor in epoll."""

    fd: int

    def on_event(self, mask: int) -> None:
        """epoll reported `mask`."""


class Client(Handler, Protocol):
    """A connection, as far as the loop knows it."""

    sock: socket.socket
    out: bytes
    """batched output; the loop sends it and sets it to b'' where `is_plain` is true"""
    is_plain: bool
    """nothing has to be done once `out` is sent"""
    is_aborted: bool
    """it ends with a reset"""
    deadline: float
    slot: int
    """the second in which the deadline is looked at next"""

    def on_ready(self) -> None: ...
    def on_flushed(self, sent: int) -> None: ...
    def on_deadline(self) -> None: ...
    def on_second(self) -> bool: ...
    def on_error(self, error: OSError) -> None: ...
    def on_closed(self) -> None: ...


class Buffered(Protocol):
    """A log whose lines are written some time later; its length is the number of lines that wait."""

    def __len__(self) -> int: ...
    def flush(self) -> None: ...


class Acceptor(Handler, Protocol):
    """A listening socket; it accepts when all else of a turn is done."""

    def accept(self) -> None: ...


class Loop:
    """One epoll and what waits for it. Times are seconds of the loop's clock (`now`), which does not count stalls."""

    def __init__(self, server_field: bytes = b"") -> None:
        self.epoll = select.epoll()
        self.handlers: dict[int, Handler] = {}
        self.ready: list[Client] = []
        self.batch: list[Client] = []
        self.batch_at = 0.0  # when the oldest of the batch was put there (monotonic); 0: not known yet
        self.closing: list[Client] = []
        self.accepting: list[Acceptor] = []
        self._warm: set[Client] = set()  # connections that hold memory to be dropped when they idle
        self.calls: list[Callable[[], None]] = []  # from other threads and from signal handlers, run in the next turn
        self.log: Buffered | None = None  # written when nothing else happens, and once a second
        self.on_second: list[Callable[[float, bytes], None]] = []
        self.now = monotonic()
        self.clock = self.now  # monotonic, as late as anybody has looked at it
        self.running = False
        self.common = b""  # the Date and Server field lines of this second
        self._server_field = server_field
        self._stalled = 0.0
        self._second_at = 0.0
        self._slots: dict[int, set[Client]] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._due_at = FOREVER
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.epoll.register(self._wake, IN)
        self._begin_second()

    # --- what others ask of it --------------------------------------------------------------------------------------

    def add_client(self, client: Client) -> None:
        """Raises OSError where epoll refuses."""
        self.epoll.register(client.fd, CLIENT_EVENTS)
        self.handlers[client.fd] = client

    def add_acceptor(self, acceptor: Acceptor) -> None:
        """Listeners are level-triggered."""
        self.handlers[acceptor.fd] = acceptor
        self.epoll.register(acceptor.fd, IN)

    def remove_acceptor(self, acceptor: Acceptor) -> None:
        """No more events of it; its socket stays open."""
        if self.handlers.pop(acceptor.fd, None) is not None:
            self.epoll.unregister(acceptor.fd)

    def close_client(self, client: Client) -> None:
        """Close at the end of the turn. The caller has marked it closed."""
        self.closing.append(client)

    def set_deadline(self, client: Client, deadline: float) -> None:
        """client.on_deadline() is called once `deadline` has passed; moved lazily when it only gets later."""
        client.deadline = deadline
        slot = int(deadline) + 1
        if not client.slot or slot < client.slot:
            self._put(client, slot)

    def watch_idling(self, client: Client) -> None:
        """client.on_second() is called once a second until it gives False."""
        self._warm.add(client)
        self._due_at = min(self._due_at, self._second_at)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Run `call` in the loop's next turn; from any thread or signal handler."""
        self.calls.append(call)
        self.wake()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Run `call` in the first turn after `delay_s` seconds; for what is rare."""
        self._later.append((self.now + delay_s, call))
        self._due_at = min(self._due_at, self.now + delay_s)

    def wake(self) -> None:
        """End a poll that sleeps."""
        os.eventfd_write(self._wake, 1)

    @property
    def wake_fd(self) -> int:
        """The eventfd; writing 8 bytes to it ends a poll that sleeps."""
        return self._wake

    # --- the turn ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn after turn until `running` is false."""
        self.running = True
        while self.running:
            self.turn()

    def turn(self) -> None:
        """One turn of the work list."""
        wake_at = self._due_at
        if self.ready or self.calls or self.closing:
            events = self.epoll.poll(0, EVENTS_PER_TURN)
        elif self.log:
            events = self._poll_logging(wake_at)
        elif wake_at == FOREVER:
            events = self.epoll.poll(None, EVENTS_PER_TURN)
        else:
            events = self.epoll.poll(max(0.0, wake_at + self._stalled - monotonic()), EVENTS_PER_TURN)
        self.clock = monotonic()
        now = self.now = self.clock - self._stalled
        if now >= self._second_at or now >= wake_at:
            self._on_time(now, wake_at)
        handlers = self.handlers
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:
                handler.on_event(mask)
            else:
                self._on_wake()
        if self.ready:
            ready = self.ready
            self.ready = []
            for client in ready:
                client.on_ready()
        if self.now >= self._due_at:
            self._expire()
        if self.batch:
            self.flush()
        if self.closing:
            self._close()
        if self.accepting:
            accepting = self.accepting
            self.accepting = []
            for acceptor in accepting:
                acceptor.accept()

    def flush(self) -> None:
        """Send the batched output; the hot end of every request."""
        batch = self.batch
        self.batch = []
        self.batch_at = 0.0
        for client in batch:
            out = client.out
            try:
                sent = client.sock.send(out)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                client.on_error(error)
                continue
            if client.is_plain and sent == len(out):
                client.out = b""
            else:
                client.on_flushed(sent)

    def close(self) -> None:
        """Give back the loop's own descriptors; clients and listeners are the caller's."""
        self._close()
        self.epoll.close()
        os.close(self._wake)

    # --- its parts --------------------------------------------------------------------------------------------------

    def _poll_logging(self, wake_at: float) -> list[tuple[int, int]]:
        """poll while log lines wait: they are written as soon as nothing happens for a moment."""
        wait_s = max(0.0, min(IDLE_S, wake_at + self._stalled - monotonic()))
        events = self.epoll.poll(wait_s, EVENTS_PER_TURN)
        if not events and self.log is not None:
            self.log.flush()
        return events

    def _on_time(self, now: float, wake_at: float) -> None:
        """A second is over, or a deadline due. wake_at: when the loop should have been here at the latest."""
        if now - wake_at > 1:  # stopped, or in a long call: nobody could keep a time limit meanwhile
            self._stalled += now - wake_at
            now = self.now = wake_at
        if now >= self._second_at:
            self._begin_second()

    def _begin_second(self) -> None:
        """Once a second, while there are turns: a new Date, and what others renew with it."""
        self._second_at = int(self.now) + 1.0
        self.common = b"Date: %b\r\n%b" % (format_date(time()).encode("ascii"), self._server_field)
        for call in self.on_second:
            call(self.now, self.common)
        if self._warm:
            self._warm = {client for client in self._warm if client.on_second()}
        if self._warm:
            self._due_at = min(self._due_at, self._second_at)
        if self.log:
            self.log.flush()

    def _on_wake(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass
        calls = self.calls
        self.calls = []
        for call in calls:
            call()

    def _put(self, client: Client, slot: int) -> None:
        """Into a slot of the wheel, out of the one it was in."""
        self._slots.get(client.slot, set()).discard(client)
        client.slot = slot
        self._slots.setdefault(slot, set()).add(client)
        self._due_at = min(self._due_at, float(slot))

    def _expire(self) -> None:
        """Look at every deadline of the slots that are due; one that moved is put where it now belongs."""
        for slot in [slot for slot in self._slots if slot <= self.now]:
            for client in self._slots.pop(slot):
                client.slot = 0
                if client.deadline <= self.now:
                    client.on_deadline()
                else:
                    self._put(client, int(client.deadline) + 1)
        later = self._later
        self._later = [item for item in later if item[0] > self.now]
        self._due_at = min((float(slot) for slot in self._slots), default=FOREVER)
        self._due_at = min([self._due_at, *(item[0] for item in self._later)])
        if self._warm:
            self._due_at = min(self._due_at, self._second_at)
        for at, call in later:
            if at <= self.now:
                call()

    def _close(self) -> None:
        """unregister, shutdown, close: a process forked by the application may hold a copy of the descriptor."""
        closing = self.closing
        self.closing = []
        for client in closing:
            self.handlers.pop(client.fd, None)
            self._warm.discard(client)
            self._slots.get(client.slot, set()).discard(client)
            client.slot = 0
            try:
                self.epoll.unregister(client.fd)
                if not client.is_aborted:  # a reset must not look like a clean end
                    client.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the peer was quicker
            client.sock.close()
            client.on_closed()
