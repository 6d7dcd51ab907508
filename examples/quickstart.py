"""A minute of vstore: store documents, change them safely, look at what they were.

Run it: python examples/quickstart.py
"""

import tempfile

import vstore

with tempfile.TemporaryDirectory() as folder:
    url = f"sqlite:///{folder}/app.db"

    with vstore.open(url) as store:
        posts = store["posts"]  # made by its first write

        # A collection is a mapping from keys to JSON values.
        posts["hello"] = {"title": "Hello", "tags": []}
        posts["bye"] = {"title": "Goodbye"}
        del posts["bye"]
        print("keys:", list(posts))
        assert dict(posts) == {"hello": {"title": "Hello", "tags": []}}

        # What a read returns is yours alone. `edit` writes the change back when the block ends.
        with posts.edit("hello") as value:
            value["tags"].append("first")

        # `modify` repeats the change if somebody else was faster, so no update is lost.
        posts.modify("hello", lambda value: {**value, "likes": value.get("likes", 0) + 1})
        print("now: ", posts["hello"])
        assert posts["hello"] == {"title": "Hello", "tags": ["first"], "likes": 1}

        # `match=` refuses a write whose author had not seen the latest version.
        seen = posts.read("hello")
        posts["hello"] = {**seen.value, "likes": 2}
        try:
            posts.put("hello", {"title": "too late"}, match=seen.rev)
        except vstore.PreconditionFailed as refused:
            print("refused:", str(refused)[:54], "…")

    # Everything was durable before the store was closed; the history is there too.
    with vstore.open(url, create=False) as store:
        posts = store["posts"]
        print("history of 'hello', newest first:")
        for version in posts.history("hello"):
            print("  ", version.rev[:10], version.value)
        assert [version.value.get("likes") for version in posts.history("hello")] == [2, 1, None, None]

        first, last = list(posts.history("hello"))[-1], posts.read("hello")
        print("what changed since the first:", posts.diff("hello", first.rev))
        assert last.rev.startswith("4-")
        assert next(posts.history("bye")).deleted  # the newest version of a deleted document is a tombstone
