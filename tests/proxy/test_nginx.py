"""nginx as the proxy, over TCP and over a unix socket, one and two in a row, with clients that forge what they can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.nginx import KEPT, PASS_ALL, Nginx, running
from tests.support import Server, ServerFactory

CLIENT, OTHER = "127.0.0.9", "127.0.0.10"
OUTER, INNER = "127.0.0.2", "127.0.0.3"
FORGED = {
    "X_Forwarded_For": "6.6.6.6, 127.0.0.1",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Host": "evil.example",
    "X_Forwarded_Port": "666",
    "X_Forwarded_Prefix": "/evil",
    "Forwarded": "for=6.6.6.6;proto=https;host=evil.example",
    "X_Request_ID": "forged",
    "Host": "shop.example",
}


def start(start_server: ServerFactory, believed: str, peers: str, *options: str, bind: str = "127.0.0.1:0") -> Server:
    arguments = (f"--forwarded-fields={believed}", f"--forwarded-allow-ips={peers}", *options)
    return start_server("tests.apps.proxied:app", *arguments, bind=bind)


def upstream_of(server: Server) -> str:
    return f"unix:{server.unix_path}" if server.unix_path else f"127.0.0.1:{server.port}"


@pytest.fixture(params=["127.0.0.1:0", "unix"], ids=["tcp", "unix"])
def kept(request: pytest.FixtureRequest, start_server: ServerFactory, tmp_path: Path) -> Iterator[tuple[Nginx, Server]]:
    """nginx with kept connections to a server that believes what it sets: proto and for."""
    server = start(start_server, "proto,for", "127.0.0.1,unix", "--access-logfile=-", bind=request.param)
    with running(tmp_path / "nginx", upstream_of(server), KEPT + PASS_ALL) as nginx:
        yield nginx, server
    assert server.stop() == 0
    assert "Traceback" not in server.stderr_text()


def test_what_nginx_sets_is_believed_and_what_a_client_forges_is_not(kept: tuple[Nginx, Server]) -> None:
    nginx, server = kept
    for fields in ({"Host": "shop.example"}, FORGED):
        said = nginx.ask("/a?b", CLIENT, **fields)
        assert said["client"] == CLIENT
        assert said["environ"]["REMOTE_ADDR"] == CLIENT
        assert "REMOTE_PORT" not in said["environ"]
        assert said["uri"] == "http://shop.example/a?b"
        assert said["url"] == "http://shop.example/a"
        assert said["environ"]["SERVER_PORT"] == "80"
        assert said["environ"]["SCRIPT_NAME"] == ""
        assert said["environ"]["epollwsgi.request_id"] == said["id"]
        assert re.fullmatch(r"[0-9a-f]{32}", said["id"])
        assert said["peer"][0] == ("" if server.unix_path else "127.0.0.1")
    assert said["environ"]["HTTP_X_FORWARDED_HOST"] == "evil.example", "left as it came"


def test_clients_that_share_a_connection_are_told_apart(kept: tuple[Nginx, Server]) -> None:
    nginx, server = kept
    peers = set()
    for number in range(24):
        source = (CLIENT, CLIENT, CLIENT, OTHER)[number % 4]
        said = nginx.ask("/", source, Host="h")
        assert said["client"] == source
        peers.add(tuple(said["peer"]))
    assert len(peers) == 1, "nginx keeps one connection"
    server.stop()
    lines = server.stdout_text().splitlines()
    assert [line.split()[0] for line in lines] == [CLIENT, CLIENT, CLIENT, OTHER] * 6


def test_http_1_0_as_nginx_speaks_it_by_default(start_server: ServerFactory, tmp_path: Path) -> None:
    """Without proxy_http_version and keepalive; the scheme alone is believed, and Host is the upstream's name."""
    server = start(start_server, "proto", "127.0.0.1")
    lines = "proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-For $remote_addr;" + PASS_ALL
    with running(tmp_path / "nginx", upstream_of(server), lines) as nginx:
        for _ in range(3):
            said = nginx.ask("/a", CLIENT)
            assert said["uri"] == "https://server/a"
            assert said["is_secure"]
            assert said["environ"]["SERVER_PROTOCOL"] == "HTTP/1.0"
            assert said["environ"]["SERVER_PORT"] == "443"
            assert said["client"] == "127.0.0.1", "for is not believed"


