"""One call of a WSGI application: environ and start_response, framing, the iterable, file_wrapper. PEP 3333; WIRE.md 5.

Knows no socket: what it produces goes to a `Sink` (the connection). `leader` decides where and when `Exchange.run` is
called; all of it, from the call to close(), happens on one thread. A thread that leads the loop may lose it in any of
these calls (see `baton`) and learns so when the call returns; what it has still to send it sends for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import GeneratorType
from typing import Any

from epollwsgi.answer import CLOSE, EMPTY, UNKNOWN, Answer
from epollwsgi.file_wrapper import FileWrapper
from epollwsgi.http import response as r
from epollwsgi.http.fields import Environ

SWITCHED = 101  # RFC 9110 section 15.2.2; what the application answered on the socket itself is not known here

Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class Exchange(Answer):
    """One request and the application's answer to it."""

    def write(self, content: bytes) -> None:
        """PEP 3333: content is on its way before this returns."""
        self._take()
        try:
            if self.framing is UNKNOWN:
                self._flush()
                self._send_first(content)
            elif content:
                self._send_more(content)
            if self.sink.is_full:
                self._wait_for_room()
        finally:
            self._put()

    # --- the baton --------------------------------------------------------------------------------------------------

    def _put(self) -> None:
        """Code of the application is called next: another thread may take the loop over."""
        if self.leads:
            baton = self.baton
            baton.held[self] = True
            if baton.is_parked:
                baton.unpark()

    def _take(self) -> None:
        """The application has returned: does this thread still lead?"""
        if self.leads and self.baton.held.pop(self, None) is None:
            self._lose()

    def _lose(self) -> None:
        """Another thread leads now. What is still to be sent, this one sends for itself."""
        self.leads = False
        if self.has_begun:
            self._is_claimed = True
            self.baton.unanswered.pop(self, None)
            if not self.is_done:
                self.sink.become_owned()

    # --- the call ---------------------------------------------------------------------------------------------------

    def run(self, application: Application, is_quick: bool) -> None:
        """Call the application and send what it answers; never raises.

        is_quick: the route is known to take well under a millisecond, so a complete answer may wait in the batch while
        the application's iterable is exhausted and closed.
        """
        if self.leads:  # _put, flat
            baton = self.baton
            baton.held[self] = True
            if baton.is_parked:
                baton.unpark()
        try:
            result = application(self.environ, self.start_response)
        except BaseException as error:
            self._take()
            self._fail(error)
            return
        if (type(result) is list or type(result) is tuple) and self.framing is UNKNOWN:
            if self.leads and self.baton.held.pop(self, None) is None:  # _take, flat
                self._lose()
            try:
                self._send_whole(result[0] if len(result) == 1 else b"".join(result))
            except BaseException as error:
                self._fail(error)
        else:
            self._run_iterable(result, is_quick)

    def _run_iterable(self, result: Iterable[bytes], is_quick: bool) -> None:
        """Send each item before the next is asked for, then the end, then close. The token is put when it begins."""
        is_put = True
        try:
            if type(result) is FileWrapper:
                self._take()
                is_put = False
                self._send_file(result)
                self._put()
                is_put = True
            for content in () if self.is_done else result:
                if not content:
                    continue
                self._take()
                is_put = False
                wants_more = self._send_item(content)
                # What is left of a quick route's iterable is its end and close(); but code of the application's own may
                # follow the last item of a generator, so that what it gave does not wait.
                if self.is_done and (not is_quick or type(result) is GeneratorType):
                    self._flush()
                self._put()
                is_put = True
                if not wants_more:
                    break
            if not self.is_done:
                self._take()
                is_put = False
                self._end()
                self._put()
                is_put = True
        except BaseException as error:
            if is_put:
                self._take()
            self._fail(error)
            self._put()
        self._close(result)
        self._take()

    def _close(self, result: Iterable[bytes]) -> None:
        close = getattr(result, "close", None)
        if close is not None:
            try:
                close()
            except BaseException as error:
                self._log_breach("close() of the application's iterable failed", error)

    def _send_item(self, content: bytes) -> bool:
        """One item of the iterable; False where no more are wanted."""
        if self.is_done:
            self._log_cut()
            return False
        if self.framing is not UNKNOWN:
            self._send_more(content)
        elif self.head is not None and (len(content) == self.head.length or self._is_empty(self.head)):
            self._send_whole(content)  # all that was announced
            return self.framing is not EMPTY
        else:
            self._flush()
            self._send_first(content)
        if self.sink.is_full:
            self._wait_for_room()
        if self.sink.gone:
            self._finish()
            return False
        return True

    def _wait_for_room(self) -> None:
        """The client is slow and there is no room for more: wait, as in a call, so that another thread can lead."""
        self._put()
        try:
            self.sink.wait_for_client()
        finally:
            self._take()

    def drop(self) -> None:
        """Instead of run: the client has gone."""
        self._claim()
        self._log_at_end()
        self.is_done = True
        self.sink.finish(False)

    def _fail(self, error: BaseException) -> None:
        """The application raised: a 500 page if nothing was sent, else the connection ends without a last chunk."""
        if self.is_upgrade and isinstance(error, StopIteration) and self.framing is UNKNOWN:
            self._log_at_end(SWITCHED)
            self.is_done = True
            self.sink.abort(reset=False)  # the application took the socket, and is done with it
            return
        self._log_breach("the application failed", error)
        if self.framing is UNKNOWN:
            self._claim()
            page = r.build_error(500, self.request.method)
            self.is_done = True
            sink = self.sink
            if sink.log is not None:
                sink.log(sink, self.request, self.environ, 500, 0 if sink.gone else r.content_size(page), page)
            sink.respond(r.insert_fields(page, sink.loop.common + self._connection_field()), self.keep)
        elif not self.is_done:
            self._log_at_end()
            self.is_done = True
            self.sink.abort(reset=self.framing is CLOSE)
