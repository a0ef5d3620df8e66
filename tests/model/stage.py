"""The real `Leader`, `Crew`, `Baton` and `Exchange` on a stage: what they share is shared through `schedule`, and where
they meet the rest of the server stand a loop with a script and clients that take notes. Knows what must always hold.

Always: one thread at a time acts as the leader; at most `threads` are in the application, with threads = 1 the main
thread alone; each request is answered once. While all wait: the watch does not park beside a call, and nothing is
queued beside a free permit and a seat that stands by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from epollwsgi import baton, crew, leader, seats
from epollwsgi.baton import Baton
from epollwsgi.config.settings import Settings
from epollwsgi.crew import IDLE_S, PARK_S, Crew
from epollwsgi.http.head import HeadParser
from epollwsgi.leader import Leader
from epollwsgi.seats import LeadLost
from epollwsgi.sink import Nobody
from epollwsgi.wsgi import Exchange
from tests.model.schedule import (
    Broken,
    Over,
    Run,
    SharedDeque,
    SharedDict,
    SharedValue,
    Threading,
    monotonic,
    run,
    share,
    sleep,
)

Body = Callable[[Callable[..., Any]], Iterable[bytes]]
# So many seconds a run may last, in its own time.
MOST_S = 100.0


def put_on_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test: threads and time are those of the run at hand."""
    monkeypatch.setattr(crew, "threading", Threading)
    monkeypatch.setattr(baton, "threading", Threading)
    monkeypatch.setattr(seats, "threading", Threading)
    monkeypatch.setattr(crew, "monotonic", monotonic)
    monkeypatch.setattr(crew, "sleep", sleep)
    monkeypatch.setattr(leader, "monotonic", monotonic)
    monkeypatch.setattr(crew, "Baton", SharedBaton)
    monkeypatch.setattr(leader, "Crew", SharedCrew)


class Held(SharedDict):
    """The baton: whoever puts a token leads no more, until he has taken it."""

    on_put: Callable[[], None]

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.on_put()


class SharedBaton(Baton):
    is_parked: Any = SharedValue("is_parked")

    def __init__(self) -> None:
        super().__init__()
        share(self, "unanswered")
        self.held = Held()


class SharedCrew(Crew):
    has_permit: Any = SharedValue("has_permit")
    leader: Any = SharedValue("leader")
    _main_wants: Any = SharedValue("main_wants")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        share(self, "queue", "permits", "standby", "at_work", "seats")


class SharedExchange(Exchange):
    """For scenes in which it matters when a response has begun."""

    framing: Any = SharedValue("framing")
    is_done: Any = SharedValue("is_done")


class Client(Nobody):
    """The connection of one request."""

    is_owned = SharedValue("is_owned")

    def __init__(self, loop: ScriptedLoop, path: str, body: Body) -> None:
        super().__init__(loop, self.note_breach)
        self.stage = loop
        self.path = path
        self.body = body
        self.gone = False
        self.keeps = True
        self.sent = b""
        self.finished: list[str] = []
        self.is_owned = False
        self.called_by: list[str] = []

    @property
    def status(self) -> int:
        return int(self.sent.split(b" ", 2)[1])

    def _act(self) -> None:
        """The caller must be the one whose connection this is now."""
        run().touch(id(self))
        run().check(not self.finished, f"{self.path}: something is sent after the end of its response")
        if not self.is_owned:
            self.stage.look(f"{self.path} is answered")

    def send(self, data: bytes) -> None:
        self._act()
        self.sent += data

    def respond(self, response: bytes, keep: bool) -> None:
        self.send(response)
        self.finish(keep)

    def finish(self, keep: bool) -> None:
        self._act()
        self.finished.append(me())
        if self.is_owned:
            self.stage.give_back(self)

    def abort(self, reset: bool) -> None:
        self.finish(False)

    def flush(self) -> None:
        self.stage.look("flush")

    def become_owned(self) -> None:
        self.is_owned = True

    def take_back(self) -> None:
        self.is_owned = False

    def list_ready(self) -> None:
        self.stage.act("list_ready")

    def note_breach(self, message: str, error: BaseException | None) -> None:
        run().fail(f"{self.path}: {message}: {error!r}")


