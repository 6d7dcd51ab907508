"""Jobs, queries and views beside what else one would take: `python -m benchmarks.mapreduce`."""
