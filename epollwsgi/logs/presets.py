"""The words that stand for a format of the access log, and the choice by `access_log_format`.

combined   Apache's combined format, which is gunicorn's default
dev        short lines for a person: time, status, method, target, size, duration; coloured on a terminal
json       one object a line, in ASCII, always valid JSON whatever a client sent:

    time         text     end of the response, local time with its offset from UTC, ISO 8601, milliseconds
    remote       text     address of the client, null over a unix socket
    user         text     name of HTTP Basic credentials, or null
    method       text     or null where the request line could not be read
    path         text     as received, percent-encoded, without the query; a line that is none, as it came
    query        text     without the question mark
    protocol     text     as in HTTP/1.1, or null
    status       number
    size         number   of the content in bytes
    duration_ms  number   with decimals
    host         text     Host of the request, or null, like the next three
    referer      text
    user_agent   text
    request_id   text     as in environ's epollwsgi.request_id
    pid          number   process that answered

Text of a request is read as UTF-8, and as Latin-1 where it is not UTF-8.  Called by `opening`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from time import localtime, strftime

from epollwsgi.config.settings import ACCESS_LOG_FORMAT
from epollwsgi.errors import ConfigError
from epollwsgi.logs.format import (
    AGENT,
    AUTHORIZATION,
    DURATION,
    METHOD,
    MOMENT,
    MORE,
    REFERER,
    REMOTE,
    REQUEST,
    SIZE,
    STATUS,
    CompiledFormat,
    Entry,
    Environ,
    compile_format,
)
from epollwsgi.logs.text import NONE, escape_atom, read_user

COLOURS = {1: "36", 2: "32", 3: "36", 4: "33", 5: "31"}
COLOUR = re.compile(r"\x1b\[[0-9]+m")
MEMORY_COUNT = 4096  # texts whose JSON is remembered within a batch


def choose_format(written: str, is_coloured: bool) -> CompiledFormat:
    """What `access_log_format` says; is_coloured: `dev` is for a terminal that shows colours. Raises ConfigError."""
    preset = PRESETS.get(written)
    if preset is not None:
        return preset(is_coloured)
    try:
        if "%" not in written:
            raise ValueError(f"this is no format, and no word for one: {', '.join(PRESETS)}")
        return compile_format(written)
    except ValueError as error:
        raise ConfigError(f"access_log_format = {written!r}: {error}") from None


# --- dev ------------------------------------------------------------------------------------------------------------


def build_dev_line(entry: Entry, stamp: str) -> str:
    """A short line for a person at a terminal; only there is it coloured."""
    request, status = entry[REQUEST], entry[STATUS]
    colour = COLOURS.get(status // 100, "0")
    tail = f"\x1b[2m{show_size(entry[SIZE])}, {show_duration(entry[DURATION])}\x1b[0m"
    words = f"{escape_atom(request.method) or NONE} {escape_atom(request.target) or NONE}"
    return f"{stamp} \x1b[{colour}m{status}\x1b[0m {words} {tail}"


def build_plain_dev_line(entry: Entry, stamp: str) -> str:
    """The short line without colours: into a file, or where NO_COLOR asks for none."""
    return COLOUR.sub("", build_dev_line(entry, stamp))


def show_duration(seconds: float) -> str:
    """As a person reads it."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def show_size(size: int) -> str:
    """As a person reads it."""
    return f"{size} B" if size < 1000 else f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"


def build_dev_lines(build_line: Callable[[Entry, str], str], entries: Sequence[Entry], zero_s: float) -> list[str]:
    """Lines of a batch."""
    return [build_line(entry, strftime("%H:%M:%S", localtime(entry[MOMENT] + zero_s))) for entry in entries]


def make_dev(is_coloured: bool) -> CompiledFormat:
    """The preset `dev`."""
    return CompiledFormat(
        "dev", partial(build_dev_lines, build_dev_line if is_coloured else build_plain_dev_line), None, True
    )


# --- json -----------------------------------------------------------------------------------------------------------


def capture_json(environ: Environ, head: object) -> tuple[str, ...]:
    """What the first ten items of an entry do not have."""
    return environ.get("HTTP_HOST", NONE), environ.get("epollwsgi.request_id", NONE)


class Quoted(dict[str, str]):
    """Texts as JSON, in ASCII; those of one batch are remembered."""

    def __missing__(self, text: str) -> str:
        from json.encoder import encode_basestring_ascii  # only wanted with this preset

        quoted = encode_basestring_ascii(decode(text)) if text != NONE else "null"
        if len(self) < MEMORY_COUNT:
            self[text] = quoted
        return quoted


def decode(text: str) -> str:
    """Text of WSGI, which has a byte in each character, as UTF-8 if it is that. Never with lone surrogates."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def build_json_lines(entries: Sequence[Entry], zero_s: float) -> list[str]:
    """Lines of a batch."""
    quoted = Quoted()
    pid = os.getpid()
    seconds: dict[int, tuple[str, str]] = {}
    lines = []
    for entry in entries:
        milliseconds = round((entry[MOMENT] + zero_s) * 1000)
        second = milliseconds // 1000
        stamp = seconds.get(second)
        if stamp is None:
            text = strftime("%Y-%m-%dT%H:%M:%S%z", localtime(second))
            stamp = seconds[second] = (text[:19], f"{text[19:22]}:{text[22:]}")
        request = entry[REQUEST]
        host, request_id = (text if isinstance(text, str) and text else NONE for text in entry[MORE])
        lines.append(
            f'{{"time":"{stamp[0]}.{milliseconds % 1000:03d}{stamp[1]}","remote":{quoted[entry[REMOTE] or NONE]},'
            f'"user":{quoted[read_user(entry[AUTHORIZATION])] if entry[AUTHORIZATION] else "null"},'
            f'"method":{quoted[entry[METHOD] or NONE]},"path":{quoted[request.path or NONE]},'
            f'"query":{quoted[request.query]},"protocol":{quoted[request.protocol or NONE]},'
            f'"status":{entry[STATUS]},"size":{entry[SIZE]},"duration_ms":{entry[DURATION] * 1000:.3f},'
            f'"host":{quoted[host]},"referer":{quoted[entry[REFERER]]},"user_agent":{quoted[entry[AGENT]]},'
            f'"request_id":{quoted[request_id]},"pid":{pid}}}'
        )
    return lines


def make_json(is_coloured: bool) -> CompiledFormat:
    """The preset `json`."""
    return CompiledFormat("json", build_json_lines, capture_json, True)


def make_combined(is_coloured: bool) -> CompiledFormat:
    """The preset `combined`."""
    return compile_format(ACCESS_LOG_FORMAT)


PRESETS: dict[str, Callable[[bool], CompiledFormat]] = {
    "combined": make_combined,
    "json": make_json,
    "dev": make_dev,
}
