"""Keeping views fresh while others write: for daemons, and for `vstore views --follow`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapreduce.views.declared import Declaration, views_in
from mapreduce.views.view import View
from vstore.store import Store

log = logging.getLogger("mapreduce")

POLL_SECONDS = 0.5
"""How long commits of other processes wait at most. Those of this process are seen at once."""

BACK_OFF_SECONDS = 1.0, 60.0
"""How long a view that failed is left alone: at first, and at most."""


@dataclass(frozen=True)
class Kept:
    """What keeping a view came to just now: so many changed documents taken in, or an error."""

    view: View
    documents: int
    seconds: float
    error: Exception | None = None


def keep_fresh(
    store: Store,
    declarations: Sequence[Declaration],
    *,
    stop: threading.Event | None = None,
    told: Callable[[Kept], object] = lambda kept: None,
    workers: int | None = None,
) -> None:
    """Builds the declared views and takes in whatever is committed, until `stop` is set.

    Args:
        stop: looked at several times a second; a build that is under way stays
            for whoever goes on with it.
        told: called after each update that did something, and after each failure.

    A view that fails is tried again after a while, twice as long each time, and
    does not keep the others waiting longer than its own attempt.

    Raises:
        ConfigurationError: a declaration cannot be used. Nothing was done.
    """
    ended = stop if stop is not None else threading.Event()
    views = views_in(store, declarations, workers=workers)
    waits = [0.0] * len(views)
    due = [0.0] * len(views)
    while not ended.is_set():
        news = store.news.number
        for n, view in enumerate(views):
            if ended.is_set() or time.monotonic() < due[n]:
                continue
            began = time.monotonic()
            try:
                documents = view.update(stop=ended)
            except Exception as error:  # of any kind: the other views have to go on
                waits[n] = min(max(2 * waits[n], BACK_OFF_SECONDS[0]), BACK_OFF_SECONDS[1])
                due[n] = time.monotonic() + waits[n]
                log.warning("the view %r could not be updated, next try in %.0f s: %s", view.name, waits[n], error)
                told(Kept(view, 0, time.monotonic() - began, error))
            else:
                waits[n] = 0.0
                if documents:
                    told(Kept(view, documents, time.monotonic() - began))
        if not ended.is_set():
            store.news.wait(news, POLL_SECONDS)
