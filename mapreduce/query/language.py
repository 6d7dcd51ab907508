r"""Queries as text: `section == "games" and installed_size_kib > 10000`.

A small language for command lines and settings. Text becomes the same
expressions that `F` makes in Python, by a parser of its own: nothing is ever
evaluated as Python. What an expression means: `mapreduce.query.meaning`.

    condition  = both *(("or" | "||") both)
    both       = negation *(("and" | "&&") negation)
    negation   = ("not" | "!") negation | comparison
    comparison = sum [("==" | "=" | "!=" | "<>" | "<" | "<=" | ">" | ">=") sum
                     | ["not"] "in" (list | path)
                     | ["not"] "between" sum "and" sum
                     | ["not"] "startswith" string
                     | (["not"] "matches" | "~" | "!~") string
                     | "is" ["not"] ("missing" | type)]
    sum        = product *(("+" | "-") product)
    product    = factor *(("*" | "/" | "//" | "%") factor)
    factor     = "-" factor | "(" condition ")" | literal | call | path
    call       = ("exists" | "lower" | "length" | "type") "(" condition ")"
               | ("any" | "all") "(" condition "," condition ")"
    path       = (name | "it" | "@key" | "@rev" | "@stamp" | "@deleted")
                 *("." name | "[" integer "]" | "[*]" | "[" string "]")
    name       = letter *(letter | digit | "_") | "`" any characters "`"
    literal    = null | true | false | number | string | list | object   as in JSON
    string     = "…" or '…', with JSON's escapes; r"…" has none, for patterns
    type       = "null" | "boolean" | "number" | "integer" | "string" | "array" | "object"

`it` is the document, and inside `any` and `all` the element, whose members have
plain names there. `"x" in tags` is `any(tags, it == "x")`. `type(a) == "string"`
and `in ["string", "null"]` are `a is string` and the like. Words of the language
are names where no other reading is possible; backquotes make anything a name.

    items      = item *("," item)          item      = condition ["as" name]
    aggregates = figure *("," figure)      figure    = [name "="] function "(" … ")" ["as" name]
    orders     = order *("," order)        order     = ["-"] condition   - is from the highest
    function   = a name of `mapreduce.query.figures`, such as count, sum or top

Pure: no input or output.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from math import isfinite
from typing import Any, NoReturn, TypeVar

from mapreduce.errors import InvalidExpression
from mapreduce.query.fields import (
    ALL,
    About,
    Arithmetic,
    Comparison,
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
    steps,
)
from mapreduce.query.figures import NAMES, figure
from mapreduce.query.meaning import TYPES
from vstore.errors import ConfigurationError

LEVELS = 40  # inside one another: Python, which has to read the code made of an expression, allows 200
MARKS = ("key", "rev", "stamp", "deleted")
FUNCTIONS = ("exists", "lower", "length", "type", "any", "all")
WORDS = ("and", "or", "not", "in", "between", "startswith", "matches", "is", "as")
CONSTANTS: dict[str, Any] = {"null": None, "true": True, "false": False}
RESERVED = {*WORDS, *CONSTANTS, "it"}
COMPARISONS = {"==": "==", "=": "==", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}

_NAME = re.compile(r"[^\W\d]\w*")
_TOKEN = re.compile(
    r"""
    (?P<blank> \s+ )
  | (?P<raw> r (?: "[^"]*" | '[^']*' ) )
  | (?P<name> [^\W\d]\w* )
  | (?P<quoted> ` (?: [^`] | `` )+ ` )
  | (?P<string> " (?: [^"\\] | \\. )* " | ' (?: [^'\\] | \\. )* ' )
  | (?P<number> \d+ (?: \.\d+ )? (?: [eE][+-]?\d+ )? (?!\w) )
  | (?P<mark> @\w* )
  | (?P<sign> == | != | <> | <= | >= | && | \|\| | // | !~ | [-+*/%<>=!~()\[\]{},.:] )
    """,
    re.VERBOSE | re.DOTALL,
)
_FLAGS = {"a": re.ASCII, "i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """A column that was asked for: its name, and what is in it."""

    name: str
    value: Any
    """An expression; of a figure, a reducer with its `of`."""
    given: bool = True
    """Whether the text has the name."""


def parsed(text: str) -> Expression:
    """The expression that the text says.

    Raises:
        InvalidExpression: it says none; the message shows where, and what would
            have fitted there. Nothing else is ever raised.
    """
    return _Parser(text).whole(_Parser.condition)


def items(text: str) -> list[Item]:
    """Columns to select or to group by: `author.name, price * 2 as double`.

    A path is named as it is written without backquotes, all else by its text.

    Raises:
        InvalidExpression: as `parsed`.
    """
    return _Parser(text).whole(partial(_Parser.several, parse=_Parser.item))


def figures(text: str) -> list[Item]:
    """Aggregates: `count(), total = sum(price), mean(price) as average`.

    Raises:
        InvalidExpression: as `parsed`.
    """
    return _Parser(text).whole(partial(_Parser.several, parse=_Parser.figure))


def orders(text: str) -> list[Expression]:
    """What to sort by: `author.name, -price`; as in `order_by`, - before it is from the highest to the lowest.

    Raises:
        InvalidExpression: as `parsed`.
    """
    return _Parser(text).whole(partial(_Parser.several, parse=_Parser.order))


# --- tokens ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the text: what kind, its own text, what it stands for, and where it begins."""

    kind: str
    text: str
    value: Any
    start: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text)


def tokens(text: str) -> Iterator[Token]:
    """The words of a text, without the blanks between them; the last one is its end."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # a command line in another encoding than the locale says
        refused(text, error.start, "this is no UTF-8.")
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            refused(text, position, _unknown(text[position:]))
        kind = found.lastgroup or ""
        word, start, position = found[0], position, found.end()
        if kind == "number" and text[position : position + 1] == "." and text[position + 1 : position + 2].isdigit():
            refused(text, start, "this is no number.")
        if kind == "blank":
            continue
        yield Token(kind, word, _value(text, kind, word, start), start)
    yield Token("end", "", None, len(text))


def _unknown(rest: str) -> str:
    if rest[0] in "\"'`":
        return f"the {rest[0]} that begins here is never closed."
    if rest[0].isdigit():
        return "a number ends in letters; a name that begins with a digit goes between backquotes: `2nd`."
    if rest[0] in "&|":
        return f"{rest[0]} is no operator; write {'and' if rest[0] == '&' else 'or'}."
    return f"{rest[0]!r} has no meaning here."


