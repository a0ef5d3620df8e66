"""The answer of one call: what start_response was given, and the content, as bytes for a `Sink`. PEP 3333; WIRE.md 5.

Knows no socket and calls nothing of the application; `wsgi` does, and feeds what it gets in here.

How a response is framed, decided once the first content is known:

    no content     HEAD, 204, 304             head only
    length         Content-Length of the application, else of a list or tuple; file_wrapper: of the file
    chunked        HTTP/1.1
    until close    HTTP/1.0
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from types import TracebackType

from epollwsgi.baton import Baton
from epollwsgi.errors import ResponseInvalid
from epollwsgi.file_wrapper import DescriptorCopy, FileWrapper
from epollwsgi.http import response as r
from epollwsgi.http.fields import Environ
from epollwsgi.http.head import RequestLine
from epollwsgi.routes import Route
from epollwsgi.sink import Nobody, Sink

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

HEADS = r.ResponseHeads()

# What an access log says of a request whose client left before it had begun to be answered; nginx's number.
CLIENT_LEFT = 499
# Content up to this size is sent with its head in one piece: cheaper than a second system call.
ONE_PIECE_SIZE = 65536


class Framing(IntEnum):
    """How the end of a response's content is told."""

    UNKNOWN, EMPTY, LENGTH, CHUNKED, CLOSE = range(5)


UNKNOWN, EMPTY, LENGTH, CHUNKED, CLOSE = Framing


