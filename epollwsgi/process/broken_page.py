"""What `--reload` serves while the application cannot be loaded, or is not ready: a page that says why, at every path.

The page asks now and then whether the server still answers with this failure, by a field of the response, and loads
itself again once it does not. Knows only the failure's text. For development: it shows code to whoever asks.
"""

from __future__ import annotations

import html
import re
import traceback
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

CANNOT_BE_LOADED: Final = "The application cannot be loaded"
IS_NOT_READY: Final = "The application is not ready"
FIELD: Final = "Epollwsgi-Broken"
VARIABLE: Final = "HTTP_EPOLLWSGI_BROKEN"
FRAME: Final = re.compile(r'^[ |]*File "(?P<file>.+)", line (?P<line>\d+)', re.MULTILINE)
LIBRARY: Final = re.compile(r"/(?:site|dist)-packages/|/lib/python\d")
UNINDENTED: Final = re.compile(r"^[^\s|+].*", re.MULTILINE | re.DOTALL)  # what stands behind the frames
SHOWN_FRAME: Final = re.compile(r"File &quot;.+?&quot;, line \d+")
# Everything the page needs is in it, and nothing of the message can become code.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"

STYLE: Final = """\
:root{color-scheme:light dark;--paper:#fbfaf8;--ink:#1f2328;--soft:#656d76;--card:#fff;--line:#e3e0da;--mark:#c62f2f}
@media(prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#e4e7eb;--soft:#98a2ad;--card:#1c2026;--line:#2e343c;\
--mark:#ff7b72}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,sans-serif;border-top:4px solid \
var(--mark)}
main{max-width:62rem;margin:0 auto;padding:6vh 1.5rem 3rem}
h1{font-size:1.5rem;line-height:1.3;margin:.2rem 0 .6rem;white-space:pre-wrap;overflow-wrap:anywhere}
p{margin:.3rem 0;overflow-wrap:anywhere}
code,pre{font:.86rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{margin:1.6rem 0;padding:1rem 1.2rem;background:var(--card);border:1px solid var(--line);border-radius:10px;\
overflow-x:auto;tab-size:4}
b{color:var(--mark);font-weight:600}
.soft{color:var(--soft)}"""

# A proxy's own refusals say nothing about the code. Only GET is repeated: the rest is for its sender to send again.
SCRIPT: Final = """\
const note = document.getElementById("note")
async function look() {
  try {
    const answer = await fetch(location.pathname + location.search,
      {method: "HEAD", cache: "no-store", redirect: "manual", headers: {"%(field)s": "%(mark)s"}})
    const isProxy = answer.status > 501 && answer.status < 505
    if (!isProxy && answer.headers.get("%(field)s") !== "%(mark)s") {
      if (%(is_get)s) return location.reload()
      note.textContent = "The code has changed: send the request again."
      return
    }
  } catch {}
  setTimeout(look, 500)
}
setTimeout(look, 500)"""

PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(title)s</title>
%(refresh)s<style>
%(style)s
</style>
</head>
<body>
<main>
<p class="soft">%(what)s</p>
<h1>%(error)s</h1>
%(place)s%(details)s<p class="soft" id="note">%(note)s</p>
</main>
<script>
%(script)s
</script>
</body>
</html>
"""
REFRESH: Final = '<noscript><meta http-equiv="refresh" content="2"></noscript>\n'
NOTES: Final = {
    True: "This page reloads itself when the code is mended.",
    False: "Send the request again when the code is mended.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """A message taken apart. error: the exception's own words.  place: file and line, or ''."""

    what: str
    error: str
    place: str
    traceback: str


def parse_failure(message: str, what: str = CANNOT_BE_LOADED) -> Failure:
    """What the importer says: a line that tells what failed and a traceback, or one of the two.

    Of the exception that was raised last, the place is where the author's own code left it.  what: has happened.
    """
    message = message.strip("\n")
    if "Traceback (most recent call last)" not in message and not FRAME.search(message):
        return Failure(f"{what}.", message, "", "")
    first, _, rest = message.partition("\n")
    is_headed = not first.lstrip().startswith(("Traceback", "File", "+ Exception Group"))
    frames = list(FRAME.finditer(message, max(message.rfind("Traceback (most recent call last)"), 0)))
    own = [frame for frame in frames if not LIBRARY.search(frame["file"])]
    place = next((f"{frame['file']}, line {frame['line']}" for frame in reversed(own or frames)), "")
    found = UNINDENTED.search(message, frames[-1].end() if frames else 0)
    error = found[0] if found else message.splitlines()[-1].strip(" |")
    return Failure(f"{what}: {first}" if is_headed else f"{what}.", error, place, rest if is_headed else message)


def mark_frame(match: re.Match[str]) -> str:
    """The author's own code stands out."""
    return f'<span class="soft">{match[0]}</span>' if LIBRARY.search(match[0]) else f"<b>{match[0]}</b>"


def build_page(message: str, mark: str, is_get: bool, what: str) -> bytes:
    """The page.  is_get: it may be asked for again without harm."""
    failure = parse_failure(message, what)
    frames = SHOWN_FRAME.sub(mark_frame, html.escape(failure.traceback))
    page = PAGE % {
        "what": html.escape(failure.what),
        "error": html.escape(failure.error),
        "title": html.escape(failure.error.partition("\n")[0]),
        "place": f"<p>in <code>{html.escape(failure.place)}</code></p>\n" if failure.place else "",
        "details": f"<pre>{frames}</pre>\n" if frames else "",
        "note": NOTES[is_get],
        "refresh": REFRESH if is_get else "",
        "style": STYLE,
        "script": SCRIPT % {"field": FIELD, "mark": mark, "is_get": "true" if is_get else "false"},
    }
    return page.encode("utf-8", "replace")


def broken_application(message: str, what: str = CANNOT_BE_LOADED) -> Application:
    """Answers everything with 500 and the page.  message: as an operator gets it, traceback included."""
    mark = f"{zlib.crc32(message.encode('utf-8', 'surrogatepass')):08x}"
    pages = {is_get: build_page(message, mark, is_get, what) for is_get in NOTES}

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if VARIABLE in environ:  # the page asks whether it is outdated; an error would fill the browser's console
            start_response("204 No Content", [("Cache-Control", "no-store"), (FIELD, mark)])
            return []
        page = pages[environ["REQUEST_METHOD"] in ("GET", "HEAD")]
        fields = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            (FIELD, mark),
        ]
        start_response("500 Internal Server Error", fields)
        return [page]

    return application


class Replaceable:
    """An application that has to show that it is ready. Where it does not, `application` becomes the page.

    traceback: of the exception that it raised last.
    """

    def __init__(self, application: Application) -> None:
        self.application = application
        self.traceback = ""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            return self.application(environ, start_response)
        except Exception as error:
            frames = error.__traceback__ and error.__traceback__.tb_next  # without this one
            self.traceback = "".join(traceback.format_exception(type(error), error, frames))
            raise