def _value(text: str, kind: str, word: str, start: int) -> Any:
    if kind == "raw":
        return word[2:-1]
    if kind == "quoted":
        return word[1:-1].replace("``", "`")
    if kind == "string":
        return _unescaped(text, word[1:-1], start + 1)
    if kind == "number":
        try:
            number = int(word) if word.isdigit() else float(word)
        except ValueError:  # more digits than Python reads
            refused(text, start, "this number is too long.")
        if isinstance(number, float) and not isfinite(number):
            refused(text, start, "this number is too large.")
        return number
    return word


def _unescaped(text: str, inside: str, start: int) -> str:
    def meant(escape: re.Match[str]) -> str:
        if escape[1]:
            return chr(int(escape[1], 16))
        if escape[2] not in _ESCAPES:
            refused(
                text,
                start + escape.start(),
                f'{escape[0]} is no escape of JSON. For a backslash write two, or the whole string as r"…".',
            )
        return _ESCAPES[escape[2]]

    value = _ESCAPE.sub(meant, inside)
    try:  # \ud83d\ude00 is one character; a half of it alone is none
        return value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        refused(text, start - 1, "this string has half of a surrogate pair, which no document can hold.")


def refused(text: str, position: int, problem: str, length: int = 1) -> NoReturn:
    """Raises the error for this place of the text, and shows it."""
    start = max(text.rfind("\n", 0, position), text.rfind("\r", 0, position)) + 1
    line = re.split(r"[\r\n]", text[start:], maxsplit=1)[0]
    column = position - start
    # A terminal shows 100 characters or so of a line; what was typed may be longer.
    cut = max(0, column - 60)
    shown = "".join(each if each.isprintable() else "?" for each in line[cut : cut + 100])
    marks = " " * (column - cut + (cut > 0)) + "^" * max(1, min(length, len(line) - column))
    raise InvalidExpression(
        f"this cannot be read: {problem} Nothing was run.\n  {'…' if cut else ''}{shown}\n  {marks}", text, position
    )


