"""F and Doc: naming parts of documents, and expressions over them as plain values.

    F.author.country == "FR"            Comparison("==", Path(author, country), Literal("FR"))
    F.lines.any(F.price > 3)            paths inside any and all begin at the element
    F["strange name"].items[0], F.tags[:]

An expression is a tree of frozen values: it can be looked at, pickled, sent to
workers, translated. What it means is written in `mapreduce.query.meaning`; the
`evaluate` of each node is that definition, applied. It keeps out how queries
run.

Operators make expressions, `==` included. So expressions cannot be compared
with each other; `repr` gives the Python text that makes the same one.

Pure: no input or output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from enum import Enum
from typing import Any, ClassVar, Final, NoReturn, TypeAlias

from mapreduce.query import meaning
from mapreduce.query.meaning import MISSING, TYPES
from vstore.document import Document
from vstore.errors import ConfigurationError


class All(Enum):
    """The type of ALL."""

    ALL = "[:]"

    def __repr__(self) -> str:
        return "ALL"


ALL: Final = All.ALL
"""The step of a path to every element of an array, written `[:]` in Python and `[*]` in text."""

Step: TypeAlias = str | int | All
Steps: TypeAlias = tuple[Step, ...]

# Whatever looks at an expression calls itself for each level, and Python's stack holds a thousand calls.
LEVELS = 200  # of expressions inside one another; joining with one sign, a | b | c | …, goes no deeper
STEPS = 100  # of a path


@dataclass(frozen=True, eq=False)
class Scope:
    """What an expression is evaluated on: a document, and where its paths begin."""

    key: Any
    root: Any  # the value of the document; inside `any` and `all` the element
    document: Document | None = None  # rev, stamp and deleted, where the source knows them

    @classmethod
    def of(cls, key: Any, value: Any) -> Scope:
        """Of a document as a slice gives it. The value of a tombstone is missing."""
        if isinstance(value, Document):
            return cls(key, MISSING if value.deleted else value.value, value)
        return cls(key, value)


@dataclass(frozen=True, eq=False, repr=False)
class Expression:
    """A value computed from a document; a condition if that value is true or false.

    Every method makes a new expression and none looks at a document, except
    `evaluate` and `holds`. Operands may be expressions or JSON values.
    """

    _precedence: ClassVar[int] = 9  # of the outermost operator of `repr`, as in Python
    _levels: ClassVar[int] = 1  # of expressions inside one another, this one included

    def __post_init__(self) -> None:
        inside = (part._levels for part in vars(self).values() if isinstance(part, Expression))
        self._go_down(1 + max(inside, default=0))

    def _go_down(self, levels: int) -> None:
        if levels > LEVELS:
            raise ConfigurationError(
                f"an expression goes more than {LEVELS} levels deep. For one of many values use isin([...]); join "
                f"conditions with one sign in a row, a | b | c, rather than inside one another."
            )
        if levels > 1:
            object.__setattr__(self, "_levels", levels)

    def __reduce__(self) -> tuple[Any, ...]:
        # Flat, because what carries functions to workers is written in Python and calls itself for every level.
        return _rebuilt, (_flat(self),)

    def evaluate(self, key: Any, value: Any) -> Any:
        """The value of this expression for one document, or MISSING. `value` may be a `Document`."""
        return self._value(Scope.of(key, value))

    def holds(self, key: Any, value: Any) -> bool:
        """Whether the expression is true for one document."""
        return self._value(Scope.of(key, value)) is True

    def _value(self, scope: Scope) -> Any:
        raise NotImplementedError

    def _operands(self) -> tuple[Expression, ...]:
        """The expressions this one is made of and that begin where it begins."""
        return ()

    # comparisons

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return Comparison("==", self, operand(other))

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return Comparison("!=", self, operand(other))

    def __lt__(self, other: Any) -> Expression:
        return Comparison("<", self, operand(other))

    def __le__(self, other: Any) -> Expression:
        return Comparison("<=", self, operand(other))

    def __gt__(self, other: Any) -> Expression:
        return Comparison(">", self, operand(other))

    def __ge__(self, other: Any) -> Expression:
        return Comparison(">=", self, operand(other))

    __hash__ = object.__hash__

    def between(self, low: Any, high: Any) -> Expression:
        """From `low` to `high`, both included."""
        return Logic("&", Comparison(">=", self, operand(low)), Comparison("<=", self, operand(high)))

    def isin(self, values: Iterable[Any]) -> Expression:
        """Equal to one of the values."""
        if isinstance(values, str | bytes | Mapping | Expression):
            raise ConfigurationError(f"isin() takes a list of values, and was given {values!r}.")
        return IsIn(self, tuple(literal(value).value for value in values))

    def startswith(self, prefix: str) -> Expression:
        """A string that starts so."""
        return StartsWith(self, _text(prefix, "startswith"))

    def matches(self, pattern: str | re.Pattern[str]) -> Expression:
        """A string in which the regular expression is found, anywhere: `re.search`; ^ and $ anchor it.

        Python's expressions can take exponential time on hostile strings; what
        is given here is the caller's to choose.
        """
        if not isinstance(pattern, re.Pattern):
            try:
                pattern = re.compile(_text(pattern, "matches"))
            except re.error as error:
                raise ConfigurationError(f"matches({pattern!r}) is no regular expression: {error}.") from error
        if not isinstance(pattern.pattern, str):
            raise ConfigurationError(f"matches() takes a pattern for strings, and was given {pattern.pattern!r}.")
        return Matches(self, pattern)

    def exists(self) -> Expression:
        """There, be it null."""
        return Exists(self)

    def is_null(self) -> Expression:
        """There, and null."""
        return IsType(self, ("null",))

    def is_type(self, *names: str) -> Expression:
        """Of one of these types: null, boolean, number, integer, string, array, object."""
        if not names or any(name not in TYPES for name in names):
            raise ConfigurationError(f"is_type{names!r} names no type; known are {', '.join(TYPES)}.")
        return IsType(self, names)

    def any(self, predicate: Any = None) -> Any:
        """An array with an element for which the predicate holds, whose paths begin there: `F.lines.any(F.n > 3)`.

        Without a predicate, the comparison that follows is it: `F.tags.any() == "new"`.
        """
        return Each(self, False) if predicate is None else Quantified(self, operand(predicate), False)

    def all(self, predicate: Any = None) -> Any:
        """An array for whose every element the predicate holds, the empty array included; written as `any` is."""
        return Each(self, True) if predicate is None else Quantified(self, operand(predicate), True)

    # logic

    def __and__(self, other: Any) -> Expression:
        return Logic("&", self, operand(other))

    def __or__(self, other: Any) -> Expression:
        return Logic("|", self, operand(other))

    def __rand__(self, other: Any) -> Expression:
        return Logic("&", operand(other), self)

    def __ror__(self, other: Any) -> Expression:
        return Logic("|", operand(other), self)

    def __invert__(self) -> Expression:
        return Not(self)

    # arithmetic

    def __add__(self, other: Any) -> Expression:
        return Arithmetic("+", self, operand(other))

    def __sub__(self, other: Any) -> Expression:
        return Arithmetic("-", self, operand(other))

    def __mul__(self, other: Any) -> Expression:
        return Arithmetic("*", self, operand(other))

    def __truediv__(self, other: Any) -> Expression:
        return Arithmetic("/", self, operand(other))

    def __floordiv__(self, other: Any) -> Expression:
        return Arithmetic("//", self, operand(other))

    def __mod__(self, other: Any) -> Expression:
        return Arithmetic("%", self, operand(other))

    def __radd__(self, other: Any) -> Expression:
        return Arithmetic("+", operand(other), self)

    def __rsub__(self, other: Any) -> Expression:
        return Arithmetic("-", operand(other), self)

    def __rmul__(self, other: Any) -> Expression:
        return Arithmetic("*", operand(other), self)

    def __rtruediv__(self, other: Any) -> Expression:
        return Arithmetic("/", operand(other), self)

    def __rfloordiv__(self, other: Any) -> Expression:
        return Arithmetic("//", operand(other), self)

    def __rmod__(self, other: Any) -> Expression:
        return Arithmetic("%", operand(other), self)

    def __neg__(self) -> Expression:
        return Function("negative", self)

    def lower(self) -> Expression:
        """The string in lower case."""
        return Function("lower", self)

    def length(self) -> Expression:
        """The number of characters of a string, elements of an array, members of an object."""
        return Function("length", self)

    # what Python does not let an expression be

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"the expression {self!r} has no truth of its own: it is true or false for a document. Combine with & | ~ "
            f"and brackets, not with and, or, not; write a < b < c as between() or (a < b) & (b < c)."
        )

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError(f"'in' cannot make an expression: write {self!r}.any() == {item!r} or .isin([...]).")

    def __iter__(self) -> NoReturn:
        raise TypeError(f"the expression {self!r} cannot be iterated over: it has elements only in a document.")

    # text

    def __repr__(self) -> str:
        return self._text()

    def _text(self) -> str:
        raise NotImplementedError

    def _inside(self, precedence: int) -> str:
        """The text as an operand of an operator that binds so tightly."""
        return self._text() if self._precedence >= precedence else f"({self._text()})"


@dataclass(frozen=True, eq=False, repr=False)
class Path(Expression):
    """Where in a document: names, indexes and wildcards from `F` down.

    `F.a` and `F["a"]` are the same, except for names that begin with an
    underscore or are methods here, such as F["length"]. `str` gives the text
    that `path` reads: a.b[0].c[*].
    """

    _steps: Steps = ()

    def __post_init__(self) -> None:
        if len(self._steps) > STEPS:
            raise ConfigurationError(f"a path goes more than {STEPS} steps deep: F{self._steps[:2]!r}...")

    def __getattr__(self, name: str) -> Path:
        if name.startswith("_"):
            raise AttributeError(f"F.{name}: for a field with an underscore first write F[{name!r}]")
        return Path((*self._steps, name))

    def __getitem__(self, step: str | int | slice) -> Path:
        if isinstance(step, slice):
            if step != slice(None):
                raise ConfigurationError(f"F[...][{step.start}:{step.stop}]: the only slice is [:], all elements.")
            return Path((*self._steps, ALL))
        if isinstance(step, bool) or not isinstance(step, str | int):
            raise ConfigurationError(f"F[{step!r}]: a step is a name, an index or [:].")
        return Path((*self._steps, step))

    def _value(self, scope: Scope) -> Any:
        return reached(scope.root, self._steps)

    def __str__(self) -> str:
        text = ""
        for step in self._steps:
            if step is ALL:
                text += "[*]"
            elif isinstance(step, int):
                text += f"[{step}]"
            elif _PLAIN_NAME.fullmatch(step):
                text += f".{step}" if text else step
            else:
                text += f"[{_quoted(step)}]"
        return text

    def _text(self) -> str:
        text = "F"
        for step in self._steps:
            if step is ALL:
                text += "[:]"
            elif isinstance(step, str) and step.isidentifier() and step[0] != "_" and not hasattr(Expression, step):
                text += f".{step}"
            else:
                text += f"[{step!r}]"
        return text


F = Path()
"""The document; `F.a.b` a part of it."""


def steps(path: Path) -> Steps:
    """The steps of a path, which has no attribute of its own for them: all names belong to the documents."""
    return path._steps


def reached(value: Any, steps: Steps) -> Any:
    """What the steps lead to, or MISSING."""
    for position, step in enumerate(steps):
        if isinstance(step, str):
            value = meaning.member(value, step)
        elif isinstance(step, int):
            value = meaning.element(value, step)
        else:
            if not isinstance(value, list | tuple):
                return MISSING
            rest = steps[position + 1 :]
            found = [part for part in (reached(item, rest) for item in value) if part is not MISSING]
            return [part for parts in found for part in parts] if ALL in rest else found
        if value is MISSING:
            return MISSING
    return value


@dataclass(frozen=True, eq=False, repr=False)
class About(Expression):
    """What is known of a document beside its value; `Doc` has them all."""

    field: str

    def _value(self, scope: Scope) -> Any:
        if self.field == "key":
            return scope.key
        return MISSING if scope.document is None else getattr(scope.document, self.field)

    def _text(self) -> str:
        return f"Doc.{self.field}"


class Doc:
    """The document itself, in expressions: everywhere, inside `any` and `all` as well."""

    key: Final = About("key")
    rev: Final = About("rev")  # of the version that is read
    stamp: Final = About("stamp")  # when it was written: microseconds since 1970 UTC
    deleted: Final = About("deleted")  # True for tombstones, which only a history scan shows


@dataclass(frozen=True, eq=False, repr=False)
class Literal(Expression):
    """A JSON value."""

    value: Any

    def _value(self, scope: Scope) -> Any:
        return self.value

    def _text(self) -> str:
        return repr(self.value)

    def _inside(self, precedence: int) -> str:
        return f"({self.value!r})" if meaning.is_number(self.value) and precedence > 7 else repr(self.value)


SWAPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""The sign that says the same with its sides exchanged."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Expression):
    """Two values, and == != < <= > or >=."""

    sign: str
    left: Expression
    right: Expression

    _precedence = 1

    def _value(self, scope: Scope) -> Any:
        return meaning.COMPARISONS[self.sign](self.left._value(scope), self.right._value(scope))

    def _operands(self) -> tuple[Expression, ...]:
        return self.left, self.right

    def _text(self) -> str:
        return f"{self.left._inside(2)} {self.sign} {self.right._inside(2)}"


@dataclass(frozen=True, eq=False, repr=False)
class IsIn(Expression):
    """Equal to one of some values."""

    subject: Expression
    values: tuple[Any, ...]

    def _value(self, scope: Scope) -> Any:
        value = self.subject._value(scope)
        return any(meaning.equal(value, other) for other in self.values)

    def _operands(self) -> tuple[Expression, ...]:
        return (self.subject,)

    def _text(self) -> str:
        return f"{self.subject._inside(9)}.isin({list(self.values)!r})"


@dataclass(frozen=True, eq=False, repr=False)
class StartsWith(Expression):
    """A string with a prefix."""

    subject: Expression
    prefix: str

    def _value(self, scope: Scope) -> Any:
        value = self.subject._value(scope)
        return isinstance(value, str) and value.startswith(self.prefix)

    def _operands(self) -> tuple[Expression, ...]:
        return (self.subject,)

    def _text(self) -> str:
        return f"{self.subject._inside(9)}.startswith({self.prefix!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Matches(Expression):
    """A string in which a regular expression is found."""

    subject: Expression
    pattern: re.Pattern[str]

    def _value(self, scope: Scope) -> Any:
        value = self.subject._value(scope)
        return isinstance(value, str) and self.pattern.search(value) is not None

    def _operands(self) -> tuple[Expression, ...]:
        return (self.subject,)

    def _text(self) -> str:
        pattern = self.pattern.pattern if self.pattern.flags == re.UNICODE else self.pattern
        return f"{self.subject._inside(9)}.matches({pattern!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Exists(Expression):
    """Not MISSING."""

    subject: Expression

    def _value(self, scope: Scope) -> Any:
        return self.subject._value(scope) is not MISSING

    def _operands(self) -> tuple[Expression, ...]:
        return (self.subject,)

    def _text(self) -> str:
        return f"{self.subject._inside(9)}.exists()"


@dataclass(frozen=True, eq=False, repr=False)
class IsType(Expression):
    """Of one of some types."""

    subject: Expression
    names: tuple[str, ...]

    def _value(self, scope: Scope) -> Any:
        return meaning.is_type(self.subject._value(scope), self.names)

    def _operands(self) -> tuple[Expression, ...]:
        return (self.subject,)

    def _text(self) -> str:
        if self.names == ("null",):
            return f"{self.subject._inside(9)}.is_null()"
        return f"{self.subject._inside(9)}.is_type({', '.join(map(repr, self.names))})"


@dataclass(frozen=True, eq=False, repr=False)
class Quantified(Expression):
    """A predicate over the elements of an array: of one of them, or of `every` one."""

    subject: Expression
    predicate: Expression
    every: bool

    def _value(self, scope: Scope) -> Any:
        value = self.subject._value(scope)
        if not isinstance(value, list | tuple):
            return False
        found = (self.predicate._value(Scope(scope.key, item, scope.document)) is True for item in value)
        return all(found) if self.every else any(found)

    def _operands(self) -> tuple[Expression, ...]:
        return (self.subject,)

    def _text(self) -> str:
        return f"{self.subject._inside(9)}.{'all' if self.every else 'any'}({self.predicate!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Logic(Expression):
    """& or | of two conditions."""

    sign: str
    left: Expression
    right: Expression

    def __post_init__(self) -> None:
        # One that joins what is joined already is as deep as that.
        joins = isinstance(self.left, Logic) and self.left.sign == self.sign
        self._go_down(max(self.left._levels + (not joins), self.right._levels + 1))

    @property
    def _precedence(self) -> int:  # type: ignore[override]
        return 4 if self.sign == "&" else 2

    def _value(self, scope: Scope) -> Any:
        holds = (condition._value(scope) is True for condition in self._operands())
        return all(holds) if self.sign == "&" else any(holds)

    def _operands(self) -> tuple[Expression, ...]:
        """All conditions that the one sign joins, in their order: `a | b | c` leans to the left, however long."""
        found: list[Expression] = []
        rest: Expression = self
        while isinstance(rest, Logic) and rest.sign == self.sign:
            found.append(rest.right)
            rest = rest.left
        return rest, *reversed(found)

    def _text(self) -> str:
        first, *others = self._operands()
        texts = [first._inside(self._precedence), *(other._inside(self._precedence + 1) for other in others)]
        return f" {self.sign} ".join(texts)


@dataclass(frozen=True, eq=False, repr=False)
class Not(Expression):
    """True where the condition is not."""

    condition: Expression

    _precedence = 7

    def _value(self, scope: Scope) -> Any:
        return self.condition._value(scope) is not True

    def _operands(self) -> tuple[Expression, ...]:
        return (self.condition,)

    def _text(self) -> str:
        return f"~{self.condition._inside(7)}"


@dataclass(frozen=True, eq=False, repr=False)
class Arithmetic(Expression):
    """Two values, and + - * / // or %."""

    sign: str
    left: Expression
    right: Expression

    @property
    def _precedence(self) -> int:  # type: ignore[override]
        return 5 if self.sign in "+-" else 6

    def _value(self, scope: Scope) -> Any:
        return meaning.calculated(self.sign, self.left._value(scope), self.right._value(scope))

    def _operands(self) -> tuple[Expression, ...]:
        return self.left, self.right

    def _text(self) -> str:
        return f"{self.left._inside(self._precedence)} {self.sign} {self.right._inside(self._precedence + 1)}"


