"""The handler of static files as a server with the same settings would have it. Called by `check` and `explain`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from epollwsgi.service import open_static

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings
    from epollwsgi.static.handler import StaticHandler


def open_handler(
    settings: Settings, application: str, log: Callable[[str], None] = lambda message: None
) -> StaticHandler | None:
    """The handler, ready to answer; None where no directory is served. Raises ConfigError.

    application: the name of the one that stands beside the files, or ''.  log: gets each warning.
    """
    handler = open_static(settings, stand_in if application else None, lambda kind, message, level: log(message))
    if handler is not None:
        handler.on_tick(time.monotonic(), b"")
    return handler


def stand_in(environ: object, start_response: object) -> list[bytes]:
    """In the place of the application: never called, it only says that there is one."""
    return []
