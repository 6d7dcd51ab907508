"""A process that pulls until it is killed."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection

import replication.batches
import replication.feed
import vstore
from replication.pull import Progress, pull
from tests.lives import LIVES


def pull_until_killed(source_url: str, target_url: str, state: str, rows: int, told: Connection) -> None:
    """One pull in small batches; says after each how many rows it has moved."""
    replication.feed.PAGE_ROWS = replication.batches.PAGE_ROWS = rows
    with vstore.open(source_url, state=state) as source, vstore.open(target_url, state=state) as target:
        there, here = source.handle("notes"), target.handle("notes")
        assert there is not None
        assert here is not None

        def tell(progress: Progress) -> None:
            told.send(progress.pulled.rows)

        pull(there, here, on_batch=tell)
    told.send(-1)


class Life:
    """One such process; `killed` ends it after so many batches."""

    def __init__(self, source_url: str, target_url: str, rows: int) -> None:
        """Starts it."""
        self._told, theirs = LIVES.Pipe(duplex=False)
        arguments = source_url, target_url, os.environ["VSTORE_STATE"], rows, theirs
        self._process = LIVES.Process(target=pull_until_killed, args=arguments)
        self._process.start()
        theirs.close()

    def killed(self, batches: int) -> tuple[int, bool]:
        """Kills it once it has told of so many batches: rows that it told of, and whether it had come to its end."""
        rows = 0
        try:
            for _ in range(batches):
                said = self._told.recv()
                if said < 0:
                    return rows, True
                rows = said
            os.kill(self._process.pid or 0, signal.SIGKILL)
            while (said := self._told.recv()) >= 0:  # what it told of before it died
                rows = said
        except EOFError:
            return rows, False
        finally:
            self._process.join()
            self._told.close()
        return rows, True
