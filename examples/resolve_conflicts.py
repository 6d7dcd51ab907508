"""Two writers change one document without seeing each other: siblings, and six ways to settle them.

Run it: python examples/resolve_conflicts.py
"""

from vstore import DELETE, KEEP, Conflict, Siblings, open
from vstore.resolvers import counter, fields, json3, last_write, three_way, union

with open("sqlite://") as store:
    notes = store["notes"]

    def diverge(key, base, *changes):
        """Writes a version, and then one version for each change by a writer who had seen only the first."""
        seen = notes.put(key, base).context
        for change in changes:
            notes.put(key, change, context=seen)

    # Both changes are kept, and a plain read says so instead of choosing.
    diverge(
        "list", {"buy": ["tea"], "for": "Ann"}, {"buy": ["tea", "milk"], "for": "Ann"}, {"buy": ["tea"], "for": "Bo"}
    )
    try:
        print(notes["list"])
    except Conflict as conflict:
        siblings = conflict.document.siblings
    print("siblings:", [sibling.value for sibling in siblings])
    assert len(siblings) == 2
    assert [document.key for document in notes.conflicts()] == ["list"]

    # 1. A value: somebody looked and decided.
    diverge("a", {"n": 1}, {"n": 2}, {"n": 3})
    notes.resolve("a", {"n": 5})
    assert notes["a"] == {"n": 5}

    # 2. Three-way merge: each field has one change against the common ancestor, so both are taken.
    print("json3:   ", notes.resolve("list", json3).value)
    assert notes["list"] == {"buy": ["tea", "milk"], "for": "Bo"}

    # 3. Where changes exclude each other it does not guess. The siblings stay until somebody decides.
    diverge("b", {"title": "Draft"}, {"title": "Final"}, {"title": "Final!"})
    assert notes.resolve("b", json3).conflicted
    notes.resolve("b", last_write)  # as good as the writers' clocks
    assert notes["b"] == {"title": "Final!"}

    # 4. A policy for each field, and another resolver for the rest.
    merge = fields({"/tags": union, "/views": counter}, default=three_way(on_clash="last_write"))
    diverge(
        "c",
        {"tags": ["x"], "views": 10, "by": "Ann"},
        {"tags": ["x", "y"], "views": 13, "by": "Bo"},
        {"tags": ["x", "z"], "views": 11, "by": "Cy"},
    )
    print("fields:  ", notes.resolve("c", merge).value)
    assert notes["c"] == {"tags": ["x", "y", "z"], "views": 14, "by": "Cy"}

    # 5. Your own: a pure function of the siblings and their common ancestor.
    def longest(conflict: Siblings):
        texts = [sibling.value["text"] for sibling in conflict.siblings]
        if not any(texts):
            return DELETE
        return KEEP if len(texts) > 2 else {"text": max(texts, key=len)}

    diverge("d", {"text": "."}, {"text": "short"}, {"text": "somewhat longer"})
    diverge("e", {"text": "."}, {"text": ""}, {"text": "", "seen": True})
    notes.resolve("d", longest)
    assert notes["d"] == {"text": "somewhat longer"}
    assert notes.resolve("e", longest).deleted

    # 6. A resolver of the collection settles what readers are shown; nothing is written until somebody writes.
    diverge("f", {"n": 1, "m": 1}, {"n": 2, "m": 1}, {"n": 1, "m": 2})
    merged = store.collection("notes", resolver=json3)
    assert merged["f"] == {"n": 2, "m": 2}
    assert len(merged.read("f", on_conflict="winner").siblings) == 2
    merged.resolve("f")

    # A delete that had not seen an edit does not take the edit with it.
    seen = notes.put("g", {"kept": False}).context
    notes.put("g", {"kept": True}, context=seen)
    notes.delete("g", context=seen)
    assert notes["g"] == {"kept": True}

    assert list(notes.conflicts()) == []
    print("conflicts left: 0; versions of 'c':", [version.value["by"] for version in notes.history("c")])
