"""The sending half of a connection: batch, direct send, outbox, half-close, close. The other half is `connection`.

Output takes the shortest way that is free:

    respond   whole responses, joined to what waits in the loop's batch (`out`), sent at the end of its turn
    send      parts of a response, straight to the socket
    outbox    what the socket did not take; epoll tells when it takes more
"""

from __future__ import annotations

import select
import socket
import struct
from enum import IntEnum
from typing import TYPE_CHECKING

from epollwsgi.loop import Loop
from epollwsgi.outbox import FileCutShort, OpenedFile, Outbox, Sent

if TYPE_CHECKING:
    from epollwsgi.service import Service


class State(IntEnum):
    """Where a connection stands. NEXT is the whole machine; a test walks it."""

    HEAD, BODY, APP, SEND, LINGER, CLOSED = range(6)


HEAD, BODY, APP, SEND, LINGER, CLOSED = State

NEXT: dict[State, frozenset[State]] = {
    HEAD: frozenset((BODY, APP, SEND, LINGER, CLOSED)),
    BODY: frozenset((APP, SEND, CLOSED)),
    APP: frozenset((HEAD, SEND, LINGER, CLOSED)),
    SEND: frozenset((HEAD, LINGER, CLOSED)),
    LINGER: frozenset((CLOSED,)),
    CLOSED: frozenset(),
}

# RFC 9112 section 9.6: how long, and how much, is read after this side was closed.
LINGER_S = 2.0
# A client makes progress when it takes so many bytes within send_timeout: single bytes do not keep a connection.
PROGRESS_SIZE = 4096
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time, socket(7)
SHUT_EVENTS = select.POLLHUP | select.POLLERR


