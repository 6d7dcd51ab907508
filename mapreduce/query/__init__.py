"""Ad-hoc queries over documents: what is asked is a value, and how it is answered is chosen by measured cost.

    query(posts).where(F.author.country == "FR").group_by(F.author.name).aggregate(n=Count()).order_by("-n").limit(10)

    query ─► plan ─► code ─────► selection, aggregate ─► engine or executor ─► rows
               ├───► records     partial decoding, one struct per query
               └───► prefilter   bytes that a body must hold

`meaning` says what an expression is worth; everything else is a faster way there.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Called(ModuleType):
    """`mapreduce.query` is a function to its users, and Python makes it this module once any part of it is imported."""

    def __call__(self, over: Any, **options: Any) -> Any:
        from mapreduce.query.query import query

        return query(over, **options)


sys.modules[__name__].__class__ = _Called
