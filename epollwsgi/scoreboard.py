"""What the processes of one server know of each other: a table in shared memory, one slot (row) for each worker.

A memfd of fixed size, mapped by the master and, through fork, by every worker. It has no name on disk and is handed on
through the exec of an upgrade by its descriptor. One page of header, then one array of 64-bit numbers for each column,
so that a sum over all workers is one call into C; pages that nobody touched take no memory.

Each field but STATE has one writer. The master fills a slot before it forks the worker and empties it when the worker
has been reaped; in between:

field                            writer  meaning
high, is_stopping (header)       master  slots to look at; the final stop has begun
PID, AGE, GENERATION             master  AGE is the number of the spawn
STARTED_NS                       master  when the slot was claimed; moments are those of time.monotonic_ns
STATE                            both    see `Slot`; whoever knows first: the other says the same a moment later
CONNECTIONS, LISTENING           worker  open now; 1 while it accepts
REQUESTS, IN_FLIGHT              worker  answered since the start; in the application now
BEAT_NS                          worker  when its loop was last seen alive; before the first beat: when it was claimed

Beside it there is the bell, an eventfd: whoever wants a worker that has stepped aside (`spread`) to look at the table
again rings. It is not handed on by an upgrade: the new master makes another for the workers that it starts.

There is no lock. A field is eight aligned bytes, and CPython moves it by a memcpy of eight bytes, which compilers turn
into one load or store on every 64-bit machine Linux knows that allows unaligned access (x86-64, arm64, and so on):
such a field is read whole, before or after a change. Elsewhere, as on 32 bits, a reader may see half of a change. Only
numbers above 2**32 and moments can look wrong then, for one look; nothing is lost by that. Two fields of a slot may
always be of different moments.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from dataclasses import dataclass
from enum import IntEnum
from itertools import compress, repeat
from operator import eq

SLOTS = 16384
MAGIC = int.from_bytes(b"epollwsg", "little")
VERSION = 1
HEADER_SIZE = 4096
ITEM_SIZE = 8
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Column(IntEnum):
    """The fields of a slot. Their order is the layout: who changes it changes VERSION."""

    STATE, PID, AGE, GENERATION, STARTED_NS, CONNECTIONS, LISTENING, REQUESTS, IN_FLIGHT, BEAT_NS = range(10)


class Slot(IntEnum):
    """What a slot is used for."""

    FREE, BOOTING, READY, DRAINING = range(4)


class Header(IntEnum):
    """The numbers at the start. The first four must be as this version writes them."""

    MAGIC, VERSION, SLOTS, COLUMNS, HIGH, STOPPING = range(6)


EXPECTED = {Header.MAGIC: MAGIC, Header.VERSION: VERSION, Header.SLOTS: SLOTS, Header.COLUMNS: len(Column)}
SIZE = HEADER_SIZE + len(Column) * SLOTS * ITEM_SIZE


@dataclass(frozen=True, slots=True)
class Row:
    """One slot as it was when somebody looked."""

    slot: int
    state: Slot
    pid: int
    age: int
    generation: int
    started_ns: int
    connections: int
    is_listening: bool
    requests: int
    in_flight: int
    beat_ns: int


class _Field:
    """One column of a `Mine`."""

    def __init__(self, column: Column) -> None:
        self._column = column

    def __get__(self, mine: Mine, kind: type | None = None) -> int:
        return mine.columns[self._column][mine.index]

    def __set__(self, mine: Mine, value: int) -> None:
        mine.columns[self._column][mine.index] = value


class Mine:
    """A worker's own slot: the fields that it writes."""

    __slots__ = ("columns", "index", "scoreboard")

    state = _Field(Column.STATE)
    connections = _Field(Column.CONNECTIONS)
    listening = _Field(Column.LISTENING)
    requests = _Field(Column.REQUESTS)
    in_flight = _Field(Column.IN_FLIGHT)

    def __init__(self, scoreboard: Scoreboard, index: int) -> None:
        self.scoreboard = scoreboard
        self.columns = scoreboard.columns
        self.index = index

    def beat(self) -> None:
        """This worker lives: its loop sleeps or has moved."""
        self.columns[Column.BEAT_NS][self.index] = time.monotonic_ns()


