"""epollwsgi.codings: every library under one interface, there and back."""

from __future__ import annotations

import gzip
from dataclasses import replace
from importlib.util import find_spec

import pytest

from epollwsgi.codings import CODINGS, Coding, Corrupt, available, coding_of
from tests.static.tools import make_noise, make_text


def each_library() -> list[Coding]:
    """Every coding with every library of it that is there."""
    found = []
    for coding in CODINGS:
        for name in coding.libraries:
            package = name.partition(".")[0]
            if find_spec(package) is not None and replace(coding, libraries=(name,)).library() is not None:
                found.append(replace(coding, libraries=(name,)))
    return found


every = pytest.mark.parametrize(
    "coding", each_library(), ids=lambda coding: "-".join((coding.token, *coding.libraries))
)


def encode(coding: Coding, content: bytes, piece_size: int = 1000) -> bytes:
    encoder = coding.encoder(len(content))
    pieces = [encoder.compress(content[i : i + piece_size]) for i in range(0, len(content), piece_size)]
    return b"".join(pieces) + encoder.flush()


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def test_gzip_is_always_there() -> None:
    assert "gzip" in [coding.token for coding in available()]
    assert len({coding.token for coding in CODINGS}) == len({coding.suffix for coding in CODINGS}) == len(CODINGS)


@every
@pytest.mark.parametrize(
    "content", [b"", b"x", make_text(100_000), make_noise(100_000)], ids=["0", "1", "text", "noise"]
)
def test_there_and_back(coding: Coding, content: bytes) -> None:
    coded = encode(coding, content)
    for size in (1, 7, 4096, len(coded)):
        if len(coded) // size < 20_000:
            assert b"".join(coding.decode(pieces_of(coded, size))) == content
    assert len(encode(coding, make_text(10_000))) < 5_000


@every
def test_the_same_content_gives_the_same_bytes(coding: Coding) -> None:
    text = make_text(10_000)
    assert encode(coding, text) == encode(coding, text)


@every
def test_what_is_cut_or_broken(coding: Coding) -> None:
    coded = encode(coding, make_text(20_000))
    for size in (0, 1, 2, 10, len(coded) // 2, len(coded) - 1):
        with pytest.raises(Corrupt, match=r".+"):
            list(coding.decode([coded[:size]]))
    for broken in (b"plain text is no coded content", b"\xff" * 100, b"\0" * 100):
        with pytest.raises(Corrupt):
            list(coding.decode([broken]))
    try:  # without a check sum a broken middle may decode to something, but not to the content
        found = b"".join(coding.decode([coded[:100] + b"\xff" * 50 + coded[150:]]))
    except Corrupt:
        found = b""
    assert found != make_text(20_000)


@every
def test_bytes_behind_the_end(coding: Coding) -> None:
    coded = encode(coding, b"content")
    for more in (b"x", b"\0" * 100):
        with pytest.raises(Corrupt):
            list(coding.decode([coded + more]))
        with pytest.raises(Corrupt):
            list(coding.decode([coded, more]))


@every
def test_several_contents_in_one(coding: Coding) -> None:
    twice = encode(coding, b"one,") + encode(coding, b"two")
    for size in (1, len(twice)):
        if coding.is_repeatable:
            assert b"".join(coding.decode(pieces_of(twice, size))) == b"one,two"
        else:
            with pytest.raises(Corrupt):
                list(coding.decode(pieces_of(twice, size)))


def test_gzip_is_that_of_others() -> None:
    coded = encode(CODINGS[-1], b"content")
    assert gzip.decompress(coded) == b"content"
    assert coded[4:8] == b"\0\0\0\0"  # no time, so that equal files give equal copies
    assert b"".join(CODINGS[-1].decode([gzip.compress(b"content")])) == b"content"


def test_no_more_window_than_browsers_have() -> None:
    """RFC 9659. The frame header of zstd says how much memory the decoder needs."""
    zstd = next(coding for coding in each_library() if coding.token == "zstd")
    library = zstd.library()
    if not hasattr(library, "ZstdCompressionParameters"):
        pytest.skip("zstandard is not installed")
    wide = library.ZstdCompressionParameters(window_log=25, write_content_size=False)
    encoder = library.ZstdCompressor(compression_params=wide).compressobj()
    coded = encoder.compress(make_noise(100_000)) + encoder.flush()
    with pytest.raises(Corrupt):
        list(zstd.decode([coded]))
    large = zstd.encoder(1)
    coded = b"".join(large.compress(bytes(1_000_000)) for _ in range(10)) + large.flush()
    assert sum(map(len, zstd.decode([coded]))) == 10_000_000


def test_names() -> None:
    found = {
        name: coding and coding.token
        for name in (b"a.js.gz", b"a.br", b"a.zst", b"a.js", b".gz", b"gz", b"a.GZ", b"a.")
        for coding in [coding_of(name)]
    }
    assert found == {
        b"a.js.gz": "gzip",
        b"a.br": "br",
        b"a.zst": "zstd",
        b"a.js": None,
        b".gz": None,
        b"gz": None,
        b"a.GZ": None,
        b"a.": None,
    }
