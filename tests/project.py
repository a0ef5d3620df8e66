"""A copy of examples/project to work in, commands started in it, and pytest run there as its owner would.

Called by test_examples_project and test_html_snippets.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from tests.support import Server, ServerFactory, clean_environment

PROJECT = Path(__file__).resolve().parent.parent / "examples" / "project"
PLUGIN = "epollwsgi.pytest_plugin"


def copy_project(directory: Path) -> Path:
    """The project as if it were checked out by itself."""
    leave_out = shutil.ignore_patterns("__pycache__", ".*")
    return Path(shutil.copytree(PROJECT, directory / "shop", ignore=leave_out))


def start_command(
    factory: ServerFactory, command: Sequence[str], cwd: Path, directory: Path, **variables: str
) -> Server:
    """The process of a command that becomes a server at one address; ended by the factory.

    directory: for what it says.
    """
    with open(directory / "stdout", "wb") as out, open(directory / "stderr", "wb") as err:
        process = subprocess.Popen(
            command, cwd=cwd, env=clean_environment(variables), stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
    server = Server(process, directory, ["127.0.0.1:0"])
    factory.servers.append(server)
    server.learn_addresses()
    server.tcp_addresses = [("127.0.0.1", server.port)]  # where all addresses are bound, that one is
    return server


def run(command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment({"PYTEST_ADDOPTS": ""}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_pytest(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """pytest in a directory, with nothing of this run; the plugin as if it were installed, where it is not."""
    is_installed = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))
    plugins = ["no:cacheprovider", "no:xdist", *([] if is_installed else [PLUGIN])]
    command = [sys.executable, "-m", "pytest", "-W", "error", *(word for one in plugins for word in ("-p", one))]
    return run([*command, *words], directory)
