"""The chat of the examples: what visitors are told, what is refused, the page in a browser, and without flask-sock."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

from examples import chat
from tests.browser import Browser
from tests.pages import Page
from tests.support import Client, Server, ServerFactory, clean_environment
from tests.upgrade.sockets import ask, get

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def server(start_server: ServerFactory) -> Server:
    return start_server("examples.chat", cwd=ROOT)


class Visitor:
    """One WebSocket of the chat."""

    def __init__(self, server: Server, **options: Any) -> None:
        url = f"ws://127.0.0.1:{server.port}/chat/socket"
        self.socket: Any = websocket.create_connection(url, timeout=10, **options)

    def say(self, name: str, text: str) -> None:
        self.socket.send(json.dumps({"name": name, "text": text}))

    def read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv())
        assert message.pop("time").endswith("+00:00")
        return message


@contextmanager
def visitors(server: Server, count: int) -> Iterator[list[Visitor]]:
    """So many, each of whom has been told of all that came after it."""
    with ExitStack() as stack:
        there: list[Visitor] = []
        for number in range(1, count + 1):
            there.append(Visitor(server))
            stack.callback(there[-1].socket.shutdown)
            assert [one.read() for one in there] == [{"visitors": number}] * number
        yield there


def test_everybody_reads_what_anybody_writes(server: Server) -> None:
    with visitors(server, 5) as there:
        for number, one in enumerate(there):
            one.say(f"visitor {number}", "Grüße <b>")
            assert [other.read() for other in there] == [{"name": f"visitor {number}", "text": "Grüße <b>"}] * 5
        there[0].socket.send_close()
        assert [other.read() for other in there[1:]] == [{"visitors": 4}] * 4
        there[1].socket.shutdown()
        assert [other.read() for other in there[2:]] == [{"visitors": 3}] * 3


def test_bounds(server: Server) -> None:
    with visitors(server, 1) as [one]:
        one.say("n" * 100, "t" * 1000)
        assert one.read() == {"name": "n" * chat.NAME_LENGTH_MAX, "text": "t" * chat.TEXT_LENGTH_MAX}
        one.say("quiet", "   ")
        one.say(" ", "x")
        assert one.read() == {"name": "somebody", "text": "x"}


@pytest.mark.parametrize("data", ["{", "1", "[]", "{}", '{"name": 1, "text": "x"}', '{"name": "x", "text": null}'])
def test_what_is_no_message_ends_the_visit(server: Server, data: str) -> None:
    with visitors(server, 2) as [one, other]:
        other.socket.send(data)
        code, reason = other.socket.recv_data(control_frame=True)
        assert (code, int.from_bytes(reason[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 1007)
        assert one.read() == {"visitors": 1}


def test_pages_of_other_sites_are_refused(server: Server) -> None:
    fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    with Client(server.address) as client:
        assert client.request(ask("chat/socket", fields + b"Origin: http://elsewhere.example\r\n")).status == 403
    own = Visitor(server, origin=server.url)
    assert own.read() == {"visitors": 1}
    own.socket.shutdown()


def test_page(server: Server) -> None:
    with Client(server.address) as client:
        reply = client.request(get("chat"))
        page = Page(reply.body.decode())
        assert (reply.status, page.faults, len(page.all("h1"))) == (200, [], 1)
        assert {label["for"] for label in page.all("label")} == {field["id"] for field in page.all("input")}
        for link in page.links():
            assert client.request(get(link.removeprefix("/"))).status == 200, link
        with visitors(server, 1):
            assert client.request(get("chat")).status == 200


def test_root_leads_to_the_chat_where_there_is_no_site() -> None:
    reply = chat.app.test_client().get("/")
    assert (reply.status_code, reply.headers["Location"]) == (302, "/chat")


def test_chat_in_a_browser(server: Server) -> None:
    """Two pages and a visitor without one."""
    with Browser() as browser, visitors(server, 1) as [other]:
        tabs = [browser.open(server.url + "/chat", width=width, dark=width < 500) for width in (320, 1200)]
        while other.read() != {"visitors": 3}:
            pass
        tabs[0].evaluate("""
            document.querySelector('#name').value = 'Ada';
            document.querySelector('#text').value = '<i>from a page</i>';
            document.querySelector('#say').requestSubmit();
        """)
        assert other.read() == {"name": "Ada", "text": "<i>from a page</i>"}
        for tab in tabs:
            text = """new Promise(done => {
                const look = () => document.querySelector('#messages li')
                    ? done(document.querySelector('#messages').textContent) : setTimeout(look, 20);
                look();
            })"""
            assert tab.evaluate(text) == "Ada <i>from a page</i>"
            assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth") is True
            assert tab.failures == []
            tab.close()
        assert other.read() == {"visitors": 2}
        assert other.read() == {"visitors": 1}


def test_start_without_flask_sock_says_what_to_install(tmp_path: Path) -> None:
    """The package hidden, as where only Flask is installed."""
    (tmp_path / "flask_sock.py").write_text("raise ImportError('hidden')\n")
    env = clean_environment()
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    command = [sys.executable, "-m", "epollwsgi", "-b", "127.0.0.1:0", "examples.chat"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 3
    assert "examples.chat needs flask-sock: pip install flask-sock" in done.stderr


def test_other_examples_do_without_it() -> None:
    """Nothing else refers to the chat, so that nothing is broken where flask-sock is missing."""
    others = [
        path for path in (ROOT / "examples").rglob("*") if path.is_file() and path.suffix in (".py", ".html", ".js")
    ]
    assert {path.name for path in others if "chat" in path.read_text("utf-8")} == {"chat.py", "chat.html", "chat.js"}
