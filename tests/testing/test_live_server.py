"""LiveServer: what a test gets of it while it serves, and what is left of it afterwards, which is nothing."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import flask
import pytest
import simple_websocket

import epollwsgi.errors
from epollwsgi.errors import ApplicationFailed, ApplicationNotFound, ConfigError, EpollwsgiError, StartError
from epollwsgi.testing import NOTE_SIZE, LiveServer, running_servers, tail
from tests.apps.base import PLAIN, App, Environ, Start
from tests.support import Client, connect, wait_until
from tests.testing.asking import ask, ask_on, descriptors, state_of_process

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG_S = 30.0  # how long a test waits for what must come


def hello(environ: Environ, start_response: Start) -> list[bytes]:
    start_response("200 OK", PLAIN)
    return [b"hello"]


def fail(environ: Environ, start_response: Start) -> list[bytes]:
    raise LookupError("lost in the application")


class Gate:
    """An application whose call at /slow does not return before it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, environ: Environ, start_response: Start) -> list[bytes]:
        self.threads.append(threading.current_thread())
        if environ["PATH_INFO"] == "/slow":
            self.entered.set()
            assert self.opened.wait(LONG_S)
        start_response("200 OK", PLAIN)
        return [environ["PATH_INFO"].encode()]


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Opened at the end, so that no thread stays."""
    one = Gate()
    try:
        yield one
    finally:
        one.opened.set()
        for thread in one.threads:
            thread.join(LONG_S)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread of the server outlives a test, and no server."""
    yield
    assert list(running_servers()) == []
    wait_until(
        lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("epollwsgi")],
        what="the threads of the server to end",
    )


def refuses(port: int) -> bool:
    """Nobody listens there any more."""
    try:
        connect(("127.0.0.1", port), 5.0).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it came just before the end
    return False


# --- what it serves -------------------------------------------------------------------------------------------------


def test_what_a_test_changes_is_what_the_application_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    app = flask.Flask("shop")
    prices = {"tea": 3}

    @app.get("/<name>")
    def price(name: str) -> str:
        return f"{prices[name]} {os.environ['CURRENCY']}"

    monkeypatch.setenv("CURRENCY", "EUR")
    with LiveServer(app) as server:
        assert ask(server.address, "/tea").body == b"3 EUR"  # type: ignore[arg-type]
        prices["tea"] = 4
        monkeypatch.setenv("CURRENCY", "NOK")
        assert ask((server.host, server.port), "/tea").body == b"4 NOK"


def test_it_is_the_server_itself() -> None:
    with LiveServer(hello) as server, Client((server.host, server.port)) as client:
        answer = client.request(GET % b"/")
        assert (answer.status, answer.body) == (200, b"hello")
        assert answer["Server"] == f"epollwsgi/{epollwsgi.__version__}"
        assert client.request(GET % b"/twice").status == 200  # on the same connection
        assert client.request(b"GET / HTTP/1.1\r\n\r\n").status == 400


def test_where_it_is() -> None:
    server = LiveServer(hello)
    with pytest.raises(EpollwsgiError, match="no address before it is started"):
        server.url  # noqa: B018
    with server:
        assert server.host == "127.0.0.1"
        assert server.port > 0
        assert server.address == (server.host, server.port)
        assert server.url == str(server) == f"http://127.0.0.1:{server.port}"
    assert server.url == f"http://127.0.0.1:{server.port}"


def test_a_wildcard_is_reached_at_home() -> None:
    with LiveServer(hello, bind="0.0.0.0:0") as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert ask((server.host, server.port)).status == 200


def test_a_unix_socket(tmp_path: Path) -> None:
    path = os.path.relpath(tmp_path / "s")  # room for 107 bytes only
    with LiveServer(hello, bind=f"unix:{path}") as server:
        assert server.address == path
        assert server.url == f"unix:{path}"
        with Client(path) as client:
            assert client.request(GET % b"/").body == b"hello"
        with pytest.raises(EpollwsgiError, match="neither host nor port"):
            server.port  # noqa: B018
    assert not os.path.exists(path)


@pytest.mark.parametrize("as_path", [True, False], ids=["path", "text"])
def test_a_directory_is_a_site(tmp_path: Path, as_path: bool) -> None:
    (tmp_path / "index.html").write_text("<p>home")
    (tmp_path / "large.bin").write_bytes(b"x" * 300_000)
    with LiveServer(tmp_path if as_path else str(tmp_path)) as server:
        answer = ask((server.host, server.port))
        assert (answer.body, answer.fields["Content-Type"]) == (b"<p>home", "text/html; charset=utf-8")
        assert ask((server.host, server.port), "/large.bin").body == b"x" * 300_000
        assert ask((server.host, server.port), "/none").status == 404
        (tmp_path / "new").write_text("new")
        assert ask((server.host, server.port), "/new").body == b"new"


