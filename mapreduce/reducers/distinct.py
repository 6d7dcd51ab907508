"""Distinct: how many different values, counted or estimated.

Two values are the same as two map keys are: 1 and 1.0, (1, 2) and [1, 2], but
not 1 and True.

Pure: no input or output.
Source: Flajolet, Fusy, Gandouet, Meunier (2007), "HyperLogLog: the analysis of a
near-optimal cardinality estimation algorithm", as in Apache DataSketches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mapreduce.collation import identity
from mapreduce.ordered import encode
from mapreduce.reducers.sketches import WAITING, require

REGISTERS_LOG2 = 14  # 16 KiB for a sketch that has seen many values; standard error 0.8 %


@dataclass(frozen=True)
class Distinct:
    """How many different values there are.

    With `exact` every different value is kept. Without, at most about 20 KiB,
    and the count is an estimate by HyperLogLog: exact up to some hundreds, then
    with a standard error of 0.8 %, and the same number however the input was
    ordered or split. That needs the extra `sketches`.

    Raises:
        ConfigurationError: `exact` is False, and datasketches is not installed.

    Raises from `add`:
        TypeError: a value is no JSON value.
        ValueError: it is NaN or infinite.
    """

    of: Any = None
    exact: bool = True

    def __post_init__(self) -> None:
        if not self.exact:
            require("Distinct(exact=False)")

    def zero(self) -> Any:
        # Exact: the values' identities. Otherwise a stored sketch, none at first, and values that wait to go into it.
        return set() if self.exact else [b"", []]

    def add(self, acc: Any, value: Any, /) -> Any:
        try:
            if self.exact:
                kind = type(value)
                acc.add(value if kind is str or kind is int else identity(value))
                return acc
            # The encoding has equal bytes exactly for the same values. A sketch takes text, and no empty one.
            acc[1].append(encode(value).decode("latin-1"))
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"Distinct() takes JSON values (None, finite numbers, bool, str, list, tuple, dict), and was given "
                f"{value!r} of type {type(value).__name__}"
            ) from error
        return _folded(acc)

    def merge(self, a: Any, b: Any, /) -> Any:
        if self.exact:
            a |= b
            return a
        if b[0]:
            a[0] = _joined(a[0], b[0]) if a[0] else b[0]
        a[1] += b[1]
        return _folded(a)

    def finish(self, acc: Any, /) -> int:
        return len(acc) if self.exact else round(_estimate(acc))


def _folded(acc: list[Any]) -> list[Any]:
    """The accumulator with the waiting values in its sketch, if there are many."""
    if len(acc[1]) > WAITING:
        acc[0] = _sketch(acc).serialize_compact()
        acc[1].clear()
    return acc


def _sketch(acc: list[Any]) -> Any:
    from datasketches import hll_sketch, tgt_hll_type

    sketch = hll_sketch.deserialize(acc[0]) if acc[0] else hll_sketch(REGISTERS_LOG2, tgt_hll_type.HLL_8)
    for value in acc[1]:
        sketch.update(value)
    return sketch


def _joined(a: bytes, b: bytes) -> bytes:
    from datasketches import hll_sketch, hll_union, tgt_hll_type

    union = hll_union(REGISTERS_LOG2)
    union.update(hll_sketch.deserialize(a))
    union.update(hll_sketch.deserialize(b))
    joined: bytes = union.get_result(tgt_hll_type.HLL_8).serialize_compact()
    return joined


def _estimate(acc: list[Any]) -> float:
    from datasketches import hll_union

    # A sketch that was never merged estimates from the order in which values came; one that was, from its registers
    # alone. Merging it with itself changes no register, and makes every sketch one of the second kind.
    sketch, union = _sketch(acc), hll_union(REGISTERS_LOG2)
    union.update(sketch)
    union.update(sketch)
    estimate: float = union.get_estimate()
    return estimate
