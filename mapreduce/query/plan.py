"""How a query will be run: what is decoded, what the database leaves out, where the work is done.

    what is asked ─┬─► paths ─────► structs of these fields, or whole documents
                   ├─► condition ─► a range of keys, and bytes that a body must hold: both for the database
                   └─► estimate ──► in this process, or in several

Every choice gives the same rows; they differ in cost, and the costs were
measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mapreduce.executors import Executor, chosen
from mapreduce.executors.inline import Inline
from mapreduce.query.code import Order
from mapreduce.query.fields import Expression, Path, about, paths
from mapreduce.query.prefilter import Holding, holding, keys
from mapreduce.query.records import Fields
from mapreduce.result import Result
from mapreduce.splits import Sliceable, length_estimate, several
from vstore.collection import Collection
from vstore.ranges import ABOVE, KeyRange

# CPU seconds per document of 500 bytes with ten fields, in one process (SQLite, Python 3.11). Decoding
# declared fields won for every number of them, up to all ten: msgspec makes or skips what orjson has to make.
READ_SECONDS = 0.8e-6
DECODE_SECONDS = 1.0e-6  # a whole document
DECODE_FIELDS_SECONDS = 0.3e-6  # of two fields
LOOP_SECONDS = 0.25e-6  # condition, columns or group, and figures

# A row that a worker sends, and that this one process receives: three columns, or a whole document.
SENDING = {False: (0.4e-6, 1.1e-6), True: (2e-6, 4.5e-6)}

KEPT = 0.5  # of documents, by a condition of which nothing else is known

START_SECONDS = 0.3  # of worker processes


@dataclass(frozen=True)
class Plan:
    """What `explain()` says; `str` of it is for people.

    `keys` is the range of keys that the database is asked for. `fields` are the
    paths that are decoded, None for whole documents; `holding`
    are the strings that the database looks for in the bodies, so that it need
    not send the others. `documents` and `seconds` are estimates, None where
    nothing tells; a condition may leave less to do.
    """

    steps: tuple[str, ...]
    source: str
    documents: int | None
    keys: KeyRange
    fields: tuple[str, ...] | None
    holding: Holding
    executor: str
    workers: int
    seconds: float | None

    def __str__(self) -> str:
        count = "an unknown number of" if self.documents is None else f"at most {self.documents:,}"
        decoded = "whole documents" if self.fields is None else ", ".join(self.fields) or "nothing"
        lines = [f"reads     {count} documents of {self.source}"]
        if not self.keys.whole:
            end = "" if self.keys.high == ABOVE else f", before {self.keys.high!r}"
            lines.append(f"          with keys from {self.keys.low!r} on{end}")
        lines.append(f"decodes   {decoded}")
        for alternatives in self.holding:
            strings = " or ".join(text.decode() for text in alternatives)
            lines.append(f"leaves    to the database: bodies without {strings}")
        lines += [f"then      {step}" for step in self.steps]
        lines.append(f"runs      {self.executor}")
        if self.seconds is not None:
            lines.append(f"takes     about {self.seconds:.2g} s, if all documents are looked at")
        return "\n".join(lines)


@dataclass(frozen=True)
class Choice:
    """The decisions for one reading of the source: `over`, or the range of it that the condition is about."""

    over: Any
    keys: KeyRange
    executor: Executor
    fields: Fields | None
    holding: Holding
    versions: bool
    documents: int | None
    seconds: float | None


def choice(
    over: Any,
    where: Expression | None,
    looked_at: Sequence[Expression] | None,
    sent: int | None,
    workers: int | None,
    executor: Any,
) -> Choice:
    """How to read `over`.

    Args:
        looked_at: the expressions beside the condition; None if rows are whole documents.
        sent: how many rows workers would send at most; None for all that are kept.
        workers, executor: the caller's wishes, which are followed.

    Raises:
        ConfigurationError: they cannot be.
    """
    over, range_read = _narrowed(over, keys(where))
    expressions = [*([] if where is None else [where]), *(looked_at or ())]
    stored = (isinstance(over, Sliceable) and not isinstance(over, Result)) or several(over)
    fields = None
    if stored and looked_at is not None:
        found = Fields(path for expression in expressions for path in paths(expression))
        fields = found if found.typed else None
    versions = any(about(expression) - {"key"} for expression in expressions)
    documents = length_estimate(over)
    runs = chosen(workers, 1 << 62, executor)  # its threshold is for jobs, of which it knows less
    seconds = None
    if documents is not None:
        each = LOOP_SECONDS
        if stored:
            each += READ_SECONDS + (DECODE_SECONDS if fields is None else DECODE_FIELDS_SECONDS)
        rows = documents if where is None else documents * KEPT
        rows = rows if sent is None else min(rows, sent)
        send, receive = SENDING[looked_at is None]
        alone = documents * each
        seconds = max((alone + rows * send) / runs.workers, rows * receive) if runs.workers > 1 else alone
        pays = stored and seconds + START_SECONDS < alone
        if not pays and workers is None and executor is None:
            runs, seconds = Inline(), alone
    elif workers is None and executor is None:
        runs = Inline()  # documents that are in this process, and are soon looked at
    return Choice(over, range_read, runs, fields, holding(where) if stored else (), versions, documents, seconds)


def _narrowed(over: Any, wanted: KeyRange) -> tuple[Any, KeyRange]:
    """Collections as snapshots of a range of their keys; anything else as it is."""
    sources = over if several(over) else [over]
    if wanted.whole or not all(isinstance(source, Collection) for source in sources):
        return over, KeyRange()
    end = None if wanted.high == ABOVE else wanted.high
    snapshots = [source.snapshot(wanted.low, end) for source in sources]
    return snapshots if several(over) else snapshots[0], wanted


def described(chosen: Choice, over: Any, steps: Sequence[str]) -> Plan:
    """A choice, for people."""
    workers = chosen.executor.workers
    kind = type(chosen.executor).__name__
    place = "in this process" if kind == "Inline" else f"in {workers} workers ({kind})"
    fields = None if chosen.fields is None else tuple(str(path) for path in _shortest(chosen.fields.paths))
    if several(over):
        source = f"{len(over)} sources"
    else:
        name = getattr(over, "name", None)
        source = f"{type(over).__name__} {name!r}" if isinstance(name, str) else type(over).__name__
    return Plan(
        tuple(steps), source, chosen.documents, chosen.keys, fields, chosen.holding, place, workers, chosen.seconds
    )


def _shortest(found: Sequence[Path]) -> list[Path]:
    """Each path once, and none that is inside another."""
    texts = {repr(path): path for path in found}
    return [path for text, path in texts.items() if not any(_inside(text, other) for other in texts)]


def _inside(text: str, other: str) -> bool:
    return text != other and text.startswith(other) and text[len(other)] in ".["


def order_text(order: Order) -> str:
    """An order in words."""
    return ", ".join(f"{by!r} descending" if down else repr(by) for by, down in order)
