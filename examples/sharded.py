"""One collection over several databases, of different kinds if you like.

Run it: python examples/sharded.py [URL ...]

Without URLs it uses three SQLite files. With them, each is a shard; they must be
blank, for instance postgresql://user@host/blank mariadb://user@host/blank
"""

import random
import sys
import tempfile

import vstore
from mapreduce import Sum, run


def main(urls: list[str]) -> None:
    with vstore.open(*urls) as store:
        orders = store["orders"]
        # A batch is cut by shard, and the shards work in parallel, each in one transaction.
        orders.put_many((f"{n:05}", {"city": ("Lyon", "Oslo", "Riga")[n % 3], "cents": n}) for n in range(3_000))
        for shard in store.shards:
            print("shard:", shard.database.name)
        places = [store.shard_of("orders", key) for key in orders]
        print("documents on each:", [places.count(n) for n in range(len(urls))])
        assert all(places.count(n) > 300 for n in range(len(urls)))

        # Keys come from all shards in one order.
        assert list(orders.keys(start="00010", end="00014")) == ["00010", "00011", "00012", "00013"]
        assert list(orders.keys(prefix="0299", reverse=True))[:2] == ["02999", "02998"]

        # A job reads every shard where it is, at one exact moment.
        totals = dict(
            run(over=orders, map=lambda key, order: [(order["city"], order["cents"])], reduce=Sum(), workers=2)
        )
        print("cents by city:", totals)
        assert totals == {"Lyon": 1_498_500, "Oslo": 1_499_500, "Riga": 1_500_500}

        # A transaction is of one shard.
        ours = [key for key in orders.keys(prefix="000") if store.shard_of("orders", key) == 0][:2]
        with store.transaction(shard=0):
            for key in ours:
                orders.modify(key, lambda order: {**order, "cents": 0})

    # The URLs may come in any order. A missing one is noticed before anything is read or written.
    shuffled = random.Random(1).sample(urls, len(urls))
    with vstore.open(*shuffled) as store:
        assert len(store["orders"]) == 3_000
    try:
        vstore.open(*urls[:-1])
    except vstore.ConfigurationError as refused:
        print("refused:", refused)
    else:
        raise AssertionError("a store without one of its shards must not open")


if __name__ == "__main__":
    if sys.argv[2:]:
        main(sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main([*sys.argv[1:], *(f"sqlite:///{folder}/{name}.db" for name in ("one", "two", "three"))])