def test_a_site_with_work_for_its_helper(tmp_path: Path) -> None:
    """What is asked for often is compressed on a thread, which ends with the server."""
    (tmp_path / "a.css").write_bytes(b"p { color: red }\n" * 1000)
    request = b"GET /a.css HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"
    with LiveServer(tmp_path, compress=True) as server, Client((server.host, server.port)) as client:
        wait_until(lambda: client.request(request).get("Content-Encoding") == "gzip", what="the copy to be made")
        assert "epollwsgi-helper" in {thread.name for thread in threading.enumerate()}


def test_a_path_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("home")
    monkeypatch.chdir(tmp_path)
    with LiveServer(Path("site")) as server:
        assert ask((server.host, server.port)).body == b"home"


def test_files_beside_an_application(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("p{}")
    with LiveServer(hello, static={"/assets": tmp_path}) as server:
        assert ask((server.host, server.port), "/assets/a.css").body == b"p{}"
        assert ask((server.host, server.port), "/other").body == b"hello"
    with LiveServer(static=[f"/assets={tmp_path}"]) as server:
        assert ask((server.host, server.port), "/assets/a.css").body == b"p{}"
        assert ask((server.host, server.port), "/other").status == 404


def test_an_application_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_by_name.py").write_text(
        "def make(word):\n"
        "    def app(environ, start_response):\n"
        "        start_response('200 OK', [])\n"
        "        return [word.encode()]\n"
        "    return app\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "shop_by_name", raising=False)
    path = list(sys.path)
    with LiveServer("shop_by_name:make('word')") as server:
        assert ask((server.host, server.port)).body == b"word"
    assert sys.path == path


def test_a_stream_arrives_as_it_is_made() -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"first"
        assert go_on.wait(LONG_S)
        yield b"second"

    with LiveServer(app) as server, closing(http.client.HTTPConnection(server.host, server.port, timeout=20)) as one:
        one.request("GET", "/")
        with one.getresponse() as response:
            assert response.read(5) == b"first"
            go_on.set()
            assert response.read() == b"second"


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_slow_request_holds_nobody_up(gate: Gate, tmp_path: Path, threads: int) -> None:
    (tmp_path / "a.txt").write_text("file")
    mounts = [f"/static={tmp_path}"]
    with LiveServer(gate, threads=threads, static=mounts) as server, Client((server.host, server.port)) as slow:
        slow.send(GET % b"/slow")
        assert gate.entered.wait(LONG_S)
        assert ask((server.host, server.port), "/static/a.txt").body == b"file"
        if threads > 1:
            assert ask((server.host, server.port), "/fast").body == b"/fast"
        gate.opened.set()
        assert slow.read_response().body == b"/slow"


def test_one_thread_makes_every_call(gate: Gate) -> None:
    gate.opened.set()
    with LiveServer(gate, threads=1) as server:
        for _ in range(3):
            assert ask((server.host, server.port), "/slow").status == 200
        assert {thread.name for thread in gate.threads} == {"epollwsgi-live-server"}


def test_a_large_body() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        body = environ["wsgi.input"].read()
        start_response("200 OK", PLAIN)
        return [body[::-1]]

    body = bytes(range(256)) * 4096
    with LiveServer(app, body_buffer_size="1K") as server:
        assert ask((server.host, server.port), "/", "POST", body).body == body[::-1]


def test_a_websocket_and_its_end() -> None:
    closed = threading.Event()

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        ws = simple_websocket.Server.accept(environ)
        try:
            while True:
                ws.send(ws.receive().upper())
        except simple_websocket.ConnectionClosed:
            closed.set()
        return []

    with LiveServer(app) as server:
        client = simple_websocket.Client.connect(f"ws://127.0.0.1:{server.port}/")
        client.send("hello")
        assert client.receive(timeout=LONG_S) == "HELLO"
    assert closed.wait(LONG_S)
    with pytest.raises(simple_websocket.ConnectionClosed):
        client.receive(timeout=LONG_S)
    client.thread.join(LONG_S)


def test_several_at_once() -> None:
    def app(word: str) -> App:
        def answer(environ: Environ, start_response: Start) -> list[bytes]:
            start_response("200 OK", PLAIN)
            return [word.encode()]

        return answer

    with LiveServer(app("one")) as one, LiveServer(app("two")) as two, LiveServer(app("three")) as three:
        servers = [one, two, three]
        assert len({server.port for server in servers}) == 3
        assert set(running_servers()) == set(servers)
        for _ in range(3):
            assert [ask((it.host, it.port)).body for it in servers] == [b"one", b"two", b"three"]
        two.close()
        assert [ask((it.host, it.port)).body for it in (one, three)] == [b"one", b"three"]
        assert set(running_servers()) == {one, three}


def test_one_server_asks_another() -> None:
    with LiveServer(hello) as inner:

        def app(environ: Environ, start_response: Start) -> list[bytes]:
            start_response("200 OK", PLAIN)
            return [b"outer ", ask((inner.host, inner.port)).body]

        with LiveServer(app) as outer:
            assert ask((outer.host, outer.port)).body == b"outer hello"


def test_hooks_of_a_request() -> None:
    seen: list[str] = []

    def pre_request(worker: Any, req: Any) -> None:
        seen.append(f"{req.method} {req.path} in {worker.pid == os.getpid()}")

    def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:
        seen.append(f"{resp.status}")

    with LiveServer(hello, pre_request=pre_request, post_request=post_request) as server:
        assert ask((server.host, server.port), "/x").body == b"hello"
        wait_until(lambda: len(seen) == 2, what="post_request")
    assert seen == ["GET /x in True", "200 OK"]


# --- what it says ---------------------------------------------------------------------------------------------------


def test_the_log_holds_tracebacks() -> None:
    def app(environ: Environ, start_response: Start) -> list[bytes]:
        environ["wsgi.errors"].write("said by the application\n")
        return fail(environ, start_response)

    with LiveServer(app) as server:
        assert server.log == ""
        assert ask((server.host, server.port)).status == 500
        assert "LookupError: lost in the application" in server.log
        assert "in fail" in server.log
        assert "said by the application\n" in server.log
        while_it_served = server.log
    assert server.log.startswith(while_it_served)


def test_the_access_log_has_each_answered_request(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("file")
    with LiveServer(hello, static=[f"/s={tmp_path}"]) as server:
        for number in range(10):
            assert ask((server.host, server.port), f"/{number}").status == 200
            assert f'"GET /{number} HTTP/1.1" 200 5 ' in server.access_log
        assert ask((server.host, server.port), "/s/a.txt").body == b"file"
        assert '"GET /s/a.txt HTTP/1.1" 200 4 ' in server.access_log
    assert server.access_log.count("\n") == 11


def test_the_access_log_elsewhere(tmp_path: Path) -> None:
    with LiveServer(hello, accesslog=tmp_path / "access") as server:
        assert ask((server.host, server.port)).status == 200
        assert server.access_log == ""
    assert '"GET / HTTP/1.1" 200' in (tmp_path / "access").read_text()


def test_nothing_is_said_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with LiveServer(fail) as server:
        assert ask((server.host, server.port)).status == 500
    assert capfd.readouterr() == ("", "")


def raise_in_block(app: App, error: BaseException) -> None:
    """One request, then the block ends with the exception."""
    with LiveServer(app) as server:
        assert ask((server.host, server.port)).status in (200, 500)
        raise error


def test_an_exception_in_the_block_gets_the_log() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        raise_in_block(fail, ZeroDivisionError())
    [note] = caught.value.__notes__
    assert note.startswith("epollwsgi log of http://127.0.0.1:")
    assert "LookupError: lost in the application" in note


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_gets_no_note(kind: type[BaseException]) -> None:
    with pytest.raises(kind) as caught:
        raise_in_block(fail, kind())
    assert not hasattr(caught.value, "__notes__")


def test_an_empty_log_is_no_note() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        raise_in_block(hello, ZeroDivisionError())
    assert not hasattr(caught.value, "__notes__")


def test_a_note_has_the_end_of_a_long_log() -> None:
    assert tail("a\nb\n") == "a\nb\n"
    lines = "".join(f"line {number}\n" for number in range(NOTE_SIZE))
    assert tail(lines).startswith("...\nline ")
    assert tail(lines).endswith(f"line {NOTE_SIZE - 1}\n")
    assert len(tail(lines)) <= NOTE_SIZE + 4


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_the_address_is_free_at_once() -> None:
    with LiveServer(hello) as server:
        port = server.port
        client = Client((server.host, server.port))
        assert client.request(GET % b"/").status == 200
    with client:
        assert client.receive() == b""  # it idled
    assert refuses(port)
    with LiveServer(hello, bind=f"127.0.0.1:{port}") as server:
        assert ask(("127.0.0.1", port)).body == b"hello"


def test_a_request_under_way_is_finished(gate: Gate) -> None:
    answers = []
    with LiveServer(gate, graceful_timeout=LONG_S) as server:
        client = Client((server.host, server.port))
        client.send(GET % b"/slow")
        assert gate.entered.wait(LONG_S)

        def open_gate() -> None:
            wait_until(lambda: refuses(server.port), what="the listener to be closed")
            gate.opened.set()

        opener = threading.Thread(target=open_gate)
        opener.start()
    opener.join(LONG_S)
    with client:
        answers.append(client.read_response())
    assert answers[0].body == b"/slow"
    assert answers[0]["Connection"] == "close"


@pytest.mark.parametrize("threads", [1, 8])
def test_a_call_that_does_not_return_is_given_up(gate: Gate, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epollwsgi.process.background.JOIN_S", 0.2)
    with LiveServer(gate, graceful_timeout=0.1, threads=threads) as server:
        client = Client((server.host, server.port))
        client.send(GET % b"/slow")
        assert gate.entered.wait(LONG_S)
    assert refuses(server.port)
    assert "1 connections were cut at the end (graceful_timeout)" in server.log
    gate.opened.set()
    with client:
        assert client.receive() == b""


def test_ctrl_c_in_the_block_waits_for_nobody(gate: Gate) -> None:
    server = LiveServer(gate, graceful_timeout=3600)

    def be_interrupted() -> None:
        with server, Client((server.host, server.port)) as client:
            client.send(GET % b"/slow")
            assert gate.entered.wait(LONG_S)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert refuses(server.port)


def test_closing_twice_and_starting_twice() -> None:
    server = LiveServer(hello)
    with server:
        with pytest.raises(EpollwsgiError, match="is started once"):
            server.start()
        assert ask((server.host, server.port)).status == 200
        server.close()
        assert refuses(server.port)
    server.close()
    with pytest.raises(EpollwsgiError, match="is started once"):
        server.start()
    LiveServer(hello).close()


def test_the_application_closes_the_server() -> None:
    servers: list[LiveServer] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        servers[0].close()
        start_response("200 OK", PLAIN)
        return [b"the last"]

    for threads in (1, 8):
        server = LiveServer(app, threads=threads).start()
        servers[:] = [server]
        assert ask((server.host, server.port)).body == b"the last"
        wait_until(lambda port=server.port: refuses(port), what="the server to end")  # type: ignore[misc]


def test_used_and_closed_on_other_threads() -> None:
    servers: list[LiveServer] = []
    starter = threading.Thread(target=lambda: servers.append(LiveServer(hello).start()))
    starter.start()
    starter.join(LONG_S)
    assert ask((servers[0].host, servers[0].port)).body == b"hello"
    closer = threading.Thread(target=servers[0].close)
    closer.start()
    closer.join(LONG_S)
    assert refuses(servers[0].port)


# --- what is left ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application", "site"])
def test_twenty_servers_leave_nothing(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" * 200_000)
    (tmp_path / "index.html").write_text("home")

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        start_response("200 OK", PLAIN)
        return [environ["wsgi.input"].read()]

    def serve() -> None:
        clients = []
        served: Any = app if kind == "application" else tmp_path
        with LiveServer(served, body_buffer_size=1000) as server:
            for number in range(4):
                client = http.client.HTTPConnection(server.host, server.port, timeout=20)
                clients.append(client)
                if kind == "application":
                    assert len(ask_on(client, f"/{number}", "POST", b"b" * 5000).body) == 5000
                else:
                    assert len(ask_on(client, "/a.bin" if number % 2 else "/").body) in (4, 200_000)
        for client in clients:
            client.close()

    serve()  # what is made once
    before = descriptors()
    for _ in range(20):
        serve()
    wait_until(lambda: set(descriptors().items()) <= set(before.items()), 30, f"{descriptors()} to be {before}")


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """A soft limit below the hard one, which a server of its own process would raise."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 1000), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("few_descriptors")
def test_the_process_is_left_as_it_is() -> None:
    before = state_of_process()
    with LiveServer(fail) as server:
        assert ask((server.host, server.port)).status == 500
        during = state_of_process()
    wait_until(lambda: state_of_process()["threads"] == before["threads"], what="the threads to end")
    assert state_of_process() == before
    del before["threads"], during["threads"]
    assert during == before


def test_a_forked_process_has_nothing_of_it() -> None:
    with LiveServer(hello) as server, Client((server.host, server.port)) as client:
        assert client.request(GET % b"/").status == 200
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
            pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                server.close()
                theirs.send(b"0" if not list(running_servers()) else b"1")
                theirs.recv(1)
            finally:
                os._exit(0)
        theirs.close()
        try:
            ours.settimeout(LONG_S)
            assert ours.recv(1) == b"0"
            assert client.request(GET % b"/again").status == 200
            server.close()
            assert client.receive() == b""
            assert refuses(server.port)  # while the child lives
        finally:
            ours.close()
            os.waitpid(pid, 0)


# --- what it refuses ------------------------------------------------------------------------------------------------


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


REFUSALS: dict[str, tuple[Any, dict[str, object], type[StartError], str]] = {
    "unknown name": (hello, {"thread": 4}, ConfigError, r"LiveServer\(\): thread: no such .* threads\?"),
    "bad value": (hello, {"threads": 0}, ConfigError, r"LiveServer\(\): threads = 0: a whole number from 1 "),
    "workers": (hello, {"workers": 2}, ConfigError, r"workers: a master and processes of its own are needed"),
    "reload": (hello, {"reload": True}, ConfigError, r"reload: a master "),
    "daemon": (hello, {"daemon": True}, ConfigError, r"daemon: a master "),
    "hook of a process": (hello, {"post_fork": hello}, ConfigError, r"post_fork: a master "),
    "directory of the process": (hello, {"chdir": "/"}, ConfigError, r"chdir: it changes the whole process"),
    "umask": (hello, {"umask": "022"}, ConfigError, r"umask: it changes the whole process"),
    "errorlog": (hello, {"errorlog": "x"}, ConfigError, r"errorlog: the error log is kept in memory"),
    "settings file": (hello, {"config": "x.toml"}, ConfigError, r"config: the command line has this setting"),
    "hook that cannot be called": (hello, {"pre_request": lambda: None}, ConfigError, r"pre_request: a function that "),
    "nothing": (None, {}, ConfigError, r"nothing to serve"),
    "number": (5, {}, ConfigError, r"LiveServer\(\): 5 is no WSGI application"),
    "factory": (lambda: hello, {}, ConfigError, r"cannot be called with \(environ, start_response\)"),
    "ASGI": (asgi, {}, ConfigError, r"looks like an ASGI application"),
    "no directory": ("./no/such", {}, ConfigError, r"No such file or directory"),
    "no path": (Path("no such"), {}, ConfigError, r"No such file or directory"),
    "source code": ("./epollwsgi", {}, ConfigError, r"looks like source code"),
    "mount that is none": (hello, {"static": ["/s=/no/such"]}, ConfigError, r"/no/such: No such file or directory"),
    "two roots": ("./html", {"static": ["/=./html"]}, ConfigError, r"both want to be served at /"),
    "its own source": (hello, {"static": ["/=tests"]}, ConfigError, r"holds the application's own module"),
    "no module": ("no_such_module_here", {}, ApplicationFailed, r"there is no module named no_such_module_here"),
    "no attribute": ("tests.testing.asking:nothing", {}, ApplicationNotFound, r"has no attribute nothing"),
    "no address": (hello, {"bind": "192.0.2.1:0"}, ConfigError, r"Cannot assign requested address"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_mistake_is_raised_in_the_line_of_with(
    case: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    served, settings, kind, message = REFUSALS[case]
    monkeypatch.chdir(request.config.rootpath)
    before = descriptors()
    with pytest.raises(kind, match=message) as caught, LiveServer(served, **settings):
        pytest.fail("it serves")
    assert "\n" not in str(caught.value)
    assert set(descriptors()) <= set(before)


def test_a_module_that_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_for_live.py").write_text("def deep():\n    raise OSError('not today')\ndeep()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ApplicationFailed, match=r"(?s)importing broken_for_live failed.*in deep.*not today"):
        LiveServer("broken_for_live:app").start()


def test_an_address_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: Address already in use"):
            LiveServer(hello, bind=f"127.0.0.1:{port}").start()


def test_ready_path() -> None:
    asked: list[str] = []

    def app(environ: Environ, start_response: Start) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        start_response("503 Service Unavailable" if environ["PATH_INFO"] == "/never" else "200 OK", PLAIN)
        return [b""]

    with LiveServer(app, ready_path="/ready"):
        assert asked == ["/ready"]
    before = descriptors()
    with pytest.raises(ApplicationFailed, match="ready_path = '/never' was answered with 503"):
        LiveServer(app, ready_path="/never").start()
    assert set(descriptors()) <= set(before)


def test_names_of_errors() -> None:
    """As the docstrings promise: everything at a start is a StartError."""
    assert issubclass(ConfigError, epollwsgi.errors.StartError)
    assert issubclass(ApplicationFailed, epollwsgi.errors.StartError)
