"""Storing a result back: one document for each group, and nothing else under the target.

The key of a document is the group's key, as compact JSON text where it is no
string. Storing a newer result replaces the older: what differs is put, what is
gone is deleted, and a document that is the same gets no new version. Each
document is replaced in one step; a reader in between sees some old and some new
ones. What was interrupted is completed by storing again.

A target is never taken from somebody: it has to be empty, or a result has been
stored there before, which a checkpoint in the target's store tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, is_dataclass
from itertools import islice
from typing import Any

import orjson

from mapreduce.errors import JobError
from mapreduce.result import Result
from vstore.collection import Collection
from vstore.errors import ConfigurationError

BATCH_DOCUMENTS = 1_000


def check(target: Any) -> None:
    """Whether a result may be stored there.

    Raises:
        ConfigurationError: it is no collection, or holds documents that come from elsewhere.
    """
    if not isinstance(target, Collection):
        raise ConfigurationError(
            f"into= cannot be {type(target).__name__}: pass a collection, or a part of one, such as "
            f"store['totals'].prefixed('2026/'). Nothing was run."
        )
    if target.store.checkpoint(_mark(target)) is None and next(iter(target.keys()), None) is not None:
        raise ConfigurationError(
            f"into= is {target!r}, which holds documents that no result was stored as: they would be deleted. Nothing "
            f"was run. Pass an empty collection, or a prefix of it that is free: collection.prefixed('totals/')."
        )


def store(result: Result, target: Collection) -> None:
    """Make the documents of the target those of the result.

    Raises:
        JobError: two groups would be the same document, such as 1 and "1".
        InvalidDocument, InvalidKey: a group cannot be a document.

    What was stored before an error stays, and storing again completes it. Costs
    a read of each document, and a write of each that differs.
    """
    target.store.set_checkpoint(_mark(target), {"groups": len(result)})
    for groups in _batches(result):
        documents: dict[str, Any] = {}
        for key, value in groups:
            name = document_key(key)
            if not isinstance(key, str) and name in result:
                raise JobError(
                    f"the groups {key!r} and {name!r} would both be the document {name!r}. Those before it have been "
                    f"stored. Let the map function yield keys of one kind."
                )
            documents[name] = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        known = target.get_many(documents, on_conflict="skip")  # so that siblings are written over
        target.put_many(
            {name: value for name, value in documents.items() if name not in known or _differ(known[name], value)}
        )
    for names in _batches(target.keys()):
        target.delete_many([name for name in names if not _held(result, name)])


def document_key(key: Any) -> str:
    """The key of a group's document: the same text for keys that are the same, such as 1 and 1.0."""
    if isinstance(key, str):
        return key
    plain = _plain(key)
    try:
        return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(key: Any) -> Any:
    if isinstance(key, float):
        return int(key) if key.is_integer() else key
    if isinstance(key, list | tuple):
        return [_plain(part) for part in key]
    if isinstance(key, dict):
        return {name: _plain(part) for name, part in key.items()}
    return key


def _held(result: Result, name: str) -> bool:
    if name in result:
        return True
    try:
        key = json.loads(name)
    except ValueError:
        return False
    return not isinstance(key, str) and document_key(key) == name and key in result


def _differ(one: Any, other: Any) -> bool:
    """Whether two documents are not the same JSON: 1, 1.0 and true are three values."""
    if type(one) is not type(other) and not (isinstance(one, list | tuple) and isinstance(other, list | tuple)):
        return True
    if isinstance(one, dict):
        return one.keys() != other.keys() or any(_differ(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) != len(other) or any(map(_differ, one, other))
    return bool(one != other)


def _mark(target: Collection) -> str:
    return f"into:{target.name}:{target.prefix}"


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    source = iter(items)
    while batch := list(islice(source, BATCH_DOCUMENTS)):
        yield batch
