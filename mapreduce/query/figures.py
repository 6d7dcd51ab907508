"""Aggregates by name, as the query language writes them: `count()`, `sum(price)`, `top(10, price)`.

The names are those that `mapreduce.reducers.names` has for `--reduce`. What a
reducer needs beside the value comes first, as in Python: `quantiles(0.5, 0.9, x)`.

Pure: no input or output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mapreduce.query.fields import Doc, Expression, Literal
from mapreduce.reducers import Reducer
from mapreduce.reducers.extremes import TopK
from mapreduce.reducers.names import NAMED
from mapreduce.reducers.quantiles import Quantiles
from vstore.errors import ConfigurationError

NAMES = (*NAMED, "top")


def figure(name: str, arguments: Sequence[Expression]) -> Reducer:
    """The reducer of one of NAMES, over the last of the arguments.

    `first` and `last` go by the stamps of the documents, unless an expression
    to go by follows the value.

    Raises:
        ConfigurationError: the arguments do not fit, or the reducer's library
            is not installed.
    """
    match name, arguments:
        case "count", []:
            return NAMED["count"]()
        case (("first" | "last"), [of] | [of, _]):
            return _over(NAMED[name](), of=of, by=arguments[1] if len(arguments) == 2 else Doc.stamp)
        case "top", [Literal(value=int() as number), of] if number is not True and number > 0:
            return TopK(number, of=of)
        case "quantiles", [*points, of] if points:
            return Quantiles(tuple(_point(point) for point in points), of=of)
        case _, [of] if name in NAMED:
            return _over(NAMED[name](), of=of)
    usage = {"count": "count() or count(x)", "top": "top(10, x)", "quantiles": "quantiles(0.5, 0.9, x)"}
    raise ConfigurationError(f"{name} is written as {usage.get(name, f'{name}(x)')}.")


def _over(reducer: Any, **where: Expression) -> Reducer:
    return replace(reducer, **where)  # type: ignore[no-any-return]  # reducers of NAMED are dataclasses


def _point(expression: Expression) -> float:
    value = expression.value if isinstance(expression, Literal) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError("the points of quantiles() are numbers from 0 to 1: quantiles(0.5, 0.9, x).")
    return value