@dataclass(frozen=True, eq=False, repr=False)
class Function(Expression):
    """One of meaning.FUNCTIONS, applied to a value."""

    name: str
    subject: Expression

    @property
    def _precedence(self) -> int:  # type: ignore[override]
        return 7 if self.name == "negative" else 9

    def _value(self, scope: Scope) -> Any:
        return meaning.FUNCTIONS[self.name](self.subject._value(scope))

    def _operands(self) -> tuple[Expression, ...]:
        return (self.subject,)

    def _text(self) -> str:
        if self.name == "negative":
            return f"-{self.subject._inside(7)}"
        return f"{self.subject._inside(9)}.{self.name}()"


@dataclass(frozen=True, eq=False)
class Each:
    """What `any()` and `all()` without a predicate give: what is said of it next is said of the elements."""

    subject: Expression
    every: bool

    def _of(self, predicate: Expression) -> Expression:
        return Quantified(self.subject, predicate, self.every)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return self._of(Comparison("==", F, operand(other)))

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return self._of(Comparison("!=", F, operand(other)))

    def __lt__(self, other: Any) -> Expression:
        return self._of(Comparison("<", F, operand(other)))

    def __le__(self, other: Any) -> Expression:
        return self._of(Comparison("<=", F, operand(other)))

    def __gt__(self, other: Any) -> Expression:
        return self._of(Comparison(">", F, operand(other)))

    def __ge__(self, other: Any) -> Expression:
        return self._of(Comparison(">=", F, operand(other)))

    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Callable[..., Expression]:
        """between, isin, startswith, matches, is_null and is_type, of the elements."""
        if name not in ("between", "isin", "startswith", "matches", "is_null", "is_type"):
            raise AttributeError(f"after any() and all() comes a comparison, not .{name}; or write any(F.{name} ...)")
        method = getattr(F, name)
        return lambda *arguments: self._of(method(*arguments))

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self.subject!r}.any() or .all() wants a comparison: .any() == 1, or .any(F.price > 3).")


