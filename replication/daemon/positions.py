"""On which line of a TOML file each setting stands; tomllib reads values and forgets places."""

from __future__ import annotations

import re
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""A place in a file: names of tables and keys, and numbers of tables in an array of them."""

_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(\.)?""")
_TOKEN = re.compile(r'"""|\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]')


def lines_of(text: str) -> dict[Path, int]:
    """The line of each table and key, from 1, in a text that tomllib has read without an error.

    A key inside of an inline table has none of its own: see `line_at`.
    """
    found: dict[Path, int] = {}
    table: Path = ()
    arrays: dict[Path, int] = {}
    for number, line in _statements(text):
        header = re.match(r"\s*(\[\[?)", line)
        if header:
            table = ()
            *outer, last = _names(line[header.end() :])
            for name in outer:
                table = (*table, name)
                found.setdefault(table, number)
                if table in arrays:
                    table = (*table, arrays[table])
            table = (*table, last)
            if header[1] == "[[":
                found.setdefault(table, number)
                arrays[table] = arrays.get(table, -1) + 1
                table = (*table, arrays[table])
            found.setdefault(table, number)
        else:
            place = table
            for name in _names(line):
                place = (*place, name)
                found.setdefault(place, number)
    return found


def line_at(lines: dict[Path, int], place: Path) -> int | None:
    """The line of a place, or of what it is in; None if that is the file."""
    while place:
        if place in lines:
            return lines[place]
        place = place[:-1]
    return None


def _names(text: str) -> list[str]:
    """The parts of a dotted key at the beginning of a text."""
    names, at = [], 0
    while found := _PART.match(text, at):
        names.append(next(part for part in found.groups()[:3] if part is not None))
        at = found.end()
        if not found[4]:
            break
    return names


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The lines on which a table or a key begins: not those inside of an array or of a text of several lines."""
    depth, quotes = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        begins = depth == 0 and not quotes
        if begins and line.strip() and not line.lstrip().startswith("#"):
            yield number, line
        for token in _TOKEN.findall(line):
            if quotes:
                quotes = "" if token == quotes else quotes
            elif token in ('"""', "'''"):
                quotes = token
            elif token in "[{":
                depth += 1
            elif token in "]}":
                depth -= 1
