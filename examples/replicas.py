"""Three replicas of one collection: an office, an archive that has every version, and a phone that has a part.

    office ──── all of the history ────► archive
       ▲ └───── open jobs of Norway ────► phone
       └─────── what the phone writes ─────┘

Run it: python examples/replicas.py
"""

import vstore
from replication import Filter, Replicator
from vstore.resolvers import json3

NORWAY = Filter(prefix="no/", fields={"open": True})

with vstore.open("sqlite://") as office, vstore.open("sqlite://") as archive, vstore.open("sqlite://") as phone:
    jobs = office["jobs"]
    jobs.put_many((f"no/{n:02}", {"site": "Oslo", "open": n % 2 == 0}) for n in range(10))
    jobs.put_many((f"it/{n:02}", {"site": "Roma", "open": True}) for n in range(10))
    jobs.modify("no/00", lambda job: {**job, "site": "Bergen"})

    # Links lead one way; two of them are both ways. How far each has got is noted at its target.
    keep = Replicator(office, archive, history="all")
    down = Replicator(office, phone, filter=NORWAY)
    up = Replicator(phone, office, resolver=json3)

    keep.run()
    down.run()
    print("archive:", len(archive["jobs"]), "jobs;", "phone:", sorted(phone["jobs"]))
    assert [version.value["site"] for version in archive["jobs"].history("no/00")] == ["Bergen", "Oslo"]
    assert sorted(phone["jobs"]) == ["no/00", "no/02", "no/04", "no/06", "no/08"]

    # Both write at the same time: the merge is made at the office, and the phone takes it.
    phone["jobs"].modify("no/02", lambda job: {**job, "note": "pump replaced"})
    jobs.modify("no/02", lambda job: {**job, "site": "Oslo S"})
    up.run()
    down.run()
    print("merged:", jobs["no/02"])
    assert jobs["no/02"] == phone["jobs"]["no/02"] == {"site": "Oslo S", "open": True, "note": "pump replaced"}

    # A job is closed: it leaves the filter, and the phone gives it up. Nobody has deleted it.
    jobs.modify("no/04", lambda job: {**job, "open": False})
    token = phone["jobs"].snapshot().since
    print("left the phone:", down.run().left)
    assert "no/04" not in phone["jobs"]
    assert "no/04" in jobs
    assert [(change.key, change.kind) for change in phone["jobs"].changes(since=token)] == [("no/04", "filter")]

    # Deleted documents are forgotten when every full replica knows; the phone, which has a part, is not asked.
    jobs.delete_many(["it/00", "it/01"])
    waiting = jobs.purge(grace_days=0)
    print("purge:", waiting.purged, "gone,", waiting.held, "wait for", len(waiting.holders), "replica")
    assert (waiting.purged, waiting.held) == (0, 2)
    keep.run()
    done = jobs.purge(grace_days=0)
    print("purge:", done.purged, "gone, with", done.versions, "versions")
    assert done.purged == 2
    assert keep.run().forgotten == 2
    try:
        archive["jobs"].history("it/00")
    except vstore.NotFound:
        print("it/00: not even its history is there")

    # Live: what is written arrives, until it is stopped.
    with Replicator(office, archive, history="all", live=True) as live:
        jobs["no/99"] = {"site": "Narvik", "open": True}
        for change in archive["jobs"].changes(follow=True, idle_seconds=5):
            if change.key == "no/99":
                break
    print("live:", archive["jobs"]["no/99"], live.status.error or "no error")
    assert archive["jobs"]["no/99"] == jobs["no/99"]

    assert [finding for store in (office, archive, phone) for finding in store.check()] == []
