"""The tree of files that the rows of table.py ask for, built anew in any directory: `build_tree`.

It holds what STATIC.md calls the fixture, and a file or link for each kind that a statement names. What must never be
sent contains the word in SECRET.
"""

from __future__ import annotations

import base64
import gzip
import os
import time
from pathlib import Path

MODIFIED = 1_577_836_800  # 2020-01-01T00:00:00Z
LAST_MODIFIED = "Wed, 01 Jan 2020 00:00:00 GMT"
SECRET = b"secret"

A_TXT = bytes(32 + number % 95 for number in range(1000))
BIG = bytes(number * 7 % 251 for number in range(200_000))
P_JS = b"".join(
    b"export const message%d = 'the number is %d'; // one of forty lines that compress well\n" % (number, number)
    for number in range(40)
)
# Written once with the libraries, which a test machine need not have. Smallest is .br, then .zst, then .gz.
P_JS_BR = base64.b85decode(
    b"8(R(FodwRh!im+MVbPe!P9s#hDa$GQ4%=HDPLq&e5Y)*_zV+-d2AnSxfWOQ?*bM;Q)`x>bN-}METX>LgAX=n6;7WyZ4)!mGtG8c=e(RYg*^l3"
    b"<SC%I@ef)Q4qxVJj1GbD1kOE8zrGir<Y0zn7(!r*SOK%1DybL_zT}X*7rB-rlrH#66O*`6lb?FUQb6G+Qv8B{XZmqOYx2<VM+paFXfoiTwXd$+"
    b"gTFI@IHtM!D?P%N8ZFT"
)
P_JS_ZST = base64.b85decode(
    b"D77#BU|bBn1^~j#As29O4n%v?hXjeIs$&03OPi!*i1U9p;4vP;zjx=}+8O(Q`@0`LJVrz4_w1ZoGh_a3d)I>p$G8ygd+Xe`wv6q+_U`V+2;qCq"
    b"wZ_<Q?*dIDE1gqHkz*{APWdp6UXuhRnm{TaNCiQOV9?2^BoBvrR4!AXg$`0N=9G?3^MMeZBq*|EP^b}b_FnrP@O9P_U=a96(i(#Q9fE#UZF^xue"
    b"`CeMHhr5HTH6g<R2w&~@7vOEtXSw;kxY8iBvYGPYA-1&SWu)O;O>%uN(fU~1p"
)
P_JS_GZ = gzip.compress(P_JS, 9, mtime=0)
CSS = b"".join(b".rule-%d { margin: %dpx }\n" % (number, number) for number in range(30))
CSS_GZ = gzip.compress(CSS, 9, mtime=0)


def store_br(content: bytes) -> bytes:
    """A brotli stream that holds the content as it is, so that it is larger. RFC 7932 section 9.2."""
    return (((len(content) - 1) << 4) | 1 << 20).to_bytes(3, "little") + content + b"\x03"


TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "wasm": "application/wasm",
    "svg": "image/svg+xml",
    "webp": "image/webp",
    "avif": "image/avif",
    "woff2": "font/woff2",
    "woff": "font/woff",
    "ttf": "font/ttf",
    "otf": "font/otf",
    "webmanifest": "application/manifest+json",
    "xml": "application/xml",
    "txt": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "png": "image/png",
    "jpg": "image/jpeg",
    "gif": "image/gif",
    "ico": "image/x-icon",
    "pdf": "application/pdf",
    "zip": "application/zip",
    "gz": "application/gzip",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "wav": "audio/wav",
    "PNG": "image/png",
    "unheard-of": "application/octet-stream",
}

HEADERS = b"""\
# Comments and empty lines mean nothing.

/h/*
  X-Team: one
  Cache-Control: max-age=60
/h/deep/*
  X-Team: two
/h/:name/named.txt
  X-Name: found
/vary/*
  Vary: Origin
/no-transform.css
  Cache-Control: no-transform
"""
REDIRECTS = b"""\
# The first that matches wins.
/old /a.txt
/found /a.txt 302
/see /a.txt 303
/temporary /a.txt 307
/permanent /a.txt 308
/rewritten /a.txt 200
/taken-down /d/404.html 404
/first /a.txt 302
/first /about.html 302
/splat/* /d/:splat
/blog/:year/:slug /news/:slug/:year 302
/a.txt /about.html 302
/forced.txt /about.html 302!
/elsewhere https://other.example/start 302
/elsewhere/* https://other.example/:splat 302
/go/* /:splat 302
/with-query /a.txt?fixed=1 302
"""

