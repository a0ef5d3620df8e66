"""pre_request and post_request: when they are called and what with, and that responses stay what they were."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from inspect import isfunction
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from epollwsgi.config.settings import DEFAULTS
from epollwsgi.file_wrapper import FileWrapper
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.sink import Sink
from epollwsgi.process.hook_objects import HookConfig, HookLog, HookWorker
from epollwsgi.process.request_hooks import HookRequest, HookResponse, wrap_application
from tests.apps import valid, wrong
from tests.apps.base import FIRST, PLAIN, SECOND, App, Environ, Items, Start, with_length
from tests.support import Client, Response, Server, ServerFactory, Truncated, wait_until

BODY = FIRST + SECOND


# --- called as a server calls ---------------------------------------------------------------------------------------


class Scene:
    """An application between hooks; what the hooks get is kept."""

    def __init__(self, directory: Path) -> None:
        self.log_path = directory / "log"
        self.worker = HookWorker(1, 2, HookConfig(DEFAULTS), HookLog(ErrorLog(Sink(str(self.log_path), 2))))
        self.events: list[str] = []
        self.request: HookRequest | None = None
        self.response: HookResponse | None = None
        self.environ: Environ | None = None
        self.pre_error: BaseException | None = None
        self.post_error: BaseException | None = None
        self.error: BaseException | None = None

    def pre(self, worker: HookWorker, req: HookRequest) -> None:
        assert worker is self.worker
        self.events.append("pre")
        self.request = req
        if self.pre_error is not None:
            raise self.pre_error

    def post(self, worker: HookWorker, req: HookRequest, environ: Environ, resp: HookResponse) -> None:
        assert worker is self.worker
        assert req is self.request
        self.events.append("post")
        self.environ, self.response = environ, resp
        if self.post_error is not None:
            raise self.post_error

    def call(self, application: App, **given: Any) -> tuple[int, bytes]:
        """Status and content of the response, as a server makes it that does just what PEP 3333 says."""
        environ = build_environ(**given)
        sent: list[bytes] = []
        statuses: list[str] = []

        def start(status: str, headers: object, exc_info: object = None) -> Callable[[bytes], None]:
            assert not statuses or exc_info is not None
            statuses.append(status)
            return sent.append

        result: Any = None
        try:
            result = wrap_application(application, self.pre, self.post, self.worker)(environ, start)
            for content in result:
                assert statuses
                sent.append(content)
        except BaseException as error:
            self.error = error
        finally:
            if hasattr(result, "close"):
                try:
                    result.close()
                except BaseException as error:
                    self.error = error
        content = b"".join(sent)
        return int(statuses[-1][:3]) if self.error is None or content else 500, content

    def log_text(self) -> str:
        return self.log_path.read_text("utf-8")

    def seen(self) -> HookResponse:
        assert self.response is not None
        return self.response


def build_environ(**given: Any) -> Environ:
    environ: Environ = {"QUERY_STRING": "", **given}
    setup_testing_defaults(environ)
    return environ | {"wsgi.errors": sys.stderr, "wsgi.file_wrapper": FileWrapper}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def iterates(scene: Scene, *items: bytes | BaseException, close: BaseException | None = None) -> App:
    """An application whose iterable notes what is asked of it."""

    class Noted(Items):
        def __next__(self) -> bytes:
            scene.events.append("next")
            return super().__next__()

        def close(self) -> None:
            scene.events.append("close")
            super().close()

    def app(environ: Environ, start: Start) -> Any:
        scene.events.append("call")
        start("200 OK", PLAIN)
        return Noted(*items, close=close)

    return app


def test_the_order_of_calls(scene: Scene) -> None:
    assert scene.call(iterates(scene, FIRST, SECOND)) == (200, BODY)
    assert scene.events == ["pre", "call", "next", "next", "next", "close", "post"]
    assert scene.error is None


ORDERS: dict[str, tuple[tuple[bytes | BaseException, ...], BaseException | None, list[str], int, int]] = {
    "nothing": ((), None, ["next", "close"], 200, 0),
    "first fails": ((ValueError("first"), SECOND), None, ["next", "close"], 500, 0),
    "later fails": ((FIRST, ValueError("later")), None, ["next", "next", "close"], 200, 6),
    "exits": ((SystemExit("exit"),), None, ["next", "close"], 500, 0),
    "close fails": ((BODY,), ValueError("close"), ["next", "next", "close"], 200, 12),
    "both fail": ((ValueError("first"),), ValueError("close"), ["next", "close"], 500, 0),
}


@pytest.mark.parametrize("name", ORDERS)
def test_post_request_comes_once_and_last_whatever_fails(scene: Scene, name: str) -> None:
    items, close_error, events, status, sent = ORDERS[name]
    scene.call(iterates(scene, *items, close=close_error))
    assert scene.error is (close_error or next((item for item in items if isinstance(item, BaseException)), None))
    assert scene.events == ["pre", "call", *events, "post"]
    assert (scene.seen().status_code, scene.seen().sent) == (status, sent)
    assert scene.log_text() == ""


@pytest.mark.parametrize("error", [ValueError("of the application"), SystemExit(3), StopIteration()])
def test_an_application_that_raises(scene: Scene, error: BaseException) -> None:
    """The server is told just what it would have been told."""

    def app(environ: Environ, start: Start) -> Any:
        start("204 No Content", [("X-Begun", "1")])
        raise error

    wrapped = wrap_application(app, scene.pre, scene.post, scene.worker)
    environ = build_environ()
    with pytest.raises(type(error)) as raised:
        wrapped(environ, lambda *_: None)
    assert raised.value is error
    assert scene.events == ["pre", "post"]
    assert (scene.seen().status, scene.seen().headers) == ("500 Internal Server Error", [])


def test_a_call_that_took_the_socket_has_no_response(scene: Scene) -> None:
    def app(environ: Environ, start: Start) -> Any:
        raise StopIteration

    wrapped = wrap_application(app, scene.pre, scene.post, scene.worker)
    environ = build_environ(**{"gunicorn.socket": None})
    with pytest.raises(StopIteration):
        wrapped(environ, lambda *_: None)
    assert scene.events == ["pre", "post"]
    assert (scene.seen().status, scene.seen().status_code) == (None, None)


@pytest.mark.parametrize("error", [ValueError("of the hook"), SystemExit("of the hook"), StopIteration("of the hook")])
def test_a_request_whose_pre_request_fails_is_answered_with_500(scene: Scene, error: BaseException) -> None:
    scene.pre_error = error
    assert scene.call(iterates(scene, BODY))[0] == 500
    assert scene.events == ["pre", "post"]
    assert scene.seen().status_code == 500
    assert str(scene.error) == "the hook pre_request failed: the request is answered with 500"
    assert type(scene.error) is RuntimeError  # a StopIteration means something else to the server
    assert scene.error.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("of the hook"), SystemExit("of the hook")])
def test_a_post_request_that_fails_is_logged(scene: Scene, error: BaseException) -> None:
    scene.post_error = error
    assert scene.call(iterates(scene, BODY)) == (200, BODY)
    assert scene.events[-1] == "post"
    assert scene.error is None
    text = scene.log_text()
    assert "the hook post_request failed: the response stays as it is" in text
    assert f"{type(error).__name__}: of the hook" in text


def test_without_hooks_the_application_is_served_itself(scene: Scene) -> None:
    assert wrap_application(valid.list_one, None, None, scene.worker) is valid.list_one


def test_before_a_request_alone_nothing_is_put_around_the_response(scene: Scene) -> None:
    result = [BODY]
    wrapped = wrap_application(lambda environ, start: result, scene.pre, None, scene.worker)
    environ = build_environ()
    assert wrapped(environ, lambda *_: None) is result
    assert scene.events == ["pre"]
    scene.pre_error = ValueError("of the hook")
    with pytest.raises(RuntimeError, match="the hook pre_request failed"):
        wrapped(environ, lambda *_: None)


def test_after_a_request_alone(scene: Scene) -> None:
    seen: list[str] = []
    wrapped = wrap_application(
        valid.list_one, None, lambda worker, req, environ, resp: seen.append(resp.status), scene.worker
    )
    environ = build_environ()
    result: Any = wrapped(environ, lambda *_: None)
    assert seen == []
    assert b"".join(result) == BODY
    for _ in range(2):  # middleware may call it once too often
        result.close()
    assert seen == ["200 OK"]


VALID = {
    name: shape
    for name, shape in vars(valid).items()
    if isfunction(shape) and shape.__module__ == valid.__name__ and name != "file_of"
}


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_both_sides_of_the_hooks_keep_to_wsgi(scene: Scene, name: str, method: str) -> None:
    """Towards the server as towards the application, as far as wsgiref.validate sees."""
    inner = VALID[name] if name.startswith("file") else validator(VALID[name])
    outer: Any = validator(wrap_application(inner, scene.pre, scene.post, scene.worker))
    environ = build_environ(REQUEST_METHOD=method)
    written: list[bytes] = []
    started: list[str] = []

    def start(status: str, headers: object, exc_info: object = None) -> Callable[[bytes], None]:
        started.append(status)
        return written.append

    result = outer(environ, start)
    written.extend(result)
    result.close()
    assert started
    assert scene.events == ["pre", "post"]
    assert scene.seen().status == started[-1]
    content = b"".join(written)
    assert scene.seen().sent == (0 if method == "HEAD" else min(len(content), scene.seen().response_length or 99))


# --- what they are given --------------------------------------------------------------------------------------------


def test_the_request(scene: Scene) -> None:
    """As it came: the application changes environ as it likes."""
    body = io.BytesIO()
    environ = build_environ(
        REQUEST_METHOD="POST",
        RAW_URI="/a%20b/c?x=1&y=?2",
        SERVER_PROTOCOL="HTTP/1.1",
        HTTP_HOST="h",
        HTTP_X_TWO_WORDS="1,2",
        CONTENT_TYPE="text/plain",
        CONTENT_LENGTH="3",
        REMOTE_ADDR="10.1.1.1",
        REMOTE_PORT="4000",
        **{"epollwsgi.peer": ("127.0.0.1", "5000"), "wsgi.input": body},
    )

    def app(environ: Environ, start: Start) -> Any:
        environ.clear()
        start("200 OK", PLAIN)
        return []

    result: Any = wrap_application(app, scene.pre, scene.post, scene.worker)(environ, lambda *_: None)
    result.close()
    assert scene.environ == {}
    req = scene.request
    assert req is not None
    assert (req.method, req.uri) == ("POST", "/a%20b/c?x=1&y=?2")
    assert (req.path, req.query, req.fragment) == ("/a%20b/c", "x=1&y=?2", "")
    assert (req.version, req.scheme, req.body) == ((1, 1), "http", body)
    assert req.headers == [
        ("HOST", "h"),
        ("X-TWO-WORDS", "1,2"),
        ("CONTENT-TYPE", "text/plain"),
        ("CONTENT-LENGTH", "3"),
    ]
    assert (req.peer_addr, req.remote_addr) == (("127.0.0.1", 5000), ("10.1.1.1", 4000))


PATHS = {
    "/": ("/", ""),
    "//double/x": ("//double/x", ""),
    "/?": ("/", ""),
    "http://h:80/p/q?r=s": ("/p/q", "r=s"),
    "http://h?r": ("", "r"),
}


@pytest.mark.parametrize("target", PATHS)
def test_the_parts_of_a_target(target: str) -> None:
    req = HookRequest(build_environ(RAW_URI=target, SERVER_PROTOCOL="HTTP/1.0"))
    assert (req.path, req.query) == PATHS[target]
    assert req.version == (1, 0)
    assert (req.peer_addr, req.remote_addr) == ("", "")  # as over a unix socket


def test_the_response(scene: Scene) -> None:
    fields = with_length(12)
    scene.call(lambda environ, start: (start("201 Made here", fields), [FIRST, SECOND])[1])
    resp = scene.seen()
    assert (resp.status, resp.status_code, resp.headers) == ("201 Made here", 201, fields)
    assert (resp.sent, resp.response_length) == (12, 12)


def test_a_list_without_length(scene: Scene) -> None:
    """What the server is told beyond the application's own words is not shown as if it were one of these."""
    assert scene.call(valid.list_many) == (200, BODY)
    assert (scene.seen().headers, scene.seen().response_length, scene.seen().sent) == (PLAIN, None, 12)


