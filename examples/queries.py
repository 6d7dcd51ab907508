"""Queries: conditions, columns, groups, order, missing and null, questions about the past.

Run it: python examples/queries.py
"""

import tempfile
from importlib.resources import files

import vstore
from mapreduce import Count, Doc, F, Max, Sum, query
from vstore.cli import main as command


def main(url):
    with vstore.open(url) as store:
        fires = store["fires"]

        # Nothing runs until the query is read. Rows are dicts, a member for each column.
        large = query(fires).where(F.AcresBurned > 5000, F.PercentContained < 100)
        named = large.select(Doc.key, F.Name, acres=F.AcresBurned).order_by("-acres")
        print("large and burning: ", list(named.limit(2)))
        assert large.count() == len(list(large)) == 3

        # Groups take the same reducers as jobs. A path may lead into lists.
        counties = query(fires).group_by(county=F.Counties[0]).aggregate(fires=Count(), acres=Sum(F.AcresBurned))
        print("by county:         ", counties.order_by("-acres", "county").first())
        whole = query(fires).aggregate(fires=Count(), largest=Max(F.AcresBurned)).one()
        print("in all:            ", whole)
        assert whole == {"fires": 11, "largest": max(fire["AcresBurned"] or 0 for fire in fires.values())}

        # Lists are asked with any and all; text with startswith and regular expressions.
        placer = query(fires).where(F.Counties.any() == "Placer").select(F.Name).order_by(F.Name)
        print("in Placer:         ", [row["Name"] for row in placer])
        assert [row["Name"] for row in placer] == ["Hill Fire", "Mosquito Fire"]

        # What is missing is not null, and a comparison with either never raises: it is false.
        fires["sketch"] = {"Name": "Sketch"}
        missing = query(fires).where(~F.AcresBurned.exists()).select(Doc.key)
        null = query(fires).where(F.Injuries.is_null()).count()
        print("without a size:    ", [row["key"] for row in missing], "and with injuries unknown:", null)
        assert [row["key"] for row in missing] == ["sketch"]

        # A query is a value: the past, a part of the keys, or documents from anywhere can be asked as well.
        for day in ("2022-09-03", "2022-09-06", "2022-09-09"):
            print(f"burning {day}:", query(fires.at(day)).where(F.PercentContained < 100).count())
        assert query([("a", {"n": 1}), ("b", {"n": 2.5})]).aggregate(n=Sum(F.n)).one() == {"n": 3.5}

        # How it will run: what is decoded, in which process, and about how many documents.
        print(large.explain())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sample = files("vstore.sample").joinpath("fires.jsonl.gz")
        url = f"sqlite:///{folder}/office.db"
        command(["import", "fires", str(sample), "--store", url, "--quiet"], standalone_mode=False)
        main(url)
