"""Workers that are replaced because of what they have served, their age or their size; and more or fewer of them."""

from __future__ import annotations

import signal
from collections import Counter

from tests.process.fleet import WAIT_S, Fleet, FleetFactory
from tests.process.load import Load, soak_rounds
from tests.process.procfs import is_alive
from tests.support import wait_until


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def ended(answered: Counter[int]) -> dict[int, int]:
    """worker -> how many it had answered, of those that are no more."""
    return {pid: count for pid, count in dict(answered).items() if not is_alive(pid)}


def test_max_requests_under_load(start_fleet: FleetFactory) -> None:
    """Each worker serves its share and no less; its successor is ready before it goes, so nobody waits or fails."""
    fleet = start_fleet("--max-requests", "100", "--max-requests-jitter", "20", workers=2)
    wanted = soak_rounds(4, 40)
    with Load(fleet.address, kept=8, fresh=8) as load:
        wait_until(lambda: len(ended(load.report.workers)) >= wanted or load.report.failures, 60, "workers to end")
    counts = ended(load.report.workers)
    assert min(counts.values()) >= 100, counts
    fleet.wait_for_workers(2)
    fleet.wait_reaped()
    assert fleet.stop() == 0


def test_only_worker_is_replaced_successor_first(start_fleet: FleetFactory) -> None:
    """While a request holds the old worker back, the new one serves already."""
    fleet = start_fleet("--max-requests", "5", "--graceful-timeout", "300", workers=1)
    [old] = fleet.workers()
    with fleet.client() as held:
        held.send(get("/hold?held"))
        fleet.wait_held("held")
        for _ in range(5):
            fleet.ask("/version")
        wait_until(lambda: fleet.ask("/pid").body != str(old).encode(), WAIT_S, "the successor")
        assert is_alive(old)
        fleet.release()
        assert held.read_response().body == b"released"
    wait_until(lambda: not is_alive(old), WAIT_S, "the end of the old worker")
    fleet.wait_for_workers(1)
    assert fleet.stop() == 0


def test_max_worker_age_under_load(start_fleet: FleetFactory) -> None:
    fleet = start_fleet("--max-worker-age", "1", workers=2)
    first = fleet.workers()
    with Load(fleet.address, kept=4, fresh=4) as load:
        for _ in range(soak_rounds(2, 10)):
            before = fleet.workers()
            wait_until(lambda before=before: not before & fleet.workers(), WAIT_S, "others")  # type: ignore[misc]
        load.wait_for_more(20)
    assert not first & fleet.workers()
    assert fleet.stop() == 0


def test_max_worker_memory(start_fleet: FleetFactory) -> None:
    """A worker that has grown too large is replaced; whatever it was doing is answered. The other one stays."""
    fleet = start_fleet("--max-worker-memory", "150M", workers=2)
    before = fleet.workers()
    with Load(fleet.address, kept=4, fresh=4) as load:
        load.wait_for_more(20)
        response = fleet.ask("/grow/200")
        assert response.body == b"grown"
        large = int(response["X-Worker"])
        after = fleet.wait_for_workers(2, without=[large])
        load.wait_for_more(20)
    assert before - {large} <= after
    assert "max_worker_memory" in fleet.log()
    assert fleet.stop() == 0


def test_more_and_fewer_workers_under_load(start_fleet: FleetFactory) -> None:
    fleet = start_fleet(workers=1)
    with Load(fleet.address, kept=8, fresh=8) as load:
        for _ in range(soak_rounds(1, 8)):
            for number, count in ((signal.SIGTTIN, 2), (signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1)):
                fleet.send(number)
                fleet.wait_for_workers(count)
                load.wait_for_more(20)
    fleet.wait_reaped()
    assert fleet.stop() == 0


def change_everything(fleet: Fleet, load: Load) -> None:
    """One of each, without waiting for the one before."""
    fleet.write("2")
    for number in (signal.SIGTTIN, signal.SIGHUP, signal.SIGTTOU, signal.SIGTTOU, signal.SIGTTIN, signal.SIGUSR2):
        fleet.send(number)
        load.wait_for_more(10)


def test_everything_at_once_under_load(start_fleet: FleetFactory) -> None:
    """Recycling, reload, upgrade and changing numbers in each other's midst."""
    fleet = start_fleet("--max-requests", "50", "--max-requests-jitter", "20", "--max-worker-age", "5", workers=2)
    with Load(fleet.address, kept=6, fresh=6) as load:
        for _ in range(soak_rounds(1, 10)):
            change_everything(fleet, load)
        wait_until(lambda: set(fleet.versions().values()) == {"2"}, WAIT_S, "new code")
        load.wait_for_more(50)
    assert fleet.server.is_running()
    assert fleet.version() == "2"
    assert fleet.stop() == 0
