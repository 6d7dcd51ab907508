"""A million documents of about 500 bytes, made with a fixed seed, in the forms the contestants read.

Ten fields, among them an object, a list and a text of 44 words. The words are drawn by a Zipf-like law from a
vocabulary of 100,000, of which a million documents use every one. Made once for a folder and a number of documents:

    FOLDER/documents-1000000/store.db            collection "orders": one shard, one version of each document
    FOLDER/documents-1000000/documents.ndjson    the bodies of the same documents, one on a line
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice, product
from pathlib import Path
from typing import Any

import orjson

import vstore

SEED = 20_261_121
VOCABULARY = 100_000
WORDS = 44
SHOPS = [f"shop-{number:02d}" for number in range(40)]
COUNTRIES = ["AT", "BE", "CZ", "DE", "DK", "ES", "FI", "FR", "GR", "IE", "IT", "NL", "NO", "PL", "PT", "SE"]
YEARS = range(2017, 2027)
TAGS = ["gift", "express", "return", "fragile", "insured", "bulky", "cold", "pickup"]


@dataclass(frozen=True)
class Prepared:
    """Where the documents lie."""

    folder: Path
    count: int

    @property
    def database(self) -> Path:
        """The SQLite file of the store."""
        return self.folder / "store.db"

    @property
    def url(self) -> str:
        """The store."""
        return f"sqlite:///{self.database}"

    @property
    def ndjson(self) -> Path:
        """The same documents as lines."""
        return self.folder / "documents.ndjson"


def documents(count: int, seed: int = SEED) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and documents, made as they are asked for."""
    chance = random.Random(seed)
    vocabulary = list(islice(_syllables(), VOCABULARY))
    chance.shuffle(vocabulary)
    weights = list(accumulate(1 / (rank + 50) for rank in range(VOCABULARY)))
    choices, pick, number_from = chance.choices, chance.choice, chance.randrange
    for number in range(count):
        words = choices(vocabulary, cum_weights=weights, k=WORDS)
        key = f"order-{number:09d}"
        yield (
            key,
            {
                "id": key,
                "number": number,
                "shop": pick(SHOPS),
                "country": pick(COUNTRIES),
                "year": pick(YEARS),
                "cents": number_from(100, 100_000),
                "paid": number_from(10) < 8,
                "tags": choices(TAGS, k=3),
                "address": {"city": words[0], "street": words[1], "house": number_from(1, 200)},
                "text": " ".join(words),
            },
        )


def prepared(folder: Path, count: int) -> Prepared:
    """The documents in this folder: those of an earlier run, or made now, which takes about a minute for a million."""
    result = Prepared(folder / f"documents-{count}", count)
    os.environ["VSTORE_STATE"] = str(folder / "state")  # of this process and those it starts
    finished = result.folder / "finished"
    if finished.exists():
        return result
    result.folder.mkdir(parents=True, exist_ok=True)
    for path in result.folder.iterdir():  # of a run that was interrupted
        path.unlink()
    with (
        vstore.open(result.url, durability="relaxed") as store,
        result.ndjson.open("wb") as lines,
    ):
        for some in batches(documents(count), 20_000):
            store["orders"].put_many(some)
            lines.writelines(orjson.dumps(value) + b"\n" for _key, value in some)
    finished.touch()
    return result


def batches(pairs: Iterator[tuple[str, dict[str, Any]]], size: int) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The documents in lists of so many."""
    while some := list(islice(pairs, size)):
        yield some


def _syllables() -> Iterator[str]:
    """Words of three to seven letters, the short ones first."""
    onsets, vowels = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "st"], "aeiou"
    one = ["".join(parts) for parts in product(onsets, vowels)]
    for count in (1, 2, 3):
        yield from map("".join, product(one, repeat=count))
