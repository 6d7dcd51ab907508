"""Three replicas in a ring of daemons on real databases, everything killed and cut at random, and what must hold then.

    servers     databases of this test's own, which may be killed
    writer      a process that writes and notes what was acknowledged
    records     its notes: what it tried, and how that ended
    checkers    what must follow from them, in Jepsen's manner; pure
    chaos       the ring, and what goes wrong in it

`python -m tests.replication.ring --seconds 3600 --seed 7` runs it for an hour.
"""
