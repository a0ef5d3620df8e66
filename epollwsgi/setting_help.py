"""`epollwsgi --help-setting NAME`: all that is known of one setting. EXAMPLES are checked by a test, form by form.

It knows the table of settings, that of gunicorn's names without a row in it, and the hooks; of a value only what a
`Loaded` says. Called by `cli` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from epollwsgi.config.differences import DIFFERENCES
from epollwsgi.config.gunicorn_names import GUNICORN_ONLY
from epollwsgi.config.load import VARIABLES, Loaded, escape
from epollwsgi.config.settings import DEFAULTS, OPTIONS, Option
from epollwsgi.config.show import Unwritable, show, show_key, show_toml
from epollwsgi.errors import UsageError
from epollwsgi.process.hooks import HOOKS

LABEL_SIZE: Final = 14
WIDTH: Final = 78
PROSE: Final = ("Allowed", "Written", "Why", "What happens", "Note", "Differs", "In effect")
NOTHING: Final = ('""', "[]", '"none"')
UNITS: Final = {
    "bytes": "bytes, or with K, M or G for 1024 bytes, its square, its cube",
    "seconds": "seconds, or with ms, s, m or h",
    "octal": "octal digits",
}
REPEATED: Final = {
    "": "",
    "items": "repeat the option for more of them; a variable holds one",
    "list": "separated by commas, or the option repeated",
}
CONFIG_ONLY: Final = ("config", "check_config", "print_config")

# name -> a value that makes sense, as a settings file in Python has it; switches and hooks need none.
EXAMPLES: Final[dict[str, object]] = {
    "config": "conf/server.toml",
    "wsgi_app": "shop.wsgi:application",
    "chdir": "/srv/shop",
    "pythonpath": "/srv/shop,/srv/lib",
    "raw_env": ["DJANGO_SETTINGS_MODULE=shop.settings"],
    "umask": "027",
    "proc_name": "shop",
    "bind": ["127.0.0.1:8000", "unix:/run/shop.sock?mode=660"],
    "backlog": 1024,
    "admin": "127.0.0.1:9000",
    "workers": 4,
    "worker_class": "gthread",
    "threads": 16,
    "dispatch": "pool",
    "worker_connections": 10000,
    "max_requests": 10000,
    "max_requests_jitter": 1000,
    "max_worker_age": "12h",
    "max_worker_memory": "512M",
    "queue_size": 256,
    "switch_interval": "1ms",
    "upgrade_threads": 200,
    "reload_engine": "poll",
    "reload_extra_files": ["templates/base.html"],
    "reload_overlap": 1,
    "ready_path": "/health",
    "pidfile": "/run/shop.pid",
    "user": "www-data",
    "group": "www-data",
    "keepalive": 5,
    "header_timeout": 10,
    "body_timeout": "1m",
    "body_min_rate": "2K",
    "send_timeout": "2m",
    "timeout": 120,
    "slow_request_time": "500ms",
    "queue_timeout": 10,
    "graceful_timeout": "1m",
    "drain_delay": 5,
    "limit_request_line": "16K",
    "limit_request_fields": 200,
    "limit_request_field_size": "16K",
    "limit_request_head": "128K",
    "limit_request_body": "20M",
    "limit_spool_total": "8G",
    "body_buffer_size": "256K",
    "tmp_upload_dir": "/var/tmp",
    "output_watermark": "1M",
    "response_spool": "4G",
    "static": ["/assets=./public"],
    "revalidate": 10,
    "script_name": "/shop",
    "header_map": "refuse",
    "errorlog": "/var/log/shop/error.log",
    "loglevel": "warning",
    "accesslog": "/var/log/shop/access.log",
    "access_log_format": '%(h)s "%(r)s" %(s)s %(b)s %(D)s',
    "access_log_exclude": ["/health"],
    "logconfig": "logging.ini",
    "logconfig_json": "logging.json",
    "logconfig_dict": {"version": 1},
    "syslog_addr": "udp://logs.example.org:514",
    "syslog_prefix": "shop",
    "syslog_facility": "daemon",
    "statsd_host": "127.0.0.1:8125",
    "statsd_prefix": "shop",
    "dogstatsd_tags": "env:live,team:shop",
    "forwarded_allow_ips": ["10.0.0.0/8", "unix"],
    "forwarded_fields": ["proto", "for", "host"],
    "forwarder_headers": ["SCRIPT_NAME", "REMOTE_USER"],
    "secure_scheme_headers": {"X-FORWARDED-PROTO": "https"},
    "proxy_protocol": "v2",
    "proxy_allow_ips": ["10.0.0.0/8"],
    "keyfile": "/etc/ssl/private/shop.pem",
    "certfile": "/etc/ssl/certs/shop.pem",
    "ca_certs": "/etc/ssl/certs/clients.pem",
    "cert_reqs": 2,
    "ciphers": "ECDHE+AESGCM",
}


class Forms(NamedTuple):
    """One value in each of the forms in which it can be given; '' where there is none."""

    command_line: str
    toml: str
    toml_table: str
    python: str
    environment: str


def describe_setting(asked: str, loaded: Loaded | None, problem: str = "") -> str:
    """All about the setting that a name, an option or a variable stands for. Raises UsageError, with the nearest names.

    loaded: the settings in effect; None where they cannot be read, for the reason in `problem`.
    """
    name = find_name(asked)
    rows = foreign_rows(name) if name in GUNICORN_ONLY else setting_rows(name, loaded, problem)
    (_, title), *rest = rows
    lines = [*wrap_text(f"{name}: {title}", WIDTH), ""]
    for label, text in rest:
        shown = wrap_text(text, WIDTH - LABEL_SIZE - 2) if label in PROSE else text.split("\n")
        for number, line in enumerate(shown):
            lines.append(f"  {'' if number else label:<{LABEL_SIZE}}{line}")
    return "\n".join(lines) + "\n"


def wrap_text(text: str, width: int) -> list[str]:
    """A text on lines of at most so many columns, its words whole."""
    from textwrap import wrap

    return wrap(text, width, break_on_hyphens=False, break_long_words=False)


def find_name(asked: str) -> str:
    """The setting that a name, an option or a variable stands for. Raises UsageError."""
    from difflib import get_close_matches

    flags = {flag: name for name, option in (OPTIONS | GUNICORN_ONLY).items() for flag in option.flags}
    if asked in flags:
        return flags[asked]
    if f"--{asked}" in flags:
        return flags[f"--{asked}"]
    name = asked.strip().lower().lstrip("-").replace("-", "_").removeprefix("epollwsgi_")
    known = [*OPTIONS, *GUNICORN_ONLY]
    if name in known:
        return name
    near = get_close_matches(name, known, 3, 0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; epollwsgi --help shows all options"
    raise UsageError(f"--help-setting {escape(asked)}: no such setting{hint}")


def foreign_rows(name: str) -> Iterator[tuple[str, str]]:
    """What is said of a setting of gunicorn's that this server does not have."""
    row = GUNICORN_ONLY[name]
    yield "", "a setting of gunicorn's that this server does not have"
    if row.flags:
        yield "Command line", ", ".join(row.flags) + (f" {row.metavar}" if row.metavar else "")
    yield "Why", row.reason
    if row.is_silent:
        yield "What happens", "it is accepted, and changes nothing"
    elif row.refuses is None:
        yield "What happens", "it is accepted with one warning, and changes nothing; its default is accepted in silence"
    else:
        yield "What happens", "values that need what is missing are refused (exit code 1); its default is accepted"


