"""The name of a process as ps shows it, where setproctitle is installed (the extra `proctitle`)."""

from __future__ import annotations

from importlib import import_module


def set_title(text: str) -> None:
    """Show `text` for this process; nothing happens without setproctitle."""
    try:
        module = import_module("setproctitle")
    except ImportError:
        return
    module.setproctitle(text)
