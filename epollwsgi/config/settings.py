"""The one table of settings: name, converter, default, options, unit, help, and whether it has an effect yet.

The command line, settings files, environment, `--help`, `--print-config` and the tables of the documentation are made
from it.  It knows no source of values; `config.load` fills a `Settings`, and everything else only reads one.
Names, short forms and meanings are gunicorn's wherever gunicorn has the setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from epollwsgi.config import destinations as d
from epollwsgi.config import values as v


@dataclass(frozen=True, slots=True)
class Option:
    """What the table says about one setting; `parse` reads a single value, an item where there are `many`.

    flags: as on the command line; none: settings files and environment only.  metavar: '' for a switch, which gives
    `const`.  optional: the word meant where the option stands without a value.  many: 'items' repeat on the command
    line, 'list' is a text split at commas everywhere.  unit: 'bytes', 'seconds', 'octal' or ''.
    honoured: False where the value is only checked so far; `in_effect` is what the server does today instead.
    refusal: why any value but the default is refused so far, and the way out.  needs: the setting without which this
    one has no effect.
    """

    parse: Callable[[object], object]
    flags: tuple[str, ...]
    metavar: str
    help: str
    section: str
    many: str = ""
    unit: str = ""
    const: bool = True
    optional: str = ""
    honoured: bool = True
    in_effect: object = None
    refusal: str = ""
    needs: str = ""


def setting(
    default: object, parse: Callable[[Any], object], flags: str, metavar: str, help: str, *, section: str, **more: Any
) -> Any:
    """A field of Settings that carries its Option."""
    return field(
        default=default, metadata={"option": Option(parse, tuple(flags.split()), metavar, help, section, **more)}
    )


_start = partial(setting, section="Start")
_socket = partial(setting, section="Sockets")
_process = partial(setting, section="Processes and threads")
_time = partial(setting, section="Time limits", unit="seconds")
_limit = partial(setting, section="Limits")
_static = partial(setting, section="Static files")
_request = partial(setting, section="Requests and responses")
_log = partial(setting, section="Logs")
_proxy = partial(setting, section="Behind a proxy")
_proxy_later = partial(_proxy, honoured=False)
_tls = partial(setting, section="TLS", honoured=False)
_of_tls = partial(_tls, needs="certfile")
_hook = partial(setting, None, v.hook, "", "FUNCTION", section="Hooks of a settings file in Python")

Hook = Callable[..., object] | None
COUNT = v.whole(0, v.NO_LIMIT)
ACCESS_LOG_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
SECURE_SCHEME_HEADERS = (("X-FORWARDED-PROTOCOL", "ssl"), ("X-FORWARDED-PROTO", "https"), ("X-FORWARDED-SSL", "on"))
NO_TLS = "this server has no TLS yet; leave certfile and keyfile out and let nginx or HAProxy in front of it do that"
NO_PROXY_PROTOCOL = "this server does not read the PROXY protocol yet; let the proxy send HTTP with X-Forwarded-For"
FORWARDED_FIELDS = ("proto", "for", "host", "port", "prefix", "forwarded", "all")


# fmt: off
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Settings:
    """Every setting with its value; without arguments the defaults."""

    config: str = _start("", v.text, "-c --config", "FILE", "settings file, TOML or Python in gunicorn's format; without it ./epollwsgi.toml, else ./gunicorn.conf.py")
    wsgi_app: str = _start("", v.text, "", "APP", "what to serve where the command line names nothing")
    check_config: bool = _start(False, v.boolean, "--check-config", "", "load settings and application, then exit")
    print_config: bool = _start(False, v.boolean, "--print-config", "", "show each setting and where it comes from; implies --check-config")
    chdir: str = _start("", v.text, "--chdir", "DIR", "directory to enter before anything is loaded; relative paths start there")
    pythonpath: str = _start("", v.text, "--pythonpath", "DIRS", "directories, separated by commas, to put first in sys.path")
    raw_env: tuple[str, ...] = _start((), v.environment_item, "-e --env", "NAME=VALUE", "environment variable for the application", many="items")
    umask: int | None = _start(None, v.octal, "-m --umask", "OCTAL", "mode bits that new files do not get, such as 022; none: as inherited", unit="octal")
    proc_name: str = _start("", v.text, "-n --name", "NAME", "name of the processes as ps shows it, with the extra proctitle")

    bind: tuple[v.Bind, ...] = _socket((v.TCPBind("127.0.0.1", v.DEFAULT_PORT),), v.bind, "-b --bind", "ADDRESS", "address to listen at: HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH[?mode=660] or fd://N", many="list")
    backlog: int = _socket(2048, v.whole(1, 65535), "--backlog", "N", "connections that may wait to be accepted")
    reuse_port: bool = _socket(False, v.boolean, "--reuse-port", "", "set SO_REUSEPORT on TCP listeners")
    admin: str = _socket("", v.text, "--admin", "ADDRESS", "second listener for health, metrics and status", honoured=False)

    workers: int | None = _process(1, v.or_auto(v.whole(1, 4096)), "-w --workers", "N", "worker processes; auto: as many as CPUs may be used")
    worker_class: str = _process("gthread", v.choice("gthread", "sync"), "-k --worker-class", "CLASS", "gthread, or sync, which is threads = 1")
    threads: int = _process(8, v.whole(1, 1024), "--threads", "N", "threads that may be inside the application at once, per worker; 1: all calls on the main thread")
    dispatch: str = _process("adaptive", v.choice("adaptive", "pool"), "--dispatch", "WORD", "adaptive: quick routes run on the loop's thread, slow ones on others; pool: every request on another thread, to compare")
    worker_connections: int | None = _process(None, v.or_auto(v.whole(1, 10_000_000)), "--worker-connections", "N", "connections a worker keeps open; auto: three quarters of RLIMIT_NOFILE")
    max_requests: int = _process(0, COUNT, "--max-requests", "N", "requests after which a worker is replaced; 0: never")
    max_requests_jitter: int = _process(0, COUNT, "--max-requests-jitter", "N", "at most so many requests more, chosen at random")
    max_worker_age: float = _process(0.0, v.seconds(), "--max-worker-age", "TIME", "age at which a worker is replaced; 0: never", unit="seconds")
    max_worker_memory: int = _process(0, v.size(), "--max-worker-memory", "SIZE", "memory at which a worker is replaced; 0: never", unit="bytes")
    queue_size: int = _process(1024, v.whole(1, 1_000_000), "--queue-size", "N", "complete requests that may wait for a thread; one more gets 503")
    switch_interval: float = _process(0.0005, v.seconds(1e-6, 1.0), "--switch-interval", "TIME", "how long a thread may compute before another gets its turn", unit="seconds")
    upgrade_threads: int = _process(64, v.whole(0, 65536), "--upgrade-threads", "N", "threads for connections handed to the application (WebSocket), beside threads; one more gets 503")
    timeout_interrupt: bool = _process(False, v.boolean, "--timeout-interrupt", "", "raise RequestTimedOut in a call that passed timeout")
    preload_app: bool = _process(False, v.boolean, "--preload", "", "load the application before the workers are forked")
    reload: bool = _process(False, v.boolean, "--reload", "", "restart when the code changes")
    reload_engine: str = _process("auto", v.choice("auto", "poll", "inotify"), "--reload-engine", "NAME", "how changes are noticed: auto, poll or inotify")
    reload_extra_files: tuple[str, ...] = _process((), v.text, "--reload-extra-file", "FILE", "another file to watch", many="items")
    reload_overlap: int | None = _process(None, v.or_auto(v.whole(1, 4096)), "--reload-overlap", "N", "additional workers during a reload; auto: as many as there are")
    ready_path: str = _process("", v.url_path, "--ready-path", "PATH", "path that must answer before a worker counts as ready")
    pidfile: str = _process("", v.text, "-p --pid", "FILE", "file for the process id")
    daemon: bool = _process(False, v.boolean, "-D --daemon", "", "go into the background")
    user: str = _process("", v.text_or_number, "-u --user", "USER", "user to run workers as")
    group: str = _process("", v.text_or_number, "-g --group", "GROUP", "group to run workers as")
    initgroups: bool = _process(False, v.boolean, "--initgroups", "", "take the user's supplementary groups too")

    keepalive: float = _time(75.0, v.seconds(), "--keep-alive", "TIME", "how long an idle connection is kept; 0: closed after each response")
    header_timeout: float = _time(15.0, v.seconds(0.001), "--header-timeout", "TIME", "for the whole head of a request, from its first byte")
    body_timeout: float = _time(30.0, v.seconds(0.001), "--body-timeout", "TIME", "without progress of a request's body")
    body_min_rate: int = _limit(500, v.size(), "--body-min-rate", "SIZE", "bytes a second that a body must bring after body_timeout; 0: any", unit="bytes")
    send_timeout: float = _time(60.0, v.seconds(0.001), "--send-timeout", "TIME", "without progress of a response")
    timeout: float = _time(30.0, v.seconds(), "-t --timeout", "TIME", "for the application to start its response, else the client gets 504; 0: none")
    slow_request_time: float = _time(5.0, v.seconds(), "--slow-request-time", "TIME", "after which a call is logged once, with its stack; 0: never")
    queue_timeout: float = _time(30.0, v.seconds(), "--queue-timeout", "TIME", "that a request may wait for a thread, then it gets 503; 0: any")
    graceful_timeout: float = _time(30.0, v.seconds(), "--graceful-timeout", "TIME", "for open requests to finish when the server is stopped")
    drain_delay: float = _time(0.0, v.seconds(), "--drain-delay", "TIME", "of normal service between TERM and the stop")

    limit_request_line: int = _limit(8190, v.size(16, v.NO_LIMIT, zero=v.NO_LIMIT), "--limit-request-line", "SIZE", "request line; 0: limit_request_head alone", unit="bytes")
    limit_request_fields: int = _limit(100, v.whole(1, v.NO_LIMIT, zero=v.NO_LIMIT), "--limit-request-fields", "N", "field lines of a request; 0: limit_request_head alone")
    limit_request_field_size: int = _limit(8190, v.size(16, v.NO_LIMIT, zero=v.NO_LIMIT), "--limit-request-field_size --limit-request-field-size", "SIZE", "one field line; 0: limit_request_head alone", unit="bytes")
    limit_request_head: int = _limit(64 << 10, v.size(256, 16 << 20), "--limit-request-head", "SIZE", "whole head of a request", unit="bytes")
    limit_request_body: int = _limit(1 << 30, v.size(1, zero=1 << 62), "--limit-request-body", "SIZE", "body of a request; 0: no limit", unit="bytes")
    limit_spool_total: int | None = _limit(None, v.or_auto(v.size()), "--limit-spool-total", "SIZE", "all temporary files; auto: a quarter of the free space, at most 4G", unit="bytes")
    body_buffer_size: int = _limit(64 << 10, v.size(0, 1 << 30), "--body-buffer-size", "SIZE", "body kept in memory; more goes to a temporary file", unit="bytes")
    tmp_upload_dir: str = _limit("", v.text, "--tmp-upload-dir", "DIR", "directory of temporary files; without it the system's")
    output_watermark: int = _limit(256 << 10, v.size(1024, 1 << 30), "--output-watermark", "SIZE", "response kept in memory for a slow reader; more goes to a temporary file", unit="bytes")
    response_spool: int = _limit(1 << 30, v.size(), "--response-spool", "SIZE", "response kept in a temporary file; beyond it the application waits for the reader", unit="bytes")

    static: tuple[v.StaticMount, ...] = _static((), v.static_mount, "--static", "/PREFIX=DIR", "serve the files of a directory below a prefix", many="items")
    revalidate: float = _static(1.0, v.seconds(), "--revalidate", "TIME", "how long a file is taken as unchanged; 0: looked at each time", unit="seconds")
    sendfile: bool = _static(True, v.boolean, "--no-sendfile", "", "send files without copying them; --no-sendfile turns it off", const=False)
    listing: bool = _static(False, v.boolean, "--listing", "", "show the names in a directory without index.html (a site alone)")
    pretty: bool = _static(False, v.boolean, "--pretty", "", "send /about.html to /about, and /d/index.html to /d/")
    spa: bool = _static(False, v.boolean, "--spa", "", "answer unknown paths without a dot with /index.html, for browsers that navigate (a site alone)")
    compress: bool = _static(False, v.boolean, "--compress", "", "compress text that is asked for often, once, in memory")
    follow_symlinks: bool = _static(False, v.boolean, "--follow-symlinks", "", "follow symbolic links that lead out of the directory")
    allow_source: bool = _static(False, v.boolean, "--allow-source", "", "serve a directory even if it looks like source code")

    script_name: str = _request("", v.url_prefix, "--script-name", "/PREFIX", "prefix that is SCRIPT_NAME, and taken off the path; environment variable SCRIPT_NAME")
    header_map: str = _request("drop", v.choice("drop", "refuse", "dangerous"), "--header-map", "WORD", "what happens to a field whose name holds an underscore: drop, refuse or dangerous (passed on)")
    no_server_header: bool = _request(False, v.boolean, "--no-server-header", "", "send no Server field")

    errorlog: str = _log("-", v.text, "--error-logfile --log-file", "FILE", "error log; -: standard error")
    loglevel: str = _log("info", v.choice("debug", "info", "warning", "error", "critical", also="warn=warning fatal=critical"), "--log-level", "LEVEL", "least level logged: debug, info, warning, error or critical")
    accesslog: str = _log("auto", v.text, "--access-logfile", "FILE", "access log; -: standard output, none: off, auto: short lines if that is a terminal")
    access_log_format: str = _log(ACCESS_LOG_FORMAT, v.text, "--access-logformat", "FORMAT", "format of an access log line, of gunicorn's atoms; or combined, json or dev")
    access_log_exclude: tuple[str, ...] = _log((), v.text, "--access-log-exclude", "PATTERN", "paths that the access log leaves out; * stands for any characters, ? for one, as in /health or /static/*", many="items")
    capture_output: bool = _log(False, v.boolean, "--capture-output", "", "send standard output and error of the application to the error log, where that is a file")
    logconfig: str = _log("", v.text, "--log-config", "FILE", "configuration of Python's logging, ini file; loggers gunicorn.error and gunicorn.access, or epollwsgi.*, get the logs")
    logconfig_json: str = _log("", v.text, "--log-config-json", "FILE", "the same in JSON; wins over logconfig")
    logconfig_dict: Mapping[str, object] | None = _log(None, v.mapping, "", "TABLE", "the same as a table; wins over both")
    syslog: bool = _log(False, v.boolean, "--log-syslog", "", "send both logs to syslog too")
    syslog_addr: str = _log("udp://localhost:514", d.syslog_address, "--log-syslog-to", "ADDRESS", "where syslog listens: udp://HOST:PORT, tcp://HOST:PORT or unix://PATH, which #dgram or #stream may follow")
    syslog_prefix: str = _log("", v.text, "--log-syslog-prefix", "NAME", "name in epollwsgi.NAME.error and epollwsgi.NAME.access; without it proc_name, or the application")
    syslog_facility: str = _log("user", v.choice(*d.FACILITIES), "--log-syslog-facility", "NAME", "facility for syslog")
    disable_redirect_access_to_syslog: bool = _log(False, v.boolean, "--disable-redirect-access-to-syslog", "", "keep the access log out of syslog")
    statsd_host: str = _log("", d.statsd_address, "--statsd-host", "ADDRESS", "send figures to statsd at HOST:PORT or unix://PATH")
    statsd_prefix: str = _log("", d.statsd_prefix, "--statsd-prefix", "PREFIX", "prefix of the names of figures")
    dogstatsd_tags: str = _log("", d.statsd_tags, "--dogstatsd-tags", "TAGS", "tags of all figures, separated by commas, for DogStatsD")

    forwarded_allow_ips: tuple[str, ...] = _proxy(("127.0.0.1", "::1"), v.peer, "--forwarded-allow-ips", "PEERS", "peers whose forwarding fields are believed", many="list")
    forwarded_fields: tuple[str, ...] = _proxy(("proto",), v.choice(*FORWARDED_FIELDS), "--forwarded-fields", "WORDS", "what is believed of them: " + ", ".join(FORWARDED_FIELDS), many="list")
    forwarder_headers: tuple[str, ...] = _proxy(("SCRIPT_NAME", "PATH_INFO"), v.text, "--forwarder-headers", "NAMES", "fields with an underscore that those peers may send", many="list")
    secure_scheme_headers: tuple[tuple[str, str], ...] = _proxy(SECURE_SCHEME_HEADERS, v.pairs, "", "TABLE", "fields by which those peers say https")
    proxy_protocol: str = _proxy_later("off", v.choice("off", "auto", "v1", "v2", also="false=off 0=off none=off true=auto 1=auto"), "--proxy-protocol", "MODE", "expect the PROXY protocol: off, auto, v1 or v2", optional="auto", refusal=NO_PROXY_PROTOCOL)
    proxy_allow_ips: tuple[str, ...] = _proxy_later(("127.0.0.1", "::1"), v.peer, "--proxy-allow-from", "PEERS", "peers that may send it", many="list", needs="proxy_protocol")

    keyfile: str = _tls("", v.text, "--keyfile", "FILE", "private key", refusal=NO_TLS)
    certfile: str = _tls("", v.text, "--certfile", "FILE", "certificate", refusal=NO_TLS)
    ca_certs: str = _of_tls("", v.text, "--ca-certs", "FILE", "authorities that clients' certificates are checked by")
    cert_reqs: int = _of_tls(0, v.whole(0, 2), "--cert-reqs", "N", "client certificates: 0 none, 1 optional, 2 required")
    ciphers: str = _of_tls("", v.text, "--ciphers", "LIST", "ciphers in OpenSSL's format")

    on_starting: Hook = _hook("before the master starts")
    on_reload: Hook = _hook("at a reload")
    when_ready: Hook = _hook("after the server has started")
    pre_fork: Hook = _hook("before a worker is forked")
    post_fork: Hook = _hook("after a worker was forked")
    post_worker_init: Hook = _hook("after a worker has loaded the application")
    worker_int: Hook = _hook("after a worker got INT or QUIT")
    worker_abort: Hook = _hook("after a worker got ABRT")
    pre_exec: Hook = _hook("before an upgrade in place")
    pre_request: Hook = _hook("before each request")
    post_request: Hook = _hook("after each request")
    child_exit: Hook = _hook("after a worker has ended, in the master")
    worker_exit: Hook = _hook("as a worker ends, in the worker")
    nworkers_changed: Hook = _hook("after the number of workers has changed")
    on_exit: Hook = _hook("before the master ends")
    ssl_context: Hook = _hook("makes the TLS context", honoured=False, needs="certfile")


# fmt: on


OPTIONS: dict[str, Option] = {entry.name: entry.metadata["option"] for entry in fields(Settings)}
DEFAULTS = Settings()
