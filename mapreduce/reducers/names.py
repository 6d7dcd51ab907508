"""Reducers by name, for command lines and files: `sum`, `top:10`, `quantiles:0.5,0.9`.

Pure: no input or output.
"""

from __future__ import annotations

from collections.abc import Callable

from mapreduce.reducers import Reducer
from mapreduce.reducers.collect import Collect
from mapreduce.reducers.distinct import Distinct
from mapreduce.reducers.extremes import First, Last, Max, Min, TopK
from mapreduce.reducers.quantiles import Quantiles
from mapreduce.reducers.sums import Count, Mean, Stats, Sum
from vstore.errors import ConfigurationError

NAMED: dict[str, Callable[[], Reducer]] = {
    "sum": Sum,
    "count": Count,
    "min": Min,
    "max": Max,
    "mean": Mean,
    "stats": Stats,
    "collect": Collect,
    "distinct": Distinct,
    "distinct~": lambda: Distinct(exact=False),
    "quantiles": Quantiles,
    "first": First,
    "last": Last,
}
PARAMETRIC: dict[str, Callable[[str], Reducer]] = {
    "top": lambda text: TopK(int(text)),
    "quantiles": lambda text: Quantiles(tuple(map(float, text.split(",")))),
}
KNOWN = (*NAMED, "top:10", "quantiles:0.5,0.9")


def reducer_named(text: str) -> Reducer:
    """The reducer of this name. `dataclasses.replace(reducer, of=...)` points it at a field, for queries.

    Raises:
        ConfigurationError: there is none, its parameter cannot be used, or its library is not installed.
    """
    name, colon, parameter = text.partition(":")
    if not colon and name in NAMED:
        return NAMED[name]()
    if colon and name in PARAMETRIC:
        try:
            return PARAMETRIC[name](parameter)
        except ValueError as error:
            raise ConfigurationError(
                f"the reducer {text!r} has the parameter {parameter!r}, which is no number; write it as in "
                f"{' or '.join(known for known in KNOWN if known.startswith(name + ':'))}."
            ) from error
    raise ConfigurationError(f"there is no reducer {text!r}; known are {', '.join(KNOWN)}.")
