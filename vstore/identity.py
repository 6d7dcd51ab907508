"""Proof, kept outside the database, that an actor may be continued.

A reused dot is the one thing that peers can never repair: they believe that they
have it and refuse the new data. A copied file and a restored backup bring back an
old counter, so what the database says of itself proves nothing. For each shard
that this machine writes, a small file in the state directory holds

    what names the database apart from its tables: the file's device and inode,
    or what the server says of itself (`Dialect.identity`), and this machine;
    for each partition, the actor and the seq of its last commit, written just
    before that commit.

A partition goes on with its actor only if both agree. If anything differs, or
the file is gone, the partition gets a new actor and a new feed id, which costs
one row. That also happens, harmlessly, after a crash between the note and the
commit. An unclean end of a session with relaxed durability is distrusted as a whole.

On a database server other clients advance the counters too, so there the note
is a lower bound, and the server's own identity, noted in the database, carries
the proof (`Shard`).

Source: docs/consistency.md, "Actors"; the cases are Riak's (riak_kv #679, #1865).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
from functools import cache
from pathlib import Path

from vstore.sql.dialects import machine_id

try:
    import fcntl
except ImportError:  # without locks on files nothing is provable, and every opening gets new actors
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("vstore")

_HEADER_BYTES = 64
_OPEN = b"vstore proof 1 open".ljust(_HEADER_BYTES)
_RELAXED = b"vstore proof 1 open, relaxed".ljust(_HEADER_BYTES)
_CLEAN = b"vstore proof 1 clean".ljust(_HEADER_BYTES)
_SLOT = struct.Struct("<QQ")


def state_directory() -> Path:
    """Where proofs live: $VSTORE_STATE, else $XDG_STATE_HOME/vstore, else ~/.local/state/vstore.

    Keep it off the disk that the database is backed up with: a backup that
    restores both would restore the proof too.
    """
    own = os.environ.get("VSTORE_STATE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "vstore"


def file_identity(path: str) -> str:
    """What names a database file apart from its content: a copy has another inode, another machine another id."""
    status = os.stat(path)
    return f"{machine_id()}:{status.st_dev}:{status.st_ino}"


class Proof:
    """The notes of one shard. Processes on this machine share them; so do threads and forked children."""

    def __init__(self, directory: Path, shard: str, identity: str, *, exact: bool, durable: bool) -> None:
        """Opens or begins the notes.

        Args:
            identity: what names the database apart from its tables.
            exact: no other machine advances the counters (a file, not a server).
            durable: acknowledged commits survive a failure of the machine.

        A directory that cannot be written is no error: then nothing is proven,
        and the session begins with new actors.
        """
        self._exact = exact
        self._durable = durable
        self._path = directory / f"{hashlib.sha256(f'{shard} {identity}'.encode()).hexdigest()[:32]}.proof"
        self._file = -1
        self._memory: dict[int, tuple[int, int]] = {}
        """Notes that could not be written to the file. They prove as much, but only to this process."""
        self._begin()

    @property
    def name(self) -> str:
        """What names the database apart from its content; equal for two openings of one database, and only then."""
        return self._path.name

    def confirms(self, partition: int, actor: str, seq: int) -> bool:
        """Whether the partition's actor may mint the next dot after `seq`. Ask while holding the partition's lock."""
        noted_actor, noted_seq = self._noted(partition)
        if self._exact:
            return noted_actor == _short(actor) and noted_seq == seq
        return noted_seq <= seq

    def note(self, partition: int, actor: str, seq: int) -> None:
        """Writes down, just before the commit, where the partition will be after it."""
        if self._file >= 0:
            try:
                # Written and not mapped: on a full disk a write fails, but a store to a mapped page kills the process.
                os.pwrite(self._file, _SLOT.pack(_short(actor), seq), _place(partition))
                self._memory.pop(partition, None)
            except OSError as error:
                log.warning("no proof of partition %d in %s: %s", partition, self._path, error)
            else:
                return
        self._memory[partition] = (_short(actor), seq)

    def after_fork(self) -> None:
        """In a forked child: a session of its own. A lock on a file is shared with the parent, and ends with it."""
        self._drop()
        self._begin()

    def close(self) -> None:
        """Ends the session; the last one to leave notes that the end was clean."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while others are in
                os.pwrite(self._file, _CLEAN, 0)
        self._drop()

    def _begin(self) -> None:
        if fcntl is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another session is open, and has judged the last one
                fcntl.flock(self._file, fcntl.LOCK_SH)
                if not self._durable:
                    os.pwrite(self._file, _RELAXED, 0)
                return
            # With full durability no failure takes back a commit, so a note that still agrees proves as much after a
            # kill as after a clean end. Otherwise a failing machine may have lost commits and notes alike.
            if os.pread(self._file, _HEADER_BYTES, 0) == _RELAXED:
                os.ftruncate(self._file, 0)
            os.pwrite(self._file, _OPEN if self._durable else _RELAXED, 0)
            fcntl.flock(self._file, fcntl.LOCK_SH)
        except OSError as error:
            log.warning("no proofs can be kept in %s, so each session begins with new actors: %s", self._path, error)
            self._drop()

    def _noted(self, partition: int) -> tuple[int, int]:
        noted = self._memory.get(partition)
        if noted is not None:
            return noted
        slot = os.pread(self._file, _SLOT.size, _place(partition)) if self._file >= 0 else b""
        if len(slot) < _SLOT.size:  # beyond the last note
            return 0, 0
        actor, seq = _SLOT.unpack(slot)
        return actor, seq

    def _drop(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _place(partition: int) -> int:
    return _HEADER_BYTES + partition * _SLOT.size


@cache
def _short(actor: str) -> int:
    return int.from_bytes(hashlib.blake2b(actor.encode(), digest_size=8).digest(), "little")
