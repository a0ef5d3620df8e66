"""Syslog: what arrives there, over every kind of socket, and that nobody waits for whoever does not take it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from epollwsgi.config.checks import check
from epollwsgi.config.destinations import (
    FACILITIES,
    STATSD_ALLOWED,
    SYSLOG_ALLOWED,
    Destination,
    parse_statsd,
    parse_syslog,
)
from epollwsgi.config.load import Loaded
from epollwsgi.config.settings import OPTIONS
from epollwsgi.errors import ConfigError
from epollwsgi.logs.syslog import Syslog, SyslogAccess, SyslogErrors, resolve
from epollwsgi.logs.writer import ITEM_SIZE, LINES_PER_ITEM, MOST_WAITING
from tests.logs.receivers import receiving
from tests.support import Client, ServerFactory, require_tool, wait_until

GET = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose path is short enough for a unix socket."""
    directory = Path(tempfile.mkdtemp(prefix="ew"))
    yield directory
    shutil.rmtree(directory)


# --- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["udp", "tcp", "dgram", "stream", "either"])
def test_both_logs_arrive(start_server: ServerFactory, place: Path, kind: str) -> None:
    receiver_kind = "stream" if kind == "either" else kind
    with receiving(receiver_kind, place / "log") as receiver:
        to = f"unix://{place}/log" + (f"#{kind}" if kind != "either" else "")
        if kind in ("udp", "tcp"):
            to = f"{kind}://localhost:{receiver.port}"
        server = start_server(
            "tests.apps.logged:app", "--log-syslog", "--log-syslog-to", to, "--log-syslog-facility", "local3"
        )
        with Client(server.address) as client:
            assert client.request(GET % b"/a%20b?c").status == 200
            assert client.request(GET % b"/fail").status == 500
        [first, _] = receiver.wait("] 127.0.0.1 - - [", 2)
        base = FACILITIES["local3"] * 8
        program = r"epollwsgi\.tests\.apps\.logged\.app"
        assert re.fullmatch(
            rf"<{base + 6}>{program}\.access: \[\d+\] 127\.0\.0\.1 - - \[[^]]+\] "
            r'"GET /a%20b\?c HTTP/1\.1" 200 2 "-" "-"',
            first,
        )
        [failure] = receiver.wait("the application failed")
        [raised] = receiver.wait("ValueError: failed on purpose")
        head = rf"<{base + 3}>{program}\.error: \[\d+\] "
        assert re.match(head + r"GET /fail \([0-9a-f-]+\): the application failed", failure)
        if receiver_kind in ("udp", "dgram"):
            assert failure is raised, "a datagram holds the whole event"
            assert "\nTraceback (most recent call last):\n" in failure
        else:
            assert re.fullmatch(head + "ValueError: failed on purpose", raised), "each line is a message of a stream"
        assert "the application failed" in server.stderr_text(), "errorlog has it too"
        assert server.stop() == 0
        receiver.wait("stopping: open requests are finished")
    assert server.stdout_text().count("127.0.0.1 - -") == 0, "nobody has asked for accesslog"


def test_priority_follows_the_level_and_names_follow_the_settings(start_server: ServerFactory) -> None:
    with receiving("udp") as receiver:
        options = ["--log-syslog", "--log-syslog-to", f"udp://127.0.0.1:{receiver.port}", "--log-level", "debug"]
        more = ["--log-syslog-prefix", "shop:1", "--disable-redirect-access-to-syslog", "-w", "2"]
        server = start_server("tests.apps.logged:app", *options, *more)
        with Client(server.address) as client:
            assert client.request(GET % b"/").status == 200
        assert server.stop() == 0
        receiver.wait("stopping")
        head = re.compile(r"<(\d+)>epollwsgi\.shop\.1\.error: \[\d+\] (.*)")
        parts = [found.groups() for message in receiver.messages if (found := head.match(message))]
        assert len(parts) == len(receiver.messages), receiver.messages
        ends = [text for priority, text in parts if "signal SIGTERM in process" in text and priority == "15"]
        assert len(set(ends)) == 2, "each worker, to the end"
        assert ("14", "stopping: open requests are finished") in parts
        assert not receiver.with_words("127.0.0.1 - -"), "disable_redirect_access_to_syslog"


