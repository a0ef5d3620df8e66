"""WIRE.md 4: what the application finds in environ, and that the server's input object is a full file."""

from __future__ import annotations

import json
import re
from ast import literal_eval
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import Client, Server, ServerFactory

HOSTLESS = b"GET /a%20b?c=d HTTP/1.0\r\n\r\n"
FIELDS = b"Host: example.com:99\r\nUser-Agent: x\r\nAccept: */*\r\nCookie: a=1\r\nX-Y: z\r\nCookie: b=2\r\n"

# Keys that every request has, and those of RFC 3875 that depend on it; no other without HTTP_ may be there.
ALWAYS = set(
    """
    REQUEST_METHOD SCRIPT_NAME PATH_INFO QUERY_STRING RAW_URI REQUEST_URI SERVER_PROTOCOL SERVER_NAME SERVER_PORT
    SERVER_SOFTWARE REMOTE_ADDR REMOTE_PORT wsgi.version wsgi.url_scheme wsgi.input wsgi.input_terminated wsgi.errors
    wsgi.multithread wsgi.multiprocess wsgi.run_once wsgi.file_wrapper epollwsgi.client_gone epollwsgi.request_id
    epollwsgi.peer wsgi.early_hints
    """.split()
)


@pytest.fixture(scope="module")
def server(start_module_server: ServerFactory) -> Iterator[Server]:
    server = start_module_server("tests.apps.echo:app")
    yield server
    assert "Traceback" not in server.stderr_text()


@pytest.fixture(scope="module")
def shapes(start_module_server: ServerFactory) -> Iterator[Server]:
    server = start_module_server("tests.apps.shapes:app")
    yield server
    assert "Traceback" not in server.stderr_text()


def environ_of(server: Server, data: bytes) -> dict[str, Any]:
    with Client(server.address) as client:
        reply = client.request(data)
        assert reply.status == 200
        seen = json.loads(reply.body)["environ"]
        assert isinstance(seen, dict)
        return seen


def test_every_key(server: Server) -> None:
    with Client(server.address) as client:
        local_port = client.sock.getsockname()[1]
        seen = json.loads(client.request(b"GET /a%2Fb//c?d=%20 HTTP/1.1\r\n" + FIELDS + b"\r\n").body)["environ"]
    assert {key for key in seen if not key.startswith("HTTP_")} == ALWAYS
    assert {key: seen[key] for key in seen if key.startswith("HTTP_")} == {
        "HTTP_HOST": "example.com:99",
        "HTTP_USER_AGENT": "x",
        "HTTP_ACCEPT": "*/*",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_Y": "z",
    }
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b//c",
        "QUERY_STRING": "d=%20",
        "RAW_URI": "/a%2Fb//c?d=%20",
        "REQUEST_URI": "/a%2Fb//c?d=%20",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(local_port),
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
        "wsgi.run_once": False,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
    }
    assert {key: seen[key] for key in expected} == expected
    assert re.fullmatch(r"epollwsgi/\d+\.\d+\.\d+\w*", seen["SERVER_SOFTWARE"])
    assert seen["epollwsgi.request_id"]


