"""The settings of gunicorn 27 that have no row in the table of this server: what becomes of each, and why.

A value that is gunicorn's own default is taken in silence. Any other is ignored with its reason in one warning, so
that an old command line starts, or refused with it where whoever set it would not get what they rely on. It knows no
source of values; `config.load` asks `judge`, the command line takes its options from here, and so does the
documentation its table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

Refuses = Callable[[str], bool]


class Verdict(Enum):
    """What becomes of a value."""

    SILENT = "accepted"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Foreign:
    """One setting of gunicorn's.

    flags: as on the command line; none: settings files only.  metavar: '' for a switch.
    default: gunicorn's; None for a function that does nothing.
    reason: why it has no effect here, or, with what to do instead, why it is refused.
    refuses: the values, in the form of `canonical`, that are refused; None: none is.
    is_silent: True where ignoring it changes nothing, so that nothing needs to be said.
    """

    flags: tuple[str, ...]
    metavar: str
    default: object
    reason: str
    refuses: Refuses | None = None
    is_silent: bool = False


def judge(name: str, value: object) -> Verdict:
    """What becomes of a value of one of these settings, as written in any source."""
    row = GUNICORN_ONLY[name]
    written = canonical(value)
    if row.is_silent or written in ("", "false", canonical(row.default)):
        return Verdict.SILENT
    return Verdict.REFUSED if row.refuses is not None and row.refuses(written) else Verdict.IGNORED


def canonical(value: object) -> str:
    """One text for all the ways in which a value may be written; '' for none."""
    if isinstance(value, list | tuple):
        return ",".join(filter(None, map(canonical, value)))
    if value is None or (isinstance(value, dict) and not value):
        return ""
    text = str(value).strip().lower()
    if re.fullmatch("(0o?)?[0-7]+", text, re.ASCII) and text != "0":
        return str(int(text.replace("o", ""), 8 if text.startswith("0") else 10))
    return text


def _any(_: str) -> bool:
    return True


def _lacks_http_1(protocols: str) -> bool:
    """True for a list of protocols in which HTTP/1.1 is not."""
    return "h1" not in (word.strip() for word in protocols.split(","))


def _expects_http_2(mode: str) -> bool:
    """True where clients may speak HTTP/2 without having asked."""
    return mode in ("prior-knowledge", "both", "true")


_HTTP_1 = "this server speaks HTTP/1.1; HTTP/2 is the proxy's"
_STRICT = "requests of that kind are always refused here"
_ASGI = "this server runs WSGI applications, not ASGI ones; leave it out, or run those by an ASGI server"
_DIRTY = "there are no dirty workers here"
_TLS = "no effect without certfile"
_CONTROL = "there is no control socket; signals to the process named in the pid file do that"

# fmt: off
GUNICORN_ONLY: dict[str, Foreign] = {
    "worker_tmp_dir": Foreign(("--worker-tmp-dir",), "DIR", None, "workers report through shared memory, not through heartbeat files"),
    "paste": Foreign(("--paste", "--paster"), "STRING", None, "no PasteDeploy files here; name the application as MODULE:ATTRIBUTE"),
    "raw_paste_global_conf": Foreign(("--paste-global",), "CONF", (), "no PasteDeploy files here"),
    "spew": Foreign(("--spew",), "", False, "no tracing of each line here; slow_request_time logs the stack of a call that hangs"),
    "logger_class": Foreign(("--logger-class",), "STRING", "gunicorn.glogging.Logger", "the server writes its logs itself; see logconfig and access_log_format"),
    "enable_stdio_inheritance": Foreign(("-R", "--enable-stdio-inheritance"), "", False, "what the application prints goes where the output of the server goes"),
    "enable_backlog_metric": Foreign(("--enable-backlog-metric",), "", False, "the backlog is not among the figures"),
    "default_proc_name": Foreign((), "STRING", "gunicorn", "processes are named by proc_name, or after the application"),
    "protocol": Foreign(("--protocol",), "STRING", "http", "this server speaks HTTP, not uwsgi; let the proxy pass HTTP (nginx: proxy_pass, not uwsgi_pass)", _any),
    "uwsgi_allow_ips": Foreign(("--uwsgi-allow-from",), "PEERS", "127.0.0.1,::1", "this server does not speak the uwsgi protocol"),
    "ssl_version": Foreign(("--ssl-version",), "NUMBER", 2, _TLS, is_silent=True),
    "suppress_ragged_eofs": Foreign(("--suppress-ragged-eofs",), "", True, _TLS, is_silent=True),
    "do_handshake_on_connect": Foreign(("--do-handshake-on-connect",), "", False, _TLS, is_silent=True),
    "http_protocols": Foreign(("--http-protocols",), "LIST", "h1", _HTTP_1, _lacks_http_1),
    "http2_cleartext": Foreign(("--http2-cleartext",), "MODE", "off", _HTTP_1, _expects_http_2),
    "http2_max_concurrent_streams": Foreign(("--http2-max-concurrent-streams",), "N", 100, _HTTP_1),
    "http2_initial_window_size": Foreign(("--http2-initial-window-size",), "N", 65535, _HTTP_1),
    "http2_max_frame_size": Foreign(("--http2-max-frame-size",), "N", 16384, _HTTP_1),
    "http2_max_header_list_size": Foreign(("--http2-max-header-list-size",), "N", 65536, _HTTP_1),
    "permit_obsolete_folding": Foreign(("--permit-obsolete-folding",), "", False, _STRICT),
    "strip_header_spaces": Foreign(("--strip-header-spaces",), "", False, _STRICT),
    "permit_unconventional_http_method": Foreign(("--permit-unconventional-http-method",), "", False, "any method that is a token of RFC 9110 is passed on as it is"),
    "permit_unconventional_http_version": Foreign(("--permit-unconventional-http-version",), "", False, _STRICT),
    "casefold_http_method": Foreign(("--casefold-http-method",), "", False, "methods are passed on as they are written"),
    "asgi_loop": Foreign(("--asgi-loop",), "STRING", "auto", _ASGI, _any),
    "asgi_lifespan": Foreign(("--asgi-lifespan",), "STRING", "auto", _ASGI, _any),
    "asgi_disconnect_grace_period": Foreign(("--asgi-disconnect-grace-period",), "N", 3, _ASGI, _any),
    "websocket_max_message_size": Foreign(("--websocket-max-message-size",), "N", 16777216, "for ASGI alone; here the WebSocket library of the application has that limit"),
    "http_parser": Foreign(("--http-parser",), "STRING", "auto", "this server has one parser, its own"),
    "root_path": Foreign(("--root-path",), "STRING", "", "for ASGI alone; the prefix of a WSGI application is script_name"),
    "dirty_apps": Foreign(("--dirty-app",), "STRING", (), f"{_DIRTY}, and the application calls them; run that work as a service of its own", _any),
    "dirty_workers": Foreign(("--dirty-workers",), "N", 0, _DIRTY),
    "dirty_timeout": Foreign(("--dirty-timeout",), "N", 300, _DIRTY),
    "dirty_threads": Foreign(("--dirty-threads",), "N", 1, _DIRTY),
    "dirty_graceful_timeout": Foreign(("--dirty-graceful-timeout",), "N", 30, _DIRTY),
    "on_dirty_starting": Foreign((), "FUNCTION", None, _DIRTY),
    "dirty_post_fork": Foreign((), "FUNCTION", None, _DIRTY),
    "dirty_worker_init": Foreign((), "FUNCTION", None, _DIRTY),
    "dirty_worker_exit": Foreign((), "FUNCTION", None, _DIRTY),
    "control_socket": Foreign(("--control-socket",), "PATH", None, _CONTROL),
    "control_socket_mode": Foreign(("--control-socket-mode",), "INT", 0o600, _CONTROL),
    "control_socket_disable": Foreign(("--no-control-socket",), "", False, "there is none to turn off", is_silent=True),
}
# fmt: on


# --- worker classes -------------------------------------------------------------------------------------------------

OURS = {
    "sync": ("sync", "gunicorn.workers.sync.syncworker", "egg:gunicorn#sync"),
    "gthread": ("gthread", "gunicorn.workers.gthread.threadworker", "egg:gunicorn#gthread"),
}
# A part of the name, and why there is no such worker here: the first row that fits.
WORKER_CLASSES = (
    ("websocket", "a WebSocket is served by a library such as flask-sock or simple-websocket, without a worker class"),
    ("gevent", "slow calls need no green threads here, and patched sockets break them"),
    ("eventlet", "slow calls need no green threads here, and patched sockets break them"),
    ("uvicorn", "this server runs WSGI applications, not ASGI ones"),
    ("asgi", "this server runs WSGI applications, not ASGI ones"),
    ("aiohttp", "this server runs WSGI applications, not aiohttp ones"),
    ("tornado", "this server has one kind of worker, and Tornado's loop is not in it"),
    ("meinheld", "this server has one kind of worker, which replaces that one"),
    ("", "this server has one kind of worker and loads no other"),
)


def known_worker_class(value: object) -> str:
    """A class of gunicorn's by the word for it. Raises ValueError with the reason for one that cannot be had here."""
    if isinstance(value, type):
        value = f"{value.__module__}.{value.__qualname__}"
    if not isinstance(value, str):
        raise ValueError("gthread or sync is allowed; there are no worker classes to replace here")
    name = value.strip().lower()
    for word, names in OURS.items():
        if name in names:
            return word
    reason = next(reason for part, reason in WORKER_CLASSES if part in name)
    raise ValueError(f"gthread or sync is allowed; {reason}")
