"""Listeners: modes and owners of unix sockets, those that are kept and inherited, and refusing new connections."""

from __future__ import annotations

import ctypes
import errno
import grp
import json
import os
import pwd
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.config import values as v
from epollwsgi.config.settings import Settings
from epollwsgi.errors import ConfigError
from epollwsgi.listener import (
    FILTER,
    MOST_HOPS,
    NO_NEW_CONNECTIONS,
    SO_FILTER,
    Listener,
    admit,
    ask_for_hops,
    attach_filter,
    by_key,
    has_filter,
    has_hops,
    is_closing,
    key_of,
    open_listeners,
    refuse_connections,
)
from tests.process.fleet import FleetFactory
from tests.process.load import Load, soak_rounds
from tests.process.test_acceptor import GET, Bench
from tests.support import clean_environment, wait_until

# States of a TCP socket as tcp_info begins with them, netinet/tcp.h.
TCP_ESTABLISHED, TCP_SYN_SENT = 1, 2
LOOPBACK = v.TCPBind("127.0.0.1", 0)
LOOPBACKS = ["127.0.0.1", "::1"]
Refuse = Callable[[socket.socket], bool]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short name: the path of a unix socket has room for 107 bytes only."""
    made = Path(tempfile.mkdtemp(prefix="ew"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def opened() -> Iterator[list[Listener]]:
    """What a test opens and puts in here is closed."""
    listeners: list[Listener] = []
    yield listeners
    for listener in listeners:
        listener.unlink()
        listener.close()


def open_one(opened: list[Listener], bind: v.Bind, **more: Any) -> Listener:
    made = open_listeners(Settings(bind=(bind,)), **more)
    opened += made
    return made[0]


def run(code: str, *arguments: str | int | Path, pass_fds: tuple[int, ...] = ()) -> str:
    """What a child prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        pass_fds=pass_fds,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- unix sockets ---------------------------------------------------------------------------------------------------

MODES = [("unix:/a/b?mode=660", 0o660), ("unix:/a/b?mode=0600", 0o600), ("unix:///a/b?mode=000", 0)]


@pytest.mark.parametrize(("text", "mode"), MODES)
def test_mode_is_read_and_shown(text: str, mode: int) -> None:
    found = v.bind(text)
    assert found == v.UnixBind("/a/b", mode)
    assert v.bind(str(found)) == found


@pytest.mark.parametrize(
    "query", ["", "mode=", "mode=8", "mode=66", "mode=888", "mode=1777", "mod=660", "mode=660x", "660"]
)
def test_bad_mode_is_refused_with_what_is_allowed(query: str) -> None:
    with pytest.raises(ValueError, match=r"\?mode= with three octal digits is allowed"):
        v.bind(f"unix:/a/b?{query}")
    with pytest.raises(ValueError, match=r"mode"):
        v.bind(f"unix:@a?{query or 'mode=660'}")


MAKE_SOCKETS = """
import os, stat, sys
from epollwsgi.config.settings import Settings
from epollwsgi.config.values import bind
from epollwsgi.listener import open_listeners

os.chdir(sys.argv[1])
os.umask(0o027)
for listener in open_listeners(Settings(bind=tuple(map(bind, sys.argv[2:])))):
    print(oct(stat.S_IMODE(os.stat(listener.unlink_path).st_mode)))
    listener.unlink()
    listener.close()
print(os.listdir())
"""


