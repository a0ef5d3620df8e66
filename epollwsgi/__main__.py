"""`python -m epollwsgi` is the command `epollwsgi`."""

from __future__ import annotations

import sys

from epollwsgi.cli import main

if __name__ == "__main__":
    sys.exit(main())
