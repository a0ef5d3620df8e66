"""What is noted of a response for the access log: all that its line may need of the request, while that is there.

The functions made here run once for each request; they are closures, and written flat, because that is what they cost.
Called by `access_log`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from epollwsgi.http.response import content_size, read_status
from epollwsgi.logs.format import AUTHORIZATION, REMOTE, Entry, Environ, Head, Request
from epollwsgi.logs.text import NONE, show_object

# Entries are written when so many wait, even if nobody asks for it: few enough to stay in the cache, and to be small
# though each may hold 8 KB of text; so many that a system call is nothing to them.
PENDING_COUNT = 512


class HasClock(Protocol):
    """The loop."""

    clock: float


class Asked(Protocol):
    """A connection, as far as a note is made of it."""

    peer: tuple[str, str]
    asked_at: float
    """when its request came, on the clock of `monotonic`; 0: at the loop's last look at the clock"""

    @property
    def loop(self) -> HasClock: ...


# connection, request, environ, status, size of the content in bytes, head of the response
Make = Callable[[Any, Request, Environ, int, int, Head | bytes], Entry]
Note = Callable[[Any, Request, Environ, int, int, Head | bytes], None]
# connection, request, environ, `static.fresh.View`, the whole response that is in it
NoteFresh = Callable[[Any, Request, Environ, Any, bytes], None]


def make_entry(asked: Asked, request: Request, environ: Environ, status: int, size: int, head: Head | bytes) -> Entry:
    """The first ten items of an Entry. environ may have been changed by the application, or emptied."""
    now = monotonic()
    asked_at = asked.asked_at or asked.loop.clock
    asked.asked_at = 0.0
    get = environ.get
    return (
        now,
        status,
        size,
        now - asked_at,
        request.method,
        request,
        get("REMOTE_ADDR", asked.peer[0]),
        get("HTTP_REFERER", NONE),
        get("HTTP_USER_AGENT", NONE),
        get("HTTP_AUTHORIZATION"),
    )


def make_note(make: Make, entries: list[Entry], flush: Callable[[], None]) -> Note:
    """A function that notes a response with all it takes."""

    def note(asked: Asked, request: Request, environ: Environ, status: int, size: int, head: Head | bytes) -> None:
        entries.append(make(asked, request, environ, status, size, head))
        if len(entries) >= PENDING_COUNT:
            flush()

    return note


def make_quick_note(entries: list[Entry], flush: Callable[[], None]) -> Note:
    """The same where nobody asks for durations: of a call that the loop has waited for the moment is its beginning.

    That spares a look at the clock: such calls are short, or the loop would have been taken over meanwhile.
    """
    append = entries.append

    def note(asked: Asked, request: Request, environ: Environ, status: int, size: int, head: Head | bytes) -> None:
        if asked.asked_at:
            append(make_entry(asked, request, environ, status, size, head))
        else:
            append(
                (
                    asked.loop.clock,
                    status,
                    size,
                    0.0,
                    request.method,
                    request,
                    # Half the time of get(), which is a call, where a field is missing.
                    environ["REMOTE_ADDR"] if "REMOTE_ADDR" in environ else asked.peer[0],
                    environ["HTTP_REFERER"] if "HTTP_REFERER" in environ else NONE,  # noqa: SIM401
                    environ["HTTP_USER_AGENT"] if "HTTP_USER_AGENT" in environ else NONE,  # noqa: SIM401
                    environ["HTTP_AUTHORIZATION"] if "HTTP_AUTHORIZATION" in environ else None,  # noqa: SIM401
                )
            )
        if len(entries) >= PENDING_COUNT:
            flush()

    return note


def make_note_fresh(note: Note) -> NoteFresh:
    """A function that notes a file whose response was prebuilt; status and size are found once for each of these."""

    def note_fresh(asked: Asked, request: Request, environ: Environ, view: Any, response: bytes) -> None:
        found = view.sizes.get(request.path)
        if found is None:
            found = view.sizes[request.path] = (read_status(response), content_size(response))
        note(asked, request, environ, found[0], found[1], response)

    return note_fresh


def make_texts(entry: Entry) -> Entry:
    """The same with texts for what comes from environ."""
    texts = (NONE if value is None else show_object(value) for value in entry[REMOTE : AUTHORIZATION + 1])
    return (*entry[:REMOTE], *texts, *entry[AUTHORIZATION + 1 :])
