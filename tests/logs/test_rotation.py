"""Rotation: files are moved away and USR1 is sent while requests come; every one of them is in one of the files."""

from __future__ import annotations

import re
import signal
import threading
import time
from pathlib import Path

from tests.logs.files import open_files
from tests.support import Address, Client, ServerFactory, wait_until

ROUNDS = 5
CLIENTS = 3


def test_no_line_is_lost_by_a_rotation_under_load(start_server: ServerFactory, tmp_path: Path) -> None:
    path = tmp_path / "access"
    server = start_server("tests.apps.logged:app", "--access-logfile", str(path), "-w", "2")
    stop = threading.Event()
    sent: list[int] = []

    def load(address: Address, number: int) -> None:
        """Requests on connections of ten each, so that both workers get some."""
        count = 0
        end_at = time.monotonic() + 60
        while not stop.is_set() and time.monotonic() < end_at:
            with Client(address) as client:
                for _ in range(10):
                    target = f"/{number}-{count}".encode()
                    assert client.request(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
                    count += 1
        sent.append(count)

    threads = [threading.Thread(target=load, args=(server.address, number)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        for number in range(ROUNDS):
            wait_until(lambda: path.exists() and path.stat().st_size, 20, "lines in the new file")
            path.rename(tmp_path / f"access.{number}")
            server.send_signal(signal.SIGUSR1)
        wait_until(lambda: all(str(path) in open_files(pid) for pid in server.worker_pids), 20, "all to have moved")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert server.stop() == 0
    assert len(sent) == CLIENTS, "a client failed"
    files = sorted(tmp_path.glob("access*"))
    assert len(files) == ROUNDS + 1
    lines = [line for file in files for line in file.read_text().splitlines()]
    found = [
        re.fullmatch(r'127\.0\.0\.1 - - \[[^]]+\] "GET /(\d+-\d+) HTTP/1\.1" 200 2 "-" "-"', line) for line in lines
    ]
    targets = [match[1] for match in found if match]
    assert len(targets) == len(lines), "a line was torn"
    assert sorted(targets) == sorted(
        f"{client}-{one}" for client in range(CLIENTS) for one in range(sent_by(client, targets))
    )
    assert len(targets) == sum(sent)


def sent_by(client: int, targets: list[str]) -> int:
    """How many lines of one client there should be if the last is among them."""
    return max(int(target.partition("-")[2]) for target in targets if target.startswith(f"{client}-")) + 1
