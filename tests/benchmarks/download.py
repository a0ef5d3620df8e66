"""`python -m tests.benchmarks.download`: one client fetches 1 GB, epollwsgi and nginx in turn; bytes a second.

Server on one core, client on the other; the file lies in memory. At least 0.9 x nginx's throughput is the bound.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.benchmarks.process import CLIENT_CORE, running
from tests.benchmarks.servers import HOST, SERVERS

SIZE = 1_000_000_000
LEAST = 0.9
BUFFER_SIZE = 1 << 20
NAMES = ("epollwsgi", "nginx")


def fetch(port: int) -> float:
    """Seconds from the request to the last byte."""
    with socket.create_connection((HOST, port), timeout=60) as sock:
        began_at = time.monotonic()
        sock.sendall(f"GET /large.bin HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode("ascii"))
        buffer = bytearray(BUFFER_SIZE)
        received = 0
        while size := sock.recv_into(buffer):
            received += size
        took_s = time.monotonic() - began_at
    if received < SIZE:
        raise SystemExit(f"only {received} bytes came")
    return took_s


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.download", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="downloads from each server (default 5)")
    options = parser.parse_args()
    os.sched_setaffinity(0, {CLIENT_CORE})
    servers = [server for server in SERVERS if server.name in NAMES and server.version() is not None]
    rates: dict[str, list[float]] = {server.name: [] for server in servers}
    with tempfile.TemporaryDirectory(prefix="epollwsgi-benchmark-") as name:
        os.chmod(name, 0o755)
        site = Path(name) / "site"
        site.mkdir()
        with open(site / "large.bin", "wb") as file:
            file.writelines(b"x" * BUFFER_SIZE for _ in range(SIZE // BUFFER_SIZE + 1))
            file.truncate(SIZE)
        for number in range(options.rounds):
            for server in servers if number % 2 == 0 else reversed(servers):
                scratch = Path(name) / f"{server.name}{number}"
                scratch.mkdir(mode=0o755)
                with running(server, "", site, scratch) as process:
                    fetch(process.port)
                    rates[server.name].append(SIZE / fetch(process.port) / 1e6)
                print(f"{server.name}: {rates[server.name][-1]:,.0f} MB/s", file=sys.stderr, flush=True)
    figures = {server: median(found) for server, found in rates.items()}
    print(", ".join(f"{server} {rate:,.0f} MB/s" for server, rate in figures.items()))
    if len(figures) < len(NAMES):
        print("both are needed for a ratio")
        return 1
    ratio = figures["epollwsgi"] / figures["nginx"]
    print(f"{ratio:.2f} x nginx, at least {LEAST} is wanted")
    return int(ratio < LEAST)


if __name__ == "__main__":
    sys.exit(main())
