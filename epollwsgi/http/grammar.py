"""The grammar of HTTP/1.1 messages: one pattern beside each rule, all linear in the length of their input.

Patterns are applied with `fullmatch` to one line without its CRLF. Optional white space is never matched beside
another optional run: values are captured whole and stripped of SP and HTAB afterwards. Who calls them: `head`, `body`,
`response`.

Only runs of single bytes are possessive (`[...]*+`), never groups: Python before 3.11.5 matches what such a group must
not (gh-106052). What a group can begin with is never in doubt, so that it has nothing to try again.
"""

from __future__ import annotations

import re

# token = 1*tchar. RFC 9110 section 5.6.2.
TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TOKEN = re.compile(TCHAR + rb"++")

# field-line = field-name ":" OWS field-value OWS; no CTL but HTAB. RFC 9112 section 5, RFC 9110 section 5.5.
# The value is captured with its white space. A line that begins with white space is obs-fold: its name is no token.
FIELD_LINE = re.compile(rb"(" + TCHAR + rb"++):([\t\x20-\x7e\x80-\xff]*+)")

# request-line = method SP request-target SP HTTP-version. RFC 9112 section 3.
REQUEST_LINE = re.compile(rb"(" + TCHAR + rb"++) ([\x21-\x7e]++) ([\x21-\x7e]++)")

# HTTP-version = "HTTP/" DIGIT "." DIGIT. RFC 9112 section 2.3. Major versions from 2 are known to be unknown.
VERSION_1 = re.compile(rb"HTTP/1\.([0-9])")
VERSION_LATER = re.compile(rb"HTTP/[2-9](?:\.[0-9])?")

# origin-form = absolute-path [ "?" query ]: printable ASCII without "#". RFC 9112 section 3.2.1.
ORIGIN_FORM = re.compile(rb"(/[!\"$->@-~]*+)(?:\?([!\"$-~]*+))?")
QUERY = re.compile(rb"[!\"$-~]*+")

# absolute-form = absolute-URI with the schemes of this server. RFC 9112 section 3.2.2.
ABSOLUTE_FORM = re.compile(rb"(?i:https?)://([^/?#]++)(/[!\"$->@-~]*+)?(?:\?([!\"$-~]*+))?")

# Host = uri-host [ ":" port ]. RFC 9110 section 7.2, RFC 3986 section 3.2.2: reg-name less the comma and the quote,
# which end one name and begin the next for whoever joins or quotes field values. An IPv6 address is checked further.
HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|((?:[A-Za-z0-9\-._~!$&()*+;=]++|%[0-9A-Fa-f]{2})*))(?::([0-9]*+))?")

# Content-Length = 1*DIGIT, here at most 19. RFC 9110 section 8.6.
CONTENT_LENGTH = re.compile(rb"[0-9]{1,19}")

# chunk-size [ chunk-ext ]. RFC 9112 section 7.1 and 7.1.1. White space stands only where the grammar has BWS.
_QUOTED = rb"\"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]++|\\[\t \x21-\x7e\x80-\xff])*\""
CHUNK_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"((?:[ \t]*+;[ \t]*+" + TCHAR + rb"++(?:[ \t]*+=[ \t]*+(?:" + TCHAR + rb"++|" + _QUOTED + rb"))?)*)"
)

# status-code SP [ reason-phrase ], as an application gives it. RFC 9112 section 4, PEP 3333.
STATUS = re.compile(r"([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*+)")
RESPONSE_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
RESPONSE_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*+")
