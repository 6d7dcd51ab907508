"""A process that writes to one replica and notes each write before the next, until it is killed or told to end.

    add      a document of its own
    delete   one of its own documents that was acknowledged
    union    one more member for a document that everybody adds to: read, and put with what was seen
    cas      the same for a document that is only replaced at the rev that was read
    purge    forget what is deleted, as far as all are known to know it

`python -m tests.replication.ring.writer '{"urls": […], "name": …}'`; SIGTERM ends it after the write under way.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import vstore
from tests.replication.ring.records import Journal
from tests.replication.ring.resolver import members
from vstore import ABSENT, Collection, Conflict, Context, NotFound, Store, StoreError, Unavailable

DOCUMENTS, SETS, REGISTERS = "documents", "sets", "registers"
COLLECTIONS = (DOCUMENTS, SETS, REGISTERS)

HOT_KEYS = 2
EPOCH_SECONDS = 8
"""After it everybody goes on with other keys, so that sets stay small however long it takes."""

AWAY_SECONDS = 0.2


class Writer:
    """Tries one write after another."""

    def __init__(self, store: Store, journal: Journal, *, name: str, replica: str, seed: int, started: float) -> None:
        """`started` is when the ring was, in seconds of the monotonic clock: all writers change keys together."""
        self._store = store
        self._journal = journal
        self._about = {"writer": name, "replica": replica}
        self._name = name
        self._chance = random.Random(seed)
        self._started = started
        self._own: list[tuple[str, str]] = []
        self._numbers = itertools.count(1)
        self.ended = False

    def run(self) -> None:
        """Until it is told to end."""
        while not self.ended:
            try:
                self._one(f"{self._name}-{next(self._numbers)}")
            except Unavailable:  # in a read: nothing was tried
                time.sleep(AWAY_SECONDS)
            time.sleep(self._chance.uniform(0, 0.03))

    def _one(self, element: str) -> None:
        kind = self._chance.choices(["add", "delete", "union", "cas", "purge"], [30, 10, 30, 30, 1])[0]
        if kind == "add":
            self._add(element)
        elif kind == "delete" and self._own:
            self._delete(*self._own.pop(self._chance.randrange(len(self._own))))
        elif kind == "purge":
            self._purge()
        else:
            self._swap(kind if kind != "delete" else "cas", element)

    def _add(self, element: str) -> None:
        documents = self._store[DOCUMENTS]
        self._journal.begin(**self._about, kind="add", key=element, element=element)
        if self._tried(lambda: documents.put(element, {"members": [element]})):
            self._own.append((element, element))

    def _delete(self, key: str, element: str) -> None:
        documents = self._store[DOCUMENTS]
        self._journal.begin(**self._about, kind="delete", key=key, element=element)
        self._tried(lambda: documents.delete(key))

    def _purge(self) -> None:
        self._journal.begin(**self._about, kind="purge", key="", element="")
        try:
            self._journal.end("ok", f"{self._store[DOCUMENTS].purge(grace_days=0).purged} forgotten")
        except Unavailable:
            self._journal.end("unknown")

    def _swap(self, kind: str, element: str) -> None:
        """One member more. A union keeps what it had not seen beside it, a compare-and-set is refused then."""
        collection = self._store[SETS if kind == "union" else REGISTERS]
        epoch = int((time.monotonic() - self._started) / EPOCH_SECONDS)
        key = f"{kind}-{epoch}-{self._chance.randrange(HOT_KEYS)}"
        began = time.monotonic()
        seen, context, rev = self._read(collection, key)
        if kind == "cas" and rev is None:
            return  # siblings: there is no one version to compare with
        value = {"members": [*seen, element]}
        about = {**self._about, "kind": kind, "key": key, "element": element}
        self._journal.begin(**about, began=began, before=rev or "", seen=seen)
        if kind == "union":
            self._tried(lambda: collection.put(key, value, context=context))
        else:
            self._tried(lambda: collection.put(key, value, match=rev or ABSENT))

    def _read(self, collection: Collection, key: str) -> tuple[list[str], Context, str | None]:
        """The members, what was seen, and the rev: "" if it is not there, None if there are several."""
        try:
            document = collection.read(key, on_conflict="winner")
        except NotFound:
            return [], Context(key), ""
        values: list[Any] = [sibling.value["members"] for sibling in document.siblings] or [document.value["members"]]
        seen = list(dict.fromkeys(itertools.chain.from_iterable(values)))
        return seen, document.context, None if document.conflicted else document.rev

    def _tried(self, write: Any) -> bool:
        """Does it and notes how it ended; whether it was acknowledged."""
        try:
            document = write()
        except (Conflict, NotFound):  # PreconditionFailed above all
            self._journal.end("failed")
            return False
        except Unavailable as error:
            self._journal.end("unknown" if error.outcome_unknown else "failed")
            time.sleep(AWAY_SECONDS)
            return False
        self._journal.end("ok", document.rev)
        return True


def opened(urls: list[str]) -> Store:
    """The store, as soon as its databases can be reached."""
    while True:
        try:
            return vstore.open(*urls, resolver=members)
        except Unavailable:
            time.sleep(AWAY_SECONDS)


def main(settings: str) -> None:
    """Writes until it is told to end."""
    given = json.loads(settings)
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    store = opened(given.pop("urls"))
    journal = Journal(Path(given.pop("journal")))
    writer = Writer(store, journal, **given)
    signal.signal(signal.SIGTERM, lambda *_: setattr(writer, "ended", True))
    writer.ended = bool(ended)
    try:
        writer.run()
    except StoreError as error:
        print(f"{given['name']}: {type(error).__name__}: {error}", file=sys.stderr)
        raise


if __name__ == "__main__":
    main(sys.argv[1])
