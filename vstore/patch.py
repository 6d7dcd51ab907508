"""Differences between two values: JSON Patch for programs, lines for people.

The patch format is RFC 6902, and the library `jsonpatch` makes and applies it.
What is added here is the promise of exactness: `apply(old, diff(old, new))` is
`new` in the sense of `vstore.merge.same`, and a patch that cannot be applied
changes nothing and says which operation it was.

Pure: no input or output, no time, no randomness.
Source: RFC 6902 (JSON Patch), RFC 6901 (JSON Pointer).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from vstore.errors import InvalidDocument
from vstore.merge import same


def diff(old: Any, new: Any) -> list[dict[str, Any]]:
    """The RFC 6902 operations that turn one value into the other; none if they are the same.

    Exact: 1 to 1.0, 1 to true and 0.0 to -0.0 are changes. The order of an object's keys is not.
    """
    from jsonpatch import make_patch  # costs 10 ms at start-up, and few commands need it

    # A diff may be kept where the old value is not, so it is tried before it is handed out. Of 8,000 random pairs
    # jsonpatch 1.47 got all right and 1.33 missed 191.
    operations: list[dict[str, Any]] = make_patch(old, new).patch
    try:
        reached = apply(old, operations)
    except InvalidDocument:
        operations, reached = [], old
    return [*operations, *_replacements(reached, new, "")]


def apply(value: Any, patch: Sequence[dict[str, Any]]) -> Any:
    """The value after every operation of the patch; the argument is not changed.

    Raises:
        InvalidDocument: an operation is malformed, names a path that is not there, or is a `test` that does not hold.
            Its `path` is the operation's. All operations apply or none does.
    """
    from jsonpatch import JsonPatch, JsonPatchException
    from jsonpointer import JsonPointerException

    result = copy.deepcopy(value)
    # One at a time: the library's errors do not reliably tell which operation they belong to.
    for index, operation in enumerate(patch):
        try:
            result = JsonPatch([operation]).apply(result, in_place=True)
        except (JsonPatchException, JsonPointerException, TypeError, ValueError, LookupError, AttributeError) as error:
            name, path = (
                (operation.get("op"), operation.get("path")) if isinstance(operation, dict) else (operation, None)
            )
            raise InvalidDocument(
                f"patch refused at operation {index} ({name} {path}): {error}. Nothing was changed.",
                path if isinstance(path, str) else "",
            ) from error
    return result


def lines(old: Any, new: Any) -> Iterator[str]:
    """A unified diff of both values as indented JSON with sorted keys, without line ends; nothing if they are the same.

    For reading only: cost can grow with the product of the numbers of lines.
    """
    import difflib

    # Not splitlines(): it also splits at characters that JSON leaves unescaped inside strings, such as U+2028.
    before, after = (
        json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).split("\n") for value in (old, new)
    )
    return difflib.unified_diff(before, after, "old", "new", lineterm="")


def _replacements(reached: Any, new: Any, path: str) -> Iterator[dict[str, Any]]:
    """Operations for what the library's patch left different, as deep in the value as can be."""
    if same(reached, new):
        return
    if isinstance(new, dict) and isinstance(reached, dict) and new.keys() == reached.keys():
        for name, value in new.items():
            yield from _replacements(reached[name], value, f"{path}/{name.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(new, list) and isinstance(reached, list) and len(new) == len(reached):
        for index, value in enumerate(new):
            yield from _replacements(reached[index], value, f"{path}/{index}")
    else:
        yield {"op": "replace", "path": path, "value": copy.deepcopy(new)}
