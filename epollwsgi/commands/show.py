"""How sub-commands put things for a person: findings, paths, sizes, numbers. Pure. Called by all of them."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One mistake: where, what it is, what to do about it. One line."""

    place: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}, {self.advice}"


def count_of(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def show_path(path: bytes) -> str:
    """A path on one line of a terminal: what cannot be printed stands there as an escape."""
    text = path.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(show_character, text))


def show_character(character: str) -> str:
    """A character, or its escape."""
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8, as surrogateescape has it
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character.isprintable() and character != "\\":
        return character
    return character.encode("unicode_escape").decode("ascii")


def show_size(size: float) -> str:
    """A size as a person reads it."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"
