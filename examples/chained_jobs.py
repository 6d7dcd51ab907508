"""Chained jobs over all versions: how much was burning in each county, day by day.

The first job reads every version that was ever written, and keeps each fire's last report of a day. The second runs
over its result and turns fires into counties; a fire that burned in two counts in both.

Run it: python examples/chained_jobs.py
"""

import tempfile
from datetime import UTC, datetime
from importlib.resources import files

import vstore
from mapreduce import Last, Max, Sum, run
from vstore.cli import main as command


def reports(key, version):
    if not version.deleted and version.value["AcresBurned"] is not None:
        day = datetime.fromtimestamp(version.stamp / 1e6, UTC).date().isoformat()
        yield [day, key], (version.stamp, [version.value["AcresBurned"], version.value["Counties"]])


def by_county(key, report):
    day, _fire = key
    acres, counties = report
    for county in counties:
        yield [county, day], acres


def main(url):
    with vstore.open(url) as store:
        fires = store["fires"]
        last = run(over=fires.history_scan(), map=reports, reduce=Last())
        print(f"{last.counters.documents} versions, {len(last)} last reports of a day")

        burned = run(over=last, map=by_county, reduce=Sum())
        for (county, day), acres in burned:
            if county == "El Dorado":
                print(county, day, f"{acres:7,.0f}")

        # A third: each county's worst day. Keys are lists, so a job may take them apart as it likes.
        worst = run(over=burned, map=lambda key, acres: [(key[0], [acres, key[1]])], reduce=Max())
        print("worst days:", dict(list(worst)[:3]), "…")
        assert worst["El Dorado"] == max([acres, day] for (county, day), acres in burned if county == "El Dorado")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sample = files("vstore.sample").joinpath("fires.jsonl.gz")
        url = f"sqlite:///{folder}/office.db"
        command(["import", "fires", str(sample), "--store", url, "--quiet"], standalone_mode=False)
        main(url)