def me() -> str:
    """The actor that runs."""
    actor = run().current
    return "" if actor is None else actor.name


class ScriptedLoop:
    """Stands for the loop: each turn makes one request of the script, and the last ends it once all are answered."""

    clock = SharedValue("clock")
    running = SharedValue("running")
    common = b"Server: stage\r\n"
    is_asleep = False

    def __init__(self) -> None:
        self.clock = 0.0
        self.running = True
        self.batch: list[Any] = []
        self.batch_at = 0.0
        self.script: deque[Callable[[], None]] = deque()
        self.clients: list[Client] = []
        self.calls: SharedDeque = SharedDeque()
        self.inbox: SharedDeque = SharedDeque()
        self.is_woken = False
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.acting = ""
        self.always = False

    @property
    def has_ended(self) -> bool:
        return not self.running

    # --- who leads --------------------------------------------------------------------------------------------------

    def look(self, what: str) -> None:
        """Something only the leader does."""
        run().touch("acting")
        run().check(self.acting in ("", me()), f"two lead: {me()} ({what}) beside {self.acting}")

    def act(self, what: str) -> None:
        """The same; the actor leads until it puts a token, or its turn ends."""
        self.look(what)
        self.acting = me()

    def let_go(self) -> None:
        """The leader has put its token."""
        self.look("the token is put")
        self.acting = ""

    def turn(self) -> None:
        self.act("a turn")
        self.clock = monotonic()
        due = [call for at, call in self.later if at <= run().now]
        self.later = [item for item in self.later if item[0] > run().now]
        while self.calls:
            due.append(self.calls.popleft())
        for call in due:
            call()
        run().touch("woken")
        self.is_woken = False
        while self.inbox:
            self.inbox.popleft()
        if self.script:
            run().is_open = True
            self._play(self.script.popleft())
        elif all(client.finished for client in self.clients):
            self.running = False
        else:
            missing = [client.path for client in self.clients if not client.finished]
            run().check(run().now < MOST_S, f"never answered: {missing}")
            timeout_s = min((at for at, _ in self.later), default=MOST_S) - run().now
            run().touch("woken")
            run().block(lambda: self.is_woken, max(timeout_s, 0.0), "poll")
        self.act("the end of a turn")
        self.acting = ""
        run().is_open = self.always or bool(self.script) or not all(client.finished for client in self.clients)

    def _play(self, request: Callable[[], None]) -> None:
        try:
            request()
        except LeadLost:
            run().check(self.acting != me(), "a thread acts as leader after it has lost the loop")
            raise
        self.act("after a request")

    # --- what others ask of it --------------------------------------------------------------------------------------

    def flush(self) -> None:
        self.look("flush")
        self.batch = []

    def wake(self) -> None:
        run().step("wake", "woken")
        self.is_woken = True

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)
        self.wake()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        self.act("call_later")
        self.later.append((run().now + delay_s, call))

    def give_back(self, client: Client) -> None:
        self.inbox.append(client)
        self.wake()


class Strict:
    """A log: nothing that is worth a warning happens on the stage."""

    def debug(self, message: str) -> None: ...
    def warning(self, message: str) -> None:
        run().fail(message)

    def write(self, level: str, message: str, detail: str = "") -> None:
        if level == "error":
            run().fail(f"{message}\n{detail}")


