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
from collections import deque
from collections.abc import Callable, Iterator, Sized
from time import monotonic, time
from typing import Protocol

from epollwsgi.http.dates import format_date

IN = select.EPOLLIN
# Of several processes that wait for one listener the kernel wakes one. Cannot be changed later, epoll_ctl(2).
EXCLUSIVE = select.EPOLLEXCLUSIVE
EDGE = select.EPOLLET
OUT = select.EPOLLOUT
RDHUP = select.EPOLLRDHUP
GONE = select.EPOLLHUP | select.EPOLLERR
CLIENT_EVENTS = IN | OUT | RDHUP | EDGE

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
    def on_returned(self) -> None: ...
    def on_flushed(self, sent: int) -> None: ...
    def on_deadline(self) -> None: ...
    def on_second(self) -> bool: ...
    def on_error(self, error: OSError) -> None: ...
    def on_closed(self) -> None: ...


class Acceptor(Handler, Protocol):
    """A listening socket; it accepts when all else of a turn is done."""

    def accept(self) -> None: ...


class Waker:
    """An eventfd in the loop's epoll: writing to it ends a poll that sleeps. eventfd(2).

    It is closed with the last reference: a thread that found the loop asleep may write when the loop has ended.
    """

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # Bound here: at the interpreter's end the module may be gone before the object.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)

    def on_event(self, mask: int) -> None:
        """Somebody has woken the loop; what for stands in its lists."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass  # read already


class Loop:
    """One epoll and what waits for it. Times are seconds of the loop's clock (`now`), which does not count stalls."""

    def __init__(self, server_field: bytes = b"") -> None:
        self.epoll = select.epoll()
        self.handlers: dict[int, Handler] = {}
        self.ready: list[Client] = []
        # The turn at hand: what is left of it. Only the thread that leads takes from these; `inbox` and `calls` are
        # filled by others, and a deque's append and popleft are atomic.
        self.is_finished = True
        self.events: Iterator[tuple[int, int]] = iter(())
        self.inbox: deque[Client] = deque()
        self.ready_now: deque[Client] = deque()
        self.due: deque[Client] = deque()
        self.is_asleep = False  # in a poll that may wait
        self.batch: list[Client] = []
        self.batch_at = 0.0  # when the oldest of the batch was put there (monotonic); 0: not known yet
        self.closing: list[Client] = []
        self.accepting: list[Acceptor] = []
        self._warm: set[Client] = set()  # connections that hold memory to be dropped when they idle
        self.calls: deque[Callable[[], None]] = deque()  # from other threads, run in the next turn
        self._noted: Sized = ()  # lines of a log that wait: written when nothing else happens, and once a second
        self._flush_log: Callable[[], None] = do_nothing
        self.on_second: list[Callable[[float, bytes], None]] = []
        self.on_closed: list[Callable[[], None]] = []  # at the end of a turn that closed connections
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
        self._waker: Waker | None = Waker()
        self.handlers[self._waker.fd] = self._waker
        self.epoll.register(self._waker.fd, IN)
        self._begin_second()

    # --- what others ask of it --------------------------------------------------------------------------------------

    def add_client(self, client: Client) -> None:
        """Raises OSError where epoll refuses."""
        self.epoll.register(client.fd, CLIENT_EVENTS)
        self.handlers[client.fd] = client

    def add_handler(self, handler: Handler, events: int) -> None:
        """Tell it of events. Listeners are level-triggered, and EXCLUSIVE where other processes have them, too."""
        self.handlers[handler.fd] = handler
        self.epoll.register(handler.fd, events)

    def remove_handler(self, handler: Handler) -> None:
        """No more events of it; its descriptor stays open."""
        if self.handlers.pop(handler.fd, None) is not None:
            self.epoll.unregister(handler.fd)

    def release_client(self, client: Client) -> None:
        """Take a connection out of epoll: the application has its socket. `add_client` puts it back."""
        self.handlers.pop(client.fd, None)
        self._slots.get(client.slot, set()).discard(client)
        client.slot = 0
        self.epoll.unregister(client.fd)

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
        if self.is_asleep:
            self.wake()

    def give_back(self, client: Client) -> None:
        """From the thread that owned it: the loop calls client.on_returned(). It appends before it looks who sleeps."""
        self.inbox.append(client)
        if self.is_asleep:
            self.wake()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Run `call` in the first turn after `delay_s` seconds; for what is rare."""
        self._later.append((self.now + delay_s, call))
        self._due_at = min(self._due_at, self.now + delay_s)

    def write_log(self, noted: Sized, flush: Callable[[], None]) -> None:
        """Call `flush` while there is something in `noted`: when nothing else happens, and once a second."""
        self._noted = noted
        self._flush_log = flush

    def wake(self) -> None:
        """End a poll that sleeps."""
        waker = self._waker
        if waker is not None:
            os.eventfd_write(waker.fd, 1)

    # --- the turn ---------------------------------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """`running` is false."""
        return not self.running

    def run(self) -> None:
        """Turn after turn until `running` is false."""
        while self.running:
            self.turn()

    def turn(self) -> None:
        """One turn of the work list, or what another thread has left of one.

        Every call may lead into the application, and out of it again without the loop: then it raises, and what is
        left stays in the lists for whoever leads now.
        """
        if self.is_finished:
            wake_at = self._due_at
            if self.ready or self.closing:
                wait_s: float | None = 0
            elif wake_at == FOREVER:
                wait_s = None
            else:
                wait_s = max(0.0, wake_at + self._stalled - monotonic())
            self.is_asleep = True  # before looking: a thread that gives back looks at it afterwards
            if self.inbox or self.calls:
                wait_s = 0
            poll = self._poll_logging if self._noted and wait_s != 0 else self.epoll.poll
            self.events = iter(poll(wait_s, EVENTS_PER_TURN))
            self.is_asleep = self.is_finished = False
            self.clock = monotonic()
            now = self.now = self.clock - self._stalled
            if now >= self._second_at or now >= wake_at:
                self._on_time(now, wake_at)
        elif self.batch:
            self.flush()
        handlers = self.handlers
        for fd, mask in self.events:
            handler = handlers.get(fd)
            if handler is not None:
                handler.on_event(mask)
        if self.inbox or self.calls or self.ready or self.ready_now or self.now >= self._due_at:
            self._take_rest()
        if self.batch:
            self.flush()
        if self.closing or self.accepting:
            self._end_turn()
        self.is_finished = True

    def _take_rest(self) -> None:
        """Connections given back by threads, as many as there were; calls; those who stopped early; deadlines."""
        for _ in range(len(self.inbox)):
            self.inbox.popleft().on_returned()
        for _ in range(len(self.calls)):
            self.calls.popleft()()
        self.ready_now.extend(self.ready)
        self.ready.clear()
        while self.ready_now:
            self.ready_now.popleft().on_ready()
        if self.now >= self._due_at:
            self._expire()

    def _end_turn(self) -> None:
        """Close what is to be closed; accept last, so that no descriptor is used again within a turn."""
        self._close()
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
        self.handlers.clear()
        self._waker = None

    # --- its parts --------------------------------------------------------------------------------------------------

    def _poll_logging(self, wait_s: float | None, count: int) -> list[tuple[int, int]]:
        """poll while log lines wait: they are written as soon as nothing happens for a moment."""
        events = self.epoll.poll(IDLE_S if wait_s is None or wait_s > IDLE_S else wait_s, count)
        if not events:
            self._flush_log()
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
        if self._noted:
            self._flush_log()

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
                self.due.append(client)
        while self.due:
            client = self.due.popleft()
            if client.slot:
                continue  # it has got a new one meanwhile
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
        self.calls.extend(call for at, call in later if at <= self.now)

    def _close(self) -> None:
        """unregister, shutdown, close: a process forked by the application may hold a copy of the descriptor."""
        closing = self.closing
        if not closing:
            return
        self.closing = []
        for client in closing:
            self._warm.discard(client)
            self._slots.get(client.slot, set()).discard(client)
            client.slot = 0
            try:
                if self.handlers.get(client.fd) is client:
                    del self.handlers[client.fd]
                    self.epoll.unregister(client.fd)
                if not client.is_aborted:  # a reset must not look like a clean end
                    client.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the peer was quicker
            client.sock.close()
            client.on_closed()
        for call in self.on_closed:
            call()


def do_nothing() -> None:
    """What there is to flush without a log."""
