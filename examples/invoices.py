"""Versioned invoices: line items split over accounting codes, payments, corrections, and questions over all of them.

The example of a talk of 2008 ("Roll Your Own Data Persistence", PyCon), whose
store kept strings under keys and wished for versions, replication and queries.

    invoice
    ├─ lines      {id, text, cents, split}    split: cents by accounting code, all of the line's
    ├─ payments   {id, day, cents}
    └─ reminders  how many were sent

Run it: python examples/invoices.py
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import vstore
from mapreduce import Sum, run
from replication import sync
from vstore import Siblings
from vstore.resolvers import counter, fields, three_way, union

Invoice = dict[str, Any]

INVOICES: dict[str, Invoice] = {
    "2026-001": {
        "customer": "Baker & Sons",
        "issued": "2026-09-01",
        "lines": [
            {"id": 1, "text": "Website", "cents": 480_000, "split": {"4000 design": 180_000, "4010 code": 300_000}},
            {"id": 2, "text": "Hosting", "cents": 12_000, "split": {"4020 hosting": 12_000}},
        ],
        "payments": [{"id": "p1", "day": "2026-09-20", "cents": 200_000}],
        "reminders": 0,
        "by": "lyon",
    },
    "2026-002": {
        "customer": "City of Riga",
        "issued": "2026-09-14",
        "lines": [{"id": 1, "text": "Workshop", "cents": 90_000, "split": {"4030 teaching": 90_000}}],
        "payments": [],
        "reminders": 0,
        "by": "oslo",
    },
}

# How two offices' changes to one invoice come together. Payments that either has seen are all there, reminders that
# both sent add up, lines merge item by item. Two different prices for one line are for a person to settle.
TOGETHER = fields(
    {"/payments": union, "/reminders": counter, "/by": lambda base, siblings: "merge"},
    default=three_way(arrays="id:id"),
)


def checked(invoice: Invoice) -> Invoice:
    """The invoice, if each line's split adds up to the line."""
    for line in invoice["lines"]:
        if sum(line["split"].values()) != line["cents"]:
            raise ValueError(f"line {line['id']}: the split has {sum(line['split'].values())} of {line['cents']} cents")
    return invoice


def balance_cents(invoice: Invoice, day: str = "9999") -> int:
    """What is due, counting payments up to a day."""
    due: int = sum(line["cents"] for line in invoice["lines"])
    return due - sum(payment["cents"] for payment in invoice["payments"] if payment["day"] <= day)


def revenue(key: str, invoice: Invoice) -> Iterator[tuple[str, int]]:
    """A map function: cents by accounting code."""
    for line in invoice["lines"]:
        yield from line["split"].items()


def owed(key: str, invoice: Invoice) -> Iterator[tuple[str, int]]:
    """A map function: open balance by customer."""
    if balance_cents(invoice):
        yield invoice["customer"], balance_cents(invoice)


