"""The title of a process: shown by setproctitle, and nothing without it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.support import clean_environment

SHOW = """
import sys
if sys.argv[1:]:
    sys.modules["setproctitle"] = None  # as if it were not installed
from epollwsgi.process.title import set_title
set_title("epollwsgi: master [app:app]")
with open("/proc/self/cmdline", "rb") as file:
    print(file.read().replace(b"\\0", b" ").strip().decode())
"""


def shown(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *arguments], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.skipif(importlib.util.find_spec("setproctitle") is None, reason="setproctitle is not installed")
def test_title_is_shown() -> None:
    assert shown() == "epollwsgi: master [app:app]"


def test_without_setproctitle_nothing_changes() -> None:
    assert shown("without").startswith(sys.executable)
