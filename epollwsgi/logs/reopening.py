"""USR1 for files that handlers of Python's logging write: the operator's, and the application's, as in gunicorn.

Imports nothing of `logging`, and is imported before a worker gives up its rights: by the time of a signal the libraries
may be out of its reach, or be of another version.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from epollwsgi.logs.files import open_wary

if TYPE_CHECKING:
    import logging


def reopen_handlers(report: Callable[[str], None], is_wary: bool = False) -> None:
    """`reopen_files` on a thread: a handler may be stuck.

    report: gets one line about a file that cannot be opened.  is_wary: see `files`.
    """
    if "logging" in sys.modules:
        with suppress(RuntimeError):  # no thread can be started
            threading.Thread(target=reopen_files, args=(report, is_wary), name="epollwsgi-reopen", daemon=True).start()


def reopen_files(report: Callable[[str], None], is_wary: bool) -> None:
    """Files were moved away: handlers go on in new ones."""
    handlers = sys.modules.get("logging.handlers")
    watched = handlers.WatchedFileHandler if handlers is not None else ()  # those look for themselves
    for handler in file_handlers():
        if isinstance(handler, watched) or handler.stream is None:
            continue  # or opens at its next record
        if is_wary:
            make_wary(handler)
        try:
            old = handler.setStream(handler._open())
            if old is not None:
                old.close()
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            report(f"{handler.baseFilename} cannot be opened again: {reason}")


def make_wary(handler: logging.FileHandler) -> None:
    """From now on a handler is careful whose links it follows, see `files`."""
    vars(handler)["_builtin_open"] = partial(open, opener=open_wary)


def file_handlers() -> Iterator[logging.FileHandler]:
    """Those of all loggers that write files."""
    kind = sys.modules["logging"].FileHandler
    for handler in all_handlers():
        if isinstance(handler, kind):
            yield handler


def all_handlers() -> Iterator[logging.Handler]:
    """Of all loggers in this process, each once."""
    logging = sys.modules["logging"]
    loggers = [logging.root, *list(logging.root.manager.loggerDict.values())]
    yield from dict.fromkeys(
        handler for logger in loggers if isinstance(logger, logging.Logger) for handler in list(logger.handlers)
    )
