"""What processes have open, as proc(5) tells it."""

from __future__ import annotations

import os
from contextlib import suppress


def open_files(pid: int) -> set[str]:
    """The names of all files that a process has open now."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found
