"""epollwsgi: a web server for WSGI applications and static sites, in pure Python over epoll.

Knows its version, and how a program serves an application object without the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__version__ = "0.1.0"


def serve(application: WSGIApplication, **settings: object) -> int:
    """Serve an application object in this process until TERM or INT; the exit code.

    settings: as in a settings file, e.g. `bind="127.0.0.1:8000"`; no file, variable or command line is read.
    Raises ConfigError for an unknown name, a bad value, or an address that cannot be bound.
    """
    from epollwsgi.cli import serve_object  # importing the package must stay cheap

    return serve_object(application, settings)
