"""All of gunicorn's atoms of a response by name, for handlers of `logging` that look at the arguments of a record.

Made only where a target asks for them (`AccessTarget.wants_atoms`): they cost a request as much as gunicorn's own log.
Pure; called by `access_log`.
"""

from __future__ import annotations

from collections.abc import Sequence

from epollwsgi.logs.format import ATOMS, EVERYTHING, Batch, Entry, Environ, Head, read_fields
from epollwsgi.logs.text import NONE, escape_atom, show_object

# Objects in environ of these types are shown; others may be large, or belong to a thread.
SHOWN = (str, int, float, bool, tuple, type(None))
NO_FIELDS = frozenset(("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"))
LINE = "line"


class Atoms(dict[str, object]):
    """Atoms by name; names in braces in any case, and `-` for one that there is not."""

    def __missing__(self, name: str) -> object:
        lower = name.lower() if name.startswith("{") else name
        return self[lower] if lower != name and lower in self else NONE


def capture_atoms(environ: Environ, head: Head | bytes) -> Atoms:
    """Those that come from fields and environ, escaped: what an entry must hold of them."""
    atoms = Atoms()
    for key, value in list(environ.items()):
        if isinstance(key, str) and isinstance(value, SHOWN):
            lower = key.lower()
            text = escape_atom(show_object(value))
            atoms[f"{{{lower}}}e"] = text
            if lower.startswith("http_") and key not in NO_FIELDS:
                atoms[f"{{{lower[5:].replace('_', '-')}}}i"] = text
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                atoms[f"{{{lower.replace('_', '-')}}}i"] = text
    for name, value in read_fields(head).items():
        atoms[f"{{{name.decode('latin-1')}}}o"] = escape_atom(value.decode("latin-1"))
    return atoms


def build_atoms(entries: Sequence[Entry], zero_s: float, lines: Sequence[str]) -> list[dict[str, object]]:
    """All atoms of each entry, and its finished line under the name `line`."""
    batch = Batch(entries, zero_s)
    columns = {name: atom.values(batch) for name, atom in ATOMS.items()}
    found: list[dict[str, object]] = []
    for number, entry in enumerate(entries):
        atoms = Atoms(entry[EVERYTHING])
        for name, values in columns.items():
            value = values if isinstance(values, str) else values[number]
            atoms[name] = escape_atom(value) if isinstance(value, str) and ATOMS[name].is_foreign else value
        atoms["s"], atoms["b"] = str(atoms["s"]), str(atoms["b"])
        atoms[LINE] = lines[number]
        found.append(atoms)
    return found
