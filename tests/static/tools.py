"""What the tests of check, compress and explain share: the command as an operator runs it, and texts to compress."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from epollwsgi.commands.table import run_command
from tests.support import SET_LIMITS, clean_environment

WORDS = ("static", "served", "beside", "coding", "window", "margin", "border", "stream", "length", "header")


def command_line(*arguments: str, limits: str = "") -> list[str]:
    """`python -m epollwsgi ARGUMENTS`, with limits of setrlimit(2) as in "FSIZE=100"."""
    before = ["-c", SET_LIMITS, limits] if limits else []
    return [sys.executable, *before, "-W", "error::ResourceWarning", "-m", "epollwsgi", *arguments]


def run_tool(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, limits: str = ""
) -> subprocess.CompletedProcess[str]:
    """A sub-command, to its end."""
    return subprocess.run(
        command_line(*arguments, limits=limits),
        cwd=cwd,
        env=clean_environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
    )


def call_tool(
    patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], *arguments: str, cwd: Path
) -> tuple[int, str, str]:
    """The same within this process, which is much quicker: exit code, standard output, standard error.

    For what ends without an error of the command line; `cli` would turn that into a message.
    """
    with patch.context() as inner:
        inner.chdir(cwd)
        inner.setattr(sys, "path", sys.path[:])
        for name in set(os.environ) - set(clean_environment()):
            inner.delenv(name)
        code = run_command(arguments[0], arguments[1:])
    out, err = capture.readouterr()
    return code, out, err


def without_modules(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """An environment in which these modules are not installed."""
    for name in names:
        (directory / f"{name}.py").write_text("raise ImportError\n")
    return {"PYTHONPATH": f"{clean_environment()['PYTHONPATH']}:{directory}"}


def make_text(size: int, seed: int = 1) -> bytes:
    """A text of words that compresses well, the same for the same seed."""
    chance = random.Random(seed)
    words = [f"{chance.choice(WORDS)}{chance.randrange(1000)}" for _ in range(size // 8 + 1)]
    return " ".join(words).encode("ascii")[:size]


def make_noise(size: int, seed: int = 1) -> bytes:
    """Bytes that do not compress at all."""
    return random.Random(seed).randbytes(size)