def test_a_response_that_was_replaced(scene: Scene) -> None:
    assert scene.call(valid.replaced) == (503, BODY)
    assert scene.seen().status_code == 503
    assert ("X-New", "1") in scene.seen().headers


def test_a_file_stays_a_file(scene: Scene, tmp_path: Path) -> None:
    """So that the server can send it without reading it; its close() is still called, before post_request."""
    (tmp_path / "file").write_bytes(BODY)
    file = open(tmp_path / "file", "rb")  # noqa: SIM115  # the server closes it
    closed: list[bool] = []

    def app(environ: Environ, start: Start) -> Any:
        start("200 OK", PLAIN)
        return FileWrapper(file)

    def post(worker: object, req: object, environ: object, resp: HookResponse) -> None:
        closed.append(file.closed)
        assert resp.sent == 12

    environ = build_environ()
    result: Any = wrap_application(app, scene.pre, post, scene.worker)(environ, lambda *_: None)
    assert type(result) is FileWrapper
    assert result.real_file() == (file.fileno(), 0, 12)
    assert closed == []
    result.close()
    assert closed == [True]
    assert scene.log_text() == ""


# --- behind the server ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(start_module_server: ServerFactory) -> Server:
    return start_module_server("tests.apps.shapes:app")


@pytest.fixture(scope="module")
def hooked(start_module_server: ServerFactory) -> Iterator[Server]:
    server = start_module_server("tests.apps.hooked:app")
    yield server
    assert server.stop() == 0


