"""Processes that tests start and mostly kill: forked from one that has imported what all of them need.

A start takes 10 ms so, and half a second by the interpreter; and they are not
copies of a process that has threads. There is one such server in a process,
whatever module asks for it first, so what it imports is named here.
"""

from __future__ import annotations

import multiprocessing

LIVES = multiprocessing.get_context("forkserver")
LIVES.set_forkserver_preload(["tests.faults.writer", "tests.replication.puller", "tests.mapreduce.view_builder"])
