"""`python -m tests [PYTEST ARGUMENTS]`: every check of the project, one after the other; 1 if any failed.

Arguments go to pytest; with arguments only pytest is told about them, the other checks run all the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ruff check", ("ruff", "check")),
    ("ruff format", ("ruff", "format", "--check")),
    ("mypy", ("mypy",)),
    ("layers", ("pytest", "-q", "tests/test_layers.py")),
    ("pytest", ("pytest", "-n", str((os.cpu_count() or 1) + 2), "--dist", "loadfile")),  # most of it is waiting
)
LIMIT_S = 1800


def main(arguments: list[str]) -> int:
    """Run every check, the last with the arguments; the exit code."""
    results = []
    for name, command in CHECKS:
        print(f"== {name}", flush=True)
        started_at = time.monotonic()
        more = arguments if name == CHECKS[-1][0] else []
        try:
            code = subprocess.run(
                [sys.executable, "-m", *command, *more], cwd=ROOT, timeout=LIMIT_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
        results.append((name, code, time.monotonic() - started_at))
    print()
    for name, code, took_s in results:
        print(f"{'ok' if code == 0 else 'FAILED':<8}{name}  ({took_s:.0f} s)")
    return 1 if any(code for _, code, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
