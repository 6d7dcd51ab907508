"""Queries as text: what is read, what is refused and how, and that text and expressions mean the same."""

from __future__ import annotations

import contextlib
import pickle
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mapreduce.errors import InvalidExpression
from mapreduce.query.fields import (
    ALL,
    About,
    Arithmetic,
    Comparison,
    Doc,
    Exists,
    Expression,
    F,
    Function,
    IsIn,
    IsType,
    Literal,
    Logic,
    Matches,
    Not,
    Path,
    Quantified,
    StartsWith,
)
from mapreduce.query.language import LEVELS, figures, items, parsed, text_of
from mapreduce.query.meaning import TYPES
from mapreduce.reducers.collect import Collect
from mapreduce.reducers.distinct import Distinct
from mapreduce.reducers.extremes import First, Last, Max, Min, TopK
from mapreduce.reducers.quantiles import Quantiles
from mapreduce.reducers.sums import Count, Mean, Stats, Sum
from vstore.document import Context, Document
from vstore.errors import ConfigurationError, StoreError

pytestmark = pytest.mark.timeout(120)


# --- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        # paths
        ("a.b", F.a.b == 0),
        ("items[0].price", F["items"][0].price == 0),
        ("items[-1]", F["items"][-1] == 0),
        ("`odd name`.`a``b`.c", F["odd name"]["a`b"].c == 0),
        ('a["odd name"][""]', F.a["odd name"][""] == 0),
        ("a.and.not", F.a["and"]["not"] == 0),
        ("exists.any.count", F["exists"]["any"].count == 0),
        ("straße", F["straße"] == 0),
        ("`2nd`", F["2nd"] == 0),
        ("it[0]", F[0] == 0),
        ("it", F == 0),
        ("`it`", F["it"] == 0),
        ("@key", Doc.key == 0),
        ("@stamp", Doc.stamp == 0),
    ],
)
def test_paths(text: str, expression: Expression) -> None:
    assert repr(parsed(f"{text} == 0")) == repr(expression)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a\\n\\"\\u00e9\\ud83d\\ude00/"', 'a\n"é😀/'),
        ("'it\\'s \"so\"'", 'it\'s "so"'),
        ('r"\\d\\n"', "\\d\\n"),
        ("r'\"'", '"'),
        ("5", 5),
        ("-5", -5),
        ("123456789012345678901", 123456789012345678901),
        ("1.5e3", 1500.0),
        ("-2E-1", -0.2),
        ("true", True),
        ("null", None),
        ("[]", []),
        ('[1, [-2, "x"], false]', [1, [-2, "x"], False]),
        ('{"a": {"b": [null]}, "": 1}', {"a": {"b": [None]}, "": 1}),
    ],
)
def test_literals_are_those_of_json(text: str, value: Any) -> None:
    expression = parsed(text)

    assert isinstance(expression, Literal)
    assert (expression.value, type(expression.value)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        # comparisons
        ("a = 1", F.a == 1),
        ("a <> 1", F.a != 1),
        ("1 <= a", Literal(1) <= F.a),
        ("a in [1, 'x', [2]]", F.a.isin([1, "x", [2]])),
        ("a not in []", ~F.a.isin([])),
        ("a between 1 and b + 1 and c", F.a.between(1, F.b + 1) & F.c),
        ("a not between 1 and 2", ~F.a.between(1, 2)),
        ("a startswith 'x'", F.a.startswith("x")),
        ("not a startswith 'x'", ~F.a.startswith("x")),
        ("a not startswith 'x'", ~F.a.startswith("x")),
        ('a ~ r"^\\d"', F.a.matches(r"^\d")),
        ("a matches 'x'", F.a.matches("x")),
        ("a !~ 'x'", ~F.a.matches("x")),
        ("exists(a.b)", F.a.b.exists()),
        ("a is missing", ~F.a.exists()),
        ("a is not missing", F.a.exists()),
        ("a is null", F.a.is_null()),
        ("a is not string", ~F.a.is_type("string")),
        ("type(a) = 'string'", F.a.is_type("string")),
        ("type(a) != 'string'", F.a.exists() & ~F.a.is_type("string")),
        ("type(a) in ['null', 'array']", F.a.is_type("null", "array")),
        ("type(a) not in ['null']", F.a.exists() & ~F.a.is_type("null")),
        ("any(items, price > 3 and @key == 'x')", F["items"].any((F.price > 3) & (Doc.key == "x"))),
        ("all(tags, it != 'x')", F.tags.all(F != "x")),
        ("any(a, any(it, it > 1))", F.a.any(F.any(F > 1))),
        ("'x' in tags", F.tags.any() == "x"),
        ("-1 not in a.b", ~F.a.b.any(F == -1)),
        ("(tags[*]) == 1", F.tags[:] == 1),
        ("tags[*] == [1]", F.tags[:] == [1]),
        ("length(tags[*]) > 1", F.tags[:].length() > 1),
        # logic
        ("not a or b and c", ~F.a | F.b & F.c),
        ("!a || b && !c", ~F.a | F.b & ~F.c),
        ("not (a or b) and c", ~(F.a | F.b) & F.c),
        ("not a == 1", ~(F.a == 1)),
        ("(a == 1) == true", (F.a == 1) == True),  # noqa: E712
        # arithmetic
        ("a + b * 2 - c", F.a + F.b * 2 - F.c),
        ("a - (b - c)", F.a - (F.b - F.c)),
        ("(a + 1) * 2 / b // 3 % 4", (F.a + 1) * 2 / F.b // 3 % 4),
        ("a -1", F.a - 1),
        ("a - -1", F.a - -1),
        ("-a * b", -F.a * F.b),
        ("-(a + b)", -(F.a + F.b)),
        ("a + 1 > b % 2", F.a + 1 > F.b % 2),
        ("lower(name + 'X') = 'x'", (F.name + "X").lower() == "x"),
        ("length(a)", F.a.length()),
        (" a\n==\t1 ", F.a == 1),
    ],
)
def test_what_is_typed_is_what_python_would_say(text: str, expression: Expression) -> None:
    assert repr(parsed(text)) == repr(expression)


