"""The pytest plugin, by the entry point `epollwsgi`: a fixture for servers, and their logs in the report of a failure.

    def test_hello(epollwsgi_server):
        server = epollwsgi_server(app)
        assert urlopen(server.url).read() == b"Hello!"

pytest loads this module in every project beside which epollwsgi is installed: it imports nothing that costs before it
is used. `-p no:epollwsgi` turns it off.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    import os
    from wsgiref.types import WSGIApplication

    from epollwsgi.testing import LiveServer

# How much each log held when the test began: a server that many tests share has said something to others before.
_read: dict[str, int] = {}
# What the fixture has made for the test that runs: they have something to say when they are closed, too.
_made: list[LiveServer] = []


class ServerFactory(Protocol):
    """What the fixture `epollwsgi_server` is: call it as LiveServer itself."""

    def __call__(
        self, application: WSGIApplication | str | os.PathLike[str] | None = None, **settings: object
    ) -> LiveServer: ...


@pytest.fixture
def epollwsgi_server() -> Iterator[ServerFactory]:
    """epollwsgi_server(application_or_directory, **settings): a LiveServer that has been started.

    All that a test starts are closed at its end, the last first.
    """
    from contextlib import ExitStack

    from epollwsgi.testing import LiveServer

    with ExitStack() as servers:

        def serve(
            application: WSGIApplication | str | os.PathLike[str] | None = None, **settings: object
        ) -> LiveServer:
            server = LiveServer(application, **settings).start()
            _made.append(server)
            servers.callback(server.close)
            return server

        yield serve


def running_servers() -> list[LiveServer]:
    """Those of this process; nothing is imported for the answer."""
    testing = sys.modules.get("epollwsgi.testing")
    return [] if testing is None else list(testing.running_servers())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note where the logs end of servers that other tests have had before."""
    _read.clear()
    _made.clear()
    _read.update((str(server), len(server.log)) for server in running_servers())


@pytest.hookimpl(hookwrapper=True)  # the older form: every pytest knows it
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """A test that failed shows what its servers, and those that still run, have logged since it began."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if report.failed:
        for server in dict.fromkeys([*running_servers(), *_made]):
            if text := server.log[_read.get(str(server), 0) :]:
                report.sections.append((f"epollwsgi log of {server}", text))
    if report.when == "teardown":
        _made.clear()