def request(name: str, method: str = "GET", version: str = "1.1") -> bytes:
    return f"{method} /{name} HTTP/{version}\r\nHost: h\r\n\r\n".encode()


def outcome(server: Server, name: str, method: str, version: str) -> object:
    """All that a client sees of an answer, but for the time."""
    with Client(server.address) as client:
        client.send(request(name, method, version))
        try:
            response = client.read_response(method)
        except ConnectionResetError:
            return "reset"
        except Truncated as cut:
            return ("cut", None if cut.response is None else cut.response.body)
        return seen_of(response)


def seen_of(response: Response) -> object:
    fields = sorted((name, value) for name, value in response.fields if name.lower() != "date")
    return response.status, fields, response.body, response.chunks


def seen_by_hooks(server: Server, path: str, count: int) -> list[list[Any]]:
    """What post_request has noted of a path, once it has noted so much: calls may end after the answer has gone out."""
    rows: list[list[Any]] = []

    def has_come() -> bool:
        with Client(server.address) as client:
            rows.extend(row for row in json.loads(client.request(request("seen")).body) if row[1] == path)
        return len(rows) >= count

    wait_until(has_come, what=f"{count} calls of post_request for {path}")
    return rows


WIRE = sorted({*VALID, *wrong.BREACHES})


@pytest.mark.parametrize("name", WIRE)
def test_responses_are_what_they_are_without_hooks(bare: Server, hooked: Server, name: str) -> None:
    ways = [("GET", "1.1"), ("GET", "1.0"), ("HEAD", "1.1"), ("POST", "1.1")]
    for method, version in ways:
        assert outcome(hooked, name, method, version) == outcome(bare, name, method, version), (method, version)
    rows = seen_by_hooks(hooked, f"/{name}", len(ways))
    # post_request is called behind the response: those of calls on other threads may note it in another order.
    assert sorted(row[0] for row in rows) == sorted(method for method, _ in ways)
    assert all(row[4] for row in rows), "not on the thread of the call"


