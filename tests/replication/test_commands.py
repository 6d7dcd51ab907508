"""`vstore replicate`, and what `vstore sync` takes and leaves."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import vstore as library
from tests.acceptance.command import process, values, vstore
from tests.replication.test_replicator import until


@pytest.fixture
def here(tmp_path: Path) -> str:
    """The URL of a store with a few documents, one of them with a past."""
    url = f"sqlite:///{tmp_path}/here.db"
    with library.open(url) as store:
        store["notes"].put_many({"fr/1": {"n": 1}, "de/1": {"n": 2}})
        store["notes"]["fr/1"] = {"n": 3}
        store["tasks"]["t"] = {"n": 4}
    return url


def content(url: str) -> dict[str, dict[str, Any]]:
    """Every live document by collection."""
    with library.open(url, create=False) as store:
        return {name: dict(store[name]) for name in store}


def test_replicate_takes_one_way_and_goes_on_where_it_was(here: str, tmp_path: Path) -> None:
    """The target is made, and what it has of its own stays there."""
    there = f"sqlite:///{tmp_path}/there.db"

    first = vstore("replicate", "--to", there, store=here)
    with library.open(there) as store:
        store["notes"]["own"] = 1
    [again] = values(vstore("replicate", "--to", there, "--json", store=here))

    assert first.exit_code == 0
    assert first.stdout == "4 rows taken, 4 new, 21 bytes\n"  # with the stub of the first version
    assert (again["rows"], again["state"], again["pending"]) == (0, "idle", 0)
    assert content(there)["notes"] == {"fr/1": {"n": 3}, "de/1": {"n": 2}, "own": 1}
    assert "own" not in content(here)["notes"]


def test_replicate_takes_what_is_asked_for(here: str, tmp_path: Path) -> None:
    """Collections, keys that begin so, what a function wants, and history."""
    (tmp_path / "wants.py").write_text("def large(key, value):\n    return value['n'] > 2\n")

    def to(name: str, *options: str) -> dict[str, dict[str, Any]]:
        url = f"sqlite:///{tmp_path}/{name}.db"
        done = vstore("replicate", "--to", url, *options, store=here)
        assert done.exit_code == 0, done.output
        return content(url)

    assert to("a", "tasks") == {"tasks": {"t": {"n": 4}}}
    assert to("b", "notes", "--prefix", "fr/") == {"notes": {"fr/1": {"n": 3}}}
    assert to("c", "--filter", f"{tmp_path}/wants.py:large") == {"notes": {"fr/1": {"n": 3}}, "tasks": {"t": {"n": 4}}}
    assert to("e", "--field", "n=2") == {"notes": {"de/1": {"n": 2}}, "tasks": {}}
    assert to("f", "notes", "--field", "n=2", "--field", "n=3", "--prefix", "fr") == {"notes": {"fr/1": {"n": 3}}}
    to("d", "--history", "all")
    history = values(vstore("history", "notes", "fr/1", "--json", store=f"sqlite:///{tmp_path}/d.db"))
    assert [version["value"]["n"] for version in history] == [3, 1]


def test_replicate_takes_both_ways_if_that_is_asked_for(here: str, tmp_path: Path) -> None:
    """Also a collection that only the target has."""
    there = f"sqlite:///{tmp_path}/there.db"
    with library.open(there) as store:
        store["notes"]["own"], store["more"]["m"] = 1, 2

    done = vstore("replicate", "notes", "more", "--both", "--to", there, store=here)

    assert done.exit_code == 0, done.stderr
    assert content(here)["more"] == content(there)["more"] == {"m": 2}
    assert content(here)["notes"] == content(there)["notes"] == {"fr/1": {"n": 3}, "de/1": {"n": 2}, "own": 1}
    assert "tasks" not in content(there)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--history", "some"], 2, "is not a moment"),
        (["--resolver", "json4"], 2, "no resolver is named 'json4'"),
        (["--field", "open"], 2, "--field 'open' is not PLACE=VALUE"),
        (["--filter", "nowhere.py:f"], 2, "is not a Python file"),
        (["nothing"], 3, "the store has no collection 'nothing'"),
    ],
)
def test_replicate_refuses_what_it_cannot_do(
    here: str, tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    refused = vstore("replicate", "--to", f"sqlite:///{tmp_path}/there.db", *options, store=here)

    assert refused.exit_code == code
    assert words in refused.stderr


def test_replicate_with_a_resolver_settles_what_it_makes(here: str, tmp_path: Path) -> None:
    there = f"sqlite:///{tmp_path}/there.db"
    vstore("replicate", "--to", there, store=here)
    with library.open(here) as one, library.open(there) as other:
        one["notes"]["fr/1"], other["notes"]["fr/1"] = {"n": 3, "a": 1}, {"n": 3, "b": 1}

    left = vstore("replicate", "--to", there, store=here)
    settled = vstore("replicate", "--to", there, "--resolver", "json3", store=here)

    assert "1 conflict at the target" in left.stdout
    assert "settled 1 conflict" in settled.stdout
    assert content(there)["notes"]["fr/1"] == {"n": 3, "a": 1, "b": 1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_live_it_goes_on_until_it_is_interrupted(here: str, tmp_path: Path, number: int) -> None:
    """And ends well, with what it has taken."""
    there = f"sqlite:///{tmp_path}/there.db"
    with process("replicate", "--live", "--to", there, "--store", here, env=os.environ) as running:
        until(lambda: running.poll() is not None or (tmp_path / "there.db").exists())
        with library.open(here) as store:
            store["notes"]["later"] = 1

        def arrived() -> bool:
            assert running.poll() is None
            with library.open(there) as store:
                return "later" in store["notes"] and "t" in store["tasks"]

        until(arrived)
        running.send_signal(number)
        out, err = running.communicate(timeout=30)

    assert running.returncode == 0, err
    assert out == b"5 rows taken, 5 new, 22 bytes\n", err


def test_sync_takes_what_is_asked_for_both_ways(here: str, tmp_path: Path) -> None:
    there = f"sqlite:///{tmp_path}/there.db"
    with library.open(there) as store:
        store["notes"].put_many({"fr/2": {"n": 5}, "de/2": {"n": 6}})

    filtered = vstore("sync", "notes", "--with", there, "--prefix", "fr/", store=here)
    between = content(here)["notes"]
    whole = vstore("sync", "notes", "--with", there, "--history", "all", store=here)

    assert filtered.exit_code == whole.exit_code == 0
    assert between == {"fr/1": {"n": 3}, "de/1": {"n": 2}, "fr/2": {"n": 5}}
    assert content(here)["notes"] == content(there)["notes"]
    assert len(content(here)["notes"]) == 4
    history = values(vstore("history", "notes", "fr/1", "--json", store=there))
    assert [version["value"]["n"] for version in history] == [3, 1]


def test_what_could_not_be_taken_is_said_and_listed_with_its_reason(here: str, tmp_path: Path) -> None:
    """The rest is there; and once the function can be asked, nothing waits any more."""
    there = f"sqlite:///{tmp_path}/there.db"
    wants = tmp_path / "wants_or_fails.py"
    wants.write_text("def wanted(key, value):\n    return 10 / (value['n'] - 3)\n")

    first = vstore("sync", "notes", "--with", there, "--filter", f"{wants}:wanted", store=here)
    [listed] = values(vstore("parked", "--json", store=there))
    told = vstore("parked", "notes", store=there)

    assert first.stdout == "notes: sent 1 row, received 0, 1 version could not be taken: see `vstore parked`\n"
    assert (listed["collection"], listed["key"], listed["tries"]) == ("notes", "fr/1", 1)
    assert listed["reason"] == "ZeroDivisionError: division by zero"
    assert "notes: fr/1 " in told.stdout
    assert "ZeroDivisionError: division by zero" in told.stdout
    assert vstore("parked", store=here).stdout == ""


def test_sync_says_why_a_resolver_did_not_settle(here: str, tmp_path: Path) -> None:
    there = f"sqlite:///{tmp_path}/there.db"
    (tmp_path / "broken.py").write_text("def merge(conflict):\n    return conflict.nothing\n")
    with library.open(here) as one, library.open(there) as other:
        one["tasks"]["t"], other["tasks"]["t"] = 5, 6

    done = vstore("sync", "tasks", "--with", there, "--resolver", f"{tmp_path}/broken.py:merge", store=here)

    assert done.exit_code == 0
    assert "1 conflict left (the resolver did not settle t: AttributeError: " in done.stdout
    assert done.stdout.endswith("): see `vstore conflicts`\n")


def test_what_went_away_is_told_as_well(here: str, tmp_path: Path) -> None:
    """What a purge has forgotten, and what has left a filter; that is no nothing."""
    there, part = f"sqlite:///{tmp_path}/there.db", f"sqlite:///{tmp_path}/part.db"
    only = ("replicate", "notes", "--to", part, "--field", "n=2")
    vstore("sync", "notes", "--with", there, store=here)
    vstore(*only, store=here)
    vstore("delete", "notes", "fr/1", store=here)
    vstore("put", "notes", "de/1", '{"n": 5}', store=here)
    vstore("sync", "notes", "--with", there, store=here)
    vstore("purge", "notes", "--grace-days", "0", store=here)

    synced = vstore("sync", "notes", "--with", there, store=here)
    left = vstore(*only, store=here)

    assert synced.stdout == "notes: sent 0 rows, received 0, 1 deleted document forgotten after a purge\n"
    assert "1 document left the filter" in left.stdout