def _flat(expression: Expression) -> list[tuple[type[Expression], tuple[Any, ...]]]:
    """The nodes of an expression, each after those inside it, for which `...` stands."""
    found = []
    waiting = [expression]
    while waiting:
        node = waiting.pop()
        parts = [getattr(node, field.name) for field in fields_of(node)]
        found.append((type(node), tuple(... if isinstance(part, Expression) else part for part in parts)))
        waiting += [part for part in reversed(parts) if isinstance(part, Expression)]
    return found[::-1]


def _rebuilt(nodes: list[tuple[type[Expression], tuple[Any, ...]]]) -> Expression:
    """The expression of `_flat`."""
    made: list[Expression] = []
    for kind, parts in nodes:
        made.append(kind(*(made.pop() if part is ... else part for part in parts)))
    return made.pop()


def operand(value: Any) -> Expression:
    """An expression as it is, and any JSON value as a literal.

    Raises:
        ConfigurationError: it is neither.
    """
    if isinstance(value, Expression):
        return value
    if isinstance(value, Each):
        raise ConfigurationError("any() or all() wants a comparison: .any() == 1, or .any(F.price > 3).")
    return literal(value)


def literal(value: Any) -> Literal:
    """A JSON value as an expression.

    Raises:
        ConfigurationError: it is no JSON value.
    """
    if not _is_json(value):
        raise ConfigurationError(
            f"{value!r} of type {type(value).__name__} cannot be part of an expression: documents hold JSON values "
            f"(None, bool, int, float, str, list, dict), so compare with one of these; a date, for example, as text."
        )
    return Literal(list(value) if isinstance(value, tuple) else value)


