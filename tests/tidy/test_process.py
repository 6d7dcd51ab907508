"""The guard of all tests sees what a test leaves changed: each of these once made another test fail, or could."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import changed, process


def test_nothing_has_changed_when_nothing_was_done() -> None:
    assert changed(process(), process()) == {}


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda patch: patch.setattr(logging.getLogger("replication"), "level", 40), "the logger replication"),
        (lambda patch: patch.setattr(logging.getLogger("vstore"), "disabled", True), "the logger vstore"),
        (lambda patch: patch.setattr(logging.getLogger("mapreduce"), "handlers", [object()]), "the logger mapreduce"),
        (lambda patch: patch.setenv("VSTORE_NEW", "1"), "$VSTORE_NEW"),
        (lambda patch: patch.delenv("VSTORE_STATE"), "$VSTORE_STATE"),
        (lambda patch: patch.chdir("/"), "the working directory"),
    ],
)
def test_what_is_left_changed_is_named(
    change: Callable[[pytest.MonkeyPatch], None], seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A level, a handler, a variable that is new or gone, another folder; put back, it is nothing."""
    monkeypatch.chdir(tmp_path)
    before = process()

    with monkeypatch.context() as patch:
        change(patch)
        during = process()

    assert list(changed(before, during)) == [seen]
    assert changed(before, process()) == {}


def test_a_handler_of_a_signal_is_named() -> None:
    """A program that was left without its Ctrl-C."""
    before = process()
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        during = process()
    finally:
        signal.signal(signal.SIGINT, old)

    assert list(changed(before, during)) == ["SIGINT"]
