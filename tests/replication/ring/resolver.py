"""What settles conflicts in the ring: the members of every sibling, which nobody removes."""

from __future__ import annotations

from typing import Any

from vstore.resolvers import Siblings, fields, union

_members = fields({"/members": union})


def members(conflict: Siblings) -> Any:
    """Every member that some sibling has."""
    return _members(conflict)
