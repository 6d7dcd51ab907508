"""Resolvers: what each built-in answers, and that the order of siblings never matters."""

import copy
import json
import pickle
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vstore import resolvers
from vstore.errors import ConfigurationError, ResolverError
from vstore.merge import MISSING, same
from vstore.resolvers import (
    DELETE,
    KEEP,
    Policy,
    Resolver,
    Sibling,
    Siblings,
    by_name,
    decide,
    fields,
    identity,
    needs_base,
    three_way,
)

A, B, C = "2-aa", "2-bb", "10-00"


def conflict(*siblings: tuple[str, Any, int], base: Any = MISSING) -> Siblings:
    """Siblings as (rev, value, stamp), and the value of their base."""
    ancestor = None if base is MISSING else Sibling("1-00", base, False, 1)
    return Siblings("k", tuple(Sibling(rev, value, False, stamp) for rev, value, stamp in siblings), ancestor)


def test_siblings_are_in_winner_order_whatever_order_they_came_in() -> None:
    """Generations compare as numbers, and a deleted version never wins over a live one."""
    given_siblings = (
        Sibling(A, 1, False, 1),
        Sibling("99-ff", None, True, 9),
        Sibling(C, 3, False, 1),
        Sibling(B, 2, False, 1),
    )

    for order in permutations(given_siblings):
        assert [each.rev for each in Siblings("k", order).siblings] == ["10-00", "2-bb", "2-aa", "99-ff"]


def test_delete_and_keep_stay_what_they_are_through_copies_and_pickles() -> None:
    for answer in (DELETE, KEEP, MISSING):
        assert copy.deepcopy([answer])[0] is answer
        assert pickle.loads(pickle.dumps(answer)) is answer
    assert [repr(DELETE), repr(KEEP), repr(MISSING)] == ["DELETE", "KEEP", "MISSING"]


def test_keep_winner_and_last_write_answer_as_named() -> None:
    rivals = conflict((A, "a", 30), (B, "b", 30), (C, "c", 20))

    assert decide(resolvers.keep, rivals) is KEEP
    assert decide(resolvers.winner, rivals) == "c"
    assert decide(resolvers.last_write, rivals) == "b"  # as late as a, and before it in winner order


def test_json3_merges_what_does_not_clash_and_keeps_the_rest() -> None:
    base = {"x": 1, "y": 1}

    assert decide(resolvers.json3, conflict((A, {"x": 2, "y": 1}, 1), (B, {"x": 1}, 2), base=base)) == {"x": 2}
    assert decide(resolvers.json3, conflict((A, {"x": 2, "y": 1}, 1), (B, {"x": 3, "y": 1}, 2), base=base)) is KEEP
    assert decide(resolvers.json3, conflict((A, {"x": 1}, 1), (B, {"y": 1}, 2))) is KEEP


def test_a_three_way_merge_can_take_a_side_at_just_the_clashing_paths() -> None:
    rivals = conflict((A, {"x": 2, "y": 5}, 9), (B, {"x": 3, "y": 1, "z": 1}, 2), base={"x": 1, "y": 1})

    assert decide(three_way(on_clash="winner"), rivals) == {"x": 3, "y": 5, "z": 1}
    assert decide(three_way(on_clash="last_write"), rivals) == {"x": 2, "y": 5, "z": 1}


def test_two_documents_written_after_a_delete_have_no_base() -> None:
    rivals = conflict((A, {"x": 1}, 1), (B, {"y": 1}, 2))
    after_delete = Siblings("k", rivals.siblings, Sibling("1-00", None, True, 0))

    assert decide(three_way(), after_delete) is KEEP
    assert decide(three_way(strictness="lenient"), after_delete) == {"x": 1, "y": 1}


def test_a_three_way_resolver_compares_prints_and_pickles() -> None:
    resolver = three_way(arrays="id:sku")

    assert pickle.loads(pickle.dumps(resolver)) == resolver
    assert repr(resolver) == "three_way(strictness='path', arrays='id:sku', on_clash='keep')"


@pytest.mark.parametrize(
    ("policy", "base", "values", "expected"),
    [
        (resolvers.maximum, 1, (3, 2, 1), 3),
        (resolvers.maximum, MISSING, ("2026-01", "2025-12"), "2026-01"),
        (resolvers.minimum, 1, (3, 2, 5), 2),
        (resolvers.counter, 10, (11, 13, 9), 13),
        (resolvers.counter, 10, (11, 11), 12),
        (resolvers.counter, MISSING, (2, 3), 5),
        (resolvers.counter, 2**53, (2**53 + 1, 2**53 + 1), 2**53 + 2),
        (resolvers.counter, 0.1, (0.4, 0.1), 0.4),
        (resolvers.union, ["z", "a"], (["z", "a", "c"], ["z", "b"]), ["z", "b", "c"]),
        (resolvers.union, MISSING, (["b"], ["a", "b"]), ["a", "b"]),
        (resolvers.append, ["x"], (["x", "late"], ["x", "early"], ["x"]), ["x", "early", "late"]),
        (resolvers.append, ["x"], (["x", "same"], ["x", "same"]), ["x", "same", "same"]),
        (resolvers.append, MISSING, (["late"], ["early"]), ["early", "late"]),
        (resolvers.first, 0, ("late", "early"), "early"),
        (resolvers.last, 0, ("late", "early"), "late"),
    ],
)
def test_a_field_policy_decides_a_field(policy: Policy, base: Any, values: tuple[Any, ...], expected: Any) -> None:
    """The first value has the highest stamp, the last one wins."""
    before: Any = {"f": {"g": base}} if base is not MISSING else {"f": {}}
    siblings = [(f"2-{n}", {"f": {"g": value}}, 100 - n) for n, value in enumerate(values)]

    answer = decide(fields({"/f/g": policy}), conflict(*siblings, base=before))

    assert same(answer, {"f": {"g": expected}})


