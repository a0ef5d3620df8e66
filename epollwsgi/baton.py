"""Who leads: the baton, one token for each call into the application that the leader makes itself.

    leader   puts a token, calls the application, takes the token back by its name
    watch    sees the same token twice, takes it by its name: the loop is another thread's now

Whoever takes the token has the loop; `dict.pop` is atomic, so exactly one does. The token of a call is its `Exchange`,
which is no other's while anybody refers to it: nobody can take a successor's token for his own. The watch parks while
nothing is called:

    watch    sets `is_parked`, looks at the baton again, waits
    leader   puts the token, looks at `is_parked`, wakes the watch

Each writes before it looks, so that at least one sees the other. While there are only calls of quick routes the watch
waits longer, in the same way: it sets `is_calm` and looks at `is_hurried`, which the leader sets before any other call.
"""

from __future__ import annotations

import threading
from typing import Any


class Baton:
    """See the module. `held` has the token in play, and nothing while no call is."""

    def __init__(self) -> None:
        self.held: dict[Any, bool] = {}
        self.is_parked = False
        self.is_calm = False  # the watch waits long: only quick routes are being called
        self.is_hurried = False  # another has been called since the watch looked last
        # Calls on other threads that have not been answered: whoever takes one out may answer it (see `leader`).
        self.unanswered: dict[Any, bool] = {}
        self._gate = threading.Lock()
        self._gate.acquire()

    def unpark(self) -> None:
        """Wake the watch."""
        self.is_parked = False
        try:
            self._gate.release()
        except RuntimeError:
            pass  # woken already

    def wait(self, seconds: float) -> None:
        """The watch waits for `unpark`, at most so long."""
        self._gate.acquire(timeout=seconds)

    def hurry(self) -> None:
        """A route that is not known to be quick is called next: the watch looks often."""
        self.is_hurried = True
        if self.is_calm:
            self.unpark()

    def wait_calmly(self, seconds: float) -> None:
        """The watch waits while there are quick calls only; set before looking, as when it parks."""
        self.is_calm = True
        if not self.is_hurried:
            self.wait(seconds)
        self.is_calm = False

    def park(self, seconds: float) -> None:
        """The watch has seen no call for a while: wait until there is one."""
        self.is_parked = True
        if not self.held:
            self.wait(seconds)
        self.is_parked = False

    def look(self) -> Any:
        """The token that is held; None if none is."""
        for token in list(self.held):
            return token
        return None
