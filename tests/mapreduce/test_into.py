"""Results stored as documents: exactly those of the result, written only where they differ, never over other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vstore
from mapreduce import Job, JobError, Stats, Sum, run
from mapreduce.into import document_key
from vstore.errors import ConfigurationError, InvalidDocument

DOCUMENTS = [(n, {"country": "FR" if n % 3 else "DE", "total": n}) for n in range(10)]


def by_country(key: Any, value: Any) -> Any:
    yield value["country"], value["total"]


JOB = Job(by_country, Sum())


def revs(collection: Any) -> dict[str, str]:
    return {key: collection.read(key).rev for key in collection}


def test_a_result_is_stored_as_documents(store: vstore.Store) -> None:
    result = JOB.run(over=DOCUMENTS, into=store["totals"])

    assert dict(store["totals"]) == {"DE": 18, "FR": 27}
    assert dict(result) == {"DE": 18, "FR": 27}


def test_storing_again_writes_what_differs_and_deletes_what_is_gone(store: vstore.Store) -> None:
    totals = store["totals"]
    JOB.run(over=[*DOCUMENTS, (10, {"country": "IT", "total": 4})], into=totals)
    before = revs(totals)

    JOB.run(over=[*DOCUMENTS, (10, {"country": "ES", "total": 5}), (11, {"country": "FR", "total": 1})], into=totals)

    assert dict(totals) == {"DE": 18, "FR": 28, "ES": 5}
    after = revs(totals)
    assert (after["DE"], after["FR"][:2], after["ES"][:2]) == (before["DE"], "2-", "1-")
    assert [version.deleted for version in totals.history("IT")] == [True, False]
    JOB.run(over=[], into=totals)
    assert dict(totals) == {}


def test_one_and_one_point_nought_and_true_are_different_documents(local: vstore.Store) -> None:
    """Python takes them for equal, and JSON does not."""
    totals = local["totals"]
    for value in (1, 1.0, True, [1], [1.0], {"a": 1}, {"a": True}, {"a": 1, "b": 2}):
        run(over=[("k", value)], map=lambda k, v: [(k, v)], reduce=lambda k, v: v[0], into=totals)

        assert repr(totals["k"]) == repr(value)
    assert totals.read("k").rev.startswith("8-")


@pytest.mark.parametrize("memory", [1, 1 << 28])
def test_keys_that_are_no_strings_become_json_text(local: vstore.Store, memory: int) -> None:
    keys = [None, True, 1.0, 2.5, 2**70, "text", ["a", 1.0, None], {"b": 1, "a": 2.0}, ("é",)]

    for _ in range(2):  # again, when everything is there
        run(
            over=list(enumerate(keys)),
            map=lambda n, key: [(key, n)],
            reduce=Sum(),
            into=local["totals"],
            memory=memory,
            workers=1,
        )

        assert dict(local["totals"]) == {
            "null": 0,
            "true": 1,
            "1": 2,
            "2.5": 3,
            "1180591620717411303424": 4,
            "text": 5,
            '["a",1,null]': 6,
            '{"a":2,"b":1}': 7,
            '["é"]': 8,
        }
    assert {rev[:2] for rev in revs(local["totals"]).values()} == {"1-"}


def test_keys_that_are_the_same_have_one_document() -> None:
    assert document_key([1, {"a": 2.0}]) == document_key((1.0, {"a": 2})) == '[1,{"a":2}]'
    assert document_key(-0.0) == document_key(0) == "0"


def test_groups_that_would_be_one_document_are_refused(local: vstore.Store) -> None:
    with pytest.raises(JobError, match="groups 1 and '1' would both be the document '1'"):
        run(over=[("a", 1), ("b", "1")], map=lambda k, v: [(v, 1)], reduce=Sum(), into=local["totals"])


def test_a_collection_with_documents_of_others_is_refused_before_anything_is_run(local: vstore.Store) -> None:
    called = []
    local["totals"]["mine"] = 1

    with pytest.raises(ConfigurationError, match=r"no result was stored as.*Nothing was run"):
        run(over=[("a", 1)], map=lambda k, v: called.append(k) or [], reduce=Sum(), into=local["totals"])

    assert (called, dict(local["totals"])) == ([], {"mine": 1})


def test_a_prefix_of_a_collection_is_a_target_and_the_rest_stays(local: vstore.Store) -> None:
    totals = local["totals"]
    totals["mine"] = 1

    JOB.run(over=DOCUMENTS, into=totals.prefixed("2026/"))
    JOB.run(over=DOCUMENTS[:1], into=totals.prefixed("2026/"))

    assert dict(totals) == {"mine": 1, "2026/DE": 0}


def test_a_result_that_is_no_document_is_an_error_and_a_better_one_completes_it(local: vstore.Store) -> None:
    totals = local["totals"]

    def strange(key: str, values: list[int]) -> Any:
        return {"sum": sum(values)} if key != "FR" else {1, 2}

    with pytest.raises(InvalidDocument):
        run(over=DOCUMENTS, map=by_country, reduce=strange, into=totals)
    JOB.run(over=DOCUMENTS, into=totals)

    assert dict(totals) == {"DE": 18, "FR": 27}


def test_an_interrupted_store_is_completed_by_the_next(local: vstore.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes when a part is written: some documents are new, some old."""
    totals = local["totals"]
    job = Job(lambda key, value: [(f"{value % 2500:04d}", 1)], Sum())
    put = vstore.Collection.put_many
    batches: list[Any] = []

    def interrupted(self: Any, documents: Any) -> int:
        batches.append(documents)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return put(self, documents)

    monkeypatch.setattr(vstore.Collection, "put_many", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.run(over=[(n, n) for n in range(2500)], into=totals)
    monkeypatch.undo()
    assert len(totals) == 1000

    job.run(over=[(n, n) for n in range(2500)], into=totals)

    assert dict(totals) == {f"{n:04d}": 1 for n in range(2500)}
    assert {rev[:2] for rev in revs(totals).values()} == {"1-"}


def test_siblings_in_the_target_are_replaced(local: vstore.Store) -> None:
    totals = local["totals"]
    JOB.run(over=DOCUMENTS, into=totals)
    first = totals.read("DE")
    totals.put("DE", 18, context=first.context)
    totals.put("DE", 99, context=first.context)
    assert totals.read("DE", on_conflict="winner").conflicted

    JOB.run(over=DOCUMENTS, into=totals)

    assert not totals.read("DE").conflicted
    assert totals["DE"] == 18


def test_documents_of_a_stored_result_feed_the_next_job(local: vstore.Store) -> None:
    JOB.run(over=DOCUMENTS, into=local["totals"])

    result = run(over=local["totals"], map=lambda key, total: [("all", total)], reduce=Sum())

    assert dict(result) == {"all": 45}


def test_the_files_of_a_result_that_cannot_be_stored_are_removed(
    local: vstore.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and not when the error, which holds the result, is forgotten."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(InvalidDocument) as failure:
        run(
            over=[(n, n) for n in range(5_000)],
            map=lambda key, n: [(n, n)],
            reduce=lambda key, values: float("nan"),
            workers=1,
            memory=1_000,
            into=local["totals"],
        )

    assert failure.value is not None
    assert list(tmp_path.glob("vstore-job-*")) == []


def test_figures_that_are_no_plain_value_become_objects(local: vstore.Store) -> None:
    run(over={"a": 1, "b": 3}, map=lambda key, n: [("n", n)], reduce=Stats(), into=local["figures"])

    assert local["figures"]["n"]["count"] == 2
    assert local["figures"]["n"]["sum"] == 4
