"""Clients that ask without end while a test does things to the server; every answer is checked byte for byte.

`Load` is one thread that drives many connections. A caller of style

    kept     keeps its connection as long as the server does
    fresh    opens a connection for each request, and closes it when it has its answer
    closing  opens one for each request and asks for `Connection: close`; the server must end it, cleanly

Whatever a client would call a failed request is one here: refused, reset, closed without a response, truncated, wrong
bytes, timeout. A kept connection that the server ends between two requests is none. Where that end crosses with a
request, so that a clean end comes and not one byte of an answer, the request is sent again once on a new connection, as
browsers and proxies do; those are counted apart and must be few.
"""

from __future__ import annotations

import errno
import os
import random
import selectors
import socket
import threading
import time
from enum import Enum
from typing import Self

from tests.process.answers import MIX, Failure, Report, Request, build_request, check_response
from tests.responses import parse_body
from tests.support import Address, BadResponse, Response, parse_head, wait_until

RECEIVE_SIZE = 1 << 18
LOOK_S = 0.005
REFUSED = {errno.ECONNREFUSED, errno.ENOENT}  # nobody listens; nor is there a path any more
CONNECT_FAILURES = {**dict.fromkeys(REFUSED, "refused"), errno.ECONNRESET: "reset"}
MOST_ANSWERS = 200_000
MOST_FAILURES = 100


class State(Enum):
    """Where a caller stands; ENDING waits for the end that `Connection: close` has announced."""

    IDLE, CONNECTING, WAITING, ENDING, DONE = range(5)