def _is_json(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(part) for name, part in value.items())
    return value is None or (isinstance(value, str | int | float) and value == value)


def _text(value: Any, method: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{method}() takes a string, and was given {value!r}.")
    return value


# what an expression needs


def walked(expression: Expression) -> Iterator[Expression]:
    """The expression and everything inside it; of a predicate only `Doc` fields: its paths begin elsewhere."""
    yield expression
    for part in expression._operands():
        yield from walked(part)
    if isinstance(expression, Quantified):
        yield from (part for part in walked(expression.predicate) if isinstance(part, About))


def paths(expression: Expression) -> list[Path]:
    """The parts of a document that the expression looks at, in the order of its text; they may contain each other."""
    if isinstance(expression, Path):
        return [expression]
    found = []
    if isinstance(expression, Quantified) and isinstance(expression.subject, Path):
        into = elements_of(expression.subject)
        inner = paths(expression.predicate)
        # One that would be too long is cut: what it leads to is inside what the shorter one leads to.
        found += [Path((*into._steps, *path._steps)[:STEPS]) for path in inner] or [into]
        return found
    for part in expression._operands():
        found += paths(part)
    return found


def elements_of(subject: Path) -> Path:
    """The path of the elements that `subject.any(...)` looks at: what its wildcard finds, or all of its array."""
    return subject if ALL in subject._steps else Path((*subject._steps, ALL))


def about(expression: Expression) -> set[str]:
    """The fields of Doc that the expression looks at."""
    return {part.field for part in walked(expression) if isinstance(part, About)}


# paths as text

_PLAIN_NAME = re.compile(r"[^\W\d][\w-]*")
_STEP = re.compile(
    r"""(?P<dot>\.)? (?: (?P<name>[^\W\d][\w-]*) | "(?P<quoted>(?:[^"\\]|\\.)*)" )
      | \[ (?: (?P<index>-?\d+) | (?P<all>\*) | "(?P<inside>(?:[^"\\]|\\.)*)" ) \]""",
    re.VERBOSE,
)


def path(text: str | Path) -> Path:
    """A path from its text: names joined by dots, [0] and [-1] for elements, [*] for all of them.

    A name of other characters than letters, digits, _ and - is written between
    double quotes: a."strange name" or a["strange name"]. The whole text is taken
    as it is if it is one such name without . [ ] and ": `path("strange name")`.

    Raises:
        ConfigurationError: the text is no path.
    """
    if isinstance(text, Path):
        return text
    if isinstance(text, str) and text and not set('.[]"') & set(text):
        return Path((text,))
    found: list[Step] = []
    position = 0
    while isinstance(text, str) and position < len(text):
        match = _STEP.match(text, position)
        named = match is not None and (match["name"] is not None or match["quoted"] is not None)
        # A dot stands before every name but the first, and nowhere else.
        if match is None or (named and (match["dot"] is None) != (position == 0)):
            break
        position = match.end()
        if match["all"]:
            found.append(ALL)
        elif match["index"] is not None:
            found.append(int(match["index"]))
        elif match["name"] is not None:
            found.append(match["name"])
        else:
            found.append(_unquoted(match["quoted"] if match["quoted"] is not None else match["inside"]))
    if not isinstance(text, str) or not text or position < len(text):
        raise ConfigurationError(
            f"{text!r} is no path: write names joined by dots, [0] for an element, [*] for all, and strange names "
            f'between double quotes: author.name, lines[0].price, tags[*], a["strange name"].'
        )
    return Path(tuple(found))


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _unquoted(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name, flags=re.DOTALL)
