"""One connection: read, dispatch, refuse. The only place that turns an HTTPError into bytes.

    HEAD ----> BODY ----> APP ----> SEND ----> HEAD ...
      |          |         |          |
      +----------+---------+----------+--> LINGER --> CLOSED

HEAD    a head is awaited or has partly arrived (`_scanner`); without one the connection is idle
BODY    the content of a request is collected (`_body`)
APP     the application has the request
SEND    the response is complete, its client has not taken all of it (`out` in the loop's batch, or `outbox`)
LINGER  this side is closed; what the peer still sends is dropped for a while (RFC 9112 section 9.6)
CLOSED  the loop closes the socket at the end of its turn

A connection belongs to the loop. It reads in HEAD, BODY and LINGER only; epoll being edge-triggered, `unread` remembers
that there may be more to read, and the loop's ready list comes back to it. How output leaves is in `output`.
"""

from __future__ import annotations

import socket

from epollwsgi.body import Body, make_decoder
from epollwsgi.dispatch import Dispatch
from epollwsgi.errors import BadFraming, BodyCut, FieldsTooLarge, HTTPError, RequestTimeout
from epollwsgi.http import response as r
from epollwsgi.http.fields import CONNECTION, EXPECT, FRAMING, Environ
from epollwsgi.http.head import (
    HeadScanner,
    RequestLine,
    body_length,
    check_host,
    expects_continue,
    is_kept,
    is_websocket,
)
from epollwsgi.http.memory import SectionMemory
from epollwsgi.http.refused import read_refused_head
from epollwsgi.loop import GONE, IN, OUT, RDHUP
from epollwsgi.service import SITE_BODY_SIZE, Service
from epollwsgi.spool import BodySpool
from epollwsgi.states import APP, BODY, CLOSED, HEAD, LINGER, SEND

HEAD_READ_SIZE, BODY_READ_SIZE = 16384, 262144
LINGER_SIZE = 4 << 20
PIPELINED_SIZE = 65536  # answers to pipelined requests are sent when so much has gathered
END_EVENTS = RDHUP | GONE
READABLE = IN | END_EVENTS
PLAIN_EVENTS = IN | OUT


