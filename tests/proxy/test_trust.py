"""Who is trusted, by every form of its address; that memory is bounded and time linear; what is said to operators."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from epollwsgi.errors import BadFraming, BadHost
from epollwsgi.http import forwarded
from epollwsgi.http.fields import LENGTH
from epollwsgi.http.forwarded import REMEMBERED_ADDRESS_SIZE, REMEMBERED_ADDRESSES, Hops, Peers, parse_forwarded
from epollwsgi.http.head import HeadParser
from epollwsgi.process.request_hooks import address_from
from tests.proxy.rows import build_forwarding
from tests.support import Client, ServerFactory
from tests.wire.rows import get
from tests.wire.test_patterns import assert_linear

TRUSTED = [
    ("127.0.0.1,::1", "127.0.0.1", True),
    ("127.0.0.1,::1", "::1", True),
    ("127.0.0.1,::1", "::ffff:127.0.0.1", True),
    ("127.0.0.1,::1", "127.0.0.2", False),
    ("127.0.0.1,::1", "", False),
    ("::ffff:127.0.0.1", "127.0.0.1", True),
    ("10.0.0.0/8", "10.255.0.1", True),
    ("10.0.0.0/8", "::ffff:10.1.1.1", True),
    ("10.0.0.0/8", "11.0.0.1", False),
    ("10.0.0.0/8", "fd00::1", False),
    ("fe80::/10", "fe80::1%eth0", True),
    ("fe80::/10", "fe80::1", True),
    ("fd00::/8,10.0.0.7", "10.0.0.7", True),
    ("0.0.0.0/0", "8.8.8.8", True),
    ("0.0.0.0/0", "2001:db8::1", False),
    ("::/0", "2001:db8::1", True),
    ("::/0", "8.8.8.8", False),
    ("*", "8.8.8.8", True),
    ("*", "2001:db8::1", True),
    ("*", "", True),
    ("unix", "", True),
    ("unix", "127.0.0.1", False),
    ("unix,127.0.0.1", "127.0.0.1", True),
]


@pytest.mark.parametrize(("peers", "address", "is_trusted"), TRUSTED, ids=lambda value: str(value) or "unix socket")
def test_a_peer_is_trusted(peers: str, address: str, is_trusted: bool) -> None:
    known = Peers(peers.split(","))
    assert [known[address] for _ in range(2)] == [is_trusted, is_trusted]


def test_nobody_is_trusted_where_nobody_is_named() -> None:
    assert not Peers([])[""]
    assert not Peers([])["127.0.0.1"]


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    peers, hops = Peers(["10.0.0.0/8"]), Hops(["10.0.0.0/8"])
    for number in range(3 * REMEMBERED_ADDRESSES):
        address = f"{10 + number % 2}.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        assert peers[address] == hops[address].is_trusted == (number % 2 == 0)
        assert len(peers) <= REMEMBERED_ADDRESSES
        assert len(hops) <= REMEMBERED_ADDRESSES
    noise = "x" * (REMEMBERED_ADDRESS_SIZE + 1)
    assert not hops[noise].address
    assert noise not in hops


# What a client can put into a field, n bytes of it, behind what and before what.
HOSTILE: dict[str, tuple[str, str, str]] = {
    "commas": ("", ",", ""),
    "trusted hops": ("", "127.0.0.1,", "6.6.6.6"),
    "hops that were never seen": ("", "{},", "127.0.0.1"),
    "one long hop": ("", "1", ""),
    "an address that does not end": ("[", ":", ""),
    "spaces": ("", " ", "x"),
    "spaces and commas": ("", " ,", "127.0.0.1"),
    "elements": ("", "for=127.0.0.1,", "for=127.0.0.1"),
    "pairs": ("", "a{}=b;", "for=127.0.0.1"),
    "a name that does not end": ("", "a", ""),
    "a value that does not end": ("a=", "a", " b"),
    "a quote that does not end": ('a="', "a", ""),
    "escapes": ('a="', "\\a", ""),
    "backslashes": ('a="', "\\", ""),
    "quotes": ("", 'a="",', "x"),
    "semicolons": ("", ";", "x"),
    "spaces behind a value": ("a=b", " ", "x"),
    "digits": ("", "9", ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_fields_take_time_linear_in_their_size(name: str) -> None:
    prefix, filler, suffix = HOSTILE[name]

    def make(field: str) -> Callable[[int], Callable[[], object]]:
        def with_size(size: int) -> Callable[[], object]:
            count = size // len(filler)
            middle = "".join(filler.format(number) for number in range(count)) if "{" in filler else filler * count
            environ: dict[str, Any] = {field: prefix + middle + suffix, "HTTP_HOST": "h"}
            # What is remembered would make the second time quicker than the first.
            return lambda: build_forwarding("127.0.0.1", "all").apply(environ.copy())

        return with_size

    for field in ("FORWARDED", "X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO", "X_FORWARDED_PORT"):
        assert_linear(make(f"HTTP_{field}"), (name, field))


def test_all_patterns_are_linear_alone() -> None:
    for pattern in (forwarded.NODE, forwarded.BARE_IPV6, forwarded.PAIR, forwarded.QUOTED_PAIR, forwarded.SANE_ID):
        for name in HOSTILE:
            assert_linear(partial(match_hostile, pattern, name), (pattern.pattern, name))


def match_hostile(pattern: re.Pattern[str], name: str, size: int) -> Callable[[], object]:
    prefix, filler, suffix = HOSTILE[name]
    subject = prefix + filler * (size // len(filler)) + suffix
    return lambda: pattern.match(subject)


def test_a_list_of_hops_is_walked_no_further_than_needed() -> None:
    """The entries of a client are not even looked at: they cannot fill what is remembered."""
    hops = Hops(["10.0.0.0/8"])
    client, depth = hops.walk(["6.6.6.6", "noise", "203.0.113.9", "10.0.0.1"])
    assert client is not None
    assert (client.address, depth) == ("203.0.113.9", 1)
    assert sorted(hops) == ["10.0.0.1", "203.0.113.9"]
    assert hops.walk([]) == (None, 0)
    assert parse_forwarded("") == []


def test_names_from_the_settings_that_mean_something_else_or_nothing() -> None:
    forwarding = build_forwarding(
        schemes={"HOST": "h", "Content-Length": "1", " Sch\udce4 ☃ ": "x"}, forwarders=["É☃", ""]
    )
    parser = HeadParser(names=forwarding.names, believe=forwarding.apply)
    for line, error in ((b"Host: a b", BadHost), (b"Host: h\r\nContent-Length: 1\r\nContent-Length: 1", BadFraming)):
        with pytest.raises(error):
            parser.parse_fields(line, {})
    environ: dict[str, Any] = {}
    assert parser.parse_fields(b"Host: h\r\nContent-Length: 1", environ) == LENGTH
    assert environ == {"HTTP_HOST": "h", "CONTENT_LENGTH": "1"}


# --- what operators are told ----------------------------------------------------------------------------------------


def count_lines(log: str, *words: str) -> int:
    return sum(all(word in line for word in words) for line in log.splitlines())


def test_a_field_that_is_not_believed_is_named_once(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", "--forwarded-allow-ips=10.0.0.1,unix", "--forwarded-fields=proto,for")
    for number in range(3):
        with Client(server.address) as client:
            assert client.request(get(b"X-Real-IP: 6.6.6.6", b"X-Forwarded-Host: a b")).status == 200
            if number:
                assert client.request(get(b"X-forwarded-FOR: 6.6.6.6")).status == 200
                assert client.request(get(b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: on")).status == 200
    log = server.wait_for_log("changes nothing")
    assert count_lines(log, "changes nothing") == 1
    assert count_lines(log, "X-forwarded-FOR", "forwarded_allow_ips = 10.0.0.1,unix") == 1


def test_names_that_are_dropped_do_not_use_up_what_may_be_said(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", "--forwarded-allow-ips=10.0.0.1")
    with Client(server.address) as client:
        for start in (0, 90):
            names = [f"A_{number}: b".encode() for number in range(start, start + 90)]
            assert client.request(get(*names)).status == 200
        assert client.request(get(b"X-Forwarded-Proto: https")).status == 200
    log = server.wait_for_log("changes nothing")
    assert count_lines(log, "was dropped") == 100


def test_nothing_is_said_where_nothing_would_be_believed(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", "--forwarded-allow-ips=10.0.0.1", "--forwarded-fields=for")
    with Client(server.address) as client:
        assert client.request(get(b"X-Forwarded-Proto: https", b"X-Request-ID: a", b"Forwarded: for=a")).status == 200
        assert client.request(get(b"A_B: c")).status == 200
    assert "changes nothing" not in server.wait_for_log("'A_B'")


def test_a_prefix_as_gunicorn_has_it_is_named_once(start_server: ServerFactory) -> None:
    """gunicorn believes SCRIPT_NAME of each trusted peer: who comes from there is told of the word."""
    server = start_server("tests.apps.echo:app")
    with Client(server.address) as client:
        for _ in range(3):
            response = client.request(get(b"SCRIPT_NAME: /shop", target=b"/shop/a"))
            environ = json.loads(response.body)["environ"]
            assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/shop/a")
    assert count_lines(server.wait_for_log("SCRIPT_NAME"), "SCRIPT_NAME", "forwarded_fields = prefix") == 1


# What a proxy sends, and the client that is told of; a field that cannot be read may be the proxy's own.
SENT_ON: dict[str, tuple[tuple[bytes, ...], int, str]] = {
    "a contradiction": ((b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: no"), 400, ""),
    "too much": ((b"X-Forwarded-For: 6.6.6.6, 7.7.7.7", b"Content-Length: 9999"), 413, "7.7.7.7"),
    "too many": ((b"X-Forwarded-For: 6.6.6.6", *[b"A: b"] * 20, b"X-Forwarded-For: 7.7.7.7"), 431, "7.7.7.7"),
    "no field": ((b"X-Forwarded-For: 6.6.6.6", b"a b"), 400, "6.6.6.6"),
    "no such field": ((b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: \0"), 400, ""),
    "one Host too many": ((b"Host: h", b"X-Forwarded-For: 6.6.6.6"), 400, "6.6.6.6"),
}


def test_refusals_are_logged_with_peer_and_client(start_server: ServerFactory) -> None:
    limits = ("--limit-request-body=1000", "--limit-request-fields=20")
    server = start_server("tests.apps.echo:app", *limits, "--forwarded-fields=for,proto")
    expected = []
    for fields, status, seen in SENT_ON.values():
        with Client(server.address) as client:
            assert client.request(get(*fields)).status == status
            who = f"127.0.0.1:{client.sock.getsockname()[1]} refused with {status}"
            expected.append(f"{seen} behind {who}" if seen else who)
    log = server.wait_for_log(expected[-1])
    found = re.findall(r"\[INFO\] (.* refused with \d+)", log)
    assert found == expected
    assert count_lines(log, expected[0], "secure_scheme_headers") == 1


def test_files_are_logged_with_the_client(start_server: ServerFactory, tmp_path: Path) -> None:
    """A site alone: first the file as it is found, then from memory, for one client and another."""
    (tmp_path / "a.txt").write_text("content", "utf-8")
    server = start_server(f"{tmp_path}/", "--forwarded-fields=for", "--access-logfile=-")
    sent = ["203.0.113.9"] * 4 + ["203.0.113.10", "203.0.113.9", ""]
    with Client(server.address) as client:
        for address in sent:
            fields = [b"X-Forwarded-For: " + address.encode()] if address else []
            assert client.request(get(*fields, target=b"/a.txt")).body == b"content"
    server.stop()
    seen = [line.split()[0] for line in server.stdout_text().splitlines()]
    assert seen == [address or "127.0.0.1" for address in sent]


def test_schemes_by_a_settings_file(start_server: ServerFactory, tmp_path: Path) -> None:
    """secure_scheme_headers has no option: a file in gunicorn's format, with a field that no other server knows."""
    (tmp_path / "conf.py").write_text('secure_scheme_headers = {"cf-visitor": \'{"scheme":"https"}\'}\n', "utf-8")
    server = start_server("tests.apps.echo:app", "-c", str(tmp_path / "conf.py"), "--threads=2")
    with Client(server.address) as client:
        for line, scheme in (
            (b'CF-Visitor: {"scheme":"https"}', "https"),
            (b'CF-Visitor: {"scheme":"http"}', "http"),
            (b"X-Forwarded-Proto: https", "http"),
        ):
            environ = json.loads(client.request(get(line)).body)["environ"]
            assert environ["wsgi.url_scheme"] == scheme, line


