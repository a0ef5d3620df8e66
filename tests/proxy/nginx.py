"""A real nginx in front of a server; its listening socket is made by the test, so that the port is free."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import require_tool, wait_until

CONFIGURATION = """
daemon off;
{user}
pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream server {{ server {upstream}; keepalive 1; }}
  server {{
    listen {listen};
    add_header X-Id $request_id;
    {lines}
  }}
}}
"""
# As html/proxies.html shows it.
KEPT = """
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Request-ID $request_id;
"""
# As root it would serve as somebody who may not enter the directory of the test.
USER = "user root;" if os.geteuid() == 0 else ""
PASS_ALL = "location / { proxy_pass http://server; }"


class Nginx:
    """Where it listens: a port, or the path of a unix socket."""

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self.path = path

    def ask(self, target: str = "/", source: str = "127.0.0.1", **fields: str) -> Any:
        """What tests.apps.proxied says to a client at `source`; `id` is nginx's id."""
        response, body = self.fetch(target, source, **fields)
        if response.status != 200:
            return {"status": response.status}
        return {**json.loads(body), "status": 200, "id": response.headers["X-Id"].split(", ")[-1]}

    def fetch(
        self, target: str = "/", source: str = "127.0.0.1", **fields: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """A response as it comes, on a connection of its own."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10, source_address=(source, 0))
        with contextlib.closing(client):
            client.request("GET", target, headers={name.replace("_", "-"): value for name, value in fields.items()})
            response = client.getresponse()
            return response, response.read()


@contextlib.contextmanager
def running(directory: Path, upstream: str, lines: str, listens_at: str = "") -> Iterator[Nginx]:
    """lines: of the server block.  listens_at: path of a unix socket; without it a free port."""
    program = require_tool("nginx", "nginx")
    directory.mkdir()
    if listens_at:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(listens_at)
        port, listen = 0, f"unix:{listens_at}"
    else:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        listen = f"127.0.0.1:{port}"
    with sock, open(directory / "stderr", "wb") as errors:
        sock.listen(64)
        configuration = directory / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(directory=directory, upstream=upstream, listen=listen, lines=lines, user=USER), "utf-8"
        )
        process = subprocess.Popen(
            [program, "-p", str(directory), "-e", "stderr", "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            pass_fds=[sock.fileno()],
            env={**os.environ, "NGINX": f"{sock.fileno()};"},  # it takes the socket over, as in its own upgrade
        )
    try:
        log = directory / "stderr"
        wait_until(lambda: (directory / "pid").exists() or process.poll() is not None, what=f"nginx: {log.read_text()}")
        assert process.poll() is None, log.read_text()
        yield Nginx(port, listens_at)
    finally:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pids = [process.pid, *map(int, children.read_text().split())] if process.poll() is None else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
