"""The simulator of the real code: real stores and the real replicator, in a world that the seed makes.

Beside it, `tests/simulation/simulator.py` drives the pure rules without a database.
Both are judged by the same oracle.

    pytest tests/simulation --schedules 20000 --first-seed 5000
    python -m tests.simulation --minutes 60 --first-seed 1000000
    python -m tests.simulation --seed 4711
"""
