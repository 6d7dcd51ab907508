"""The directory of a job's sorted runs: one per job, and none that outlives its job for long.

It lies in the directory for temporary files (TMPDIR). It is removed when the
result is closed or no longer used, or the job fails. What a killed program
leaves is swept when a later job needs a directory: each owner holds a lock on a
file in its own, so an unlocked one has no owner. A lock and not the process
number, which containers that share a directory may both have.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
import weakref
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: nothing can be locked, so nothing is swept
    fcntl = None  # type: ignore[assignment]

from mapreduce.errors import JobError

PREFIX = "vstore-job-"
LOCK = "owner.lock"
GRACE_SECONDS = 60.0  # a directory this young may be waiting for its owner's lock


class SpillDirectory:
    """The directory of one job, made when it is first needed.

    Sent to a worker it is the path alone: the owner is whoever made it.
    """

    def __init__(self, within: str | None = None) -> None:
        """In the directory `within`, by default the one for temporary files."""
        self._within = within
        self._path: str | None = None
        self._remove: weakref.finalize[Any, Any] | None = None

    @property
    def path(self) -> str:
        """Where it is.

        Raises:
            JobError: it cannot be made.
        """
        if self._path is None:
            within = self._within or tempfile.gettempdir()
            sweep(within)
            try:
                self._path = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=within)
                lock = open(os.path.join(self._path, LOCK), "wb")  # noqa: SIM115  # held until the directory goes
            except OSError as error:
                raise JobError(
                    f"no directory for sorted runs could be made in {within}: {error}. Nothing was stored. Set TMPDIR "
                    f"to a directory with room, or give the job more memory=."
                ) from error
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._remove = weakref.finalize(self, _removed, self._path, lock, os.getpid())
        return self._path

    def file(self) -> tuple[IO[bytes], str]:
        """A new file in it, open for writing, and its path.

        Raises:
            JobError: it cannot be made.
        """
        within = self.path
        try:
            handle, path = tempfile.mkstemp(dir=within, suffix=".run")
        except OSError as error:
            raise JobError(
                f"no file for a sorted run could be made in {within}: {error}. Nothing was stored, and the job's files "
                f"are removed. Set TMPDIR to a directory with room that nobody tidies up, or give the job more memory=."
            ) from error
        return os.fdopen(handle, "wb", buffering=1 << 18), path

    def remove(self) -> None:
        """Remove it with everything in it, if this process made it."""
        if self._remove is not None:
            self._remove()

    def __getstate__(self) -> dict[str, Any]:
        return {"_within": None, "_path": self.path, "_remove": None}


def sweep(within: str) -> None:
    """Remove the directories of this user whose owners are dead."""
    if fcntl is None:
        return
    for path in Path(within).glob(f"{PREFIX}*"):
        try:
            known = path.lstat()
            if not stat.S_ISDIR(known.st_mode) or known.st_uid != os.getuid():
                continue
            with open(path / LOCK, "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the owner is alive
                if time.time() - known.st_mtime > GRACE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # in use, or just removed by somebody else


def _removed(path: str, lock: IO[bytes], owner: int) -> None:
    lock.close()
    if os.getpid() == owner:  # a forked child has inherited the directory's name and not the directory
        shutil.rmtree(path, ignore_errors=True)