class Output:
    """See the module. `gone`: the client is known not to listen any more."""

    __slots__ = (
        "deadline", "fd", "gone", "is_aborted", "is_listed", "is_logged", "is_plain",
        "is_unix", "keep", "loop", "out", "outbox",
        "peer", "saw_end", "service", "slot", "sock", "state", "unread", "waiting_at_last",
    )  # fmt: skip

    def __init__(self, service: Service, sock: socket.socket, peer: tuple[str, str]) -> None:
        self.service = service
        self.loop: Loop = service.loop
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.is_unix = not peer[1]
        self.state = HEAD
        self.out = b""
        self.outbox: Outbox | None = None
        self.is_plain = True  # the loop has nothing to do once `out` is sent; False in SEND
        self.is_aborted = False
        self.is_listed = False  # on the loop's ready list
        self.is_logged = service.access_log is not None
        self.keep = True  # after SEND: whether the connection stays open
        self.gone = False
        self.unread = False
        self.saw_end = False  # the client has closed its side
        self.deadline = 0.0
        self.slot = 0
        self.waiting_at_last = 0

    @property
    def name(self) -> str:
        """The peer, for logs."""
        return f"{self.peer[0]}:{self.peer[1]}" if self.peer[0] else "unix socket"

    @property
    def sends_files(self) -> bool:
        """Whether os.sendfile may be used (the setting sendfile)."""
        return self.service.sendfile

    def read_again(self) -> None:
        """There may be more to read than was read: the loop comes back."""
        self.unread = True
        self.list_ready()

    def list_ready(self) -> None:
        """Onto the loop's ready list, once."""
        if not self.is_listed:
            self.is_listed = True
            self.loop.ready.append(self)  # type: ignore[arg-type]  # every Output is a Connection

    # --- whole responses --------------------------------------------------------------------------------------------

    def respond(self, response: bytes, keep: bool) -> None:
        """A whole response; it waits for the end of the turn."""
        if self.gone:
            return
        if self.out:
            self.out += response
        else:
            self.out = response
            self.loop.batch.append(self)  # type: ignore[arg-type]
        if keep:
            self.state = HEAD
            self.deadline = self.loop.now + self.service.keepalive_s
        else:
            self.state = SEND
            self.keep = self.is_plain = False

    def send_file(self, head: bytes, file: OpenedFile, offset: int, count: int, keep: bool) -> None:
        """A whole response: head, then `count` bytes of file."""
        if self.out:
            self.loop.flush()
        if self.gone:
            return
        outbox = self.outbox = self.outbox or Outbox(self.service.spool_rules)
        outbox.append(head)
        outbox.attach(file, offset, count)
        self.finish(keep)
        self.send_waiting()

    # --- parts of responses -----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what waits in the batch, of all connections."""
        if self.loop.batch:
            self.loop.flush()

    def send(self, data: bytes) -> None:
        """A part of a response, sent as far as the client takes it; the rest waits in the outbox."""
        if self.out:
            self.loop.flush()
        if self.gone:
            return
        if self.outbox is None:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.on_error(error)
                return
            if sent == len(data):
                return
            data = data[sent:]
            self.outbox = Outbox(self.service.spool_rules)
        else:
            self.send_waiting()
        self._keep_waiting(data)

    def _keep_waiting(self, data: bytes) -> None:
        """Into the outbox; where neither memory nor spool has room the client must take something first."""
        while not self.is_client_lost():
            outbox = self.outbox = self.outbox or Outbox(self.service.spool_rules)
            if outbox.append(data):
                return
            self._wait_for_client()

    def is_client_lost(self) -> bool:
        """`gone`, asked anew: sending may change it."""
        return self.gone

    def finish(self, keep: bool) -> None:
        """What was sent is a whole response."""
        if self.gone:
            return
        self.keep = keep
        if self.outbox:
            self.state = SEND
            self.is_plain = False
            self._expect_progress()
        else:
            self._on_all_sent()

    def abort(self, reset: bool) -> None:
        """What was sent is no whole response: close; with a reset where a clean end would look like one."""
        if reset:
            self.reset()
        else:
            self.finish(False)

    def _wait_for_client(self) -> None:
        """Wait until the client takes something, within send_timeout."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        if not poll.poll(self.service.send_timeout_s * 1000):
            self.service.error_log.debug(f"{self.name} took nothing for send_timeout")
            self.reset()
        else:
            self.send_waiting()

    # --- what waits -------------------------------------------------------------------------------------------------

    def on_flushed(self, sent: int) -> None:
        """The loop has sent the first `sent` bytes of `out`."""
        rest = self.out[sent:]
        self.out = b""
        if self.state is CLOSED:
            return
        if rest:
            self._keep_waiting(rest)
            if self.is_client_lost():
                return
            if self.state is HEAD:
                self.keep = True
                self.state = SEND
                self.is_plain = False
            self._expect_progress()
        elif self.state is SEND:
            self._on_all_sent()

    def send_waiting(self) -> None:
        """Send from the outbox what the socket takes now."""
        outbox = self.outbox
        if outbox is None or self.state is CLOSED:
            return
        try:
            result = outbox.send(self.sock)
        except FileCutShort as error:
            self.service.error_log.warning(f"{self.name}: {error}")
            self.reset()
            return
        except OSError as error:
            self.on_error(error)
            return
        if result is Sent.ALL:
            self.outbox = None
            if self.state is SEND:
                self._on_all_sent()
            return
        if result is Sent.PAUSED:
            self.list_ready()
        if self.state is SEND and self.waiting_at_last - outbox.size >= PROGRESS_SIZE:
            self._expect_progress()

    def _expect_progress(self) -> None:
        """From now on send_timeout runs."""
        self.waiting_at_last = self.outbox.size if self.outbox is not None else 0
        self.loop.set_deadline(self, self.loop.now + self.service.send_timeout_s)  # type: ignore[arg-type]

    def _on_all_sent(self) -> None:
        """A response is with its client (or its kernel): the next request, or the end."""
        self.outbox = None
        if not self.keep:
            self.linger()
            return
        self.state = HEAD
        self.is_plain = True
        self.deadline = self.loop.now + self.service.keepalive_s
        self.list_ready()  # a request may have come meanwhile

    # --- the end ----------------------------------------------------------------------------------------------------

    def linger(self) -> None:
        """Close this side, and read what the peer still sends for a while. RFC 9112 section 9.6."""
        self.is_plain = False
        if self.saw_end:
            self.close()
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.on_error(error)
            return
        self.state = LINGER
        self.waiting_at_last = 0
        self.loop.set_deadline(self, self.loop.now + LINGER_S)  # type: ignore[arg-type]
        self.read_again()

    def reset(self) -> None:
        """End the connection with a reset."""
        self.is_aborted = True
        self.gone = True
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        except OSError:
            pass  # gone already
        self.close()

    def on_error(self, error: OSError) -> None:
        """The peer has gone: not an error (WIRE.md)."""
        self.gone = True
        self.service.error_log.debug(f"{self.name} has gone: {error.strerror}")
        self.close()

    def close(self) -> None:
        """Close at the end of the turn."""
        if self.state is not CLOSED:
            self.state = CLOSED
            self.gone = True
            self.is_plain = False
            self.outbox = None
            self.service.connections.discard(self)
            self.loop.close_client(self)  # type: ignore[arg-type]

    def is_client_gone(self) -> bool:
        """environ['epollwsgi.client_gone']: whether the connection is reset or broken; a mere FIN is not."""
        if not self.gone and self.state is not CLOSED:
            poll = select.poll()
            poll.register(self.fd, 0)
            return any(mask & SHUT_EVENTS for _, mask in poll.poll(0))
        return True
