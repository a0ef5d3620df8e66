"""Flask and Django over real sockets, by http.client and by raw bytes."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import apps
from tests.support import Client, Server, ServerFactory

APPS = Path(apps.__file__).parent
BOUNDARY = "tests-boundary"


@pytest.fixture(scope="module", params=["flask", "django"])
def framework(request: pytest.FixtureRequest, start_module_server: ServerFactory) -> Iterator[tuple[str, Server]]:
    name: str = request.param
    pytest.importorskip(name)
    server = start_module_server(f"tests.apps.{name}_app:app")
    yield name, server
    assert server.stop() == 0


def ask(
    server: Server, method: str, target: str, body: Any = None, **fields: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request by http.client on a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        return response, response.read()


def multipart(content: bytes) -> bytes:
    lines = [
        f"--{BOUNDARY}",
        'Content-Disposition: form-data; name="word"',
        "",
        "Grüße",
        f"--{BOUNDARY}",
        'Content-Disposition: form-data; name="upload"; filename="a b.bin"',
        "Content-Type: application/octet-stream",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def test_index_and_missing(framework: tuple[str, Server]) -> None:
    _, server = framework
    with Client(server.address) as client:
        for _ in range(3):
            reply = client.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (reply.status, reply.body) == (200, b"index")
            reply = client.request(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (reply.status, reply["Content-Length"]) == (200, "5")
            assert client.request(b"GET /missing HTTP/1.1\r\nHost: h\r\n\r\n").status == 404


@pytest.mark.parametrize("size", [10, 100_000, 5_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_upload(framework: tuple[str, Server], size: int, is_chunked: bool) -> None:
    _, server = framework
    content = os.urandom(size)
    body: Any = multipart(content)
    if is_chunked:
        body = iter([body[at : at + 50_000] for at in range(0, len(body), 50_000)])  # http.client sends it in chunks
    response, answer = ask(server, "POST", "/form", body, Content_Type=f"multipart/form-data; boundary={BOUNDARY}")
    assert response.status == 200, answer
    assert json.loads(answer) == {
        "form": {"word": ["Grüße"]},
        "files": {"upload": ["a b.bin", hashlib.sha256(content).hexdigest()]},
    }


def test_form(framework: tuple[str, Server]) -> None:
    _, server = framework
    fields = {"Content_Type": "application/x-www-form-urlencoded"}
    _, answer = ask(server, "POST", "/form", "a=1&b=%C3%A9&a=2", **fields)
    assert json.loads(answer) == {"form": {"a": ["1", "2"], "b": ["é"]}, "files": {}}


def test_stream_and_file(framework: tuple[str, Server]) -> None:
    name, server = framework
    response, answer = ask(server, "GET", "/stream?word=line")
    assert answer == b"line 0\nline 1\nline 2\n"
    assert response.getheader("Transfer-Encoding") == "chunked"
    response, answer = ask(server, "GET", "/file")
    expected = (APPS / f"{name}_app.py").read_bytes()
    assert answer == expected
    assert response.getheader("Content-Length") == str(len(expected))
    response, answer = ask(server, "HEAD", "/file")
    assert (answer, response.getheader("Content-Length")) == (b"", str(len(expected)))


def test_cookies(framework: tuple[str, Server]) -> None:
    _, server = framework
    response, _ = ask(server, "GET", "/cookies")
    cookies = [value.split(";")[0] for value in response.headers.get_all("Set-Cookie") or []]
    assert [cookie for cookie in cookies if cookie in ("one=1", "two=2")] == ["one=1", "two=2"]


def test_error(framework: tuple[str, Server]) -> None:
    _, server = framework
    with Client(server.address) as client:
        reply = client.request(b"GET /error HTTP/1.1\r\nHost: h\r\n\r\n")
        assert reply.status == 500
        assert b"secret" not in reply.body
        assert client.request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").body == b"index"


@pytest.mark.parametrize("framework", ["flask"], indirect=True)
def test_flask(framework: tuple[str, Server]) -> None:
    _, server = framework
    with Client(server.address) as client:
        reply = client.request(b"GET /args/a%2Fb/%C3%A9?x=1&x=%20&y HTTP/1.1\r\nHost: example.com:8080\r\n\r\n")
        seen = json.loads(reply.body)
        assert seen["path"] == "a/b/é"
        assert seen["args"] == {"x": ["1", " "], "y": [""]}
        assert seen["url"].startswith("http://example.com:8080/args/a/b/")
        reply = client.request(b"GET /cookies HTTP/1.1\r\nHost: h\r\nCookie: a=1; b=2\r\nCookie: c=3\r\n\r\n")
        assert json.loads(reply.body) == {"cookies": {"a": "1", "b": "2", "c": "3"}, "count": 1}
        session = next(value for value in reply.get_all("Set-Cookie") if value.startswith("session=")).split(";")[0]
        reply = client.request(f"GET /cookies HTTP/1.1\r\nHost: h\r\nCookie: {session}\r\n\r\n".encode())
        assert json.loads(reply.body)["count"] == 2
        reply = client.request(b"GET /redirect HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (reply.status, reply["Location"]) == (302, "/")
        body = json.dumps({"a": [1, None, "é"]}).encode()
        head = b"POST /json HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        reply = client.request(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert json.loads(reply.body) == {"a": [1, None, "é"]}
        reply = client.request(b"GET /file HTTP/1.1\r\nHost: h\r\nRange: bytes=4-9\r\n\r\n")
        assert (reply.status, reply.body) == (206, (APPS / "flask_app.py").read_bytes()[4:10])
        again = f"GET /file HTTP/1.1\r\nHost: h\r\nIf-None-Match: {reply['ETag']}\r\n\r\n".encode()
        assert client.request(again).status == 304
        assert client.request(b"GET /memory HTTP/1.1\r\nHost: h\r\n\r\n").body == b"x" * 100_000


@pytest.mark.parametrize("framework", ["django"], indirect=True)
def test_django(framework: tuple[str, Server]) -> None:
    """Django reads nothing without CONTENT_LENGTH: the server gives the real one for chunked content."""
    _, server = framework
    with Client(server.address) as client:
        head = b"POST /echo/%C3%A9?x=1&x=2 HTTP/1.1\r\nHost: h:81\r\nCookie: a=1\r\nCookie: b=2\r\nX-Y: z\r\n"
        reply = client.request(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        seen = json.loads(reply.body)
        assert (seen["length"], seen["sha256"]) == (5, hashlib.sha256(b"abcde").hexdigest())
        assert (seen["path"], seen["args"]) == ("/echo/é", {"x": ["1", "2"]})
        assert seen["cookies"] == {"a": "1", "b": "2"}
        assert seen["url"].startswith("http://h:81/echo/")
        assert (seen["fields"]["X-Y"], seen["fields"]["Content-Length"]) == ("z", "5")
        assert client.request(b"GET /echo/x HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