SEEN_OVER_UNIX = [
    ((), b"GET / HTTP/1.1\r\nHost: p.example\r\n%b\r\n", ("http", "p.example", "80", "")),
    (("unix",), b"GET / HTTP/1.1\r\nHost: p.example\r\n%b\r\n", ("https", "p.example", "443", "203.0.113.9")),
    (("unix",), b"GET / HTTP/1.1\r\nHost: [::1]:8443\r\n%b\r\n", ("https", "[::1]", "8443", "203.0.113.9")),
    (("*",), b"GET / HTTP/1.0\r\n%b\r\n", ("https", "localhost", "443", "203.0.113.9")),
]


@pytest.mark.parametrize("peers", [(), ("unix",), ("*",)], ids=["by default", "unix", "all"])
def test_over_a_unix_socket(peers: tuple[str, ...], start_server: ServerFactory) -> None:
    options = [f"--forwarded-allow-ips={peer}" for peer in peers]
    server = start_server("tests.apps.echo:app", "--forwarded-fields=proto,for", *options, bind="unix")
    fields = b"X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\n"
    for _, data, expected in [one for one in SEEN_OVER_UNIX if one[0] == peers]:
        with Client(server.address) as client:
            for _ in range(1 if b"/1.0" in data else 3):
                environ = json.loads(client.request(data % fields).body)["environ"]
                keys = ("wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR")
                assert tuple(environ[key] for key in keys) == expected
                assert "REMOTE_PORT" not in environ
    if not peers:
        assert count_lines(server.wait_for_log("changes nothing"), "X-Forwarded-Proto", "the word unix") == 1


