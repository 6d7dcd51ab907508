"""Rows on stdout: aligned columns for people, one JSON value a line, or CSV.

All stream. A table measures its first rows, and keeps to what it found.

    missing   nothing in a table or CSV; no such name in JSON
    null      null in a table and JSON, nothing in CSV
    others    text as it is, all else as JSON
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal, TypeAlias

import click

from mapreduce.jsontext import json_text
from vstore.cli.output import out, text

Row: TypeAlias = Mapping[str, Any]
Format: TypeAlias = Literal["table", "json", "csv"]

MEASURED_ROWS = 200
LEAST_WIDTH = 8  # of a column that is made narrower for the sake of the others
_ABSENT = object()


def format_options(command: Any) -> Any:
    """`--format`, `--json` and `--csv`, as the parameters `format`, `as_json` and `as_csv`: for `chosen_format`."""
    for option in (
        click.option("--csv", "as_csv", is_flag=True, help="The same as --format csv."),
        click.option("--json", "as_json", is_flag=True, help="The same as --format json."),
        click.option(
            "--format",
            "format",
            type=click.Choice(["table", "json", "csv"]),
            help="By default a table on a terminal, else JSON lines.",
        ),
    ):
        command = option(command)
    return command


def chosen_format(given: Format | None, as_json: bool, as_csv: bool) -> Format:
    """The format that was asked for, else the one for whoever reads stdout.

    Raises:
        click.UsageError: more than one was asked for.
    """
    named: set[Format] = {each for each in (given, "json" if as_json else None, "csv" if as_csv else None) if each}
    if len(named) > 1:
        raise click.UsageError("give one of --format, --json and --csv.")
    return named.pop() if named else "table" if sys.stdout.isatty() else "json"


def printed(rows: Iterable[Row], columns: Sequence[str], format: Format) -> int:
    """Writes the rows, whose names are in `columns`, in that order; how many there were."""
    number = 0

    def counted() -> Iterator[Row]:
        nonlocal number
        for row in rows:
            number += 1
            yield row

    {"table": _table, "json": _json_lines, "csv": _csv}[format](counted(), columns)
    return number


def as_json_text(value: Any) -> str:
    """A value as JSON.

    Raises:
        click.ClickException: JSON has no such value.
    """
    try:
        return json_text(value)
    except (TypeError, ValueError) as error:
        raise click.ClickException(f"a row cannot be printed as JSON: {error}.") from error


# --- for programs ----------------------------------------------------------------------------------------------------


def _json_lines(rows: Iterator[Row], columns: Sequence[str]) -> None:
    for row in rows:
        out(f"{as_json_text(row)}\n".encode())


class _Out:
    """Stdout as the csv module wants it."""

    def write(self, words: str) -> None:
        out(words.encode())


def _csv(rows: Iterator[Row], columns: Sequence[str]) -> None:
    writer = csv.writer(_Out(), lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(row.get(name)) for name in columns])


def _csv_cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else as_json_text(value)


# --- for people ------------------------------------------------------------------------------------------------------


def _table(rows: Iterator[Row], columns: Sequence[str]) -> None:
    first = list(islice(rows, MEASURED_ROWS))
    if not first:
        return
    # Where nobody looks, as in a pipe to a file, nothing is cut.
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    names = [_printable(name) for name in columns]
    right = [_numbers(row.get(name, _ABSENT) for row in first) for name in columns]
    widths = [
        max(width(name), *(width(_cell(row.get(column, _ABSENT))) for row in first))
        for name, column in zip(names, columns, strict=True)
    ]
    if limit is not None:
        widths = fitted(widths, limit - 2 * (len(columns) - 1), right)
    text(_line(names, widths, right, limit is not None))
    for row in chain(first, rows):
        text(_line([_cell(row.get(name, _ABSENT)) for name in columns], widths, right, limit is not None))


def _numbers(values: Iterable[Any]) -> bool:
    """Whether these are numbers and nothing else but null."""
    kinds = {type(value) for value in values if value is not None and value is not _ABSENT}
    return bool(kinds) and kinds <= {int, float}


def _cell(value: Any) -> str:
    if value is _ABSENT:
        return ""
    return _printable(value if isinstance(value, str) else as_json_text(value))


def _printable(words: str) -> str:
    """Text without characters that would act on a terminal: as JSON in ASCII if it has some."""
    return words if words.isprintable() else json.dumps(words)


def fitted(widths: Sequence[int], room: int, kept: Sequence[bool]) -> list[int]:
    """Widths that together fit into the room, if they can: the widest give first, and those to be kept do not."""
    found = list(widths)
    while sum(found) > room:
        giving = [column for column, keep in enumerate(kept) if not keep and found[column] > LEAST_WIDTH]
        if not giving:
            break
        widest = max(found[column] for column in giving)
        # Down to the next narrower one, or as far as is needed, all the widest alike.
        level = max([found[column] for column in giving if found[column] < widest], default=LEAST_WIDTH)
        same = [column for column in giving if found[column] == widest]
        least = widest - -(-(sum(found) - room) // len(same))
        for column in same:
            found[column] = max(level, least, LEAST_WIDTH)
    return found


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], cut: bool) -> str:
    return "  ".join(
        _padded(cell, wanted, to_right, cut) for cell, wanted, to_right in zip(cells, widths, right, strict=True)
    ).rstrip()


def _padded(cell: str, wanted: int, right: bool, cut: bool) -> str:
    taken = width(cell)
    if taken > wanted and cut and not right:
        while taken > wanted - 1:
            taken -= width(cell[-1])
            cell = cell[:-1]
        cell, taken = f"{cell}…", taken + 1
    blanks = " " * (wanted - taken)
    return blanks + cell if right else cell + blanks


def width(words: str) -> int:
    """How many places of a terminal a text takes."""
    if words.isascii():
        return len(words)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in words
    )