def main() -> None:
    with vstore.open("sqlite://") as lyon_store, vstore.open("sqlite://") as oslo_store:
        lyon, oslo = lyon_store["invoices"], oslo_store["invoices"]
        lyon.put_many((number, checked(invoice)) for number, invoice in INVOICES.items())
        sync(lyon_store, oslo_store)

        print("Balance due, as of a day and as it was believed to be")
        booked = lyon.read("2026-001").stamp
        lyon.modify("2026-001", lambda old: paid(old, "p2", "2026-09-25", 100_000))  # booked late
        today = lyon["2026-001"]
        print("   on 2026-09-19:", balance_cents(today, "2026-09-19"))
        print("   on 2026-09-30:", balance_cents(today, "2026-09-30"))
        print("   on 2026-09-30, as we thought before p2 was booked:", balance_cents(lyon.at(booked)["2026-001"]))
        assert balance_cents(today, "2026-09-19") == 492_000
        assert balance_cents(today, "2026-09-30") == 192_000
        assert balance_cents(lyon.at(booked)["2026-001"], "2026-09-30") == 292_000

        print("Who changed what")
        lyon.modify("2026-001", lambda old: repriced(old, 1, 450_000, {"4000 design": 150_000, "4010 code": 300_000}))
        versions = list(lyon.history("2026-001"))
        for new, old in pairwise(versions):
            for change in lyon.diff("2026-001", old.rev, new.rev):
                print("  ", new.value["by"], change["op"], change["path"], change.get("value"))
        assert {change["path"] for change in lyon.diff("2026-001", versions[1].rev)} == {
            "/lines/0/cents",
            "/lines/0/split/4000 design",
        }
        try:  # a split that loses a cent never gets in
            lyon.modify("2026-001", lambda old: repriced(old, 2, 12_000, {"4020 hosting": 11_999}))
        except ValueError as wrong:
            print("   refused:", wrong)

        print("Two offices change one invoice without a line between them")
        sync(lyon_store, oslo_store)
        lyon.modify("2026-001", lambda old: paid(old, "p3", "2026-10-02", 150_000))
        lyon.modify("2026-001", lambda old: {**old, "reminders": old["reminders"] + 1})
        oslo.modify("2026-001", lambda old: {**paid(old, "p4", "2026-10-03", 12_000), "by": "oslo"})
        oslo.modify("2026-001", lambda old: {**old, "reminders": old["reminders"] + 1})
        oslo.modify("2026-001", lambda old: with_line(old, 3, "Domain", {"4020 hosting": 1_500}))
        report = sync(lyon_store, oslo_store, resolver=TOGETHER)
        merged = lyon["2026-001"]
        print("   sync:", report)
        payments = sorted(payment["id"] for payment in merged["payments"])
        print("   payments:", payments, "reminders:", merged["reminders"])
        assert merged == oslo["2026-001"]
        assert payments == ["p1", "p2", "p3", "p4"]
        assert [line["id"] for line in merged["lines"]] == [1, 2, 3]
        assert merged["reminders"] == 2
        assert balance_cents(checked(merged)) == 450_000 + 12_000 + 1_500 - 462_000

        print("Both correct the same price: nobody is overruled, somebody is asked")
        lyon.modify("2026-002", lambda old: repriced(old, 1, 95_000, {"4030 teaching": 95_000}))
        oslo.modify("2026-002", lambda old: repriced(old, 1, 85_000, {"4030 teaching": 85_000}))
        report = sync(lyon_store, oslo_store, resolver=TOGETHER)
        assert report.conflicts == 1
        for document in oslo.conflicts():
            print(
                "  ", document.key, "has prices", [sibling.value["lines"][0]["cents"] for sibling in document.siblings]
            )
        oslo.resolve("2026-002", lower_price)
        sync(lyon_store, oslo_store)
        assert lyon["2026-002"]["lines"][0]["cents"] == 85_000
        assert lyon["2026-002"] == oslo["2026-002"]

        print("Revenue by accounting code, and who owes")
        by_code = run(over=lyon, map=revenue, reduce=Sum())
        for code, cents in by_code:
            print(f"   {code:14}{cents / 100:>10,.2f}")
        assert dict(by_code) == {
            "4000 design": 150_000,
            "4010 code": 300_000,
            "4020 hosting": 13_500,
            "4030 teaching": 85_000,
        }
        assert dict(run(over=oslo, map=owed, reduce=Sum())) == {"Baker & Sons": 1_500, "City of Riga": 85_000}

        # The same question about the past: a job runs over any moment as it does over the present.
        assert run(over=lyon.at(booked), map=revenue, reduce=Sum())["4000 design"] == 180_000


def paid(invoice: Invoice, id_: str, day: str, cents: int) -> Invoice:
    """The invoice with one more payment."""
    return {**invoice, "payments": [*invoice["payments"], {"id": id_, "day": day, "cents": cents}]}


def repriced(invoice: Invoice, id_: int, cents: int, split: dict[str, int]) -> Invoice:
    """The invoice with another price for a line."""
    lines = [{**line, "cents": cents, "split": split} if line["id"] == id_ else line for line in invoice["lines"]]
    return checked({**invoice, "lines": lines})


def with_line(invoice: Invoice, id_: int, text: str, split: dict[str, int]) -> Invoice:
    """The invoice with one more line."""
    line = {"id": id_, "text": text, "cents": sum(split.values()), "split": split}
    return checked({**invoice, "lines": [*invoice["lines"], line]})


def lower_price(conflict: Siblings) -> Invoice:
    """A decision of the house: of several prices the customer gets the lowest."""
    return min((sibling.value for sibling in conflict.siblings), key=balance_cents)


if __name__ == "__main__":
    main()
