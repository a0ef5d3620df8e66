"""WIRE.md 5 and PEP 3333: applications of every allowed shape, over HTTP/1.1, HTTP/1.0 and HEAD, bare and validated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support import Client, Response, Server, ServerFactory, collect_events

BODY = b"first second"


@dataclass(frozen=True)
class Shape:
    """What a shape gives.  framing: 'length', 'chunked', or '' where both will do.  closes: how often close() is noted.

    has_length: the application gives Content-Length itself.
    """

    framing: str
    body: bytes = BODY
    status: int = 200
    closes: int = 0
    has_length: bool = False


SHAPES: dict[str, Shape] = {
    "list_one": Shape("length"),
    "list_many": Shape("length"),
    "list_empty": Shape("length", b""),
    "list_closable": Shape("", closes=1),
    "tuple_many": Shape("length"),
    "list_length": Shape("length", has_length=True),
    "generator": Shape("chunked", closes=1),
    "generator_function": Shape("chunked"),
    "generator_length": Shape("length", has_length=True),
    "generator_whole": Shape("length", has_length=True),
    "generator_empty": Shape("", b""),
    "generator_of_nothing": Shape("", b""),
    "generator_with_gaps": Shape("chunked"),
    "iterator": Shape("chunked", closes=1),
    "iterator_length": Shape("length", closes=1, has_length=True),
    "dict_keys": Shape("chunked"),
    "write_only": Shape("chunked"),
    "write_and_list": Shape("chunked"),
    "write_and_iterator": Shape("length", closes=1, has_length=True),
    "write_nothing": Shape("chunked"),
    "replaced": Shape("length", status=503),
    "replaced_late": Shape("chunked", status=503),
    "exc_info_first": Shape("length", status=503),
    "file_real": Shape("length"),
    "file_position": Shape("length"),
    "file_length": Shape("length", has_length=True),
    "file_buffer": Shape("chunked"),
    "file_without_close": Shape("chunked"),
    "file_pipe": Shape("chunked"),
    "file_empty": Shape("", b""),
    "file_closable": Shape("length", closes=1),
}


@pytest.fixture(scope="module")
def plain(start_module_server: ServerFactory) -> Iterator[Server]:
    server = start_module_server("tests.apps.shapes:app")
    yield server
    assert "Traceback" not in server.stderr_text()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def validated(start_module_server: ServerFactory) -> Iterator[Server]:
    server = start_module_server("tests.apps.shapes:validated")
    yield server
    assert "Traceback" not in server.stderr_text()
    # wsgiref.validate says this when the server never called close().
    assert "garbage collected" not in server.stderr_text()
    assert server.stop() == 0


def request(name: str, method: str = "GET", version: str = "1.1", *fields: str) -> bytes:
    return "\r\n".join((f"{method} /{name} HTTP/{version}", "Host: h", *fields, "", "")).encode()


def read_events(client: Client, *words: str) -> list[str]:
    """What the application noted since the last time."""
    return collect_events(client, request("events"), *words)


def check_events(shape: Shape, events: list[str]) -> None:
    """One call; close() as often as the shape has it, at the end; all on one thread."""
    words = [event.split()[0] for event in events]
    assert words.count("call") == 1
    assert words.count("close") == shape.closes
    if shape.closes:
        assert words[-1] == "close"
    assert len({event.split()[1] for event in events}) == 1


def check_response(name: str, response: Response) -> None:
    shape = SHAPES[name]
    assert response.status == shape.status
    assert response["Content-Type"] == "text/plain"
    assert "Date" in response
    assert response["Server"].startswith("epollwsgi/")
    assert ("X-New" in response) is (shape.status == 503)
    assert "X-Old" not in response


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str, plain: Server) -> None:
    shape = SHAPES[name]
    with Client(plain.address) as client:
        read_events(client)
        for _ in range(2):  # the connection is kept
            response = client.request(request(name))
            check_response(name, response)
            assert response.body == shape.body
            assert "Connection" not in response
            if shape.framing:
                assert ("Content-Length" in response, response.chunks is not None) == {
                    "length": (True, False),
                    "chunked": (False, True),
                }[shape.framing]
            check_events(shape, read_events(client))


@pytest.mark.parametrize("name", SHAPES)
def test_shape_in_http_1_0(name: str, plain: Server) -> None:
    """Never chunked; kept only where it was asked for and the length is known."""
    shape = SHAPES[name]
    with Client(plain.address) as client:
        response = client.request(request(name, "GET", "1.0"))
        check_response(name, response)
        assert response.body == shape.body
        assert client.read_to_end() == b""
    with Client(plain.address) as client:
        response = client.request(request(name, "GET", "1.0", "Connection: Keep-Alive"))
        check_response(name, response)
        assert response.body == shape.body
        if "Content-Length" in response:
            assert response.tokens == {"keep-alive"}
            assert client.request(request("events")).status == 200
        else:
            assert shape.framing != "length"
            assert client.read_to_end() == b""


@pytest.mark.parametrize("name", SHAPES)
def test_shape_to_head(name: str, plain: Server) -> None:
    """No content, no Transfer-Encoding, the application's own Content-Length only; the connection goes on."""
    shape = SHAPES[name]
    with Client(plain.address) as client:
        read_events(client)
        for _ in range(2):
            response = client.request(request(name, "HEAD"))
            check_response(name, response)
            assert response.get("Content-Length") == ("12" if shape.has_length else None)
            check_events(shape, read_events(client))
        client.send(request(name, "HEAD") + request("list_one"))  # not a byte more than the head
        client.read_response("HEAD")
        assert client.read_response().body == BODY


@pytest.mark.parametrize("name", SHAPES)
def test_shape_validated(name: str, validated: Server) -> None:
    """wsgiref.validate finds nothing to say against server or application."""
    with Client(validated.address) as client:
        response = client.request(request(name))
        check_response(name, response)
        assert response.body == SHAPES[name].body
        assert client.request(request(name, "HEAD")).status == SHAPES[name].status
        client.send(request("events", "POST", "1.1", "Content-Length: 3") + b"abc")
        assert client.read_response().status == 200


@pytest.mark.parametrize("name", SHAPES)
def test_shape_pipelined(name: str, plain: Server) -> None:
    """Its end is where the next response begins, whatever the framing."""
    with Client(plain.address) as client:
        client.send(request(name) * 3 + request("list_one"))
        assert [client.read_response().body for _ in range(4)] == [SHAPES[name].body] * 3 + [BODY]
        assert client.is_quiet(0)


def test_file_wrapper_without_sendfile(start_server: ServerFactory) -> None:
    """--no-sendfile changes how, not what."""
    server = start_server("tests.apps.shapes:app", "--no-sendfile")
    with Client(server.address) as client:
        for name in ("file_real", "file_position", "file_length", "file_closable", "file_empty"):
            assert client.request(request(name)).body == SHAPES[name].body