# --- the grammar, as in the module's header --------------------------------------------------------------------------


@dataclass(frozen=True)
class _TypeOf:
    """`type(x)`: only a comparison makes a condition of it."""

    subject: Expression
    start: int


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(tokens(text))
        self.at = 0
        self.level = 0

    def whole(self, parse: Callable[[_Parser], T]) -> T:
        if self.next.kind == "end":
            refused(self.text, 0, "it is empty.")
        found = parse(self)
        if self.next.kind != "end":
            self.expected("the end, or an operator such as and, == or +", WORDS)
        return found

    # words

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def taken(self) -> Token:
        token = self.next
        self.at += 1
        return token

    def is_sign(self, *signs: str) -> bool:
        return self.next.kind == "sign" and self.next.text in signs

    def is_word(self, *words: str) -> bool:
        return self.next.kind == "name" and self.next.text in words

    def skipped(self, word: str) -> bool:
        """Whether this sign or word comes next; it is then behind us."""
        if self.next.kind in ("sign", "name") and self.next.text == word:
            self.at += 1
            return True
        return False

    def required(self, sign: str, what: str = "") -> None:
        if not self.skipped(sign):
            self.expected(what or f"{sign!r}")

    def expected(self, what: str, words: Sequence[str] = ()) -> NoReturn:
        token = self.next
        hint = ""
        if token.kind == "name":
            close = get_close_matches(token.text.lower(), [word for word in words if word != token.text], 1, 0.6)
            hint = f" Did you mean {close[0]!r}?" if close else ""
        refused(self.text, token.start, f"expected {what}, and found {token}.{hint}", len(token.text))

    def deeper(self, parse: Callable[[], T]) -> T:
        self.level += 1
        if self.level > LEVELS:
            refused(self.text, self.next.start, f"it goes more than {LEVELS} levels deep.")
        found = parse()
        self.level -= 1
        return found

    # conditions

    def condition(self) -> Expression:
        parts = [self.both()]
        while self.skipped("or") or self.skipped("||"):
            parts.append(self.both())
        return _joined("|", parts)

    def both(self) -> Expression:
        parts = [self.negation()]
        while self.skipped("and") or self.skipped("&&"):
            parts.append(self.negation())
        return _joined("&", parts)

    def negation(self) -> Expression:
        if self.skipped("not") or self.skipped("!"):
            return Not(self.deeper(self.negation))
        return self.comparison()

    def comparison(self) -> Expression:
        start = self.next
        left: Expression | _TypeOf = self.sum(typed=True)
        if isinstance(left, _TypeOf):
            return self.type_condition(left)
        if self.next.kind == "sign" and self.next.text in COMPARISONS:
            sign = self.taken()
            second = self.next
            right = self.sum()
            self.no_chain()
            for side, other, word in ((left, right, start), (right, left, second)):
                # Never what was meant. In brackets it is: so the text of an expression from Python can be read again.
                if isinstance(side, Path) and ALL in steps(side) and _is_scalar(other) and word.text != "(":
                    refused(
                        self.text,
                        word.start,
                        f"{text_of(side)} is a list, of all that is there, and no list is like {text_of(other)}. For "
                        f"an element of it write any({text_of(side)}, it == {text_of(other)}).",
                    )
            return Comparison(COMPARISONS[sign.text], left, right)
        found = self.worded(left, start)
        if found is None:
            return left
        self.no_chain()
        return found

    def worded(self, left: Expression, start: Token) -> Expression | None:
        """What a comparison by a word, or by ~, says about `left`; None if there is none."""
        if self.skipped("is"):
            return self.is_type(left, self.skipped("not"))
        if self.skipped("~"):
            return self.pattern(left)
        if self.skipped("!~"):
            return Not(self.pattern(left))
        negative = self.skipped("not")
        if self.skipped("in"):
            found = self.membership(left, start)
        elif self.skipped("between"):
            low = self.sum()
            self.required("and", "'and' and the upper end of between")
            found = left.between(low, self.sum())
        elif self.skipped("startswith"):
            found = left.startswith(self.string("the beginning, a string"))
        elif self.skipped("matches"):
            found = self.pattern(left)
        elif negative:
            self.expected("in, between, startswith or matches after not", ("in", "between", "startswith", "matches"))
        else:
            return None
        return Not(found) if negative else found

    def no_chain(self) -> None:
        if (self.next.kind == "sign" and self.next.text in COMPARISONS) or self.is_word("is", "between"):
            refused(
                self.text,
                self.next.start,
                "comparisons do not chain. Write a < b and b < c, or b between a and c.",
                len(self.next.text),
            )

    def is_type(self, subject: Expression, negative: bool) -> Expression:
        if self.skipped("missing"):
            return Exists(subject) if negative else Not(Exists(subject))
        if self.is_word(*TYPES):
            found = IsType(subject, (self.taken().text,))
            return Not(found) if negative else found
        return self.expected(f"missing or a type ({', '.join(TYPES)})", ("missing", *TYPES))

    def type_condition(self, left: _TypeOf) -> Expression:
        negative = self.skipped("not")
        if self.skipped("in"):
            names = self.value() if self.is_sign("[") else self.expected("a list of types")
        elif not negative and self.is_sign("==", "=", "!=", "<>"):
            negative = COMPARISONS[self.taken().text] == "!="
            names = [self.string('a type, such as "string"')]
        else:
            refused(self.text, left.start, 'type() wants == or !=, and a type: type(a) == "string".', 4)
        if not names or not all(isinstance(name, str) and name in TYPES for name in names):
            last = self.tokens[self.at - 1]
            refused(self.text, last.start, f"the types are {', '.join(TYPES)}.", len(last.text))
        self.no_chain()
        found = left.subject.is_type(*names)
        # As for !=, so that what is missing has no type and no other type either.
        return Logic("&", left.subject.exists(), Not(found)) if negative else found

    def membership(self, left: Expression, start: Token) -> Expression:
        if self.is_sign("["):
            at = self.next
            values = self.value()
            if not isinstance(values, list):
                refused(self.text, at.start, "in wants a list.")
            return IsIn(left, tuple(values))
        if self.next.kind not in ("name", "quoted", "mark") or self.is_word(*CONSTANTS):
            self.expected("a list, such as [1, 2], or a path")
        array = self.sum()
        if not isinstance(left, Literal):
            refused(
                self.text,
                start.start,
                'on the left of in with a path there can only be a value: "x" in tags. For anything else write any().',
                len(start.text),
            )
        return Quantified(array, Comparison("==", F, left), False)

    def pattern(self, left: Expression) -> Expression:
        token = self.next
        pattern = self.string('a regular expression, a string such as r"^a\\d"')
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as: what this means will change in a later Python
            try:
                return Matches(left, re.compile(pattern))
            except (re.error, Warning, OverflowError, RecursionError) as error:
                refused(self.text, token.start, f"this is no regular expression: {error}.", len(token.text))

    def string(self, what: str) -> str:
        if self.next.kind not in ("string", "raw"):
            self.expected(what)
        return str(self.taken().value)

    # values

    def sum(self, typed: bool = False) -> Any:
        return self.calculation(("+", "-"), self.product, typed)

    def product(self, typed: bool = False) -> Any:
        return self.calculation(("*", "/", "//", "%"), self.factor, typed)

    def calculation(self, signs: tuple[str, ...], operand: Callable[[bool], Any], typed: bool) -> Any:
        found = operand(typed)
        length = 0
        while self.is_sign(*signs):
            if isinstance(found, _TypeOf):
                refused(self.text, found.start, "type() cannot be calculated with.", 4)
            length += 1
            if length > LEVELS:
                refused(self.text, self.next.start, f"it has more than {LEVELS} operators in a row.")
            sign = self.taken()
            found = Arithmetic(sign.text, found, operand(False))
        return found

    def factor(self, typed: bool = False) -> Any:
        token = self.next
        if self.skipped("-"):
            number = self.next.kind == "number"
            found = self.deeper(self.factor)
            # -5 is a number and not a calculation, unless that is what it was: -(5), --5.
            return Literal(-found.value) if number else Function("negative", found)
        if self.skipped("("):
            found = self.deeper(self.condition)
            self.required(")", "')', or an operator such as and, == or +")
            return found
        if token.kind in ("string", "raw", "number") or self.is_sign("[", "{") or self.is_word(*CONSTANTS):
            return Literal(self.value())
        if token.kind == "mark":
            self.at += 1
            if token.text[1:] not in MARKS:
                self.at -= 1
                refused(
                    self.text,
                    token.start,
                    f"after @ comes one of {', '.join(MARKS)}.{_near(token.text[1:], MARKS)}",
                    len(token.text),
                )
            return About(token.text[1:])
        if token.kind == "name" and self.tokens[self.at + 1].text == "(" and token.text not in RESERVED:
            return self.call(typed)
        if token.kind == "quoted" or (token.kind == "name" and (token.text not in RESERVED or token.text == "it")):
            return self.path()
        if token.kind == "name":
            refused(
                self.text,
                token.start,
                f"expected a path, a value or '(', and found {token}, a word of the language. As a name it is written "
                f"`{token.text}`.",
                len(token.text),
            )
        return self.expected("a path, a value or '('")

    def call(self, typed: bool) -> Any:
        name = self.taken()
        if name.text not in FUNCTIONS:
            refused(
                self.text,
                name.start,
                f"there is no function {name.text}().{_near(name.text, FUNCTIONS)} Known are {', '.join(FUNCTIONS)}.",
                len(name.text),
            )
        self.required("(")
        subject = self.deeper(self.condition)
        if name.text in ("any", "all"):
            self.required(",", "',' and the condition for the elements")
            found: Any = Quantified(subject, self.deeper(self.condition), name.text == "all")
        elif name.text == "exists":
            found = subject.exists()
        elif name.text == "type":
            if not typed:
                refused(self.text, name.start, 'type() wants == or !=, and a type: type(a) == "string".', 4)
            found = _TypeOf(subject, name.start)
        else:
            found = Function(name.text, subject)
        self.required(")")
        return found

    def path(self) -> Path:
        token = self.taken()
        found: list[Any] = [] if token.kind == "name" and token.text == "it" else [token.value]
        while True:
            if self.skipped("."):
                if self.next.kind not in ("name", "quoted"):
                    self.expected("a name after the dot")
                found.append(self.taken().value)
            elif self.skipped("["):
                found.append(self.step())
                self.required("]")
            else:
                return Path(tuple(found))

    def step(self) -> Any:
        if self.skipped("*"):
            return ALL
        if self.next.kind == "string":
            return self.taken().value
        negative = self.skipped("-")
        if self.next.kind != "number" or not isinstance(self.next.value, int):
            self.expected("an index, * for all elements, or a name as a string")
        return -self.taken().value if negative else self.taken().value

    # literals

    def value(self) -> Any:
        """A literal as the value it is."""
        token = self.next
        if token.kind in ("string", "raw", "number"):
            return self.taken().value
        if self.is_word(*CONSTANTS):
            return CONSTANTS[self.taken().text]
        if self.skipped("-"):
            if self.next.kind != "number":
                self.expected("a number")
            return -self.taken().value
        if self.skipped("["):
            return self.deeper(partial(self.members, "]", self.value))
        if self.skipped("{"):
            return dict(self.deeper(partial(self.members, "}", self.member)))
        return self.expected("a value: a string, number, true, false, null or a list of them")

    def members(self, end: str, parse: Callable[[], T]) -> list[T]:
        found: list[T] = []
        if self.skipped(end):
            return found
        while True:
            found.append(parse())
            if self.skipped(end):
                return found
            self.required(",", f"',' or {end!r}")

    def member(self) -> tuple[str, Any]:
        name = self.string("a name, a string")
        self.required(":")
        return name, self.value()

    # columns

    def several(self, parse: Callable[[_Parser], T]) -> list[T]:
        found = [parse(self)]
        while self.skipped(","):
            found.append(parse(self))
        return found

    def item(self) -> Item:
        found = self.condition()
        return Item(self.name(), found) if self.skipped("as") else Item(named(found), found, given=False)

    def order(self) -> Expression:
        # Of the whole: -a + b is from the highest sum to the lowest.
        negative = self.skipped("-")
        found = self.condition()
        if self.next.kind == "name" and self.next.text.lower() in ("asc", "desc"):
            refused(
                self.text,
                self.next.start,
                "an order is from the lowest to the highest; - before it turns it round: -price.",
                len(self.next.text),
            )
        return Function("negative", found) if negative else found

    def name(self) -> str:
        if self.next.kind not in ("name", "quoted", "string"):
            self.expected("a name for the column")
        return str(self.taken().value)

    def figure(self) -> Item:
        name = None
        if self.next.kind in ("name", "quoted", "string") and self.tokens[self.at + 1].text == "=":
            name = self.name()
            self.required("=")
        function = self.next
        if function.kind != "name" or function.text not in NAMES:
            self.expected(f"one of {', '.join(f'{name}()' for name in NAMES)}", NAMES)
        known = self.taken().text
        if self.is_sign("~") and f"{known}~" in NAMES:
            known += self.taken().text
        self.required("(")
        start = self.next.start
        arguments = self.members(")", self.condition)
        inside = self.text[start : self.tokens[self.at - 1].start].strip()
        try:
            reducer = figure(known, arguments)
        except ConfigurationError as error:
            refused(self.text, function.start, str(error), len(known))
        if name is None and self.skipped("as"):
            name = self.name()
        return Item(f"{known}({inside})" if inside else known, reducer, False) if name is None else Item(name, reducer)


