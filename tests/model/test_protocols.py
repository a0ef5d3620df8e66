"""All interleavings of the protocols between threads: baton, parking, return of connections, claim.

These are models, step for step as the code does it; that the code does it so is what test_baton, test_staffing,
test_return and test_claim look at. Each has a variant with a step left out or in another order, which must be found.
"""

from __future__ import annotations

import pytest

from tests.model.explorer import Model, State, Thread, walk
from tests.model.schedule import Broken

# --- the baton ------------------------------------------------------------------------------------------------------


class Baton(State):
    def __init__(self) -> None:
        self.held: list[int] = []
        self.next_token = 1
        self.leading: list[int] = []  # who acts as leader, outside of calls
        self.standby: list[int] = [1, 2]
        self.orders: list[int] = [0]
        self.leader = 0
        self.at_work: list[int] = []  # seats from which the loop was taken
        self.work = 3
        self.is_over = False

    def look(self) -> None:
        self.check(len(self.leading) < 2, f"two lead: {self.leading}")


def seat(s: Baton, me: int, is_named: bool, is_atomic: bool) -> Thread:
    while True:
        yield lambda: me in s.orders or s.is_over
        if s.is_over:
            return
        s.orders.remove(me)
        while True:
            s.leading.append(me)
            yield None
            s.leading.remove(me)
            if not s.work:
                s.is_over = True
                return
            s.work -= 1
            token = s.next_token
            s.next_token += 1
            s.held.append(token)
            yield None  # in the application, for as long as it takes
            if is_named:
                has_lost = token not in s.held
            else:
                has_lost = not s.held
                token = s.held[0] if s.held else 0
            if has_lost:
                break
            if not is_atomic:
                yield None
            if token in s.held:
                s.held.remove(token)
        yield lambda: me in s.at_work
        s.at_work.remove(me)
        yield None
        s.standby.append(me)


def watch(s: Baton) -> Thread:
    seen = 0
    while not s.is_over:
        yield None
        token = s.held[0] if s.held else 0
        if token and token == seen:
            yield None
            taken = s.standby.pop(0) if s.standby else -1
            if taken >= 0:
                yield None
                is_taken = token in s.held
                if is_taken:
                    s.held.remove(token)
                yield None
                if is_taken:
                    old, s.leader = s.leader, taken
                    yield None
                    s.at_work.append(old)
                    yield None
                (s.orders if is_taken else s.standby).append(taken)
        seen = token


def baton(is_named: bool = True, is_atomic: bool = True) -> Model:
    def model() -> tuple[State, list[Thread]]:
        s = Baton()
        return s, [*(seat(s, me, is_named, is_atomic) for me in range(3)), watch(s)]

    return model


def test_the_baton_makes_one_leader() -> None:
    assert walk(baton()) > 500


def test_a_token_without_a_name_leaves_its_owner_waiting() -> None:
    """Who comes back late takes the token of who leads now, and that one never learns who has the loop."""
    with pytest.raises(Broken, match=r"nobody can go on|cannot be reached"):
        walk(baton(is_named=False))


def test_a_token_that_is_looked_at_before_it_is_taken_makes_two_leaders() -> None:
    with pytest.raises(Broken, match="two lead"):
        walk(baton(is_atomic=False))


# --- parking --------------------------------------------------------------------------------------------------------


class Parking(State):
    def __init__(self) -> None:
        self.held = False
        self.is_parked = False
        self.is_woken = False  # the gate
        self.is_called = False  # the leader is in the application, and will do nothing more to wake anybody
        self.sleeps = False  # the watch waits as long as it may when it parks
        self.is_over = False

    def look(self) -> None:
        self.check(not (self.is_called and self.sleeps and not self.is_woken), "the watch parks beside a call")


def caller(s: Parking, puts_first: bool) -> Thread:
    for _ in range(3):
        yield None
        if puts_first:
            s.held = True
            yield None
        must_wake = s.is_parked
        if not puts_first:
            yield None
            s.held = True
        if must_wake:
            yield None
            s.is_parked = False
            yield None
            s.is_woken = True
        yield None
        s.is_called = True
        yield None
        s.is_called = False
        s.held = False
    yield None
    s.is_over = True
    s.is_woken = True


def parker(s: Parking, sets_first: bool) -> Thread:
    while not s.is_over:
        yield None
        if s.held:
            continue  # a look every 2 ms
        yield None
        if sets_first:
            s.is_parked = True
            yield None
        may_sleep = not s.held
        if not sets_first:
            yield None
            s.is_parked = True
        if may_sleep:
            yield None
            s.sleeps = True
            yield lambda: s.is_woken  # or its bound is over, which is what must not be needed
            s.sleeps = s.is_woken = False
        yield None
        s.is_parked = False


def parking(puts_first: bool, sets_first: bool) -> Model:
    def model() -> tuple[State, list[Thread]]:
        s = Parking()
        return s, [caller(s, puts_first), parker(s, sets_first)]

    return model


