"""The examples, route by route, by werkzeug's client and over a socket. The rest is in test_examples_served.py."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from examples import app as module
from examples.app import app
from tests.example_requests import STOPS, Ask, ask_socket, ask_wsgi, url_of
from tests.pages import Page
from tests.support import Server, ServerFactory

ROOT = Path(__file__).resolve().parent.parent
BY_COMMAND = ("api_echo", "api_digest", "stream", "slow")  # no link to click, or one that takes time
TAKING_TIME = ("/app/stream", "/app/events/feed", "/slow?seconds=")  # these have tests of their own
BOUNDARY = "a-boundary-of-the-test"


@pytest.fixture(scope="module")
def server(start_module_server: ServerFactory) -> Server:
    return start_module_server("examples.app:app", cwd=ROOT)


@pytest.fixture(params=["client", "socket"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """ask(method, target, body, Name=value) -> Reply, both ways."""
    if request.param == "client":
        return lambda *args, **fields: ask_wsgi(app, *args, **fields)
    server = request.getfixturevalue("server")
    return lambda *args, **fields: ask_socket(server, *args, **fields)


# --- the tour ---------------------------------------------------------------------------------------------------------


def test_every_route_is_a_stop_of_the_tour() -> None:
    hidden = {"static", "root", "home", "events_feed"}  # files, the way to the tour, the tour, what a stop's page shows
    assert {rule.endpoint for rule in app.url_map.iter_rules()} - hidden == {stop.endpoint for stop in STOPS}


def test_routes_do_not_hide_behind_files() -> None:
    """A file wins over a route: no path may be that of a file in html/, of a page without .html, or of a directory."""
    paths = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint not in ("root", "static")}
    assert len(paths) > 10
    for path in paths | {"/app/static"}:
        name = ROOT / "html" / path[1:]
        assert not name.exists(), path
        assert not name.with_name(name.name + ".html").exists(), path


def test_home_shows_the_tour(ask: Ask) -> None:
    reply = ask("GET", "/app")
    assert reply.status == 200
    for stop in STOPS:
        assert stop.title in reply.text
        assert f"<code>{url_of(stop)}</code>" in reply.text


def test_links_of_all_pages_lead_somewhere(ask: Ask) -> None:
    """From the home page on, each link and resource answers; the two broken stops as they should."""
    seen: dict[str, int] = {}
    waiting = ["/app"]
    while waiting:
        path = waiting.pop()
        if path in seen or path.startswith(TAKING_TIME) or path == "/error?when=midway":
            continue
        reply = ask("GET", path)
        seen[path] = reply.status
        if (
            reply.status == 200
            and path.startswith(("/app", "/slow"))
            and reply.get("Content-Type").startswith("text/html")
        ):
            page = Page(reply.text)
            assert page.faults == [], path
            waiting += [urljoin(path, link) for link in page.links() if not urlsplit(link).netloc]
    assert {path for path, status in seen.items() if status != 200} <= {"/", "/error"}
    assert seen["/"] in (200, 302)
    assert seen["/error"] == 500
    assert set(seen) >= {url_of(stop) for stop in STOPS if stop.endpoint not in BY_COMMAND} - {"/error?when=midway"}


@pytest.mark.parametrize(
    "path", ["/app", "/app/form", "/app/cookies", "/app/environ", "/app/events", "/slow?seconds=0"]
)
def test_pages_are_well_formed(ask: Ask, path: str) -> None:
    reply = ask("GET", path)
    page = Page(reply.text)
    assert reply.status == 200
    assert reply.get("Content-Type") == "text/html; charset=utf-8"
    assert page.faults == []
    assert page.elements[0] == ("html", {"lang": "en"})
    assert len(page.all("h1")) == 1
    assert page.texts["title"][0].endswith("epollwsgi example")
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on") or a == "style"]
    labelled = {label["for"] for label in page.all("label")}
    assert {field["id"] for field in page.all("input")} == labelled


def test_application_can_be_mounted_below_a_prefix() -> None:
    """With a SCRIPT_NAME every link of the home page stays below it."""
    with app.test_request_context(environ_overrides={"SCRIPT_NAME": "/shop"}, path="/app"):
        links = Page(module.home()).links()
    assert len(links) > 10
    assert all(link.startswith("/shop/") for link in links)


# --- what is sent -----------------------------------------------------------------------------------------------------


def build_form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body: the parameters of each Content-Disposition, and the content."""
    return b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {parameters}\r\n\r\n".encode() + content + b"\r\n"
        for parameters, content in parts
    ) + (f"--{BOUNDARY}--\r\n".encode())