def named(expression: Expression) -> str:
    """The name of a column that was given none: a name of one step as it is, else the text."""
    match steps(expression) if isinstance(expression, Path) else ():
        case (str() as name,):
            return name
    return text_of(expression)


def _near(word: str, words: Sequence[str]) -> str:
    close = get_close_matches(word.lower(), words, 1, 0.6)
    return f" Did you mean {close[0]}?" if close else ""


def _joined(sign: str, parts: list[Expression]) -> Expression:
    """The parts with this sign between them, as a tree of little depth: a thousand alternatives go ten levels deep."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return Logic(sign, _joined(sign, parts[:half]), _joined(sign, parts[half:]))


def _is_scalar(expression: Expression) -> bool:
    return isinstance(expression, Literal) and not isinstance(expression.value, list)


# --- text ------------------------------------------------------------------------------------------------------------


def text_of(expression: Expression) -> str:
    """The expression as text of the language: `parsed` gives one of the same meaning for it.

    Raises:
        ConfigurationError: it has what the language has no words for: a value
            beyond JSON, or a pattern with flags of its own.
    """
    return _text(expression, 0)


# How tightly the outermost operator of a text binds; what binds less goes into brackets.
_OR, _AND, _NOT, _COMPARED, _SUM, _PRODUCT, _SIGN, _WHOLE = range(1, 9)


def _text(expression: Expression, around: int) -> str:
    text, binding = _text_and_binding(expression)
    return text if binding >= around else f"({text})"


def _text_and_binding(expression: Expression) -> tuple[str, int]:
    match expression:
        case Path():
            return _path(expression), _WHOLE
        case About(field=field):
            return f"@{field}", _WHOLE
        case Literal(value=value):
            return _json(value), _WHOLE
        case Comparison(sign=sign, left=left, right=right):
            return f"{_compared(left, right)} {sign} {_compared(right, left)}", _COMPARED
        case IsIn(subject=subject, values=values):
            return f"{_text(subject, _SUM)} in {_json(list(values))}", _COMPARED
        case StartsWith(subject=subject, prefix=prefix):
            return f"{_text(subject, _SUM)} startswith {_json(prefix)}", _COMPARED
        case Matches(subject=subject, pattern=pattern):
            return f"{_text(subject, _SUM)} matches {_json(_pattern(pattern))}", _COMPARED
        case IsType(subject=subject, names=(name,)):
            return f"{_text(subject, _SUM)} is {name}", _COMPARED
        case IsType(subject=subject, names=names):
            return f"type({_text(subject, 0)}) in {_json(list(names))}", _COMPARED
        case Exists(subject=subject):
            return f"exists({_text(subject, 0)})", _WHOLE
        case Quantified(subject=subject, predicate=predicate, every=every):
            return f"{'all' if every else 'any'}({_text(subject, 0)}, {_text(predicate, 0)})", _WHOLE
        case Logic(sign="|", left=left, right=right):
            return f"{_text(left, _OR)} or {_text(right, _OR)}", _OR
        case Logic(left=left, right=right):
            return f"{_text(left, _AND)} and {_text(right, _AND)}", _AND
        case Not(condition=condition):
            return f"not {_text(condition, _NOT)}", _NOT
        case Arithmetic(sign=sign, left=left, right=right):
            binding = _SUM if sign in "+-" else _PRODUCT
            return f"{_text(left, binding)} {sign} {_text(right, binding + 1)}", binding
        case Function(name="negative", subject=subject):
            # In brackets it stays a calculation when it is read again: there is no number -0.
            inside = _text(subject, _SIGN)
            return f"-({inside})" if isinstance(subject, Literal) else f"-{inside}", _SIGN
        case Function(name=name, subject=subject):
            return f"{name}({_text(subject, 0)})", _WHOLE
    raise ConfigurationError(f"{expression!r} has no text in the query language.")


def _compared(side: Expression, other: Expression) -> str:
    """One side of a comparison. Brackets say that all elements are meant as a list, as they were in Python."""
    text = _text(side, _SUM)
    return f"({text})" if isinstance(side, Path) and ALL in steps(side) and _is_scalar(other) else text


def _path(path: Path) -> str:
    text = ""
    for step in steps(path):
        if step is ALL:
            text = f"{text or 'it'}[*]"
        elif isinstance(step, int):
            text = f"{text or 'it'}[{step}]"
        elif not step:
            text = f'{text or "it"}[""]'
        elif _NAME.fullmatch(step) and (text or step not in RESERVED):
            text = f"{text}.{step}" if text else step
        else:
            quoted = f"`{step.replace('`', '``')}`"
            text = f"{text}.{quoted}" if text else quoted
    return text or "it"


def _pattern(pattern: re.Pattern[str]) -> str:
    flags = "".join(letter for letter, flag in _FLAGS.items() if pattern.flags & flag)
    for text in (pattern.pattern, f"(?{flags}){pattern.pattern}" if flags else ""):
        if re.compile(text).flags == pattern.flags:
            return text
    raise ConfigurationError(f"{pattern!r} has no text in the query language: its flags cannot be written in it.")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ConfigurationError(f"{value!r} has no text in the query language: JSON has no such number.") from error
