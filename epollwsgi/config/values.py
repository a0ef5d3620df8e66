"""How the value of a setting is read: converters from an operator's text, or a typed TOML value, to what the code uses.

Every converter takes one object and returns the value, or raises ValueError whose text completes the sentence
`NAME = VALUE: ...` with what is allowed.  It knows no setting by name and no source; `config.settings` names the
converter of each setting and `config.load` calls it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

DEFAULT_PORT = 8000
UNIX_PATH_SIZE = 107  # sun_path less its final NUL, unix(7)
NO_LIMIT = 2**31 - 1

SIZE = re.compile(r"([0-9]{1,18})([KMG]?)(?:I?B)?", re.IGNORECASE | re.ASCII)
SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SECONDS = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|)", re.ASCII)
SECONDS_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})", re.ASCII)
IP6_LETTERS = re.compile(r"[0-9A-Fa-f:.]+", re.ASCII)
MOUNT_PREFIX = re.compile(r"/[!$&-;=@-Z_a-z~]*", re.ASCII)  # what a path holds unencoded, RFC 3986 section 3.3
MASK = re.compile(r"0o?([0-7]{1,5})|0x([0-9a-f]{1,3})|(0|[1-9][0-9]{0,2})", re.ASCII)
BASES = {1: 8, 2: 16, 3: 10}  # of its groups
HOOK_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
URL_PATH = re.compile(r"[!-~]+", re.ASCII)
ENVIRONMENT_NAME = re.compile(r"[^\s=]+")


# --- addresses ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TCPBind:
    """A TCP address; port 0 lets the system choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixBind:
    """A unix socket; a name that begins with @ is in the abstract namespace.

    mode: of the path; None: 0777 less the umask.
    """

    path: str
    mode: int | None = None

    @property
    def is_abstract(self) -> bool:
        """True if it has no path."""
        return self.path.startswith("@")

    def __str__(self) -> str:
        path = f"//{self.path}" if self.path.startswith("//") else self.path  # two slashes belong to the scheme
        return f"unix:{path}" if self.mode is None else f"unix:{path}?mode={self.mode:03o}"


@dataclass(frozen=True, slots=True)
class FDBind:
    """A socket that was inherited already open."""

    fd: int

    def __str__(self) -> str:
        return f"fd://{self.fd}"


Bind = TCPBind | UnixBind | FDBind


@dataclass(frozen=True, slots=True)
class StaticMount:
    """Files below `directory` are served at `prefix`: `/`, or `/name` without a slash at its end."""

    prefix: str
    directory: str

    def __str__(self) -> str:
        return f"{self.prefix}={self.directory}"


SOCKET_MODE = re.compile(r"mode=0?([0-7]{3})", re.ASCII)
BIND_ALLOWED = "HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH, unix:@NAME or fd://NUMBER"


def bind(value: object) -> Bind:
    """One address to listen at."""
    written = text(value).strip()
    if written.startswith("unix:"):
        return _unix_bind(written.removeprefix("unix:"))
    if written.startswith("fd://"):
        number = written.removeprefix("fd://")
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise ValueError("fd:// takes the number of an open descriptor, such as fd://3")
        return FDBind(int(number))
    return _tcp_bind(written.removeprefix("tcp://"))


def _unix_bind(written: str) -> UnixBind:
    path, question, query = written.partition("?")
    path = path.removeprefix("//")  # unix:///run/x.sock and, as gunicorn has it, unix://x.sock
    if not path or path == "@":
        raise ValueError("unix: takes the path of the socket, or @NAME for an abstract one")
    if "\0" in path or len(os.fsencode(path)) > UNIX_PATH_SIZE:
        raise ValueError(f"the path of a unix socket has at most {UNIX_PATH_SIZE} bytes and no NUL")
    if not question:
        return UnixBind(path)
    mode = SOCKET_MODE.fullmatch(query)
    if mode is None:
        raise ValueError("after the path of a unix socket ?mode= with three octal digits is allowed, such as ?mode=660")
    if path.startswith("@"):
        raise ValueError("a mode is allowed where there is a path, and an abstract socket has none")
    return UnixBind(path, int(mode[1], 8))


