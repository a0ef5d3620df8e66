"""What is known of a head that was refused, for the logs. Pure; called by `connection`."""

from __future__ import annotations

from contextlib import suppress

from epollwsgi.errors import HTTPError
from epollwsgi.http.fields import DROPPED_KEY, Environ
from epollwsgi.http.head import HeadParser, PathNotes, RequestLine

# So much of a line that is none is logged: what a scanner, or TLS in the wrong place, sends may be long.
SHOWN_SIZE = 1000
# Of a head with more fields none is looked at: whoever sends it must not have a refusal cost more than an answer.
READ_COUNT = 1000


def read_refused(data: bytes) -> RequestLine:
    """The words of a request line as far as it came, however wrong; what does not begin with a method, as target."""
    line = data.removeprefix(b"\r\n").partition(b"\n")[0][: SHOWN_SIZE + 1].removesuffix(b"\r").decode("latin-1")
    if len(line) > SHOWN_SIZE:
        line = line[:SHOWN_SIZE] + "..."
    method, space, rest = line.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    if not protocol.startswith("HTTP/"):
        target, protocol = rest, ""
    if not space or not method.isascii() or not method.isupper():
        method, target, protocol = "", line, ""
    path, _, query = target.partition("?")
    return RequestLine(method, target, path, None, query, protocol, None, False, PathNotes())


def read_refused_head(data: bytes, parser: HeadParser) -> tuple[RequestLine, Environ]:
    """What `read_refused` and `read_refused_fields` find in it."""
    return read_refused(data), read_refused_fields(data, parser)


def read_refused_fields(data: bytes, parser: HeadParser) -> Environ:
    """The fields of a head that came whole, as far as they are fields, and who its client is where a proxy is believed.

    parser: that of the connection.  Of a field that came several times all values are there, whatever it is.
    """
    head, end, _ = data.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    believe = parser.believe
    environ: Environ = {}
    lines = head.split(b"\r\n")[1:] if end else []
    if len(lines) > READ_COUNT:
        return environ
    for line in lines:
        try:
            key, value = parser.field_lines[line]
        except HTTPError:
            # Where a line of the proxy's own cannot be read, another of that name may be its client's.
            if line.partition(b":")[0].strip().lower() in parser.field_lines.rules.roles:
                believe = None
            continue
        if key != DROPPED_KEY:
            environ[key] = f"{environ[key]}, {value}" if key in environ else value
    if believe is not None:
        with suppress(HTTPError):
            believe(environ)
    return environ
