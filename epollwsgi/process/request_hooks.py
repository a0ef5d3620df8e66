"""The hooks of a request, pre_request and post_request, as a WSGI application around the operator's own. PEP 3333.

`process.boot` wraps the application only where one of the two is set: without them nothing is in between.

    pre_request    before the application is called; if it raises, the request is answered with 500
    post_request   once for each request, when the application's iterable has been closed, or the application, or
                   pre_request, has raised; on the thread of the call

The server sees one iterable instead of another, and sends the same bytes: a file in wsgi.file_wrapper is still sent by
os.sendfile; of a list, whose length the server would have found, the length is announced here. Every item of another
iterable costs a call more, and the time that a hook takes counts as the application's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from epollwsgi.errors import ResponseInvalid
from epollwsgi.file_wrapper import FileWrapper
from epollwsgi.http.fields import Environ
from epollwsgi.http.response import has_no_content
from epollwsgi.process.hook_objects import HookWorker
from epollwsgi.process.hooks import HOOKS, Function
from epollwsgi.wsgi import Application

FAILED = "500 Internal Server Error"
NO_ERROR = (None, None, None)  # sys.exc_info() where nothing is being handled
Headers = list[tuple[str, str]]


class HookRequest:
    """`req`: the request as it came, whatever the application does to environ. Hooks may set attributes on it."""

    def __init__(self, environ: Environ) -> None:
        self._environ: Mapping[str, Any] = environ.copy()
        self.method: str = environ["REQUEST_METHOD"]
        self.uri: str = environ.get("RAW_URI", "")
        self.scheme: str = environ["wsgi.url_scheme"]
        self.body: BinaryIO = environ["wsgi.input"]
        self.fragment = ""  # a target cannot hold one

    @cached_property
    def path(self) -> str:
        """The path of the target, not decoded."""
        return self.uri.partition("?")[0] if self.uri.startswith("/") else urlsplit(self.uri).path

    @cached_property
    def query(self) -> str:
        """What follows the question mark."""
        return self.uri.partition("?")[2]

    @cached_property
    def version(self) -> tuple[int, ...]:
        """(1, 1) or (1, 0)."""
        return tuple(map(int, self._environ["SERVER_PROTOCOL"].removeprefix("HTTP/").split(".")))

    @cached_property
    def headers(self) -> Headers:
        """Names in capitals; fields that came several times are joined, as environ has them."""
        names = (key.removeprefix("HTTP_") for key in self._environ)
        return [
            (name.replace("_", "-"), value)
            for name, (key, value) in zip(names, self._environ.items(), strict=True)
            if name != key or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        ]

    @cached_property
    def peer_addr(self) -> tuple[str, int] | str:
        """Address and port of the TCP peer; '' for a unix socket."""
        return address_from(self._environ.get("epollwsgi.peer"))

    @cached_property
    def remote_addr(self) -> tuple[str, int] | str:
        """Address and port of the client."""
        return address_from((self._environ.get("REMOTE_ADDR", ""), self._environ.get("REMOTE_PORT", "")))


def address_from(peer: tuple[str, str] | None) -> tuple[str, int] | str:
    """An address and a port as gunicorn has them; 0 where a proxy tells no port."""
    return (peer[0], int(peer[1] or 0)) if peer is not None and peer[0] else ""


class HookResponse:
    """`resp`: what the application gave to start_response, or the 500 that the server answers where it failed."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.headers: Headers = []
        self.sent = 0
        """bytes of content that the application gave; the client may have gone before it had them all"""

    @property
    def status_code(self) -> int | None:
        """The number of the status; None if there is no response."""
        return None if self.status is None else int(self.status[:3])

    @property
    def response_length(self) -> int | None:
        """Content-Length, if the application gave one."""
        values = [value for name, value in self.headers if name.lower() == "content-length"]
        return int(values[0]) if values else None


