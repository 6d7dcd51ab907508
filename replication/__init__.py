"""Replication between stores: exact, resumable, on any mixture of databases.

    from replication import Replicator, sync

    report = sync(laptop["notes"], office["notes"], resolver=json3)      # both ways, once
    Replicator(laptop, office, live=True).start()                        # one way, for as long as it runs

Both sides may have been written meanwhile. Nothing that either has is lost, what
was edited on both sides becomes siblings, and a resolver settles them.

But for `sync`, names are imported when they are used: a command that is about
something else does not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from replication.sync import PartialSync, Report, sync

if TYPE_CHECKING:
    from replication.filters import Filter
    from replication.lease import LeaseHeld
    from replication.replicator import Replicator, Status

# Where each name is that is imported late. One that is also the name of a module, such as `sync`, cannot be.
_HOMES = {
    "Filter": "replication.filters",
    "LeaseHeld": "replication.lease",
    "Replicator": "replication.replicator",
    "Status": "replication.replicator",
}

__all__ = ["Filter", "LeaseHeld", "PartialSync", "Replicator", "Report", "Status", "sync"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'replication' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found  # so that this is asked once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
