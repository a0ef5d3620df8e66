"""The states of a connection, and which may follow which. `connection` says what each means."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Where a connection stands. NEXT is the whole machine; a test walks it."""

    HEAD, BODY, APP, SEND, LINGER, CLOSED = range(6)


HEAD, BODY, APP, SEND, LINGER, CLOSED = State

NEXT: dict[State, frozenset[State]] = {
    HEAD: frozenset((BODY, APP, SEND, LINGER, CLOSED)),
    BODY: frozenset((APP, SEND, CLOSED)),
    APP: frozenset((HEAD, SEND, CLOSED)),
    SEND: frozenset((HEAD, LINGER, CLOSED)),
    LINGER: frozenset((CLOSED,)),
    CLOSED: frozenset(),
}