FILES: dict[str, bytes] = {
    "a.txt": A_TXT,
    "empty": b"",
    "big.bin": BIG,
    "edge.bin": BIG[: 64 * 1024],
    "over.bin": BIG[: 64 * 1024 + 1],
    "p.js": P_JS,
    "p.js.br": P_JS_BR,
    "p.js.zst": P_JS_ZST,
    "p.js.gz": P_JS_GZ,
    # The .gz is the smaller one here, and the .br larger than the file.
    "q.css": CSS,
    "q.css.gz": CSS_GZ,
    "q.css.br": store_br(CSS),
    "newer.css": CSS,
    "newer.css.gz": CSS_GZ,
    "stale.css": CSS,
    "stale.css.gz": CSS_GZ,
    "stale.css.br": store_br(CSS),
    "wrong.css": CSS,
    "wrong.css.gz": gzip.compress(CSS[::-1], mtime=0),
    "cut.css": CSS,
    "cut.css.gz": CSS_GZ[:-5],
    "directory.css": CSS,
    "directory.css.gz/x": b"x",
    "fifo.css": CSS,
    "linked.css": CSS,
    "vary/p.js": P_JS,
    "vary/p.js.gz": P_JS_GZ,
    "no-transform.css": CSS,
    "index.html": b"<title>start</title>",
    "about.html": b"<title>about</title>",
    "404.html": b"<title>lost</title>",
    "d/index.html": b"<title>d</title>",
    "d/b.txt": b"b",
    "d/404.html": b"<title>lost in d</title>",
    "d/e/c.txt": b"c",
    "l/x.txt": b"x",
    "l/<b>&\"'.txt": b"odd",
    "l/sub/y.txt": b"y",
    "l/.dot": SECRET,
    "both": b"exact",
    "both.html": b"page",
    "m/index.html": b"directory",
    "m.html": b"page beside a directory",
    "sp ace/index.html": b"<title>sp ace</title>",
    "\\evil.example/index.html": b"<title>an odd name</title>",
    "evil.example/index.html": b"<title>a name that looks like a host</title>",
    "crlf\r\nSet-Cookie: x=1/index.html": b"<title>a name with a line break</title>",
    "100%41.txt": b"percent",
    "gr\u00fcn.txt": b"green",
    "app.3f2a1b9c.js": b"let app;",
    "style-0a1b2c3d4e5f.css": b"a{}",
    "app.20240131.js": b"let date;",
    "app.deadbeef.js": b"let word;",
    "app.3f2a1b9.js": b"let seven;",
    "page.3f2a1b9c.html": b"<title>hashed</title>",
    "h/x.txt": b"x",
    "h/deep/x.txt": b"x",
    "h/any/named.txt": b"x",
    "forced.txt": b"overridden",
    "zero.txt": b"packed into an image",
    "one.txt": b"packed into an image",
    "future.txt": b"from a clock that is ahead",
    ".env": SECRET,
    ".git/config": SECRET,
    ".git/404.html": SECRET,
    "d/.hidden": SECRET,
    ".well-known/security.txt": b"Contact: x",
    ".well-known/.secret": SECRET,
    "d/.well-known/x": SECRET,
    "_headers": HEADERS,
    "_redirects": REDIRECTS,
    "d/_headers": SECRET,
    "epollwsgi.toml": SECRET,
    "gunicorn.conf.py": SECRET,
    "d/pyproject.toml": SECRET,
} | {f"types/f.{extension}": b"content" for extension in TYPES}

TIMES = {
    "stale.css.gz": MODIFIED - 1,
    "stale.css.br": MODIFIED - 0.001,
    "newer.css.gz": MODIFIED + 1,
    "zero.txt": 0,
    "one.txt": 1,
}
LINKS = {
    "link.txt": "d/../a.txt",
    "linked": "d",
    "out.txt": "../outside/secret.txt",
    "out": "../outside",
    "back.txt": "../{root}/a.txt",
    "absolute.txt": "{path}/a.txt",
    "dangling.txt": "nothing",
    "loop.txt": "loop.txt",
    "linked.css.gz": "../outside/linked.css.gz",
    "l/out": "../../outside",
}


def write(path: Path, content: bytes, modified: float = MODIFIED) -> None:
    """Write a file with a time of modification that is long past."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    modified_ns = round(modified * 1_000_000_000)
    os.utime(path, ns=(modified_ns, modified_ns))


def build_tree(root: Path) -> Path:
    """The tree below `root`, which is empty or does not exist, and a directory `outside` beside it."""
    outside = root.parent / "outside"
    write(outside / "secret.txt", SECRET)
    write(outside / "index.html", SECRET)
    write(outside / "linked.css.gz", CSS_GZ)
    for name, content in FILES.items():
        write(root / name, content, TIMES.get(name, MODIFIED))
    write(root / "future.txt", FILES["future.txt"], time.time() + 86_400)
    write(Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe.txt")), b"bytes")
    for name, target in LINKS.items():
        (root / name).symlink_to(target.format(root=root.name, path=root))
    for name in ("fifo", "fifo.css.gz"):
        os.mkfifo(root / name)
    return root
