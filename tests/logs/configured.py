"""Handlers and formatters that a logging configuration of a test names."""

from __future__ import annotations

import json
import logging
import os
import time


class Fields(logging.Formatter):
    """A record as JSON, as formatters of the field make it: by what the record holds, not by its text."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "name": record.name,
            "level": record.levelname,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if isinstance(record.args, dict):
            atoms = ("h", "m", "U", "q", "s", "B", "a", "{host}i", "{x-none}i", "{content-type}o", "{path_info}e")
            fields["atoms"] = {name: record.args[name] for name in atoms}
        if record.exc_info:
            kind, error, where = record.exc_info
            fields["error"] = [kind.__name__ if kind else "", str(error), where is not None]
            fields["traceback"] = record.exc_text
        return json.dumps(fields)


class Stuck(logging.Handler):
    """One whose network does not answer: the file `released` in the directory of the test lets it go on."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory

    def emit(self, record: logging.LogRecord) -> None:
        for _ in range(600):
            if os.path.exists(f"{self._directory}/released"):
                break
            time.sleep(0.05)
        with open(f"{self._directory}/handled", "a", encoding="utf-8") as file:
            file.write(record.getMessage() + "\n")


class Failing(logging.Handler):
    """One that cannot even be made."""

    def __init__(self) -> None:
        raise OSError(13, "Permission denied", "/var/log/nobody")
