"""The packages of a Debian release at two replicas, edited at both: what each edit does, and what must come of all.

    turns     edited at one side and, after a sync, at the other, and once more at the first
    rivals    edited at both sides at once, in different fields: the real conflicts
    same      the same edit at both sides: one version, and no conflict
    alone     edited at one side only
    gone      deleted at one side
    rescued   deleted at one side and edited at the other: the edit survives

All edits of a document are of fields of their own, so the truth is the document
with all of them, whatever their order; and what was not edited is as it was.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vstore import Collection

RIVALS = 1_000
Side = Literal["a", "b"]


@dataclass(frozen=True)
class Edit:
    """One edit as its side makes it: fields to set, or None to delete the document."""

    side: Side
    key: str
    changes: Mapping[str, Any] | None

    def apply(self, collection: Collection) -> None:
        """Reads, changes and writes back, as users do."""
        changes = self.changes
        if changes is None:
            collection.delete(self.key)
        else:
            collection.modify(self.key, lambda package: {**package, **changes})


@dataclass(frozen=True)
class Story:
    """Who edits what. Each of `turns` is followed by a sync; `at_once` is then done at both sides without one."""

    turns: list[list[Edit]]
    at_once: list[Edit]
    rivals: list[str]

    @property
    def log(self) -> list[Edit]:
        """Every edit."""
        return [*(edit for turn in self.turns for edit in turn), *self.at_once]

    def truth(self, packages: Mapping[str, Any]) -> dict[str, Any]:
        """What both sides must hold in the end, given what they held at first."""
        found = dict(packages)
        edited = {edit.key for edit in self.at_once if edit.changes is not None}
        for edit in self.log:
            if edit.changes is not None:
                found[edit.key] = {**found[edit.key], **edit.changes}
            elif edit.key not in edited:
                del found[edit.key]
        return found


def story(keys: Iterable[str], rivals: int = RIVALS, seed: int = 20_261_121) -> Story:
    """The edits, chosen with a seed. The keys must be four times as many as the rivals."""
    chance = random.Random(seed)
    chosen = iter(chance.sample(sorted(keys), 4 * rivals))

    def some(count: int) -> list[str]:
        return [next(chosen) for _ in range(count)]

    in_turns, both = some(rivals // 5), some(rivals)
    takes: list[tuple[Side, str]] = [("a", "priority"), ("b", "section"), ("a", "priority")]
    turns = [
        [Edit(side, key, {field: f"{field} of turn {number}"}) for key in in_turns]
        for number, (side, field) in enumerate(takes)
    ]
    at_once: list[Edit] = []
    for number, key in enumerate(both):
        # Some edit several times before they meet; the last one of each side counts.
        at_once += [Edit("a", key, {"version": f"{n}:a", "checked": {"by": "a"}}) for n in range(1 + number % 3)]
        at_once += [Edit("b", key, {"section": f"{n}/b", "size_bytes": number}) for n in range(1 + number % 2)]
    sides: tuple[Side, Side] = ("a", "b")
    at_once += [Edit(side, key, {"priority": "same at both"}) for key in some(rivals // 10) for side in sides]
    for side in sides:
        at_once += [Edit(side, key, {"homepage": f"only at {side}"}) for key in some(rivals // 2)]
    at_once += [Edit("a", key, None) for key in some(rivals // 10)]
    for key in some(rivals // 20):
        at_once += [Edit("b", key, None), Edit("a", key, {"description": "kept"})]
    return Story(turns, at_once, both)
