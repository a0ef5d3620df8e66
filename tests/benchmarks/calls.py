"""`python -m tests.benchmarks.calls`: Python calls that epollwsgi makes for one hot GET, beside the application's own.

The server runs as its command line starts it, in a process where sys.setprofile counts `call` and `c_call` events.
The application tells the counts when it is asked for REPORT_PATH, so the difference of two reports is what the requests
between them took, with everything the loop did around them. start_response() counts as the server's.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from tests.benchmarks.apps import HEADERS, HELLO
from tests.benchmarks.check import Client
from tests.benchmarks.memory import FIELDS
from tests.benchmarks.process import MeasurementFailed, running
from tests.benchmarks.report import OURS, markdown_table
from tests.benchmarks.servers import APPLICATIONS, HOST, Server, Task

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

BOUND = 10
WARM_UP_COUNT = 100
REQUEST_COUNT = 500
RARE = 0.01  # what is called less often belongs to the loop's seconds, not to a request
REPORT_PATH = "/calls"

counted: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class Count:
    """Calls for one request: of Python functions, of C functions, and of each function by name."""

    calls: float
    c_calls: float
    by_function: dict[str, float]


# --- in the server's process ----------------------------------------------------------------------------------------


def on_event(frame: FrameType, event: str, argument: Any) -> None:
    """Count what is not the application's."""
    if frame.f_code.co_filename == __file__:
        return
    if event == "call":
        counted[f"call {Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}"] += 1
    elif event == "c_call":
        counted[f"c_call {getattr(argument, '__qualname__', argument)}"] += 1


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Hello, or the counts so far."""
    if environ["PATH_INFO"] == REPORT_PATH:
        report = json.dumps(dict(counted)).encode("ascii")
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(report)))])
        return [report]
    start_response("200 OK", HEADERS[:])
    return [HELLO]


def serve(port: int) -> None:
    """Run epollwsgi's command line, counting on this thread and on all it starts."""
    sys.argv = ["epollwsgi", "-b", f"{HOST}:{port}", f"{__name__}:application"]
    threading.setprofile(on_event)
    sys.setprofile(on_event)
    runpy.run_module("epollwsgi", run_name="__main__", alter_sys=True)


# --- in the measuring process ---------------------------------------------------------------------------------------


def command(task: Task) -> list[str]:
    """`-c` rather than `-m`, so that this module exists once in the server's process."""
    return [sys.executable, "-c", f"from tests.benchmarks.calls import serve; serve({task.port})"]


COUNTED_SERVER = Server(OURS, lambda: None, command, APPLICATIONS)


def build_request(port: int, target: str) -> bytes:
    """A GET with 13 fields, Host counted."""
    return f"GET {target} HTTP/1.1\nHost: {HOST}:{port}\n{FIELDS}\n".replace("\n", "\r\n").encode("ascii")


def count_calls(is_query_new: bool = False, request_count: int = REQUEST_COUNT) -> Count:
    """Calls for one GET on a connection that has made some already. Raises MeasurementFailed.

    is_query_new: give each request a query that none before had.
    """
    with tempfile.TemporaryDirectory(prefix="epollwsgi-benchmark-") as name:
        scratch = Path(name)
        with running(COUNTED_SERVER, "", scratch, scratch) as process:
            client = Client(process.port)
            try:
                return compare_reports(client, process.port, is_query_new, request_count)
            finally:
                client.close()


def compare_reports(client: Client, port: int, is_query_new: bool, request_count: int) -> Count:
    """Warm up, report, ask `request_count` times, report: the difference, for one request."""
    report = build_request(port, REPORT_PATH)
    for number in range(-WARM_UP_COUNT, request_count):
        if number == 0:
            before = Counter(json.loads(client.ask(report)))
        content = client.ask(build_request(port, f"/?item={number}" if is_query_new else "/"))
        if content != HELLO:
            raise MeasurementFailed(f"unexpected content: {content[:80]!r}")
    after = Counter(json.loads(client.ask(report)))
    # From within one report to within the next lie the end of the first and the beginning of the second: one request.
    count = request_count + 1
    by_function = {name: number / count for name, number in (after - before).most_common()}
    calls = sum(number for name, number in by_function.items() if name.startswith("call "))
    return Count(calls, sum(by_function.values()) - calls, by_function)


def main() -> int:
    """Count and print; exit 1 above the bound."""
    argparse.ArgumentParser(prog="python -m tests.benchmarks.calls", description=__doc__).parse_args()
    worst = 0.0
    rows: list[list[str]] = []
    for title, is_query_new in (("the same again", False), ("a new query each time", True)):
        try:
            count = count_calls(is_query_new)
        except MeasurementFailed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        worst = max(worst, count.calls)
        verdict = "yes" if round(count.calls) <= BOUND else "no"
        rows.append([title, f"{count.calls:.2f}", f"{count.c_calls:.2f}", verdict])
        for name, number in count.by_function.items():
            if number >= RARE:
                print(f"{number:6.2f}  {name}")
        print()
    print(markdown_table(["GET with 13 fields", "Python calls", "C calls", f"at most {BOUND}"], rows))
    return int(round(worst) > BOUND)


if __name__ == "__main__":
    sys.exit(main())
