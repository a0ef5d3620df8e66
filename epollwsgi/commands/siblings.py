"""Compressed copies beside the files they were made from: whether a server would send one, and whether it is right.

The first is the serving code's own rule; the second is looked at here alone, since a server has no time for it. Called
by `commands.check` and `commands.compress`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from epollwsgi.codings import PIECE_SIZE, Coding, Corrupt
from epollwsgi.static.beneath import OpenFile, Root
from epollwsgi.static.siblings import sibling_fault


def read_pieces(fd: int, size: int) -> Iterator[bytes]:
    """The content of a file from its start, in pieces of `size` bytes. Raises OSError."""
    position = 0
    while piece := os.pread(fd, size, position):
        position += len(piece)
        yield piece


def describe_sibling(root: Root, source: bytes, sibling: bytes, coding: Coding, *, decode: bool) -> str:
    """What is wrong with a copy, in words that go on after its name, or ''.

    source, sibling: paths below the root.  decode: compare its content with the file's too, where a library is there.
    """
    try:
        source_file, sibling_file = OpenFile(root.open(source)), OpenFile(root.open(sibling))
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    fault = sibling_fault(
        source_file.fd, os.fstat(source_file.fd), sibling_file.fd, os.fstat(sibling_file.fd), coding.suffix
    )
    if fault or not decode or coding.library() is None:
        return fault
    return describe_difference(source_file.fd, sibling_file.fd, coding)


def describe_difference(source_fd: int, sibling_fd: int, coding: Coding) -> str:
    """'' where the copy decodes to exactly the file. Stops at the first difference: a few bytes may decode to many."""
    position = 0
    size = os.fstat(source_fd).st_size
    try:
        for piece in coding.decode(read_pieces(sibling_fd, PIECE_SIZE // 16)):
            if os.pread(source_fd, len(piece), position) != piece:
                return "does not hold its source"
            position += len(piece)
    except Corrupt as error:
        return f"is corrupt ({error})"
    return "" if position == size else "does not hold its source"
