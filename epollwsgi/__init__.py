"""epollwsgi: a web server for WSGI applications and static sites, in pure Python over epoll.

Knows its version, and how a program serves an application object without the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from wsgiref.types import WSGIApplication

__version__ = "0.1.0"


def serve(application: WSGIApplication | str | os.PathLike[str] | None = None, **settings: object) -> int:
    """Serve in this process until TERM, INT or QUIT; then the program goes on. The exit code, which is 0.

    application: the object; or a text that names what to serve as on the command line, "shop:app" or "./html"; or the
    path of a directory; None: what the setting wsgi_app names, or a site of the static mounts.
    settings: as in a settings file, e.g. `bind="127.0.0.1:8000", workers=2, static={"/assets": "public"}`, hooks as
    functions. No settings file, environment variable or command line is read.

    The process becomes the master, with the signals of one, and forks the workers: serve early, before threads are
    started and connections are opened that workers must not share. Handlers of signals, directory, environment, umask
    and sys.path are what they were when serve returns, and it can be called again. While it serves, other children of
    the process are reaped by it. What `atexit` holds is called at the end of each worker, as under gunicorn, and at
    the end of the program.

    With a name HUP and `reload=True` work as everywhere: new workers load what it means by then. An object stays what
    it is when HUP comes. USR2, and with an object `reload=True`, run the program again under the same process id, with
    listeners and workers kept: first on trial in a process of its own, which ends within `serve`, then in earnest. So
    a program does before `serve` nothing that must be done once only. Where the trial fails the old code goes on
    after USR2; with `reload=True` a page shows why, until a change mends it.

    Raises ConfigError for an unknown name, a bad value, an address that cannot be bound, a call on a thread other
    than the main one (`epollwsgi.testing.LiveServer` serves in the background) or while it serves already;
    ApplicationFailed or ApplicationNotFound where a name leads to no application. All are StartError, and their text
    is meant for people.
    """
    from epollwsgi.program import serve_application  # importing the package must stay cheap

    return serve_application(application, settings)
