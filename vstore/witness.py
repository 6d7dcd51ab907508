"""The witness: only a peer can tell a store that was restored with its proofs that time went back.

A store opened with `require_witness` demands one: a number in each of its shards,
one more than the last. Whoever next compares a collection of it with a peer, in
this process or another, notes that number for the collection. Until it is there,
or a later one, nothing is minted by an actor that was found at opening.

    open          witness:    [8, "4e78…"]   read by a handshake before it asks the peer
    handshake     witness:17  8              collection 17; who was set back has got new actors by now
    put           17 has been answered at 8: go on

A backup brings old numbers back, so what it has of answers is never enough. An
answer counts only if the demand is still the very text that was read before the
peer was asked: a handshake that began before a restore says nothing after it.

Source: docs/consistency.md, "Actors".
"""

from __future__ import annotations

import json

from vstore.plan import set_checkpoint
from vstore.sql import statements as sql
from vstore.sql.database import Connection, Database

NAME = "witness:"


def demand(connection: Connection, token: str) -> int:
    """Demands a witness, inside the caller's transaction: the least number that answers it.

    Args:
        token: what tells this demand from one of the same number in another copy of the database.
    """
    connection.rows(sql.LOCK_META, ("last",))  # of two that open at the same time each gets a number of its own
    rows = connection.rows(sql.CHECKPOINT, (NAME,))
    number = _number(rows[0][0]) + 1 if rows else 1
    set_checkpoint(connection, NAME, json.dumps([number, token]))
    return number


def outstanding(database: Database, collection: int) -> str:
    """The demand that is not answered for a collection of a shard; empty if there is none. One small query."""
    notes = dict(database.ask(sql.CHECKPOINTS_AMONG, (NAME, NAME[:-1] + ";")))
    demanded = notes.get(NAME, "")
    return demanded if demanded and _number(demanded) > int(notes.get(f"{NAME}{collection}", 0)) else ""


def answer(connection: Connection, collection: int, demanded: str) -> None:
    """Notes that a peer was asked about a collection after a demand was read, unless there is another one by now."""
    connection.rows(sql.LOCK_META, ("last",))
    if [row[0] for row in connection.rows(sql.CHECKPOINT, (NAME,))] == [demanded]:
        set_checkpoint(connection, f"{NAME}{collection}", str(_number(demanded)))


def answered(connection: Connection, collection: int) -> int:
    """The number up to which demands are answered for a collection; 0 if none is."""
    rows = connection.rows(sql.CHECKPOINT, (f"{NAME}{collection}",))
    return int(rows[0][0]) if rows else 0


def _number(demanded: str) -> int:
    number: int = json.loads(demanded)[0]
    return number
