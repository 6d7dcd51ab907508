"""Replication measured beside what moves the same documents without it: `python -m benchmarks.replication`."""
