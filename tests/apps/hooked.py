"""The applications of `shapes` behind the hooks of a request; GET /seen gives what these have seen, and forgets it."""

from __future__ import annotations

import json
import threading
from typing import Any

from epollwsgi.config.settings import DEFAULTS
from epollwsgi.logs.error_log import ErrorLog
from epollwsgi.logs.sink import Sink
from epollwsgi.process.hook_objects import HookConfig, HookLog, HookWorker
from epollwsgi.process.request_hooks import HookRequest, HookResponse, wrap_application
from tests.apps import shapes
from tests.apps.base import PLAIN, Environ, Start

SEEN: list[list[object]] = []


def pre_request(worker: HookWorker, req: HookRequest) -> None:
    if req.path == "/pre_request_fails":
        raise SystemExit("pre_request of this route")
    vars(req)["thread"] = threading.get_ident()


def post_request(worker: HookWorker, req: HookRequest, environ: Environ, resp: HookResponse) -> None:
    thread = vars(req).get("thread")
    SEEN.append([req.method, req.path, resp.status_code, resp.sent, thread == threading.get_ident()])
    if req.path == "/list_one" and req.query == "post_request_fails":
        raise SystemExit("post_request of this route")


hooked = wrap_application(
    shapes.app, pre_request, post_request, HookWorker(1, 0, HookConfig(DEFAULTS), HookLog(ErrorLog(Sink("-", 2))))
)


def app(environ: Environ, start: Start) -> Any:
    if environ["PATH_INFO"] == "/seen":
        seen = json.dumps(SEEN)
        SEEN.clear()
        start("200 OK", PLAIN)
        return [seen.encode("ascii")]
    return hooked(environ, start)