def test_nothing_of_the_server_s_environment(start_server: ServerFactory) -> None:
    server = start_server(
        "tests.apps.echo:app", env={"HTTP_PROXY": "http://evil", "HTTP_X": "leak", "CONTENT_TYPE": "x"}
    )
    seen = environ_of(server, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert {key for key in seen if key.startswith(("HTTP_", "CONTENT_"))} == {"HTTP_HOST"}


def test_http_1_0_without_host(server: Server) -> None:
    seen = environ_of(server, HOSTLESS)
    assert seen["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert "HTTP_HOST" not in seen
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("127.0.0.1", str(server.port))
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/a b", "c=d")


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        *(("example.com:99", "example.com", "99"), ("example.com", "example.com", "80"), ("h:", "h", "80")),
        *(("[::1]:8", "[::1]", "8"), ("", "localhost", "80")),
    ],
)
def test_unix_socket(start_server: ServerFactory, host: str, name: str, port: str) -> None:
    """REMOTE_ADDR is '', REMOTE_PORT absent; SERVER_NAME is Host's."""
    server = start_server("tests.apps.echo:app", bind="unix")
    seen = environ_of(server, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert seen["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in seen
    assert (seen["SERVER_NAME"].strip("[]"), seen["SERVER_PORT"]) == (name.strip("[]"), port)
    seen = environ_of(server, HOSTLESS)
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("localhost", "80")


def test_unix_socket_of_several_hosts_on_one_connection(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.echo:app", bind="unix")
    with Client(server.address) as client:
        for number in (1, 1, 1, 2, 2, 2):
            reply = client.request(b"GET / HTTP/1.1\r\nHost: h%d:8%d\r\n\r\n" % (number, number))
            seen = json.loads(reply.body)["environ"]
            assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == (f"h{number}", f"8{number}")


def test_local_address_of_a_wildcard(start_server: ServerFactory) -> None:
    """Bound to every address, SERVER_NAME is the one the client reached, never empty and never 0.0.0.0."""
    server = start_server("tests.apps.echo:app", bind="0.0.0.0:0")
    for host in ("127.0.0.1", "127.0.0.2"):
        with Client((host, server.port)) as client:
            seen = json.loads(client.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").body)["environ"]
            assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == (host, str(server.port))


def test_request_ids_differ(server: Server) -> None:
    with Client(server.address) as client:
        seen = [
            json.loads(client.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").body)["environ"]["epollwsgi.request_id"]
            for _ in range(10)
        ]
    assert len(set(seen)) == 10


# --- script_name -----------------------------------------------------------------------------------------------------

PREFIXED = {
    "/app": ("/app", ""),
    "/app/": ("/app", "/"),
    "/app/x%2Fy?q": ("/app", "/x/y"),
    "/%61pp/x": ("/app", "/x"),
    "/app//x": ("/app", "//x"),
}


@pytest.mark.parametrize("how", ["option", "environment", "trailing slash"])
def test_script_name(start_server: ServerFactory, how: str) -> None:
    if how == "environment":
        server = start_server("tests.apps.echo:app", env={"SCRIPT_NAME": "/app"})
    else:
        server = start_server("tests.apps.echo:app", "--script-name", "/app/" if how == "trailing slash" else "/app")
    for target, expected in PREFIXED.items():
        seen = environ_of(server, f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == expected, target
        assert seen["RAW_URI"] == target
    with Client(server.address) as client:
        for target in ("/", "/other", "/apple", "/app%20", "/x/app", "/APP/x", "//app/x"):
            data = f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
            assert client.request(data).status == 404, target  # the connection goes on
        assert client.request(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").status == 404
        data = b"POST /other HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
        assert client.request(data).status == 404
        assert client.request(b"GET /app HTTP/1.1\r\nHost: h\r\n\r\n").status == 200


# --- each request has its own ----------------------------------------------------------------------------------------


def test_environ_is_new_for_each_request(shapes: Server) -> None:
    """What an application changes in environ is not seen by the next request, however well it is remembered."""
    with Client(shapes.address) as client:
        for number in range(5):
            data = b"GET /changes_environ?%d HTTP/1.1\r\nHost: h\r\nUser-Agent: x\r\nAccept: y\r\n\r\n" % number
            assert literal_eval(client.request(data).body.decode()) == (False, str(number))
        data = b"GET /changes_environ?p HTTP/1.1\r\nHost: h\r\nUser-Agent: x\r\nAccept: y\r\n\r\n"
        client.send(data * 3)
        for _ in range(3):
            assert literal_eval(client.read_response().body.decode()) == (False, "p")


def test_nothing_of_one_request_in_the_next(server: Server) -> None:
    """On one connection, with the same and with other field sections, with content and without."""
    with Client(server.address) as client:

        def ask(data: bytes) -> dict[str, Any]:
            answer = json.loads(client.request(data).body)
            return {**answer["environ"], "length": answer["length"]}

        plain = b"GET /?a HTTP/1.1\r\nHost: h\r\n\r\n"
        for _ in range(3):
            first = ask(plain)
            assert (
                ask(b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Type: t/x\r\nContent-Length: 2\r\nX: y\r\n\r\nab")[
                    "length"
                ]
                == 2
            )
            chunked = ask(
                b"PUT /c HTTP/1.1\r\nHost: i\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n"
            )
            assert (chunked["CONTENT_LENGTH"], chunked["length"]) == ("1", 1)
            assert ask(b"GET http://other/d HTTP/1.1\r\nHost: h\r\n\r\n")["HTTP_HOST"] == "other"
            again = ask(plain)
            for seen in (first, again):
                del seen["epollwsgi.request_id"]
            assert first == again


# --- wsgi.input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer_size", ["64K", "0"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_input_is_a_full_file(start_server: ServerFactory, buffer_size: str, framing: str) -> None:
    """In memory and in a temporary file alike."""
    server = start_server("tests.apps.shapes:app", "--body-buffer-size", buffer_size)
    body = b"ab\nline\nlonger line\nx\ny\nwxyz and the rest\nend"
    head = b"POST /reads HTTP/1.1\r\nHost: h\r\n"
    if framing == "length":
        data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        data = head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            body[:5],
            len(body) - 5,
            body[5:],
        )
    with Client(server.address) as client:
        for _ in range(2):
            seen = literal_eval(client.request(data).body.decode())
            assert seen == {
                "read(2)": b"ab",
                "readline()": b"\n",
                "readline(3)": b"lin",
                "tell()": 6,
                "lines": [b"e\n"],
                "readlines(1)": [b"longer line\n"],
                "readinto()": (4, b"x\ny\n"),
                "read(-1)": b"wxyz and the rest\nend",
                "at the end": [b"", b"", b"", [], []],
                "seek(1)": (1, b"b\nl"),
                "seek(-3, 2)": (len(body) - 3, b"end"),
                "flags": (True, True, False),
            }


@pytest.mark.parametrize("name", ["ignores_content", "closes_input"])
@pytest.mark.parametrize("size", [0, 3, 100_000])
def test_content_that_nobody_reads(shapes: Server, name: str, size: int) -> None:
    data = f"POST /{name} HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size
    with Client(shapes.address) as client:
        for _ in range(3):
            assert client.request(data).body == b"first "


def test_wsgi_errors_is_the_error_log(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.shapes:app")
    with Client(server.address) as client:
        assert client.request(b"GET /uses_errors HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
    log = server.wait_for_log("printed to wsgi.errors")
    for line in ("written to wsgi.errors", "one line", "é☃"):
        assert line in log
