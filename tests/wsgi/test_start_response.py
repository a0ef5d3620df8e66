"""What start_response takes and refuses, and what becomes of fields that are the server's own. WIRE.md 5, PEP 3333."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import Client, Server, ServerFactory

BODY = b"first second"


@pytest.fixture(scope="module")
def server(start_module_server: ServerFactory) -> Iterator[Server]:
    """Its log may hold tracebacks of applications."""
    server = start_module_server("tests.apps.shapes:app")
    yield server
    assert "not raised" not in server.stderr_text()
    assert server.stop() == 0


def request(name: str, method: str = "GET", version: str = "1.1", *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join((f"{method} /{name} HTTP/{version}", "Host: h", *fields, "", "")).encode() + body


def give(client: Client, status: Any, fields: Any, items: Any = (b"first second",)) -> Any:
    content = repr((status, fields, items)).encode("utf-8")
    client.send(request("given", "POST", "1.1", f"Content-Length: {len(content)}", body=content))
    return client.read_response()


@pytest.mark.parametrize(
    "status",
    [
        "200 OK",
        "200 ",
        "299 Custom reason",
        "418 I'm a teapot",
        "200 Gr\xf6\xdfe",
        "404 a\tb",
        "999 x",
        "500 \xff",
        "200 200 200",
    ],
)
def test_good_status(status: str, server: Server) -> None:
    with Client(server.address) as client:
        response = give(client, status, [("Content-Type", "text/plain")])
        assert f"{response.status} {response.reason}" == status
        assert response.body == BODY


@pytest.mark.parametrize(
    "status",
    [
        *(
            "",
            "200",
            "20 OK",
            "2000 OK",
            "OK",
            "abc OK",
            "200OK",
            "200\tOK",
            " 200 OK",
            "+20 OK",
            "-20 OK",
            "2 0 OK",
            "0x8 OK",
        ),
        *(
            "200 O\nK",
            "200 O\rK",
            "200 OK\r\nX: y",
            "200 OK\r\n\r\nbody",
            "200 O\0K",
            "200 \x7f",
            "200 \x1b[0m",
            "099 x",
            "000 x",
        ),
        *(
            "200 \u2603",
            "\u0662\u0660\u0660 OK",
            "\xb2\xb2\xb2 OK",
            "HTTP/1.1 200 OK",
            b"200 OK",
            200,
            None,
            ("200", "OK"),
            ["200 OK"],
        ),
    ],
    ids=ascii,
)
def test_bad_status_is_500(status: Any, server: Server) -> None:
    with Client(server.address) as client:
        assert give(client, status, []).status == 500
        assert client.request(request("list_one")).body == BODY


GOOD_FIELDS: list[list[tuple[str, str]]] = [
    [],
    [("X-Empty", "")],
    [("X-High", "\x80\xa0\xff")],
    [("X-Tab", "a\tb")],
    [("x-lower", "a"), ("X-UPPER", "b")],
    [("Set-Cookie", "b=2"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
    [("!#$%&'*+-.^_`|~09azAZ", "x")],
    [("X-Long", "x" * 20000)],
    [(f"X-{number}", str(number)) for number in range(200)],
    [("Content-Length", "12")],
    [("content-length", "12"), ("Vary", "*")],
    [("Content-Encoding", "x"), ("Content-Range", "bytes 0-1/2")],
]


@pytest.mark.parametrize("fields", GOOD_FIELDS, ids=lambda fields: ascii(fields)[:60])
def test_good_fields(fields: list[tuple[str, str]], server: Server) -> None:
    """In the order given, with the case given; beside them only Date, Server and framing."""
    with Client(server.address) as client:
        response = give(client, "200 OK", fields)
        kept = [field for field in response.fields if field[0].lower() not in ("date", "server", "content-length")]
        assert kept == [field for field in fields if field[0].lower() != "content-length"]
        assert response["Content-Length"] == "12"
        assert response.body == BODY


BAD_FIELDS: list[Any] = [
    *(
        [(name, "x")]
        for name in (
            "",
            " ",
            "A B",
            "A:",
            ":A",
            "A\n",
            "\nA",
            "A\r\nB",
            "A\0",
            "\xe9",
            "A\u2603",
            "A(",
            "A\t",
            "A\x7f",
            "(A)",
        )
    ),
    *(
        [("X", value)]
        for value in (
            "a\nb",
            "a\rb",
            "a\r\nY: z",
            "a\r\n\r\nbody",
            "\n",
            "\r",
            "a\0",
            "\x01",
            "\x0b",
            "\x1b[0m",
            "\x7f",
            "\u2603",
            "\U0001f600",
        )
    ),
    *([("X", value)] for value in (b"bytes", 5, None, ["a"], ("a",), True, 1.5)),
    *([(name, "x")] for name in (b"X", 5, None)),
    *([field] for field in (("X",), ("X", "y", "z"), ["X", "y"], "X: y", "Xy", b"Xy", 5, None)),
    *(fields for fields in (None, 5, "X: y", {"X": "y"}, {("X", "y", "z"): 1})),
    *(
        [("Content-Length", value)]
        for value in ("", "x", "-1", "+12", "12, 12", "0x0c", "1 2", "12.0", "1" * 30, "\xb2", "1_2")
    ),
    [("Content-Length", "12"), ("Content-Length", "12")],
    [("Content-Length", "12"), ("content-length", "13")],
]


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=lambda fields: ascii(fields)[:60])
def test_bad_fields_are_500(fields: Any, server: Server) -> None:
    with Client(server.address) as client:
        assert give(client, "200 OK", fields).status == 500
        assert client.request(request("list_one")).body == BODY


@pytest.mark.parametrize(
    "field",
    [
        *(
            ("Connection", "keep-alive"),
            ("connection", "x-private"),
            ("Keep-Alive", "timeout=5"),
            ("Transfer-Encoding", "chunked"),
        ),
        *(
            ("transfer-encoding", "gzip"),
            ("TE", "trailers"),
            ("Trailer", "X"),
            ("Upgrade", "h2c"),
            ("Proxy-Connection", "close"),
        ),
    ],
    ids=str,
)
def test_hop_by_hop_fields_are_dropped(field: tuple[str, str], server: Server) -> None:
    with Client(server.address) as client:
        response = give(client, "200 OK", [("X-Before", "1"), field, ("X-After", "2")])
        assert (response.status, response.body) == (200, BODY)
        assert field[0] not in response
        assert (response["X-Before"], response["X-After"]) == ("1", "2")
        assert client.request(request("list_one")).body == BODY


def test_connection_close_of_the_application_is_honoured(server: Server) -> None:
    for value in ("close", "Close", "x, CLOSE"):
        with Client(server.address) as client:
            response = give(client, "200 OK", [("Connection", value)])
            assert response.tokens == {"close"}
            assert response.body == BODY
            assert client.read_to_end() == b""


def test_upgrade_is_kept_on_426(server: Server) -> None:
    with Client(server.address) as client:
        response = give(client, "426 Upgrade Required", [("Upgrade", "websocket")])
        assert (response.status, response["Upgrade"]) == (426, "websocket")


def test_date_and_server_of_the_application(server: Server, start_server: ServerFactory) -> None:
    mine = [("Date", "Mon, 01 Jan 2001 00:00:00 GMT"), ("server", "mine/1")]
    with Client(server.address) as client:
        response = give(client, "200 OK", mine)
        assert (response["Date"], response["Server"]) == (mine[0][1], mine[1][1])  # each once
        assert give(client, "200 OK", mine[:1])["Server"].startswith("epollwsgi/")
        assert give(client, "200 OK", mine[1:])["Date"] != mine[0][1]
    with Client(start_server("tests.apps.shapes:app", "--no-server-header").address) as client:
        assert "Server" not in give(client, "200 OK", [])
        assert give(client, "200 OK", mine)["Server"] == "mine/1"
        assert "Server" not in client.request(b"GET /\r\n\r\n", "GET")
