"""The last things that a process does before os._exit, which does none of them itself."""

from __future__ import annotations

import atexit
import sys
from contextlib import suppress


def run_exit_functions() -> None:
    """Call what others have registered for the end, then write what they wrote."""
    atexit._run_exitfuncs()
    flush_output()


def flush_output() -> None:
    """Write what waits for standard output and error, if there are such."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
