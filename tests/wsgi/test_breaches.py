"""What an application does wrong: a 500 where nothing was sent, a visible end where something was; the worker lives on.

WIRE.md 5. Nothing of a traceback reaches the client; everything is in the error log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import Client, Response, Server, ServerFactory, Truncated, wait_until

BODY = b"first second"

# Nothing was sent: 500, and the connection goes on. The text must be in the log.
REFUSED = {
    "system_exit": "SystemExit",
    "keyboard_interrupt": "KeyboardInterrupt",
    "generator_exit": "GeneratorExit",
    "base_exception": "BaseException: secret of the application",
    "error": "ValueError: secret of the application",
    "stop_iteration": "StopIteration",
    "recursion": "RecursionError",
    "returns_none": "Traceback",
    "returns_bytes": "Traceback",
    "returns_str": "Traceback",
    "returns_number": "Traceback",
    "list_of_str": "Traceback",
    "list_of_both": "Traceback",
    "list_of_none": "Traceback",
    "items_of_str": "Traceback",
    "items_of_number": "Traceback",
    "first_item_fails": "secret of the application",
    "exits_in_iteration": "SystemExit",
    "fails_and_close_fails": "in close",
    "raises_after_start": "secret of the application",
    "never_started_list": "start_response",
    "never_started_empty": "start_response",
    "never_started_generator": "start_response",
    "started_twice": "start_response",
    "write_str": "Traceback",
}
# Something was sent: the connection ends without the last chunk, or before Content-Length. No text: see LENGTHS.
CUT = {
    "fails_midway": "midway",
    "exits_midway": "SystemExit",
    "str_midway": "Traceback",
    "raises_after_write": "secret of the application",
    "exc_info_late": "exc_info too late",
    "close_after_error": "after the first item",
    "fails_midway_length": "midway",
    "too_short": "",
    "file_too_short": "",
    "list_too_short": "",
}
# The response is whole; what was wrong is in the log.
WHOLE = {
    "too_long": "",
    "too_long_at_once": "",
    "too_long_whole": "",
    "write_too_long": "",
    "list_too_long": "",
    "fails_at_the_end": "at the end",
    "fails_behind_the_whole": "at the end",
    "close_fails": "in close",
    "close_exits": "SystemExit",
}
# Statuses without content: (status, Content-Length of the application's own).
EMPTY = {
    "no_content": (204, None),
    "no_content_length": (204, None),
    "not_modified": (304, None),
    "not_modified_length": (304, "12"),
    "list_no_content": (204, None),
    "list_not_modified": (304, None),
}
# Breaches of Content-Length, whose log lines are limited in number and so looked for in a log of their own.
LENGTHS = {
    "too_long": "Content-Length 12",
    "list_too_long": "Content-Length 12",
    "too_short": "8 bytes before",
    "file_too_short": "8 bytes before",
    "write_too_long": "Content-Length 12",
}
CLOSING = (
    "first_item_fails",
    "exits_in_iteration",
    "fails_midway",
    "too_long",
    "too_long_whole",
    "too_short",
    "no_content",
)


@pytest.fixture(scope="module")
def server(start_module_server: ServerFactory) -> Iterator[Server]:
    server = start_module_server("tests.apps.shapes:app")
    yield server
    assert "not raised" not in server.stderr_text()
    assert server.stop() == 0


def request(name: str, method: str = "GET", version: str = "1.1", *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join((f"{method} /{name} HTTP/{version}", "Host: h", *fields, "", "")).encode() + body


def log_since(server: Server, size: int, text: str) -> str:
    """What was logged behind the first `size` characters, once it holds `text`."""
    wait_until(lambda: text in server.stderr_text()[size:], what=f"{text!r} in the error log")
    return server.stderr_text()[size:]


def assert_goes_on(server: Server, client: Client) -> None:
    """The connection is usable, or was ended in an orderly way; the server is well in any case."""
    try:
        client.send(request("list_one"))
        assert client.read_response().body == BODY
    except (Truncated, BrokenPipeError):
        assert client.buffer == b""
    with Client(server.address) as other:
        assert other.request(request("list_one")).body == BODY


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_sent_is_500(name: str, server: Server) -> None:
    size = len(server.stderr_text())
    with Client(server.address) as client:
        response = client.request(request(name))
        assert response.status == 500
        assert len(response.body) < 500
        for word in (b"secret", b"Traceback", b"Error:", b".py", b"Exit"):
            assert word not in response.body
        log_since(server, size, REFUSED[name])
        assert client.request(request("list_one")).body == BODY
    with Client(server.address) as client:
        assert client.request(request(name, "HEAD")).status == 500
        assert client.request(request("list_one")).body == BODY
        assert client.request(request(name, "GET", "1.0")).status == 500


@pytest.mark.parametrize("name", CUT)
def test_cut_response_is_seen_to_be_cut(name: str, server: Server) -> None:
    size = len(server.stderr_text())
    with Client(server.address) as client:
        client.send(request(name) + request("list_one"))  # the second must not look like content of the first
        with pytest.raises((Truncated, ConnectionResetError)) as cut:
            client.read_response()
        if isinstance(cut.value, Truncated):
            assert cut.value.response is not None
            assert cut.value.response.status == 200
            assert cut.value.response.body in (b"first ", BODY)
        else:
            assert name == "file_too_short"  # os.sendfile finds out too late for anything but a reset
    log_since(server, size, CUT[name])
    with Client(server.address) as client:
        assert client.request(request("list_one")).body == BODY


@pytest.mark.parametrize("name", ["fails_midway", "exits_midway", "str_midway", "exc_info_late", "raises_after_write"])
def test_cut_response_in_http_1_0_is_a_reset(name: str, server: Server) -> None:
    """The end of the connection is the end of the content there: an orderly close would be a lie."""
    with Client(server.address) as client:
        client.send(request(name, "GET", "1.0"))
        with pytest.raises(ConnectionResetError):
            client.read_to_end()


@pytest.mark.parametrize("name", ["too_short_by_all", "list_too_short_empty"])
def test_nothing_of_the_length_announced(name: str, server: Server) -> None:
    """Either way will do, but the client must see that something is wrong."""
    with Client(server.address) as client:
        client.send(request(name) + request("list_one"))
        try:
            response: Response | None = client.read_response()
            expected = 500
        except Truncated as cut:
            response, expected = cut.response, 200
        assert response is not None
        assert response.status == expected
        assert response.body == b"" or expected == 500


@pytest.mark.parametrize("name", WHOLE)
def test_whole_response_in_spite_of_a_breach(name: str, server: Server) -> None:
    size = len(server.stderr_text())
    with Client(server.address) as client:
        response = client.request(request(name))
        assert (response.status, response.body) == (200, BODY)
        log_since(server, size, WHOLE[name])
        assert_goes_on(server, client)
    with Client(server.address) as client:
        assert client.request(request(name, "HEAD")).status == 200
        assert_goes_on(server, client)


def test_breaches_of_content_length_are_logged(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.shapes:app")
    for name, text in LENGTHS.items():
        size = len(server.stderr_text())
        with Client(server.address) as client:
            client.send(request(name))
            client.receive()
        log_since(server, size, text)


@pytest.mark.parametrize("name", EMPTY)
def test_status_without_content(name: str, server: Server) -> None:
    status, length = EMPTY[name]
    for method in ("GET", "HEAD", "POST"):
        with Client(server.address) as client:
            response = client.request(request(name, method))
            assert response.status == status
            assert response.get("Content-Length") == length
            assert "Transfer-Encoding" not in response
            assert client.request(request("list_one")).body == BODY
    with Client(server.address) as client:
        client.send(request(name) + request("list_one"))
        assert client.read_response().status == status
        assert client.read_response().body == BODY


@pytest.mark.parametrize("name", CLOSING)
def test_close_is_called_once_whatever_happens(name: str, server: Server) -> None:
    for method in ("GET", "HEAD"):
        with Client(server.address) as client:
            client.request(request("events"))
            client.send(request(name, method, "1.1", "Connection: close"))
            client.read_to_end()
        with Client(server.address) as client:
            events = json.loads(client.request(request("events")).body)
            assert [event.split()[0] for event in events].count("close") == 1, events
            assert events[-1].startswith("close")


def test_close_is_called_once_when_the_client_has_gone(server: Server) -> None:
    with Client(server.address) as client:
        client.request(request("events"))
    with Client(server.address) as client:
        client.send(request("large?64"))
        client.receive()
        client.reset()
    with Client(server.address) as client:
        events = json.loads(client.request(request("events")).body)
        assert [event.split()[0] for event in events] == ["call", "close"]


def test_a_client_that_goes_away_is_no_error(start_server: ServerFactory) -> None:
    server = start_server("tests.apps.shapes:app")
    quiet = server.stderr_text()
    for data in (b"GET", request("large?64"), request("generator"), request("list_one")[:-2]):
        with Client(server.address) as client:
            client.send(data)
            client.reset()
    with Client(server.address) as client:
        assert client.request(request("list_one")).body == BODY
    assert server.stderr_text() == quiet


# --- what start_response is given ------------------------------------------------------------------------------------


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