def test_a_long_chain_is_a_shallow_tree() -> None:
    """Ten thousand alternatives, as a program may put them together, do not end in a RecursionError."""
    expression = parsed(" or ".join(f"a == {number}" for number in range(10_000)))

    assert expression.holds("k", {"a": 9_999})
    assert not expression.holds("k", {"a": 10_000})
    assert text_of(parsed("a or b or c or d or e and f and g")) == "a or b or c or d or e and f and g"


def test_columns_have_the_name_they_are_given_else_their_text() -> None:
    found = items('author.name, `odd name`, price*2 as double, lower(title), tags[0] as `first tag`, @key, a["b c"].d')

    assert [(item.name, repr(item.value)) for item in found] == [
        ("author.name", "F.author.name"),
        ("odd name", "F['odd name']"),
        ("double", "F.price * 2"),
        ("lower(title)", "F.title.lower()"),
        ("first tag", "F.tags[0]"),
        ("@key", "Doc.key"),
        ("a.`b c`.d", "F.a['b c'].d"),
    ]


def test_aggregates_by_name() -> None:
    found = figures(
        "count(), n = count(a), sum(a * 2), `the mean` = mean(a), min(a) as least, max(a), stats(a), top(3, a), "
        "collect(a), distinct(a), distinct~(a), quantiles(a), quantiles(0.5, 1, a), first(a), last(a, b.c)"
    )

    assert [item.name for item in found] == [
        "count", "n", "sum(a * 2)", "the mean", "least", "max(a)", "stats(a)", "top(3, a)",
        "collect(a)", "distinct(a)", "distinct~(a)", "quantiles(a)", "quantiles(0.5, 1, a)", "first(a)", "last(a, b.c)",
    ]  # fmt: skip
    a = F.a
    assert list(map(repr, (item.value for item in found))) == list(
        map(
            repr,
            [
                Count(), Count(a), Sum(a * 2), Mean(a), Min(a), Max(a), Stats(a), TopK(3, a),
                Collect(a), Distinct(a), Distinct(a, exact=False), Quantiles(of=a), Quantiles((0.5, 1), a),
                First(a, Doc.stamp), Last(a, F.b.c),
            ],
        )
    )  # fmt: skip


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "it is empty.\n\n^"),
        ("a nad b", "an operator such as and, == or +, and found 'nad'. Did you mean 'and'?\na nad b\n  ^^^"),
        ("a == 1 AND b", "Did you mean 'and'?\na == 1 AND b\n       ^^^"),
        ("a = = 1", "expected a path, a value or '(', and found '='.\na = = 1\n    ^"),
        ("a == and", "found 'and', a word of the language. As a name it is written `and`.\na == and\n     ^^^"),
        ("a ==", "found the end.\na ==\n    ^"),
        ("(a == 1", "expected ')', or an operator such as and, == or +, and found the end.\n(a == 1\n       ^"),
        ("1 < a < 3", "comparisons do not chain. Write a < b and b < c, or b between a and c.\n1 < a < 3\n      ^"),
        ("a between 1 or 2", "expected 'and' and the upper end of between, and found 'or'."),
        ("tags[*] == 'x'", "For an element of it write any(tags[*], it == \"x\").\ntags[*] == 'x'\n^"),
        ("lenght(x) > 1", "there is no function lenght(). Did you mean length?"),
        ("sum(x) > 1", "there is no function sum(). Known are exists, lower, length, type, any, all.\nsum(x) > 1\n^^^"),
        ("a is sting", "found 'sting'. Did you mean 'string'?\na is sting\n     ^^^^^"),
        ("a not 5", "expected in, between, startswith or matches after not, and found '5'."),
        ("type(a)", 'type() wants == or !=, and a type: type(a) == "string".'),
        ("type(a) + 1 == 'x'", "type() cannot be calculated with."),
        ("1 + type(a) == 'x'", "type() wants == or !="),
        ("type(a) == 'text'", "number, integer, string, array, object.\ntype(a) == 'text'\n           ^^^^^^"),
        ("@ky == 1", "one of key, rev, stamp, deleted. Did you mean key?\n@ky == 1\n^^^"),
        ("a startswith b", "expected the beginning, a string, and found 'b'."),
        ("a ~ '('", "no regular expression: missing ), unterminated subpattern at position 0.\na ~ '('\n    ^^^"),
        ("a ~ '[[a]'", "this is no regular expression: Possible nested set"),
        ("a == '\\d'", "\\d is no escape of JSON. For a backslash write two, or the whole string as r\"…\"."),
        ("a == '\\ud800'", "half of a surrogate pair"),
        ("a == '\udcff'", "this is no UTF-8.\na == '?'\n      ^"),
        ('a == "b', "the \" that begins here is never closed.\na == \"b\n     ^"),
        ("`a", "the ` that begins here is never closed."),
        ("a == 10kib", "a number ends in letters; a name that begins with a digit goes between backquotes"),
        ("a == 1.2.3", "this is no number."),
        ("a == 1e999", "this number is too large."),
        ("a == " + "9" * 5000, "this number is too long."),
        ("a & b", "& is no operator; write and.\na & b\n  ^"),
        ("a ; b", "';' has no meaning here.\na ; b\n  ^"),
        ("a.5", "expected a name after the dot, and found '5'."),
        ("a[1.5]", "expected an index, * for all elements, or a name as a string, and found '1.5'."),
        ("a[1", "expected ']', and found the end."),
        ("a in 'x'", "expected a list, such as [1, 2], or a path, and found \"'x'\"."),
        ("a in b", 'on the left of in with a path there can only be a value: "x" in tags.'),
        ("a in [b]", "expected a value: a string, number, true, false, null or a list of them, and found 'b'."),
        ("a in [1", "expected ',' or ']', and found the end."),
        ("any(a)", "expected ',' and the condition for the elements, and found ')'."),
        ("a\n  ==\n  == b", "expected a path, a value or '(', and found '=='.\n  == b\n  ^^"),
        ("(" * (LEVELS + 1) + "a", f"it goes more than {LEVELS} levels deep."),
        ("not " * (LEVELS + 1) + "a", f"it goes more than {LEVELS} levels deep."),
        ("a in " + "[" * (LEVELS + 1), f"it goes more than {LEVELS} levels deep."),
        ("1" + " + 1" * (LEVELS + 1), f"it has more than {LEVELS} operators in a row."),
    ],
)  # fmt: skip
def test_an_error_shows_the_place_and_what_would_fit(text: str, complaint: str) -> None:
    with pytest.raises(InvalidExpression) as caught:
        parsed(text)

    problem, *shown = str(caught.value).split("\n")
    told = "\n".join([problem.removesuffix(" Nothing was run."), *(line[2:] for line in shown)])
    assert told.startswith("this cannot be read: ")
    assert complaint in told
    assert problem.endswith(" Nothing was run.")
    assert isinstance(caught.value, StoreError)
    caught.value.__context__ = None  # which another library may have taught pickle to take along, with its frames
    again = pickle.loads(pickle.dumps(caught.value.with_traceback(None)))
    assert (str(again), again.text, again.position) == (str(caught.value), text, caught.value.position)


