"""One replica: a database file, the machine it is on, and the process that has it open.

The process can end without a word, the file can be set back to a backup or copied
to another machine, and the machine's proofs can go with it or stay. Whatever
happens, `state` is what the file holds after its last commit.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.simulation.oracle import View
from vstore import Collection, Store
from vstore.handle import Handle
from vstore.shard import Shard

from . import faults
from .faults import Wire
from .follower import Follower
from .mirror import Mirror, State
from .truth import Asked, Truth
from .world import COLLECTION, World

_apply = Shard.apply
by_path: dict[str, Site] = {}


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of a file, the proofs of its machine, what named the file, and what had been received by then."""

    file: bytes
    proofs: dict[str, bytes]
    identity: str
    received: dict[str, View]


class Site:
    """A replica by name."""

    def __init__(self, name: str, world: World, truth: Truth, file: bytes) -> None:
        self.name = name
        self.world = world
        self.truth = truth
        self.path = world.folder / f"{name}.db"
        self.proofs = world.folder / f"{name}.state"
        self.proofs.mkdir()
        self.broken: BaseException | None = None
        self.purging_all = False  # a purge is under way that nobody is left out of
        self.damaged = False
        self.original = True  # neither a copy nor ever set back to a backup
        self.commits = 0
        self._asked: list[Asked] = []
        self._depth = 0
        self._inode = 0
        self.followers = [Follower(f"a reader of {name}", full=full) for full in (False, True)]
        self.wire = Wire()
        self.store: Store
        self.mirror: Mirror
        self.state: State
        by_path[str(self.path)] = self
        self._put_file(file, fresh=True)
        self.open()
        self.uid = self.handle.uid  # what the replica calls itself; a copy calls itself as its original
        truth.begin(self)

    # The process

    def open(self) -> None:
        """Starts a process that has the file open."""
        touched, self.wire = self.wire.touched, Wire()
        self.wire.touched = touched
        self.wire.on_commit = self._committed
        self.wire.on_rollback = self._rolled_back
        faults.wires[str(self.path)] = self.wire
        self.world.time.where = self.name
        self.world.processes.begin(self.name)
        self._asked, self._depth = [], 0
        self.store = Store(f"sqlite:///{self.path}", state=self.proofs)
        for shard in self.store.shards:
            shard._now_us = lambda: self.world.time.wall_us(self.name)
            shard._new_id = lambda: self.world.chance.token_hex(8)

    def close(self) -> None:
        """The process ends as it should."""
        self.store.close()
        self.wire.kill()

    def kill(self) -> None:
        """The process ends at once: what it had not committed is gone, its locks are free, nobody said goodbye."""
        self.wire.kill()
        for shard in self.store.shards:
            shard.proof._drop()
            shard.database.closed = True

    def destroy(self) -> None:
        """The replica is no more."""
        self.kill()
        self.mirror.close()

    @property
    def docs(self) -> Collection:
        return self.store[COLLECTION]

    @property
    def handle(self) -> Handle:
        handle = self.store.handle(COLLECTION)
        assert handle is not None
        return handle

    def raise_broken(self) -> None:
        """What was found in the middle of a transaction, where it could not be raised."""
        broken, self.broken = self.broken, None
        if broken is not None:
            raise broken

    # The file

    def back_up(self) -> Backup:
        """A copy of the file as it is after the last commit."""
        proofs = {path.name: path.read_bytes() for path in self.proofs.iterdir()}
        identity = self.world.inodes[str(self.path)]
        return Backup(self.mirror.dump(), proofs, identity, self.truth.remembered(self.name))

    def restore(self, backup: Backup, *, same_inode: bool, with_proofs: bool) -> None:
        """The file is set back. The process was ended before, and has to be started again.

        With the proofs, as a disk is with all that is on it: nothing here tells then that time went back.
        """
        self.mirror.close()
        self.original = False
        self._put_file(backup.file, fresh=not same_inode)
        if with_proofs:
            shutil.rmtree(self.proofs)
            self.proofs.mkdir()
            for name, proof in backup.proofs.items():
                (self.proofs / name).write_bytes(proof)
            self.world.inodes[str(self.path)] = backup.identity
        self.truth.recall(self.name, backup.received, self.state)

    def _put_file(self, file: bytes, *, fresh: bool) -> None:
        for end in ("-wal", "-shm"):
            Path(f"{self.path}{end}").unlink(missing_ok=True)
        # Always another file in truth, whatever it is said to be: SQLite keeps state of a file that is still open.
        fresh_file = self.path.with_suffix(".new")
        fresh_file.write_bytes(file)
        fresh_file.replace(self.path)
        if fresh:
            self._inode += 1
        self.world.inodes[str(self.path)] = f"machine of {self.name}, file {self._inode}"
        self.mirror = Mirror(self.path)
        self.state = self.mirror.state()

    def lose(self, key: str, id_: int, *, whole: bool) -> None:
        """A page is lost, or an administrator deletes a row: a head, and perhaps the version as well."""
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute("DELETE FROM vs_head WHERE key = ? AND id = ?", (key, id_))
            if whole:
                connection.execute("DELETE FROM vs_version WHERE key = ? AND id = ?", (key, id_))
        connection.close()
        self.state = self.mirror.state()

    def rot(self, key: str, id_: int, body: bytes) -> None:
        """Bytes change on the disk."""
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute("UPDATE vs_version SET body = ? WHERE key = ? AND id = ?", (body, key, id_))
        connection.close()
        self.state = self.mirror.state()

    # What the shard is asked to do, and what becomes of it

    def asked(self, works: Sequence[Any]) -> None:
        self._asked.append(Asked(works))
        self._depth += 1

    def answered(self) -> None:
        self._depth -= 1
        if not self._depth and not self.wire.writing:
            self._asked.clear()

    @property
    def idle(self) -> bool:
        """Whether another client could get in."""
        return not self._depth and not self.wire.writing

    def _committed(self) -> None:
        before = self.state
        self.commits += 1
        try:
            self.state = self.mirror.state(self.wire.touched)
            self.wire.touched.clear()
            self.truth.committed(self.name, self._asked, before, self.state, sound=not self.damaged)
            self.truth.checkpoints(self.name, self.state)
        except Exception as error:
            if self.broken is None:
                self.broken = error
        if not self._depth:
            self._asked.clear()

    def _rolled_back(self) -> None:
        if not self._depth:
            self._asked.clear()


def apply(shard: Shard, definition: Any, works: Sequence[Any], *rest: Any, **named: Any) -> Any:
    """In the place of `Shard.apply`: tells the site what it is asked to do."""
    site = by_path.get(shard.database.path or "")
    if site is None:
        return _apply(shard, definition, works, *rest, **named)
    works = list(works)
    site.asked(works)
    try:
        return _apply(shard, definition, works, *rest, **named)
    finally:
        site.answered()