def test_mode_is_0777_less_the_umask_unless_given(directory: Path) -> None:
    printed = run(MAKE_SOCKETS, directory, "unix:a", "unix:b?mode=666", "unix:c?mode=600")
    assert printed.splitlines() == ["0o750", "0o666", "0o600", "[]"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_socket_is_given_to_the_workers(directory: Path, opened: list[Listener]) -> None:
    from epollwsgi.process.privileges import Identity

    user, group = pwd.getpwnam("nobody"), grp.getgrnam("daemon")
    identity = Identity("nobody", user.pw_uid, group.gr_gid)
    modes = []

    def own(path: str) -> None:
        modes.append(stat.S_IMODE(os.stat(path).st_mode) & 0o177)
        identity.own(path)

    open_one(opened, v.UnixBind(f"{directory}/s", 0o600), own=own)
    assert modes == [0], "it is never wider than asked for, not for a moment"
    found = os.stat(directory / "s")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (user.pw_uid, group.gr_gid, 0o600)


def test_closing_leaves_the_path_and_unlinking_removes_it(directory: Path, opened: list[Listener]) -> None:
    listener = open_one(opened, v.UnixBind(f"{directory}/s"))
    listener.close()
    assert (directory / "s").is_socket()
    listener.unlink()
    assert not (directory / "s").exists()


def test_path_that_was_replaced_is_not_removed(directory: Path, opened: list[Listener]) -> None:
    first = open_one(opened, v.UnixBind(f"{directory}/s"))
    os.rename(directory / "s", directory / "old")
    second = open_one(opened, v.UnixBind(f"{directory}/s"))
    first.unlink()
    assert (directory / "s").is_socket()
    second.unlink()
    (directory / "s").write_text("a file by now")
    second.unlink()
    assert (directory / "s").read_text() == "a file by now"


def test_living_server_with_a_full_backlog_is_not_waited_for(directory: Path) -> None:
    """Its backlog takes no more, so a blocking probe would hang."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{directory}/s")
        server.listen(0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{directory}/s")
            with pytest.raises(ConfigError, match=r"cannot listen at unix:.*Address already in use"):
                open_listeners(Settings(bind=(v.UnixBind(f"{directory}/s"),)))
    assert (directory / "s").is_socket()
    for listener in open_listeners(Settings(bind=(v.UnixBind(f"{directory}/s"),))):  # nobody listens any more
        listener.unlink()
        listener.close()


def test_what_was_opened_is_given_back_when_a_later_address_fails(directory: Path) -> None:
    binds = (v.UnixBind(f"{directory}/s"), v.UnixBind(f"{directory}/missing/s"))
    with pytest.raises(ConfigError, match=r"cannot listen at unix:.*missing/s: No such file or directory"):
        open_listeners(Settings(bind=binds))
    assert os.listdir(directory) == []


def test_abstract_socket_has_no_path(opened: list[Listener]) -> None:
    name = f"@epollwsgi-test-{os.getpid()}"
    listener = open_one(opened, v.UnixBind(name))
    assert str(listener) == f"unix:{name}"
    assert (listener.unlink_path, listener.key, listener.is_lost) == ("", f"unix:{name}", False)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + name[1:])


# --- kept over a reload ---------------------------------------------------------------------------------------------


def test_reload_keeps_what_is_still_wanted(directory: Path, opened: list[Listener]) -> None:
    binds = (LOOPBACK, v.UnixBind(f"{directory}/a"), v.UnixBind(f"{directory}/b"))
    first = open_listeners(Settings(bind=binds))
    opened += first
    new = v.UnixBind(f"{directory}/new")
    second = open_listeners(Settings(bind=(new, v.UnixBind(f"{directory}/a"), LOOPBACK), backlog=5), by_key(first))
    opened += [one for one in second if one not in first]
    assert second[1:] == [first[1], first[0]]
    assert str(second[0]) == f"unix:{directory}/new"
    assert len(second) == 3
    # Of a listening socket the eighth word of tcp_info is its backlog.
    assert struct.unpack_from("I", first[0].sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32), 28) == (5,)


def test_key_is_the_address_without_the_mode(
    directory: Path, opened: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unix socket is known by its whole path, so that a flipped release directory gets its own."""
    first = open_one(opened, v.UnixBind(f"{directory}/s", 0o600))
    assert open_listeners(Settings(bind=(v.UnixBind(f"{directory}/s", 0o660),)), by_key([first])) == [first]
    assert stat.S_IMODE(os.stat(directory / "s").st_mode) == 0o660
    assert open_listeners(Settings(bind=(v.UnixBind(f"{directory}/s"),)), by_key([first])) == [first]
    assert stat.S_IMODE(os.stat(directory / "s").st_mode) == 0o660, "none is given: it stays as it is"
    monkeypatch.chdir(directory)
    assert key_of(v.UnixBind("s")) == first.key
    assert key_of(v.UnixBind("other")) != first.key


def test_address_that_stands_twice_is_kept_once(opened: list[Listener]) -> None:
    first = open_listeners(Settings(bind=(LOOPBACK, LOOPBACK)))
    opened += first
    assert len({one.fd for one in first}) == 2
    assert open_listeners(Settings(bind=(LOOPBACK, LOOPBACK)), by_key(first)) == first


def test_socket_whose_path_is_gone_is_opened_anew(directory: Path, opened: list[Listener]) -> None:
    first = open_one(opened, v.UnixBind(f"{directory}/s"))
    found = [first.is_lost]
    os.unlink(directory / "s")
    assert [*found, first.is_lost] == [False, True]
    second = open_one(opened, v.UnixBind(f"{directory}/s"), kept=by_key([first]))
    assert second is not first
    first.unlink()
    assert (directory / "s").is_socket()


def test_failed_reload_closes_only_what_is_new(directory: Path, opened: list[Listener]) -> None:
    first = open_one(opened, v.UnixBind(f"{directory}/a"))
    binds = (v.UnixBind(f"{directory}/a"), v.UnixBind(f"{directory}/b"), v.UnixBind(f"{directory}/missing/s"))
    with pytest.raises(ConfigError, match="missing"):
        open_listeners(Settings(bind=binds), by_key([first]))
    assert os.listdir(directory) == ["a"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{directory}/a")


# --- inherited ------------------------------------------------------------------------------------------------------

ADOPT = """
import json, os, sys
from epollwsgi.listener import Listener

one = Listener.adopt(**json.loads(sys.argv[1]))
print(one, one.key, os.get_inheritable(one.fd), one.sock.getblocking(), one.is_lost, flush=True)
one.unlink()
one.close()
"""


def test_listener_goes_through_an_exec(directory: Path, opened: list[Listener]) -> None:
    listener = open_one(opened, v.UnixBind(f"{directory}/s"))
    state = {"fd": listener.fd, "key": listener.key, "unlink_path": listener.unlink_path, "inode": listener.inode}
    printed = run(ADOPT, json.dumps(state), pass_fds=(listener.fd,))
    assert printed == f"unix:{directory}/s unix:{directory}/s False False False"
    assert not (directory / "s").exists()


def test_adopted_listener_does_not_remove_the_socket_of_another(directory: Path, opened: list[Listener]) -> None:
    first = open_one(opened, v.UnixBind(f"{directory}/s"))
    os.rename(directory / "s", directory / "old")
    open_one(opened, v.UnixBind(f"{directory}/s"))
    adopted = Listener.adopt(os.dup(first.fd), first.key, first.unlink_path, first.inode)
    opened.append(adopted)
    assert adopted.is_lost
    adopted.unlink()
    assert (directory / "s").is_socket()


def test_what_is_no_stream_socket_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        for fd, words in ((file.fileno(), "non-socket"), (datagrams.fileno(), "not a stream socket"), (999_999, "Bad")):
            with pytest.raises(ConfigError, match=rf"cannot listen at fd://{fd}: .*{words}"):
                open_listeners(Settings(bind=(v.FDBind(fd),)))
            with pytest.raises(OSError, match=words):
                Listener.adopt(fd, "")
        os.fstat(file.fileno())  # still theirs
        datagrams.getsockname()


def test_socket_of_somebody_else_goes_on_when_it_is_shut(opened: list[Listener]) -> None:
    """Whoever opened it, such as systemd, has it for the next server too: no filter may stay on it."""
    with socket.create_server(("127.0.0.1", 0)) as outer:
        foreign = open_one(opened, v.FDBind(outer.fileno()))
        assert foreign.is_foreign
        foreign.shut()
        assert not is_closing(outer)
        with socket.create_connection(outer.getsockname(), timeout=10):
            outer.accept()[0].close()


@pytest.mark.parametrize("is_tcp", [True, False])
def test_shut_leaves_those_who_wait_to_the_workers(is_tcp: bool, directory: Path, opened: list[Listener]) -> None:
    listener = open_one(opened, LOOPBACK if is_tcp else v.UnixBind(f"{directory}/s"))
    worker = Listener.adopt(os.dup(listener.fd), listener.key)
    opened.append(worker)
    with socket.socket(listener.sock.family) as waiting:
        waiting.connect(listener.sock.getsockname())
        listener.shut()
        assert is_closing(worker.sock) == is_tcp
        wait_until(lambda: accept(worker), what="who waited")[0].close()
    assert os.listdir(directory) == []


# --- refusing new connections ---------------------------------------------------------------------------------------


def tcp_state(sock: socket.socket) -> int:
    """The state that the system has the connection in."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def ask_for_most_hops(sock: socket.socket) -> bool:
    return ask_for_hops(sock, MOST_HOPS)


WAYS: dict[str, Refuse] = {"filter": attach_filter, "hops": ask_for_most_hops}


@pytest.fixture(params=LOOPBACKS)
def listener(request: pytest.FixtureRequest, opened: list[Listener]) -> Listener:
    """A TCP listener, of each family."""
    try:
        return open_one(opened, v.TCPBind(request.param, 0))
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(params=WAYS)
def refuse(request: pytest.FixtureRequest) -> Refuse:
    """Each way to refuse connections; the filter is for root, or whoever has CAP_NET_ADMIN, on newer kernels."""
    way = WAYS[request.param]
    with socket.socket() as probe:
        if not way(probe):
            pytest.skip("this system lets nobody but CAP_NET_ADMIN attach a filter")
    return way


def connecting(listener: Listener) -> socket.socket:
    """A client that has begun to connect; on the loopback the whole handshake happens within."""
    client = socket.socket(listener.sock.family)
    client.setblocking(False)
    assert client.connect_ex(listener.sock.getsockname()[:2]) in (0, errno.EINPROGRESS)
    return client


def test_nobody_new_is_let_in_and_those_who_wait_are(listener: Listener, refuse: Refuse) -> None:
    address = listener.sock.getsockname()[:2]
    assert not is_closing(listener.sock)
    with closing(connecting(listener)) as waiting:
        wait_until(lambda: tcp_state(waiting) == TCP_ESTABLISHED, what="a handshake")
        assert refuse(listener.sock)
        assert is_closing(listener.sock)
        with closing(connecting(listener)) as late:
            served, _ = wait_until(lambda: accept(listener), what="who waited in the backlog")
            with served:
                served.setblocking(True)
                served.settimeout(10)
                waiting.send(b"question")  # segments without SYN pass
                assert served.recv(100) == b"question"
                served.send(b"answer")
                assert wait_until(lambda: receive(waiting)) == b"answer"
            assert accept(listener) is None
            assert tcp_state(late) == TCP_SYN_SENT, "its attempt is not answered, as on a network that lost it"
            listener.close()
            # Its next try meets a closed port.
            wait_until(lambda: late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED, 30)
    with socket.socket(late.family) as refused, pytest.raises(ConnectionRefusedError):
        refused.connect(address)


def accept(listener: Listener) -> tuple[socket.socket, object] | None:
    try:
        return listener.sock.accept()
    except BlockingIOError:
        return None


def receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(100)
    except BlockingIOError:
        return b""


def test_handshake_under_way_is_completed(listener: Listener, refuse: Refuse) -> None:
    """With TCP_DEFER_ACCEPT a handshake is complete for the server only when data has come."""
    listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    with closing(connecting(listener)) as client:
        wait_until(lambda: tcp_state(client) == TCP_ESTABLISHED, what="the client's half of the handshake")
        assert accept(listener) is None
        assert refuse(listener.sock)
        client.send(b"first")
        served, _ = wait_until(lambda: accept(listener), what="the rest of the handshake")
        with served:
            served.setblocking(False)
            client.send(b"second")
            admit(served)
            assert not has_hops(served, MOST_HOPS)
            received = b""
            while len(received) < 11:
                received += wait_until(lambda: receive(served), what="what was sent before it was admitted")
            assert received == b"firstsecond"


@pytest.mark.parametrize("is_known", [True, False])
def test_worker_hears_who_was_let_in_last(is_known: bool, tmp_path: Path) -> None:
    """It was accepted before the worker heard of the stop, or after it."""
    bench = Bench(tmp_path, None)
    try:
        bench.listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
        (client,) = bench.connect()
        assert ask_for_hops(bench.listener.sock, MOST_HOPS)
        client.send(GET[:10])  # which ends the handshake
        if is_known:
            bench.turn_until(lambda: bench.count() == 1, "the connection")
        client.send(GET[10:])  # ignored
        bench.acceptor.empty_backlog()
        client.setblocking(False)
        bench.turn_until(lambda: receive(client).startswith(b"HTTP/1.1 200 OK\r\n"), "the response")
    finally:
        bench.close()


def test_admitting_changes_nothing_else(directory: Path, opened: list[Listener], listener: Listener) -> None:
    """Neither a connection with a wish of its own, nor a unix socket, nor one that is closed."""
    with closing(connecting(listener)) as client:
        assert ask_for_hops(client, 10)
        admit(client)
        assert has_hops(client, 10)
    admit(client)
    admit(open_one(opened, v.UnixBind(f"{directory}/s")).sock)


LOOK = """
import socket, sys
from epollwsgi.listener import is_closing, refuse_connections

with socket.socket(fileno=int(sys.argv[1])) as sock:
    print(is_closing(sock))
    if sys.argv[2:]:
        print(refuse_connections(sock))
"""


def test_it_holds_in_every_process_that_shares_the_socket(listener: Listener) -> None:
    assert run(LOOK, listener.fd, pass_fds=(listener.fd,)) == "False"
    assert run(LOOK, listener.fd, "refuse", pass_fds=(listener.fd,)) == "False\nTrue"
    assert is_closing(listener.sock)
    assert refuse_connections(listener.sock), "once more does no harm"
    assert run(LOOK, listener.fd, pass_fds=(listener.fd,)) == "True"


def test_only_our_own_filter_counts(listener: Listener) -> None:
    """Filters of others, shorter, as long, and longer than what is read of one."""
    if not attach_filter(listener.sock):
        pytest.skip("this system lets nobody but CAP_NET_ADMIN attach a filter")
    assert has_filter(listener.sock)
    for count in (1, 5, 4096):
        program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF) * count, 8 * count)
        option = struct.pack("HP", count, ctypes.addressof(program))
        listener.sock.setsockopt(socket.SOL_SOCKET, SO_FILTER, option)
        assert not has_filter(listener.sock)


FLAGS = [
    (0x02, False, "SYN"),
    (0xC2, False, "SYN with ECN"),
    (0x12, True, "SYN and ACK"),
    (0x52, True, "SYN and ACK with ECN"),
    (0x10, True, "ACK"),
    (0x18, True, "PSH and ACK"),
    (0x11, True, "FIN and ACK"),
    (0x04, True, "RST"),
]


def test_filter_drops_what_begins_a_connection() -> None:
    """By the kernel itself: on a datagram socket the filter sees what was sent from its first byte."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setblocking(False)
        program = ctypes.create_string_buffer(FILTER, len(FILTER))
        option = struct.pack("HP", len(NO_NEW_CONNECTIONS), ctypes.addressof(program))
        receiver.setsockopt(socket.SOL_SOCKET, SO_FILTER, option)
        for flags, is_taken, name in FLAGS:
            sender.send(bytes(13) + bytes((flags,)) + bytes(6))
            assert bool(receive(receiver)) == is_taken, name


def test_what_is_not_tcp_is_left_alone(directory: Path, opened: list[Listener]) -> None:
    listener = open_one(opened, v.UnixBind(f"{directory}/s"))
    assert not refuse_connections(listener.sock)
    assert not is_closing(listener.sock)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{directory}/s")
        wait_until(lambda: accept(listener))[0].close()
    listener.close()
    assert not is_closing(listener.sock)


# Drops CAP_NET_ADMIN (12) from what an exec may give back, prctl(2) PR_CAPBSET_DROP, as containers do.
WITHOUT_NET_ADMIN = """\
#!{python}
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 12, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_server_without_the_right_to_filter_loses_nobody(start_fleet: FleetFactory, tmp_path: Path) -> None:
    """As in a container, or as an ordinary user, on a kernel that asks for CAP_NET_ADMIN."""
    python = tmp_path / "python"
    python.write_text(WITHOUT_NET_ADMIN.format(python=sys.executable))
    python.chmod(0o755)
    for _ in range(soak_rounds(3, 20)):
        fleet = start_fleet(workers=2, python=str(python))
        rights = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{fleet.server.pid}/status").read_text().splitlines()
        )
        assert not int(rights["CapEff"], 16) & 1 << 12
        with Load(fleet.address, fresh=24, pause_s=0.002) as load:
            load.wait_for_more(200)
            load.may_refuse = True
            assert fleet.stop() == 0
        assert "were cut at the end" not in fleet.log(), "who was let in last was heard"


@pytest.mark.parametrize("others", [(), ("0.0.0.0",), ("127.0.0.1",)], ids=["alone", "beside all", "beside one"])
def test_all_ipv6_addresses_are_those_of_ipv4_too(others: tuple[str, ...], opened: list[Listener]) -> None:
    """As in gunicorn, unless an IPv4 address of the same port is named as well."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binds = tuple(v.TCPBind(host, port) for host in ("::", *others))
    opened += open_listeners(Settings(bind=binds), by_key([]))
    for address in LOOPBACKS:
        socket.create_connection((address, port), 5).close()
    assert [listener.sock.getsockname()[1] for listener in opened] == [port] * len(binds)


@pytest.mark.parametrize("refuse", [attach_filter, lambda sock: ask_for_hops(sock, MOST_HOPS)], ids=["filter", "hops"])
def test_ipv4_is_kept_out_of_all_ipv6_addresses_too(refuse: Refuse, opened: list[Listener]) -> None:
    opened += open_listeners(Settings(bind=(v.TCPBind("::", 0),)))
    sock = opened[0].sock
    if not refuse(sock):
        pytest.skip("the system refuses this way")
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.connect(("127.0.0.1", sock.getsockname()[1]))
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_SYN_SENT