def setting_rows(name: str, loaded: Loaded | None, problem: str) -> Iterator[tuple[str, str]]:
    """What is said of a setting of the table."""
    option = OPTIONS[name]
    yield "", option.help
    yield "Section", option.section
    if option.flags:
        yield "Option", show_flags(option)
    forms = build_forms(name)
    labels = ("Command line", "TOML", "or as a table", "Python", "Environment")
    yield from ((label, form) for label, form in zip(labels, forms, strict=True) if form)
    if variables := ", ".join(variable for variable, filled in VARIABLES if filled == name):
        yield "or by", f"the variable {variables} of the environment"
    if allowed := what_is_allowed(option):
        yield "Allowed", allowed
    if text := "; ".join(filter(None, [UNITS.get(option.unit, ""), REPEATED[option.many]])):
        yield "Written", text
    yield "Default", show_value(name, getattr(DEFAULTS, name))
    if loaded is None:
        yield "In effect", f"unknown: {problem}"
    elif name not in CONFIG_ONLY:
        yield "In effect", f"{show_value(name, getattr(loaded.settings, name))}  ({escape(loaded.source(name))})"
    if option.refusal:
        yield "Note", f"any value but the default is refused: {option.refusal}"
    elif option.needs:
        yield "Note", f"without {option.needs} it has no effect"
    elif not option.honoured:
        yield "Note", "not yet honoured: the value is checked and has no effect"
    if name in DIFFERENCES:
        yield "Differs", DIFFERENCES[name]


