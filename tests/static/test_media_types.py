"""static.media_types: Content-Type and Cache-Control by name. STATIC.md section 7."""

from __future__ import annotations

import re

import pytest

from epollwsgi.static.media_types import IMMUTABLE, MEDIA_TYPES, NO_CACHE, TYPES, UNKNOWN, cache_control, media_type


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"index.html", b"text/html; charset=utf-8"),
        (b"a.css", b"text/css; charset=utf-8"),
        (b"a.js", b"text/javascript; charset=utf-8"),
        (b"a.mjs", b"text/javascript; charset=utf-8"),
        (b"a.json", b"application/json"),
        (b"a.js.map", b"application/json"),
        (b"a.wasm", b"application/wasm"),
        (b"a.svg", b"image/svg+xml"),
        (b"a.webp", b"image/webp"),
        (b"a.avif", b"image/avif"),
        (b"a.woff2", b"font/woff2"),
        (b"a.woff", b"font/woff"),
        (b"a.ttf", b"font/ttf"),
        (b"a.otf", b"font/otf"),
        (b"a.webmanifest", b"application/manifest+json"),
        (b"a.xml", b"application/xml"),
        (b"a.txt", b"text/plain; charset=utf-8"),
        (b"a.md", b"text/markdown; charset=utf-8"),
        (b"a.csv", b"text/csv; charset=utf-8"),
        (b"a.png", b"image/png"),
        (b"a.jpg", b"image/jpeg"),
        (b"a.jpeg", b"image/jpeg"),
        (b"a.gif", b"image/gif"),
        (b"favicon.ico", b"image/x-icon"),
        (b"a.pdf", b"application/pdf"),
        (b"a.zip", b"application/zip"),
        (b"a.gz", b"application/gzip"),
        (b"a.tar.gz", b"application/gzip"),
        (b"p.js.gz", b"application/gzip"),
        (b"a.mp4", b"video/mp4"),
        (b"a.webm", b"video/webm"),
        (b"a.mp3", b"audio/mpeg"),
        (b"a.ogg", b"audio/ogg"),
        (b"a.wav", b"audio/wav"),
        (b"A.HTML", b"text/html; charset=utf-8"),
        (b"a.Png", b"image/png"),
        (b".txt", b"text/plain; charset=utf-8"),
        (b"\xff.css", b"text/css; charset=utf-8"),
        (b"LICENSE", UNKNOWN),
        (b"html", UNKNOWN),
        (b"a.", UNKNOWN),
        (b"a.unknown", UNKNOWN),
        (b"a.html~", UNKNOWN),
        (b"a.html ", UNKNOWN),
        (b"a.\xc3\xa9", UNKNOWN),
        (b"", UNKNOWN),
    ],
)
def test_media_type(name: bytes, expected: bytes) -> None:
    assert media_type(name) == expected


def test_the_table_is_sound() -> None:
    extensions = " ".join(TYPES.values()).split()
    assert len(extensions) == len(set(extensions)) == len(MEDIA_TYPES)
    for extension, name in MEDIA_TYPES.items():
        assert extension == extension.lower()
        assert re.fullmatch(rb"[a-z]+/[a-z0-9.+-]+(?:; charset=utf-8)?", name)
        assert name.startswith(b"text/") == name.endswith(b"; charset=utf-8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"app.3f2a1b9c.js", IMMUTABLE),
        (b"app-3f2a1b9c.css", IMMUTABLE),
        (b"app.3F2A1B9C.js", IMMUTABLE),
        (b"chunk-vendors.0a1b2c3d4e5f60718293.js", IMMUTABLE),
        (b"a.b-0123456a.c.woff2", IMMUTABLE),
        (b"app-3f2a1b9c-min.js", IMMUTABLE),
        (b"main.a1234567.js.map", IMMUTABLE),
        (b"app.js", NO_CACHE),
        (b"app.3f2a1b9.js", NO_CACHE),  # seven digits
        (b"app.12345678.js", NO_CACHE),  # no letter
        (b"photo-20240131.jpg", NO_CACHE),
        (b"word.deadbeef.js", NO_CACHE),  # no digit
        (b"app.3f2a1b9g.js", NO_CACHE),  # not hex
        (b"app_3f2a1b9c.js", NO_CACHE),  # not set off
        (b"app3f2a1b9c.js", NO_CACHE),
        (b"app.x3f2a1b9c.js", NO_CACHE),
        (b"3f2a1b9c.js", NO_CACHE),  # the name itself
        (b"app.3f2a1b9c", NO_CACHE),  # the extension itself
        (b"page.3f2a1b9c.html", NO_CACHE),  # never a page
        (b"page-3f2a1b9c.HTM", NO_CACHE),
    ],
)
def test_cache_control(name: bytes, expected: bytes) -> None:
    assert cache_control(name) == expected
