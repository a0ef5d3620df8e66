"""From a request to a reply with a file: methods, conditions, ranges, codings and error pages.

What a path leads to is found by `static.lookup`, which coding a client gets by `static.variants`. Sends nothing.
Belongs to the thread that leads the loop; called by `dispatch` for each request and by the loop's tick once a second.

    raw path --lookup--> Found --Accept-Encoding--> StaticFile --conditions, ranges--> Reply

Two memories hold until the next tick only: `fresh` (whole responses, looked up by `connection` itself) and what was
found or missed for a raw path. Beneath them the cache of `static.cache` holds files until a stat shows a change.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from epollwsgi.config.values import StaticMount
from epollwsgi.helper import run_here
from epollwsgi.http import conditional
from epollwsgi.http.negotiation import accept_weight
from epollwsgi.http.response import STATUS_LINES
from epollwsgi.pagecache import PART_SIZE, is_warm, read_now
from epollwsgi.static.beneath import Opener, OpenFile, open_following
from epollwsgi.static.cache import MEMORY_FILE_SIZE, StaticFile
from epollwsgi.static.fresh import Fresh
from epollwsgi.static.heads import Heads
from epollwsgi.static.listing import listing_of
from epollwsgi.static.lookup import Found, FoundMemory, Lookup, Options
from epollwsgi.static.media_types import NOSNIFF
from epollwsgi.static.mounts import build_mounts, choose_opener
from epollwsgi.static.paths import as_asked
from epollwsgi.static.replies import (
    NO_CACHE,
    Reply,
    build_head,
    build_multipart,
    build_not_found,
    build_range_head,
    build_short_reply,
)
from epollwsgi.static.shelf import Busy, Shelf, default_max_descriptors
from epollwsgi.static.variants import Run, Variants

__all__ = ["OpenFile", "Reply", "StaticHandler"]

READING_METHODS: Final = frozenset(("GET", "HEAD"))
ALLOW: Final = b"Allow: GET, HEAD, OPTIONS\r\n"
RETRY_AFTER: Final = b"Retry-After: 1\r\n"
BOUNDARY_SIZE: Final = 16  # random bytes
# Rules that send the client elsewhere hold for these methods too; 307 and 308 are made for them.
REDIRECTED_STATUSES: Final = frozenset((301, 302, 303, 307, 308))


class StaticHandler:
    """Replies for the files below some mounts. `fresh` is read by `connection`; the rest is private."""

    def __init__(
        self,
        mounts: Sequence[StaticMount],
        *,
        alone: bool,
        revalidate: float,
        log: Callable[[str], None],
        report: Callable[[str], None] | None = None,
        listing: bool = False,
        pretty: bool = False,
        spa: bool = False,
        compress: bool = False,
        follow_symlinks: bool = False,
        script_name: str = "",
        run: Run = run_here,
        max_descriptors: int | None = None,
        opener: Opener | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """alone: there is no application to which a miss could go.  revalidate: seconds between two looks at a file.

        log: gets each warning that files and clients cause, and bounds their rate.  report: gets those about what the
        operator wrote.  script_name: of the application, which the paths of requests hold.  run: work on a helper
        thread.  max_descriptors: open files kept.  clock: the wall clock.  Raises ConfigError where a directory cannot
        be opened.
        """
        if opener is None:
            opener = open_following if follow_symlinks else choose_opener(log)
        self._mounts = build_mounts(mounts, opener, report or log)
        self._alone = alone
        self._clock = clock
        if max_descriptors is None:
            max_descriptors = default_max_descriptors()
        # What was found for a path keeps its file open even when the cache has dropped it: a share of its own.
        self._found = found = FoundMemory(max_descriptors // 4)
        self.fresh = fresh = Fresh()

        def on_shortage() -> None:
            found.forget()
            fresh.forget_open()

        self._shelf = Shelf(
            revalidate=revalidate,
            max_descriptors=max_descriptors - max_descriptors // 4,
            compress=compress,
            clock=clock,
            log=log,
            on_shortage=on_shortage,
        )
        self._lookup = Lookup(self._mounts, self._shelf, Options(alone, listing, pretty, spa))
        self._variants = Variants(self._shelf, run)
        self._follows = follow_symlinks
        self._script_name = script_name
        self._now = 0.0
        self._refresh_roots()

    def on_tick(self, now_s: float, common: bytes) -> None:
        """A new second: forget what held for the last one, look where the roots lead.

        now_s: this second, on a clock that never goes back.
        common: the Date and Server lines that end the head of every response.
        """
        self._now = now_s
        self.fresh.begin(common)
        self._found.forget()
        self._shelf.on_tick(now_s)
        self._refresh_roots()

    def close(self) -> None:
        """Nothing is served any more: let go of every descriptor, but for those of responses that are being sent."""
        self.fresh.forget()
        self._found.forget()
        self._found.certain.clear()
        self._shelf.cache.clear()
        for mount in self._mounts:
            mount.old.clear()
            mount.root.close()

    def _refresh_roots(self) -> None:
        for mount in self._mounts:
            for gone in mount.refresh(self._now):
                self._shelf.cache.drop_directory(gone.number)
            if mount.has_changed:
                self._found.certain.clear()

    def answer(self, method: str, path: str, query: str, fields: Mapping[str, str]) -> Reply | None:
        """The reply to a request, or None where it is the application's.

        path, query: of the target as received.  fields: the request's, as in environ.
        """
        if method not in READING_METHODS:
            return self._answer_other_method(method, path, query, fields) if self._alone else None
        found = self._found.get(path)
        try:
            if found is None:
                found = self._find(path)
            file = found.file
            if file is None or found.status != 200:
                return self._answer_other(found, method, path, query, fields)
            return self._answer_file(found, file, method, path, fields)
        except Busy:
            return build_short_reply(503, method, RETRY_AFTER)

    def _find(self, path: str) -> Found:
        """What a raw path leads to, remembered until the next tick. Raises Busy."""
        if not self._shelf.keeps:
            self._refresh_roots()
            return self._lookup.find(path)
        certain = self._found.certain.get(path)
        if certain is not None and self._lookup.find_certain(certain):
            self._found[path] = certain
            return certain
        found = self._lookup.find(path)
        self._found.keep(path, found)
        return found

    # --- a file -----------------------------------------------------------------------------------------------------

    def _answer_file(
        self, found: Found, file: StaticFile, method: str, path: str, fields: Mapping[str, str], *, keeps: bool = True
    ) -> Reply:
        """The reply with a file, in the coding that suits. keeps: the answer depends on nothing else. Raises Busy."""
        is_plain = fields.keys().isdisjoint(conditional.FIELDS)
        chosen, is_final = self._choose(found, file, fields)
        if self._lookup.steps is not None:
            self._note_choice(found, file, chosen, fields)
        if chosen.file is not None and self._shelf.has_changed(chosen):
            found, file = self._find_again(found, path)
            chosen, is_final = self._choose(found, file, fields)
        heads = chosen.heads_for(found.dressing)
        keeps = keeps and is_final and self._shelf.keeps and method == "GET"
        if is_plain:
            if method == "HEAD":
                return Reply(200, heads.head)
            if chosen.content is None:
                if keeps and chosen.file is not None and 0 < chosen.size <= PART_SIZE:
                    if is_warm(chosen.file, 0, chosen.size):
                        self.fresh.keep_open(path, fields, heads.head, chosen)
                return Reply(200, heads.head, b"", chosen.file, 0, chosen.size)
            if keeps:
                self.fresh.keep_file(path, fields, heads, chosen.content, not file.varies)
                return Reply(200, heads.head, chosen.content, whole=heads.ready)
            return Reply(200, heads.head, chosen.content)
        reply = self._answer_conditional(method, chosen, heads, fields)
        if keeps and reply.file is None and reply.status in (206, 304):
            self.fresh.keep(path, fields, reply.head, reply.body)
        return reply

    def _find_again(self, found: Found, path: str) -> tuple[Found, StaticFile]:
        """A file was written to in its place: its heads do not fit any more. Raises Busy where it goes on so."""
        if found.place is not None:
            self._shelf.cache.drop(found.place.key)
        self._found.drop(path)
        again = self._lookup.find(path)
        file = again.file
        if again.status != found.status or file is None or self._shelf.has_changed(file):
            raise Busy
        return again, file

    def _choose(self, found: Found, file: StaticFile, fields: Mapping[str, str]) -> tuple[StaticFile, bool]:
        """The coding of a file for a client, and whether that is what the client would get a moment later too."""
        if not file.varies or found.place is None or found.dressing.has_coding:
            return file, True
        accepted = fields.get("HTTP_ACCEPT_ENCODING")
        if not accepted:
            return file, True
        variants = self._variants
        can_be_made = found.dressing.may_transform
        makes = can_be_made and "HTTP_RANGE" not in fields
        chosen = variants.choose(found.place, file, accepted, makes=makes, made=can_be_made)
        return chosen, variants.is_final

    def _note_choice(self, found: Found, file: StaticFile, chosen: StaticFile, fields: Mapping[str, str]) -> None:
        note = self._lookup.note
        if found.dressing.whole or found.dressing.has_cache_control or found.dressing.content_type:
            note("_headers has fields for this path.")
        for sibling in file.siblings:
            note("There is {} ({} bytes) in the coding {}.", sibling.name or "a copy", sibling.size, sibling.coding)
        if file.varies:
            coding = chosen.coding or "identity"
            note("Accept-Encoding: {} chooses {}.", fields.get("HTTP_ACCEPT_ENCODING") or "(none)", coding)

    def _answer_conditional(self, method: str, file: StaticFile, heads: Heads, fields: Mapping[str, str]) -> Reply:
        """The reply with a file to a request that has conditions or ranges. RFC 9110 sections 13.2.2, 14.2."""
        status = conditional.evaluate(fields, file.etag, file.last_modified, self._clock())
        if "HTTP_RANGE" not in fields or status != 200:
            self._lookup.note("The conditions of the request come to {}; the ETag is {}.", status, file.etag)
        if status == 304:
            return Reply(304, heads.not_modified)
        if status == 412:
            return build_short_reply(412, method)
        size = file.size
        ranges = conditional.select_ranges(method, fields, file.etag, file.last_modified, size)
        if "HTTP_RANGE" in fields:
            asked = ", ".join(f"{first}-{last}" for first, last in ranges or ()) or "nothing that is there"
            self._lookup.note("Of {} bytes Range asks for {}.", size, "the whole" if ranges is None else asked)
        if ranges is None:
            return self._send(Reply(200, heads.head), method, file, 0, size)
        if ranges == conditional.UNSATISFIABLE:
            return build_short_reply(416, method, b"Content-Range: bytes */%d\r\n" % size)
        if len(ranges) == 1:
            first, last = ranges[0]
            reply = Reply(206, build_range_head(heads, first, last, size))
            return self._send(reply, method, file, first, last - first + 1)
        return self._send_parts(file, heads, ranges)

    @staticmethod
    def _send(reply: Reply, method: str, file: StaticFile, offset: int, count: int) -> Reply:
        """The reply, given a part of the file for its content but to HEAD."""
        if method == "HEAD":
            return reply
        if file.content is not None:
            reply.body = file.content[offset : offset + count]
            return reply
        assert file.file is not None
        # One send with the head is cheaper than two calls.
        body = read_now(file.file, offset, count) if count <= MEMORY_FILE_SIZE else None
        if body is not None:
            reply.body = body
        else:
            reply.file, reply.offset, reply.count = file.file, offset, count
        return reply

    @staticmethod
    def _send_parts(file: StaticFile, heads: Heads, ranges: conditional.Ranges) -> Reply:
        """Several ranges, in one multipart body."""
        boundary = os.urandom(BOUNDARY_SIZE).hex().encode("ascii")
        head, parts = build_multipart(heads, ranges, file.size, boundary)
        if file.content is not None:
            content = file.content
            pieces = (part.head + content[part.offset : part.offset + part.size] for part in parts)
            return Reply(206, head, b"".join(pieces))
        length = sum(len(part.head) + part.size for part in parts)
        return Reply(206, head, b"", file.file, 0, length, parts)

    # --- what is not a file -----------------------------------------------------------------------------------------

    def _answer_other(
        self, found: Found, method: str, path: str, query: str, fields: Mapping[str, str]
    ) -> Reply | None:
        """A listing, a redirection, 400 to what is no path, else 404 with the nearest page. Raises Busy."""
        if found.status in REDIRECTED_STATUSES:
            return self._redirect(found, method, query, fields)
        if not self._alone and not found.is_rule:
            return None
        if found.status == 400:
            return build_short_reply(400, method)
        if found.status == 200:
            return self._list(found, method, query, fields)
        fallback = found.fallback
        if fallback is not None and fallback.file is not None and method in READING_METHODS:
            if accept_weight(fields.get("HTTP_ACCEPT", ""), "text/html", by_name=True):
                return self._answer_file(fallback, fallback.file, method, path, fields, keeps=False)
        page = found.file
        if page is None:
            return build_not_found(method, found.dressing.other, self._as_asked("/", fields))
        if page.file is not None and self._shelf.has_changed(page):
            found, page = self._find_again(found, path)
        head = build_head(404, page.media_type, NO_CACHE + found.dressing.other, page.size)
        return self._send(Reply(404, head), method, page, 0, page.size)

    def _as_asked(self, path: str, fields: Mapping[str, str]) -> str:
        """A path of this site as the client has it: a trusted proxy may have taken a prefix off, now SCRIPT_NAME."""
        script_name = fields.get("SCRIPT_NAME", self._script_name)
        return path if script_name == self._script_name else as_asked(path, script_name, self._script_name)

    def _redirect(self, found: Found, method: str, query: str, fields: Mapping[str, str]) -> Reply:
        """3xx, with the query of the request behind what the location has."""
        location, mark, fragment = found.location.partition("#")
        if location[:1] == "/":
            location = self._as_asked(location, fields)
        if query:
            location += ("&" if "?" in location else "?") + query
        line = b"Location: %b\r\n" % (location + mark + fragment).encode("latin-1")
        return build_short_reply(found.status, method, line + found.dressing.other)

    def _list(self, found: Found, method: str, query: str, fields: Mapping[str, str]) -> Reply:
        """A directory without index; made on a thread that may wait, since there may be many names in it."""
        place = found.place
        assert place is not None
        accept = fields.get("HTTP_ACCEPT", "")
        other = found.dressing.other
        missing = build_not_found(method, other, self._as_asked("/", fields))

        def later() -> Reply:
            return listing_of(
                place.directory, place.name, found.title, query, accept, method, other, self._follows, missing
            )

        return Reply(200, b"", later=later)

    def _answer_other_method(self, method: str, path: str, query: str, fields: Mapping[str, str]) -> Reply | None:
        """A site alone answers OPTIONS for any path, and no other method. STATIC.md section 2."""
        self._lookup.note("The method is {}: files are read only.", method)
        if method == "OPTIONS":
            return Reply(204, STATUS_LINES[204] + NOSNIFF + ALLOW)
        try:
            found = self._found.get(path) or self._find(path)
            if found.is_rule and found.status in REDIRECTED_STATUSES:
                return self._redirect(found, method, query, fields)
            if found.status in (200, 301):
                return build_short_reply(405, method, ALLOW)
            return self._answer_other(found, method, path, query, fields)
        except Busy:
            return build_short_reply(503, method, RETRY_AFTER)

    # --- for the operator -------------------------------------------------------------------------------------------

    def explain(self, method: str, path: str, query: str, fields: Mapping[str, str]) -> tuple[list[str], Reply | None]:
        """Each decision on the way to the reply in a sentence, and the reply; None: the application's."""
        steps = self._lookup.steps = []
        self._found.drop(path)
        try:
            reply = self.answer(method, path, query, fields)
            if reply is not None and reply.later is not None:
                reply = reply.later()
        finally:
            self._lookup.steps = None
        return steps, reply