def test_the_watch_never_parks_beside_a_call() -> None:
    assert walk(parking(puts_first=True, sets_first=True)) > 50


@pytest.mark.parametrize(("puts_first", "sets_first"), [(False, True), (True, False)])
def test_whoever_looks_before_it_writes_is_found(puts_first: bool, sets_first: bool) -> None:
    with pytest.raises(Broken, match="parks beside a call"):
        walk(parking(puts_first, sets_first))


# --- return of connections ------------------------------------------------------------------------------------------


class Return(State):
    def __init__(self) -> None:
        self.sent = 0  # requests by the client
        self.read = 0  # of them, by the loop
        self.has_event = False  # epoll tells of input, once
        self.is_owned = False
        self.unread = False
        self.order = False
        self.inbox = 0
        self.is_asleep = False
        self.is_woken = False
        self.answered = 0
        self.last_touch = ""

    def look(self) -> None:
        self.check(not (self.order and self.inbox), "two have the connection")


REQUESTS = 3


def client(s: Return) -> Thread:
    for _ in range(REQUESTS):
        yield None
        s.sent += 1
        s.has_event = True


def thread(s: Return, appends_first: bool) -> Thread:
    for _ in range(REQUESTS):
        yield lambda: s.order
        s.order = False
        yield None
        s.answered += 1
        yield None
        if appends_first:
            s.inbox += 1
            yield None
        must_wake = s.is_asleep
        if not appends_first:
            yield None
            s.inbox += 1
        if must_wake:
            yield None
            s.is_woken = True


def loop(s: Return, sets_first: bool, looks_at_unread: bool) -> Thread:
    while s.answered < REQUESTS or s.is_owned:
        yield None
        if sets_first:
            s.is_asleep = True
            yield None
        may_sleep = not s.inbox
        if not sets_first:
            yield None
            s.is_asleep = True
        yield (lambda: s.has_event or s.is_woken) if may_sleep else None
        has_event, s.has_event, s.is_woken = s.has_event, False, False
        yield None
        s.is_asleep = False
        has_input = False
        if has_event:
            yield None
            if s.is_owned:
                s.unread = True
            else:
                has_input = True
        yield None
        if s.inbox:
            s.inbox -= 1
            s.is_owned = False
            if looks_at_unread:
                has_input = has_input or s.unread or s.read < s.sent
                s.unread = False
        if has_input and not s.is_owned and s.read < s.sent:
            yield None
            s.read += 1
            s.is_owned = True
            s.unread = s.read < s.sent  # pipelined: there is more than one read takes
            s.order = True


def returning(appends_first: bool = True, sets_first: bool = True, looks_at_unread: bool = True) -> Model:
    def model() -> tuple[State, list[Thread]]:
        s = Return()
        return s, [client(s), thread(s, appends_first), loop(s, sets_first, looks_at_unread)]

    return model


def test_every_connection_comes_back_and_no_input_is_lost() -> None:
    assert walk(returning()) > 200


@pytest.mark.parametrize("missing", ["appends_first", "sets_first", "looks_at_unread"])
def test_a_loop_that_sleeps_for_ever_is_found(missing: str) -> None:
    with pytest.raises(Broken, match="nobody can go on"):
        walk(returning(**{missing: False}))


# --- the claim ------------------------------------------------------------------------------------------------------


class Claim(State):
    def __init__(self) -> None:
        self.unanswered = True
        self.sink = "client"
        self.answers: list[str] = []
        self.ended = 0

    def look(self) -> None:
        self.check(self.answers.count("client") < 2, "two answers")
        self.check(self.ended < 2 or "client" in self.answers, "no answer")


def late_thread(s: Claim, claims: bool) -> Thread:
    yield None
    won, s.unanswered = s.unanswered or not claims, False
    yield None
    if not won:
        s.sink = "nobody"
        yield None
    s.answers.append(s.sink)
    s.ended += 1


def watchdog(s: Claim, keeps_sink: bool) -> Thread:
    yield None
    sink = s.sink
    yield None
    won, s.unanswered = s.unanswered, False
    if won:
        yield None
        s.answers.append(sink if keeps_sink else s.sink)
    s.ended += 1


def claim(claims: bool = True, keeps_sink: bool = True) -> Model:
    def model() -> tuple[State, list[Thread]]:
        s = Claim()
        return s, [late_thread(s, claims), watchdog(s, keeps_sink)]

    return model


def test_one_of_both_answers() -> None:
    assert walk(claim()) > 5


def test_without_a_claim_both_answer() -> None:
    with pytest.raises(Broken, match="two answers"):
        walk(claim(claims=False))


def test_a_sink_that_is_looked_up_too_late_may_be_nobody() -> None:
    with pytest.raises(Broken, match="no answer"):
        walk(claim(keeps_sink=False))
