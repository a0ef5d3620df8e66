"""`--reload`: a thread of a worker that watches the files its code comes from, and says once that one has changed.

    follow -> look -> wait -> follow ...      the engine follows the directories of all files, then waits for a hint
                |
                settle -> report, end         a save or a checkout is over once nothing has changed for a moment

`process.boot` calls `sources.note_loading` before it loads the application, and `start_watching` when that is done or
has failed; `broken_page` then stands in its place. The master does the rest. For development only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.process.engines import ENGINES, Engine
from epollwsgi.process.sources import Signature, Sources

if TYPE_CHECKING:
    from epollwsgi.config.settings import Settings

SETTLE_S: Final = 0.075
SETTLE_COUNT: Final = 40  # looks at most: where something is written all the time
# All files are looked at so often whatever the engine says: a file system may tell it nothing (NFS), and nobody is told
# of a symbolic link that is flipped further up.
LOOK_S: Final = 2.0


def start_watching(
    settings: Settings,
    on_change: Callable[[str], None],
    log: ErrorLog,
    failed: BaseException | str | None = None,
) -> Sources:
    """Watch from now on, in a thread of its own; `on_change` is called there, once, with the file that has changed.

    failed: why the application could not be loaded; whatever may mend it is watched too. What is returned is told by
    `fail` where that shows later.
    """
    sources = Sources(settings.reload_extra_files, failed)
    thread = threading.Thread(
        target=watch, args=(sources, settings.reload_engine, on_change, log), name="epollwsgi-reload", daemon=True
    )
    thread.start()
    return sources


def watch(sources: Sources, choice: str, on_change: Callable[[str], None], log: ErrorLog) -> None:
    """Watch with the first engine that works, until a file has changed.  choice: a row of ENGINES."""
    row = ENGINES[choice]
    for number, make in enumerate(row):
        engine: Engine | None = None
        try:
            engine = make(sources.concerns)
            log.debug(f"reload: {len(sources.files)} files are watched with {engine.name}")
            file = wait_for_change(sources, engine)
        except ImportError:
            continue  # it is not installed
        except Exception as error:  # a library's, or the kernel's
            other = f"{row[number + 1].name} is used instead" if number + 1 < len(row) else "changes are not noticed"
            log.warning(f"reload: {make.name} cannot be used ({error}): {other}")
            continue
        finally:
            if engine is not None:
                engine.close()
        on_change(file)
        return


def wait_for_change(sources: Sources, engine: Engine) -> str:
    """The file that has changed."""
    look_at = 0.0
    while True:
        known = len(sources.directories), len(sources.files)
        engine.follow(sources.directories)
        if time.monotonic() >= look_at:
            if sources.changes() and (file := settle(sources.changes, time.sleep)):
                return file
            look_at = time.monotonic() + LOOK_S
        elif engine.wait():
            look_at = 0.0
        sources.refresh()
        if known != (len(sources.directories), len(sources.files)):
            look_at = 0.0  # what happened before they were followed is only found by looking


def settle(changes: Callable[[], Mapping[str, Signature | None]], sleep: Callable[[float], None]) -> str:
    """The first file that is still changed once nothing changes any more; '' if all are as they were."""
    before = changes()
    for _ in range(SETTLE_COUNT):
        sleep(SETTLE_S)
        now = changes()
        if now == before:
            break
        before = now
    return next(iter(before), "")
