"""What `epollwsgi check` finds wrong with `_headers` and `_redirects`: lines that mean nothing, and redirects that do
not arrive.

The lines are read by the serving code, and a redirect is followed by asking it as a browser would. Called by
`commands.check`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote_from_bytes

from epollwsgi.commands.show import Finding, show_path
from epollwsgi.static.beneath import OpenFile, Root
from epollwsgi.static.handler import StaticHandler
from epollwsgi.static.mounts import HEADERS_FILE, REDIRECTS_FILE
from epollwsgi.static.rules import (
    MAX_FILE_SIZE,
    PATH_SAFE,
    WILDCARD,
    Redirect,
    parse_headers,
    parse_redirects,
)

MAX_HOPS: Final = 20  # a browser gives up there
LOCATION: Final = re.compile(rb"\r\nLocation: ([^\r\n]*)\r\n", re.IGNORECASE)
REDIRECTING: Final = frozenset((301, 302, 303, 307, 308))
# What stands for a splat or a name when a rule is tried out.
SAMPLE: Final = b"x"


class RuleCheck:
    """The rules of one directory."""

    def __init__(self, directory: str, prefix: str, root: Root) -> None:
        """directory: as the operator wrote it.  prefix: where it is served."""
        self._directory = show_path(os.fsencode(directory))
        self._prefix = prefix.rstrip("/")
        self._headers, self._header_faults = parse_headers(read_rules(root, HEADERS_FILE))
        self._redirects, self._redirect_faults = parse_redirects(read_rules(root, REDIRECTS_FILE))

    def has_type(self, path: bytes) -> bool:
        """Whether a rule gives the file of this path below the root a Content-Type."""
        return any(name.lower() == "content-type" for name, _ in self._headers.select(b"/" + path))

    def findings(self, handler: StaticHandler | None) -> Iterator[Finding]:
        """All that is wrong. handler: answers as the server would."""
        for name, faults in ((HEADERS_FILE, self._header_faults), (REDIRECTS_FILE, self._redirect_faults)):
            for fault in faults:
                yield self._finding(name, fault.line, fault.text, "correct the line or remove it")
        if handler is not None:
            for rule in self._redirects.rules:
                yield from self._try_rule(handler, rule)

    def _finding(self, name: bytes, line: int, what: str, advice: str) -> Finding:
        return Finding(f"{os.path.join(self._directory, os.fsdecode(name))}:{line}", what, advice)

    def _try_rule(self, handler: StaticHandler, rule: Redirect) -> Iterator[Finding]:
        """Ask for what the rule is about, and go where the answers lead."""
        has_sample = WILDCARD.search(rule.source_text) is not None
        path = self._prefix + quote_from_bytes(WILDCARD.sub(SAMPLE, rule.source_text), PATH_SAFE + "%")
        if rule.source_text == rule.target_text:
            yield self._finding(REDIRECTS_FILE, rule.line, "leads to itself and is not applied", "remove the line")
            return
        way = [path]
        query = ""
        for _ in range(MAX_HOPS):
            reply = handler.answer("GET", path, query, {})
            if reply is None:  # the application's
                return
            if reply.later is not None:
                reply = reply.later()
            if reply.status not in REDIRECTING:
                yield from self._judge_end(rule, way, reply.status, has_sample)
                return
            match = LOCATION.search(reply.head)
            if match is None or not match[1].startswith(b"/") or match[1].startswith(b"//"):
                return  # another site
            path, _, query = match[1].decode("latin-1").partition("#")[0].partition("?")
            if path in way:
                shown = " to ".join([*way[way.index(path) :], path])
                yield self._finding(REDIRECTS_FILE, rule.line, f"leads round in a circle ({shown})", "break the circle")
                return
            way.append(path)
        what = f"leads on and on ({' to '.join(way[:4])} ...)"
        yield self._finding(REDIRECTS_FILE, rule.line, what, "make it lead straight to its end")

    def _judge_end(self, rule: Redirect, way: list[str], status: int, has_sample: bool) -> Iterator[Finding]:
        """What is wrong with a way that ends in this status."""
        if has_sample:  # the sample may well be missing
            return
        if status == 404 and rule.status != 404:
            what = (
                f"leads to {way[-1]}, which does not exist"
                if len(way) > 1
                else f"{show_path(rule.target_text)} does not exist"
            )
            yield self._finding(REDIRECTS_FILE, rule.line, what, "correct the target or remove the line")
        elif len(way) == 1 and rule.status in REDIRECTING:
            what = f"never applies, since there is a file for {show_path(rule.source_text)}"
            yield self._finding(
                REDIRECTS_FILE, rule.line, what, f"write {rule.status}! to override it, or remove the line"
            )


def read_rules(root: Root, name: bytes) -> bytes:
    """The content of a file of rules; nothing where there is none."""
    try:
        file = OpenFile(root.open(name))
        return os.pread(file.fd, MAX_FILE_SIZE + 1, 0)
    except OSError:
        return b""
