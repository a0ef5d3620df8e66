"""Every exception of epollwsgi, in one table of classes.

A class fixes what follows from it: an `HTTPError` its HTTP status, a `StartError` the exit code of the process.
Only `connection` turns an HTTPError into bytes and only `cli` turns a StartError into an exit.
"""

from __future__ import annotations


class EpollwsgiError(Exception):
    """The root of all errors raised by epollwsgi itself."""


# --- errors that end the start of a server --------------------------------------------------------------------------


class StartError(EpollwsgiError):
    """The server cannot start; `exit_code` is what the process ends with (OPERATIONS.md 1)."""

    exit_code = 1


class ConfigError(StartError):
    """A setting has an unknown name or a bad value, or an address cannot be bound."""


class UsageError(StartError):
    """The command line itself is malformed."""

    exit_code = 2


class ApplicationFailed(StartError):
    """The application's module raised while it was imported; the message holds its traceback."""

    exit_code = 3


class ApplicationNotFound(StartError):
    """The module has no such attribute, or the attribute is not a WSGI application."""

    exit_code = 4


def start_error(exit_code: int, message: str) -> StartError:
    """The error of a start that failed in another process, by the exit code that was reported."""
    for kind in (UsageError, ApplicationFailed, ApplicationNotFound):
        if kind.exit_code == exit_code:
            return kind(message)
    return ConfigError(message)


# --- errors of an application ---------------------------------------------------------------------------------------


class ResponseInvalid(EpollwsgiError):
    """An application broke the contract of PEP 3333; it sees this raised from the call that did."""


class RequestTimedOut(Exception):
    """Raised in a call of the application that passed `timeout`, where timeout_interrupt is on."""


# --- errors that refuse one request ---------------------------------------------------------------------------------


class HTTPError(EpollwsgiError):
    """A request is refused: one response with `status`, then a lingering close.

    detail: what was wrong, for the log only; it is never echoed into the response.
    setting: name of the setting whose limit was passed, or ''.  limit, seen: that limit and the value that passed it.
    """

    status = 400

    def __init__(self, detail: str, *, setting: str = "", limit: float = 0, seen: float | str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.setting = setting
        self.limit = limit
        self.seen = seen

    def __str__(self) -> str:
        text = self.detail
        if self.setting:
            limit = int(self.limit) if self.limit % 1 == 0 else self.limit
            text += f" ({self.setting} = {limit})"
        if self.seen != "":
            text += f", seen {self.seen!r}"
        return text


class BadRequestLine(HTTPError):
    """The request line is not that of RFC 9112 section 3."""


class BadField(HTTPError):
    """A field line, or the value of a field that must be understood, breaks the grammar. RFC 9112 section 5."""


class BadHost(HTTPError):
    """Host is missing, doubled or invalid. RFC 9112 section 3.2."""


class BadForwarded(HTTPError):
    """Fields of a trusted proxy are malformed, or contradict each other. RFC 7239; OPERATIONS.md 4."""


class BadFraming(HTTPError):
    """Content-Length and Transfer-Encoding leave the length of the content in doubt. RFC 9112 section 6."""


class BadChunk(HTTPError):
    """The chunked coding is broken. RFC 9112 section 7.1."""


class BodyCut(HTTPError):
    """The client ended its input in the midst of the content."""


class RequestTimeout(HTTPError):
    """The head or the content came too slowly. RFC 9110 section 15.5.9."""

    status = 408


class ContentTooLarge(HTTPError):
    """The content passed limit_request_body. RFC 9110 section 15.5.14."""

    status = 413


class RequestLineTooLong(HTTPError):
    """The request line passed limit_request_line. RFC 9112 section 3."""

    status = 414


class ExpectationUnknown(HTTPError):
    """Expect holds something other than 100-continue. RFC 9110 section 10.1.1."""

    status = 417


class FieldsTooLarge(HTTPError):
    """The field section passed a limit. RFC 6585 section 5."""

    status = 431


class CodingUnknown(HTTPError):
    """A transfer coding other than chunked. RFC 9112 section 6.1."""

    status = 501


class MethodUnknown(HTTPError):
    """CONNECT: this server is no tunnel. RFC 9110 section 9.3.6."""

    status = 501


class SpoolFull(HTTPError):
    """No room is left for a body: limit_spool_total was reached or the disk is full."""

    status = 503


class VersionUnknown(HTTPError):
    """HTTP/2 and up. RFC 9110 section 15.6.6."""

    status = 505