class Connection(Dispatch):
    """See the module; the order of its methods is the order in a request's life."""

    __slots__ = ("_body", "_buffer", "_end_mask", "_ending", "_memory", "_scanner", "_template")

    def __init__(self, service: Service, sock: socket.socket, peer: tuple[str, str], template: Environ) -> None:
        """peer: address and port, both '' over a unix socket. template: environ as all its requests have it."""
        super().__init__(service, sock, peer)
        self._template = template
        self._memory: SectionMemory | None = None
        self._buffer = b""  # input behind the request at hand
        self._scanner: HeadScanner | None = None
        self._body: Body | None = None
        self._end_mask = 0  # what epoll has told of the end of input
        self._ending = False  # the client's input ends with what has been read

    @property
    def is_idle(self) -> bool:
        """Nothing of a request has arrived, and nothing waits to be sent."""
        return self.state is HEAD and self._scanner is None and not self._buffer and not self.out

    def close_if_idle(self) -> bool:
        """Close unless a request has come meanwhile; True if it was closed."""
        self.on_event(PLAIN_EVENTS)
        if not self.is_idle:
            return False
        self.close()
        return True

    # --- what the loop calls ----------------------------------------------------------------------------------------

    def on_event(self, mask: int) -> None:
        """epoll reported `mask`."""
        if self.outbox is not None and mask & OUT and self.state is not APP:
            self.send_waiting()
        if not mask & READABLE:
            return
        if self.state is not HEAD:
            self._on_event_busy(mask)
            return
        try:
            data = self.sock.recv(HEAD_READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.on_error(error)
            return
        if not data:
            self._on_end_of_input()
            return
        if mask != PLAIN_EVENTS or len(data) == HEAD_READ_SIZE:
            self._note_more(mask, len(data) == HEAD_READ_SIZE)
        try:
            if self._scanner is None:
                self._on_head(data)
            else:
                self._on_piece(data)
        except HTTPError as error:
            self._refuse(error, data)
        if self._buffer:
            self._on_pipelined()

    def _note_more(self, mask: int, is_full: bool) -> None:
        """More can be read: the read was full, or the end of input follows. epoll says so only once."""
        self._end_mask |= mask & END_EVENTS
        if is_full or self._end_mask:
            self._ending = not is_full
            self.read_again()

    def _on_event_busy(self, mask: int) -> None:
        """Input, or the end, in any state but HEAD."""
        self._end_mask |= mask & END_EVENTS
        if self.state is BODY:
            self._read_body(mask)
        elif self.state is LINGER:
            self._drain()
        elif mask & GONE and self.state is not CLOSED:
            self.on_error(ConnectionResetError(104, "Connection reset by peer"))
        else:
            self.unread = True

    def on_ready(self) -> None:
        """The loop comes back to a connection that stopped before EAGAIN."""
        self.is_listed = False
        if self.outbox is not None and self.state is not APP:
            self.send_waiting()
        if self._buffer and self.state is HEAD:
            self._on_pipelined()
        if self.unread and (self.state in (HEAD, BODY, LINGER) or self._end_mask & GONE):
            self.unread = False
            self.on_event(PLAIN_EVENTS | self._end_mask)

    def on_deadline(self) -> None:
        """A time limit has passed; what arrived in the meantime is looked at first. WIRE.md section 3."""
        service = self.service
        state, before = self.state, self.deadline
        if state is HEAD or state is BODY:
            self.on_event(PLAIN_EVENTS)
            if self.state is not state or self.deadline != before or self.out:
                if not self.slot and self.state is not CLOSED:
                    self.loop.set_deadline(self, self.deadline)
                return
        if state is APP:
            self.loop.set_deadline(self, self.loop.now + service.keepalive_s)
        elif state is BODY:
            limit = service.body_timeout_s
            self._refuse(RequestTimeout("the body came too slowly", setting="body_timeout", limit=limit))
        elif self._scanner is not None and self._scanner.has_begun:
            limit = service.header_timeout_s
            self._refuse(RequestTimeout("the head is not complete", setting="header_timeout", limit=limit))
        elif state is SEND:
            service.error_log.debug(f"{self.name} took too little in send_timeout = {service.send_timeout_s:g} s")
            self.reset()
        elif state is HEAD:
            self.linger()
        else:
            self.close()

    def on_second(self) -> bool:
        """Once a second while fields are remembered: forget them after an idle second. True while they are."""
        if self.deadline - self.service.keepalive_s <= self.loop.now - 1 and self.state is HEAD:
            self._memory = None
        return self._memory is not None

    def on_closed(self) -> None:
        """The socket is closed: drop what refers to others."""
        if self._body is not None:
            self.log_cut(self._body.request, self._body.environ)
        self._buffer = self.out = b""
        self._memory = self._body = self._scanner = None

    # --- heads ------------------------------------------------------------------------------------------------------

    def _on_head(self, data: bytes) -> None:
        """Answer the request at the start of data; the rest goes into the buffer. The hot path. Raises HTTPError."""
        memory = self._memory
        if memory is None or memory.environ is None:
            self._on_new_head(data)
            return
        service = self.service
        if data == memory.head and memory.request is not None:
            request = memory.request
        else:
            line_end = data.find(b"\r\n")
            if not data.startswith(memory.section, line_end):
                self._on_new_head(data)
                return
            line = data[:line_end]
            request = service.request_lines.get(line) or service.parser.parse_request_line(line)
            if not request.is_plain:
                self._on_new_head(data)
                return
            end = line_end + len(memory.section)
            if len(data) > end:
                self._buffer = data[end:]
            else:
                memory.head, memory.request = data, request
        keep = service.keeps and (not self._ending or self._buffer != b"")
        if self.goes_straight:
            self.call_application(request, memory.environ.copy(), keep, None)
        elif keep and request.path in memory.fresh and request.method == "GET":
            response = memory.fresh[request.path]
            if self.log_fresh is not None:
                self.log_fresh(self, request, memory.environ, memory.fresh, response)
            self.respond(response, True)
        else:
            if service.static is not None and self.is_sent_from_file(memory, memory.environ, request, keep):
                return
            self.dispatch(request, memory.environ.copy(), keep, None)

    def _on_new_head(self, data: bytes) -> None:
        """The same for any head, also one that has not arrived whole. Raises HTTPError."""
        line_end = data.find(b"\r\n")
        end = data.find(b"\r\n\r\n")
        if end < 0 or not line_end:
            self._on_piece(data)
            return
        service = self.service
        request = service.parser.parse_request_line(data[:line_end])
        if end > service.head_limit:
            raise FieldsTooLarge("head too long", setting="limit_request_head", limit=service.head_limit, seen=end)
        self.has_asked = True
        memory = self._memory
        if memory is None:
            memory = self._memory = SectionMemory()
            self.loop.watch_idling(self)
        environ, roles = memory.parse(data, line_end, end, self.parser, self._new_environ)
        check_host(request, environ, self.parser.believe)
        if len(data) > end + 4:
            self._buffer = data[end + 4 :]
        keep = service.keeps and (not self._ending or self._buffer != b"")
        if keep and (roles & CONNECTION or not request.is_plain):
            keep = is_kept(request.protocol, environ.get("HTTP_CONNECTION"))
        if roles & CONNECTION and not roles & FRAMING and is_websocket(request, environ):
            if self._buffer:
                raise BadFraming("bytes behind the head of a WebSocket request")
            self.dispatch(request, environ, False, None, is_upgrade=True)
        elif roles & FRAMING:
            self._begin_body(request, environ, keep, roles)
        elif roles or not keep or not request.is_plain or request.method != "GET" or request.path not in service.fresh:
            self.dispatch(request, environ, keep, None)
        else:
            response = service.fresh[request.path]
            if self.log_fresh is not None:
                self.log_fresh(self, request, environ, service.fresh, response)
            self.respond(response, True)

    def _new_environ(self) -> Environ:
        """All keys that do not depend on a request. WIRE.md section 4."""
        environ = self._template.copy()
        if environ:  # a site alone needs none
            environ["epollwsgi.client_gone"] = self.is_client_gone
            environ["wsgi.early_hints"] = self.send_early_hints
            environ["epollwsgi.peer"] = self.peer
            environ["REMOTE_ADDR"] = self.peer[0]
            if not self.is_unix:
                environ["REMOTE_PORT"] = self.peer[1]
        return environ

    def _on_piece(self, data: bytes) -> None:
        """A head that does not arrive whole, or begins with an empty line."""
        scanner = self._scanner
        if scanner is None:
            scanner = self._scanner = HeadScanner(self.service.parser.limits, self.service.parser.parse_request_line)
            self.loop.set_deadline(self, self.loop.now + self.service.header_timeout_s)
        is_whole = scanner.feed(data)
        self.asked_at = self.asked_at or (self.loop.clock if scanner.has_begun else 0.0)
        if is_whole:
            self._scanner = None
            head = bytes(scanner.data).removeprefix(b"\r\n")
            try:
                self._on_head(head)
            except HTTPError as error:
                self._refuse(error, head)
        elif not scanner.has_begun and self._ending:
            self.close()

    def _on_pipelined(self) -> None:
        """Answer what is in the buffer, in order, until something has to be waited for."""
        while self._buffer and self.state is HEAD:
            data, self._buffer = self._buffer, b""
            try:
                if self._scanner is None:
                    self._on_head(data)
                else:
                    self._on_piece(data)
            except HTTPError as error:
                self._refuse(error, data)
            if len(self.out) > PIPELINED_SIZE:
                self.loop.flush()

    def _on_end_of_input(self) -> None:
        """The client has closed its side: it still gets the answers to what it sent."""
        self.saw_end, self.unread = True, False
        if self.state is BODY:
            self._refuse(BodyCut("the body was cut by the client"))
        elif self.state is LINGER or not self.out:
            self.close()
        else:
            self.state = SEND
            self.keep = self.is_plain = False

    def _drain(self) -> None:
        """LINGER: drop what the peer still sends, within a bound."""
        try:
            data = self.sock.recv(BODY_READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.on_error(error)
            return
        self.waiting_at_last += len(data)
        if not data or self.waiting_at_last > LINGER_SIZE:
            self.close()
        else:
            self.read_again()

    # --- bodies -----------------------------------------------------------------------------------------------------

    def _begin_body(self, request: RequestLine, environ: Environ, keep: bool, roles: int) -> None:
        """Collect the content before anybody is called. Raises HTTPError."""
        service = self.service
        length = body_length(request.protocol, environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING"))
        if service.leader is None and length > SITE_BODY_SIZE:
            self.dispatch(request, environ, False, None)  # a site drops content: this much by closing
            return
        decoder = make_decoder(length, service.body_limit, service.parser.limits)
        wants_continue = bool(roles & EXPECT) and expects_continue(request.protocol, environ["HTTP_EXPECT"])
        if not length:
            self.dispatch(request, environ, keep, None)
            return
        spool = BodySpool(service.body_buffer_size, service.tmp_dir, service.quota)
        body = self._body = Body(request, environ, keep, decoder, spool)
        body.limit_time(self.loop.now, service.body_timeout_s, service.body_min_rate)
        self.state, self.asked_at = BODY, self.asked_at or self.loop.clock
        data, self._buffer = self._buffer, b""
        if data:
            self._on_content(data)
        elif wants_continue:
            self.send(r.CONTINUE)
        if self.state is BODY:
            self.loop.set_deadline(self, body.deadline(self.loop.now))
            self.read_again()

    def _read_body(self, mask: int) -> None:
        try:
            data = self.sock.recv(BODY_READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.on_error(error)
            return
        if not data:
            self._on_end_of_input()
            return
        if mask != PLAIN_EVENTS or len(data) == BODY_READ_SIZE:
            self._note_more(mask, len(data) == BODY_READ_SIZE)
        self._on_content(data)
        if self._body is not None:
            self.loop.set_deadline(self, self._body.deadline(self.loop.now))
        elif self._buffer:
            self._on_pipelined()

    def _on_content(self, data: bytes) -> None:
        """Content arrived; the request goes on when it is complete."""
        body = self._body
        assert body is not None
        try:
            rest = body.feed(data)
            if rest is None:
                return
            content = body.finish()
        except HTTPError as error:
            self._refuse(error)
            return
        self._body = None
        self._buffer = rest
        self.dispatch(body.request, body.environ, body.keep and not (self._ending and not rest), content)

    def _refuse(self, error: HTTPError, data: bytes = b"") -> None:
        """One response that says no more than the status, then a lingering close. Logged, never echoed.

        data: the head, or what of it came last, while there is no body; a HEAD gets no content.
        """
        body = self._body
        data = data if self._scanner is None else bytes(self._scanner.data)
        self._scanner = self._body = None
        self._buffer = b""
        known = read_refused_head(data, self.parser) if body is None else (body.request, body.environ)
        self.refuse(error, *known)
