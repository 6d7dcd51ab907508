"""Made-up documents of about 500 bytes of JSON in ten fields; the same ones in every run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

_WORDS = """
    amber basin cedar delta ember fjord glade heron inlet juniper kelp larch meadow north otter pine quarry reed shoal
    thicket upland vale willow yarrow zephyr
""".split()  # noqa: SIM905  # a list of literals is harder to read
_COUNTRIES = ["DE", "ES", "FR", "IT", "NL", "PL", "PT", "SE"]


def documents(count: int, seed: int = 20_261_120, first: int = 0) -> Iterator[tuple[str, Any]]:
    """Keys and documents, made as they are asked for. Keys are in order, which is the raw table's best case."""
    chance = random.Random(seed)
    for number in range(first, first + count):
        text = chance.choices(_WORDS, k=44)
        yield (
            f"order-{number:09d}",
            {
                "number": number,
                "customer": " ".join(text[:2]),
                "country": chance.choice(_COUNTRIES),
                "placed": f"2026-{chance.randint(1, 12):02d}-{chance.randint(1, 28):02d}T10:00:00Z",
                "total": round(chance.uniform(1, 1000), 2),
                "paid": chance.random() < 0.8,
                "lines": [{"item": word, "count": chance.randint(1, 9)} for word in text[2:4]],
                "tags": text[4:7],
                "address": {"city": text[7], "street": text[8], "house": chance.randint(1, 200)},
                "note": " ".join(text[9:]),
            },
        )