RSYSLOG = """\
module(load="imudp") input(type="imudp" address="127.0.0.1" port="{udp}")
module(load="imtcp") input(type="imtcp" address="127.0.0.1" port="{tcp}")
module(load="imuxsock" SysSock.Use="off") input(type="imuxsock" Socket="{directory}/socket" CreatePath="on")
template(name="t" type="string" string="%inputname% %PRI% %programname%%msg%\\n")
*.* action(type="omfile" file="{directory}/out" template="t")
"""


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_rsyslog_understands_it(start_server: ServerFactory, place: Path) -> None:
    program = require_tool("rsyslogd", "rsyslog")
    ports = {"udp": free_port(socket.SOCK_DGRAM), "tcp": free_port(socket.SOCK_STREAM)}
    (place / "conf").write_text(RSYSLOG.format(directory=place, **ports))
    process = subprocess.Popen([program, "-n", "-f", str(place / "conf"), "-i", str(place / "pid")])
    try:
        wait_until(lambda: (place / "socket").exists() and is_bound(ports["udp"]) and is_listening(ports["tcp"]), 20)
        inputs = {
            "imudp": f"udp://127.0.0.1:{ports['udp']}",
            "imtcp": f"tcp://127.0.0.1:{ports['tcp']}",
            "imuxsock": f"unix://{place}/socket",
        }
        for to in inputs.values():
            server = start_server("tests.apps.logged:app", "--log-syslog", "--log-syslog-to", to, "-n", "shop")
            with Client(server.address) as client:
                assert client.request(GET % b"/fail").status == 500
            assert server.stop() == 0
        expected = [
            rf"^{name} {words}"
            for name in inputs
            for words in (
                r"11 epollwsgi\.shop\.error \[\d+\] GET /fail .*: the application failed",
                r'14 epollwsgi\.shop\.access \[\d+\] 127\.0\.0\.1 - - .* "GET /fail HTTP/1\.1" 500 ',
                r"14 epollwsgi\.shop\.error \[\d+\] stopping: open requests are finished$",
            )
        ]

        def missing() -> list[str]:
            text = (place / "out").read_text() if (place / "out").exists() else ""
            return [pattern for pattern in expected if not re.search(pattern, text, re.MULTILINE)]

        wait_until(lambda: not missing(), 20, f"{missing()} in {place / 'out'}")
    finally:
        process.terminate()
        process.wait(20)


def is_listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def is_bound(port: int) -> bool:
    """Whether somebody receives datagrams there. proc_net(5)"""
    return f" 0100007F:{port:04X} " in Path("/proc/net/udp").read_text()


# --- whoever does not take it ---------------------------------------------------------------------------------------


def test_nobody_waits_for_a_receiver_that_takes_nothing(start_server: ServerFactory, place: Path) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with sock:
        sock.bind(str(place / "log"))
        sock.listen(5)  # connections are made, and nobody reads
        server = start_server(
            "tests.apps.logged:app", "--log-syslog", "--log-syslog-to", f"unix://{place}/log#stream", "--threads", "2"
        )
        began_at = time.monotonic()
        with Client(server.address) as client:
            for _ in range(20):
                for _ in range(100):
                    client.send(GET % (b"/" + b"x" * 2000))
                for _ in range(100):
                    assert client.read_response().status == 200
        took_s = time.monotonic() - began_at
        assert server.stop() == 0, f"2000 requests took {took_s:g} s"


