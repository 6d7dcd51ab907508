"""A view: rows sorted by keys of any JSON type, sums over ranges and groups, kept up to date as documents change.

Run it: python examples/views.py
"""

import tempfile
from importlib.resources import files

import vstore
from mapreduce import Sum, view
from vstore.cli import main as command


def by_place(key, fire):
    for county in fire["Counties"]:
        yield [county, fire["Name"]], fire["AcresBurned"] or 0


def main(url):
    with vstore.open(url) as store:
        fires = store["fires"]
        places = view(fires, "by_place", map=by_place, reduce=Sum())

        # The first question builds it. A row says which document it is from.
        first = next(iter(places.rows()))
        print("the first row:   ", first.key, first.value, first.id)
        print(
            "of one county:   ", [(row.key[1], row.value) for row in places.rows(start=["Placer"], end=["Placer", {}])]
        )

        # Reductions of everything, of a range, of groups: from partial results, not from all rows.
        print("in all:          ", places.value())
        print("by county:       ", [(row.key, row.value) for row in places.rows(group_level=1, limit=3)], "…")
        plain = sum(acres for key, fire in fires.items() for _place, acres in by_place(key, fire))
        assert places.value() == plain

        # Changes, deletions included, cost what the changed documents cost.
        before = places.value(start=["Siskiyou"], end=["Siskiyou", {}])
        fires.modify("mill-fire", lambda fire: {**fire, "AcresBurned": fire["AcresBurned"] + 100})
        assert places.value(start=["Siskiyou"], end=["Siskiyou", {}]) == before + 100
        del fires["mill-fire"]
        assert list(places.rows(key=["Siskiyou", "Mill Fire"])) == []

        # An old answer at once, for those who can do with it.
        fires["new-fire"] = {"Name": "New Fire", "Counties": ["Placer"], "AcresBurned": 1}
        stale = places.value(update="never")
        assert places.value() == stale + 1
        print("stale and fresh: ", stale, places.value())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sample = files("vstore.sample").joinpath("fires.jsonl.gz")
        url = f"sqlite:///{folder}/office.db"
        command(["import", "fires", str(sample), "--store", url, "--quiet"], standalone_mode=False)
        main(url)