def show_flags(option: Option) -> str:
    """The option as it is typed."""
    value = f"[={option.metavar}]" if option.optional else f" {option.metavar}" if option.metavar else ""
    return ", ".join(option.flags) + value


def show_value(name: str, value: object) -> str:
    """A value as in TOML, or what it is."""
    if callable(value):
        return f"the function {getattr(value, '__name__', '')}".rstrip()
    try:
        text = show_toml(dict(value)) if isinstance(value, Mapping) else show(name, value)
    except Unwritable as error:
        return f"a value with {error}"
    return "none" if text in NOTHING else text


def what_is_allowed(option: Option) -> str:
    """The words with which the converter refuses what it cannot take."""
    for probe in ("\0", object()):
        try:
            option.parse(probe)
        except ValueError as error:
            return re.sub(",? (is|are) allowed", "", str(error))
    return ""


# --- one example in all forms ---------------------------------------------------------------------------------------


def build_forms(name: str) -> Forms:
    """An example of a setting in each form that it can have."""
    option = OPTIONS[name]
    if option.metavar == "FUNCTION":
        signature = HOOKS[name].signatures[0] if name in HOOKS else "config, default_ssl_context_factory"
        return Forms("", "", "", f"def {name}({signature}): ...", "")
    value = EXAMPLES.get(name, option.const)
    items = [str(item) for item in value] if isinstance(value, list) else [str(value)]
    in_file = name not in CONFIG_ONLY
    return Forms(
        command_line=option.flags[0] if not option.metavar else typed_form(option, items),
        toml=f"{name} = {show_toml(value)}" if in_file else "",
        toml_table=table_form(name, items) if "=" in option.metavar else "",
        python=f"{name} = {value!r}" if in_file else "",
        environment="" if isinstance(value, dict) else f"EPOLLWSGI_{name.upper()}={env_form(value, items)}",
    )


def env_form(value: object, items: list[str]) -> str:
    """The example as the value of a variable, as a shell has it."""
    return show_toml(value) if isinstance(value, bool) else shell_word(",".join(items))


def table_form(name: str, items: list[str]) -> str:
    """The example as a table in TOML, for items KEY=VALUE."""
    pairs = [item.partition("=") for item in items]
    return "\n".join([f"[{name}]", *(f"{show_key(key)} = {show_toml(value)}" for key, _, value in pairs)])


def typed_form(option: Option, items: list[str]) -> str:
    """The example on a command line; '' where there is no option."""
    if not option.flags:
        return ""
    flag = max(option.flags, key=len) if len(option.flags[0]) == 2 else option.flags[0]
    if option.optional:
        return f"{flag}={shell_word(items[0])}"
    return " ".join(f"{flag} {shell_word(item)}" for item in items)


def shell_word(text: str) -> str:
    """A text as one word of a shell."""
    import shlex

    return shlex.quote(text)
