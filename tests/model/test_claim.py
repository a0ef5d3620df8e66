"""Who answers a call that runs too long, by the real code: its thread, or the loop with 504; never both, never none.

All schedules (see `schedule`) with up to two deviations are walked, around the moment at which the time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from epollwsgi import leader
from epollwsgi.config.settings import Settings
from epollwsgi.wsgi import Exchange
from tests.model.schedule import Broken, Run, explore, sleep
from tests.model.stage import Body, SharedExchange, Stage, answer_after, put_on_stage, request, stream


@pytest.fixture(autouse=True)
def stage(monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_stage(monkeypatch)
    monkeypatch.setattr(leader, "Exchange", SharedExchange)


class Closing(list[bytes]):
    """A whole answer whose close() takes long."""

    def close(self) -> None:
        sleep(1.5)


def close_late(start: Callable[..., Any]) -> Iterable[bytes]:
    start("200 OK", [("Content-Length", "1")])
    return Closing([b"x"])


def write_first(start: Callable[..., Any]) -> Iterable[bytes]:
    write = start("200 OK", [])
    write(b"x")
    sleep(1.5)
    return [b"x"]


def statuses_of(body: Body, slow: bool, threads: int = 2, deviations: int = 1) -> set[int]:
    """With timeout = 1 s: the statuses that one request is answered with."""
    seen: set[int] = set()
    settings = Settings(threads=threads, timeout=1.0, slow_request_time=0.0)

    def builder(one: Run) -> Callable[[], None]:
        stage = Stage(one, settings)
        request(body, slow=slow)(stage)
        client = stage.loop.clients[0]

        def judge() -> None:
            stage.judge()
            seen.add(client.status)
            if client.sent.count(b"HTTP/1.1 ") != 1:
                raise Broken(f"mixed responses: {client.sent!r}")

        return judge

    explore(builder, deviations)
    return seen


@pytest.mark.parametrize("slow", [False, True], ids=["inline", "handed off"])
def test_one_of_both_answers(slow: bool) -> None:
    assert statuses_of(answer_after(0.2), slow) == {200}
    assert statuses_of(answer_after(1.0 if slow else 1.002), slow, deviations=2) >= {200, 504}
    assert statuses_of(answer_after(3.6), slow, deviations=0) == {504}
    assert statuses_of(answer_after(3.6), slow) <= {200, 504}  # the watch, or the loop, may be late too


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("slow", [False, True], ids=["inline", "handed off"])
@pytest.mark.parametrize(
    "body",
    [stream(0, 1.6), stream(0, 0.004, 1.6), stream(0.004, 1.6), close_late, write_first],
    ids=["stream", "stream with pauses", "stream after a pause", "close() takes long", "write() first"],
)
def test_a_response_that_has_begun_is_never_answered_again(body: Body, slow: bool, threads: int) -> None:
    assert statuses_of(body, slow, threads) == {200}


def test_a_thread_that_does_not_claim_answers_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def claim(self: Exchange) -> None:
        if not self.leads and not self._is_claimed:
            self._is_claimed = True
            self.baton.unanswered.pop(self, None)
            self.sink.become_owned()

    monkeypatch.setattr(Exchange, "_claim", claim)
    with pytest.raises(Broken):
        statuses_of(answer_after(1.6), True)