@pytest.mark.parametrize("policy", [resolvers.maximum, resolvers.counter, resolvers.union, resolvers.append])
def test_a_policy_leaves_values_that_it_is_not_meant_for_to_the_merge(policy: Policy) -> None:
    assert decide(fields({"/f": policy}), conflict((A, {"f": True}, 1), (B, {"f": "s"}, 2), base={"f": None})) is KEEP
    assert decide(fields({"/f": policy}), conflict((A, {"f": True}, 1), (B, {"f": None}, 2), base={"f": None})) == {
        "f": True
    }


def test_append_leaves_a_list_that_did_more_than_grow_to_the_merge() -> None:
    rivals = conflict((A, {"log": ["x", "y"]}, 1), (B, {"log": ["y", "x"]}, 2), base={"log": ["x"]})

    assert decide(fields({"/log": resolvers.append}), rivals) is KEEP


def test_fields_without_a_policy_are_merged_and_a_clash_there_keeps_everything() -> None:
    resolver = fields({"/views": resolvers.counter, "/a~1b": resolvers.maximum})
    base = {"views": 5, "a/b": 1, "title": "x"}
    one = (A, {"views": 6, "a/b": 4, "title": "X"}, 1)

    assert decide(resolver, conflict(one, (B, {"views": 7, "a/b": 3, "title": "x"}, 2), base=base)) == {
        "views": 8,
        "a/b": 4,
        "title": "X",
    }
    assert decide(resolver, conflict(one, (B, {"views": 7, "a/b": 3, "title": "Y"}, 2), base=base)) is KEEP


def test_the_resolver_for_the_rest_sees_siblings_that_agree_on_the_fields() -> None:
    resolver = fields({"/views": resolvers.counter}, default=resolvers.winner)
    rivals = conflict((A, {"views": 6, "t": "a"}, 1), (B, {"views": 7, "t": "b"}, 2), base={"views": 5, "t": ""})

    assert decide(resolver, rivals) == {"views": 8, "t": "b"}


def test_a_field_that_one_sibling_removed_is_for_the_merge_to_decide() -> None:
    resolver = fields({"/s/n": resolvers.counter})
    base = {"s": {"n": 1}, "t": 1}

    assert decide(resolver, conflict((A, {"s": {}, "t": 1}, 1), (B, {"s": {"n": 1}, "t": 2}, 2), base=base)) == {
        "s": {},
        "t": 2,
    }
    assert decide(resolver, conflict((A, {"t": 1}, 1), (B, {"s": {"n": 2}, "t": 1}, 2), base=base)) is KEEP


def test_a_field_that_only_some_siblings_have_added_is_decided_among_these() -> None:
    resolver = fields({"/s/n": resolvers.counter})
    rivals = conflict((A, {"s": {"n": 2}}, 1), (B, {"s": {"n": 3}}, 2), (C, {"t": 1}, 3), base={})

    assert decide(resolver, rivals) == {"s": {"n": 5}, "t": 1}


def test_a_policy_for_the_empty_pointer_decides_the_whole_value() -> None:
    assert decide(fields({"": resolvers.counter}), conflict((A, 3, 1), (B, 6, 2), base=2)) == 7
    assert decide(fields({"": resolvers.counter}), conflict((A, 3, 1), (B, 6, 2))) == 9


def test_resolvers_are_found_by_name_and_the_choices_are_named() -> None:
    assert [by_name(name) for name in ("keep", "winner", "last_write", "json3")] == [
        resolvers.keep,
        resolvers.winner,
        resolvers.last_write,
        resolvers.json3,
    ]
    with pytest.raises(ConfigurationError, match="'newest': choose one of keep, winner, last_write, json3"):
        by_name("newest")


def test_rules_that_do_not_exist_are_refused_when_the_resolver_is_made() -> None:
    refused: list[Callable[[], object]] = [
        lambda: three_way(on_clash="loudest"),  # type: ignore[arg-type]
        lambda: three_way(strictness="loose"),  # type: ignore[arg-type]
        lambda: three_way(arrays="bag"),
        lambda: fields({"views": resolvers.counter}),
    ]
    for make in refused:
        with pytest.raises(ConfigurationError):
            make()


