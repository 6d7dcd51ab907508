"""The daemon: one process that keeps many replications going.

    config      replicator.toml, with every mistake named by its line
    supervisor  the replications, their threads, and their end
    stores      opened once for all that use them
    control     the socket by which `vstore replicator status` and others speak with it
    metrics     the same figures as Prometheus reads them
    logs        what happens, on stderr, as lines that programs can read
    commands    `vstore replicator`

What a replication does is in `replication.replicator`; here is only that there
are many of them in a process that lives long.
"""
