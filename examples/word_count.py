"""Word count over a collection, on all cores: ordinary functions, lambdas and closures.

Run it: python examples/word_count.py [TEXT FILE]     (default: the licence of this project)
"""

import sys
from collections import Counter
from pathlib import Path

import vstore
from mapreduce import Count, Sum, run

TEXT = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "LICENSE"


def main() -> None:
    paragraphs = [part for part in TEXT.read_text(encoding="utf-8").split("\n\n") if part.strip()]
    with vstore.open("sqlite://") as store:
        texts = store["texts"]
        texts.put_many((f"{n:05}", {"text": part}) for n, part in enumerate(paragraphs))

        def words(key, value):
            for word in value["text"].lower().split():
                yield word, 1

        # Each worker reads its own part of one snapshot and adds up what it finds; only sums cross to this process.
        counts = run(over=texts, map=words, reduce=Sum(), workers=2)
        print(f"{counts.counters.documents} documents, {counts.counters.pairs} words, {len(counts)} different ones")
        for word, n in sorted(counts, key=lambda pair: -pair[1])[:5]:
            print(f"{n:6} {word}")
        assert dict(counts) == Counter(" ".join(paragraphs).lower().split())

        # A closure over something of this process, and groups of any JSON type.
        ours = {"licensor", "licensee", "contributor", "you"}
        named = run(
            over=texts,
            map=lambda key, value: (
                ([word.strip(".,()\"'"), len(word)], key) for word in words_of(value) if word in ours
            ),
            reduce=Count(),
            workers=2,
        )
        print("parties:", list(named))

        # A plain function gets all values of a key. It needs no laws, and nothing is combined before it.
        longest = run(
            over=texts,
            map=lambda key, value: ((word[0], word) for word in words_of(value)),
            reduce=lambda letter, found: max(sorted(found), key=len),
        )
        print("longest by first letter:", [word for letter, word in longest if letter in "abc"])
        assert longest["a"] == max(sorted(w for p in paragraphs for w in p.lower().split() if w[0] == "a"), key=len)

        # The past is as good a source as the present: a snapshot, or texts.at(moment).
        before = texts.snapshot()
        texts["00000"] = {"text": "rewritten"}
        assert dict(run(over=before, map=words, reduce=Sum(), workers=2)) == dict(counts)
        assert run(over=texts, map=words, reduce=Sum())["rewritten"] == 1


def words_of(value):
    return value["text"].lower().split()


if __name__ == "__main__":  # worker processes import this file
    main()
