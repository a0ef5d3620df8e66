"""Where logs and figures may be sent: the addresses of syslog and statsd in gunicorn's notation, and facilities.

Converters for the table of settings, which keeps the text; what sends reads the text once more and gets a Destination.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

UNIX_PATH_SIZE = 107  # sun_path less its final NUL, unix(7)
SYSLOG_PORT = 514
STATSD_PORT = 8125
SYSLOG_ALLOWED = "udp://HOST:PORT, tcp://HOST:PORT or unix://PATH, which #dgram or #stream may follow, is allowed"
STATSD_ALLOWED = "HOST:PORT or unix://PATH is allowed"
PREFIX_ALLOWED = "letters, digits, and . _ - are allowed"
TAGS_ALLOWED = "tags separated by commas, such as env:live,team:shop, are allowed"
FACILITIES = {
    "kern": 0,
    "user": 1,
    "mail": 2,
    "daemon": 3,
    "auth": 4,
    "security": 4,
    "syslog": 5,
    "lpr": 6,
    "news": 7,
    "uucp": 8,
    "cron": 9,
    "authpriv": 10,
    "ftp": 11,
    **{f"local{number}": 16 + number for number in range(8)},
}
HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%]{1,64})\]|([A-Za-z0-9_.-]{0,253}))(?::([0-9]{1,5}))?", re.ASCII)
TAGS = re.compile(r"[^\s|#\x00-\x1f]*", re.ASCII)
PREFIX = re.compile(r"[A-Za-z0-9_.-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Destination:
    """kind: udp, tcp or unix.  socket_type: of a unix socket, dgram, stream or '' for the one that is there."""

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""
    socket_type: str = ""


def parse_syslog(written: str) -> Destination:
    """Raises ValueError."""
    kind, slashes, rest = written.strip().partition("://")
    if not slashes or kind not in ("udp", "tcp", "unix"):
        raise ValueError(SYSLOG_ALLOWED)
    if kind == "unix":
        path, hash_mark, socket_type = rest.partition("#")
        if hash_mark and socket_type not in ("dgram", "stream"):
            raise ValueError(SYSLOG_ALLOWED)
        return Destination(kind, path=_path(path), socket_type=socket_type)
    host, port = _host_and_port(rest, SYSLOG_PORT, SYSLOG_ALLOWED)
    return Destination(kind, host, port)


def parse_statsd(written: str) -> Destination:
    """Raises ValueError."""
    written = written.strip()
    if written.startswith("unix://"):
        return Destination("unix", path=_path(written.removeprefix("unix://")), socket_type="dgram")
    host, port = _host_and_port(written.removeprefix("udp://"), STATSD_PORT, STATSD_ALLOWED)
    return Destination("udp", host, port)


def _host_and_port(written: str, default_port: int, allowed: str) -> tuple[str, int]:
    match = HOST_AND_PORT.fullmatch(written)
    if match is None:
        raise ValueError(allowed)
    port = int(match[3] or default_port)
    if not 0 < port < 65536:
        raise ValueError(f"a port is a number from 1 to 65535; {allowed}")
    return (match[1] or match[2] or "localhost").lower(), port


def _path(path: str) -> str:
    if not path or "\0" in path or len(os.fsencode(path)) > UNIX_PATH_SIZE:
        raise ValueError(f"the path of a unix socket has 1 to {UNIX_PATH_SIZE} bytes and no NUL")
    return path


def read(value: object, allowed: str) -> str:
    """A text without space around it; '' for None. Raises ValueError."""
    if not isinstance(value, str | None):
        raise ValueError(allowed)
    return (value or "").strip()


def syslog_address(value: object) -> str:
    """The text of an address of syslog; whether it is one matters only where syslog is written to."""
    return read(value, SYSLOG_ALLOWED)


def statsd_address(value: object) -> str:
    """The text of an address of statsd; '' for none."""
    written = read(value, STATSD_ALLOWED)
    if written:
        parse_statsd(written)
    return written


def statsd_prefix(value: object) -> str:
    """What stands before the names of figures."""
    written = read(value, PREFIX_ALLOWED)
    if not PREFIX.fullmatch(written):
        raise ValueError(PREFIX_ALLOWED)
    return written


def statsd_tags(value: object) -> str:
    """DogStatsD's tags."""
    written = read(value, TAGS_ALLOWED)
    if not TAGS.fullmatch(written):
        raise ValueError(TAGS_ALLOWED)
    return written
