"""In which line of a settings file each setting stands, so that a mistake can be pointed at.

tomllib gives values without their lines. The lines that look like keys are therefore renamed, each by its own number,
and the text is parsed a second time: a line is believed only where the parser found it to be a key of that very table,
never for what it looks like. Where there is a doubt no line is told. Pure; called by `config.toml_file` and
`config.load`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Lines = Mapping[str, Sequence[int]]  # name of a setting -> the line of its key, then of each of its items

MARK: Final = "-epollwsgi-line-"
KEY: Final = r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'"""
KEY_LINE: Final = re.compile(rf"[ \t]*(?P<key>{KEY})[ \t]*[=.]")
HEADER_LINE: Final = re.compile(rf"[ \t]*\[\[?[ \t]*(?P<keys>(?:{KEY})(?:[ \t]*\.[ \t]*(?:{KEY}))*)[ \t]*\]")
# What an array is made of, once the parser has found it to be one: strings of four kinds, comments, the rest.
TOKEN: Final = re.compile(
    r'''"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|#[^\n]*|\s+|[][{},]|[^][{},\s"'#]+''',
    re.DOTALL,
)
BINDS_ANYTHING: Final = ("*", "exec", "globals", "locals", "vars")
MARKED: Final = re.compile(rf"(?s)(?P<name>.*){MARK}(?P<line>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Source:
    """Where settings come from, as operators are told: `label`, or `path:LINE` for what `lines` knows."""

    label: str
    path: str = ""
    lines: Lines = field(default_factory=dict)

    def place(self, name: str, item: int = -1) -> str:
        """Where a setting stands, or one of its items."""
        known = self.lines.get(name, ())
        if not known:
            return self.label
        return f"{self.path}:{known[item + 1 if item + 1 < len(known) else 0]}"


# --- TOML -----------------------------------------------------------------------------------------------------------


def toml_lines(text: str, section: Sequence[str]) -> Lines:
    """The lines of the keys in one table of a TOML file that can be parsed.  section: the names that lead to it."""
    import tomllib

    if MARK in text:
        return {}
    rows = text.split("\n")
    marked = "\n".join(mark_row(row, number, section) for number, row in enumerate(rows, 1))
    try:
        table: Any = tomllib.loads(marked)
    except tomllib.TOMLDecodeError:
        return {}
    for name in section:
        table = table.get(name) if isinstance(table, Mapping) else None
    found: dict[str, list[tuple[int, object]]] = {}
    for key, value in (table if isinstance(table, Mapping) else {}).items():
        if match := MARKED.fullmatch(key):
            found.setdefault(match["name"], []).append((int(match["line"]), value))
    return {name: [min(line for line, _ in parts), *item_lines(parts, rows)] for name, parts in found.items()}


def mark_row(row: str, number: int, section: Sequence[str]) -> str:
    """A row whose key, or whose part of a header below the section, carries the number of the row."""
    if match := KEY_LINE.match(row):
        start, end = match.span("key")
    elif match := HEADER_LINE.match(row):
        keys = list(re.finditer(KEY, match["keys"]))
        if len(keys) <= len(section) or [key[0].strip("\"'") for key in keys[: len(section)]] != list(section):
            return row
        start, end = (match.start("keys") + place for place in keys[len(section)].span())
    else:
        return row
    at = end - (row[start] in "\"'")  # before the quote that closes the name
    return f"{row[:at]}{MARK}{number}{row[at:]}"


def item_lines(parts: Sequence[tuple[int, object]], rows: Sequence[str]) -> list[int]:
    """The lines of a setting's items, where it is an array, a table of them or a list of tables.

    parts: key lines and values.  rows: the lines of the file.
    """
    parts = sorted(parts, key=lambda part: part[0])
    if len(parts) == 1 and isinstance(value := parts[0][1], list) and rows[parts[0][0] - 1].lstrip()[:1] != "[":
        return array_lines(rows, parts[0][0], len(value)) if all(map(is_one_item, value)) else []
    if all(isinstance(value, list) and len(value) == 1 for _, value in parts):
        return [line for line, _ in parts]
    if not all(isinstance(value, Mapping) for _, value in parts):
        return []
    return [
        int(match["line"]) if (match := MARKED.fullmatch(key)) else line
        for line, value in parts
        if isinstance(value, Mapping)
        for key in value
    ]


def is_one_item(value: object) -> bool:
    """False for a text that may stand for several items, or for none."""
    return not isinstance(value, str) or ("," not in value and value.strip() != "")


def array_lines(rows: Sequence[str], line: int, count: int) -> list[int]:
    """The line of each of the `count` items of an array whose key stands in a line, which nothing but it begins."""
    rest = "\n".join((KEY_LINE.sub("", rows[line - 1], count=1), *rows[line:]))
    found: list[int] = []
    depth, is_next = 0, False
    for match in TOKEN.finditer(rest):
        token = match[0]
        if token[0].isspace() or token[0] == "#":
            line += token.count("\n")
            continue
        if is_next and token != "]":
            found.append(line)
        line += token.count("\n")
        depth += (token in "[{") - (token in "]}")
        is_next = depth == 1 and token in "[,"
        if not depth:
            break
    return found if len(found) == count else []


# --- Python ---------------------------------------------------------------------------------------------------------


def python_lines(text: str) -> Lines:
    """The line that gave each name of a Python file its value, for names that can have got it in one place only."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return {}
    lines: dict[str, list[int]] = {}
    for statement in tree.body:
        is_plain = isinstance(statement, ast.Assign | ast.AnnAssign)
        for name, line in bound_names(statement):
            if name in BINDS_ANYTHING:
                return {}
            if is_plain or name not in lines:
                lines[name] = [line, *element_lines(statement)]
            else:
                lines[name] = []  # this value, or the one before
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return {name: found[:1] if name in used else found for name, found in lines.items() if found}  # bind.insert(0, x)


def element_lines(statement: ast.stmt) -> list[int]:
    """The lines of the items of a list that a single name is given, each written out as one text."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign) or not isinstance(statement.value, ast.List | ast.Tuple):
        return []
    if isinstance(statement, ast.Assign) and not all(isinstance(target, ast.Name) for target in statement.targets):
        return []
    items = statement.value.elts
    is_plain = all(isinstance(item, ast.Constant) and is_one_item(item.value) for item in items)
    return [item.lineno for item in items] if is_plain else []


def bound_names(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of a module that a statement may give a value to, and uses of what can bind any name."""
    is_scope = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name, node.lineno
    elif isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Store | ast.Del) or node.id in BINDS_ANYTHING:
            yield node.id, node.lineno
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name.partition(".")[0]), node.lineno
    elif isinstance(node, ast.Global):
        yield from ((name, node.lineno) for name in node.names)
    inner = [found for child in ast.iter_child_nodes(node) for found in bound_names(child)]
    if is_scope:  # names of its own, but for those that it declares global
        outside = {name for found in ast.walk(node) if isinstance(found, ast.Global) for name in found.names}
        inner = [(name, line) for name, line in inner if name in outside or name in BINDS_ANYTHING]
    yield from inner
