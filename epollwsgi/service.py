"""What all connections of a worker share: settings made ready for the hot path, the parser, who answers, the logs.

`process.worker` builds one; `connection` and `acceptor` read it. What changes while it runs is listed here with its
owner, today always the thread that leads the loop: `connections`, `keeps`, `spread`, the memories of the parser,
`quota.used`.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from itertools import chain, count, islice, repeat
from operator import add
from typing import TYPE_CHECKING, Any, Protocol

from epollwsgi import __version__
from epollwsgi.file_wrapper import FileWrapper
from epollwsgi.helper import Helper, run_here
from epollwsgi.http.fields import Environ, Limits
from epollwsgi.http.forwarded import Forwarding, Peers
from epollwsgi.http.head import HeadParser
from epollwsgi.leader import Leader
from epollwsgi.loop import Loop
from epollwsgi.outbox import SpoolRules
from epollwsgi.spool import Quota
from epollwsgi.static.handler import StaticHandler
from epollwsgi.static.variants import Run
from epollwsgi.wsgi import Application

if TYPE_CHECKING:
    from socket import socket

    from epollwsgi.config.settings import Settings
    from epollwsgi.logs.access_log import AccessLog
    from epollwsgi.logs.error_log import ErrorLog
    from epollwsgi.scoreboard import Mine
    from epollwsgi.spread import Spread
    from epollwsgi.states import State

SERVER_SOFTWARE = f"epollwsgi/{__version__}"
# A body sent to a site without an application is read, and dropped, up to this size.
SITE_BODY_SIZE = 64 * 1024
SPOOL_TOTAL_MAX = 4 << 30


class Idler(Protocol):
    """A connection, as far as others choose which one to close."""

    deadline: float
    gone: bool
    sock: socket
    state: State

    has_asked: bool
    """a request has come"""

    @property
    def is_idle(self) -> bool: ...
    def close_if_idle(self) -> bool: ...
    def end_notes(self) -> None: ...


class Service:
    """See the module. application: None for a site alone."""

    def __init__(
        self,
        settings: Settings,
        application: Application | None,
        error_log: ErrorLog,
        access_log: AccessLog | None,
        mine: Mine | None = None,
    ) -> None:
        """mine: this worker's slot; None where it shares its listeners with nobody."""
        self.error_log = error_log
        self.access_log = access_log
        self._reports_later = False
        self.loop = Loop(b"" if settings.no_server_header else f"Server: {SERVER_SOFTWARE}\r\n".encode("ascii"))
        if access_log is not None:
            self.loop.write_log(access_log.entries, access_log.flush)
        self._told: set[str] = set()  # what is said once
        self.peers = Peers(settings.forwarded_allow_ips)
        self.parser, self.proxy_parser = self._build_parsers(settings)
        self.request_lines = self.parser.request_lines
        self.head_limit = self.parser.limits.head - 4
        self.leader = None if application is None else Leader(self.loop, application, settings, error_log)
        # Threads for what may wait or take long; one for disks alone, so that nothing is sent later for want of it.
        self.helper = Helper("epollwsgi-helper", self.loop.call_soon, error_log.error)
        self.reader = Helper("epollwsgi-reader", self.loop.call_soon, error_log.error)
        self.static = open_static(settings, application, self.log_limited, error_log.warning, self.helper.run)
        self.fresh: dict[str, bytes] = self.static.fresh.plain if self.static is not None else {}
        if self.static is not None:
            self.loop.on_second.append(self.static.on_tick)
            self.static.on_tick(self.loop.now, self.loop.common)
        self.connections: set[Idler] = set()
        self.mine = mine
        self.spread: Spread | None = None  # made by the first acceptor, where there is `mine`
        self.keeps = settings.keepalive > 0  # whether connections are kept open at all now
        self.keepalive_s = settings.keepalive
        self.header_timeout_s = settings.header_timeout
        self.body_timeout_s = settings.body_timeout
        self.body_min_rate = settings.body_min_rate
        self.send_timeout_s = settings.send_timeout
        self.body_buffer_size = settings.body_buffer_size
        self.body_limit = settings.limit_request_body
        if application is None:
            self.body_limit = min(self.body_limit, SITE_BODY_SIZE)
        self.sendfile = settings.sendfile
        self.tmp_dir = settings.tmp_upload_dir
        self.quota = Quota(spool_total(settings))
        self.spool_rules = SpoolRules(settings.output_watermark, settings.response_spool, self.tmp_dir, self.quota)
        self._templates: dict[tuple[str, str] | None, Environ] = {}  # bounded by the addresses of this host
        self.template = self._build_template(settings)
        self.request_ids = self._all_ids = make_ids(secrets.token_hex(6))
        self._asked_count = 0  # ids that no request has got

    def limit_requests(self, count: int, on_reached: Callable[[], None]) -> None:
        """Call on_reached once `count` requests have come to the application; 0: never. Costs a request nothing."""

        def rest() -> Iterator[Iterator[str]]:
            if count:
                yield islice(ids, count - 1)
                on_reached()
            yield ids

        ids = self.request_ids
        self.request_ids = chain.from_iterable(rest())

    def request_count(self) -> int:
        """How many requests have come to the application. Called by the thread that leads."""
        self._asked_count += 1
        return int(next(self._all_ids).rpartition("-")[2], 16) - self._asked_count + 1

    def in_flight(self) -> int:
        """How many requests are in the application, or wait for a thread."""
        if self.leader is None:
            return 0
        return len(self.leader.crew.at_work) + len(self.leader.crew.queue) + len(self.leader.upgrades.calls)

    def drain(self) -> None:
        """Every response from now on is the last of its connection."""
        self.keeps = False

    def _build_parsers(self, settings: Settings) -> tuple[HeadParser, HeadParser]:
        """Of heads from anyone, and from trusted proxies. Request lines mean the same to both."""
        forwarding = build_forwarding(settings)
        build = partial(
            HeadParser,
            head_limits(settings),
            header_map=settings.header_map,
            script_name=settings.script_name,
            on_dropped=self._on_dropped,
        )
        allowed = ",".join(settings.forwarded_allow_ips)
        others = build(
            names=forwarding.names_of_others,
            on_unused=lambda name: self._tell_once(
                "a forwarding field",
                f"field {name!r} changes nothing: its peer is not in forwarded_allow_ips = {allowed} (a proxy of yours "
                "is put there by its address or network, by the word unix where it comes over a unix socket)",
            ),
        )
        proxies = build(
            names=forwarding.names,
            on_unused=lambda name: self._tell_once(
                "a prefix",
                f"field {name!r} of a trusted proxy changes nothing (forwarded_fields = prefix makes it SCRIPT_NAME)",
            ),
            believe=forwarding.apply,
        )
        proxies.request_lines = others.request_lines
        return others, proxies

    def end_notes(self) -> None:
        """The process ends: the access log gets what was sent of responses that are not complete."""
        for connection in list(self.connections):
            connection.end_notes()

    def _build_template(self, settings: Settings) -> Environ:
        """Every key that all requests have. PEP 3333; WIRE.md section 4. What differs is set for each request."""
        if self.leader is None:
            return {}  # files need nothing but the fields
        template: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": find_script_name(settings),
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "RAW_URI": "/",
            "REQUEST_URI": "/",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": SERVER_SOFTWARE,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": self.error_log.stream,
            "wsgi.multithread": settings.threads > 1,
            "wsgi.multiprocess": settings.workers != 1,
            "wsgi.run_once": False,
            "wsgi.input": BytesIO,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
            "epollwsgi.client_gone": bool,
            "wsgi.early_hints": bool,
            "epollwsgi.peer": None,
            "epollwsgi.request_id": "",
        }
        return template

    def template_for(self, local: tuple[str, str] | None) -> Environ:
        """The template of connections to one local address and port; None: a unix socket."""
        template = self._templates.get(local)
        if template is None:
            template = self.template.copy()
            if template and local is not None:
                template["SERVER_NAME"], template["SERVER_PORT"] = local
            self._templates[local] = template
        return template

    def log_limited(self, kind: str, message: str, level: str = "info") -> None:
        """A line that clients can cause, at a bounded rate; what was held back is counted a little later."""
        self.error_log.limited(kind, message, level)
        if not self._reports_later:
            self._reports_later = True
            self.loop.call_soon(self._report_later)  # this may be a thread of the application

    def _report_later(self) -> None:
        self.loop.call_later(1.0, self._report_held_back)

    def _report_held_back(self) -> None:
        self._reports_later = self.error_log.on_tick()
        if self._reports_later:
            self._report_later()

    def _on_dropped(self, name: str) -> None:
        """A field was dropped; said once for each name, of at most a hundred names, because clients choose them."""
        if len(self._told) >= 100:
            return
        why = "its name has an underscore" if "_" in name else "with an underscore it would be one of forwarder_headers"
        self._tell_once(
            f"dropped {name}",
            f"field {name[:80]!r} was dropped: {why} (header_map = dangerous lets it through, forwarder_headers from "
            "trusted proxies alone)",
        )

    def _tell_once(self, what: str, message: str) -> None:
        """A line that clients can cause: once in the life of a worker."""
        if what not in self._told:
            self._told.add(what)
            self.error_log.info(message)


