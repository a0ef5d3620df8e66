"""Run one application under bjoern, which has no command line: `-m tests.benchmarks.bjoern_runner MODULE:ATTR PORT`."""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    """Serve until a signal ends the process."""
    module_name, _, attribute = sys.argv[1].partition(":")
    application = getattr(import_module(module_name), attribute)
    import_module("bjoern").run(application, "127.0.0.1", int(sys.argv[2]))


if __name__ == "__main__":
    main()
