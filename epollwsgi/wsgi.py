"""One call of a WSGI application: environ and start_response, framing, the iterable, file_wrapper. PEP 3333; WIRE.md 5.

Knows no socket: what it produces goes to a `Sink` (the connection). `leader` decides where and when `Exchange.run` is
called; all of it, from the call to close(), happens on one thread.

How a response is framed, decided once the first content is known:

    no content     HEAD, 204, 304             head only
    length         Content-Length of the application, else of a list or tuple; file_wrapper: of the file
    chunked        HTTP/1.1
    until close    HTTP/1.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from types import GeneratorType, TracebackType
from typing import Any, Protocol

from epollwsgi.errors import ResponseInvalid
from epollwsgi.file_wrapper import DescriptorCopy, FileWrapper
from epollwsgi.http import response as r
from epollwsgi.http.fields import Environ

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

HEADS = r.ResponseHeads()

# Content up to this size is sent with its head in one piece: cheaper than a second system call.
ONE_PIECE_SIZE = 65536


class HasCommon(Protocol):
    """The loop, as far as a response needs it."""

    common: bytes
    """Date and Server field lines"""


class Sink(Protocol):
    """Where a response goes: a connection. Nothing here raises when the client has gone; `gone` tells."""

    @property
    def loop(self) -> HasCommon: ...

    gone: bool
    is_logged: bool
    """whether log_access is to be called"""

    @property
    def sends_files(self) -> bool:
        """Whether os.sendfile may be used."""

    def respond(self, response: bytes, keep: bool) -> None:
        """A whole response; it may wait for the end of the loop's turn."""

    def flush(self) -> None:
        """Send what waits for the end of the loop's turn, of all connections."""

    def send(self, data: bytes) -> None:
        """A part of a response, sent at once as far as the client takes it."""

    def send_file(self, head: bytes, file: DescriptorCopy, offset: int, count: int, keep: bool) -> None:
        """A whole response whose content is part of a file."""

    def finish(self, keep: bool) -> None:
        """What was sent is a whole response."""

    def abort(self, reset: bool) -> None:
        """What was sent is no whole response: close; with a reset where a close would look like its end."""

    def log_breach(self, message: str, error: BaseException | None) -> None:
        """The application did something wrong; error: with its traceback."""

    def log_access(self, environ: Environ, status: int, size: int) -> None:
        """One response is done; size: bytes of content."""


class Framing(IntEnum):
    """How the end of a response's content is told."""

    UNKNOWN, EMPTY, LENGTH, CHUNKED, CLOSE = range(5)


UNKNOWN, EMPTY, LENGTH, CHUNKED, CLOSE = Framing


class Route:
    """What is known of one path of the application: whether it is quick, and how it answered last."""

    __slots__ = ("head", "headers", "quick_calls", "status")

    def __init__(self) -> None:
        self.quick_calls = 0
        self.headers: list[tuple[str, str]] | None = None
        self.status = ""
        self.head: r.ResponseHead | None = None

    def remember(self, status: str, headers: list[tuple[str, str]], head: r.ResponseHead) -> None:
        """The next call may answer the same."""
        self.headers = None  # never a head beside the headers of another
        self.head = head
        self.status = status
        self.headers = list(headers)


