"""One request of the server's own: `ready_path` must answer before the first client may ask.

It goes the way of every request, through a connection that is half of a socket pair; `process.worker` makes it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from epollwsgi.connection import Connection
from epollwsgi.loop import IN
from epollwsgi.service import Service

STATUS_LINE_SIZE = len(b"HTTP/1.1 200 ")


class Probe:
    """GET `path`; on_done is called once, with '' if it was answered below 400, else with what is wrong."""

    def __init__(self, service: Service, path: str, on_done: Callable[[str], None]) -> None:
        self._service = service
        self._path = path
        self._on_done = on_done
        self._answer = b""
        self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        theirs.setblocking(False)
        self.fd = self.sock.fileno()
        connection = Connection(service, theirs, ("", ""), service.template_for(None))
        service.connections.add(connection)
        service.loop.add_client(connection)
        service.loop.handlers[self.fd] = self
        service.loop.epoll.register(self.fd, IN)
        target = path.encode("utf-8")
        self.sock.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target)

    def on_event(self, mask: int) -> None:
        """A part of the answer; its status line is enough."""
        data = self.sock.recv(65536)
        self._answer += data
        if data and len(self._answer) < STATUS_LINE_SIZE:
            return
        self._service.loop.handlers.pop(self.fd)
        self._service.loop.epoll.unregister(self.fd)
        self.sock.close()
        status = self._answer[9:12].decode("ascii")
        problem = "" if status and int(status) < 400 else f"was answered with {status or 'nothing'}"
        self._on_done(problem and f"ready_path = {self._path!r} {problem}")