def _tcp_bind(written: str) -> TCPBind:
    if written.startswith("["):
        host, closed, rest = written[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{BIND_ALLOWED} is allowed")
        return TCPBind(_ip6_address(host), _port(rest[1:]) if rest else DEFAULT_PORT)
    host, colon, port = written.rpartition(":") if ":" in written else (written, "", "")
    if IP6_LETTERS.fullmatch(host) and ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets, as in [{written}]:{DEFAULT_PORT}")
    if not colon and (host.isdigit() or not host):
        raise ValueError(f"{BIND_ALLOWED} is allowed" + (f"; did you mean :{host}?" if host else ""))
    if host and not HOST_NAME.fullmatch(host):
        raise ValueError(f"{BIND_ALLOWED} is allowed")
    return TCPBind(host.lower() or "0.0.0.0", _port(port) if colon else DEFAULT_PORT)


def _port(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 65535):
        raise ValueError(f"a port is a number from 0 to 65535; {BIND_ALLOWED} is allowed")
    return int(digits)


def _ip6_address(host: str) -> str:
    from ipaddress import IPv6Address  # rarely needed, and slow to import

    try:
        IPv6Address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv6 address") from None
    return host.lower()


def bind_of_port(value: object) -> Bind:
    """The address that the environment variable PORT stands for."""
    return TCPBind("0.0.0.0", _port(text(value).strip()))


def peer(value: object) -> str:
    """One member of a list of trusted peers: an address, a network, `*` or `unix`."""
    from ipaddress import ip_network

    written = text(value).strip()
    if written not in ("*", "unix"):
        try:
            ip_network(written)
        except ValueError:
            raise ValueError("IP addresses, networks such as 10.0.0.0/8, * and unix are allowed") from None
        if "%" in written:  # peers are compared without theirs
            raise ValueError("IP addresses and networks without a zone are allowed")
    return written


def static_mount(value: object) -> StaticMount:
    """`/prefix=DIR`; the prefix is normalised to begin with a slash and end without one, but for `/` itself.

    A table with both halves by their names means the same.
    """
    if isinstance(value, Mapping):
        if set(value) != {"prefix", "directory"}:
            raise ValueError("a table with prefix and directory is allowed, and nothing else in it")
        value = f"{text(value['prefix'])}={text(value['directory'])}"
    prefix, equals, directory = text(value).partition("=")
    prefix = prefix.strip()
    if not equals or not directory or "\0" in directory or not MOUNT_PREFIX.fullmatch(prefix):
        raise ValueError("/PREFIX=DIRECTORY is allowed, such as /assets=./public, or /=./html for the root")
    segments = prefix.removesuffix("/").split("/")[1:]
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError("a prefix holds no empty segment, no . and no ..")
    return StaticMount("/" + "/".join(segments), directory)


# --- plain values ---------------------------------------------------------------------------------------------------


def text(value: object) -> str:
    """Any text; None, which a settings file in Python may hold for 'not set', is the empty one."""
    if value is None:
        return ""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ValueError("a text is allowed")
    return value


def text_or_number(value: object) -> str:
    """A name, or a number in its place: users and groups."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)


def boolean(value: object) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    found = BOOLEANS.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if found is None:
        raise ValueError("true or false is allowed")
    return found


def whole(low: int, high: int, *, zero: int | None = None) -> Callable[[object], int]:
    """Converter to a whole number from `low` to `high`.  zero: what 0 means, where it is no limit."""

    def convert(value: object) -> int:
        found = value if isinstance(value, int) and not isinstance(value, bool) else None
        if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value.strip(), re.ASCII):
            found = int(value)
        if found == 0 and zero is not None:
            return zero
        if found is None or not low <= found <= high:
            unlimited = ", or 0 for no limit," if zero is not None else ""
            raise ValueError(f"a whole number from {low} to {high}{unlimited} is allowed")
        return found

    return convert


def size(low: int = 0, high: int = 1 << 62, *, zero: int | None = None) -> Callable[[object], int]:
    """Converter to a number of bytes, written 65536, 64K, 1M or 1G.  zero: what 0 means, where it is no limit."""

    def convert(value: object) -> int:
        found = value if isinstance(value, int) and not isinstance(value, bool) else None
        if isinstance(value, str) and (match := SIZE.fullmatch(value.strip())):
            found = int(match[1]) * SIZE_UNITS[match[2].upper()]
        if found == 0 and zero is not None:
            return zero
        if found is None or not low <= found <= high:
            least = f" of at least {show_size(low)}" if low else ""
            most = f", at most {show_size(high)}" if high < 1 << 62 else ""
            unlimited = ", or 0 for no limit" if zero is not None else ""
            raise ValueError(f"a size in bytes{least}{most}, such as 65536, 64K, 1M or 1G{unlimited}, is allowed")
        return found

    return convert


def seconds(low: float = 0.0, high: float = 1e8) -> Callable[[object], float]:
    """Converter to a duration in seconds, written 75, 0.5ms, 2s, 1m or 1h; `low` is the least."""

    def convert(value: object) -> float:
        found = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else -1.0
        if isinstance(value, str) and (match := SECONDS.fullmatch(value.strip().lower())):
            found = float(match[1]) * SECONDS_UNITS[match[2]]
        if not low <= found <= high:
            least = f" of at least {low:g} s" if low else ""
            raise ValueError(f"a duration{least}, such as 75, 2s, 0.5ms, 1m or 1h, is allowed")
        return found

    return convert


@dataclass(frozen=True, slots=True)
class Choice:
    """Converter to one of a few words, in any case.  also: other words, and what they mean."""

    allowed: tuple[str, ...]
    also: Mapping[str, str]

    def __call__(self, value: object) -> str:
        word = text(str(value) if isinstance(value, bool) else value).strip().lower()
        word = self.also.get(word, word)
        if word not in self.allowed:
            raise ValueError(f"{', '.join(self.allowed[:-1])} or {self.allowed[-1]} is allowed")
        return word


def choice(*allowed: str, also: str = "") -> Choice:
    """Converter to one of a few words, in any case.  also: other words for them, `other=word other=word`."""
    return Choice(allowed, dict(pair.split("=") for pair in also.split()))


def or_auto(convert: Callable[[object], T]) -> Callable[[object], T | None]:
    """Converter that also takes the word `auto`, which is None: the server finds the value when it starts."""

    def convert_or_auto(value: object) -> T | None:
        if value is None or (isinstance(value, str) and value.strip().lower() == "auto"):
            return None
        try:
            return convert(value)
        except ValueError as error:
            raise ValueError(f"auto, or {error}") from None

    return convert_or_auto


def octal(value: object) -> int | None:
    """A mask of a file's mode; `none` leaves what is inherited.

    A text means what it means to gunicorn: octal behind a zero, hexadecimal behind 0x, else decimal, so that 022, 0o22
    and 18 are the same.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
        return None
    found = value if isinstance(value, int) and not isinstance(value, bool) else -1
    if isinstance(value, str) and (match := MASK.fullmatch(value.strip().lower())):
        found = int(match[1] or match[2] or match[3], BASES[match.lastindex or 0])
    if not 0 <= found <= 0o777:
        raise ValueError("octal digits from 0 to 0777 with a zero before them are allowed, such as 022, or none")
    return found


def environment_item(value: object) -> str:
    """`NAME=VALUE` for the application's environment."""
    written = text(value)
    name, equals, _ = written.partition("=")
    if not equals or "\0" in written or not ENVIRONMENT_NAME.fullmatch(name):
        raise ValueError("NAME=VALUE is allowed")
    return written


def url_prefix(value: object) -> str:
    """A path prefix as SCRIPT_NAME has it: empty, or beginning with a slash and ending without one."""
    written = text(value).strip().rstrip("/")
    if written and (not MOUNT_PREFIX.fullmatch(written) or "//" in written):
        raise ValueError("a path such as /shop is allowed, or nothing")
    return written


def hook(value: object) -> Callable[..., object] | None:
    """A function of a settings file in Python, or one that is named as MODULE.FUNCTION, which is imported."""
    if isinstance(value, str) and HOOK_NAME.fullmatch(value.strip()):
        value = _import_function(*value.strip().rpartition(".")[::2])
    if value is not None and not callable(value):
        raise ValueError("a function in a settings file in Python is allowed, or the name of one, MODULE.FUNCTION")
    return value


def _import_function(module: str, name: str) -> object:
    from importlib import import_module

    try:
        return getattr(import_module(module), name)
    except Exception as error:
        raise ValueError(f"a function that can be imported is allowed; {type(error).__name__}: {error}") from None


def url_path(value: object) -> str:
    """The path of a URL; empty for none."""
    written = text(value).strip()
    if written and not (URL_PATH.fullmatch(written) and written.startswith("/")):
        raise ValueError("a path that begins with a slash is allowed, such as /health")
    return written


def pairs(value: object) -> tuple[tuple[str, str], ...]:
    """A table of texts, as a tuple so that settings stay unchangeable."""
    if not isinstance(value, Mapping):
        raise ValueError("a table of names and texts is allowed")
    return tuple((text(name), text(item)) for name, item in value.items())


def mapping(value: object) -> Mapping[str, object] | None:
    """A table that the server passes on as it is, such as a logging configuration."""
    if value is not None and not isinstance(value, Mapping):
        raise ValueError("a table is allowed")
    return value or None


# --- the way back ---------------------------------------------------------------------------------------------------


def show_size(count: int) -> str:
    """A number of bytes as an operator writes it."""
    for letter in "GMK":
        if count and count % SIZE_UNITS[letter] == 0:
            return f"{count // SIZE_UNITS[letter]}{letter}"
    return str(count)
