"""Signals in any order and at any moment, under load: nobody may notice, and one consistent state is left."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.process.fleet import BROKEN, Fleet, FleetFactory
from tests.process.load import Load, soak_rounds

ACTIONS = 40
PAUSES_S = (0.0, 0.001, 0.01, 0.05, 0.2)
LAST = "last"


class Monkey:
    """Does something to a fleet, chosen by a seed."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.chance = random.Random(seed)
        self.done: list[str] = []
        self.actions: dict[str, tuple[int, Callable[[], object]]] = {
            "mend": (4, self.mend),
            "break": (2, lambda: fleet.write_broken(self.chance.choice(list(BROKEN)))),
            "reload": (5, lambda: fleet.send(signal.SIGHUP)),
            "upgrade": (3, lambda: fleet.send(signal.SIGUSR2)),
            "reopen": (1, lambda: fleet.send(signal.SIGUSR1)),
            "more": (2, lambda: fleet.send(signal.SIGTTIN)),
            "fewer": (3, lambda: fleet.send(signal.SIGTTOU)),
            "resize": (1, lambda: fleet.send(signal.SIGWINCH)),
            "retire": (2, self.retire_one),
            "freeze": (1, self.freeze),
        }

    def act(self) -> None:
        [name] = self.chance.choices(list(self.actions), [weight for weight, _ in self.actions.values()])
        self.done.append(name)
        self.actions[name][1]()
        time.sleep(self.chance.choice(PAUSES_S))

    def mend(self) -> str:
        version = f"version {len(self.done)}"
        self.fleet.write(version)
        return version

    def retire_one(self) -> None:
        """TERM to a worker. It may be the last that serves, so its successors must be able to."""
        version = self.mend()
        with suppress(ProcessLookupError, IndexError):
            os.kill(self.chance.choice(list(self.fleet.workers())), signal.SIGTERM)
        self.fleet.send(signal.SIGHUP)
        self.fleet.wait(lambda: version in self.fleet.versions().values(), "a successor")

    def freeze(self) -> None:
        """The master stands still for a moment, and then finds several signals at once."""
        self.fleet.send(signal.SIGSTOP)
        for _ in range(3):
            self.fleet.send(self.chance.choice([signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU]))
            time.sleep(self.chance.choice(PAUSES_S))
        self.fleet.send(signal.SIGCONT)


@pytest.mark.parametrize("seed", range(soak_rounds(1, 12)))
def test_anything_at_any_moment(start_fleet: FleetFactory, seed: int) -> None:
    fleet = start_fleet("--max-requests", "500", "--max-requests-jitter", "500", workers=2)
    monkey = Monkey(fleet, seed)
    try:
        with Load(fleet.address, kept=4, fresh=4) as load:
            for _ in range(ACTIONS):
                load.wait_for_more(2)
                monkey.act()
            fleet.write(LAST)
            fleet.send(signal.SIGHUP)
            fleet.wait(lambda: set(fleet.versions().values()) == {LAST}, "the last version alone")
            load.wait_for_more(50)
            fleet.wait_reaped()
        assert fleet.server.is_running()
        assert fleet.version() == LAST
        assert fleet.stop() == 0
    except BaseException as error:
        error.add_note(f"seed {seed}: {' '.join(monkey.done)}\n{fleet.log()}")
        raise
