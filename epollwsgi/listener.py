"""Listening sockets: opened from settings, with errors that name the address, kept over reloads, and closed softly.

Called by the master (`cli`, `process`) before the application is loaded; workers share what it opens.  Accepting is
the acceptor's.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from epollwsgi.config.values import Bind, FDBind, TCPBind, UnixBind
from epollwsgi.errors import ConfigError

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings

SO_FILTER = 26  # SO_ATTACH_FILTER, and SO_GET_FILTER to read it. socket(7)
# Drops a segment with SYN and without ACK: (code, jump if true, jump if false, operand), linux/filter.h. The filter of
# a TCP socket sees a segment from its header on, and the flags are its 14th byte, RFC 9293 section 3.1.
NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # load the byte 13
    (0x54, 0, 0, 0x12),  # of it ACK and SYN
    (0x15, 1, 0, 0x02),  # SYN alone?
    (0x06, 0, 0, 0xFFFFFFFF),  # no: take the segment
    (0x06, 0, 0, 0),  # yes: drop it
)
FILTER = b"".join(struct.pack("HBBI", *instruction) for instruction in NO_NEW_CONNECTIONS)
# Newer kernels let only CAP_NET_ADMIN attach a filter to a TCP socket. Anybody may ask that a segment come with the
# full count of hops, though: systems send with 64 or 128. A listener ignores others, but not the end of a handshake
# that has begun; the connection that comes of it inherits the wish. IP_MINTTL of ip(7), IPV6_MINHOPCOUNT of in6.h.
# [::] may take IPv4 as well, and needs both.
LEAST_HOPS_IPV4 = (socket.IPPROTO_IP, 21)
LEAST_HOPS = {socket.AF_INET: (LEAST_HOPS_IPV4,), socket.AF_INET6: ((socket.IPPROTO_IPV6, 73), LEAST_HOPS_IPV4)}
MOST_HOPS = 255

Own = Callable[[str], None]


class Listener:
    """One listening socket. `str()` is its address as a client would write it.

    key: what a reload finds it by, `key_of` of the bind it was opened for.  unlink_path: of a unix socket that
    the server made itself; it stays until `unlink`, because each worker closes its listeners too.
    inode: of that path; 0: as it is now.
    """

    def __init__(self, sock: socket.socket, key: str = "", unlink_path: str = "", inode: int = 0) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.key = key
        self.unlink_path = os.path.abspath(unlink_path) if unlink_path else ""
        self.inode = inode or inode_of(self.unlink_path)

    @classmethod
    def adopt(cls, fd: int, key: str, unlink_path: str = "", inode: int = 0) -> Listener:
        """A listener that was inherited open; the descriptor is its own from now on.

        Raises OSError where it is no stream socket.
        """
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise OSError(88, "Socket operation on non-socket")
        sock = socket.socket(fileno=fd)
        if sock.type != socket.SOCK_STREAM:
            sock.detach()
            raise OSError(22, "not a stream socket")
        sock.set_inheritable(False)
        sock.setblocking(False)
        return cls(sock, key, unlink_path, inode)

    @property
    def is_unix(self) -> bool:
        """True for a unix socket."""
        return self.sock.family == socket.AF_UNIX

    @property
    def is_lost(self) -> bool:
        """True for a unix socket whose path somebody removed or replaced: no client finds it any more."""
        return bool(self.unlink_path) and inode_of(self.unlink_path) != self.inode

    def __str__(self) -> str:
        name = self.sock.getsockname()
        if self.is_unix:
            return f"unix:@{name[1:].decode()}" if isinstance(name, bytes) else f"unix:{name}"
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"http://{host}:{name[1]}"

    @property
    def is_foreign(self) -> bool:
        """True for a socket that somebody else opened, and listens at when this server is gone."""
        return self.key.startswith("fd://")

    def close(self) -> None:
        """Close it in this process."""
        self.sock.close()

    def shut(self) -> None:
        """For good, in the master: no new connection comes; those that wait are left to the workers."""
        if not self.is_foreign:
            refuse_connections(self.sock)
        self.unlink()
        self.close()

    def unlink(self) -> None:
        """Remove its path, if that still is this socket: for the master, at the final stop."""
        path, self.unlink_path = self.unlink_path, ""
        if path and inode_of(path) == self.inode:
            with suppress(OSError):
                os.unlink(path)


def inode_of(path: str) -> int:
    """The inode of a socket; 0 where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_ino if stat.S_ISSOCK(found.st_mode) else 0


def key_of(bind: Bind) -> str:
    """What makes two binds the same listener: the address, for a unix socket the whole path."""
    if isinstance(bind, UnixBind):
        return f"unix:{bind.path if bind.is_abstract else os.path.abspath(bind.path)}"
    return str(bind)


def by_key(listeners: Iterable[Listener]) -> dict[str, list[Listener]]:
    """Listeners as `open_listeners` takes those of the generation before."""
    found: dict[str, list[Listener]] = {}
    for listener in listeners:
        found.setdefault(listener.key, []).append(listener)
    return found


# --- opening --------------------------------------------------------------------------------------------------------


def open_listeners(
    settings: Settings, kept: Mapping[str, Sequence[Listener]] | None = None, own: Own | None = None
) -> list[Listener]:
    """A listener for each address of `bind`. Raises ConfigError, naming the address, with the system's own words.

    kept: listeners that are open already, by their keys; one that is still wanted is taken instead of a new one.
    own: makes the path of a unix socket the workers' property.
    """
    listeners: list[Listener] = []
    opened: list[Listener] = []
    kept = kept or {}
    try:
        for bind in settings.bind:
            old = kept.get(key_of(bind))
            if old is None or old[0].is_lost:
                new = _open(bind, settings, own)
                opened += new
                listeners += new
            elif old[0] not in listeners:
                _adjust(old, bind, settings, own)
                listeners += old
    except BaseException:
        for listener in opened:
            listener.unlink()
            listener.close()
        raise
    return listeners


