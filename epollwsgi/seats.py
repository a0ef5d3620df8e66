"""The threads of a crew as seats: each waits for an order, and gets one at a time. `crew` gives them."""

from __future__ import annotations

import threading
from enum import Enum


class LeadLost(BaseException):
    """The thread made a call in which another took the loop over: it touches nothing shared, up to its seat."""


class Order(Enum):
    """What a seat that stands by is told to do."""

    LEAD, WORK, END = range(3)


class Seat:
    """One thread of the crew."""

    __slots__ = ("ident", "lock", "order")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.order = Order.WORK
        self.ident = 0

    def give(self, order: Order) -> None:
        """End its waiting."""
        self.order = order
        self.lock.release()