def test_of_a_long_line_the_part_around_the_error_is_shown() -> None:
    with pytest.raises(InvalidExpression) as caught:
        parsed(f"{'a' * 200} nad {'b' * 200}")

    _, shown, marks = str(caught.value).split("\n")
    assert len(shown) < 110
    assert shown[marks.index("^") :].startswith("nad")


@pytest.mark.parametrize(
    ("read", "text", "complaint"),
    [
        (items, "a,", "found the end"),
        (items, "a as 5", "expected a name for the column, and found '5'"),
        (items, "a b", "expected the end"),
        (figures, "count", "expected '('"),
        (figures, "total(a)", "expected one of sum(), count(), "),
        (figures, "meen(a)", "Did you mean 'mean'?"),
        (figures, "sum()", r"sum is written as sum(x)"),
        (figures, "count(a, b)", "count is written as count() or count(x)"),
        (figures, "top(a, 3)", "top is written as top(10, x)"),
        (figures, "top(true, a)", "top is written as top(10, x)"),
        (figures, "top(0, a)", "top is written as top(10, x)"),
        (figures, "quantiles(2, a)", "numbers from 0 to 1"),
        (figures, "quantiles(b, a)", "numbers from 0 to 1"),
        (figures, "n = 5", "expected one of"),
    ],
)
def test_columns_that_cannot_be_read_are_refused(read: Any, text: str, complaint: str) -> None:
    with pytest.raises(InvalidExpression, match=re.escape(complaint)):
        read(text)