class Stage:
    """One run of a worker without sockets. The main thread is the first actor."""

    def __init__(self, one: Run, settings: Settings, always: bool = False) -> None:
        self.threads = settings.threads
        self.parser = HeadParser()  # it remembers requests, and with them their routes
        self.left_over: list[str] = []
        self.judges = True
        self.inside: list[str] = []
        self.loop = ScriptedLoop()
        loop: Any = self.loop
        self.leader = Leader(loop, self._application, settings, Strict())
        self.crew = self.leader.crew
        held: Any = self.crew.baton.held
        held.label = "held"
        held.on_put = self.loop.let_go
        one.on_quiet = self._look
        one.add(self.crew.run, "main")
        one.is_open = self.loop.always = always

    def request(self, path: str, body: Body) -> Client:
        """The next of the script."""
        client = Client(self.loop, path, body)
        environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "client": client}
        line = self.parser.parse_request_line(f"GET {path} HTTP/1.1".encode())
        self.loop.clients.append(client)
        self.loop.script.append(lambda: self.leader.call(client, line, environ, True, True))
        return client

    def pause(self, seconds: float) -> None:
        """Next in the script: nothing, for so long."""
        self.loop.script.append(lambda: sleep(seconds))

    def end(self) -> None:
        """Next in the script: the end, whatever is under way."""
        self.judges = False

        def stop() -> None:
            self.loop.running = False

        self.loop.script.append(stop)

    def know_slow(self, path: str) -> None:
        """The route is known to be slow: its requests are handed to another thread."""
        self.leader.routes.add(path).note_overrun()

    def _application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        client: Client = environ["client"]
        run().touch("inside")
        client.called_by.append(me())
        self.inside.append(client.path)
        run().check(len(self.inside) <= self.threads, f"in the application at once: {self.inside}")
        run().check(self.threads > 1 or me() == "main", f"threads = 1, and {me()} is in the application")
        try:
            return client.body(start_response)
        finally:
            run().touch("inside")
            self.inside.remove(client.path)

    def _look(self) -> None:
        crew = self.crew
        left = [one for one in run().actors if not one.is_done]
        if run().actors[0].is_done and all(one.timeout_s >= IDLE_S for one in left):
            self.left_over = [one.name for one in left]
            raise Over
        watch = next(one for one in run().actors if one.name == ("main" if self.threads > 1 else "epollwsgi-watch"))
        if crew.baton.held and watch.deadline - run().now > PARK_S / 2:
            raise Broken("the watch parks beside a call")
        if crew.queue and crew.permits and crew.standby and not crew.is_main_bound:
            raise Broken("a request is queued beside a free permit and a seat that stands by")

    def judge(self) -> None:
        """After the run."""
        if self.left_over:
            raise Broken(f"threads are left over: {self.left_over}")
        if not self.judges:
            return
        for client in self.loop.clients:
            if len(client.finished) != 1 or len(client.called_by) > 1:
                raise Broken(f"{client.path}: called by {client.called_by}, answered by {client.finished}")
        left = {name: held for name, held in vars(self.crew.baton).items() if isinstance(held, dict) and held}
        if left:
            raise Broken(f"left behind: {left}")


Scene = Callable[[Stage], None]


def scene(settings: Settings, *parts: Scene, always: bool = False) -> Callable[[Run], Callable[[], None]]:
    """What `explore` plays: a worker with these settings, and its script."""

    def builder(one: Run) -> Callable[[], None]:
        stage = Stage(one, settings, always)
        for part in parts:
            part(stage)
        return stage.judge

    return builder


def request(body: Body, path: str = "", slow: bool = False) -> Scene:
    """A request. slow: its route is known to be, so that it is handed to another thread."""

    def part(stage: Stage) -> None:
        name = path or f"/{len(stage.loop.clients)}"
        if slow:
            stage.know_slow(name)
        stage.request(name, body)

    return part


def answer(start: Callable[..., Any]) -> Iterable[bytes]:
    """A quick application."""
    start("200 OK", [("Content-Length", "1")])
    return [b"x"]


def stream(*pauses: float) -> Body:
    """An application that yields as often, each time after so long, and takes the last pause before its end."""

    def body(start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [])
        return generate()

    def generate() -> Iterable[bytes]:
        for pause in pauses[:-1]:
            sleep(pause)
            yield b"x"
        sleep(pauses[-1])

    return body


def answer_after(seconds: float) -> Body:
    """An application that takes so long."""

    def body(start: Callable[..., Any]) -> Iterable[bytes]:
        sleep(seconds)
        return answer(start)

    return body
