"""What is known of the request line of a head that was refused, for the access log. Pure; called by `connection`."""

from __future__ import annotations

from epollwsgi.http.head import PathNotes, RequestLine

# So much of a line that is none is logged: what a scanner, or TLS in the wrong place, sends may be long.
SHOWN_SIZE = 1000


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
