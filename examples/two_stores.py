"""A laptop and an office, each with a store of its own, that meet now and then.

Run it: python examples/two_stores.py
"""

import vstore
from replication import sync
from vstore.resolvers import json3

with vstore.open("sqlite://") as laptop, vstore.open("sqlite://") as office:
    # The office has 500 documents; the first sync brings them to the laptop.
    office["notes"].put_many((f"note-{n:03}", {"title": f"Note {n}", "done": False}) for n in range(500))
    report = sync(laptop, office)
    print("first sync: ", report)
    assert len(laptop["notes"]) == 500

    # On the train: both sides go on working.
    on_train, at_desk = laptop["notes"], office["notes"]
    on_train["note-000"] = {"title": "Note 0", "done": True}  # only here
    del at_desk["note-001"]  # only there
    on_train["note-002"] = {"title": "Note 2, corrected", "done": False}  # both, different fields
    at_desk["note-002"] = {"title": "Note 2", "done": True}
    on_train["note-003"] = {"title": "Third", "done": False}  # both, the same field
    at_desk["note-003"] = {"title": "Note Three", "done": False}
    on_train["note-004"] = {"title": "same", "done": True}  # both, alike
    at_desk["note-004"] = {"title": "same", "done": True}

    # Together again. A callback settles what it can, and what it cannot stays visible at both.
    report = sync(laptop, office, resolver=json3)
    print("second sync:", report)
    assert report.resolved == ["note-002"]
    assert report.conflicts == 1
    for notes in (on_train, at_desk):
        assert notes["note-000"]["done"]
        assert "note-001" not in notes
        assert notes["note-002"] == {"title": "Note 2, corrected", "done": True}
        assert [document.key for document in notes.conflicts()] == ["note-003"]
        assert notes["note-004"] == {"title": "same", "done": True}  # the same edit is one version, not a conflict

    # One side decides, and the next sync tells the other.
    at_desk.resolve("note-003", {"title": "Note three", "done": False})
    sync(laptop, office)
    assert on_train["note-003"] == {"title": "Note three", "done": False}
    assert on_train.read("note-003").rev == at_desk.read("note-003").rev

    # With nothing new, a sync compares positions and moves nothing.
    report = sync(laptop, office)
    print("third sync: ", report)
    assert not report

    # Both sides kept what led there, except for bodies that were replaced before the other side saw them.
    print("history of note-002 at the office:")
    for version in at_desk.history("note-002"):
        print("  ", version.rev[:10], version.value)
