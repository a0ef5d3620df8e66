"""One line on when and where a measurement was made. Knows no server's figures."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path


def processor() -> str:
    """The processor as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe(versions: Mapping[str, str]) -> str:
    """Date, machine, Python and what was measured."""
    measured = ", ".join(f"{name} {version}" for name, version in versions.items())
    kernel = platform.release().partition("-")[0]
    place = f"{processor()}, {os.cpu_count()} cores, Linux {kernel}, Python {platform.python_version()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {place}; {measured}."