@pytest.mark.parametrize("kind", ["tcp", "dgram"])
def test_it_goes_on_when_there_is_a_receiver_again(start_server: ServerFactory, place: Path, kind: str) -> None:
    path = place / "log"
    with receiving(kind, path) as receiver:
        to = f"unix://{path}#dgram" if kind == "dgram" else f"tcp://127.0.0.1:{receiver.port}"
        port = receiver.port if kind == "tcp" else 0
        server = start_server("tests.apps.logged:app", "--log-syslog", "--log-syslog-to", to)
        with Client(server.address) as client:
            client.request(GET % b"/before")
        receiver.wait("/before")
    path.unlink(missing_ok=True)
    with Client(server.address) as client:
        for _ in range(3):
            assert client.request(GET % b"/meanwhile").status == 200
        with receiving(kind, path, port) as receiver:

            def arrives() -> bool:
                assert client.request(GET % b"/after").status == 200
                return bool(receiver.with_words("/after"))

            wait_until(arrives, 20, "syslog to work again")
            assert server.stop() == 0


def lost_count(syslog: Syslog) -> int:
    return syslog._writer.lost_count


@pytest.mark.parametrize("kind", ["stream", "dgram"])
def test_lost_messages_are_counted_and_reported(place: Path, kind: str) -> None:
    path = place / "log"
    reports: list[str] = []
    syslog = Syslog(resolve(Destination("unix", path=str(path), socket_type=kind)), 1, reports.append)
    access = SyslogAccess(syslog, "name")
    access.write_lines(["first"] * 100)
    assert syslog._writer.flush(10)
    assert lost_count(syslog) == 100
    access.write_lines(["second"] * 7)
    assert syslog._writer.flush(10)
    assert lost_count(syslog) == 107
    with receiving(kind, path) as receiver:

        def arrives() -> bool:
            access.write_lines(["third"])
            assert syslog._writer.flush(10)
            return not lost_count(syslog)

        wait_until(arrives, 20, "syslog to work again")
        receiver.wait("third")
    syslog.close()
    [report] = reports
    found = re.fullmatch("([0-9]+) lines for syslog were lost: No such file or directory", report)
    assert found, report
    assert int(found[1]) >= 107


def test_a_receiver_that_does_not_keep_up_costs_no_more_than_the_queue() -> None:
    syslog = Syslog([], 1, print)
    began, release = threading.Event(), threading.Event()

    def handle(item: object) -> tuple[int, str]:
        began.set()
        release.wait(20)
        return 0, ""

    syslog._writer._handle = handle
    access = SyslogAccess(syslog, "name")
    access.write_lines(["first"])
    assert began.wait(20)
    lines = ["x" * 10_000] * LINES_PER_ITEM
    for _ in range(100):
        access.write_lines(lines)
    queue = syslog._writer._queue
    assert queue.qsize() == MOST_WAITING
    waiting = [queue.get_nowait()[0] for _ in range(MOST_WAITING)]
    texts = [text for item in waiting if isinstance(item, tuple) for text in item[2]]
    assert lost_count(syslog) == 100 * len(lines) - len(texts)
    assert sum(map(len, texts)) <= MOST_WAITING * (ITEM_SIZE + len(lines[0]))
    release.set()
    syslog.close()


def test_a_datagram_is_cut_where_it_is_too_long(place: Path) -> None:
    with receiving("udp") as receiver:
        reports: list[str] = []
        syslog = Syslog(resolve(Destination("udp", "127.0.0.1", receiver.port)), 1, reports.append)
        SyslogErrors(syslog, "name").write_event("error", "long", "x" * 200_000, None)
        SyslogErrors(syslog, "name").write_event("critical", "é\udcff", "", None)
        SyslogAccess(syslog, "name").write_lines([f"line {number}" for number in range(150)])
        syslog.flush()
        [message] = receiver.wait("long\nxxx")
        assert len(message) == 32 * 1024
        assert receiver.wait("<10>name: [") == [f"<10>name: [{os.getpid()}] é\\udcff"]
        assert [message.partition("] ")[2] for message in receiver.wait("] line ", 150)] == [
            f"line {number}" for number in range(150)
        ]
        syslog.close()
        assert reports == []


# --- addresses ------------------------------------------------------------------------------------------------------

