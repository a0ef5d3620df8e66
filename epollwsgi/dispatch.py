"""Who answers a whole request: a file, the application, or the server itself. The middle part of a connection.

`connection` reads requests and calls `dispatch`; what is answered leaves through `output`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import BinaryIO

from epollwsgi.answer import CLIENT_LEFT
from epollwsgi.errors import BodyCut, HTTPError
from epollwsgi.http import response as r
from epollwsgi.http.fields import Environ, parse_host
from epollwsgi.http.forwarded import DEFAULT_PORTS
from epollwsgi.http.head import RequestLine
from epollwsgi.http.memory import SectionMemory
from epollwsgi.leader import Leader
from epollwsgi.outbox import Outbox, Part, send_at_once
from epollwsgi.output import Output
from epollwsgi.pagecache import Readable
from epollwsgi.service import Service
from epollwsgi.states import APP, HEAD, SEND
from epollwsgi.static.fresh import View
from epollwsgi.static.handler import RETRY_AFTER
from epollwsgi.static.replies import Reply, build_short_reply

ALLOW_ALL = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
ALLOW_FILES = b"Allow: GET, HEAD, OPTIONS\r\n"


class Dispatch(Output):
    """See the module."""

    __slots__ = ("goes_straight", "has_asked", "leader", "parser")

    def __init__(self, service: Service, sock: socket.socket, peer: tuple[str, str]) -> None:
        super().__init__(service, sock, peer)
        self.has_asked = False  # its first request has come
        self.parser = service.proxy_parser if service.peers[peer[0]] else service.parser
        self.leader: Leader = service.leader  # type: ignore[assignment]  # asked for only where there is one
        # Neither files nor a unix socket: every plain request is the application's.
        self.goes_straight = service.leader is not None and service.static is None and not self.is_unix

    def is_sent_from_file(self, memory: SectionMemory, environ: Environ, request: RequestLine, keep: bool) -> bool:
        """Send a large file whose response is prebuilt; False where there is none.

        Gives the connection's fields their view of the files' responses, where they have none.
        """
        view, static = memory.fresh, self.service.static
        if not isinstance(view, View) or view.is_dead:
            memory.fresh = static.fresh.view(environ) if static is not None else view
            return False
        found = view.files.get(request.path)
        if found is None or not keep or request.method != "GET" or self.outbox is not None or self.out:
            return False
        head, file, count, size, modified_ns = found
        status = os.fstat(file.fd)
        if status.st_mtime_ns != modified_ns or status.st_size != size:
            return False  # written to meanwhile: the head would not fit
        sent = 0
        try:
            head = head[self.sock.send(head, socket.MSG_MORE) :]
            if not head:
                sent = os.sendfile(self.fd, file.fd, 0, count)
        except BlockingIOError:
            pass
        except OSError as error:
            if self.log is not None:
                self.log(self, request, environ, 200, 0, found[0])
            self.on_error(error)
            return True
        if sent == count:
            if self.log is not None:
                self.log(self, request, environ, 200, count, found[0])
            self.deadline = self.loop.now + self.service.keepalive_s
        else:
            if self.log is not None:
                self.log_at_end(request, environ, 200, count, found[0])
            self.state = SEND
            self._send_rest(head, file, sent, count - sent, True)
        return True

    def dispatch(
        self,
        request: RequestLine,
        environ: Environ,
        keep: bool,
        content: BinaryIO | None,
        is_upgrade: bool = False,
    ) -> None:
        """A whole request: a file, or the application. content: None where there is none."""
        service = self.service
        path = request.path
        if service.static is not None and path != "*":
            reply = service.static.answer(request.method, path, request.query, environ)
            if reply is not None:
                self._send_reply(request, environ, reply, keep)
                return
        leader = service.leader
        if leader is None or not request.is_plain or self.is_unix:
            if leader is None or request.path_info is None or path == "*":
                self._answer_itself(request, environ, keep)
                return
            self._set_unusual(request, environ)
        self.call_application(request, environ, keep, content, is_upgrade)

    def call_application(
        self, request: RequestLine, environ: Environ, keep: bool, content: BinaryIO | None, is_upgrade: bool = False
    ) -> None:
        """A whole request for the application, and for nobody else. With `goes_straight` that is every plain one."""
        service = self.service
        environ["REQUEST_METHOD"] = request.method
        environ["PATH_INFO"] = request.path_info
        environ["QUERY_STRING"] = request.query
        environ["RAW_URI"] = environ["REQUEST_URI"] = request.target
        environ["wsgi.input"] = BytesIO() if content is None else content
        made_id = next(service.request_ids)  # each request takes one: they are counted
        environ["epollwsgi.request_id"] = environ["epollwsgi.request_id"] or made_id
        if self.out:
            self.loop.flush()  # what waits of pipelined answers: from now on the call may send for itself
            if self.is_client_lost():
                return
        if self.outbox is not None:
            self.is_apart = True  # the answer goes behind what still waits there
        self.state = APP
        if is_upgrade:
            self.leader.call_with_socket(self, request, environ)
            return
        self.leader.call(self, request, environ, keep, keep and request.method != "HEAD" and request.is_plain)

    def _set_unusual(self, request: RequestLine, environ: Environ) -> None:
        """What differs where the request is not plain, or came over a unix socket. WIRE.md section 4."""
        environ["SERVER_PROTOCOL"] = request.protocol
        if request.protocol == "HTTP/1.0":
            environ.pop("wsgi.early_hints", None)  # such a client knows no interim responses
        if self.is_unix and "HTTP_HOST" in environ:
            name, port = parse_host(environ["HTTP_HOST"].encode("latin-1"))
            environ["SERVER_NAME"] = name or "localhost"
            environ["SERVER_PORT"] = port or DEFAULT_PORTS[environ["wsgi.url_scheme"]]

    def _send_reply(self, request: RequestLine, fields: Environ, reply: Reply, keep: bool) -> None:
        """A file, or what there is to say of it."""
        if reply.whole and keep and request.protocol == "HTTP/1.1":
            if self.log is not None:
                self.log(self, request, fields, reply.status, len(reply.body), reply.whole)
            self.respond(reply.whole, True)
            return
        if reply.later is not None:
            self._send_later(request, fields, reply.later, keep)
            return
        head = b"".join((reply.head, self.loop.common, connection_field(request.protocol, keep), b"\r\n"))
        if reply.file is None:
            if self.log is not None:
                self.log(self, request, fields, reply.status, len(reply.body), reply.head)
            self.respond(head + reply.body, keep)
        else:
            if self.log is not None:
                self.log_at_end(request, fields, reply.status, reply.count, reply.head)
            self._send_opened(head, reply.file, reply, keep)

    def _send_opened(self, head: bytes, file: Readable, reply: Reply, keep: bool) -> None:
        """A file, as far as the socket takes it at once; the rest by way of an outbox."""
        if self.out:
            self.loop.flush()
        self.state = SEND
        offset, count = reply.offset, reply.count
        if self.outbox is None and not self.is_apart and not reply.parts:
            try:
                head, sent = send_at_once(self.sock, head, file, offset, count)
            except OSError as error:
                if self.unlogged is not None:
                    self.log_end(count)
                self.on_error(error)
                return
            if sent == count and keep:
                if self.unlogged is not None:
                    self.log_end(0)
                self.state = HEAD
                self.deadline = self.loop.now + self.service.keepalive_s
                return
            offset, count = offset + sent, count - sent
        self._send_rest(head, file, offset, count, keep, reply.parts)

    def _send_rest(
        self, head: bytes, file: Readable, offset: int, count: int, keep: bool, parts: Sequence[Part] = ()
    ) -> None:
        """By way of an outbox."""
        if not self.gone:
            outbox = self.outbox = self.outbox or Outbox(self.service.spool_rules)
            outbox.append(head)
            outbox.attach(file, offset, count, parts)
        self.finish(keep)
        self.send_waiting()

    def _send_later(self, request: RequestLine, fields: Environ, make: Callable[[], Reply], keep: bool) -> None:
        """A reply that takes its time is made on the helper thread; until then the connection reads nothing."""

        def on_made(reply: Reply) -> None:
            if self.is_client_lost():
                if self.log is not None:
                    self.log_at_end(request, fields, CLIENT_LEFT, 0, b"")
                self.finish(False)
                return
            self._send_reply(request, fields, reply, keep and self.service.keeps)
            self.read_again()  # requests may wait

        self.state = APP
        self.asked_at = self.loop.clock
        if not self.service.helper.run(make, on_made):
            on_made(build_short_reply(503, request.method, RETRY_AFTER))

    def _answer_itself(self, request: RequestLine, fields: Environ, keep: bool) -> None:
        """OPTIONS * (204 with Allow), and a path outside of script_name (404)."""
        common = self.loop.common + connection_field(request.protocol, keep)
        if request.path == "*":
            allow = ALLOW_FILES if self.service.leader is None else ALLOW_ALL
            status, response = 204, b"".join((r.STATUS_LINES[204], allow, common, b"\r\n"))
        else:
            status, response = 404, r.insert_fields(r.build_error(404, request.method), common)
        if self.log is not None:
            self.log(self, request, fields, status, r.content_size(response), response)
        self.respond(response, keep)

    def refuse(self, error: HTTPError, request: RequestLine, environ: Environ) -> None:
        """One response that says no more than the status, then a lingering close. Logged, never echoed.

        request: what is known of its line; where its head came, environ has its fields.
        """
        client = environ.get("REMOTE_ADDR", self.peer[0])
        who = self.name if client == self.peer[0] else f"{client} behind {self.name}"
        self.service.log_limited(f"refused {error.status}", f"{who} refused with {error.status}: {error}")
        page = r.build_error(error.status, request.method)
        if self.log is not None:
            self.log(self, request, environ, error.status, r.content_size(page), page)
        self.respond(r.insert_fields(page, self.loop.common + r.CLOSE), False)

    def log_cut(self, request: RequestLine, environ: Environ) -> None:
        """The client has left, with a reset, before its request was complete: what `BodyCut` would have said."""
        if self.log is not None:
            self.log(self, request, environ, BodyCut.status, 0, b"")

    def log_breach(self, message: str, error: BaseException | None) -> None:
        """The application did something wrong."""
        if error is None:
            self.service.log_limited("application", f"{self.name}: {message}", "warning")
        else:
            self.service.error_log.exception(message)


def connection_field(protocol: str, keep: bool) -> bytes:
    """The Connection field line of a response, b'' where the protocol's default holds. RFC 9112 section 9.3."""
    if not keep:
        return r.CLOSE
    return r.KEEP_ALIVE if protocol == "HTTP/1.0" else b""
