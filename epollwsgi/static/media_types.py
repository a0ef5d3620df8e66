"""What the name of a file says about it: its media type, how long it may be kept, whether it compresses.

Decisions in tables of our own, never the host's: the same file has the same type everywhere. Called by `static.cache`,
`static.replies` and the sub-command compress.
"""

from __future__ import annotations

import re
from typing import Final

UNKNOWN: Final = b"application/octet-stream"

# media type -> extensions. Types of `text/` get charset=utf-8 below; JSON is UTF-8 by definition (RFC 8259 section
# 8.1), and XML says its encoding itself.
TYPES: Final = {
    "text/html": "html htm",
    "text/css": "css",
    "text/javascript": "js mjs cjs",
    "text/plain": "txt text log conf ini",
    "text/markdown": "md markdown",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "text/calendar": "ics",
    "text/vcard": "vcf",
    "text/vtt": "vtt",
    "application/json": "json map",
    "application/ld+json": "jsonld",
    "application/geo+json": "geojson",
    "application/manifest+json": "webmanifest",
    "application/wasm": "wasm",
    "application/xml": "xml xsl xsd",
    "application/xhtml+xml": "xhtml xht",
    "application/rss+xml": "rss",
    "application/atom+xml": "atom",
    "application/pdf": "pdf",
    "application/rtf": "rtf",
    "application/epub+zip": "epub",
    "application/yaml": "yaml yml",
    "application/toml": "toml",
    "application/sql": "sql",
    "application/zip": "zip",
    "application/gzip": "gz tgz",
    "application/zstd": "zst",
    "application/x-bzip2": "bz2",
    "application/x-xz": "xz",
    "application/x-tar": "tar",
    "application/x-7z-compressed": "7z",
    "application/vnd.rar": "rar",
    "application/java-archive": "jar",
    "application/vnd.android.package-archive": "apk",
    "application/vnd.debian.binary-package": "deb",
    "application/x-rpm": "rpm",
    "application/vnd.apple.mpegurl": "m3u8",
    "application/dash+xml": "mpd",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/apng": "apng",
    "image/jpeg": "jpg jpeg jfif",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/jxl": "jxl",
    "image/heic": "heic",
    "image/bmp": "bmp",
    "image/tiff": "tif tiff",
    "image/x-icon": "ico",
    "font/woff2": "woff2",
    "font/woff": "woff",
    "font/ttf": "ttf",
    "font/otf": "otf",
    "font/collection": "ttc",
    "application/vnd.ms-fontobject": "eot",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg oga opus",
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "audio/midi": "mid midi",
    "audio/webm": "weba",
    "video/mp4": "mp4 m4v",
    "video/webm": "webm",
    "video/ogg": "ogv",
    "video/quicktime": "mov",
    "video/mp2t": "ts",
    "video/x-matroska": "mkv",
    "video/x-msvideo": "avi",
    "model/gltf+json": "gltf",
    "model/gltf-binary": "glb",
}

CHARSET: Final = "; charset=utf-8"

MEDIA_TYPES: Final[dict[bytes, bytes]] = {
    extension.encode("ascii"): (name + (CHARSET if name.startswith("text/") else "")).encode("ascii")
    for name, extensions in TYPES.items()
    for extension in extensions.split()
}

# What is text in all but name, or compresses like it.
TEXT_LIKE: Final = frozenset(
    b"application/json application/ld+json application/geo+json application/manifest+json application/wasm "
    b"application/xml application/xhtml+xml application/rss+xml application/atom+xml application/rtf application/yaml "
    b"application/toml application/sql application/vnd.apple.mpegurl application/dash+xml image/svg+xml image/bmp "
    b"font/ttf font/otf font/collection application/vnd.ms-fontobject model/gltf+json".split()
)
MIN_COMPRESSED_SIZE: Final = 512  # below it a packet is a packet

# Goes with every type: a browser must not guess another one.
NOSNIFF: Final = b"X-Content-Type-Options: nosniff\r\n"

NO_CACHE: Final = b"no-cache"
IMMUTABLE: Final = b"public, max-age=31536000, immutable"

# A build tool's hash of the content: 8 or more hex digits between `.` or `-`, at least one letter and one digit among
# them, so that neither a date (20240131) nor a word (deadbeef) is taken for one. Each run is read three times at most.
HASH_SEGMENT: Final = re.compile(
    rb"[.-](?=[0-9]*+[A-Fa-f])(?=[A-Fa-f]*+[0-9])[0-9A-Fa-f]{8,}+(?=[.-])",
)


def media_type(name: bytes) -> bytes:
    """Content-Type of a file of this name, by what follows its last dot, in any case."""
    _, dot, extension = name.rpartition(b".")
    return MEDIA_TYPES.get(extension.lower(), UNKNOWN) if dot else UNKNOWN


def cache_control(name: bytes) -> bytes:
    """Cache-Control of a file of this name: for ever where a hash of its content is part of it, else ask again.

    A page is never kept unasked, whatever its name: it is what leads to the names with new hashes.
    """
    if HASH_SEGMENT.search(name) is None or media_type(name).startswith(b"text/html"):
        return NO_CACHE
    return IMMUTABLE


def is_text_like(name: bytes) -> bool:
    """Whether a file of this name is worth compressing."""
    found = media_type(name).partition(b";")[0]
    return found.startswith(b"text/") or found in TEXT_LIKE


def is_compressible(name: bytes, size: int) -> bool:
    """Whether a coded copy of such a file is of use."""
    return size >= MIN_COMPRESSED_SIZE and is_text_like(name)