@pytest.mark.parametrize("size", [0, 1, 65_536, 300_001])
def test_upload(ask: Ask, size: int) -> None:
    content = (b"0123456789abcdef\r\n--" * (size // 20 + 1))[:size]
    body = build_form(
        ('name="note"', b"<b>bold & \xc3\xa4</b>"),
        ('name="file"; filename="a<i>.txt"', content),
        ('name="file"; filename="second"', b"2"),
        ('name="file"; filename=""', b""),
    )
    reply = ask("POST", "/app/form", body, Content_Type=f"multipart/form-data; boundary={BOUNDARY}")
    assert reply.status == 200
    assert Page(reply.text).faults == []
    assert "&lt;b&gt;bold &amp; \u00e4&lt;/b&gt;" in reply.text
    assert "a&lt;i&gt;.txt" in reply.text
    assert f"{size:,} bytes" in reply.text
    assert hashlib.sha256(content).hexdigest() in reply.text
    assert hashlib.sha256(b"2").hexdigest() in reply.text
    assert reply.text.count("SHA-256") == 2


def test_form_without_anything(ask: Ask) -> None:
    assert "Nothing was filled in" in ask("POST", "/app/form").text


def test_echo(ask: Ask) -> None:
    body = '{"list": [1, null, "\u00e4"]}'.encode()
    reply = ask("POST", "/api/echo?a=1", body, Content_Type="application/json")
    assert reply.status == 200
    assert reply.get("Content-Type") == "application/json"
    assert json.loads(reply.body) == {
        "json": {"list": [1, None, "\u00e4"]},
        "content_type": "application/json",
        "size": len(body),
        "args": {"a": "1"},
    }


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"1", "text/plain", 415),
        (b'"' + b"x" * module.ECHO_SIZE_MAX + b'"', "application/json", 413),
    ],
)
def test_echo_refuses(ask: Ask, body: bytes, media_type: str, status: int) -> None:
    reply = ask("POST", "/api/echo", body, Content_Type=media_type)
    assert (reply.status, json.loads(reply.body)["status"]) == (status, status)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_digest(ask: Ask, method: str) -> None:
    content = bytes(range(256)) * 1000
    reply = ask(method, "/api/digest", content, Content_Type="application/octet-stream")
    assert json.loads(reply.body) == {"size": 256_000, "sha256": hashlib.sha256(content).hexdigest()}


def test_cookies_count_visits_and_keep_a_greeting(ask: Ask) -> None:
    first = ask("GET", "/app/cookies")
    assert "<output>1</output>" in first.text
    assert set(first.cookies) == {"session"}
    form = "application/x-www-form-urlencoded"
    kept = ask("POST", "/app/cookies", b"greeting=%3Cb%3EHi+you", Content_Type=form)
    assert (kept.status, kept.get("Location")) == (303, "/app/cookies")
    jar = first.cookies | kept.cookies
    second = ask("GET", "/app/cookies", Cookie="; ".join(f"{name}={value}" for name, value in jar.items()))
    assert "<output>2</output>" in second.text
    assert "&lt;b&gt;Hi you" in second.text


def test_cookies_are_forgotten(ask: Ask) -> None:
    session = ask("GET", "/app/cookies").cookies["session"]
    form = "application/x-www-form-urlencoded"
    reply = ask("POST", "/app/cookies", b"forget=yes", Content_Type=form, Cookie=f"session={session}; greeting=x")
    assert reply.status == 303
    assert reply.cookies == {"session": "", "greeting": ""}


def test_a_forged_session_counts_for_nothing(ask: Ask) -> None:
    assert "<output>1</output>" in ask("GET", "/app/cookies", Cookie="session=eyJ2aXNpdHMiOjk5fQ.AAAAAA.AAAA").text


def test_environ_is_shown(ask: Ask) -> None:
    reply = ask("GET", "/app/environ?a=%3Ci%3E", X_Test="<script>")
    cells = Page(reply.text).texts
    shown = dict(zip(cells["th"][3:], cells["td"][1::2], strict=True))
    assert shown["QUERY_STRING"] == "a=%3Ci%3E"
    assert shown["PATH_INFO"] == "/app/environ"
    assert shown["HTTP_X_TEST"] == "<script>"
    assert "<script>" not in reply.text
    assert shown["wsgi.input"] == ""


