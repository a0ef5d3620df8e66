"""Whole responses that hold until the next second, by path and by the fields of a request that matter to files.

A connection whose fields repeat keeps the `View` of these fields and looks a path up in it by itself; nothing of this
module runs then. Views are shared by all connections with the same fields. Belongs to the thread that leads the loop:
filled by `static.handler`, read by `connection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from epollwsgi.http.conditional import FIELDS as CONDITIONAL
from epollwsgi.static.beneath import OpenFile
from epollwsgi.static.cache import StaticFile
from epollwsgi.static.heads import Heads

MAX_SIZE: Final = 24 * 1024 * 1024
MAX_COUNT: Final = 65_536
MAX_PATH_SIZE: Final = 256
MAX_VIEWS: Final = 512  # that live longer than a second
MAX_VIEWS_A_SECOND: Final = 4096
MAX_OPEN: Final = 64  # large files that stay open until the next second
ENTRY_SIZE: Final = 100  # of an entry itself, about

# All that the answer with a file depends on, beside method and path: without conditions only on the first.
ACCEPTED: Final = "HTTP_ACCEPT_ENCODING"
FIELDS: Final = (
    ACCEPTED,
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_RANGE",
    "HTTP_IF_RANGE",
    "HTTP_IF_MATCH",
    "HTTP_IF_UNMODIFIED_SINCE",
)
Key = tuple[Any, ...] | str | None


class OpenResponse(NamedTuple):
    """A whole response whose content is sent from a file that is in memory, and how that file must still look."""

    head: bytes
    file: OpenFile
    length: int
    size: int
    modified_ns: int


class View(dict[str, bytes]):
    """Responses by path, and in `files` those with large files. One that `is_dead` stays empty: ask for another.

    sizes: status and size of the content of responses that were logged, by path.
    """

    __slots__ = ("files", "is_dead", "sizes")

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, OpenResponse] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.is_dead = False


class Fresh:
    """All views, and `plain`: what holds for requests without conditions, whatever they accept."""

    def __init__(self) -> None:
        self.plain = View()
        self.size = 0
        self._count = 0
        self._open_count = 0
        self._views: dict[Key, View] = {}
        self._ready: list[Heads] = []
        self._common = b""

    def begin(self, common: bytes) -> None:
        """A new second: forget what held for the last one. common: as StaticHandler.on_tick has it."""
        self._common = common
        self.forget()
        if len(self._views) > MAX_VIEWS:
            for view in self._views.values():
                view.is_dead = True
            self._views.clear()

    def forget(self) -> None:
        """What was said does not hold any more."""
        for view in (self.plain, *self._views.values()):
            if view:
                view.clear()
                view.sizes.clear()
        self.forget_open()
        for heads in self._ready:
            heads.ready = b""
        self._ready.clear()
        self.size = self._count = 0

    def forget_open(self) -> None:
        """Hold no file open any more."""
        if self._open_count:
            for view in self._views.values():
                view.files.clear()
            self._open_count = 0

    def view(self, fields: Mapping[str, Any]) -> View:
        """The view of a request's fields, for whoever sends them again and again."""
        is_plain = fields.keys().isdisjoint(CONDITIONAL)
        key = fields.get(ACCEPTED) if is_plain else tuple(map(fields.get, FIELDS))
        view = self._views.get(key)
        if view is None:
            view = View()
            if len(self._views) < MAX_VIEWS_A_SECOND:
                self._views[key] = view
            else:
                view.is_dead = True
        return view

    def keep_file(self, path: str, fields: Mapping[str, Any], heads: Heads, content: bytes, is_plain: bool) -> None:
        """Keep the answer to a GET without conditions. is_plain: it is the same whatever the client accepts."""
        if not heads.ready:
            size = len(heads.head) + len(content)
            if self.size + size > MAX_SIZE:
                return
            heads.ready = b"%b%b\r\n%b" % (heads.head, self._common, content)
            self._ready.append(heads)
            self.size += size
        if is_plain:
            self._put(self.plain, path, heads.ready, 0)
        view = self._views.get(fields.get(ACCEPTED))
        if view is not None:
            self._put(view, path, heads.ready, 0)

    def keep(self, path: str, fields: Mapping[str, Any], head: bytes, content: bytes) -> None:
        """Keep any other answer with a file: 206 and 304."""
        view = self._views.get(tuple(map(fields.get, FIELDS)))
        if view is not None:
            response = b"%b%b\r\n%b" % (head, self._common, content)
            self._put(view, path, response, len(response))

    def keep_open(self, path: str, fields: Mapping[str, Any], head: bytes, file: StaticFile) -> None:
        """Keep the answer to a GET without conditions, with all of a file that need not be waited for."""
        view = self._views.get(fields.get(ACCEPTED))
        if view is None or file.file is None or self._open_count >= MAX_OPEN or len(path) > MAX_PATH_SIZE:
            return
        self._open_count += 1
        whole = b"%b%b\r\n" % (head, self._common)
        _, _, size, modified_ns, _ = file.identity
        view.files[path] = OpenResponse(whole, file.file, file.size, size, modified_ns)

    def _put(self, view: dict[str, bytes], path: str, response: bytes, size: int) -> None:
        size += len(path) + ENTRY_SIZE
        if len(path) <= MAX_PATH_SIZE and self._count < MAX_COUNT and self.size + size <= MAX_SIZE and path not in view:
            view[path] = response
            self._count += 1
            self.size += size