BODIES = {
    "a length": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n%b\r\nabc",
    "chunks": b"POST / HTTP/1.1\r\nHost: h\r\n%bTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.0": b"POST / HTTP/1.0\r\nConnection: keep-alive\r\n%bContent-Length: 3\r\n\r\nabc",
}


def test_requests_with_content(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", "--forwarded-fields=all")
    fields = b"X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9\r\nX-Request-ID: one\r\n"
    with Client(server.address) as client:
        for name, data in [*BODIES.items()] * 2:
            seen = json.loads(client.request(data % fields).body)
            environ = seen["environ"]
            assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == ("203.0.113.9", "https"), name
            assert (environ["epollwsgi.request_id"], environ["CONTENT_LENGTH"], seen["length"]) == ("one", "3", 3), name


def test_hooks_see_the_client_without_a_port() -> None:
    assert address_from(("203.0.113.9", "")) == ("203.0.113.9", 0)


def test_each_request_of_a_given_id_still_counts(start_server: ServerFactory) -> None:
    """max_requests counts by the ids that were not used, too."""
    server = start_server("tests.apps.echo:app", "--max-requests=5", "--threads=2")
    first = server.worker_pid
    with Client(server.address) as client:
        for _ in range(5):
            response = client.request(get(b"X-Request-ID: same"))
            assert json.loads(response.body)["environ"]["epollwsgi.request_id"] == "same"
    server.wait_for_log("max_requests")
    assert str(first) in server.stderr_text()