def test_environ_hides_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers copy os.environ into environ; secrets may be in it."""
    monkeypatch.setenv("EXAMPLE_PASSWORD", "hidden")
    with app.test_request_context("/app/environ", environ_overrides={"EXAMPLE_PASSWORD": "hidden"}):
        assert "EXAMPLE_PASSWORD" not in module.show_environ()


# --- what comes back --------------------------------------------------------------------------------------------------


def test_time(ask: Ask) -> None:
    first, second = (json.loads(ask("GET", "/api/time").body) for _ in range(2))
    assert set(first) == {"utc", "unix", "python"}
    assert first["unix"] <= second["unix"]


def test_stream(ask: Ask) -> None:
    reply = ask("GET", "/app/stream?count=3&pause=0")
    assert [line.partition(",")[0] for line in reply.text.splitlines()] == [f"line {n} of 3" for n in (1, 2, 3)]
    assert reply.get("Content-Type") == "text/plain; charset=utf-8"
    assert not reply.get("Content-Length")


@pytest.mark.parametrize("query", ["count=0", "count=51", "count=x", "pause=0.3", "pause=-1", "pause=nan", "count=inf"])
def test_stream_has_bounds(ask: Ask, query: str) -> None:
    reply = ask("GET", f"/app/stream?{query}")
    assert reply.status == 400
    assert query.partition("=")[0] + " must be a number" in reply.text


@pytest.mark.parametrize(("last", "first"), [("", 1), ("5", 6), ("x", 1), ("-1", 1), ("99999", 1), ("7", 8)])
def test_events(ask: Ask, last: str, first: int) -> None:
    reply = ask("GET", "/app/events/feed?pause=0", **({"Last_Event_ID": last} if last else {}))
    assert (reply.status, reply.get("Content-Type")) == (200, "text/event-stream; charset=utf-8")
    assert [int(number) for number in re.findall(r"^id: (\d+)$", reply.text, re.MULTILINE)] == [*range(first, 9)]
    blocks = reply.text.split("\n\n")
    assert blocks[-1] == ""
    assert blocks[-2] == "event: end\ndata: {}"
    assert all(json.loads(block.partition("data: ")[2])["of"] == 8 for block in blocks if block.startswith("id"))


def test_events_that_were_all_seen(ask: Ask) -> None:
    reply = ask("GET", "/app/events/feed?pause=0", Last_Event_ID="8")
    assert (reply.status, reply.body) == (204, b"")


def test_download_of_the_source(ask: Ask) -> None:
    source = Path(module.__file__).read_bytes()
    reply = ask("GET", "/app/download/source")
    assert (reply.status, reply.body) == (200, source)
    assert reply.get("Content-Disposition") == "attachment; filename=app.py"
    assert reply.get("Content-Length") == str(len(source))
    part = ask("GET", "/app/download/source", Range="bytes=10-19")
    assert (part.status, part.body) == (206, source[10:20])
    assert part.get("Content-Range") == f"bytes 10-19/{len(source)}"
    again = ask("GET", "/app/download/source", If_None_Match=reply.get("ETag"))
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("mib", [1, 3])
def test_download_of_zeros(ask: Ask, mib: int) -> None:
    reply = ask("GET", f"/app/download/zeros?mib={mib}")
    assert reply.status == 200
    assert reply.get("Content-Length") == str(mib * 1024 * 1024)
    assert reply.body == bytes(mib * 1024 * 1024)
    head = ask("HEAD", f"/app/download/zeros?mib={mib}")
    assert (head.status, head.body, head.get("Content-Length")) == (200, b"", reply.get("Content-Length"))


@pytest.mark.parametrize("mib", ["0", "257", "-1", "x"])
def test_zeros_have_bounds(ask: Ask, mib: str) -> None:
    assert ask("GET", f"/app/download/zeros?mib={mib}").status == 400


@pytest.mark.parametrize("name", ["app.css", "icon.svg", "events.js"])
def test_own_files(ask: Ask, name: str) -> None:
    reply = ask("GET", f"/app/static/{name}")
    assert (reply.status, reply.body) == (200, (ROOT / "examples" / "static" / name).read_bytes())


# --- slow and broken --------------------------------------------------------------------------------------------------


def test_slow(ask: Ask) -> None:
    assert "slept for 0.02 s" in ask("GET", "/slow?seconds=0.02").text


@pytest.mark.parametrize("seconds", ["-0.1", "10.1", "nan", "inf", "-inf", "x", "1e999"])
def test_slow_has_bounds(ask: Ask, seconds: str) -> None:
    assert ask("GET", f"/slow?seconds={seconds}").status == 400


def test_error(ask: Ask) -> None:
    reply = ask("GET", "/error")
    assert reply.status == 500
    assert Page(reply.text).faults == []
    assert "asked to fail" not in reply.text
    assert "Traceback" not in reply.text


def test_what_is_not_there(ask: Ask) -> None:
    page = ask("GET", "/app/nothing")
    assert page.status == 404
    assert Page(page.text).faults == []
    assert 'href="/app"' in page.text
    answer = ask("GET", "/api/nothing")
    assert (answer.status, json.loads(answer.body)["status"]) == (404, 404)


def test_wrong_method_names_the_right_ones(ask: Ask) -> None:
    reply = ask("DELETE", "/api/time")
    assert reply.status == 405
    assert {"GET", "HEAD", "OPTIONS"} == set(reply.get("Allow").split(", "))
