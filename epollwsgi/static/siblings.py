"""Files that lie beside another one and hold it in a content coding: `app.js.br`, `app.js.zst`, `app.js.gz`.

Knows which there are and whether they hold what their source does; not which one a client gets. STATIC.md section 5.
Called by `static.shelf`, `static.variants` and the sub-commands check and compress.
"""

from __future__ import annotations

import os
import stat
import zlib
from typing import Final

from epollwsgi.codings import CODINGS, coding_of
from epollwsgi.static.cache import Identity, Sibling, identity_of

# A gzip member's header and trailer at their least, RFC 1952 section 2.3: ID1 ID2 CM, then CRC32 and ISIZE at the end.
GZIP_MAGIC: Final = b"\x1f\x8b\x08"
GZIP_LEAST_SIZE: Final = 18
TRAILER_SIZE: Final = 8
PIECE_SIZE: Final = 1 << 20

OLDER: Final = "is older than its source"
NO_FILE: Final = "is no regular file"
CUT: Final = "is no gzip file, or ends too early"
OTHER: Final = "its CRC-32 or length is not that of its source"

SUFFIX_OF: Final = {coding.token: coding.suffix for coding in CODINGS}
Neighbours = tuple[tuple[str, Identity], ...]


def may_have_siblings(name: bytes) -> bool:
    """False for what is itself a sibling by its name: there is no app.js.gz.br."""
    return coding_of(name) is None


def look_beside(directory_fd: int, name: bytes) -> tuple[list[tuple[str, os.stat_result]], bool]:
    """What lies beside a file under the name of a sibling, as (coding, status), and whether all that was told surely.

    Not surely: a link may come to lead to another file without any change beside it.
    """
    found: list[tuple[str, os.stat_result]] = []
    is_sure = True
    for token, suffix in SUFFIX_OF.items():
        beside = name + suffix
        # Mostly there is none, and an exception would cost more than the question.
        if not os.access(beside, os.F_OK, dir_fd=directory_fd, follow_symlinks=False):
            continue
        try:
            status = os.stat(beside, dir_fd=directory_fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                is_sure = False
                status = os.stat(beside, dir_fd=directory_fd)
            found.append((token, status))
        except OSError:
            continue
    return found, is_sure


def neighbours_of(found: list[tuple[str, os.stat_result]]) -> Neighbours:
    """What has to stay the same for a file's siblings to be the same."""
    return tuple((token, identity_of(status)) for token, status in found)


def choose_siblings(
    name: bytes, source: os.stat_result, found: list[tuple[str, os.stat_result]]
) -> tuple[tuple[Sibling, ...], list[str]]:
    """The siblings that may be used, and a sentence about each other one."""
    siblings: list[Sibling] = []
    faults: list[str] = []
    for token, status in found:
        sibling_name = name + SUFFIX_OF[token]
        fault = status_fault(source, status)
        if fault:
            faults.append(f"{os.fsdecode(sibling_name)} is not used: {fault}")
        else:
            siblings.append(Sibling(token, sibling_name, identity_of(status), status.st_size))
    return tuple(siblings), faults


def status_fault(source: os.stat_result, sibling: os.stat_result) -> str:
    """Why a sibling cannot be used, as far as its status tells; '' if it can."""
    if not stat.S_ISREG(sibling.st_mode):
        return NO_FILE
    return OLDER if sibling.st_mtime_ns < source.st_mtime_ns else ""


def sibling_fault(
    source_fd: int, source: os.stat_result, sibling_fd: int, sibling: os.stat_result, suffix: bytes
) -> str:
    """Why a sibling is not used, '' if it is: what the server logs. Raises OSError."""
    fault = status_fault(source, sibling)
    if fault or suffix != b".gz":
        return fault
    return gzip_fault(read_gzip_ends(sibling_fd, sibling.st_size), *checksum_of_file(source_fd))


def read_gzip_ends(fd: int, size: int) -> bytes:
    """The first three and the last eight bytes of a file, b'' where it is too short to be a gzip file."""
    if size < GZIP_LEAST_SIZE:
        return b""
    return os.pread(fd, len(GZIP_MAGIC), 0) + os.pread(fd, TRAILER_SIZE, size - TRAILER_SIZE)


def gzip_ends(content: bytes) -> bytes:
    """The same of a content in memory."""
    return content[: len(GZIP_MAGIC)] + content[-TRAILER_SIZE:] if len(content) >= GZIP_LEAST_SIZE else b""


def gzip_fault(ends: bytes, checksum: int, size: int) -> str:
    """Whether a gzip file holds a content, judged by both its ends. RFC 1952 section 2.3.1."""
    if len(ends) != len(GZIP_MAGIC) + TRAILER_SIZE or not ends.startswith(GZIP_MAGIC):
        return CUT
    trailer = checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
    return "" if ends.endswith(trailer) else OTHER


def checksum_of_file(fd: int) -> tuple[int, int]:
    """CRC-32 and length of a whole file. Raises OSError."""
    checksum = offset = 0
    while piece := os.pread(fd, PIECE_SIZE, offset):
        checksum = zlib.crc32(piece, checksum)
        offset += len(piece)
    return checksum, offset