class Exchange:
    """One request and the application's answer to it."""

    # Set by who makes one, without an __init__: a call less in the hot path. The rest begins with what stands here.
    sink: Sink
    environ: Environ
    route: Route
    keep: bool
    """whether the connection stays open after the response"""
    plain: bool
    """kept, HTTP/1.1 and not HEAD: most such responses need no thought"""
    _head: r.ResponseHead | None = None
    """None until start_response is called"""
    _framing = UNKNOWN
    """UNKNOWN until the head is sent"""
    _done = False
    """the sink has the whole response"""
    _left = 0
    """bytes of content still to come, in LENGTH"""
    _size = 0
    """bytes of content sent"""
    _was_cut = False
    """content beyond Content-Length was reported"""

    # --- what the application calls ---------------------------------------------------------------------------------

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """PEP 3333. Raises ResponseInvalid at a breach, and what exc_info holds once the head has been sent."""
        if self._head is not None:
            self._check_again(exc_info)
        route = self.route
        if headers == route.headers and status == route.status:
            self._head = route.head
            return self.write
        try:
            head = self._head = HEADS[status, *headers]
        except TypeError:
            raise ResponseInvalid("headers must be a list of tuples (name, value), both str") from None
        if head.is_remembered:
            route.remember(status, headers, head)
        return self.write

    def _check_again(self, exc_info: ExcInfo | None) -> None:
        """start_response is called once more: only with exc_info, and then only before the head is sent. PEP 3333."""
        if exc_info is None:
            raise ResponseInvalid("start_response was called twice without exc_info")
        if self._framing is not UNKNOWN:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through this frame

    def write(self, content: bytes) -> None:
        """PEP 3333: content is on its way before this returns."""
        if self._framing is UNKNOWN:
            self.sink.flush()
            self._send_first(content)
        elif content:
            self._send_more(content)

    # --- the call ---------------------------------------------------------------------------------------------------

    def run(self, application: Application, is_quick: bool) -> None:
        """Call the application and send what it answers; never raises.

        is_quick: the route is known to take well under a millisecond, so a complete answer may wait in the batch while
        the application's iterable is exhausted and closed.
        """
        result: Any = None
        try:
            result = application(self.environ, self.start_response)
            if (type(result) is list or type(result) is tuple) and self._framing is UNKNOWN:
                self._send_whole(result[0] if len(result) == 1 else b"".join(result))
                return
            if type(result) is not FileWrapper or not self._send_file(result):
                self._iterate(result, is_quick)
        except BaseException as error:
            self._fail(error)
        close = getattr(result, "close", None)
        if close is not None:
            try:
                close()
            except BaseException as error:
                self.sink.log_breach("close() of the application's iterable failed", error)

    def _iterate(self, result: Iterable[bytes], is_quick: bool) -> None:
        """Send each item before the next is asked for."""
        sink = self.sink
        for content in result:
            if not content:
                continue
            if self._done:
                self._log_cut()
                return
            if self._framing is not UNKNOWN:
                self._send_more(content)
            elif self._head is not None and (len(content) == self._head.length or self._is_empty(self._head)):
                self._send_whole(content)  # all that was announced
                if self._framing is EMPTY:
                    return
                # What is left of a quick route's iterable is its end and close(); but code of the application's own may
                # follow the last item of a generator, so that what it gave does not wait.
                if not is_quick or type(result) is GeneratorType:
                    sink.flush()
            else:
                sink.flush()
                self._send_first(content)
            if sink.gone:
                return
        if not self._done:
            self._end()

    def _fail(self, error: BaseException) -> None:
        """The application raised: a 500 page if nothing was sent, else the connection ends without a last chunk."""
        sink = self.sink
        sink.log_breach("the application failed", error)
        if self._framing is UNKNOWN:
            page = r.build_error(500, self.environ["REQUEST_METHOD"])
            sink.respond(r.insert_fields(page, sink.loop.common + self._connection_field()), self.keep)
            self._done = True
            if sink.is_logged:
                sink.log_access(self.environ, 500, 0)
        elif not self._done:
            sink.abort(reset=self._framing is CLOSE)

    # --- framing ----------------------------------------------------------------------------------------------------

    def _is_empty(self, head: r.ResponseHead) -> bool:
        return r.has_no_content(self.environ["REQUEST_METHOD"], head.status)

    def _is_one_zero(self) -> bool:
        return bool(self.environ["SERVER_PROTOCOL"] == "HTTP/1.0")

    def _connection_field(self) -> bytes:
        if not self.keep:
            return r.CLOSE
        return r.KEEP_ALIVE if self._is_one_zero() else b""

    def _check(self, content: bytes) -> r.ResponseHead:
        """The head. Raises ResponseInvalid where there is none, or content is no bytes."""
        if self._head is None:
            raise ResponseInvalid("the application sent content, or ended, before start_response was called")
        if not isinstance(content, bytes):
            raise ResponseInvalid(f"content must be bytes, not {type(content).__name__}")
        return self._head

    def _build_head(self, head: r.ResponseHead, length: int) -> bytes:
        """The whole head; length: of the content to announce, -1 for none. Sets `_keep`."""
        if head.roles & r.CONNECTION_CLOSE or self._framing is CLOSE:
            self.keep = False
        parts = [head.lines]
        if length >= 0 and head.status != 204:
            parts.append(b"Content-Length: %d\r\n" % length)
        if self._framing is CHUNKED:
            parts.append(b"Transfer-Encoding: chunked\r\n")
        parts.append(r.common_fields(self.sink.loop.common, head.roles))
        parts.append(self._connection_field())
        parts.append(b"\r\n")
        return b"".join(parts)

    def _send_whole(self, content: bytes) -> None:
        """A response whose content is complete."""
        size = len(content)
        head = self._head
        if self.plain and head is not None and head.length == size and head.simple and type(content) is bytes:
            if size <= ONE_PIECE_SIZE:  # the common case, flat
                self._framing = LENGTH
                self._done = True
                sink = self.sink
                sink.respond(b"".join((head.simple, sink.loop.common, b"\r\n", content)), True)
                if sink.is_logged:
                    sink.log_access(self.environ, head.status, size)
                return
        head = self._check(content)
        if self._is_empty(head):
            self._framing = EMPTY
            self._send_checked(self._build_head(head, head.length), b"")
        elif 0 <= head.length != size:
            self._send_first(content)
            self._end()
        else:
            self._framing = LENGTH
            self._send_checked(self._build_head(head, size), content)

    def _send_checked(self, head: bytes, content: bytes) -> None:
        """The whole of a response, its length right."""
        sink = self.sink
        self._done = True
        self._size = len(content)
        if len(content) <= ONE_PIECE_SIZE:
            sink.respond(head + content, self.keep)
        else:
            sink.flush()
            sink.send(head)
            sink.send(content)
            sink.finish(self.keep)
        self._log()

    def _send_first(self, content: bytes) -> None:
        """The head, and the first part of content whose end is not known yet."""
        head = self._check(content)
        if self._is_empty(head):
            self._framing = EMPTY
        elif head.length >= 0:
            self._framing = LENGTH
            self._left = head.length
        else:
            self._framing = CLOSE if self._is_one_zero() else CHUNKED
        self.sink.send(self._build_head(head, head.length) + self._frame(content))

    def _send_more(self, content: bytes) -> None:
        self._check(content)
        data = self._frame(content)
        if data:
            self.sink.send(data)

    def _frame(self, content: bytes) -> bytes:
        """content as it goes over the wire."""
        if not content or self._framing is EMPTY:
            return b""
        if self._framing is LENGTH:
            if len(content) > self._left:
                self._log_cut()
                content = content[: self._left]
            self._left -= len(content)
        self._size += len(content)
        return r.build_chunk(content) if self._framing is CHUNKED else content

    def _end(self) -> None:
        """The application has nothing more, and the sink has not got the whole response."""
        sink = self.sink
        head = self._check(b"")
        if self._framing is UNKNOWN:
            if head.length <= 0 or self._is_empty(head):
                self._send_whole(b"")
                return
            self._send_first(b"")
        if sink.gone:
            return
        self._done = True
        if self._framing is LENGTH and self._left:
            sink.log_breach(f"content ended {self._left} bytes before Content-Length {head.length}", None)
            sink.abort(reset=False)
        else:
            if self._framing is CHUNKED:
                sink.send(r.LAST_CHUNK)
            sink.finish(self.keep)
        self._log()

    def _log_cut(self) -> None:
        if not self._was_cut and self._head is not None:
            self._was_cut = True
            self.sink.log_breach(f"content beyond Content-Length {self._head.length} was cut", None)

    def _log(self) -> None:
        if self.sink.is_logged:
            self.sink.log_access(self.environ, 0 if self._head is None else self._head.status, self._size)

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Send a real file from its position; False where it is none, or nothing of it is to be sent."""
        head = self._head
        if head is None or self._framing is not UNKNOWN or self._is_empty(head) or not self.sink.sends_files:
            return False
        found = wrapper.real_file()
        if found is None or not found[2]:
            return False
        fd, position, size = found
        length = size if head.length < 0 else head.length
        if not length:
            return False
        self._framing = LENGTH
        self._done = True
        self._size = length
        built = self._build_head(head, length)
        self.sink.send_file(built, DescriptorCopy(fd), position, length, self.keep)
        self._log()
        return True
