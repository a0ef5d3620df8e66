"""The body of one request while it arrives: its decoder, where it is kept, and how fast it must come.

Knows no socket; time comes in as an argument. Belongs to one `connection`.
"""

from __future__ import annotations

from typing import BinaryIO

from epollwsgi.errors import ContentTooLarge
from epollwsgi.http.body import ChunkedDecoder, Decoder, LengthDecoder
from epollwsgi.http.fields import Environ, Limits
from epollwsgi.http.head import CHUNKED, RequestLine
from epollwsgi.spool import BodySpool


class Body:
    """A request whose content is being collected; all times in seconds of the loop's clock."""

    __slots__ = (
        "_decoder",
        "_min_rate",
        "_received",
        "_spool",
        "_started_at",
        "_timeout_s",
        "environ",
        "keep",
        "request",
    )

    def __init__(
        self,
        request: RequestLine,
        environ: Environ,
        keep: bool,
        decoder: Decoder,
        spool: BodySpool,
    ) -> None:
        self.request = request
        self.environ = environ
        self.keep = keep
        self._decoder = decoder
        self._spool = spool
        self._received = 0
        self._started_at = 0.0
        self._timeout_s = 0.0
        self._min_rate = 0

    def limit_time(self, now: float, timeout_s: float, min_rate: int) -> None:
        """Collecting begins. timeout_s: without progress; min_rate: bytes a second in the mean after that time."""
        self._started_at = now
        self._timeout_s = timeout_s
        self._min_rate = min_rate

    def deadline(self, now: float) -> float:
        """When the body is given up if nothing more comes: `now` is when something came last."""
        deadline = now + self._timeout_s
        if self._min_rate:
            deadline = min(deadline, self._started_at + max(self._timeout_s, self._received / self._min_rate))
        return deadline

    def feed(self, data: bytes) -> bytes | None:
        """The bytes behind the body once it is complete, None before. Raises HTTPError as Decoder.feed does."""
        self._received += len(data)
        return self._decoder.feed(data, self._spool.write)

    def finish(self) -> BinaryIO:
        """The content as wsgi.input; sets what environ says of it. WIRE.md section 2. Raises SpoolFull."""
        self.environ.pop("HTTP_TRANSFER_ENCODING", None)
        self.environ["CONTENT_LENGTH"] = str(self._spool.size)
        return self._spool.finish()


def make_decoder(length: int, limit: int, limits: Limits) -> Decoder:
    """The decoder for a framing. length: bytes or CHUNKED. Raises ContentTooLarge (413) before anything is read."""
    if length == CHUNKED:
        return ChunkedDecoder(limit, limits)
    if length > limit:
        raise ContentTooLarge("content too large", setting="limit_request_body", limit=limit, seen=length)
    return LengthDecoder(length)
