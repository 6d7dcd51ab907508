"""What a database holds of some keys: their versions and heads without bodies, for the rules to look at.

How many statements that takes, and how their rows are put together, is written
here once. Whoever needs both at one instant asks in one `Database.snapshot`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vstore.document import Version
from vstore.sql import statements as sql
from vstore.sql.rows import LINEAGE, version_of
from vstore.sql.statements import Statement, chunks

Ask = Callable[[Statement, Sequence[Any]], list[Any]]
"""`Connection.rows`, or `Database.ask`."""


def versions_of(ask: Ask, collection: int, keys: Sequence[str]) -> dict[str, dict[str, Version]]:
    """For each key every version that is stored under it, by rev; none for a key that has none. 500 keys a query."""
    return _by_key(ask, sql.VERSIONS, collection, keys)


def heads_of(ask: Ask, collection: int, keys: Sequence[str]) -> dict[str, dict[str, Version]]:
    """For each key its heads, by rev, in the same way."""
    return _by_key(ask, sql.HEADS, collection, keys)


def _by_key(
    ask: Ask, statement: Callable[[int], Statement], collection: int, keys: Sequence[str]
) -> dict[str, dict[str, Version]]:
    found: dict[str, dict[str, Version]] = {key: {} for key in keys}
    for chunk in chunks(keys):
        for row in ask(statement(len(chunk)), [collection, *chunk]):
            version = version_of(row[-len(LINEAGE) :])  # behind the key, and the state of a head
            found[row[0]][version.rev] = version
    return found
