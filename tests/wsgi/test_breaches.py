"""What an application does wrong: a 500 where nothing was sent, a visible end where something was; the worker lives on.

WIRE.md 5. Nothing of a traceback reaches the client; everything is in the error log.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import Client, Response, Server, ServerFactory, Truncated, collect_events, wait_until

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
    """Its log may hold tracebacks of applications."""
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
            events = collect_events(client, request("events"), "close")
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
        events = collect_events(client, request("events"), "close")
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
