"""The three-way merge: golden examples, and its laws over random values."""

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vstore.errors import ConfigurationError
from vstore.merge import MISSING, Clash, Merged, merge, same

NAMES = st.sampled_from(["a", "b", "c", "d/e", "f~g", ""])
SCALARS = st.none() | st.booleans() | st.sampled_from([0, 1, 2, 0.0, -0.0, 1.0, 2.5, "", "x", "y"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=10
)
RULES = st.fixed_dictionaries(
    {
        "strictness": st.sampled_from(["strict", "path", "lenient"]),
        "arrays": st.sampled_from(["atomic", "set", "id:a"]),
    }
)


@st.composite
def families(draw: st.DrawFn) -> tuple[Any, list[Any]]:
    """A base and two to four siblings, each most often the base with a few fields changed."""
    base: Any = draw(st.one_of(st.dictionaries(NAMES, VALUES, max_size=4), VALUES))
    siblings: list[Any] = []
    for _ in range(draw(st.integers(2, 4))):
        if isinstance(base, dict) and draw(st.integers(0, 4)):
            dropped = draw(st.sets(NAMES, max_size=2))
            kept = {name: value for name, value in base.items() if name not in dropped}
            siblings.append({**kept, **draw(st.dictionaries(NAMES, VALUES, max_size=2))})
        else:
            siblings.append(draw(VALUES))
    return draw(st.sampled_from([base, base, base, MISSING])), siblings


# Equality


@pytest.mark.parametrize(
    ("a", "b"),
    [(True, 1), (False, 0), (1, 1.0), (0.0, -0.0), (None, False), ("1", 1), ([], {}), ([1], [True]), ({"a": 1}, {})],
)
def test_values_that_python_may_call_equal_are_not_the_same_json(a: Any, b: Any) -> None:
    assert not same(a, b)
    assert not same({"k": [a]}, {"k": [b]})


def test_the_order_of_keys_does_not_matter_but_the_order_of_items_does() -> None:
    assert same({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1})
    assert not same([1, 2], [2, 1])


# Golden examples


def test_changes_to_different_fields_come_together() -> None:
    base = {"title": "Hello", "author": {"name": "Ann", "city": "Lyon"}, "draft": True}
    renamed = {"title": "Hi", "author": {"name": "Ann", "city": "Lyon"}, "draft": True}
    moved = {"title": "Hello", "author": {"name": "Ann", "city": "Metz"}, "draft": True}
    published = {"title": "Hello", "author": {"name": "Ann", "city": "Lyon"}, "tags": ["news"]}

    merged = merge(base, [renamed, moved, published])

    assert merged == Merged({"title": "Hi", "author": {"name": "Ann", "city": "Metz"}, "tags": ["news"]}, ())


def test_different_changes_to_one_field_clash_and_the_first_that_changed_it_shows() -> None:
    base = {"n": 1, "m": 1}

    merged = merge(base, [{"n": 1, "m": 2}, {"n": 2, "m": 1}, {"n": 3, "m": 1}])

    assert merged == Merged({"n": 2, "m": 2}, (Clash("/n", 1, (1, 2, 3)),))


def test_an_integer_that_became_a_float_or_a_boolean_is_a_change() -> None:
    assert repr(merge({"n": 1}, [{"n": 1}, {"n": 1.0}]).value) == "{'n': 1.0}"
    assert repr(merge({"n": 1}, [{"n": True}, {"n": 1}]).value) == "{'n': True}"
    assert merge({"n": 0.0}, [{"n": -0.0}, {"n": 0}]).conflicts[0].path == "/n"


def test_removing_a_field_clashes_with_changing_it() -> None:
    base = {"a": 1, "b": {"x": 1}}

    merged = merge(base, [{"b": {"x": 1}}, {"a": 2, "b": {"x": 1}}])

    assert merged == Merged({"b": {"x": 1}}, (Clash("/a", 1, (MISSING, 2)),))
    assert merge(base, [{"a": 1}, {"a": 1, "b": {"x": 2}}]).conflicts == (Clash("/b", {"x": 1}, (MISSING, {"x": 2})),)


def test_a_change_of_type_clashes_with_another_change() -> None:
    merged = merge({"a": 1}, [{"a": {"x": 1}}, {"a": {"y": 1}}])

    assert merged == Merged({"a": {"x": 1}}, (Clash("/a", 1, ({"x": 1}, {"y": 1})),))


def test_two_objects_added_under_one_name_come_together_when_the_base_is_known() -> None:
    merged = merge({}, [{"a": {"x": 1}}, {"a": {"y": 2}}, {}])

    assert merged == Merged({"a": {"x": 1, "y": 2}}, ())


def test_without_a_base_only_what_is_equal_everywhere_is_agreed_on() -> None:
    merged = merge(MISSING, [{"a": 1, "b": 2, "o": {"x": 1}}, {"a": 1, "b": 3, "o": {"x": 1, "y": 2}}])

    assert merged.value == {"a": 1, "b": 2, "o": {"x": 1}}
    assert merged.conflicts == (Clash("/b", MISSING, (2, 3)), Clash("/o/y", MISSING, (MISSING, 2)))


def test_keys_come_in_the_order_of_the_base_and_then_sorted() -> None:
    base = {"z": 1, "a": {"y": 1, "b": 1}}

    merged = merge(base, [{"a": {"b": 2, "y": 1}, "z": 1, "n": 1}, {"c": {"q": 1, "p": 1}, "a": base["a"], "z": 1}])

    assert json.dumps(merged.value) == '{"z": 1, "a": {"y": 1, "b": 2}, "c": {"p": 1, "q": 1}, "n": 1}'


def test_a_path_is_a_json_pointer_with_escapes() -> None:
    merged = merge({"a/b": {"m~n": 1}}, [{"a/b": {"m~n": 2}}, {"a/b": {"m~n": 3}}])

    assert [clash.path for clash in merged.conflicts] == ["/a~1b/m~0n"]


def test_whole_values_that_are_no_objects_clash_at_the_root() -> None:
    assert merge(1, [2, 3]) == Merged(2, (Clash("", 1, (2, 3)),))


def test_strict_lets_two_siblings_change_two_objects_but_not_one() -> None:
    base = {"name": "Ann", "home": {"street": "Rue A", "city": "Lyon"}}
    street = {"name": "Ann", "home": {"street": "Rue B", "city": "Lyon"}}
    city = {"name": "Ann", "home": {"street": "Rue A", "city": "Metz"}}
    name = {"name": "Anna", "home": {"street": "Rue A", "city": "Lyon"}}

    assert merge(base, [street, city]).value["home"] == {"street": "Rue B", "city": "Metz"}
    assert merge(base, [street, city], strictness="strict") == Merged(
        street, (Clash("/home", base["home"], (street["home"], city["home"])),)
    )
    assert merge(base, [street, name, street], strictness="strict") == Merged(
        {"name": "Anna", "home": {"street": "Rue B", "city": "Lyon"}}, ()
    )


def test_lenient_lets_a_change_win_over_a_removal() -> None:
    base = {"a": 1, "o": {"x": 1, "y": 1}}

    merged = merge(base, [{}, {"a": 2, "o": {"x": 1, "y": 1}}, {"a": 1, "o": {"x": 2, "y": 1}}], strictness="lenient")

    assert merged == Merged({"a": 2, "o": {"x": 2, "y": 1}}, ())
    assert merge({"a": 1}, [{}, {"a": 2}, {"a": 3}], strictness="lenient").conflicts[0].path == "/a"


def test_lenient_without_a_base_keeps_what_only_some_siblings_have() -> None:
    merged = merge(MISSING, [{"a": 1}, {"b": {"x": 1}}, {"b": {"y": 1}}], strictness="lenient")

    assert merged == Merged({"a": 1, "b": {"x": 1, "y": 1}}, ())


def test_arrays_are_atomic_unless_said_otherwise() -> None:
    assert merge([1], [[1, 2], [1]]) == Merged([1, 2], ())
    assert merge([1], [[1, 2], [1, 3]]) == Merged([1, 2], (Clash("", [1], ([1, 2], [1, 3])),))


def test_arrays_as_sets_have_what_anyone_added_and_not_what_anyone_removed() -> None:
    base = {"tags": ["z", "m", 1]}

    merged = merge(base, [{"tags": ["z", "m", 1, "b", True]}, {"tags": ["z", 1, "a", 1.0]}], arrays="set")

    assert repr(merged) == repr(Merged({"tags": ["z", 1, "a", "b", 1.0, True]}, ()))


def test_arrays_of_objects_merge_item_by_item_when_matched_by_a_field() -> None:
    base = [{"id": 7, "t": "x", "n": 1}, {"id": 8, "t": "y"}]
    one = [{"id": 7, "t": "X", "n": 1}, {"id": 8, "t": "y"}, {"id": 9, "t": "new"}]
    other = [{"id": 7, "t": "x", "n": 2}]

    assert merge(base, [one, other], arrays="id:id") == Merged([{"id": 7, "t": "X", "n": 2}, {"id": 9, "t": "new"}], ())


def test_a_clash_in_a_matched_item_names_it_by_its_id() -> None:
    base = {"items": [{"id": 7, "t": "x"}, {"id": "p", "t": "y"}]}
    one = {"items": [{"id": "p", "t": "y"}, {"id": 7, "t": "one"}]}
    other = {"items": [{"id": 7, "t": "other"}, {"id": "p", "t": "z"}]}

    merged = merge(base, [one, other], arrays="id:id")

    assert merged.value == {"items": [{"id": 7, "t": "one"}, {"id": "p", "t": "z"}]}
    assert merged.conflicts == (Clash("/items/7/t", "x", ("one", "other")),)


@pytest.mark.parametrize("odd", [[{"id": 1}, {"id": 1, "x": 1}], [{"x": 1}], [1]])
def test_an_array_whose_items_cannot_be_matched_is_atomic(odd: list[Any]) -> None:
    merged = merge([], [odd, [{"id": 2}]], arrays="id:id")

    assert merged == Merged(odd, (Clash("", [], (odd, [{"id": 2}])),))


def test_values_at_the_nesting_limit_merge() -> None:
    def nested(leaf: Any) -> Any:
        for _ in range(200):
            leaf = {"d": leaf}
        return leaf

    merged = merge(nested({"a": 1, "b": 1}), [nested({"a": 2, "b": 1}), nested({"a": 1, "b": 2})])

    assert same(merged.value, nested({"a": 2, "b": 2}))


def test_rules_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'strict', 'path' or 'lenient'"):
        merge({}, [{}], strictness="loose")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'atomic', 'set' or 'id:'"):
        merge({}, [{}], arrays="bag")
    with pytest.raises(ConfigurationError, match="at least one"):
        merge({}, [])


# Laws


@settings(max_examples=150, deadline=None)
@given(VALUES, VALUES, RULES)
def test_a_change_by_one_sibling_is_taken_as_it_is(base: Any, value: Any, rules: Any) -> None:
    for siblings in ([value, base], [base, value], [base, value, base, value], [value, value]):
        merged = merge(base, siblings, **rules)

        assert same(merged.value, value)
        assert not merged.conflicts
    assert same(merge(MISSING, [value, value], **rules).value, value)


@settings(max_examples=300, deadline=None)
@given(families(), RULES)
def test_the_order_of_siblings_changes_nothing_but_the_side_shown_at_a_clash(
    family: tuple[Any, list[Any]], rules: Any
) -> None:
    base, siblings = family
    merged = merge(base, siblings, **rules)

    for order in permutations(siblings):
        again = merge(base, order, **rules)

        if not merged.conflicts:
            assert json.dumps(again.value) == json.dumps(merged.value)
        assert [clash.path for clash in again.conflicts] == [clash.path for clash in merged.conflicts]


@settings(max_examples=200, deadline=None)
@given(families(), RULES)
def test_no_field_is_dropped_that_nobody_deleted(family: tuple[Any, list[Any]], rules: Any) -> None:
    base, siblings = family
    merged = merge(base, siblings, **rules)
    if merged.conflicts or not all(isinstance(value, dict) for value in siblings):
        return

    for name in {name for sibling in siblings for name in sibling}:
        deleted = isinstance(base, dict) and name in base and any(name not in sibling for sibling in siblings)
        assert name in merged.value or deleted


PATHS = ["/a/x", "/a/y", "/b/x", "/b/y", "/c"]
EDITS = st.dictionaries(st.sampled_from(PATHS), st.sampled_from([1, 1.0, True, "s", MISSING]), max_size=3)


@settings(max_examples=300, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=4))
def test_there_are_conflicts_exactly_where_edits_overlap_and_all_other_edits_are_in(edits: list[Any]) -> None:
    """The oracle knows each sibling's edits; the merge has to find them out."""

    def edited(changes: dict[str, Any]) -> dict[str, Any]:
        value: dict[str, Any] = {"a": {"x": 0, "y": 0}, "b": {"x": 0, "y": 0}, "c": 0}
        for path, change in changes.items():
            *parents, name = path.split("/")[1:]
            around = value[parents[0]] if parents else value
            if change is MISSING:
                del around[name]
            else:
                around[name] = change
        return value

    by_path = {path: {repr(each[path]) for each in edits if path in each} for path in PATHS}
    overlapping = [path for path in PATHS if len(by_path[path]) > 1]
    everything = {path: change for each in reversed(edits) for path, change in each.items()}  # the first one wins

    merged = merge(edited({}), [edited(each) for each in edits])

    assert [clash.path for clash in merged.conflicts] == overlapping
    assert same(merged.value, edited(everything))


@settings(max_examples=100, deadline=None)
@given(families(), RULES)
def test_the_result_shares_nothing_with_the_arguments(family: tuple[Any, list[Any]], rules: Any) -> None:
    base, siblings = family
    before = repr((base, siblings))

    _scribble(merge(base, siblings, **rules).value)

    assert repr((base, siblings)) == before


def _scribble(value: Any) -> None:
    """Changes every container inside the value."""
    if isinstance(value, dict):
        for inner in value.values():
            _scribble(inner)
        value["scribbled"] = True
    elif isinstance(value, list):
        for inner in value:
            _scribble(inner)
        value.append("scribbled")
