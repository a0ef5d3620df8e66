"""The servers under measurement, one table: how each is started and whether it is installed.

Knows commands only; `process` starts them, `__main__` chooses among them.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from shutil import which

HOST = "127.0.0.1"

NGINX_CONF = """\
daemon off;
worker_processes 1;
pid {scratch}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  types {{ text/html html; }}
  access_log off;
  sendfile on;
  tcp_nopush on;
  gzip_static on;
  open_file_cache max=20000 inactive=60s;
  open_file_cache_valid 60s;
  keepalive_timeout 75s;
  keepalive_requests 1000000000;
  client_body_temp_path {scratch}/body;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  server {{ listen {host}:{port} backlog=4096; root {directory}; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Task:
    """What a server is to serve, and where. `application` is empty where it is to serve `directory`."""

    port: int
    application: str
    directory: Path
    scratch: Path


@dataclass(frozen=True, slots=True)
class Server:
    """One server. `version` gives None where it is not installed."""

    name: str
    version: Callable[[], str | None]
    command: Callable[[Task], list[str]]
    serves: frozenset[str]


def of_distribution(name: str) -> Callable[[], str | None]:
    """A `version` that asks the installed distributions of this Python."""

    def version() -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return version


def version_of_epollwsgi() -> str | None:
    """Version of the checkout, which need not be installed to be run."""
    if importlib.util.find_spec("epollwsgi") is None or importlib.util.find_spec("epollwsgi.__main__") is None:
        return None
    return str(getattr(importlib.import_module("epollwsgi"), "__version__", "checkout"))


def path_of_nginx() -> str | None:
    """Debian keeps nginx where an ordinary user's PATH does not lead."""
    return which("nginx") or which("nginx", path="/usr/sbin:/usr/local/sbin")


def version_of_nginx() -> str | None:
    """What `nginx -v` writes after the slash."""
    path = path_of_nginx()
    if path is None:
        return None
    said = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=5, check=True).stderr
    return said.strip().rpartition("/")[2]


def command_of_epollwsgi(task: Task) -> list[str]:
    """The trailing slash is what tells a directory from a module."""
    served = task.application or f"{task.directory}/"
    return [sys.executable, "-m", "epollwsgi", "-b", f"{HOST}:{task.port}", served]


def command_of_bjoern(task: Task) -> list[str]:
    """Defaults of bjoern: no access log, keep-alive without a limit."""
    return [sys.executable, "-m", "tests.benchmarks.bjoern_runner", task.application, str(task.port)]


def command_of_granian(task: Task) -> list[str]:
    """One worker, its limit of connections raised as that of the others is; else as granian chooses for WSGI."""
    place = ["--host", HOST, "--port", str(task.port)]
    limits = ["--workers", "1", "--backlog", "8192", "--backpressure", "8192"]
    options = ["--interface", "wsgi", "--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "granian", *place, *limits, *options, task.application]


def command_of_gunicorn(task: Task) -> list[str]:
    """Keep-alive is raised to epollwsgi's default, else gunicorn closes the idle connections of a busy run."""
    threads = ["--worker-class", "gthread", "--workers", "1", "--threads", "8", "--worker-connections", "8192"]
    options = ["--bind", f"{HOST}:{task.port}", "--keep-alive", "75", "--log-level", "warning"]
    return [sys.executable, "-m", "gunicorn", *threads, *options, task.application]


def command_of_waitress(task: Task) -> list[str]:
    """Its select() ends at descriptor 1,024, so poll() for the runs with 1,000 connections."""
    place = [f"--listen={HOST}:{task.port}", "--connection-limit=8192"]
    options = ["--channel-timeout=75", "--asyncore-use-poll"]
    return [sys.executable, "-m", "waitress", *place, *options, task.application]


def command_of_nginx(task: Task) -> list[str]:
    """Write the configuration into the scratch directory, which is nginx's prefix."""
    configuration = task.scratch / "nginx.conf"
    text = NGINX_CONF.format(scratch=task.scratch, directory=task.directory, host=HOST, port=task.port)
    configuration.write_text(text, encoding="utf-8")
    return [path_of_nginx() or "nginx", "-p", str(task.scratch), "-e", "stderr", "-c", str(configuration)]


APPLICATIONS = frozenset({"application"})
FILES = frozenset({"files"})

SERVERS = (
    Server("epollwsgi", version_of_epollwsgi, command_of_epollwsgi, APPLICATIONS | FILES),
    Server("bjoern", of_distribution("bjoern-binary"), command_of_bjoern, APPLICATIONS),
    Server("granian", of_distribution("granian"), command_of_granian, APPLICATIONS),
    Server("gunicorn", of_distribution("gunicorn"), command_of_gunicorn, APPLICATIONS),
    Server("waitress", of_distribution("waitress"), command_of_waitress, APPLICATIONS),
    Server("nginx", version_of_nginx, command_of_nginx, FILES),
)
