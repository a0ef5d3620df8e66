"""Who answers a whole request: a file, the application, or the server itself. The middle part of a connection.

`connection` reads requests and calls `dispatch`; what is answered leaves through `output`.
"""

from __future__ import annotations

import socket
from io import BytesIO
from time import monotonic
from typing import BinaryIO

from epollwsgi.errors import HTTPError
from epollwsgi.http import response as r
from epollwsgi.http.fields import Environ, parse_host
from epollwsgi.http.head import RequestLine
from epollwsgi.output import APP, SEND, Output
from epollwsgi.service import Service
from epollwsgi.static.handler import Reply

ALLOW_ALL = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
ALLOW_FILES = b"Allow: GET, HEAD, OPTIONS\r\n"


class Dispatch(Output):
    """See the module."""

    __slots__ = ("_started_at",)

    def __init__(self, service: Service, sock: socket.socket, peer: tuple[str, str]) -> None:
        super().__init__(service, sock, peer)
        self._started_at = 0.0

    def respond_fresh(self, request: RequestLine, fields: Environ) -> None:
        """A file from memory, its whole response prebuilt."""
        response = self.service.fresh[request.path]
        self.respond(response, True)
        if self.is_logged:
            self._started_at = monotonic()
            self._log(request, fields, 200, len(response) - response.index(b"\r\n\r\n") - 4)

    def dispatch(self, request: RequestLine, environ: Environ, keep: bool, content: BinaryIO | None) -> None:
        """A whole request: a file, or the application. content: None where there is none."""
        service = self.service
        if self.is_logged:
            self._started_at = monotonic()
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
        method = environ["REQUEST_METHOD"] = request.method
        environ["PATH_INFO"] = request.path_info
        environ["QUERY_STRING"] = request.query
        environ["RAW_URI"] = environ["REQUEST_URI"] = request.target
        environ["wsgi.input"] = BytesIO() if content is None else content
        environ["epollwsgi.request_id"] = next(service.request_ids)
        self.state = APP
        leader.call(self, environ, path, keep, keep and method != "HEAD" and request.is_plain)

    def _set_unusual(self, request: RequestLine, environ: Environ) -> None:
        """What differs where the request is not plain, or came over a unix socket. WIRE.md section 4."""
        environ["SERVER_PROTOCOL"] = request.protocol
        if self.is_unix:
            name, port = parse_host(environ.get("HTTP_HOST", "").encode("latin-1"))
            environ["SERVER_NAME"] = name or "localhost"
            environ["SERVER_PORT"] = port or "80"

    def _send_reply(self, request: RequestLine, fields: Environ, reply: Reply, keep: bool) -> None:
        """A file, or what there is to say of it."""
        head = b"".join((reply.head, self.loop.common, connection_field(request.protocol, keep), b"\r\n"))
        if reply.file is None:
            self.respond(head + reply.body, keep)
        else:
            self.state = SEND
            self.send_file(head, reply.file, reply.offset, reply.count, keep)
        if self.is_logged:
            self._log(request, fields, reply.status, len(reply.body) + reply.count)

    def _answer_itself(self, request: RequestLine, fields: Environ, keep: bool) -> None:
        """OPTIONS * (204 with Allow), and a path outside of script_name (404)."""
        common = self.loop.common + connection_field(request.protocol, keep)
        if request.path == "*":
            allow = ALLOW_FILES if self.service.leader is None else ALLOW_ALL
            status, response = 204, b"".join((r.STATUS_LINES[204], allow, common, b"\r\n"))
        else:
            status, response = 404, r.insert_fields(r.build_error(404, request.method), common)
        self.respond(response, keep)
        if self.is_logged:
            self._log(request, fields, status, len(response) - response.index(b"\r\n\r\n") - 4)

    def refuse(self, error: HTTPError, method: str) -> None:
        """One response that says no more than the status, then a lingering close. Logged, never echoed."""
        self.service.log_limited(f"refused {error.status}", f"{self.name} refused with {error.status}: {error}")
        page = r.build_error(error.status, method)
        self.respond(r.insert_fields(page, self.loop.common + r.CLOSE), False)

    # --- access log -------------------------------------------------------------------------------------------------

    def log_access(self, environ: Environ, status: int, size: int) -> None:
        """One response of the application is done; size: bytes of content."""
        log = self.service.access_log
        if log is not None:
            log.add(
                environ["REMOTE_ADDR"],
                environ["REQUEST_METHOD"],
                environ["RAW_URI"],
                environ["SERVER_PROTOCOL"],
                status,
                size,
                monotonic() - self._started_at,
                environ.get("HTTP_REFERER", ""),
                environ.get("HTTP_USER_AGENT", ""),
            )

    def _log(self, request: RequestLine, fields: Environ, status: int, size: int) -> None:
        """One response of the server's own is done."""
        keys = {"REMOTE_ADDR": self.peer[0], "REQUEST_METHOD": request.method, "RAW_URI": request.target}
        self.log_access({**fields, **keys, "SERVER_PROTOCOL": request.protocol}, status, size)

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
