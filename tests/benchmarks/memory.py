"""`python -m tests.benchmarks.memory`: what an idle keep-alive connection costs in process memory.

Opens 5,000 connections, has each make one request with 13 browser fields and a cookie of its own, leaves them idle,
reads the growth, then makes every connection answer once more: memory of connections that were closed meanwhile
would be no achievement. Kernel memory of the sockets is not counted, as it is the same for every server.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.check import Client
from tests.benchmarks.machine import describe
from tests.benchmarks.process import CLIENT_CORE, MeasurementFailed, Running, raise_descriptor_limit, running
from tests.benchmarks.report import OURS, markdown_table
from tests.benchmarks.servers import HOST, SERVERS, Server
from tests.benchmarks.workloads import HELLO

BOUND_KB = 4.0
CONNECTIONS = 5000
FIRST_CONNECTIONS = 64
IDLE_S = 3.0
SPARE_DESCRIPTORS = 200

FIELDS = """\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8
Accept-Language: en-US,en;q=0.7,de;q=0.3
Accept-Encoding: gzip, deflate, br, zstd
DNT: 1
Connection: keep-alive
Upgrade-Insecure-Requests: 1
Sec-Fetch-Dest: document
Sec-Fetch-Mode: navigate
Sec-Fetch-Site: none
Sec-Fetch-User: ?1
Priority: u=0, i
"""


def build_request(port: int, number: int) -> bytes:
    """A browser's request whose query and cookie no other connection has."""
    cookie = f"Cookie: session={number:032x}; theme=dark\n"
    text = f"GET /?item={number} HTTP/1.1\nHost: {HOST}:{port}\n{FIELDS}{cookie}\n"
    return text.replace("\n", "\r\n").encode("ascii")


@contextmanager
def connections(port: int, numbers: range) -> Iterator[list[Client]]:
    """Open connections, each after its one request was answered."""
    clients: list[Client] = []
    try:
        for number in numbers:
            clients.append(Client(port))
            clients[-1].ask(build_request(port, number))
        yield clients
    finally:
        for client in clients:
            client.close()


def growth_kb(process: Running, count: int) -> dict[str, float]:
    """Growth per connection, by kind of memory. What a server allots once is allotted before by a few connections."""
    with connections(process.port, range(FIRST_CONNECTIONS)):
        pass
    time.sleep(1)
    before = process.memory_kb()
    with connections(process.port, range(FIRST_CONNECTIONS, FIRST_CONNECTIONS + count)) as clients:
        time.sleep(IDLE_S)
        after = process.memory_kb()
        for number, client in enumerate(clients):
            client.ask(build_request(process.port, number))
    return {kind: (after[kind] - before[kind]) / count for kind in after}


def measure(server: Server, count: int) -> dict[str, float]:
    """Start the server, measure, stop it. Raises MeasurementFailed."""
    with tempfile.TemporaryDirectory(prefix="epollwsgi-benchmark-") as name:
        scratch = Path(name)
        with running(server, HELLO, scratch, scratch) as process:
            return growth_kb(process, count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit 1 above the bound."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    able = {server.name: server for server in SERVERS if "application" in server.serves}
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument(
        "--servers", nargs="+", choices=list(able), default=[OURS], metavar="NAME", help=", ".join(able)
    )
    options = parser.parse_args(arguments)
    if raise_descriptor_limit() < options.connections + SPARE_DESCRIPTORS:
        print(f"needs {options.connections + SPARE_DESCRIPTORS} descriptors (ulimit -Hn)", file=sys.stderr)
        return 1
    os.sched_setaffinity(0, {CLIENT_CORE})
    rows: list[list[str]] = []
    versions: dict[str, str] = {}
    failed = False
    for name in options.servers:
        version = able[name].version()
        if version is None:
            print(f"{name} is not installed: left out", file=sys.stderr)
            continue
        versions[name] = version
        try:
            sizes = measure(able[name], options.connections)
        except MeasurementFailed as error:
            rows.append([name, *["-"] * 3, f"failed: {error}"])
            failed = True
            continue
        holds = sizes["Rss"] <= BOUND_KB
        verdict = ("yes" if holds else "no") if name == OURS else "-"
        rows.append([name, *(f"{sizes[kind]:.2f}" for kind in ("Rss", "Pss", "Uss")), verdict])
        failed = failed or (name == OURS and not holds)
    print(describe(versions))
    print(f"Growth per idle connection, {options.connections:,} connections, after one request each.\n")
    print(markdown_table(["kB per connection", "RSS", "PSS", "USS", f"at most {BOUND_KB:g}"], rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
