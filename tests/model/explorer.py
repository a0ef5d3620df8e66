"""A walk over all interleavings of a small model: no bound on how often threads take turns.

A model is a state and some threads; a thread is a generator whose code between two yields is one atomic operation. It
yields None where it can go on at once, or a function that tells whether it can. The walk is depth first over schedules,
and goes no further from where it has been: state, and position and local variables of each thread, are compared.
`schedule` does the same with the real code, within a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from typing import Any

from tests.model.schedule import Broken

Thread = Generator[Callable[[], bool] | None, None, None]
Key = tuple[Hashable, ...]


class State:
    """What the threads of a model share: attributes with values that have a meaningful repr."""

    def check(self, condition: object, message: str) -> None:
        if not condition:
            raise Broken(message)

    def look(self) -> None:
        """What must hold in every state: raises Broken. For a model to say."""


Model = Callable[[], tuple[State, list[Thread]]]


class _Play:
    """One run of a model along a path, which tells at each point the index of the thread that goes on."""

    def __init__(self, model: Model, path: tuple[int, ...]) -> None:
        self.state, self.threads = model()
        self.waits: list[Callable[[], bool] | None] = [None] * len(self.threads)
        self.ended = [False] * len(self.threads)
        for index in range(len(self.threads)):
            self._advance(index)
        for index in path:
            self._advance(index)

    def _advance(self, index: int) -> None:
        try:
            self.waits[index] = next(self.threads[index])
        except StopIteration:
            self.ended[index] = True
        self.state.look()

    def enabled(self) -> list[int]:
        return [index for index, wait in enumerate(self.waits) if not self.ended[index] and (wait is None or wait())]

    def key(self) -> Key:
        positions: list[Hashable] = []
        for thread in self.threads:
            generator: Any = thread
            frame = generator.gi_frame
            if frame is None:
                positions.append(None)
            else:
                local = {name: value for name, value in frame.f_locals.items() if name != "s"}
                positions.append((frame.f_lasti, repr(sorted(local.items(), key=lambda item: item[0]))))
        return (repr(sorted(vars(self.state).items())), *positions)


def walk(model: Model, most_states: int = 60000) -> int:
    """Every state that any interleaving leads to; how many there are. Raises Broken, with the schedule as a note.

    Broken is also a state in which nobody can go on although not all have ended, and one from which the end cannot be
    reached any more.
    """
    origins: dict[Key, set[Key]] = {}  # of each state, from where it was reached
    ends: list[Key] = []
    todo: list[tuple[tuple[int, ...], Key | None]] = [((), None)]
    while todo:
        path, origin = todo.pop()
        try:
            play = _Play(model, path)
            options = play.enabled()
            if not options and not all(play.ended):
                raise Broken(f"nobody can go on: {vars(play.state)}")
        except Broken as error:
            error.add_note(f"the schedule: {path}")
            raise
        key = play.key()
        is_new = key not in origins
        origins.setdefault(key, set())
        if origin is not None:
            origins[key].add(origin)
        if is_new:
            if len(origins) > most_states:
                raise AssertionError(f"more than {most_states} states")
            if not options:
                ends.append(key)
            todo.extend(((*path, index), key) for index in options)
    reaching = set(ends)
    while ends:
        before = origins[ends.pop()] - reaching
        reaching |= before
        ends.extend(before)
    if len(reaching) != len(origins):
        raise Broken(f"from {len(origins) - len(reaching)} of {len(origins)} states the end cannot be reached")
    return len(origins)