def wrap_application(
    application: Application, pre: Function | None, post: Function | None, worker: HookWorker
) -> Application:
    """The application with the hooks around it; as it is if there are none.

    pre: called as `pre(worker, req)`.  post: as `post(worker, req, environ, resp)`, see `Hooks.post_request`.
    """
    if pre is None and post is None:
        return application
    if post is None:

        def call_behind_hook(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
            call_before(pre, worker, HookRequest(environ))
            return application(environ, start_response)

        return call_behind_hook

    def call_between_hooks(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        return Call(environ, start_response, post, worker).run(application, pre)

    return call_between_hooks


def call_before(pre: Function | None, worker: HookWorker, request: HookRequest) -> None:
    """pre_request. Raises RuntimeError, which is a 500, whatever it raised: none of its exceptions has a meaning."""
    if pre is not None:
        try:
            pre(worker, request)
        except BaseException as error:
            raise RuntimeError(HOOKS["pre_request"].describe_failure("pre_request")) from error


class Call:
    """One call of the application between the hooks, and the iterable that the server is given."""

    def __init__(
        self, environ: Environ, start_response: Callable[..., Any], post: Function, worker: HookWorker
    ) -> None:
        self.request = HookRequest(environ)
        self.response = HookResponse()
        self._environ = environ
        self._start_response = start_response
        self._write: Callable[[bytes], object] | None = None
        self._post = post
        self._worker = worker
        self._result: Iterable[bytes] = ()
        self._items: Iterator[bytes] = iter(())
        self._close: Callable[[], object] | None = None
        self._has_begun = False  # the head may have been sent
        self._has_socket = "gunicorn.socket" in environ  # a WebSocket; a call that took it over ends in StopIteration
        self._took_socket = False
        self._is_over = False

    def run(self, application: Application, pre: Function | None) -> Iterable[bytes]:
        """What the server iterates over and closes. Raises what the application raises."""
        try:
            call_before(pre, self._worker, self.request)
            result = application(self._environ, self.start_response)
            if (type(result) is list or type(result) is tuple) and not self._has_begun:
                result = self._announce(result)
        except BaseException as error:
            self._note(error)
            self._end()
            raise
        self._close = getattr(result, "close", None)
        if type(result) is FileWrapper and (found := result.real_file()) is not None:
            length = self.response.response_length
            self.response.sent = found[2] if length is None else length
            result.close = self.close  # it stays what it is, so that the server sends it by os.sendfile
            return result
        self._result = result
        return self

    # --- towards the application ------------------------------------------------------------------------------------

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        """PEP 3333."""
        try:
            self._write = self._start_response(status, headers, exc_info)
        finally:
            exc_info = None  # no cycle through this frame
        self.response.status = status
        self.response.headers = list(headers)
        return self.write

    def write(self, content: bytes) -> None:
        """PEP 3333."""
        if self._write is not None:
            self._write(content)
            self._has_begun = True
            self.response.sent += len(content)

    # --- towards the server -----------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        try:
            self._items = iter(self._result)
        except BaseException as error:
            self._note(error)
            raise
        return self

    def __next__(self) -> bytes:
        try:
            content = next(self._items)
        except StopIteration:
            raise
        except BaseException as error:
            self._note(error)
            raise
        if content and isinstance(content, bytes):
            self._has_begun = True
            self.response.sent += len(content)
        return content

    def close(self) -> None:
        """PEP 3333: called by the server once, whatever happened."""
        try:
            if self._close is not None:
                self._close()
        finally:
            self._end()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _announce(self, items: list[bytes] | tuple[bytes, ...]) -> Iterable[bytes]:
        """All content in one piece, and its length in the head: the server finds it itself in a list, not here.

        The head has not been sent, so that it may be replaced, which PEP 3333 has exc_info for. Raises ResponseInvalid.
        """
        content = items[0] if len(items) == 1 else b"".join(items)
        if not isinstance(content, bytes):
            raise ResponseInvalid(f"content must be bytes, not {type(content).__name__}")
        response = self.response
        if response.status is not None and response.response_length is None:
            if not has_no_content(self.request.method, response.status_code or 0):
                length = ("Content-Length", str(len(content)))
                self._start_response(response.status, [*response.headers, length], NO_ERROR)
        return (content,)

    def _note(self, error: BaseException) -> None:
        """The application raised: where nothing was sent, what it had begun with is not answered."""
        if not self._has_begun:
            self.response.status = None
            self.response.headers = []
        self._took_socket = isinstance(error, StopIteration) and self._has_socket

    def _end(self) -> None:
        """post_request, once."""
        if self._is_over:
            return
        self._is_over = True
        response = self.response
        if response.status is None and not self._took_socket:
            response.status = FAILED
        if has_no_content(self.request.method, response.status_code or 0):
            response.sent = 0
        try:
            self._post(self._worker, self.request, self._environ, response)
        except BaseException:
            self._worker.log.exception(HOOKS["post_request"].describe_failure("post_request"))
