"""Listening sockets: opened from settings, with errors that name the address; the acceptor is in `connection`.

Called by `cli` before the application is loaded.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from epollwsgi.config.values import Bind, FDBind, TCPBind, UnixBind
from epollwsgi.errors import ConfigError

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings


class Listener:
    """One listening socket. `str()` is its address as a client would write it."""

    def __init__(self, sock: socket.socket, unlink_path: str = "") -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self._unlink_path = unlink_path
        self._inode = os.stat(unlink_path).st_ino if unlink_path else 0

    @property
    def is_unix(self) -> bool:
        """True for a unix socket."""
        return self.sock.family == socket.AF_UNIX

    def __str__(self) -> str:
        name = self.sock.getsockname()
        if self.is_unix:
            return f"unix:@{name[1:].decode()}" if isinstance(name, bytes) else f"unix:{name}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"http://{host}:{name[1]}"

    def close(self) -> None:
        """Close it and remove its path, if that still is this socket."""
        self.sock.close()
        if self._unlink_path:
            try:
                if os.stat(self._unlink_path).st_ino == self._inode:
                    os.unlink(self._unlink_path)
            except OSError:
                pass  # somebody else removed or replaced it


def open_listeners(settings: Settings) -> list[Listener]:
    """A listener for each address of `bind`. Raises ConfigError, naming the address, with the system's own words."""
    listeners: list[Listener] = []
    try:
        for bind in settings.bind:
            listeners += _open(bind, settings)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _open(bind: Bind, settings: Settings) -> list[Listener]:
    try:
        if isinstance(bind, UnixBind):
            return [_open_unix(bind, settings.backlog)]
        if isinstance(bind, FDBind):
            return [_open_fd(bind, settings.backlog)]
        return _open_tcp(bind, settings)
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError) and isinstance(bind, TCPBind) and bind.port < 1024:
            hint = " (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
        raise ConfigError(f"cannot listen at {bind}: {error.strerror or error}{hint}") from None


def _open_tcp(bind: TCPBind, settings: Settings) -> list[Listener]:
    """One listener for each address that the host has; the same port for all where the system chose it."""
    found = socket.getaddrinfo(bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[Listener] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            listeners.append(Listener(sock))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Accepted sockets inherit it: responses are whole when they are sent.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            port = listeners[0].sock.getsockname()[1] or bind.port
            sock.bind((address[0], port, *address[2:]))
            sock.setblocking(False)
            sock.listen(settings.backlog)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _open_unix(bind: UnixBind, backlog: int) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if bind.path.startswith("@"):
            sock.bind("\0" + bind.path[1:])
        else:
            _remove_stale(bind.path)
            sock.bind(bind.path)
        sock.setblocking(False)
        sock.listen(backlog)
        return Listener(sock, "" if bind.path.startswith("@") else bind.path)
    except BaseException:
        sock.close()
        raise


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens at. Raises OSError: a file of another kind, or a living server, stays."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(17, "File exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(98, "Address already in use")


def _open_fd(bind: FDBind, backlog: int) -> Listener:
    sock = socket.socket(fileno=os.dup(bind.fd))
    if sock.type != socket.SOCK_STREAM:
        sock.close()
        raise OSError(22, "not a stream socket")
    sock.setblocking(False)
    sock.listen(backlog)
    return Listener(sock)
