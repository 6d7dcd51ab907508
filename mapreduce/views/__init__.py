"""Views: the rows that a map function makes of a collection, sorted, reduced in part, and kept up to date.

view          what users hold: reading, updating, dropping
declared      views that a file declares, for the command line and for daemons
rows          ranges, groups and pages as questions to the trees
build         a new build in parallel, resumable, while the old one serves
update        the changes of the collection, a batch in one transaction
tree, nodes   entries in order with partial reductions, as blobs that are never changed
tables        the SQL of it
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Called(ModuleType):
    """`mapreduce.views` is a function to its users, and Python makes it this module once any part of it is imported."""

    def __call__(self, store: Any, **options: Any) -> Any:
        from mapreduce.views.view import views

        return views(store, **options)


sys.modules[__name__].__class__ = _Called
