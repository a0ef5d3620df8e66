"""The listing of a directory, as a page or as JSON. STATIC.md section 8.

The order is chosen by the query (`?by=size&order=down`), so that the page needs no script. Names are bytes: shown as
text as far as they are, and quoted as they are in links. Runs on a helper thread; called by `static.handler`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import parse_qs, quote_from_bytes, unquote_to_bytes

from epollwsgi.http.negotiation import accept_weight
from epollwsgi.static.beneath import Directory
from epollwsgi.static.heads import merge_vary
from epollwsgi.static.paths import is_configuration
from epollwsgi.static.replies import HTML, NO_CACHE, Reply, build_head

MAX_ENTRIES: Final = 10_000
JSON: Final = b"application/json"

STYLE: Final = """\
:root{color-scheme:light dark;--line:#8884;--quiet:#777;--link:#0b57d0}
@media(prefers-color-scheme:dark){:root{--quiet:#999;--link:#8ab4f8}}
body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.25rem;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line)}
td:first-child{overflow-wrap:anywhere}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
time{white-space:nowrap;color:var(--quiet)}
a{color:var(--link);text-decoration:none}
a:hover,a:focus-visible{text-decoration:underline}
p{color:var(--quiet)}
"""
STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode("utf-8")).digest()).decode("ascii")
POLICY: Final = (
    f"Content-Security-Policy: default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'\r\n"
).encode("ascii")


class Entry(NamedTuple):
    """One name in a directory."""

    name: bytes
    is_directory: bool
    size: int
    modified_s: int

    @property
    def text(self) -> str:
        """The name as far as it is text."""
        return self.name.decode("utf-8", "replace") + ("/" if self.is_directory else "")

    @property
    def link(self) -> str:
        """The name for an href: relative, and never taken for a scheme."""
        return "./" + quote_from_bytes(self.name, safe="") + ("/" if self.is_directory else "")


# What a listing is ordered by: the word in the query, the head of the column, the key.
COLUMNS: Final[tuple[tuple[str, str, Callable[[Entry], tuple[object, ...]]], ...]] = (
    ("name", "Name", lambda entry: (not entry.is_directory, entry.name.lower(), entry.name)),
    ("size", "Size", lambda entry: (not entry.is_directory, entry.size, entry.name)),
    ("date", "Modified", lambda entry: (entry.modified_s, entry.name)),
)
DEFAULT_ORDER: Final = "name"


def read_entries(directory: Directory, name: bytes, follows: bool) -> tuple[list[Entry], bool]:
    """Files and directories that can be asked for, and whether there are more than MAX_ENTRIES. Raises OSError.

    A link is opened as a request would open it: one that leads out of the root is not shown. follows: the setting.
    """
    entries: list[Entry] = []
    fd = directory.open(name)
    try:
        with os.scandir(fd) as found:
            for item in found:
                raw = os.fsencode(item.name)
                if raw[:1] == b"." or is_configuration(raw):
                    continue
                if len(entries) == MAX_ENTRIES:
                    return entries, True
                status = _status_of(directory, name, fd, item, follows)
                if status is not None and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                    is_directory = stat.S_ISDIR(status.st_mode)
                    size = 0 if is_directory else status.st_size
                    entries.append(Entry(raw, is_directory, size, int(status.st_mtime)))
    finally:
        os.close(fd)
    return entries, False


def _status_of(
    directory: Directory, parent: bytes, parent_fd: int, item: os.DirEntry[str], follows: bool
) -> os.stat_result | None:
    try:
        if not item.is_symlink():
            return os.stat(item.name, dir_fd=parent_fd, follow_symlinks=False)
        if follows:
            return os.stat(item.name, dir_fd=parent_fd)
        fd = directory.open(parent + b"/" + os.fsencode(item.name))
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def listing_of(
    directory: Directory,
    name: bytes,
    path: str,
    query: str,
    accept: str,
    method: str,
    fields: bytes,
    follows: bool,
    missing: Reply,
) -> Reply:
    """The reply with a listing; `missing` where the directory has gone.

    path: the address of the directory, encoded.  query, accept, method: the request's.  fields: more field lines.
    """
    try:
        entries, is_cut = read_entries(directory, name, follows)
    except OSError:
        return missing
    by, is_down = parse_order(query)
    key = next(key for word, _, key in COLUMNS if word == by)
    entries.sort(key=key, reverse=is_down)
    vary = f"Vary: {merge_vary(['Accept'])}\r\n".encode("ascii")
    if accept_weight(accept, "application/json") > accept_weight(accept, "text/html"):
        content = build_json(entries)
        head = build_head(200, JSON, NO_CACHE + vary + fields, len(content))
    else:
        content = build_page(path, entries, is_cut, by, is_down)
        if b"content-security-policy:" in fields.lower():  # two policies would both hold, ours is the strict one
            fields = b"".join(
                line for line in fields.splitlines(True) if not line.lower().startswith(b"content-security-policy:")
            )
        head = build_head(200, HTML, NO_CACHE + vary + POLICY + fields, len(content))
    return Reply(200, head, b"" if method == "HEAD" else content)


def parse_order(query: str) -> tuple[str, bool]:
    """The column that a query names, and whether it goes down; the default for anything else."""
    try:
        named = parse_qs(query[:256], max_num_fields=8)
    except ValueError:
        named = {}
    by = named.get("by", [DEFAULT_ORDER])[0]
    if by not in (word for word, _, _ in COLUMNS):
        by = DEFAULT_ORDER
    return by, named.get("order", [""])[0] == "down"


def build_json(entries: list[Entry]) -> bytes:
    """The keys are those of nginx's autoindex, and a link that can be asked for."""
    return json.dumps(
        [
            {
                "name": entry.name.decode("utf-8", "replace"),
                "type": "directory" if entry.is_directory else "file",
                "mtime": _moment(entry.modified_s).strftime("%Y-%m-%dT%H:%M:%SZ"),
                **({} if entry.is_directory else {"size": entry.size}),
                "href": entry.link,
            }
            for entry in entries
        ]
    ).encode("ascii")


def build_page(path: str, entries: list[Entry], is_cut: bool, by: str, is_down: bool) -> bytes:
    """The page. path: encoded; shown decoded."""
    title = html.escape(unquote_to_bytes(path).decode("utf-8", "replace"))
    heads = "".join(_build_column(word, text, by, is_down) for word, text, _ in COLUMNS)
    rows = [_build_row(entry) for entry in entries]
    if path != "/":
        rows.insert(0, '<tr><td><a href="../">../</a></td><td></td><td></td></tr>\n')
    more = f"<p>The first {MAX_ENTRIES:,} names; there are more.</p>\n" if is_cut else ""
    count = f"{len(entries):,} {'name' if len(entries) == 1 else 'names'}"
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<table>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table>\n{more}<p>{count}</p>\n"
        f"</body>\n</html>\n"
    )
    return page.encode("utf-8", "replace")


def _build_column(word: str, text: str, by: str, is_down: bool) -> str:
    is_chosen = word == by
    order = "up" if is_chosen and is_down else "down" if is_chosen else "up"
    state = f' aria-sort="{"descending" if is_down else "ascending"}"' if is_chosen else ""
    arrow = (" ↓" if is_down else " ↑") if is_chosen else ""
    css = ' class="n"' if word == "size" else ""
    return f'<th scope="col"{css}{state}><a href="?by={word}&amp;order={order}">{text}</a>{arrow}</th>'


def _build_row(entry: Entry) -> str:
    moment = _moment(entry.modified_s)
    size = "" if entry.is_directory else f"{entry.size:,}"
    return (
        f'<tr><td><a href="{html.escape(entry.link)}">{html.escape(entry.text)}</a></td><td class="n">{size}</td>'
        f'<td><time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%Y-%m-%d %H:%M}</time></td></tr>\n'
    )


def _moment(seconds: int) -> datetime:
    """A file may have any time; what no calendar has is shown as the first or last that it has."""
    return datetime.fromtimestamp(min(max(seconds, -62_135_596_800), 253_402_300_799), UTC)
