"""What a writer tried and how it ended, as lines of JSON that are on their way to the disk before the next begins.

A line before each operation says what it is about to do, a line after it how it
ended. An operation without the second line was under way when the writer was
killed: nobody knows how it ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

Kind = Literal["add", "delete", "union", "cas", "purge"]
Outcome = Literal["ok", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One write that was tried.

    `element` is what it puts into the document `key`, `seen` what it had read
    there, `before` the rev that it replaces (of a compare-and-set; "" for a
    document that is not there). `began` and `ended` are seconds of the machine's
    monotonic clock. "failed" means that nothing was written.
    """

    writer: str
    replica: str
    kind: Kind
    key: str
    element: str
    began: float = 0.0
    ended: float = float("inf")
    outcome: Outcome = "unknown"
    before: str = ""
    rev: str = ""
    seen: frozenset[str] = field(default_factory=frozenset)


class Journal:
    """A writer's notes. What was noted survives a kill of the writer."""

    def __init__(self, path: Path) -> None:
        """Begins a new file, or goes on in it."""
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def begin(self, **what: Any) -> None:
        """Notes what is about to be tried. `began` may be earlier: when what it rests on was read."""
        self._note({"began": time.monotonic(), **what})

    def end(self, outcome: Outcome, rev: str = "") -> None:
        """Notes how it ended."""
        self._note({"outcome": outcome, "rev": rev, "ended": time.monotonic()})

    def close(self) -> None:
        """Ends it."""
        self._file.close()

    def _note(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()  # to the system, which outlives us; the machine is not what dies here


def operations(lines: Iterable[str]) -> list[Operation]:
    """The notes of one writer, read back. The last line may be torn."""
    found: list[dict[str, Any]] = []
    for text in lines:
        if not text.endswith("\n"):
            break
        line = json.loads(text)
        if "outcome" in line:
            found[-1] |= line
        else:
            found.append(line)
    return [Operation(**{**line, "seen": frozenset(line.get("seen", ()))}) for line in found]
