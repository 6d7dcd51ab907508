"""The store as a whole: several shards of which one fails, and what is refused after the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import vstore
from vstore import ConfigurationError, PartialWrite, Store, Unavailable
from vstore.shard import Shard


@pytest.fixture
def two(fresh_url: Callable[[str], str]) -> Any:
    """A store of two SQLite shards."""
    with vstore.open(fresh_url("sqlite"), fresh_url("sqlite")) as store:
        yield store


def failing(monkeypatch: pytest.MonkeyPatch, shard: Shard, error: Exception) -> None:
    """Makes every write to one shard fail."""
    apply = Shard.apply

    def fails(self: Shard, *args: Any, **options: Any) -> Any:
        if self is shard:
            raise error
        return apply(self, *args, **options)

    monkeypatch.setattr(Shard, "apply", fails)


def test_a_batch_of_which_one_shard_failed_says_what_is_durable(two: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both lists are exact, and the same call completes the batch when the shard is back."""
    posts = two["posts"]
    posts["first"] = 0
    batch = {f"k{n}": n for n in range(40)}
    of_second = {key for key in batch if two.shard_of("posts", key) == 1}
    failing(monkeypatch, two.shards[1], Unavailable("the second database is away"))

    with pytest.raises(PartialWrite, match="20|durable") as refused:
        posts.put_many(batch)

    assert refused.value.failed.keys() == of_second
    assert refused.value.written.keys() == batch.keys() - of_second
    assert {key: document.value for key, document in refused.value.written.items()} == {
        key: batch[key] for key in batch.keys() - of_second
    }
    monkeypatch.undo()
    assert posts.get_many(batch).missing == [key for key in batch if key in of_second]
    posts.put_many(batch)
    assert posts.get_many(batch) == batch


def test_an_unknown_outcome_is_not_called_unwritten(two: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shard does not know what became of its part."""
    posts = two["posts"]
    posts["first"] = 0
    failing(monkeypatch, two.shards[1], Unavailable("lost at COMMIT.", outcome_unknown=True))

    with pytest.raises(PartialWrite, match="not known for") as refused:
        posts.put_many({f"k{n}": n for n in range(40)})

    assert all(isinstance(error, Unavailable) and error.outcome_unknown for error in refused.value.failed.values())


def test_a_closed_store_refuses_everything(local: Store) -> None:
    """Reads and writes, of collections that were open too."""
    posts = local["posts"]
    posts["k"] = 1

    local.close()

    for use in (lambda: posts["k"], lambda: posts.put("k", 2), lambda: list(local), lambda: posts.get("x")):
        with pytest.raises(ConfigurationError, match="is closed"):
            use()


def test_a_collection_made_in_a_transaction_that_failed_was_never_there(local: Store) -> None:
    """Its place may be given to another collection, which it must not be taken for."""
    with pytest.raises(RuntimeError), local.transaction():
        local["a"]["k"] = 1
        raise RuntimeError("changed my mind")

    local["b"]["k"] = "b's own"

    assert "k" not in local["a"]
    local["a"]["z"] = 1
    assert dict(local["b"]) == {"k": "b's own"}


def test_a_checkpoint_is_refused_in_a_transaction_of_another_shard(two: Store) -> None:
    """It could be there without the data that it speaks of."""
    with pytest.raises(ConfigurationError, match="of one shard"), two.transaction(shard=1):
        two.set_checkpoint("position", 7)

    assert two.checkpoint("position") is None
