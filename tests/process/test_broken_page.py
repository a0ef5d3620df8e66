"""The page that --reload serves while the application cannot be loaded."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from epollwsgi.process.broken_page import broken_application, parse_failure

TRACEBACK = """\
importing site_app failed
Traceback (most recent call last):
  File "/srv/site_app.py", line 3, in <module>
    from parts import x
  File "/srv/parts/<odd>.py", line 7, in <module>
    x = "</script><script>alert(1)</script>" + y
NameError: name 'y' & <b> is not defined
"""
SYNTAX = """\
importing site_app failed
  File "/srv/site_app.py", line 3
    def (
        ^
SyntaxError: invalid syntax
"""
CHAINED = """\
calling site_app:create() failed
Traceback (most recent call last):
  File "/srv/one.py", line 1, in create
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/two.py", line 2, in create
ValidationError: 2 fields are wrong
  name
    is missing
a note
"""
LIBRARY = """\
importing site_app failed
Traceback (most recent call last):
  File "/srv/site_app.py", line 1, in <module>
    json.loads("")
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
    raise JSONDecodeError("Expecting value", s, err.value) from None
json.decoder.JSONDecodeError: Expecting value
"""
GROUP = """\
importing site_app failed
  + Exception Group Traceback (most recent call last):
  |   File "/srv/one.py", line 1, in <module>
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: a
    +------------------------------------
"""


@pytest.mark.parametrize(
    ("message", "error", "place"),
    [
        (TRACEBACK, "NameError: name 'y' & <b> is not defined", "/srv/parts/<odd>.py, line 7"),
        (SYNTAX, "SyntaxError: invalid syntax", "/srv/site_app.py, line 3"),
        (CHAINED, "ValidationError: 2 fields are wrong\n  name\n    is missing\na note", "/srv/two.py, line 2"),
        (LIBRARY, "json.decoder.JSONDecodeError: Expecting value", "/srv/site_app.py, line 1"),
        (
            LIBRARY.replace("/srv/", "/venv/lib/python3.11/site-packages/"),
            "json.decoder.JSONDecodeError: Expecting value",
            "/usr/lib/python3.11/json/decoder.py, line 355",
        ),
        ("site_app has no attribute app", "site_app has no attribute app", ""),
        (TRACEBACK.partition("\n")[2], "NameError: name 'y' & <b> is not defined", "/srv/parts/<odd>.py, line 7"),
        ("", "", ""),
    ],
    ids=["traceback", "syntax", "chained", "library", "all library", "short", "traceback only", "empty"],
)
def test_a_failure_is_taken_apart(message: str, error: str, place: str) -> None:
    failure = parse_failure(message)
    assert (failure.error, failure.place) == (error, place)
    assert "failed\n" not in failure.traceback


def test_a_group_of_exceptions_is_shown_whole() -> None:
    failure = parse_failure(GROUP)
    assert failure.place == "/srv/one.py, line 1"
    assert failure.traceback in GROUP
    assert "ValueError: a" in failure.traceback


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attributes if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        tag = self.tags[-1] if self.tags else ""
        self.texts[tag] = self.texts.get(tag, "") + data


def call(application: Any, method: str = "GET") -> tuple[str, dict[str, str], str]:
    """Status, fields and content."""
    answers: list[Any] = []
    body = application({"REQUEST_METHOD": method, "PATH_INFO": "/x"}, lambda *given: answers.append(given))
    [(status, fields)] = answers
    return status, dict(fields), b"".join(body).decode()


def test_the_page_of_a_broken_application() -> None:
    status, fields, text = call(broken_application(TRACEBACK))
    assert status == "500 Internal Server Error"
    assert fields["Content-Type"] == "text/html; charset=utf-8"
    assert fields["Cache-Control"] == "no-store"
    assert fields["Content-Length"] == str(len(text.encode()))
    page = Page(text)
    assert page.tags.count("script") == 1
    assert page.links == [], "a page without resources"
    assert page.texts["title"].strip() == page.texts["h1"].strip() == "NameError: name 'y' & <b> is not defined"
    assert "/srv/parts/<odd>.py, line 7" in page.texts["code"]
    assert "This page reloads itself when the code is mended." in text
    assert fields["Epollwsgi-Broken"] in page.texts["script"]
    assert "alert(1)" not in page.texts["script"]
    assert "importing site_app failed" in text
    for line in TRACEBACK.splitlines()[1:]:
        words = line.split("File")[0].strip()
        assert words in "".join(page.texts.values())


def test_each_failure_has_a_mark_of_its_own() -> None:
    """By it the page learns that another failure is to be shown."""
    marks = [call(broken_application(text))[1]["Epollwsgi-Broken"] for text in (TRACEBACK, SYNTAX, TRACEBACK)]
    assert marks[0] == marks[2] != marks[1]


def test_a_page_may_ask_whether_it_is_outdated() -> None:
    """Without an error, which a browser would note each time."""
    application = broken_application(SYNTAX)
    answers: list[Any] = []
    environ = {"REQUEST_METHOD": "HEAD", "PATH_INFO": "/x", "HTTP_EPOLLWSGI_BROKEN": "0"}
    assert list(application(environ, lambda *given: answers.append(given))) == []
    [(status, fields)] = answers
    assert status == "204 No Content"
    assert dict(fields)["Epollwsgi-Broken"] == call(application)[1]["Epollwsgi-Broken"]


def test_only_what_was_got_is_got_again() -> None:
    application = broken_application(SYNTAX)
    assert "location.reload()" in call(application)[2]
    assert "if (true) return location.reload()" in call(application, "HEAD")[2]
    _, _, text = call(application, "POST")
    assert "if (true)" not in text
    assert "http-equiv" not in text
    assert "Send the request again" in text


def test_a_message_with_any_characters_is_shown() -> None:
    _, fields, text = call(broken_application("100 % of it: %(mark)s \udcff \x00 \u2028"))
    assert "100 % of it: %(mark)s" in text
    assert fields["Content-Length"] == str(len(text.encode()))