def make_ids(prefix: str) -> Iterator[str]:
    """Ids of requests, without end: unguessable for the worker, then a number. Joined in C: every request has one."""
    lows = [f"{low:03x}" for low in range(4096)]
    return chain.from_iterable(map(add, repeat(f"{prefix}-{high:x}"), lows) for high in count())


def head_limits(settings: Settings) -> Limits:
    """The limits of a request head."""
    return Limits(
        line=settings.limit_request_line,
        fields=settings.limit_request_fields,
        field_size=settings.limit_request_field_size,
        head=settings.limit_request_head,
    )


def find_script_name(settings: Settings) -> str:
    """The fixed script name as environ has it."""
    return settings.script_name.rstrip("/").encode("utf-8").decode("latin-1")


def build_forwarding(settings: Settings) -> Forwarding:
    """What is believed of trusted proxies."""
    return Forwarding(
        settings.forwarded_allow_ips,
        settings.forwarded_fields,
        dict(settings.secure_scheme_headers),
        settings.forwarder_headers,
    )


def open_static(
    settings: Settings,
    application: Application | None,
    log: Callable[[str, str, str], None],
    report: Callable[[str], None] | None = None,
    run: Run = run_here,
) -> StaticHandler | None:
    """The handler of all static mounts; None if there are none. report: gets what is wrong with the rules there."""
    if not settings.static:
        return None
    return StaticHandler(
        settings.static,
        alone=application is None,
        revalidate=settings.revalidate,
        log=lambda message: log("static", message, "warning"),
        report=report,
        listing=settings.listing,
        pretty=settings.pretty,
        spa=settings.spa,
        compress=settings.compress,
        follow_symlinks=settings.follow_symlinks,
        script_name="" if application is None else find_script_name(settings),  # a site looks at whole paths alone
        run=run,
    )


def spool_total(settings: Settings) -> int:
    """Bytes that all temporary files of this worker may hold: by default a quarter of the free space, at most 4 GiB."""
    if settings.limit_spool_total is not None:
        return settings.limit_spool_total
    try:
        free = shutil.disk_usage(settings.tmp_upload_dir or tempfile.gettempdir()).free
    except OSError:
        return 0
    return min(SPOOL_TOTAL_MAX, free // 4)


def connection_limit(settings: Settings) -> int:
    """How many connections a worker keeps open; raises the soft limit of descriptors to the hard one first."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            pass  # a sandbox: what there is has to do
    limit = max(1, soft * 3 // 4)
    return limit if settings.worker_connections is None else min(settings.worker_connections, limit)
