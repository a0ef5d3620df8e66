"""Starts the shop.

    python run.py                        # while code is written: one worker, restarted when the code changes
    python run.py --production           # settings from epollwsgi.toml and the environment
    python run.py --production -w 2      # options of epollwsgi may follow; they win

The process becomes the server: its process id, signals and exit code are those of `epollwsgi`, so that reload (HUP)
and upgrade (USR2) work. `epollwsgi 'shop:create_app()'` in this directory is the same as `--production`.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

APPLICATION = "shop:create_app()"
# Variables win over epollwsgi.toml, and options on the command line over them.
DEVELOPMENT = {
    "EPOLLWSGI_BIND": "127.0.0.1:5000",
    "EPOLLWSGI_WORKERS": "1",
    "EPOLLWSGI_RELOAD": "true",
    "EPOLLWSGI_ACCESSLOG": "-",
    "EPOLLWSGI_ACCESS_LOG_FORMAT": "dev",
    "FLASK_DEBUG": "1",
}


def start(options: Sequence[str], development: bool) -> NoReturn:
    """Become the server, in the directory of the project."""
    os.chdir(Path(__file__).resolve().parent)
    environ = {**DEVELOPMENT, **os.environ} if development else os.environ
    os.execve(sys.executable, [sys.executable, "-m", "epollwsgi", *options, APPLICATION], environ)


if __name__ == "__main__":
    parser = ArgumentParser(description="Start the shop.", allow_abbrev=False)
    parser.add_argument("--production", action="store_true", help="as it runs for customers")
    arguments, rest = parser.parse_known_args()
    start(rest, development=not arguments.production)
