"""The threads of a worker: one leads the loop, some are in the application, at least one stands by, one watches.

    threads > 1   the main thread watches for good; pool threads lead, and call the application
    threads = 1   the main thread makes every application call, and leads; a stand-in leads only while such a call runs
                  long, and calls nothing; a thread of its own watches

What threads share here, and who writes it; every operation on it is one atomic operation of a deque, a dict or an
attribute:

    baton.held       the leader puts and takes; the watch takes
    queue            requests for a thread: the leader appends; whoever takes one owns its connection
    permits          to be in the application, one for each of `threads`; a seat at work has one, the leader may
    standby          seats that wait: each appends itself; the leader and the watch take
    at_work          seats in the application, with their exchange: each its own entry, the watch that of an old leader
    seats            all seats: whoever makes one, each takes out itself
    leader           the seat that leads: whoever hands the loop over

Each appends before it looks: the leader appends to `queue` and then looks for a permit, a seat gives its permit back
and then looks at `queue`; so no request is left behind.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep

from epollwsgi.baton import Baton
from epollwsgi.errors import RequestTimedOut
from epollwsgi.logs.error_log import shorten
from epollwsgi.loop import Loop
from epollwsgi.seats import LeadLost, Order, Seat
from epollwsgi.wsgi import Application, Exchange

WATCH_S = 0.002
# While only routes are called that are known to be quick it looks less often: a look costs the leader 0.1 ms.
CALM_S = 0.01
HURRY_S = 0.25
PARK_S = 1.0
BEAT_S = 0.9  # a watch that is parked wakes up once a second
# A thread beyond the one that must stand by ends after so long without an order.
IDLE_S = 10.0
JOIN_S = 1.0
# With so many threads one permit is kept for calls of the leader: slow routes have all but one thread then.
RESERVING_THREADS = 16


class Crew:
    """See the module. on_overrun: told of each exchange in which the loop was taken over, by the watch."""

    def __init__(
        self,
        loop: Loop,
        application: Application,
        threads: int,
        on_overrun: Callable[[Exchange], None],
        log: Callable[[str, str], None],
    ) -> None:
        """log: gets one line, and what is to stand below it."""
        self.baton = Baton()
        self.queue: deque[Exchange] = deque()
        self.permits: deque[int] = deque(range(threads - 1))
        self.has_permit = True  # the leader's own
        self.standby: deque[Seat] = deque()
        self.at_work: dict[Seat, Exchange | None] = {}
        self.seats: dict[Seat, threading.Thread | None] = {}
        self.is_main_bound = threads == 1
        self.is_stopping = False
        self.leave: Callable[[], None] = do_nothing  # ends the process where the main thread cannot
        self.on_beat: Callable[[], None] = do_nothing  # about once a second, by the watch, while the loop is alive
        self._loop = loop
        self._application = application
        self._most_seats = threads + 1
        self._on_overrun = on_overrun
        self._log = log
        self._main = Seat()
        self._main_wants = False  # threads = 1: the main thread waits to lead again
        self.leader = self._main

    # --- asked by the leader --------------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether the leader may call the application itself: it has a permit, and somebody stands by."""
        if self.is_main_bound and self.leader is not self._main:
            return False
        if not self.has_permit:
            try:
                self.permits.popleft()
            except IndexError:
                return False
            self.has_permit = True
        if not self.standby:
            self._add_seat()  # where none can be started the call stays inline all the same
        return True

    def hand_off(self, exchange: Exchange) -> None:
        """To another thread, at once if a permit is free, else when its turn comes."""
        self.baton.unanswered[exchange] = True
        exchange.leads = False
        self.queue.append(exchange)
        self.staff()

    def staff(self) -> None:
        """Put a seat to work if a permit is free, for what has just been queued. Called by the leader."""
        if self.is_main_bound:
            return  # the main thread looks at the queue before each of its turns
        while self._take_permit():
            seat = self._find_seat()
            if seat is not None:
                self._put_to_work(seat)
                return
            self.permits.append(1)
            if not self.standby:
                return  # whoever comes to stand by looks at the queue after that

    def _take_permit(self) -> bool:
        """A free permit, or else the leader's own; of many one stays with it, so that quick routes need not wait."""
        try:
            self.permits.popleft()
        except IndexError:
            if self._most_seats > RESERVING_THREADS:
                return False
            had, self.has_permit = self.has_permit, False
            return had
        return True

    def give_away_permit(self) -> None:
        """A plain pool: the leader calls nothing."""
        self.has_permit = False
        self.permits.append(1)

    def _stand_by(self, seat: Seat) -> None:
        """Wait for an order; first look whether something is queued that found nobody here before."""
        self.standby.append(seat)
        if self.is_stopping:  # `_end` may have passed already
            with suppress(ValueError):
                self.standby.remove(seat)
                seat.give(Order.END)
            return
        while self.queue and self.permits and not self.is_main_bound:
            try:
                self.permits.popleft()
            except IndexError:
                return
            try:
                self._put_to_work(self.standby.popleft())
            except IndexError:
                self.permits.append(1)
                if not self.standby:
                    return

    def _put_to_work(self, seat: Seat) -> None:
        self.at_work[seat] = None
        seat.give(Order.WORK)

    def _find_seat(self) -> Seat | None:
        """One that stands by, or a new one."""
        try:
            return self.standby.popleft()
        except IndexError:
            return self._add_seat(stands_by=False)

    # --- the threads ------------------------------------------------------------------------------------------------

    def _add_seat(self, stands_by: bool = True) -> Seat | None:
        """One thread more; None where there are enough, or none can be started."""
        if len(self.seats) >= self._most_seats:
            return None
        seat = Seat()
        thread = threading.Thread(target=self._sit, args=(seat,), name=f"epollwsgi-{len(self.seats)}", daemon=True)
        try:
            self.seats[seat] = thread
            thread.start()
        except RuntimeError as error:
            self.seats.pop(seat, None)
            self._log(f"no thread can be started: {error}", "")
            return None
        if stands_by:
            self.standby.append(seat)
        return seat

    def _sit(self, seat: Seat) -> None:
        """The life of a pool thread."""
        seat.ident = threading.get_ident()
        while True:
            # The only one that stands by sleeps until it is needed; others end when they idle.
            if not seat.lock.acquire(timeout=IDLE_S if len(self.standby) > 1 else -1):
                if self._may_end(seat):
                    return
                continue
            if seat.order is Order.END:
                self.seats.pop(seat, None)
                return
            if seat.order is Order.LEAD and not self._lead(seat):
                self.seats.pop(seat, None)
                return
            if seat in self.at_work:
                self._work(seat)
            self._stand_by(seat)

    def _may_end(self, seat: Seat) -> bool:
        """Whether a seat that idles is one too many; it leaves the standby list by its own hand, or has an order."""
        if len(self.standby) < 2:
            return False
        try:
            self.standby.remove(seat)
        except ValueError:
            return False
        self.seats.pop(seat, None)
        return True

    def _lead(self, seat: Seat) -> bool:
        """Turn after turn; True once another leads (`seat` is at work then, or stands by), False at the end."""
        while self._loop.running:
            try:
                if self._take_turns(seat):
                    return True
            except LeadLost:
                while seat not in self.at_work:
                    sleep(0)  # the watch is between taking the token and noting it
                return True
            except Exception as error:  # a fault of our own costs what it was about, never the worker
                self._log(f"a turn of the loop failed: {type(error).__name__}", shorten(traceback.format_exc()))
        if self._main_wants:
            self._main.give(Order.END)
        elif self._main in self.at_work:
            self.leave()  # threads = 1: the main thread is in a call, and nobody waits for that any more
        self.baton.unpark()
        return False

    def _take_turns(self, seat: Seat) -> bool:
        """Until the loop ends; True once the main thread has it back. Raises LeadLost."""
        loop = self._loop
        while loop.running:
            if self.queue and seat is self._main:
                self._call_queued(self.queue.popleft())
                loop.wake()  # there is more to do than epoll knows
            loop.turn()
            if self._main_wants:
                self._main_wants = False
                self.leader = self._main
                self._main.give(Order.LEAD)
                return True
        return False

    def _call_queued(self, exchange: Exchange) -> None:
        """threads = 1: the main thread leads again, and makes a call that came meanwhile. Raises LeadLost."""
        self.baton.unanswered.pop(exchange, None)
        exchange.leads = True
        exchange.sink.become_owned()  # the answer goes by the inbox: the loop has left the connection alone meanwhile
        if exchange.sink.gone:
            exchange.drop()
            return
        exchange.run(self._application, False)
        if not exchange.leads:
            raise LeadLost

    def _work(self, seat: Seat) -> None:
        """Answer what is queued; the seat has a permit, and is in at_work, until nothing is left."""
        while True:
            try:
                exchange = self.queue.popleft()
            except IndexError:
                self.at_work.pop(seat, None)
                self.permits.append(1)
                if not self.queue:
                    return
                try:
                    self.permits.popleft()
                except IndexError:
                    return
                self.at_work[seat] = None
                continue
            self._run(seat, exchange)

    def _run(self, seat: Seat, exchange: Exchange) -> None:
        exchange.started_at = monotonic()
        self.at_work[seat] = exchange
        if exchange.sink.gone:
            exchange.drop()
        else:
            with suppress(RequestTimedOut):  # raised too late: the call has ended
                exchange.run(self._application, False)
            exchange.route.note_duration(monotonic() - exchange.started_at)
        self.at_work[seat] = None
        self.baton.unanswered.pop(exchange, None)

    # --- the watch --------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Until the loop ends: hand it over when the leader's call takes too long."""
        baton = self.baton
        loop = self._loop
        seen: Exchange | None = None
        seen_clock = hurried_at = beat_clock = beat_at = 0.0
        while loop.running:
            token: Exchange | None = baton.look()
            clock = loop.clock
            # A loop that sleeps is alive, and so is one that has moved.
            if (clock != beat_clock or loop.is_asleep) and (now := monotonic()) >= beat_at:
                beat_clock, beat_at = clock, now + BEAT_S
                self.on_beat()
            if token is not None and token is seen:
                self._take_over(token, clock)
            elif token is None and clock == seen_clock:  # nothing has been called since the last look
                seen = None
                baton.park(PARK_S)
                continue
            seen, seen_clock = token, clock
            if baton.is_hurried:
                baton.is_hurried = False
                hurried_at = clock
            if clock - hurried_at < HURRY_S:
                baton.wait(WATCH_S)
            else:
                baton.wait_calmly(CALM_S)

    def _take_over(self, exchange: Exchange, clock: float) -> None:
        """Give the loop to a seat that stands by, unless the call has just come back. clock: when it began."""
        seat = self._find_seat()
        if seat is None:
            return
        if not exchange.has_begun:
            self.baton.unanswered[exchange] = True
        if self.baton.held.pop(exchange, None) is None:
            self.baton.unanswered.pop(exchange, None)
            self._stand_by(seat)
            return
        if exchange.has_begun:  # since it was looked at
            self.baton.unanswered.pop(exchange, None)
        old = self.leader
        exchange.started_at = monotonic() - WATCH_S
        exchange.sink.asked_at = exchange.sink.asked_at or clock
        self.has_permit = False  # it stays with the call
        self.leader = seat
        self.at_work[old] = exchange
        self._on_overrun(exchange)
        seat.give(Order.LEAD)

    # --- the beginning and the end ----------------------------------------------------------------------------------

    def run(self) -> None:
        """In the main thread: serve until the loop ends."""
        self._main.ident = threading.get_ident()
        if self.is_main_bound:
            watcher = threading.Thread(target=self.watch, name="epollwsgi-watch", daemon=True)
            watcher.start()
            self._run_on_main()
            self.baton.unpark()
            watcher.join(JOIN_S)
        else:
            first = self._add_seat(stands_by=False)
            if first is None:
                raise RuntimeError("no thread can be started")
            self.leader = first
            first.give(Order.LEAD)
            self.watch()
        self._end()

    def _run_on_main(self) -> None:
        """threads = 1: lead; after a call in which a stand-in took over, ask for the loop, and lead again."""
        main = self._main
        while self._loop.running:
            if self._lead(main):
                self.at_work.pop(main, None)
                self._main_wants = True
                if self._loop.has_ended:
                    return  # wanting comes before looking, and with the stand-in the other way round
                self._loop.wake()
                main.lock.acquire()
                self.has_permit = True

    def _end(self) -> None:
        """Let all seats go; those in the application are left alone."""
        self.is_stopping = True
        waiting = [(seat, thread) for seat, thread in list(self.seats.items()) if seat not in self.at_work]
        with suppress(IndexError):
            while True:
                self.standby.popleft().give(Order.END)
        for _, thread in waiting:
            if thread is not None and thread is not threading.current_thread():
                thread.join(JOIN_S)


def do_nothing() -> None:
    """What there is to do until somebody says more."""
