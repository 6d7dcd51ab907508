"""The past of a document and of a whole collection: history, `at`, diff, revert, and what pruning takes away.

Run it: python examples/time_travel.py
"""

import vstore

with vstore.open("sqlite://") as store:  # a store for as long as it is open
    prices = store["prices"]

    # Five changes; the stamps are the moments to travel to. They are microseconds since 1970 UTC.
    opened = prices.put("tea", {"cents": 300}).stamp
    prices["coffee"] = {"cents": 250}
    raised = prices.put("tea", {"cents": 350, "note": "new supplier"}).stamp
    dropped = prices.delete("coffee").stamp
    prices["tea"] = {"cents": 1}  # a typing error

    # The whole collection as it was shown at a moment: a read-only mapping.
    print("when it opened:  ", dict(prices.at(opened)))
    print("after the raise: ", dict(prices.at(raised)))
    print("after the drop:  ", dict(prices.at(dropped)))
    print("now:             ", dict(prices))
    assert dict(prices.at(opened)) == {"tea": {"cents": 300}}
    assert dict(prices.at(raised)) == {"coffee": {"cents": 250}, "tea": {"cents": 350, "note": "new supplier"}}
    assert dict(prices.at(dropped)) == {"tea": {"cents": 350, "note": "new supplier"}}
    assert dict(prices) == {"tea": {"cents": 1}}

    # Who wants a date writes it as ISO 8601; before the first write there was nothing.
    assert len(prices.at("1999-12-31")) == 0

    # A difference is a JSON Patch (RFC 6902), so any language can apply it.
    wrong, right, first = prices.history("tea")
    print("raise as a patch:", prices.diff("tea", first.rev, right.rev))
    assert prices.diff("tea", first.rev, right.rev) == [
        {"op": "add", "path": "/note", "value": "new supplier"},
        {"op": "replace", "path": "/cents", "value": 350},
    ]

    # A revert is a new version with old content: the mistake stays in history, where it can be explained.
    prices.revert("tea", right.rev)
    assert prices["tea"] == right.value
    assert [version.value["cents"] for version in prices.history("tea")] == [350, 1, 350, 300]

    # A deleted document comes back the same way.
    lost = next(version for version in prices.history("coffee") if not version.deleted)
    prices.revert("coffee", lost.rev)
    assert prices["coffee"] == {"cents": 250}

    # Versions take space until they are pruned. What is left of one is its place in history.
    pruned = prices.prune(keep_last=2)
    print("pruned:          ", pruned)
    assert pruned.pruned == 3
    assert [version.value["cents"] for version in prices.history("tea")] == [350, 1]
    try:
        prices.at(opened)["tea"]
    except vstore.HistoryPruned as gone:
        print("no longer known: ", str(gone)[:75], "…")
    else:
        raise AssertionError("the first price should be gone")