def _adjust(listeners: Sequence[Listener], bind: Bind, settings: Settings, own: Own | None) -> None:
    """Give listeners that are kept what the settings say by now."""
    try:
        for listener in listeners:
            listener.sock.listen(settings.backlog)
        if isinstance(bind, UnixBind) and listeners[0].unlink_path:
            _set_rights(bind, own)
    except OSError as error:
        raise ConfigError(f"cannot go on listening at {bind}: {error.strerror or error}") from None


def _open(bind: Bind, settings: Settings, own: Own | None) -> list[Listener]:
    try:
        if isinstance(bind, UnixBind):
            return [_open_unix(bind, settings.backlog, own)]
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
            listeners.append(Listener(sock, key_of(bind)))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not _is_for_both(bind, settings))
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


def _is_for_both(bind: TCPBind, settings: Settings) -> bool:
    """Whether [::] takes IPv4 too, as it does in gunicorn: unless another address of that port is named. ipv6(7)."""
    same_port = [other for other in settings.bind if isinstance(other, TCPBind) and other.port == bind.port]
    return bind.host == "::" and (bind.port == 0 or len(same_port) == 1)


def _open_unix(bind: UnixBind, backlog: int, own: Own | None) -> Listener:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener = Listener(sock, key_of(bind))
    try:
        if bind.is_abstract:
            sock.bind("\0" + bind.path[1:])
        else:
            _remove_stale(bind.path)
            if bind.mode is not None:  # the path has it, less the umask, from its first moment
                os.fchmod(sock.fileno(), bind.mode)
            sock.bind(bind.path)
            listener = Listener(sock, key_of(bind), bind.path)
            _set_rights(bind, own)
        sock.setblocking(False)
        sock.listen(backlog)
    except BaseException:
        listener.unlink()
        listener.close()
        raise
    return listener


def _set_rights(bind: UnixBind, own: Own | None) -> None:
    if own is not None:
        own(bind.path)
    if bind.mode is not None:
        os.chmod(bind.path, bind.mode)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens at. Raises OSError: a file of another kind, or a living server, stays."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(17, "File exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a living server with a full backlog would let this wait
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise OSError(98, "Address already in use")


def _open_fd(bind: FDBind, backlog: int) -> Listener:
    fd = os.dup(bind.fd)
    try:
        listener = Listener.adopt(fd, key_of(bind))
    except OSError:
        os.close(fd)
        raise
    listener.sock.listen(backlog)
    return listener


# --- closing softly -------------------------------------------------------------------------------------------------

_getsockopt = ctypes.CDLL(None, use_errno=True).getsockopt
_getsockopt.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_getsockopt.restype = ctypes.c_int


def refuse_connections(sock: socket.socket) -> bool:
    """From now on the system ignores attempts to connect; handshakes under way are completed. OPERATIONS.md 6.1.

    It holds in every process that shares the socket; each that accepts calls `admit`.  False where it cannot be done:
    not TCP, or a sandbox.
    """
    if sock.family not in LEAST_HOPS or sock.proto not in (0, socket.IPPROTO_TCP):
        return False
    return attach_filter(sock) or ask_for_hops(sock, MOST_HOPS)


def is_closing(sock: socket.socket) -> bool:
    """True once `refuse_connections` was called for this socket, in whichever process."""
    return has_filter(sock) or has_hops(sock, MOST_HOPS)


def admit(sock: socket.socket) -> None:
    """A connection may have inherited what keeps others out of a listener that is closing: it is free of that now.

    What the client has sent meanwhile was ignored, and comes again by itself.
    """
    if has_hops(sock, MOST_HOPS):
        ask_for_hops(sock, 0)


def attach_filter(sock: socket.socket) -> bool:
    """Ignore attempts to connect by a filter; False where the system refuses it."""
    program = ctypes.create_string_buffer(FILTER, len(FILTER))
    option = struct.pack("HP", len(NO_NEW_CONNECTIONS), ctypes.addressof(program))  # struct sock_fprog
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_FILTER, option)
    except OSError:
        return False
    return True


def has_filter(sock: socket.socket) -> bool:
    """True if a socket has the filter, and no other.

    Not by socket.getsockopt: the kernel counts instructions where that counts bytes, and would write past its end.
    """
    count = ctypes.c_uint32(0)  # 0 asks for their number alone
    if _getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_FILTER, None, ctypes.byref(count)) != 0:
        return False
    if count.value != len(NO_NEW_CONNECTIONS):
        return False
    program = ctypes.create_string_buffer(len(FILTER))
    status = _getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_FILTER, program, ctypes.byref(count))
    return status == 0 and program.raw == FILTER


def ask_for_hops(sock: socket.socket, count: int) -> bool:
    """Ignore segments that may not be sent on so many times any more; False where the system refuses it."""
    try:
        for option in LEAST_HOPS[sock.family]:
            sock.setsockopt(*option, count)
    except (OSError, KeyError):
        return False
    return True


def has_hops(sock: socket.socket, count: int) -> bool:
    """True if a socket asks for so many hops."""
    try:
        return all(sock.getsockopt(*option) == count for option in LEAST_HOPS[sock.family])
    except (OSError, KeyError):
        return False
