"""From a request to a reply with a file: which mount, which file, which status.

Knows the order of lookup, the methods and the error pages; what a file says of itself is `static.cache`'s, how it is
opened `static.beneath`'s. Sends nothing. Belongs to the thread that leads the loop; called by `connection` for each
request and by the loop's tick once a second.

    raw path --split--> segments --mount--> names to try --stat, or open--> StaticFile --conditions, range--> Reply

Two memories hold until the next tick only: `fresh` (whole responses, looked up by `connection` itself) and what was
found or missed for a raw path. Beneath them the cache of `static.cache` holds files until a stat shows a change.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from epollwsgi.config.values import StaticMount
from epollwsgi.http import conditional
from epollwsgi.http.response import STATUS_LINES
from epollwsgi.static.beneath import SHORTAGES, Opener, OpenFile, Root, open_by_kernel, open_by_walk, probe_openat2
from epollwsgi.static.cache import FileCache, StaticFile, identity_of, load_file
from epollwsgi.static.media_types import NOSNIFF
from epollwsgi.static.paths import TargetPath, count_visible, is_configuration, quote_path, split_path
from epollwsgi.static.replies import NO_CACHE, Reply, build_head, build_not_found, build_short_reply

__all__ = ["OpenFile", "Reply", "StaticHandler"]

READING_METHODS: Final = frozenset(("GET", "HEAD"))
ALLOW: Final = b"Allow: GET, HEAD, OPTIONS\r\n"
RETRY_AFTER: Final = b"Retry-After: 1\r\n"

INDEX: Final = b"index.html"
PAGE_SUFFIX: Final = b".html"
NOT_FOUND_PAGE: Final = b"404.html"
MAX_PAGE_DEPTH: Final = 32  # how deep a path is searched for its nearest 404.html: a request must stay cheap

# Together the 64 MiB of memory that a worker may give to files.
CACHE_SIZE: Final = 48 * 1024 * 1024
FRESH_SIZE: Final = 16 * 1024 * 1024
CACHE_COUNT: Final = 65_536
# What is remembered until the next tick, by names that clients choose.
MEMO_COUNT: Final = 8_192
MEMO_NAME_SIZE: Final = 256
MAX_DESCRIPTORS: Final = 512

# Errors of opening that say nothing about the file: try again later (503). Every other one is a 404.
BUSY: Final = SHORTAGES | {errno.EAGAIN, errno.EINTR}


class Busy(Exception):
    """The file could not be opened just now, for want of descriptors or because of renames all the time."""


class Found(NamedTuple):
    """What a path leads to: a file (200), a directory that wants its slash (301), nothing (404), or no path (400)."""

    status: int
    file: StaticFile | None = None
    target: TargetPath | None = None


class Mount(NamedTuple):
    """A prefix of the site and the directory behind it."""

    number: int
    prefix: tuple[bytes, ...]
    root: Root


REFUSED: Final = Found(400)
MISSING: Final = Found(404)


def choose_opener(log: Callable[[str], None]) -> Opener:
    """openat2, or the walk where it is refused, which is said once."""
    number = probe_openat2()
    if not number:
        return open_by_kernel
    log(f"openat2 is not available ({os.strerror(number)}): static files are opened component by component")
    return open_by_walk


def default_max_descriptors() -> int:
    """At most MAX_DESCRIPTORS and a quarter of what the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(MAX_DESCRIPTORS, soft // 4)


class StaticHandler:
    """Replies for the files below some mounts. `fresh` is read by `connection`; the rest is private."""

    def __init__(
        self,
        mounts: Sequence[StaticMount],
        *,
        alone: bool,
        revalidate: float,
        log: Callable[[str], None],
        max_descriptors: int | None = None,
        opener: Opener | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """alone: there is no application to which a miss could go.  revalidate: seconds between two looks at a file.

        log: gets each warning and bounds their rate.  max_descriptors: open files kept.  clock: the wall clock.
        Raises ConfigError where a directory cannot be opened.
        """
        opener = opener or choose_opener(log)
        self._mounts = sorted(
            (
                Mount(number, tuple(filter(None, os.fsencode(mount.prefix).split(b"/"))), Root(mount.directory, opener))
                for number, mount in enumerate(mounts)
            ),
            key=lambda mount: -len(mount.prefix),
        )
        self._alone = alone
        self._revalidate = revalidate
        # Memories that last for a tick of one second would make a shorter time a lie.
        self._keeps = revalidate >= 1
        self._log = log
        self._clock = clock
        if max_descriptors is None:
            max_descriptors = default_max_descriptors()
        # What was found for a path keeps its file open even when the cache has dropped it: a share of its own.
        self._max_found_open = max_descriptors // 4
        self._cache = FileCache(
            max_count=CACHE_COUNT, max_size=CACHE_SIZE, max_descriptors=max_descriptors - self._max_found_open
        )
        self.fresh: dict[str, bytes] = {}
        self._fresh_size = 0
        self._found: dict[str, Found] = {}
        self._found_open = 0
        self._absent: set[tuple[int, bytes]] = set()
        self._common = b""
        self._now = 0.0

    def on_tick(self, now_s: float, common: bytes) -> None:
        """A new second: forget what held for the last one, look where the roots lead.

        now_s: this second, on a clock that never goes back.
        common: the Date and Server lines that end the head of every response.
        """
        self._now = now_s
        self._common = common
        self.fresh.clear()
        self._fresh_size = 0
        self._found.clear()
        self._found_open = 0
        self._absent.clear()
        self._refresh_roots()

    def _refresh_roots(self) -> None:
        for mount in self._mounts:
            if mount.root.refresh():
                self._cache.clear()
                state = "is gone" if mount.root.fd < 0 else "is another directory now"
                self._log(f"static root {mount.root.directory} {state}")

    def answer(self, method: str, path: str, query: str, fields: Mapping[str, str]) -> Reply | None:
        """The reply to a request, or None where it is the application's.

        path, query: of the target as received.  fields: the request's, as in environ.
        """
        if method not in READING_METHODS:
            return self._answer_other_method(method, path) if self._alone else None
        found = self._found.get(path)
        try:
            if found is None:
                found = self._find_path(path)
            file = found.file
            if file is None:
                return self._answer_miss(found, method, path, query) if self._alone or found.status == 301 else None
        except Busy:
            return build_short_reply(503, method, RETRY_AFTER)
        if fields.keys().isdisjoint(conditional.FIELDS):
            if method == "HEAD":
                return Reply(200, file.head)
            if file.content is None:
                return Reply(200, file.head, b"", file.file, 0, file.size)
            if self._keeps and path not in self.fresh:
                self._keep_fresh(path, file.head, file.content)
            return Reply(200, file.head, file.content)
        return self._answer_conditional(method, file, fields)

    def _keep_fresh(self, path: str, head: bytes, content: bytes) -> None:
        """Build the whole response, for `connection` to find by itself until the next tick."""
        size = len(path) + len(head) + len(content)
        if len(path) <= MEMO_NAME_SIZE and len(self.fresh) < MEMO_COUNT and self._fresh_size + size <= FRESH_SIZE:
            self.fresh[path] = b"%b%b\r\n%b" % (head, self._common, content)
            self._fresh_size += size

    def _answer_conditional(self, method: str, file: StaticFile, fields: Mapping[str, str]) -> Reply:
        """The reply with a file to a request that has conditions or a range. RFC 9110 sections 13.2.2, 14.2."""
        status = conditional.evaluate(fields, file.etag, file.last_modified, self._clock())
        if status == 304:
            return Reply(304, file.not_modified_head)
        if status == 412:
            return build_short_reply(412, method)
        selected = conditional.select_range(method, fields, file.etag, file.last_modified, file.size)
        if selected == conditional.UNSATISFIABLE:
            return build_short_reply(416, method, b"Content-Range: bytes */%d\r\n" % file.size)
        if selected is None:
            return self._send(Reply(200, file.head), method, file, 0, file.size)
        first, last = selected
        count = last - first + 1
        head = b"%b%bContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n" % (
            STATUS_LINES[206],
            file.fields,
            first,
            last,
            file.size,
            count,
        )
        return self._send(Reply(206, head), method, file, first, count)

    @staticmethod
    def _send(reply: Reply, method: str, file: StaticFile, offset: int, count: int) -> Reply:
        """The reply, given a part of the file for its content but to HEAD."""
        if method == "HEAD":
            return reply
        if file.content is None:
            reply.file, reply.offset, reply.count = file.file, offset, count
        else:
            reply.body = file.content[offset : offset + count]
        return reply

    # --- what is not a file -----------------------------------------------------------------------------------------

    def _answer_other_method(self, method: str, path: str) -> Reply:
        """A site alone answers OPTIONS for any path, and no other method. STATIC.md section 2."""
        if method == "OPTIONS":
            return Reply(204, STATUS_LINES[204] + NOSNIFF + ALLOW)
        try:
            found = self._found.get(path) or self._find_path(path)
            if found.status in (200, 301):
                return build_short_reply(405, method, ALLOW)
            return self._answer_miss(found, method, path, "")
        except Busy:
            return build_short_reply(503, method, RETRY_AFTER)

    def _answer_miss(self, found: Found, method: str, path: str, query: str) -> Reply:
        """301 to a directory's own address, 400 to what is no path, else 404 with the nearest page."""
        if found.status == 400:
            return build_short_reply(400, method)
        if found.status == 301 and found.target is not None:
            location = quote_path(found.target.segments, True) + (f"?{query}" if query else "")
            return build_short_reply(301, method, b"Location: %b\r\n" % location.encode("latin-1"))
        page = self._find_not_found_page(path)
        if page is None:
            return build_not_found(method)
        head = build_head(404, page.media_type, NO_CACHE, page.size)
        return self._send(Reply(404, head), method, page, 0, page.size)

    def _find_not_found_page(self, path: str) -> StaticFile | None:
        """The 404.html of the nearest ancestor within the mount, hidden directories left out."""
        target = split_path(path)
        mount = self._select_mount(target.segments) if target is not None else None
        if target is None or mount is None:
            return None
        segments = target.segments[len(mount.prefix) :]
        segments = segments[: count_visible(segments, is_top=not mount.prefix)]
        for depth in range(min(len(segments), MAX_PAGE_DEPTH), -1, -1):
            page = self._find_name(mount, b"/".join((*segments[:depth], NOT_FOUND_PAGE)))
            if isinstance(page, StaticFile):
                return page
        return None

    # --- from a path to a file --------------------------------------------------------------------------------------

    def _find_path(self, path: str) -> Found:
        """What a raw path leads to, remembered until the next tick. Raises Busy."""
        if not self._keeps:
            self._refresh_roots()
        target = split_path(path)
        found = REFUSED if target is None else self._find_target(target)
        if self._keeps and len(path) <= MEMO_NAME_SIZE and len(self._found) < MEMO_COUNT:
            is_open = found.file is not None and found.file.file is not None
            if not is_open or self._found_open < self._max_found_open:
                self._found[path] = found
                self._found_open += is_open
        return found

    def _select_mount(self, segments: tuple[bytes, ...]) -> Mount | None:
        """The mount with the longest prefix."""
        for mount in self._mounts:
            if segments[: len(mount.prefix)] == mount.prefix:
                return mount
        return None

    def _find_target(self, target: TargetPath) -> Found:
        """Look for the exact file, then for name.html, then for a directory. STATIC.md section 8."""
        mount = self._select_mount(target.segments)
        if mount is None:
            return MISSING
        segments = target.segments[len(mount.prefix) :]
        if count_visible(segments, is_top=not mount.prefix) < len(segments):
            return MISSING
        is_directory = target.is_directory
        name = b"/".join(segments)
        if segments and not is_directory:
            if is_configuration(segments[-1]):
                return MISSING
            exact = self._find_name(mount, name)
            if isinstance(exact, StaticFile):
                return Found(200, exact)
            page = self._find_name(mount, name + PAGE_SUFFIX)
            if isinstance(page, StaticFile):
                return Found(200, page)
            if not exact:
                return MISSING
        index = self._find_name(mount, name + b"/" + INDEX if name else INDEX)
        if is_directory:
            return Found(200, index) if isinstance(index, StaticFile) else MISSING
        # Without its slash: the relative links of the index would not work. Beside an application only what is there.
        if self._alone or isinstance(index, StaticFile):
            return Found(301, None, target)
        return MISSING

    def _find_name(self, mount: Mount, name: bytes) -> StaticFile | bool:
        """The regular file of this name beneath the mount's root; True for a directory, False for nothing or other.

        A file known from before costs one stat once per `revalidate`. stat follows any link, yet gives nothing away:
        it is only compared with the state of the file that was opened beneath the root. Raises Busy.
        """
        key = (mount.number, name)
        if key in self._absent:
            return False
        file = self._cache.get(key)
        if file is not None and self._is_current(file):
            return file
        try:
            status = os.stat(name, dir_fd=mount.root.fd)
            if file is not None:
                if file.identity == identity_of(status):
                    file.checked_at = self._now
                    return file
                self._cache.drop(key)
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                return False
            return self._open_name(mount, name)
        except OSError:
            self._cache.drop(key)
            if self._keeps and len(name) <= MEMO_NAME_SIZE and len(self._absent) < MEMO_COUNT:
                self._absent.add(key)
            return False

    def _is_current(self, file: StaticFile) -> bool:
        """True until the tick within which `revalidate` would run out."""
        return self._keeps and 0 <= self._now - file.checked_at <= self._revalidate - 1

    def _open_name(self, mount: Mount, name: bytes) -> StaticFile | bool:
        """Open beneath the root, and keep what was found. Raises OSError for what is a miss, else Busy."""
        try:
            fd = mount.root.open(name)
        except OSError as error:
            if error.errno not in BUSY:
                raise
            fd = self._open_again(mount, name, error)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return stat.S_ISDIR(status.st_mode)
        file = load_file(name.rpartition(b"/")[2], fd, status, self._clock)
        file.checked_at = self._now
        self._cache.put((mount.number, name), file)
        return file

    def _open_again(self, mount: Mount, name: bytes, error: OSError) -> int:
        """After a shortage of descriptors: give up those that are only cached, then try once more."""
        if error.errno in SHORTAGES:
            self._log(f"a static file could not be opened ({error.strerror}): idle descriptors are dropped")
            self._found.clear()
            self._found_open = 0
            self._cache.descriptors.clear()
            try:
                return mount.root.open(name)
            except OSError as again:
                if again.errno not in BUSY:
                    raise
        raise Busy from error
