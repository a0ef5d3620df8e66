"""The sending half of a connection: batch, direct send, outbox, half-close, close. The other half is `connection`.

Output takes the shortest way that is free:

    respond   whole responses, joined to what waits in the loop's batch (`out`), sent at the end of its turn
    send      parts of a response, straight to the socket
    outbox    what the socket did not take; epoll tells when it takes more

While the application has a connection (state APP) it belongs to the call: to the thread that leads the loop, or to one
of its own. `out` is empty then, and the loop touches nothing but `unread`, `gone` and what epoll told. A thread of its
own gives the connection back through the loop's inbox. All changes of owner are in this module.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from epollwsgi.http.response import build_early_hints
from epollwsgi.logs.notes import Noted
from epollwsgi.outbox import FileCutShort, Outbox, Sent
from epollwsgi.pagecache import Readable
from epollwsgi.states import APP, CLOSED, HEAD, LINGER, SEND

if TYPE_CHECKING:
    from epollwsgi.service import Service

LINGER_S = 2.0  # for which is read after this side was closed, RFC 9112 section 9.6
PROGRESS_SIZE = 4096  # taken within send_timeout is progress: single bytes do not keep a connection
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time, socket(7)
SHUT_EVENTS = select.POLLHUP | select.POLLERR
# How long a socket that was handed over stays so behind its call: simple-websocket answers the client's close on a
# thread of its own, while the call returns already.
LAST_WORD_S = 0.05
NO_FD = (1 << 31) - 1  # stands for a descriptor that is somebody else's: epoll refuses it with EBADF


class Output(Noted):
    """See the module. `gone`: the client is known not to listen any more."""

    __slots__ = (
        "deadline", "fd", "gone", "has_begun", "is_aborted", "is_apart", "is_handed_over", "is_listed", "is_owned",
        "is_plain", "is_unix", "keep", "out", "outbox", "saw_end", "service", "slot", "sock", "state", "unread",
        "waiting_at_last",
    )  # fmt: skip

    def __init__(self, service: Service, sock: socket.socket, peer: tuple[str, str]) -> None:
        self.service = service
        self.loop = service.loop
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
        self.begin_notes(service.access_log)
        self.keep = True  # after SEND: whether the connection stays open
        self.gone = False
        self.is_handed_over = False  # the application has the socket itself
        self.is_owned = False  # an application thread has it; set by that thread or for it, cleared by the loop alone
        self.is_apart = False  # owned or gone: respond() must not use the batch
        self.has_begun = False  # a part of the response has been sent
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
    def keeps(self) -> bool:
        """Whether connections stay open now: not once the worker drains."""
        return self.service.keeps

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
        if self.is_apart:
            self.send(response)
            self.finish(keep)
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

    def send_file(self, head: bytes, file: Readable, offset: int, count: int, keep: bool) -> None:
        """A whole response: head, then `count` bytes of file."""
        if self.out:
            self.loop.flush()
        if not self.gone:
            outbox = self.outbox = self.outbox or Outbox(self.service.spool_rules)
            outbox.append(head)
            outbox.attach(file, offset, count)
        is_owned = self.is_owned  # once finished it may be the loop's again
        self.finish(keep)
        if not is_owned:
            self.send_waiting()

    # --- parts of responses -----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what waits in the batch, of all connections."""
        if self.loop.batch:
            self.loop.flush()

    def send(self, data: bytes) -> None:
        """A part of a response, sent as far as the client takes it; the rest waits in the outbox."""
        if self.out:
            self.loop.flush()  # an interim response, behind pipelined ones
        self.has_begun = True
        if self.outbox is None and not self.gone:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.on_error(error)
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        elif not self.gone:
            self.send_waiting()
        if self.is_client_lost():
            self.unsent_size += len(data)
        else:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        """What the socket did not take waits."""
        outbox = self.outbox = self.outbox or Outbox(self.service.spool_rules)
        outbox.append(data)

    @property
    def is_full(self) -> bool:
        """There is no room for more: `wait_for_client` before the next part."""
        return self.outbox is not None and self.outbox.is_full

    def wait_for_client(self) -> None:
        """Wait until all that waits has been taken, within send_timeout for each part. Called by the owner only."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        while self.is_full and not self.is_client_lost():
            if not poll.poll(self.service.send_timeout_s * 1000):
                self.service.error_log.debug(f"{self.name} took nothing for send_timeout")
                self.reset()
            else:
                self.send_waiting()

    def is_client_lost(self) -> bool:
        """`gone`, asked anew: sending may change it."""
        return self.gone

    def send_early_hints(self, headers: list[tuple[str, str]]) -> None:
        """environ['wsgi.early_hints']: send 103 (Early Hints) at once, unless the response has begun. RFC 8297.

        Raises ResponseInvalid.
        """
        hints = build_early_hints(headers)
        if self.state is APP and not self.has_begun:
            self.send(hints)
            self.has_begun = False
            if self.outbox is not None:
                self.is_apart = True  # the response must not overtake what waits of the hints

    # --- the owner --------------------------------------------------------------------------------------------------

    def become_owned(self) -> None:
        """The calling thread owns the connection until it gives it back; the loop leaves it alone meanwhile."""
        self.is_owned = self.is_apart = True

    def finish(self, keep: bool) -> None:
        """What was sent is a whole response. A thread gives the connection back, by the one way there is."""
        self.keep = keep
        if self.is_owned:
            self.loop.give_back(self)  # type: ignore[arg-type]
        else:
            self._go_on()

    def on_returned(self) -> None:
        """The loop takes the connection out of its inbox; nobody else clears `is_owned`."""
        self.is_owned = False
        if self.is_handed_over:
            self.loop.call_later(LAST_WORD_S, self._take_socket_back)
        else:
            self._go_on()

    def hand_over_socket(self) -> socket.socket:
        """The connection's socket for the application: out of epoll, and blocking. environ['gunicorn.socket']."""
        self.loop.release_client(self)  # type: ignore[arg-type]
        self.sock.setblocking(True)
        self.is_handed_over = True
        return self.sock

    def end_input(self) -> None:
        """Whoever reads from the socket sees its end: a worker that drains does not wait for a WebSocket."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RD)

    def _take_socket_back(self) -> None:
        """The application answered with a response after all, or is done with the socket.

        Threads of the application may still use its socket object, and close it later: the descriptor is taken out of
        it. Where they have closed it, the number may be another connection's by now, and must not be touched.
        """
        self.is_handed_over = False
        fd = self.sock.detach()
        try:
            if fd < 0:
                self.fd = NO_FD
                self.be_gone()
            else:
                self.sock = socket.socket(fileno=fd)
                self.sock.setblocking(False)
                self.loop.add_client(self)  # type: ignore[arg-type]
        except OSError as error:
            self.on_error(error)
        self._go_on()

    def take_back(self) -> None:
        """The loop answers instead of a thread that has not begun to, and will not: it was too late to claim that."""
        self.is_owned = self.is_apart = False

    def _go_on(self) -> None:
        """The application is done with the connection: what waits is sent, then comes the next request, or the end."""
        self.has_begun = False
        if self.gone:
            self.close()
            return
        self.is_apart = self.is_plain = False
        self.state = SEND
        if self.outbox:
            self._expect_progress()
            self.list_ready()  # epoll may have told meanwhile that the socket takes more
        else:
            self._on_all_sent()

    def abort(self, reset: bool) -> None:
        """What was sent is no whole response: close; with a reset where a clean end would look like one."""
        if reset:
            self.reset()
        self.finish(False)

    # --- what waits -------------------------------------------------------------------------------------------------

    def on_flushed(self, sent: int) -> None:
        """The loop has sent the first `sent` bytes of `out`."""
        rest = self.out[sent:]
        self.out = b""
        if self.state is CLOSED:
            return
        if rest:
            self._keep(rest)
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
        if self.state is APP:
            return  # the call goes on, perhaps on a thread of its own: it tries again with its next part
        if result is Sent.PAUSED:
            self.list_ready()
        elif result is Sent.COLD:
            outbox.read_ahead(self.service.reader.run, self.send_waiting)
        if self.state is SEND and self.waiting_at_last - outbox.size >= PROGRESS_SIZE:
            self._expect_progress()

    def _expect_progress(self) -> None:
        """From now on send_timeout runs."""
        self.waiting_at_last = self.outbox.size if self.outbox is not None else 0
        self.loop.set_deadline(self, self.loop.now + self.service.send_timeout_s)  # type: ignore[arg-type]

    def _on_all_sent(self) -> None:
        """A response is with its client (or its kernel): the next request, or the end."""
        self.outbox = None
        if self.unlogged is not None:
            self.log_end(0)
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
        with suppress(OSError):  # gone already
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.be_gone()

    def on_error(self, error: OSError) -> None:
        """The peer has gone: not an error (WIRE.md)."""
        self.service.error_log.debug(f"{self.name} has gone: {error.strerror}")
        self.be_gone()

    def be_gone(self) -> None:
        """Nothing can be sent any more: close, but where the application has the connection leave that to its end."""
        self.gone = self.is_apart = True
        if self.state is not APP:
            self.close()

    def close(self) -> None:
        """Close at the end of the turn."""
        if self.state is not CLOSED:
            if self.unlogged is not None:
                self.end_notes()
            self.state = CLOSED
            self.gone = self.is_apart = True
            self.is_plain = False
            self.outbox = None
            self.service.connections.discard(self)
            self.loop.close_client(self)  # type: ignore[arg-type]

    def is_client_gone(self) -> bool:
        """environ['epollwsgi.client_gone']: whether the connection is reset or broken; a mere FIN is not."""
        fd = self.sock.fileno()
        if self.gone or self.state is CLOSED or fd < 0:
            return True
        poll = select.poll()
        poll.register(fd, 0)
        return any(mask & SHUT_EVENTS for _, mask in poll.poll(0))
