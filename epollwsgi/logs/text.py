"""Text that clients or applications have chosen, made fit for a line of the access log. Pure."""

from __future__ import annotations

import binascii
import re

NONE = "-"
UNSAFE_ATOM = re.compile(r'[\x00-\x1f\x7f-\x9f"\\]')
SAFE_BYTES = bytes(code for code in range(256) if not UNSAFE_ATOM.match(chr(code)))


def escape_match(match: re.Match[str]) -> str:
    """A character as \\xHH."""
    return f"\\x{ord(match[0]):02x}"


def escape_atom(text: str) -> str:
    """Control characters, quotes and backslashes as \\xHH."""
    return UNSAFE_ATOM.sub(escape_match, text)


def is_safe(text: str) -> bool:
    """True if nothing in it must be escaped; quick for all that HTTP knows."""
    try:
        return not text.encode("latin-1").translate(None, SAFE_BYTES)
    except UnicodeEncodeError:
        return not UNSAFE_ATOM.search(text)


def escape_all(texts: list[str], repeat: bool = True) -> list[str]:
    """Each escaped; one look at all of them where nothing has to be. repeat: most are the same objects again."""
    if is_safe("".join(set(texts) if repeat else texts)):
        return texts
    escaped = {text: escape_atom(text) for text in set(texts)}
    return [escaped[text] for text in texts]


def show_object(value: object) -> str:
    """str() of what an application put into environ; a plain str, whatever it is."""
    try:
        return str.__str__(str(value))
    except Exception:
        return NONE


def read_user(field: object) -> str:
    """The name in an Authorization field, or `-`."""
    scheme, _, credentials = str(field).partition(" ")
    if scheme.lower() != "basic":
        return NONE
    try:
        decoded = binascii.a2b_base64(credentials.strip().encode("latin-1"))
        return decoded.partition(b":")[0].decode("utf-8") or NONE
    except (ValueError, UnicodeError):
        return NONE
