"""kill -9 at any moment of a build or an update: the view then equals one that is built from scratch."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

import vstore
from mapreduce.views import lease, states, tables
from tests.lives import LIVES
from tests.mapreduce import view_builder
from vstore import Store

SEED = 20261121


def killed_at(url: str, transaction: int, what: str) -> bool:
    """Runs the builder until it is killed at that transaction; False if it ended before."""
    process = LIVES.Process(target=view_builder.build, args=(url, os.environ["VSTORE_STATE"], transaction, what))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)  # it has told why
    return process.exitcode != 0


def contents(made: Any, update: str) -> tuple[Any, ...]:
    """All that a view shows."""
    return (
        list(made.rows(update=update)),
        list(made.rows(group_level=1, update="never")),
        made.value(start=[0], end=[3, 300], update="never"),
        [error.id for error in made.errors()],
    )


def assert_nothing_is_left(store: Store) -> None:
    """One build, and of its nodes only those that its trees refer to."""
    database = store.shards[0].database
    [(view_row)] = [states.ViewRow(*row) for row in database.ask(tables.VIEWS, (store.id,))]
    [build] = [states.Build.parse(row) for row in database.ask(tables.BUILDS, (view_row.id,))]
    assert (build.state, build.staged, view_row.building) == ("serving", 0, 0)
    assert not database.ask(tables.PARTS, (build.id,))
    from mapreduce.views.nodes import Nodes, unpacked

    nodes = Nodes(database.read(), build.id)
    reached = [root.node for root in (build.row_root, build.source_root, build.error_root) if root.node]
    for number in reached:
        level, columns = unpacked(nodes.load([number])[0])
        if level:
            reached.extend(columns[2])
    stored = {row[0] & (1 << tables.NODE_BITS) - 1 for row in database.ask(tables.NODE_IDS, (0, 1 << 62, 1_000_000))}
    assert stored == set(reached)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same small nodes here as in the processes that are killed."""
    from mapreduce.views import build, mapping, nodes, source, update

    for module, names in (
        (nodes, ("LEAF_ROWS", "FANOUT", "WRITE_BYTES")),
        (mapping, ("CHUNK_ROWS", "RUN_ROWS")),
        (build, ("WRITE_BYTES", "MERGED_RUNS")),
        (source, ("SPLIT_DOCUMENTS",)),
        (update, ("BATCH_DOCUMENTS", "VALUES")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))
    view_builder.small_nodes()


@pytest.mark.usefixtures("small")
def test_a_build_that_is_killed_again_and_again_is_taken_up_and_ends_right(
    engine: str, fresh_url: Callable[[str], str]
) -> None:
    """The next one goes on at the same snapshot at once, since its owner is known to be gone; nothing is left over."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    url = fresh_url(engine)
    with vstore.open(url) as store:
        store["d"].put_many((f"{n:04}", {"n": n}) for n in range(view_builder.DOCUMENTS))
    kills = 0
    while kills < 6 and killed_at(url, chance.randrange(2, 8 + 4 * kills), "build"):
        kills += 1
        with vstore.open(url) as store:
            n = chance.randrange(view_builder.DOCUMENTS)
            store["d"][f"{n:04}"] = {"n": n + 1_000}

    with vstore.open(url) as store:
        made = view_builder.view_of(store)
        found = contents(made, "before")
        assert_nothing_is_left(store)
        assert made.status().generation == 1  # it was one build, taken up each time
        made.rebuild()
        assert contents(made, "before") == found
        assert_nothing_is_left(store)
    assert kills > 1


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("what", ["update", "rebuild"])
def test_an_update_or_rebuild_that_is_killed_leaves_the_view_as_it_was_or_as_it_is_to_be(
    engine: str, what: str, fresh_url: Callable[[str], str]
) -> None:
    """Between kills the view is whole: what it shows without an update is a state that the collection had."""
    chance = random.Random(SEED + len(what))
    url = fresh_url(engine)
    with vstore.open(url) as store:
        store["d"].put_many((f"{n:04}", {"n": n}) for n in range(200))
        view_builder.view_of(store).update()

    for number in range(6):
        with vstore.open(url) as store:
            documents = store["d"]
            changed = chance.sample(range(250), 90)
            documents.put_many((f"{n:04}", {"n": n + 1_000 * number}) for n in changed[:70])
            documents.delete_many(f"{n:04}" for n in changed[70:])
        killed_at(url, chance.randrange(1, 8), what)
        with vstore.open(url) as store:
            made = view_builder.view_of(store)
            rows = list(made.rows(update="never"))
            assert sum(row.value for row in rows if row.key == "all") == made.value(key="all", update="never")

    with vstore.open(url) as store:
        made = view_builder.view_of(store)
        found = contents(made, "before")
        made.rebuild()
        assert contents(made, "before") == found
        assert_nothing_is_left(store)


def test_a_builder_that_lost_its_lease_writes_nothing_more(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps, another takes over and finishes; the sleeper then finds a view that serves, and leaves it alone."""
    from mapreduce.views import build

    local["d"].put_many((f"{n:04}", {"n": n}) for n in range(100))
    made = view_builder.view_of(local)
    real = build._Builder._trees
    taken: list[int] = []

    def sleep_first(self: Any, runs: Any) -> None:
        if not taken:
            taken.append(1)
            database = local.shards[0].database
            database.read().run(tables.LEASE, (0, self._build.id, self._build.owner))  # as if it had run out
            view_builder.view_of(local).update()
            taken.append(2)
        real(self, runs)

    monkeypatch.setattr(build._Builder, "_trees", sleep_first)

    made.update()

    assert taken == [1, 2]
    assert made.status().generation == 1
    assert_nothing_is_left(local)
    assert len(list(made.rows(update="never"))) == 196


def test_a_lease_is_held_by_the_living_only() -> None:
    """Of this process, of this machine, and of others until it ends."""
    with lease.owner() as name:
        assert lease.is_held(name, lease.until_us())
        assert not lease.is_held(name, lease.now_us() - 1)
    assert not lease.is_held(name, lease.until_us())
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    machine = name.split(":")[0]
    assert not lease.is_held(f"{machine}:{int(gone.stdout)}:x", lease.until_us())
    assert lease.is_held(f"elsewhere:{int(gone.stdout)}:x", lease.until_us())
    assert not lease.is_held("", lease.until_us())


def test_a_lease_is_renewed_while_a_slice_takes_long(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else takes over a build whose map function is slow."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.15)
    local["d"].put_many((f"{n:04}", {"n": n}) for n in range(3))
    held: list[bool] = []

    def slow(key: str, value: Any) -> list[tuple[Any, Any]]:
        time.sleep(0.2)
        [row] = local.shards[0].database.ask(tables.BUILDS, (made._definition.needed_id,))
        current = states.Build.parse(row)
        held.append(lease.is_held(current.owner, current.lease_us))
        return [(key, 1)]

    made = vstore_view(local, slow)
    made.update()

    assert held == [True] * 3


def vstore_view(store: Store, function: Any) -> Any:
    """A view that is built in this process."""
    from mapreduce import view

    return view(store["d"], "slow", map=function, workers=1, version=1)
