"""Jobs on real data: reducers, declared fields, conditions, poison, and a result that becomes a collection.

Run it: python examples/jobs.py
"""

import tempfile
from importlib.resources import files

import vstore
from mapreduce import F, Job, MapError, Mean, Stats, Sum, TopK, run
from vstore.cli import main as command


def acres_by_county(key, fire):
    for county in fire["Counties"]:
        yield county, fire["AcresBurned"] or 0


def main(url):
    with vstore.open(url) as store:
        fires = store["fires"]

        # A job is a map function and a reducer. The result is ordered by key, and can be looked into.
        acres = run(over=fires, map=acres_by_county, reduce=Sum())
        print("acres by county:  ", list(acres)[:3], "…")
        plain = sum(fire["AcresBurned"] or 0 for fire in fires.values() if "Siskiyou" in fire["Counties"])
        assert acres["Siskiyou"] == plain

        # Only the named fields are decoded, and only documents that satisfy the condition are mapped.
        largest = run(
            over=fires,
            map=lambda key, fire: ((county, [fire.AcresBurned, fire.Name]) for county in fire.Counties),
            reduce=TopK(1),
            fields=["Name", "Counties", "AcresBurned"],
            where=F.AcresBurned > 1000,
        )
        print("largest of each:  ", dict(largest))
        assert all(acres > 1000 for _county, [[acres, _name]] in largest)

        # A job is a value: it can be kept, named, sent elsewhere, and run over anything that has documents.
        sizes = Job(map=lambda key, fire: [("all", fire["AcresBurned"] or 0)], reduce=Stats(), name="sizes")
        now, then = sizes.run(over=fires), sizes.run(over=fires.at("2022-09-04"))
        print("mean now, then:   ", now["all"].mean, then["all"].mean)

        # One document that nobody expected ends the job and is named; or it is left out and counted.
        fires["odd-fire"] = {"Counties": ["Kern"], "AcresBurned": "many"}
        try:
            run(over=fires, map=acres_by_county, reduce=Mean())
        except MapError as error:
            print("the job failed on:", error.key)
        else:
            raise AssertionError("text cannot be added up")
        means = run(over=fires, map=acres_by_county, reduce=Mean(), on_error="skip")
        print("skipped:          ", [(each.key, each.error) for each in means.skipped])
        assert means.counters.skipped == 1

        # A result becomes documents. Run again, it changes only what is different, so its history is worth reading.
        counties = store["counties"]
        run(over=fires, map=acres_by_county, reduce=Sum(), on_error="skip", into=counties)
        del fires["odd-fire"]
        fires.modify("mill-fire", lambda fire: {**fire, "AcresBurned": 5000})
        run(over=fires, map=acres_by_county, reduce=Sum(), into=counties)
        changed = {key: [version.value for version in counties.history(key)] for key in counties}
        print("what has changed: ", {key: found for key, found in changed.items() if len(found) > 1})
        assert [key for key, found in changed.items() if len(found) > 1] == ["Siskiyou"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sample = files("vstore.sample").joinpath("fires.jsonl.gz")
        url = f"sqlite:///{folder}/office.db"
        command(["import", "fires", str(sample), "--store", url, "--quiet"], standalone_mode=False)
        main(url)
