"""On which line of a TOML text each key stands; `tomllib` does not tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

KeyPath = tuple[str | int, ...]
"""Where a value stands: table names and keys, and the index in an array of tables: `("phase", 1, "count")`."""

_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_KEY: Final = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_PART: Final = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_STRINGS: Final = re.compile(r'"(?:\\.|[^"\\])*"|' + r"'[^']*'")


def line_numbers(text: str) -> Mapping[KeyPath, int]:
    """Line, from 1, of each table and key of a valid TOML text, as far as it is written in the usual ways."""
    found: dict[KeyPath, int] = {(): 1}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    depth = 0  # of brackets that are open at the beginning of a line
    quote = ""  # the kind of a text of several lines in which we are
    for number, line in enumerate(text.splitlines(), 1):
        if quote:
            if quote in line:
                quote = ""
            continue
        if depth == 0 and (header := _HEADER.match(line)):
            path = _under(counts, _parts(header[2]))
            if header[1] == "[[":
                index = counts.get(path, -1) + 1
                counts[path] = index
                found.setdefault(path, number)
                path = (*path, index)
            table = path
            found[table] = number
            continue
        if depth == 0 and (key := _KEY.match(line)):
            path = table
            for part in _parts(key[1]):
                path = (*path, part)
                found.setdefault(path, number)
            _inline(found, path, line[key.end() :], number)
        rest = _STRINGS.sub("", line) if '"""' not in line and "'''" not in line else line
        for mark in ('"""', "'''"):
            if rest.count(mark) % 2:
                quote = mark
        if not quote:
            rest = rest.partition("#")[0]
            depth = max(0, depth + rest.count("[") + rest.count("{") - rest.count("]") - rest.count("}"))
    return found


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of a path, or of the nearest table around it."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _parts(name: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(name)]


def _under(counts: Mapping[KeyPath, int], parts: list[str]) -> KeyPath:
    """The path of a table: what is below an array of tables belongs to its last entry."""
    path: KeyPath = ()
    for position, part in enumerate(parts):
        path = (*path, part)
        if path in counts and position < len(parts) - 1:
            path = (*path, counts[path])
    return path


def _inline(found: dict[KeyPath, int], path: KeyPath, rest: str, number: int) -> None:
    """Keys of an inline table on the same line."""
    if not rest.lstrip().startswith("{"):
        return
    for key in re.finditer(r"[{,]\s*([A-Za-z0-9_-]+)\s*=", _STRINGS.sub('""', rest)):
        found.setdefault((*path, key[1]), number)
