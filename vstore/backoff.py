"""When to try again what has failed: each pause is twice as long as the one before, up to a longest one.

Pure: no input or output, no clock, no randomness.
"""

from __future__ import annotations


def waited_seconds(tries: int, first_seconds: float, longest_seconds: float) -> float:
    """How long after the first of so many tries the next one is due: the sum of the pauses."""
    waited, pause = 0.0, first_seconds
    for done in range(tries):
        if pause >= longest_seconds:  # the rest are alike, and there may be thousands
            return waited + (tries - done) * longest_seconds
        waited += pause
        pause *= 2
    return waited
