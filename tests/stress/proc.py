"""What the kernel knows of a server process: its threads, descriptors and context switches. proc(5)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from tests.support import Server

SWITCHES = re.compile(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)


def thread_count(server: Server) -> int:
    return len(list(Path(f"/proc/{server.worker_pid}/task").iterdir()))


def switch_counts(server: Server) -> dict[str, int]:
    """Context switches of each thread, voluntary or not."""
    counts = {}
    for task in Path(f"/proc/{server.worker_pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            counts[task.name] = sum(int(count) for count in SWITCHES.findall((task / "status").read_text()))
    return counts
