"""Which coding of a file a client gets: a sibling from the disk, one that was compressed here, or the file itself.

    Accept-Encoding --weights--> codings there are --highest weight, then smallest--> load, check --> StaticFile

Compressing and the checksums of large files happen on a helper thread; until they are done the file itself is sent.
Belongs to the thread that leads the loop. Called by `static.handler`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any, Final

from epollwsgi.codings import Coding, available
from epollwsgi.http.negotiation import IDENTITY, Weights, choose_coding, parse_accept_encoding
from epollwsgi.pagecache import AlwaysWarm
from epollwsgi.static.beneath import OpenFile
from epollwsgi.static.cache import MEMORY_FILE_SIZE, Sibling, StaticFile, identity_of, load_file
from epollwsgi.static.shelf import Busy, Place, Shelf
from epollwsgi.static.siblings import checksum_of_file, gzip_ends, gzip_fault, read_gzip_ends

# The checksum of a source up to this size is reckoned at once: about a millisecond.
CHECKED_AT_ONCE_SIZE: Final = 1024 * 1024
# So often a file is asked for by clients that would take a coding before it is compressed.
USES_BEFORE_COMPRESSION: Final = 3
# What saves less is not worth the client's work.
WORTHWHILE: Final = 0.95
MAX_PENDING: Final = 64
REMEMBERED_COUNT: Final = 1024
REMEMBERED_SIZE: Final = 256

Run = Callable[[Callable[[], Any], Callable[[Any], None]], bool]


class Variants:
    """See the module."""

    def __init__(self, shelf: Shelf, run: Run) -> None:
        """run: Helper.run, or what does the same."""
        self._shelf = shelf
        self._run = run
        self._weights: dict[str, Weights] = {}
        self._pending_count = 0
        self._codings: tuple[Coding, ...] | None = None
        self.is_final = True  # whether the last choice is what will be chosen next time

    def weights_of(self, accept_encoding: str) -> Weights:
        """The weights of a field value; values repeat."""
        weights = self._weights.get(accept_encoding)
        if weights is None:
            weights = parse_accept_encoding(accept_encoding)
            if len(accept_encoding) <= REMEMBERED_SIZE:
                if len(self._weights) >= REMEMBERED_COUNT:
                    self._weights.clear()
                self._weights[accept_encoding] = weights
        return weights

    def choose(self, place: Place, file: StaticFile, accept_encoding: str, *, makes: bool, made: bool) -> StaticFile:
        """The file, or a coding of it. `is_final` tells whether the answer may be remembered.

        makes: a coding that is missing may be made.  made: one that was made here may be chosen.
        """
        self.is_final = True
        weights = self.weights_of(accept_encoding)
        usable = {one.coding: one for one in file.siblings if made or not one.is_made}
        while usable:
            coding = choose_coding(weights, ((token, one.size) for token, one in usable.items()), file.size)
            if coding == IDENTITY:
                break
            sibling = usable.pop(coding)
            found = sibling.file or self._load(place, file, sibling)
            if found is not None:
                return found
        if makes and file.can_compress:
            self._count_use(place, file, weights)
        return file

    # --- siblings on the disk ---------------------------------------------------------------------------------------

    def _load(self, place: Place, file: StaticFile, sibling: Sibling) -> StaticFile | None:
        """A sibling ready to be sent; None where it cannot be used, or not yet."""
        if sibling.is_pending:
            self.is_final = False
            return None
        try:
            fd = self._shelf.open(place.directory, sibling.name)
        except Busy:
            self.is_final = False
            return None
        except OSError as error:
            self._refuse(place, file, sibling, f"it cannot be opened ({error.strerror})")
            return None
        status = os.fstat(fd)
        if identity_of(status) != sibling.identity:
            os.close(fd)
            self._refuse(place, file, sibling, "")  # it changes just now: the next look at the file finds it again
            return None
        loaded = load_file(file.name, fd, status, self._shelf.clock, coding=sibling.coding, varies=True)
        if sibling.coding == "gzip" and not sibling.is_checked and not self._check(place, file, sibling, loaded):
            return None
        sibling.file = loaded
        self._keep(place, file)
        return loaded

    def _check(self, place: Place, file: StaticFile, sibling: Sibling, loaded: StaticFile) -> bool:
        """Whether a gzip sibling is known to hold what its source does; of a large source that is found out later."""
        try:
            if loaded.content is not None:
                ends = gzip_ends(loaded.content)
            else:
                assert loaded.file is not None
                ends = read_gzip_ends(loaded.file.fd, loaded.size)
            if file.content is not None:
                fault = gzip_fault(ends, zlib.crc32(file.content), file.size)
            elif file.size <= CHECKED_AT_ONCE_SIZE:
                assert file.file is not None
                fault = gzip_fault(ends, *checksum_of_file(file.file.fd))
            else:
                self._check_later(place, file, sibling, ends)
                return False
        except OSError as error:
            fault = f"it cannot be read ({error.strerror})"
        if fault:
            self._refuse(place, file, sibling, fault)
            return False
        sibling.is_checked = True
        return True

    def _check_later(self, place: Place, file: StaticFile, sibling: Sibling, ends: bytes) -> None:
        """Read a large source on the helper thread."""
        source = file.file
        assert source is not None

        def work() -> str:
            try:
                return gzip_fault(ends, *checksum_of_file(source.fd))
            except OSError as error:
                return f"its source cannot be read ({error.strerror})"

        def done(fault: str) -> None:
            self._pending_count -= 1
            sibling.is_pending = False
            sibling.is_checked = not fault
            if fault:
                self._refuse(place, file, sibling, fault)

        self.is_final = False
        if self._pending_count < MAX_PENDING:
            sibling.is_pending = True
            self._pending_count += 1
            if not self._run(work, done):
                sibling.is_pending = False
                self._pending_count -= 1

    def _refuse(self, place: Place, file: StaticFile, sibling: Sibling, fault: str) -> None:
        """Do without a sibling until it changes."""
        file.siblings = tuple(one for one in file.siblings if one is not sibling)
        if fault:
            self._shelf.log(f"{os.fsdecode(sibling.name)} is not used: {fault}")
        else:
            self._shelf.cache.drop(place.key)

    def _keep(self, place: Place, file: StaticFile) -> None:
        """A file that is kept costs more with a coding of it."""
        if self._is_kept(place, file):
            self._shelf.cache.put(place.key, file)

    def _is_kept(self, place: Place, file: StaticFile) -> bool:
        return self._shelf.cache.get(place.key) is file

    # --- codings made here ------------------------------------------------------------------------------------------

    def _count_use(self, place: Place, file: StaticFile, weights: Weights) -> None:
        """Another client would have taken a coding that is not there; after a few it is made."""
        if self._codings is None:
            self._codings = available()
        wanted = [coding for coding in self._codings if weights[coding.token] > weights[IDENTITY]]
        if not wanted:
            return
        coding = max(wanted, key=lambda coding: weights[coding.token])
        count = file.uses.get(coding.token, 0) + 1
        if count > USES_BEFORE_COMPRESSION:
            return  # it is being made, or does not pay
        self.is_final = False
        if count < USES_BEFORE_COMPRESSION:
            file.uses[coding.token] = count
        elif self._is_kept(place, file) and self._pending_count < MAX_PENDING:
            file.uses[coding.token] = count  # `done` may be called at once
            self._make(place, file, coding)

    def _make(self, place: Place, file: StaticFile, coding: Coding) -> None:
        """Compress a file on the helper thread."""

        def done(made: StaticFile | None) -> None:
            self._pending_count -= 1
            if made is not None and self._is_kept(place, file):
                sibling = Sibling(coding.token, b"", file.identity, made.size)
                sibling.file, sibling.is_made = made, True
                file.siblings += (sibling,)
                self._keep(place, file)

        self._pending_count += 1
        if not self._run(lambda: compress(file, coding, self._shelf.clock), done):
            self._pending_count -= 1
            file.uses[coding.token] = 0


def compress(file: StaticFile, coding: Coding, clock: Callable[[], float]) -> StaticFile | None:
    """A file in a coding, in memory; None where it does not pay, or the file changes meanwhile. On a helper thread."""
    try:
        content = read_whole(file)
        if content is None:
            return None
        encoder = coding.encoder(len(content), quick=True)
        coded = encoder.compress(content) + encoder.flush()
        if len(coded) > WORTHWHILE * len(content):
            return None
        status = as_status(file)
        made = StaticFile(file.name, status, coded, None, clock(), coding=coding.token, varies=True)
        if len(coded) > MEMORY_FILE_SIZE:
            made.content, made.file = None, in_memory(coded)
            made.identity = identity_of(os.fstat(made.file.fd))
    except OSError:
        return None
    made.is_settled = True
    return made


def read_whole(file: StaticFile) -> bytes | None:
    """What a file holds, unless it is not the same any more. Raises OSError."""
    if file.content is not None or file.file is None:
        return file.content
    fd = file.file.fd
    content = bytearray()
    while piece := os.pread(fd, CHECKED_AT_ONCE_SIZE, len(content)):
        content += piece
    return bytes(content) if identity_of(os.fstat(fd)) == file.identity else None


def as_status(file: StaticFile) -> os.stat_result:
    """The status of a file as far as a StaticFile is made of it."""
    device, inode, size, mtime_ns, ctime_ns = file.identity
    seconds = mtime_ns // 1_000_000_000
    fields: tuple[Any, ...] = (0o100644, inode, device, 1, 0, 0, size, seconds, seconds, ctime_ns // 1_000_000_000)
    return os.stat_result(fields, {"st_mtime_ns": mtime_ns, "st_ctime_ns": ctime_ns})


def in_memory(content: bytes) -> OpenFile:
    """A file that exists in memory only. Raises OSError. memfd_create(2)"""
    file = OpenFile(os.memfd_create("epollwsgi-variant", os.MFD_CLOEXEC))
    file.warm = AlwaysWarm()
    view = memoryview(content)
    while view:
        view = view[os.write(file.fd, view) :]
    return file
