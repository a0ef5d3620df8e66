"""From the path of a request target to the segments of a file name, and which names are never served.

Pure text work: percent-decoding to bytes, dot segments, names that stay hidden. Knows no file system and no mount.
Called by `static.lookup` and `static.handler`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

# Percent-encodings that no name may hold: none at all (RFC 3986 section 2.1), NUL, and a slash inside a segment.
REFUSED_ENCODING: Final = re.compile(r"%(?:00|2[Ff]|(?![0-9A-Fa-f]{2}))")

# The one directory with a dot that is meant for the public, as the first segment of a path. RFC 8615.
WELL_KNOWN: Final = b".well-known"

# Files that tell the server what to do; they stay private wherever they lie.
CONFIGURATION_NAMES: Final = frozenset(
    (b"_headers", b"_redirects", b"epollwsgi.toml", b"gunicorn.conf.py", b"pyproject.toml")
)


class TargetPath(NamedTuple):
    """A path below the root: decoded segments, none of them empty, `.` or `..`."""

    segments: tuple[bytes, ...]
    is_directory: bool  # it ended in a slash, or in a dot segment, which means the same (RFC 3986 section 5.2.4)


def split_path(path: str) -> TargetPath | None:
    """The segments of an undecoded path in printable ASCII; None where it must be refused (400).

    Refused are a broken percent-encoding, NUL, an encoded slash, and `..` above the root. Decoded once; empty
    segments vanish; dot segments are resolved after decoding, since `%2e` is the same as `.`.
    """
    if path[:1] != "/":
        return None
    if "%" in path:
        if REFUSED_ENCODING.search(path) is not None:
            return None
        decoded = unquote_to_bytes(path)
    else:
        decoded = path.encode("latin-1")
    parts = decoded[1:].split(b"/")
    if b"/." not in decoded and b"//" not in decoded:  # nothing to resolve, as almost always
        is_directory = not parts[-1]
        return TargetPath(tuple(parts[:-1] if is_directory else parts), is_directory)
    segments: list[bytes] = []
    for part in parts:
        if part == b"..":
            if not segments:
                return None
            segments.pop()
        elif part and part != b".":
            segments.append(part)
    return TargetPath(tuple(segments), parts[-1] in (b"", b".", b".."))


# Bytes that a path may hold unencoded. RFC 3986 section 3.3
SEGMENT_SAFE: Final = "!$&'()*+,;=:@~"


def quote_path(segments: tuple[bytes, ...], is_directory: bool) -> str:
    """An absolute path of these segments, encoded anew: it never begins with two slashes or `/\\`."""
    path = "/" + "/".join(quote_from_bytes(segment, safe=SEGMENT_SAFE) for segment in segments)
    return path + "/" if is_directory and segments else path


def quote_script_name(script_name: str, safe: str = "") -> str:
    """A script name of WSGI as a path that others may be put behind: it begins with one slash, or is ''."""
    name = script_name.strip("/")
    return "/" + quote_from_bytes(name.encode("latin-1"), safe=f"{SEGMENT_SAFE}/{safe}") if name else ""


def as_asked(path: str, script_name: str, fixed: str) -> str:
    """A path as the client has it, where a proxy has taken a prefix off.

    path: encoded.  script_name: that prefix, as the proxy writes it.  fixed: the script name that paths still hold.
    """
    before = quote_script_name(fixed)
    if before and (path == before or path.startswith(f"{before}/")):
        path = path[len(before) :]
    return quote_script_name(script_name, safe="%") + path


def count_visible(segments: tuple[bytes, ...], *, is_top: bool) -> int:
    """How many of the leading segments may be shown: all of them, or those before the first with a dot.

    is_top: the segments begin at the root of the whole site, where `/.well-known/` is allowed.
    """
    for number, segment in enumerate(segments):
        if segment[:1] == b"." and not (number == 0 and is_top and segment == WELL_KNOWN):
            return number
    return len(segments)


def is_configuration(name: bytes) -> bool:
    """True for a file that is read by this server, or by others like it, and never served."""
    return name in CONFIGURATION_NAMES