class Answer:
    """See the module; the base of `wsgi.Exchange`."""

    # Set by `Leader.call` for each, without an __init__: a call less in the hot path.
    sink: Sink
    request: RequestLine
    """what the server itself goes by: environ is the application's to change"""
    environ: Environ
    route: Route
    baton: Baton
    keep: bool
    """whether the connection stays open after the response"""
    plain: bool
    """kept, HTTP/1.1 and not HEAD: most such responses need no thought"""
    leads: bool
    """whether the thread of the call leads the loop; once lost it does not come back"""
    head: r.ResponseHead | None
    """None until start_response is called"""
    framing: Framing
    """UNKNOWN until the head is sent"""
    is_done: bool
    """the sink has the whole response"""

    # The rest is seldom changed.
    started_at = 0.0
    """monotonic; of a call that another thread makes"""
    is_reported = False
    """the watchdog has logged it"""
    is_upgrade = False
    """the application was given the socket"""
    _is_claimed = False
    """a thread that does not lead has made sure that it is the one to answer"""
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
        if self.head is not None:
            self._check_again(exc_info)
        last_headers, last_status, last_head = self.route.last
        if headers == last_headers and status == last_status:
            self.head = last_head
            return self.write
        try:
            head = self.head = HEADS[status, *headers]
        except TypeError:
            raise ResponseInvalid("headers must be a list of tuples (name, value), both str") from None
        if head.is_remembered:
            self.route.last = (list(headers), status, head)
        return self.write

    def _check_again(self, exc_info: ExcInfo | None) -> None:
        """start_response is called once more: only with exc_info, and then only before the head is sent. PEP 3333."""
        if exc_info is None:
            raise ResponseInvalid("start_response was called twice without exc_info")
        if self.framing is not UNKNOWN:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through this frame

    def write(self, content: bytes) -> None:
        """PEP 3333."""
        raise NotImplementedError

    # --- who answers ------------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether the response has been started; it does not change while the token is put."""
        return self.is_done or self.framing is not UNKNOWN

    def _finish(self) -> None:
        """Nothing more is sent: the sink goes on, or back to the loop."""
        self._log_at_end()
        self.is_done = True
        self.sink.finish(self.keep)

    def _flush(self) -> None:
        """Before anything slow: what other connections wait for is sent. Theirs is the leader's to send."""
        if self.leads:
            self.sink.flush()

    def _claim(self) -> None:
        """Before the first output: has the server given this call up, and answered for it?"""
        if not self.leads and not self._is_claimed:
            self._is_claimed = True
            if self.baton.unanswered.pop(self, None) is None:
                self.sink = Nobody(self.sink.loop, self.sink.log_breach)
            else:
                self.sink.become_owned()
            if not self.sink.keeps:  # the worker has begun to drain since the request came
                self.keep = False

    # --- framing ----------------------------------------------------------------------------------------------------

    def _is_empty(self, head: r.ResponseHead) -> bool:
        return r.has_no_content(self.request.method, head.status)

    def _is_one_zero(self) -> bool:
        return self.request.protocol == "HTTP/1.0"

    def _connection_field(self) -> bytes:
        if not self.keep:
            return r.CLOSE
        return r.KEEP_ALIVE if self._is_one_zero() else b""

    def _check(self, content: bytes) -> r.ResponseHead:
        """The head. Raises ResponseInvalid where there is none, or content is no bytes."""
        if self.head is None:
            raise ResponseInvalid("the application sent content, or ended, before start_response was called")
        if not isinstance(content, bytes):
            raise ResponseInvalid(f"content must be bytes, not {type(content).__name__}")
        return self.head

    def _build_head(self, head: r.ResponseHead, length: int) -> bytes:
        """The whole head; length: of the content to announce, -1 for none. Sets `_keep`."""
        if head.roles & r.CONNECTION_CLOSE or self.framing is CLOSE:
            self.keep = False
        parts = [head.lines]
        if length >= 0 and head.status != 204:
            parts.append(b"Content-Length: %d\r\n" % length)
        if self.framing is CHUNKED:
            parts.append(b"Transfer-Encoding: chunked\r\n")
        parts.append(r.common_fields(self.sink.loop.common, head.roles))
        parts.append(self._connection_field())
        parts.append(b"\r\n")
        return b"".join(parts)

    def _send_whole(self, content: bytes) -> None:
        """A response whose content is complete."""
        size = len(content)
        head = self.head
        if (
            self.leads
            and self.plain
            and head is not None
            and head.length == size
            and head.simple
            and type(content) is bytes
        ):
            if size <= ONE_PIECE_SIZE:  # the common case, flat
                self.framing = LENGTH
                self.is_done = True
                sink = self.sink
                if sink.log is not None:
                    sink.log(sink, self.request, self.environ, head.status, size, head)
                sink.respond(b"".join((head.simple, sink.loop.common, b"\r\n", content)), True)
                return
        head = self._check(content)
        self._claim()
        if self._is_empty(head):
            self.framing = EMPTY
            self._send_checked(self._build_head(head, head.length), b"")
        elif 0 <= head.length != size:
            self._send_first(content)
            self._end()
        else:
            self.framing = LENGTH
            self._send_checked(self._build_head(head, size), content)

    def _send_checked(self, head: bytes, content: bytes) -> None:
        """The whole of a response, its length right."""
        self.is_done = True
        self._size = len(content)
        sink = self.sink
        if len(content) <= ONE_PIECE_SIZE:
            if sink.log is not None and self.head is not None:
                size = 0 if sink.gone else self._size
                sink.log(sink, self.request, self.environ, self.head.status, size, self.head)
            sink.respond(head + content, self.keep)
        else:
            self._flush()
            sink.send(head)
            sink.send(content)
            self._log_at_end()
            sink.finish(self.keep)

    def _send_first(self, content: bytes) -> None:
        """The head, and the first part of content whose end is not known yet."""
        head = self._check(content)
        self._claim()
        if self._is_empty(head):
            self.framing = EMPTY
        elif head.length >= 0:
            self.framing = LENGTH
            self._left = head.length
        else:
            self.framing = CLOSE if self._is_one_zero() else CHUNKED
        self.sink.send(self._build_head(head, head.length) + self._frame(content))

    def _send_more(self, content: bytes) -> None:
        self._check(content)
        data = self._frame(content)
        if data:
            self.sink.send(data)

    def _frame(self, content: bytes) -> bytes:
        """content as it goes over the wire."""
        if not content or self.framing is EMPTY:
            return b""
        if self.framing is LENGTH:
            if len(content) > self._left:
                self._log_cut()
                content = content[: self._left]
            self._left -= len(content)
        self._size += len(content)
        return r.build_chunk(content) if self.framing is CHUNKED else content

    def _end(self) -> None:
        """The application has nothing more, and the sink has not got the whole response."""
        head = self._check(b"")
        if self.framing is UNKNOWN:
            if head.length <= 0 or self._is_empty(head):
                self._send_whole(b"")
                return
            self._send_first(b"")
        if self.framing is LENGTH and self._left and not self.sink.gone:
            self._log_at_end()
            self.is_done = True
            self._log_breach(f"content ended {self._left} bytes before Content-Length {head.length}", None)
            self.sink.abort(reset=False)
            return
        if self.framing is CHUNKED:
            self.sink.send(r.LAST_CHUNK)
        self._finish()

    def _log_cut(self) -> None:
        if not self._was_cut and self.head is not None:
            self._was_cut = True
            self._log_breach(f"content beyond Content-Length {self.head.length} was cut", None)

    def _log_breach(self, message: str, error: BaseException | None) -> None:
        self.sink.log_breach(f"{name_request(self.request, self.environ)}: {message}", error)

    def _log_at_end(self, status: int = 0) -> None:
        """Before `finish`: a line is written once the client has taken all, or left. status: instead of the head's."""
        sink = self.sink
        if sink.log is not None:
            if not status:
                status = CLIENT_LEFT if self.head is None else self.head.status
            sink.log_at_end(self.request, self.environ, status, self._size, self.head or b"")

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Send a real file from its position; False where it is none, or nothing of it is to be sent."""
        head = self.head
        if head is None or self.framing is not UNKNOWN or self._is_empty(head) or not self.sink.sends_files:
            return False
        found = wrapper.real_file()
        if found is None or not found[2]:
            return False
        fd, position, size = found
        length = size if head.length < 0 else head.length
        if not length:
            return False
        self._claim()
        self.framing = LENGTH
        self.is_done = True
        self._size = length
        self._log_at_end()
        built = self._build_head(head, length)
        self.sink.send_file(built, DescriptorCopy(fd), position, length, self.keep)
        return True


def name_request(request: RequestLine, environ: Environ) -> str:
    """A request, for the error log, with the id by which its application knows it."""
    return f"{request.method} {request.target} ({environ.get('epollwsgi.request_id', 'no id')})"