SYSLOG = [
    ("udp://localhost:514", Destination("udp", "localhost", 514)),
    ("udp://logs.example", Destination("udp", "logs.example", 514)),
    ("tcp://[::1]:6514", Destination("tcp", "::1", 6514)),
    ("udp://:1514", Destination("udp", "localhost", 1514)),
    ("unix:///dev/log", Destination("unix", path="/dev/log")),
    ("unix:///dev/log#dgram", Destination("unix", path="/dev/log", socket_type="dgram")),
    ("unix:///dev/log#stream", Destination("unix", path="/dev/log", socket_type="stream")),
]
STATSD = [
    ("localhost:8125", Destination("udp", "localhost", 8125)),
    ("10.0.0.1", Destination("udp", "10.0.0.1", 8125)),
    ("[::1]:9125", Destination("udp", "::1", 9125)),
    ("unix:///run/statsd.sock", Destination("unix", path="/run/statsd.sock", socket_type="dgram")),
]


@pytest.mark.parametrize(("written", "meant"), SYSLOG)
def test_addresses_of_syslog(written: str, meant: Destination) -> None:
    assert parse_syslog(written) == meant


@pytest.mark.parametrize(("written", "meant"), STATSD)
def test_addresses_of_statsd(written: str, meant: Destination) -> None:
    assert parse_statsd(written) == meant


def test_localhost_is_tried_at_ipv4_first_by_udp() -> None:
    families = [family for family, _, _ in resolve(Destination("udp", "localhost", 514))]
    assert families == sorted(families, key=lambda family: family != socket.AF_INET)


BAD_SYSLOG = [
    ("localhost:514", SYSLOG_ALLOWED),
    ("udp://h:99999", "a port is a number from 1 to 65535; " + SYSLOG_ALLOWED),
    ("udp://a b:1", SYSLOG_ALLOWED),
    ("unix://", "the path of a unix socket has 1 to 107 bytes and no NUL"),
    ("unix:///dev/log#datagram", SYSLOG_ALLOWED),
    ("unix://" + "x" * 108, "the path of a unix socket has 1 to 107 bytes and no NUL"),
]


@pytest.mark.parametrize(("written", "words"), BAD_SYSLOG, ids=[str(number) for number in range(len(BAD_SYSLOG))])
def test_mistakes_in_an_address_of_syslog(written: str, words: str) -> None:
    """They count where syslog is on only; gunicorn starts without it whatever stands there."""
    loaded = Loaded()
    loaded.set("a file", {"syslog_addr": written})
    check(loaded)
    loaded.set("a file", {"syslog": True})
    with pytest.raises(ConfigError, match=f"^a file: syslog_addr = .*: {re.escape(words)}$"):
        check(loaded)


BAD = [
    ("syslog_addr", ("udp", 1), SYSLOG_ALLOWED),
    ("syslog_facility", "local8", "kern, user, mail, "),
    ("statsd_host", "a:b:c", STATSD_ALLOWED),
    ("statsd_prefix", "a b", "letters, digits, and . _ - are allowed"),
    ("dogstatsd_tags", "a|b", "tags separated by commas"),
]


@pytest.mark.parametrize(("name", "value", "words"), BAD, ids=[f"{bad[0]}-{number}" for number, bad in enumerate(BAD)])
def test_mistakes(name: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(words)):
        OPTIONS[name].parse(value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--log-syslog", "--log-syslog-to", "localhost"], f"syslog_addr = 'localhost': {SYSLOG_ALLOWED}"),
        (
            ["--log-syslog", "--log-syslog-to", "tcp://no.such.host.invalid:1"],
            "syslog_addr = 'tcp://no.such.host.invalid:1': ",
        ),
    ],
    ids=["notation", "syslog"],
)
def test_mistakes_are_one_line(start_server: ServerFactory, options: list[str], words: str) -> None:
    server = start_server("tests.apps.logged:app", *options, wait=False)
    assert server.process.wait(20) == 1
    [line] = server.stderr_text().splitlines()
    assert line.startswith("epollwsgi: ")
    assert words in line
