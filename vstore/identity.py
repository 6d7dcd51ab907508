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
commit. Under relaxed durability an unclean end is distrusted as a whole.

On a database server other clients advance the counters too, so there the note
is a lower bound, and the server's own identity, noted in the database, carries
the proof (`Shard`).

Source: docs/consistency.md, "Actors"; the cases are Riak's (riak_kv #679, #1865).
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import threading
from pathlib import Path

from vstore.sql.dialects import machine_id

try:
    import fcntl
except ImportError:  # without locks and shared memory maps nothing is provable, and every opening gets new actors
    fcntl = None  # type: ignore[assignment]

_HEADER_BYTES = 64
_OPEN = b"vstore proof 1 open".ljust(_HEADER_BYTES)
_CLEAN = b"vstore proof 1 clean".ljust(_HEADER_BYTES)
_SLOT = struct.Struct("<QQ")
_GROWTH_SLOTS = 256


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
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._map: mmap.mmap | None = None
        self._file = -1
        self._memory: dict[int, tuple[int, int]] = {}
        if fcntl is None:
            return
        name = hashlib.sha256(f"{shard} {identity}".encode()).hexdigest()[:32]
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(directory / f"{name}.proof", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._begin(durable)
        except OSError:
            self._drop()

    def confirms(self, partition: int, actor: str, seq: int) -> bool:
        """Whether the partition's actor may mint the next dot after `seq`. Ask while holding the partition's lock."""
        noted_actor, noted_seq = self._noted(partition)
        if self._exact:
            return noted_actor == _short(actor) and noted_seq == seq
        return noted_seq <= seq

    def note(self, partition: int, actor: str, seq: int) -> None:
        """Writes down, just before the commit, where the partition will be after it."""
        if self._map is None:
            self._memory[partition] = (_short(actor), seq)
        else:
            _SLOT.pack_into(self._reaching(partition), _place(partition), _short(actor), seq)

    def close(self) -> None:
        """Ends the session; the last one to leave notes that the end was clean."""
        if self._map is not None and self._pid == os.getpid():  # a forked child leaves the parent's session alone
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while others are in
                self._map[:_HEADER_BYTES] = _CLEAN
                self._map.flush()
        self._drop()

    def _begin(self, durable: bool) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fcntl.flock(self._file, fcntl.LOCK_SH)  # another session is open, and has judged the last one
            self._map = mmap.mmap(self._file, 0)
            return
        if os.fstat(self._file).st_size < _HEADER_BYTES:
            os.ftruncate(self._file, _place(_GROWTH_SLOTS))
        self._map = mmap.mmap(self._file, 0)
        # With full durability no failure takes back a commit, so a note that still agrees proves as much after a
        # kill as after a clean end. Otherwise a failing machine may have lost commits and notes alike.
        if not durable and self._map[:_HEADER_BYTES] != _CLEAN:
            self._map[_HEADER_BYTES:] = bytes(len(self._map) - _HEADER_BYTES)
        self._map[:_HEADER_BYTES] = _OPEN
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def _noted(self, partition: int) -> tuple[int, int]:
        if self._map is None:
            return self._memory.get(partition, (0, 0))
        actor, seq = _SLOT.unpack_from(self._reaching(partition), _place(partition))
        return actor, seq

    def _reaching(self, partition: int) -> mmap.mmap:
        """The map, grown if need be so that it has the partition's slot."""
        assert self._map is not None
        if _place(partition + 1) > len(self._map):
            with self._lock:
                size = os.fstat(self._file).st_size  # another process may have grown it
                if size < _place(partition + 1):
                    os.ftruncate(self._file, _place(partition + _GROWTH_SLOTS))
                self._map = mmap.mmap(self._file, 0)
        return self._map

    def _drop(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _place(partition: int) -> int:
    return _HEADER_BYTES + partition * _SLOT.size


def _short(actor: str) -> int:
    return int.from_bytes(hashlib.blake2b(actor.encode(), digest_size=8).digest(), "little")