def test_a_unix_socket_is_not_believed_by_default(start_server: ServerFactory, tmp_path: Path) -> None:
    server = start_server("tests.apps.proxied:app", bind="unix")
    with running(tmp_path / "nginx", upstream_of(server), KEPT.replace("$scheme", "https") + PASS_ALL) as nginx:
        for _ in range(2):
            said = nginx.ask("/a", CLIENT, Host="shop.example")
            assert said["uri"] == "http://shop.example/a"
            assert said["environ"]["REMOTE_ADDR"] == ""
            assert said["environ"]["HTTP_X_FORWARDED_PROTO"] == "https"
            assert said["environ"]["epollwsgi.request_id"] != said["id"]
    log = server.wait_for_log("X-Forwarded-Proto")
    [line] = [line for line in log.splitlines() if "X-Forwarded-Proto" in line]
    assert "forwarded_allow_ips" in line
    assert "unix" in line
    server = start(start_server, "proto", "unix", bind="unix")
    with running(tmp_path / "nginx2", upstream_of(server), KEPT.replace("$scheme", "https") + PASS_ALL) as nginx:
        said = nginx.ask("/a", CLIENT, Host="shop.example")
        assert said["uri"] == "https://shop.example/a"
        assert said["environ"]["SERVER_PORT"] == "443"
        assert said["environ"]["epollwsgi.request_id"] == said["id"]


def test_a_prefix_that_nginx_takes_off(start_server: ServerFactory, tmp_path: Path) -> None:
    server = start(start_server, "proto,for,host,port,prefix", "127.0.0.1")
    lines = """
        proxy_set_header X-Forwarded-Prefix $prefix;
        proxy_set_header X-Forwarded-Host $host;
        proxy_set_header X-Forwarded-Port 8443;
        proxy_set_header X-Forwarded-Proto https;
        location /shop/ { set $prefix /shop; proxy_pass http://server/; }
        location / { set $prefix ""; proxy_pass http://server; }
    """
    with running(tmp_path / "nginx", upstream_of(server), lines) as nginx:
        said = nginx.ask("/shop/cart?id=1", Host="a.example:1", **{"X-Forwarded-Prefix": "/evil"})
        assert said["environ"]["SCRIPT_NAME"] == "/shop"
        assert said["environ"]["PATH_INFO"] == "/cart"
        assert said["url"] == "https://a.example:8443/shop/cart"
        assert said["uri"] == "https://a.example:8443/shop/cart?id=1"
        said = nginx.ask("/cart", Host="a.example:1", **{"X-Forwarded-Prefix": "/evil"})
        assert said["url"] == "https://a.example:8443/cart"


def names_of_a_sign_on(nginx: Nginx) -> Any:
    return nginx.ask("/", CLIENT, **{"Remote-User": "eve", "Host": "h"})["environ"].get("HTTP_REMOTE_USER")


def test_a_name_with_an_underscore(start_server: ServerFactory, tmp_path: Path) -> None:
    """nginx drops what clients spell so, and sets its own; the client's spelling with a dash is not mixed into it."""
    lines = KEPT + "proxy_set_header REMOTE_USER ann;" + PASS_ALL
    server = start(start_server, "proto", "127.0.0.1", "--forwarder-headers=REMOTE_USER")
    with running(tmp_path / "believed", upstream_of(server), lines) as nginx:
        assert names_of_a_sign_on(nginx) == "ann"
    server = start(start_server, "proto", "10.0.0.1", "--forwarder-headers=REMOTE_USER")
    with running(tmp_path / "not", upstream_of(server), lines) as nginx:
        assert names_of_a_sign_on(nginx) == "eve", "any field with a dash is a client's own"
    log = server.wait_for_log("REMOTE_USER")
    line = next(line for line in log.splitlines() if "REMOTE_USER" in line)
    assert "header_map" in line
    assert "forwarder_headers" in line


@pytest.mark.parametrize("between", ["tcp", "unix"])
def test_two_in_a_row(between: str, start_server: ServerFactory, tmp_path: Path) -> None:
    """Each adds who has asked it; what the client put in front is never reached."""
    # A short path: the socket of the inner one has room for 107 bytes.
    server = start(start_server, "all", f"{INNER},{OUTER},unix")
    path = str(server.directory / "n") if between == "unix" else ""
    chain = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Forwarded '';"
    outer_lines = "proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-Host $http_host;"
    outer_lines += "proxy_set_header X-Forwarded-Port ''; proxy_set_header X-Forwarded-Prefix '';" + PASS_ALL
    with running(tmp_path / "inner", upstream_of(server), chain + f"proxy_bind {INNER};" + PASS_ALL, path) as inner:
        upstream = f"unix:{path}" if path else f"127.0.0.1:{inner.port}"
        bound = "" if path else f"proxy_bind {OUTER};"
        with running(tmp_path / "outer", upstream, chain + bound + outer_lines) as outer:
            for _ in range(2):
                said = outer.ask("/a", CLIENT, **FORGED)
                assert said["environ"]["HTTP_X_FORWARDED_FOR"] == f"6.6.6.6, 127.0.0.1, {CLIENT}, " + (
                    "unix:" if path else OUTER
                )
                assert said["client"] == CLIENT
                assert said["peer"][0] == INNER
                assert said["uri"] == "https://shop.example/a"
