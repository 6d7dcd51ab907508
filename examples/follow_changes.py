"""A consumer that keeps a search index up to date from the change feed, and never misses a commit.

Run it: python examples/follow_changes.py
"""

import threading

import vstore
from vstore import Change

index: dict[str, set[str]] = {}  # word → keys


def apply(change: Change) -> None:
    """Takes a document out of the index, and puts what it is now back in."""
    for keys in index.values():
        keys.discard(change.key)
    if not change.deleted:
        for word in change.value["text"].lower().split():
            index.setdefault(word, set()).add(change.key)


def catch_up(store: vstore.Store, **how: object) -> int:
    """Applies what is new since the checkpoint, and notes how far it got."""
    feed = store["notes"].changes(since=store.checkpoint("search"), values=True, **how)
    count = 0
    for change in feed:
        apply(change)
        count += 1
        # After the work: a crash in between repeats a change, and never skips one.
        store.set_checkpoint("search", feed.since)
    return count


with vstore.open("sqlite://") as store:
    notes = store["notes"]
    notes["a"] = {"text": "Tea with Ann"}
    notes["b"] = {"text": "Call Bo"}
    notes["b"] = {"text": "Call Cy"}

    # The compacted feed has the latest state: two documents, although there were three writes.
    print("first pass: ", catch_up(store), "changes")
    assert index["tea"] == {"a"}
    assert "bo" not in index
    assert [change.rev[:2] for change in notes.changes(full=True) if change.key == "b"] == ["1-", "2-"]

    # Later, from the checkpoint: only what is new, deletions too.
    del notes["a"]
    notes["c"] = {"text": "Tea with Di"}
    print("second pass:", catch_up(store), "changes")
    assert index["tea"] == {"c"}
    assert catch_up(store) == 0

    # `follow` waits for more. A commit of this process wakes it; those of others are seen within half a second.
    follower = threading.Thread(target=catch_up, args=(store,), kwargs={"follow": True, "idle_seconds": 1.0})
    follower.start()
    notes.put_many({f"n{n}": {"text": f"tea number {n}"} for n in range(100)})
    follower.join()
    print("followed:   ", len(index["tea"]), "documents about tea")
    assert len(index["tea"]) == 101

    # A token belongs to one feed. Another collection's is refused, never misread.
    store["other"]["x"] = 1
    try:
        store["other"].changes(since=store.checkpoint("search"))
    except vstore.InvalidToken as refused:
        print("refused:    ", refused)
    else:
        raise AssertionError("a foreign token must be refused")
