"""Rows of a source that are damaged in a way that no rule can work with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import vstore
from replication.pull import pull
from replication.sync import PartialSync, sync
from tests.replication.links import handle_of
from vstore import Store


def test_a_row_that_cannot_be_placed_stops_its_collection_only_and_comes_back_by_hand(
    url: str, fresh_url: Callable[[str], str]
) -> None:
    """A flipped bit in a clock: what nobody can place, nobody can say is known. Removed, it comes from a replica."""
    with vstore.open(url) as source, vstore.open(fresh_url("sqlite")) as target, vstore.open() as other:
        source["notes"].put_many({f"k{n}": n for n in range(5)})
        source["tasks"]["t"] = 1
        sync(source, other)
        source["notes"]["k3"] = 33
        sync(source, other)
        write = source.shards[0].database.read().text
        write("UPDATE vs_version SET clock = 'x:y' WHERE \"key\" = 'k3'".replace('"', quote_of(source)))

        with pytest.raises(PartialSync, match=r"the row of version .* cannot be read") as failed:
            sync(source, target)

        assert isinstance(failed.value.failed["notes"], vstore.Corrupt)
        assert target["tasks"]["t"] == 1
        assert {finding.key for finding in source.check() if finding.kind == "lineage"} == {"k3"}

        for table in ("vs_head", "vs_version"):
            write(f"DELETE FROM {table} WHERE \"key\" = 'k3'".replace('"', quote_of(source)))
        pull(handle_of(other), handle_of(source), reconcile="always")
        sync(source, target)

        assert source["notes"]["k3"] == target["notes"]["k3"] == 33
        assert list(target.check()) == []


def quote_of(store: Store) -> str:
    """What names of columns are quoted with."""
    return "`" if store.shards[0].database.dialect.name == "mariadb" else '"'