class Scoreboard:
    """See the module. Made by `create` in a new master, by `adopt` in one that an upgrade has started."""

    def __init__(self, fd: int) -> None:
        """fd: a memfd of SIZE bytes; owned from now on."""
        self.fd = fd
        self._map = mmap.mmap(fd, SIZE)
        self._items = memoryview(self._map).cast("q")
        start = HEADER_SIZE // ITEM_SIZE
        self._header = self._items[:start]
        self.columns = [self._items[start + at * SLOTS : start + (at + 1) * SLOTS] for at in range(len(Column))]
        self._states = self.columns[Column.STATE]
        self._connections = self.columns[Column.CONNECTIONS]
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    @classmethod
    def create(cls) -> Scoreboard:
        """A new one, empty; closed on exec until its owner makes it inheritable."""
        fd = os.memfd_create("epollwsgi-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, SIZE)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            board = cls(fd)
        except BaseException:
            os.close(fd)
            raise
        for field, value in EXPECTED.items():
            board._header[field] = value
        return board

    @classmethod
    def adopt(cls, fd: int) -> Scoreboard:
        """The one that another image of this process has left; closed on exec again.

        Raises ValueError where fd is no scoreboard of this layout; the descriptor stays open then.
        """
        try:
            size = os.fstat(fd).st_size
            if size != SIZE:
                raise ValueError(f"descriptor {fd} is no scoreboard: {size} bytes instead of {SIZE}")
            board = cls(fd)
        except OSError as error:
            raise ValueError(f"descriptor {fd} is no scoreboard: {error.strerror}") from None
        for field, value in EXPECTED.items():
            found = board._header[field]
            if found != value:
                board._unmap()
                raise ValueError(f"descriptor {fd} is no scoreboard: {field.name.lower()} {found} instead of {value}")
        os.set_inheritable(fd, False)
        return board

    def close(self) -> None:
        """Give back memory and descriptor; objects made by `slot` are of no use any more."""
        self._unmap()
        os.close(self.fd)

    def ring(self) -> None:
        """Wake every worker that has the bell in its epoll, edge-triggered: nobody reads it, so that all hear it."""
        os.eventfd_write(self.bell, 1)

    def _unmap(self) -> None:
        for view in (*self.columns, self._header, self._items):
            view.release()
        self._map.close()
        os.close(self.bell)

    # --- the master -------------------------------------------------------------------------------------------------

    def claim(self, pid: int = 0, age: int = 0, generation: int = 0) -> int:
        """The lowest free slot, from now on BOOTING. Raises RuntimeError where all are taken."""
        high = self.high
        states = self._states[:high].tolist()
        index = states.index(Slot.FREE) if Slot.FREE in states else high
        if index == SLOTS:
            raise RuntimeError(f"all {SLOTS} slots of the scoreboard are taken")
        now = time.monotonic_ns()
        for column in Column:
            self.columns[column][index] = 0
        for column, value in (
            (Column.PID, pid),
            (Column.AGE, age),
            (Column.GENERATION, generation),
            (Column.STARTED_NS, now),
            (Column.BEAT_NS, now),
            (Column.STATE, Slot.BOOTING),
        ):
            self.columns[column][index] = value
        if index == high:
            self._header[Header.HIGH] = high + 1
        return index

    def put(self, slot: int, column: Column, value: int) -> None:
        """Set a field that the master writes."""
        self.columns[column][slot] = value

    def release(self, slot: int) -> None:
        """Empty a slot: its worker has been reaped."""
        for column in Column:  # STATE first
            self.columns[column][slot] = 0
        high = self.high
        while high and self._states[high - 1] == Slot.FREE:
            high -= 1
        self._header[Header.HIGH] = high

    @property
    def is_stopping(self) -> bool:
        """The final stop has begun: no new connection comes, and what waits in the backlog is still taken."""
        return self._header[Header.STOPPING] != 0

    @is_stopping.setter
    def is_stopping(self, value: bool) -> None:
        self._header[Header.STOPPING] = value

    # --- everybody --------------------------------------------------------------------------------------------------

    @property
    def high(self) -> int:
        """One more than the highest slot in use."""
        return self._header[Header.HIGH]

    def slot(self, index: int) -> Mine:
        """For the worker that has this slot: its own fields."""
        return Mine(self, index)

    def row(self, slot: int) -> Row:
        """One slot, as it is now."""
        values = [column[slot] for column in self.columns]
        return Row(
            slot=slot,
            state=Slot(values[Column.STATE]),
            pid=values[Column.PID],
            age=values[Column.AGE],
            generation=values[Column.GENERATION],
            started_ns=values[Column.STARTED_NS],
            connections=values[Column.CONNECTIONS],
            is_listening=values[Column.LISTENING] != 0,
            requests=values[Column.REQUESTS],
            in_flight=values[Column.IN_FLIGHT],
            beat_ns=values[Column.BEAT_NS],
        )

    def rows(self) -> list[Row]:
        """All slots in use."""
        found = [self.row(slot) for slot in range(self.high)]
        return [row for row in found if row.state is not Slot.FREE]

    def total(self, column: Column) -> int:
        """The sum of a column over all slots in use."""
        return sum(self.columns[column][: self.high])

    def ready_count(self) -> int:
        """How many workers are READY."""
        return self._states[: self.high].tolist().count(Slot.READY)

    def mean_connections(self) -> float:
        """Open connections of a READY worker, on average; 0 where there is none."""
        high = self.high
        states = self._states[:high].tolist()
        count = states.count(Slot.READY)
        if not count:
            return 0.0
        return sum(compress(self._connections[:high], map(eq, states, repeat(Slot.READY)))) / count

    def has_lighter(self, connections: int, alive_since_ns: int, *, listening: bool = True) -> bool:
        """Whether a READY worker has fewer connections, has beaten since that moment, and, if so asked, listens."""
        high = self.high
        listens = self.columns[Column.LISTENING]
        beats = self.columns[Column.BEAT_NS]
        return any(
            state == Slot.READY and self._connections[slot] < connections and (listens[slot] or not listening)
            for slot, state in enumerate(self._states[:high])
            if beats[slot] >= alive_since_ns
        )
