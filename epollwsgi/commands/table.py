"""The sub-commands by name. Each is imported when it is asked for: a server never needs them. Called by `cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final, cast

# name -> its module, and what it does in one line of the help. Taken only as the first word of a command line.
COMMANDS: Final = {
    "check": ("epollwsgi.commands.check", "look for mistakes in a site before it is deployed"),
    "compress": ("epollwsgi.commands.compress", "write compressed copies of a site's files beside them"),
    "explain": ("epollwsgi.commands.explain", "show how a request would be answered, and why"),
}


def run_command(name: str, arguments: Sequence[str]) -> int:
    """What the sub-command returns, which is the exit code of the process; 1 where it was stopped. Raises StartError.

    A reader of its output that has seen enough, as `head` has, stops it too.
    """
    module, _ = COMMANDS[name]
    run = cast("Callable[[Sequence[str]], int]", import_module(module).run)
    try:
        code = run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        sys.stderr.write(f"epollwsgi {name}: stopped\n")
    except BrokenPipeError:
        # The interpreter would try to write the rest once more when it ends.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 1
