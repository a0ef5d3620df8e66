"""What is learned of the application's routes: which may run inline, and which are handed to another thread at once.

Knows no threads and no clock: times come in as arguments, in seconds. `leader` asks it before a call and tells it how
the call went. Quick routes and slow ones are both remembered; of a route nobody knows it matters whether others like it
overran: below the same prefix, or just now (the guarded period).

    unknown --3 calls under 1 ms--> quick --overran, or 3 calls over it--> slow --8 calls under it--> quick
"""

from __future__ import annotations

from epollwsgi.http.response import ResponseHead

# A call is quick under this duration, in seconds; a route is, after so many of them.
QUICK_S = 0.001
QUICK_CALLS = 3
# A slow route is tried inline again after so many quick calls in a row.
RETURN_CALLS = 8
# Calls a little over QUICK_S that make a known quick route slow, counted since its last quick call.
LATE_CALLS = 3
# Two overruns of unknown routes within this time begin a guarded period of that length, in seconds.
OVERRUN_WINDOW_S = 0.25
GUARDED_S = 2.0
# So many paths that differ in one segment only make a slow prefix.
PREFIX_PATHS = 3
# Clients choose the paths: the tables are emptied when full.
ROUTES = 4096
PREFIXES = 1024


class Route:
    """One path of the application: how quick it is, and how it answered last."""

    __slots__ = ("is_quick", "is_slow", "last", "late_calls", "path", "quick_calls")

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_quick = False
        self.is_slow = False
        self.quick_calls = 0
        self.late_calls = 0
        # headers, status, and what they came to: one tuple, because several threads may answer at once
        self.last: tuple[list[tuple[str, str]], str, ResponseHead] | tuple[None, str, None] = (None, "", None)

    def note_quick(self) -> None:
        """A call took less than QUICK_S."""
        self.late_calls = 0
        self.quick_calls += 1
        if self.quick_calls >= (RETURN_CALLS if self.is_slow else QUICK_CALLS):
            self.is_quick = True
            self.is_slow = False

    def note_late(self) -> None:
        """A call took longer, wherever it ran."""
        self.quick_calls = 0
        self.late_calls += 1
        if self.late_calls >= LATE_CALLS or not self.is_quick:
            self.is_quick = False
            self.is_slow = True

    def note_duration(self, duration_s: float) -> None:
        """A call took so long, in seconds, wherever it ran."""
        if duration_s < QUICK_S:
            self.note_quick()
        else:
            self.note_late()

    def note_overrun(self) -> None:
        """A call inline took so long that another thread had to take the loop over."""
        self.quick_calls = 0
        self.is_quick = False
        self.is_slow = True


def prefixes_of(path: str) -> list[str]:
    """The path with each segment in turn replaced by a star: what it may have in common with others of its route."""
    segments = path.split("/")
    return ["/".join([*segments[:at], "*", *segments[at + 1 :]]) for at in range(1, min(len(segments), 9))]


class Routes:
    """The tables. Written by the leader and the watch; every entry is an atomic operation of dict."""

    def __init__(self) -> None:
        self.known: dict[str, Route] = {}
        self.guarded_until = 0.0
        self._overran_at = float("-inf")
        self._prefixes: dict[str, set[str]] = {}
        self._slow_prefixes: dict[str, int] = {}

    def add(self, key: str) -> Route:
        """The route of a path, or of another method and its path, not met before."""
        if len(self.known) >= ROUTES:
            self.known.clear()
        route = self.known[key] = Route(key)
        return route

    def may_try(self, route: Route, now: float) -> bool:
        """Whether a route that is not known to be quick may run inline."""
        if route.is_slow or now < self.guarded_until:
            return False
        return not self._slow_prefixes or self._slow_prefixes.keys().isdisjoint(prefixes_of(route.path))

    def note_overrun(self, route: Route, now: float) -> str:
        """A route overran inline; what that changed, for the log."""
        was_known = route.is_quick
        route.note_overrun()
        changes = f"{route.path} is slow"
        if not was_known:
            if now - self._overran_at < OVERRUN_WINDOW_S:
                self.guarded_until = now + GUARDED_S
                changes += f"; for {GUARDED_S:g} s only quick routes run inline"
            self._overran_at = now
        for prefix in prefixes_of(route.path):
            if len(self._prefixes) >= PREFIXES:
                self._prefixes.clear()
            paths = self._prefixes.setdefault(prefix, set())
            paths.add(route.path)
            if len(paths) >= PREFIX_PATHS:
                self._add_slow_prefix(prefix)
                changes += f"; all of {prefix} are"
        return changes

    def _add_slow_prefix(self, prefix: str) -> None:
        self._prefixes.pop(prefix, None)
        if len(self._slow_prefixes) >= PREFIXES:
            self._slow_prefixes.clear()
        self._slow_prefixes[prefix] = 1
