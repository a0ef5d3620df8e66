"""Content codings of files: their names, the suffix of a file that holds one, and the libraries that know them.

Optional libraries are imported here and nowhere else, when a coding is first used; gzip is always there. Knows bytes,
no files. Called by the sub-commands, and by whatever compresses while serving.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol

# From this size on the best levels take too long: about 2 s of CPU time per MiB with brotli.
LARGE_SIZE: Final = 16 * 1024 * 1024
PIECE_SIZE: Final = 64 * 1024
# Browsers refuse a zstd frame that needs a window of more than 8 MiB. RFC 9659 section 3.
ZSTD_WINDOW_LOG: Final = 23
GZIP_WBITS: Final = 31  # zlib's way to say gzip, with the largest window


class Encoder(Protocol):
    """Takes the pieces of a content one after the other."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Decoder(Protocol):
    """The way back; `eof` once the coded content is complete, `unused_data` is what came behind it."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


class Corrupt(Exception):
    """What should be a coded content is none; the message says why."""


class BrotliEncoder:
    """brotli's Compressor under the names of the others."""

    def __init__(self, library: Any, level: int) -> None:
        compressor = library.Compressor(quality=level)
        self.compress: Callable[[bytes], bytes] = compressor.process
        self.flush: Callable[[], bytes] = compressor.finish


class BrotliDecoder:
    """brotli's Decompressor under the names of the others; it refuses bytes behind the end by itself."""

    unused_data = b""

    def __init__(self, library: Any) -> None:
        self._decompressor = library.Decompressor()
        self.eof = False

    def decompress(self, data: bytes, /) -> bytes:
        decoded: bytes = self._decompressor.process(data)
        self.eof = bool(self._decompressor.is_finished())
        return decoded


def zstd_encoder(library: Any, level: int) -> Encoder:
    """An encoder of zstandard, or of compression.zstd, which is the standard library's."""
    compressor = library.ZstdCompressor(level=level)
    encoder: Encoder = compressor.compressobj() if hasattr(compressor, "compressobj") else compressor
    return encoder


def zstd_decoder(library: Any) -> Decoder:
    """The same for decoding, with the window that browsers allow."""
    if hasattr(library, "DecompressionParameter"):
        options = {library.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        decoder: Decoder = library.ZstdDecompressor(options=options)
    else:
        decoder = library.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG).decompressobj()
    return decoder


@dataclass(frozen=True, slots=True)
class Coding:
    """One coding: its token in Content-Encoding, its suffix, the modules that may know it, its levels.

    package: what to install where none of the modules is there.
    levels: the best that browsers can read, one for contents from LARGE_SIZE on, one for use while serving.
    is_repeatable: a file may hold several complete contents one behind the other. RFC 8878 section 3.
    """

    token: str
    suffix: bytes
    libraries: tuple[str, ...]
    package: str
    levels: tuple[int, int, int]
    new_encoder: Callable[[Any, int], Encoder]
    new_decoder: Callable[[Any], Decoder]
    error_name: str
    is_repeatable: bool = False

    def library(self) -> Any:
        """The first module of `libraries` that can be imported, or None."""
        return import_first(self.libraries)

    def encoder(self, size: int, *, quick: bool = False) -> Encoder:
        """An encoder for a content of about `size` bytes. The library must be there."""
        best, large, serving = self.levels
        return self.new_encoder(self.library(), serving if quick else large if size >= LARGE_SIZE else best)

    def decode(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The decoded content, piece by piece. Raises Corrupt. The library must be there."""
        library = self.library()
        error: type[Exception] = getattr(library, self.error_name)
        decoder = self.new_decoder(library)
        is_begun = False
        try:
            for piece in pieces:
                data = piece
                while data:
                    if decoder.eof:
                        if not self.is_repeatable:
                            raise Corrupt("bytes follow its end")
                        decoder = self.new_decoder(library)
                    yield decoder.decompress(data)
                    is_begun = True
                    data = decoder.unused_data if decoder.eof else b""
        except error as problem:
            raise Corrupt(" ".join(str(problem).split()) or "it cannot be decoded") from None
        if not is_begun or not decoder.eof:
            raise Corrupt("it ends too early")


@cache
def import_first(names: tuple[str, ...]) -> Any:
    """The first of these modules that is there, or None."""
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


# The best first: at equal size of the result this order decides.
CODINGS: Final = (
    Coding("br", b".br", ("brotli", "brotlicffi"), "brotli", (11, 9, 5), BrotliEncoder, BrotliDecoder, "error"),
    Coding(
        "zstd",
        b".zst",
        ("compression.zstd", "zstandard", "backports.zstd"),
        "zstandard",
        (19, 12, 6),
        zstd_encoder,
        zstd_decoder,
        "ZstdError",
        is_repeatable=True,
    ),
    Coding(
        "gzip",
        b".gz",
        ("zlib",),
        "",
        (9, 9, 6),
        lambda library, level: zlib.compressobj(level, zlib.DEFLATED, GZIP_WBITS),
        lambda library: zlib.decompressobj(GZIP_WBITS),
        "error",
    ),
)
SUFFIXES: Final = {coding.suffix: coding for coding in CODINGS}


def available() -> tuple[Coding, ...]:
    """The codings whose library is installed."""
    return tuple(coding for coding in CODINGS if coding.library() is not None)


def coding_of(name: bytes) -> Coding | None:
    """The coding that the end of a file name stands for."""
    stem, dot, suffix = name.rpartition(b".")
    return SUFFIXES.get(dot + suffix) if stem else None
