"""The examples on the server, started in the root of the repository as the README says: with curl, and in a browser."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from wsgiref.validate import validator

import pytest

from examples.app import Stop, app
from examples.factory import create_app
from examples.plain import application
from tests.browser import Browser
from tests.example_requests import STOPS, ask_socket, ask_wsgi, build_request, url_of
from tests.support import Client, Server, ServerFactory, Truncated, require_tool

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def server(start_module_server: ServerFactory) -> Server:
    return start_module_server("examples.app:app", cwd=ROOT)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


@pytest.mark.parametrize("stop", STOPS, ids=url_of)
def test_commands_of_the_tour(server: Server, tmp_path: Path, stop: Stop) -> None:
    """The home page's commands, as they stand there."""
    require_tool("curl", "curl")
    (tmp_path / "README.md").write_bytes(b"text" * 50_000)
    command = stop.command.format(url=server.url + url_of(stop))
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, timeout=30, stdin=subprocess.DEVNULL, check=False
    )
    cut_short = 18  # curl(1): a partial file
    assert done.returncode == (cut_short if stop.values == {"when": "midway"} else 0), done
    if stop.endpoint == "api_echo":
        assert json.loads(done.stdout)["json"] == {"answer": 42}
    if stop.endpoint in ("api_digest", "form"):
        assert hashlib.sha256(b"text" * 50_000).hexdigest().encode() in done.stdout


# --- on the wire ------------------------------------------------------------------------------------------------------


def test_digest_of_a_chunked_body(server: Server) -> None:
    head = b"POST /api/digest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Client(server.address) as client:
        response = client.request(head + b"3\r\nabc\r\n" * 1000 + b"0\r\n\r\n")
    assert json.loads(response.body) == {"size": 3000, "sha256": hashlib.sha256(b"abc" * 1000).hexdigest()}


def test_stream_comes_line_by_line(server: Server) -> None:
    """Each line is sent when it is made: it is a chunk of its own."""
    with Client(server.address) as client:
        response = client.request(build_request("GET", "/app/stream?count=5&pause=0"))
    assert response.chunks == [len(line) for line in response.body.splitlines(keepends=True)]
    assert len(response.chunks) == 5


def test_error_is_logged(start_server: ServerFactory) -> None:
    server = start_server("examples.app:app", cwd=ROOT)
    assert ask_socket(server, "GET", "/error").status == 500
    assert "Traceback" in server.wait_for_log("RuntimeError: the example application was asked to fail")
    assert ask_socket(server, "GET", "/api/time").status == 200


def test_error_midway_shows_as_a_cut_response(server: Server) -> None:
    with Client(server.address) as client, pytest.raises(Truncated) as caught:
        client.request(build_request("GET", "/error?when=midway"))
    assert caught.value.response is not None
    assert caught.value.response.body == b"one line of two\n"
    with pytest.raises(RuntimeError, match="half-way"):
        ask_wsgi(app, "GET", "/error?when=midway")


# --- beside the site --------------------------------------------------------------------------------------------------


def test_root_leads_to_the_tour_where_there_is_no_site() -> None:
    reply = ask_wsgi(app, "GET", "/")
    assert (reply.status, reply.get("Location")) == (302, "/app")


@pytest.mark.parametrize("path", ["", "index.html", "style.css", "logo.svg", "favicon.ico", "settings.html"])
def test_site_is_served_beside_the_application(server: Server, path: str) -> None:
    """In the root of the repository, by the settings in pyproject.toml."""
    reply = ask_socket(server, "GET", f"/{path}")
    assert (reply.status, reply.body) == (200, (ROOT / "html" / (path or "index.html")).read_bytes())


def test_banner_names_both(server: Server) -> None:
    assert "examples.app:app" in server.stderr_text()
    assert "html" in server.stderr_text()
    assert "pyproject.toml" in server.stderr_text()


# --- the other two ----------------------------------------------------------------------------------------------------


PLAIN = [
    ("GET", "/hello", b"", 200, b"Hello, world!\n"),
    ("GET", "/hello?name=Ada%20%C3%A4&name=B", b"", 200, "Hello, Ada \u00e4!\n".encode()),
    ("HEAD", "/hello", b"", 200, b""),
    ("POST", "/count", b"x" * 200_000, 200, b"200000 bytes\n"),
    ("GET", "/count", b"", 200, b"0 bytes\n"),
    ("GET", "/elsewhere", b"", 404, b"Nothing here. Try /hello or /count.\n"),
]


@pytest.mark.parametrize(("method", "target", "body", "status", "expected"), PLAIN)
def test_plain_keeps_to_the_rules(method: str, target: str, body: bytes, status: int, expected: bytes) -> None:
    reply = ask_wsgi(validator(application), method, target, body)
    assert (reply.status, reply.body) == (status, expected)


def test_plain_over_a_socket(start_server: ServerFactory) -> None:
    """Named without its attribute: `application` is found."""
    server = start_server("examples.plain", cwd=ROOT)
    for method, target, body, status, expected in PLAIN:
        reply = ask_socket(server, method, target, body)
        assert (reply.status, reply.body) == (status, expected), target


def test_factory_makes_applications_that_share_nothing() -> None:
    one, two = create_app(), create_app("Ada")
    assert ask_wsgi(one, "GET", "/hello").body == b"Hello, world!\n"
    assert ask_wsgi(two, "GET", "/hello").body == b"Hello, Ada!\n"
    assert json.loads(ask_wsgi(two, "GET", "/api/name").body) == {"name": "Ada"}


@pytest.mark.parametrize(("call", "name"), [("create_app()", "world"), ("create_app('x')", "x")])
def test_factory_over_a_socket(start_server: ServerFactory, call: str, name: str) -> None:
    server = start_server(f"examples.factory:{call}", cwd=ROOT)
    assert ask_socket(server, "GET", "/hello").text == f"Hello, {name}!\n"


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/app", "/app/form", "/app/cookies", "/app/environ", "/slow?seconds=0"])
def test_page_in_a_browser(server: Server, browser: Browser, path: str) -> None:
    for width, dark in ((320, True), (1200, False)):
        tab = browser.open(server.url + path, width=width, dark=dark)
        assert tab.failures == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.close()


def test_events_in_a_browser(server: Server, browser: Browser) -> None:
    """The page shows the feed as it comes, and sees its end."""
    tab = browser.open(server.url + "/app/events")
    ended = """new Promise(done => {
        const look = () => state.textContent.includes('ended') ? done(true) : setTimeout(look, 20);
        look();
    })"""
    assert tab.evaluate(ended) is True
    assert tab.evaluate("document.querySelectorAll('#events li').length") == 8
    # The page itself closes the feed at the event "end", which may be before the end of the response.
    assert [failure for failure in tab.failures if not failure.endswith("/feed: net::ERR_ABORTED")] == []
    tab.close()


def test_form_in_a_browser(server: Server, browser: Browser) -> None:
    """A file that a visitor chose goes through the form."""
    tab = browser.open(server.url + "/app/form", width=390)
    tab.evaluate("""
        const files = new DataTransfer();
        files.items.add(new File(['x'.repeat(100000)], 'chosen.txt'));
        document.querySelector('#file').files = files.files;
        document.querySelector('#note').value = 'from a browser';
    """)
    tab.follow("document.querySelector('form').requestSubmit()")
    text = tab.evaluate("document.querySelector('dl').textContent")
    assert "from a browser" in text
    assert "chosen.txt" in text
    assert hashlib.sha256(b"x" * 100_000).hexdigest() in text
    assert tab.failures == []
    tab.close()
