"""What one connection remembers of its last field section, as HPACK does for HTTP/2.

Clients repeat their fields: all of them, or all but the last few (a cookie, an id). A section that came twice gives a
copy of the environ it came to; of one that only begins as before, the beginning is copied and the rest parsed. Nothing
in it belongs to one request; that is set after the copy. `connection` owns one and forgets it when it idles.
"""

from __future__ import annotations

from collections.abc import Callable

from epollwsgi.http.fields import CONDITIONAL, Environ
from epollwsgi.http.head import HeadParser, RequestLine

# Sections up to this size are remembered, in bytes.
SECTION_SIZE = 2048
# A common beginning of fewer lines is not worth a copy.
START_LINES = 4
NOTHING: dict[str, bytes] = {}  # never filled


class SectionMemory:
    """See the module. A section is CRLF, the field lines with CRLF, and CRLF."""

    __slots__ = ("_start", "_start_environ", "_start_lines", "environ", "fresh", "head", "request", "section")

    def __init__(self) -> None:
        self.section = b""
        self.fresh: dict[str, bytes] = NOTHING  # what `connection` may answer at once, by path; of this section alone
        self.environ: Environ | None = None  # what `section` came to, once it has come twice; never changed
        self.head = b""  # the last head with `section`, and its request line: the same bytes need no look at all
        self.request: RequestLine | None = None
        self._start = b""  # the lines of the last section that came before its first passing one
        self._start_environ: Environ | None = None
        self._start_lines = 0

    def parse(
        self, data: bytes, line_end: int, end: int, parser: HeadParser, new_environ: Callable[[], Environ]
    ) -> tuple[Environ, int]:
        """environ with the fields, and their roles.

        data: a head whose request line ends at line_end and whose last field line ends at end.  new_environ: gives a
        new environ without fields.  Raises what HeadParser.parse_fields does.
        """
        start_environ = self._start_environ
        if start_environ is not None and data.startswith(self._start, line_end):
            environ = start_environ.copy()
            block = data[line_end + len(self._start) : end]
            roles = parser.parse_more(block, environ, self._start_lines)
            if roles >= 0:
                self._remember(data, line_end, end, environ, roles, parser)
                return environ, roles
        environ = new_environ()
        roles = parser.parse_fields(data[line_end + 2 : end], environ)
        self._remember(data, line_end, end, environ, roles, parser)
        if not start_environ or not data.startswith(self._start, line_end):
            self._learn_start(data, line_end, end, parser, new_environ)
        return environ, roles

    def _remember(self, data: bytes, line_end: int, end: int, environ: Environ, roles: int, parser: HeadParser) -> None:
        """The section, if its fields mean nothing to framing; its environ if it came before.

        Only where no request line can be so long that the head would pass its limit.
        """
        size = end + 4 - line_end
        limits = parser.limits
        if (
            roles & ~CONDITIONAL
            or size > SECTION_SIZE
            or limits.line + size > limits.head
            or "HTTP_HOST" not in environ
        ):
            return
        section = data[line_end : end + 4]
        if section != self.section:
            self.section = section
            self.environ = None
            self.fresh = NOTHING
            self.head = b""
        elif self.environ is None:
            self.environ = environ.copy()

    def _learn_start(
        self, data: bytes, line_end: int, end: int, parser: HeadParser, new_environ: Callable[[], Environ]
    ) -> None:
        """Leading lines that the parser remembers; their environ once they came twice."""
        if self._start and data.startswith(self._start, line_end):
            environ = self._start_environ = new_environ()
            parser.parse_fields(self._start[2:-2], environ)
            return
        self._start_environ = None
        self._start_lines, size = parser.count_known(data[line_end + 2 : end])
        self._start = data[line_end : line_end + 2 + size] if self._start_lines >= START_LINES else b""
