"""Replication between stores: exact, resumable, on any mixture of databases.

    from replication import sync

    report = sync(laptop["notes"], office["notes"], resolver=json3)

Both sides may have been written meanwhile. Nothing that either has is lost, what
was edited on both sides becomes siblings, and a resolver settles them.
"""

from replication.sync import Report, sync

__all__ = ["Report", "sync"]