class Caller:
    """One client: a connection at a time, a request at a time."""

    def __init__(self, number: int, style: str, load: Load) -> None:
        self.number = number
        self.style = style
        self.load = load
        self.chance = random.Random(number)
        self.state = State.IDLE
        self.sock: socket.socket | None = None
        self.request: Request | None = None
        self.sequence = 0
        self.served = 0  # requests that this connection has brought answers for
        self.is_retry = False
        self.pending = b""
        self.received = b""
        self.started_at = 0.0
        self.next_at = 0.0

    # --- a request ----------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """The next request, on the connection at hand or a new one."""
        if self.sock is not None:
            self.receive()  # it may have been ended meanwhile
        if self.request is None:
            self.sequence += 1
            [kind] = self.chance.choices(list(MIX), list(MIX.values()))
            self.request = build_request(kind, f"{self.number}.{self.sequence}", self.style)
        self.started_at = now
        self.pending = self.request.data
        self.received = b""
        if self.sock is None:
            self.connect()
        else:
            self.state = State.WAITING
            self.flush()

    def connect(self) -> None:
        if isinstance(self.load.address, str):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.served = 0
        self.state = State.CONNECTING
        code = self.sock.connect_ex(self.load.address)
        self.load.selector.register(self.sock, selectors.EVENT_WRITE, self)
        if code not in (0, errno.EINPROGRESS):
            self.on_connected(code)

    def on_connected(self, code: int) -> None:
        assert self.sock is not None
        if not code:
            self.state = State.WAITING
            self.flush()
        elif code in REFUSED and self.load.may_refuse:
            self.finish()
        else:
            self.fail(CONNECT_FAILURES.get(code) or errno.errorcode[code], "while CONNECTING")

    def flush(self) -> None:
        """Send what the socket takes."""
        assert self.sock is not None
        try:
            while self.pending:
                self.pending = self.pending[self.sock.send(self.pending) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail("reset", f"while sending: {error.strerror}")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.pending else 0)
        self.load.selector.modify(self.sock, events, self)

    # --- events -------------------------------------------------------------------------------------------------------

    def on_event(self, mask: int) -> None:
        assert self.sock is not None
        if self.state is State.CONNECTING:
            self.on_connected(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            return
        if mask & selectors.EVENT_READ:
            self.receive()
        if mask & selectors.EVENT_WRITE and self.sock is not None and self.state is State.WAITING:
            self.flush()

    def receive(self) -> None:
        """What has arrived, or the end."""
        assert self.sock is not None
        try:
            data = self.sock.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail("reset", f"{self.state.name}, {len(self.received)} bytes had come: {error.strerror}")
            return
        if self.state is State.WAITING:
            self.received += data
            try:
                self.take(not data)
            except BadResponse as error:
                self.fail("wrong", str(error))
        elif data:
            self.fail("wrong", f"{data[:200]!r} was not asked for")
        else:
            self.load.report.ended += self.state is State.IDLE
            self.rest(time.monotonic())

    def take(self, at_end: bool) -> None:
        """The answer, if it is complete. Raises BadResponse."""
        request = self.request
        assert request is not None
        found = parse_head(self.received)
        end = None
        if found is not None:
            response, head_size = found
            end = parse_body(response, "GET", self.received, head_size, at_end)
        if found is None or end is None:
            if at_end:
                self.on_cut()
            return
        wrong = check_response(request, response)
        rest = self.received[end:]
        has_to_close = self.style == "closing"
        if wrong or rest or (has_to_close and "close" not in response.tokens):
            self.fail("wrong", wrong or f"{rest[:200]!r} behind the answer; {response.fields}")
            return
        self.on_answer(response, at_end)

    def on_answer(self, response: Response, at_end: bool) -> None:
        report = self.load.report
        report.workers[int(response["X-Worker"])] += 1
        report.versions[response["X-Version"]] += 1
        report.answered += 1
        self.request = None
        self.is_retry = False
        self.served += 1
        if "close" in response.tokens and not at_end:
            self.state = State.ENDING
        elif at_end or self.style == "fresh":
            self.rest(time.monotonic())
        else:
            self.state = State.IDLE
            self.next_at = time.monotonic() + self.load.pause_s * self.chance.random()

    def on_cut(self) -> None:
        """The end came before the answer."""
        if self.received:
            self.fail("truncated", f"after {len(self.received)} bytes: {self.received[:300]!r}")
        elif not self.served:
            self.fail("closed", "a new connection was ended without a response")
        elif self.is_retry:
            self.fail("closed", "sent again, and ended without a response again")
        else:
            self.load.report.retried += 1
            self.is_retry = True
            self.drop()
            self.state = State.IDLE  # with the same request still to be answered
            self.next_at = 0.0

    # --- ends ---------------------------------------------------------------------------------------------------------

    def fail(self, kind: str, detail: str) -> None:
        """Note it and go on with the next request on a new connection."""
        tag = self.request.tag if self.request is not None else "-"
        what = f"{self.style} {tag} at {time.monotonic() - self.load.started_at:.3f} s: {detail}"
        self.load.report.failures.append(Failure(kind, what))
        self.request = None
        self.is_retry = False
        self.rest(time.monotonic())

    def rest(self, now: float) -> None:
        """Without a connection, until the pause is over."""
        self.drop()
        self.state = State.IDLE
        self.next_at = now + self.load.pause_s * self.chance.random()

    def finish(self) -> None:
        self.drop()
        self.state = State.DONE

    def drop(self) -> None:
        if self.sock is not None:
            self.load.selector.unregister(self.sock)
            self.sock.close()
            self.sock = None

    def check_time(self, now: float) -> None:
        if self.state in (State.IDLE, State.DONE) or now - self.started_at < self.load.timeout_s:
            return
        if self.state is State.CONNECTING and self.load.may_refuse:
            return  # the listener is being shut: nobody is told anything
        self.fail("timeout", f"{self.state.name} for {self.load.timeout_s:g} s, {len(self.received)} bytes had come")


class Load:
    """See the module. A context manager; leaving it waits for every answer that is due and checks the report.

    pause_s: the most that a caller waits between two requests.  limit_s: for the whole load.
    """

    def __init__(
        self,
        address: Address,
        *,
        kept: int = 0,
        fresh: int = 0,
        pause_s: float = 0.01,
        timeout_s: float = 30.0,
        limit_s: float = 100.0,
    ) -> None:
        """kept, fresh: so many callers; every other fresh one is of style `closing`."""
        self.address = address
        self.pause_s = pause_s
        self.timeout_s = timeout_s
        self.limit_s = limit_s
        self.may_refuse = False
        """The server is being stopped: a caller that is refused has done its work."""
        self.may_fail = False
        """The test looks at the failures itself."""
        self.report = Report()
        self.selector = selectors.DefaultSelector()
        styles = ["kept"] * kept + [("fresh", "closing")[number % 2] for number in range(fresh)]
        self.callers = [Caller(number, style, self) for number, style in enumerate(styles)]
        self.started_at = time.monotonic()
        self._is_stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run_guarded, name="load", daemon=True)

    def __enter__(self) -> Self:
        self.started_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()
        if kind is None and not self.may_fail:
            self.report.check()

    def stop(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self._is_stopping = True
        self._thread.join(self.timeout_s + 30.0)
        assert not self._thread.is_alive(), "the load does not end"
        if self._error is not None:
            raise self._error

    def wait_for_more(self, count: int = 50, timeout_s: float = 60.0) -> None:
        """So many answers more; fails at once where a request does."""
        wanted = self.report.answered + count

        def is_enough() -> bool:
            if self.report.failures and not self.may_fail:
                self.report.check()
            return self.report.answered >= wanted or not self._thread.is_alive()

        wait_until(is_enough, timeout_s, f"{count} answers more")
        assert self._thread.is_alive(), "the load has ended"

    def wait_a_moment(self) -> bool:
        """For the next things to happen; False where nothing more will."""
        self._thread.join(LOOK_S)
        return self._thread.is_alive()

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run_guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # raised again where somebody waits
            self._error = error
        finally:
            for caller in self.callers:
                caller.drop()
            self.selector.close()

    def _run(self) -> None:
        end_at = self.started_at + self.limit_s
        while any(caller.state is not State.DONE for caller in self.callers):
            now = time.monotonic()
            if now > end_at or self.report.answered > MOST_ANSWERS or len(self.report.failures) > MOST_FAILURES:
                self._is_stopping = True
            for caller in self.callers:
                if self._is_stopping and self._is_at_rest(caller):
                    caller.finish()
                elif caller.state is State.IDLE and now >= caller.next_at:
                    caller.begin(now)
            for key, mask in self.selector.select(LOOK_S):
                key.data.on_event(mask)
            for caller in self.callers:
                caller.check_time(now)  # of before: whatever had come by then has been read

    def _is_at_rest(self, caller: Caller) -> bool:
        """Nothing is owed to it. A second try still is, and so is a connection, unless the server stops."""
        if caller.state is State.CONNECTING:
            return self.may_refuse
        return caller.state is State.IDLE and (not caller.is_retry or self.may_refuse)


def soak_rounds(usual: int, soak: int) -> int:
    """How often a test repeats itself: `soak` times where EPOLLWSGI_TEST_SOAK is set (give pytest --timeout 600)."""
    return soak if os.environ.get("EPOLLWSGI_TEST_SOAK", "") not in ("", "0") else usual