def test_a_resolver_cannot_change_what_the_store_has() -> None:
    def scribble(rivals: Siblings) -> Any:
        rivals.siblings[0].value["n"] = 99
        return rivals.siblings[0].value

    rivals = conflict((A, {"n": 1}, 1), (B, {"n": 2}, 2))

    assert decide(scribble, rivals) == {"n": 99}
    assert rivals == conflict((A, {"n": 1}, 1), (B, {"n": 2}, 2))


def test_a_resolver_that_raises_is_named_with_the_key_and_the_cause() -> None:
    def careless(rivals: Siblings) -> Any:
        return rivals.siblings[0].value["title"]

    with pytest.raises(
        ResolverError, match=r"careless failed on 'k': KeyError: 'title'.*Nothing was written"
    ) as caught:
        decide(careless, conflict((A, {}, 1), (B, {"n": 1}, 2)))

    assert isinstance(caught.value.__cause__, KeyError)


def test_an_answer_that_cannot_be_json_is_refused_and_null_is_a_value() -> None:
    rivals = conflict((A, 1, 1), (B, 2, 2))

    assert decide(lambda rivals: None, rivals) is None
    assert decide(lambda rivals: DELETE, rivals) is DELETE
    with pytest.raises(ResolverError, match="returned a Sibling for 'k'"):
        decide(lambda rivals: rivals.siblings[0], rivals)
    with pytest.raises(ResolverError, match="returned a function for 'k'"):
        decide(lambda rivals: resolvers.winner, rivals)


NUMBERS = st.integers(-5, 5) | st.sampled_from([0.1, 0.2, 0.3, -0.0, 0.0, 1.0, True])
FIELD = NUMBERS | st.lists(st.sampled_from(["x", "y", 1]), max_size=3) | st.sampled_from(["a", "b"])
BODIES = st.dictionaries(st.sampled_from(["f", "g", "h"]), FIELD, max_size=3)
POLICIES = [
    resolvers.maximum,
    resolvers.minimum,
    resolvers.counter,
    resolvers.union,
    resolvers.append,
    resolvers.first,
    resolvers.last,
]
RESOLVERS: list[Resolver] = [
    resolvers.keep,
    resolvers.winner,
    resolvers.last_write,
    resolvers.json3,
    three_way(strictness="strict", on_clash="winner"),
    three_way(strictness="lenient", arrays="set", on_clash="last_write"),
    *(fields({"/f": policy}) for policy in POLICIES),
    fields({"/f": resolvers.counter, "/g": resolvers.append}, default=three_way(on_clash="winner")),
]


@pytest.mark.parametrize("resolver", RESOLVERS, ids=[f"resolver-{n}" for n in range(len(RESOLVERS))])
@settings(max_examples=60, deadline=None)
@given(
    bodies=st.lists(st.tuples(BODIES, st.integers(1, 3)), min_size=2, max_size=4),
    base=st.none() | BODIES,
)
def test_the_same_siblings_in_any_order_get_the_same_bytes(
    resolver: Resolver, bodies: list[tuple[dict[str, Any], int]], base: dict[str, Any] | None
) -> None:
    ancestor = None if base is None else Sibling("1-00", base, False, 1)
    siblings = [Sibling(f"{2 + n % 2}-{n}", body, False, stamp) for n, (body, stamp) in enumerate(bodies)]

    answers = {
        answer if answer is KEEP else json.dumps(answer)
        for order in permutations(siblings)
        for answer in [decide(resolver, Siblings("k", order, ancestor))]
    }

    assert len(answers) == 1


def test_a_resolver_has_an_identity_of_few_ascii_characters() -> None:
    """Its name, or where it is defined; its version; two that are too long for it differ all the same."""

    class Merger:
        def __init__(self, name: str, version: object = None) -> None:
            self.name = name
            self.version = version

        def __call__(self, conflict: Siblings, /) -> Any:
            return KEEP

    assert [identity(each) for each in (resolvers.keep, resolvers.json3, three_way())] == ["keep", "json3", "json3"]
    assert identity(conflict).endswith("test_resolvers:conflict")  # type: ignore[arg-type]
    assert identity(partial(resolvers.winner)) == "vstore.resolvers:winner"
    assert identity(fields({})) == "vstore.resolvers:fields"
    assert identity(Merger("ours", 7)) == "ours@7"
    assert identity(Merger("é\n x")) == r"\xe9x"
    long = [identity(Merger("m" * 100 + end, 7)) for end in "ab"]
    assert [len(each) for each in long] == [58, 58]
    assert all(each.endswith("@7") for each in long)
    assert len(set(long)) == 2
    assert identity(lambda conflict: 1) != identity(lambda conflict: 2)
    assert all(len(identity(each)) <= 58 for each in (lambda conflict: 1, Merger("x", "v" * 100), Merger("")))


def test_only_those_that_say_so_need_no_base() -> None:
    def own(conflict: Siblings) -> Any:
        return KEEP

    assert [needs_base(each) for each in (resolvers.json3, fields({}), own)] == [True, True, True]
    own.needs_base = False  # type: ignore[attr-defined]
    assert [needs_base(each) for each in (resolvers.winner, resolvers.last_write, own)] == [False, False, False]