def test_a_failing_pre_request_is_a_500_and_the_connection_goes_on(hooked: Server) -> None:
    with Client(hooked.address) as client:
        response = client.request(request("pre_request_fails"))
        assert response.status == 500
        assert b"pre_request" not in response.body
        assert client.request(request("list_one")).body == BODY
    hooked.wait_for_log("SystemExit: pre_request of this route")
    assert [row[2] for row in seen_by_hooks(hooked, "/pre_request_fails", 1)] == [500]


def test_a_failing_post_request_changes_nothing_for_the_client(hooked: Server) -> None:
    with Client(hooked.address) as client:
        for _ in range(3):
            assert client.request(request("list_one?post_request_fails")).body == BODY
    hooked.wait_for_log("SystemExit: post_request of this route")


def test_what_a_generator_gave_does_not_wait_for_the_rest_of_it(start_server: ServerFactory, tmp_path: Path) -> None:
    """Also on a route that has always been quick, where other responses go out together."""
    server = start_server("tests.apps.hooked:app")
    with Client(server.address) as client:
        for _ in range(8):
            assert client.request(request("gated_whole")).body == BODY
        client.send(request(f"gated_whole?{tmp_path}"))
        while BODY not in client.buffer:
            assert client.receive(), "the connection ended"
        (tmp_path / "1").touch()
        client.read_response()


def test_an_endless_generator_ends_with_its_client(hooked: Server) -> None:
    with Client(hooked.address) as client:
        client.send(request("large?4000"))
        client.receive()
        client.reset()
    rows = seen_by_hooks(hooked, "/large", 1)
    assert rows[0][2] == 200
    assert rows[0][3] < 4000 << 20


def test_many_threads_each_have_their_own_hooks(hooked: Server) -> None:
    """Slow calls side by side: none is noted twice, none is lost, each ends on the thread that it began on."""
    count = 12

    def ask() -> None:
        with Client(hooked.address) as client:
            assert client.request(request("sleeps?0.05")).body == FIRST

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = seen_by_hooks(hooked, "/sleeps", count)
    assert len(rows) == count
    assert all(row[4] for row in rows)