VOCABULARY = """
    a b it and or not in is as null true between startswith matches missing string exists any all type lower @key
    == = != < >= ~ !~ && || ! + - * / // % ( ) [ ] { } , . : [*] 0 1.5 -2 'x' "y" r'z' `q q` sum( count() @ # \\
"""
WORDS = st.sampled_from(VOCABULARY.split())


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=40) | st.lists(WORDS, max_size=14).map(" ".join) | st.lists(WORDS, max_size=14).map("".join))
@example("((((((a")
@example("a == '\\u12'")
@example("a =")
@example("٣٣.٥")
def test_whatever_is_typed_is_read_or_refused_with_the_one_error(text: str) -> None:
    for read in (parsed, items, figures):
        with contextlib.suppress(InvalidExpression):
            read(text)


# --- text and back ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "it", "and", "odd name", "x`y", "", "2", "type", "é", "r"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.just(2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", 'b"\\', "\n\u2028", "A"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
PATHS = st.lists(NAMES | NAMES | st.integers(-2, 2) | st.just(ALL), max_size=3).map(lambda steps: Path(tuple(steps)))
LEAVES = PATHS | JSON.map(Literal) | st.sampled_from(["key", "rev", "stamp", "deleted"]).map(About)
PATTERNS = st.sampled_from([re.compile("a"), re.compile('\\d"', re.IGNORECASE), re.compile("(?s)^.", re.MULTILINE)])


def larger(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.one_of(
        st.builds(Comparison, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), inner, inner),
        st.builds(Arithmetic, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner, inner),
        st.builds(Logic, st.sampled_from("&|"), inner, inner),
        st.builds(Not, inner),
        st.builds(IsIn, inner, st.lists(JSON, max_size=2).map(tuple)),
        st.builds(StartsWith, inner, st.sampled_from(["", "a", '"'])),
        st.builds(Matches, inner, PATTERNS),
        st.builds(Exists, inner),
        st.builds(IsType, inner, st.lists(st.sampled_from(TYPES), min_size=1, max_size=2).map(tuple)),
        st.builds(Quantified, inner, inner, st.booleans()),
        st.builds(Function, st.sampled_from(["lower", "length", "negative"]), inner),
    )


EXPRESSIONS = st.recursive(LEAVES, larger, max_leaves=8)


@settings(max_examples=400, deadline=None)
@given(EXPRESSIONS, st.lists(JSON, min_size=1, max_size=3))
@example(-Literal(0), [None])
def test_the_text_of_an_expression_means_what_the_expression_means(expression: Expression, values: list[Any]) -> None:
    """For documents that come from a store, and for values that do not."""
    again = parsed(text_of(expression))

    for value in values:
        document = Document("k", value, "1-a", (), False, 5, Context("k"))
        for given_value in (value, document):
            found = again.evaluate("k", given_value)
            assert repr(found) == repr(expression.evaluate("k", given_value))
    assert text_of(again) == text_of(expression)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ((F.a | F.b) & ~(F.c == 1), "(a or b) and not c == 1"),
        (F["it"].any(F > 3), "any(`it`, it > 3)"),
        ((F.a - (F.b - F.c)) * 2, "(a - (b - c)) * 2"),
        (F.a["x y"][""][0].c[:], 'a.`x y`[""][0].c[*]'),
        (F.a.isin(["é", None]), 'a in ["é", null]'),
        (F.a.is_type("string", "null"), 'type(a) in ["string", "null"]'),
        (F.a.matches(re.compile("x", re.IGNORECASE)), 'a matches "(?i)x"'),
        (F.tags[:] == 1, "(tags[*]) == 1"),
        (-F.a, "-a"),
        (F.a > -1, "a > -1"),
    ],
)
def test_text_has_the_brackets_it_needs_and_no_more(expression: Expression, text: str) -> None:
    assert text_of(expression) == text


@pytest.mark.parametrize(
    "expression", [F.a == float("inf"), F.a.matches(re.compile("x", re.DEBUG))], ids=["infinity", "flags"]
)
def test_what_the_language_has_no_words_for_has_no_text(expression: Expression) -> None:
    with pytest.raises(ConfigurationError, match="has no text in the query language"):
        text_of(expression)
