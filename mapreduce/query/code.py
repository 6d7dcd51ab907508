"""Python source made for one query, so that a document costs one turn of one loop.

    (F.country == "FR") & (F.total > 100)

    for key, v in batch:
        if v.__class__ is not R0:
            v = R1
        if (v.country == 'FR' and (t1 > 100 if (t2 := (t1 := v.total).__class__) is int or t2 is float else ...)):

Types that documents usually hold are tested for in place; for all others the
functions of `meaning` are called. So the code means what `Expression.evaluate`
means, at a tenth of its cost. No text of the caller gets into the source but as
the `repr` of a string or number, or as the name of a struct's attribute; other
values are constants of the compiled module.

Code does not travel: what travels is the query, and each process compiles it
once.

Pure: no input or output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from math import isfinite
from sys import float_info
from typing import Any

from mapreduce import ordered
from mapreduce.collation import sort_key
from mapreduce.query import meaning
from mapreduce.query.fields import (
    ALL,
    SWAPPED,
    About,
    Arithmetic,
    Comparison,
    Exists,
    Expression,
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
    Steps,
    elements_of,
    steps,
)
from mapreduce.query.meaning import MISSING
from mapreduce.query.records import WHOLE, Fields, Part, attributes, record_type
from mapreduce.reducers import Groups, Identify, Reducer
from mapreduce.reducers.exact import expansion
from mapreduce.reducers.extremes import Max, Min
from mapreduce.reducers.quantiles import Quantiles
from mapreduce.reducers.sums import Count, Mean, Stats, Sum
from vstore.document import Document

Pair = tuple[Any, Any]
Batch = list[Pair]

LEVELS = 12  # of brackets inside one expression; deeper parts get a function of their own, since Python allows 200

CONDITIONS = (Comparison, IsIn, StartsWith, Matches, Exists, IsType, Quantified, Logic, Not)
"""The expressions whose values are true and false only."""


class Source:
    """A module while it is written: constants, helper functions, and code for expressions."""

    def __init__(self, fields: Fields | None) -> None:
        """For documents in the shape of `fields`; None for whole documents."""
        self.part = WHOLE if fields is None else fields.part
        self.names: dict[str, Any] = {
            "M": MISSING,
            "SCALARS": frozenset({str, int, float}),
            "is_array": lambda value: isinstance(value, tuple | list),
            "is_in": lambda value, others: any(meaning.equal(value, other) for other in others),
            "starts_with": lambda value, prefix: isinstance(value, str) and value.startswith(prefix),
            "searched": lambda value, search: isinstance(value, str) and search(value) is not None,
            "member": meaning.member,
            "element": meaning.element,
            "is_type": meaning.is_type,
            "calculated": meaning.calculated,
            **{function.__name__: function for function in meaning.COMPARISONS.values()},
            **meaning.FUNCTIONS,
        }
        self._helpers: list[str] = []
        self._used = 0
        self._level = 0
        # Records are looked into without a look at their class, where the loop has seen to it that each is one.
        self.sure = not self.part.whole and self.part.elements is None

    def compiled(self, name: str, lines: Sequence[str]) -> Any:
        """The function of this name that the lines define."""
        source = "\n".join([*self._helpers, *lines])
        exec(compile(source, f"<{name} made by mapreduce.query>", "exec"), self.names)
        return self.names[name]

    def constant(self, value: Any) -> str:
        """Code for any value."""
        if value is None or value is True or value is False or type(value) is str:
            return repr(value)
        if type(value) is int and abs(value) < 10**18:
            return f"({value})" if value < 0 else str(value)
        name = self._name("K")
        self.names[name] = value
        return name

    def loop(self, documents: bool, condition: Expression | None, pairs: bool = False) -> list[str]:
        """The head of the loop over `batch`; after it `key`, `document` `v` and `pair` are of one that is kept."""
        lines = ["    for pair in batch:", "        key, v = pair"] if pairs else ["    for key, v in batch:"]
        lines += ["        document = v", "        v = M if v.deleted else v.value"] if documents else []
        if self.sure:
            record = record_type(self.part)
            lines += [
                f"        if v.__class__ is not {self._global(record)}:",
                f"            v = {self._global(record())}",
            ]
        if condition is not None:
            lines += [f"        if not {self.condition(condition, 'v', self.part)}:", "            continue"]
        return lines if documents else ["    document = None", *lines]

    def condition(self, expression: Expression, variable: str, part: Part) -> str:
        """Code that is True or False: whether the expression is true."""
        code = self.value(expression, variable, part)
        return code if isinstance(expression, CONDITIONS) else f"({code} is True)"

    def value(self, expression: Expression, variable: str = "v", part: Part | None = None) -> str:
        """Code for the value; paths begin at the variable, of which `part` is declared."""
        part = self.part if part is None else part
        self._level += 1
        try:
            if self._level <= LEVELS:
                return self._value(expression, variable, part)
            outer, self._level = self._level, 0
            sure, self.sure = self.sure, self.sure and variable == "v"
            try:
                code = self._value(expression, variable, part)
            finally:
                self._level, self.sure = outer, sure
            return f"{self._helper(f'{variable}, key, document', [f'    return {code}'])}({variable}, key, document)"
        finally:
            self._level -= 1

    def _value(self, expression: Expression, variable: str, part: Part) -> str:
        match expression:
            case Path():
                return self._path(steps(expression), variable, part)
            case About("key"):
                return "key"
            case About(name):
                return f"(M if document is None else document.{name})"
            case Literal(value):
                return self._global(value)  # by name: Python warns of comparisons of a literal with `is`
            case Comparison(sign, Literal() as left, right) if not isinstance(right, Literal):
                return self._compared(SWAPPED[sign], self.value(right, variable, part), left.value)
            case Comparison(sign, left, Literal(value)):
                return self._compared(sign, self.value(left, variable, part), value)
            case Comparison(sign, left, right):
                function = meaning.COMPARISONS[sign].__name__
                return f"{function}({self.value(left, variable, part)}, {self.value(right, variable, part)})"
            case IsIn(subject, values):
                return self._is_in(self.value(subject, variable, part), values)
            case StartsWith(subject, prefix):
                t, code, text = self._name("t"), self.value(subject, variable, part), self.constant(prefix)
                return f"({t}.startswith({text}) if ({t} := {code}).__class__ is str else starts_with({t}, {text}))"
            case Matches(subject, pattern):
                return f"searched({self.value(subject, variable, part)}, {self._global(pattern.search)})"
            case Exists(subject):
                return f"({self.value(subject, variable, part)} is not M)"
            case IsType(subject, ("null",)):
                return f"({self.value(subject, variable, part)} is None)"
            case IsType(subject, names):
                return f"is_type({self.value(subject, variable, part)}, {self._global(names)})"
            case Quantified():
                return self._quantified(expression, variable, part)
            case Logic(sign):
                joined = expression._operands()
                conditions = map(self.condition, joined, repeat(variable), repeat(part))  # no call more on the stack
                return f"({(' and ' if sign == '&' else ' or ').join(conditions)})"
            case Not(condition):
                return f"(not {self.condition(condition, variable, part)})"
            case Arithmetic(sign, left, right):
                return f"calculated({sign!r}, {self.value(left, variable, part)}, {self.value(right, variable, part)})"
            case Function(name, subject):
                return f"{name}({self.value(subject, variable, part)})"
        raise TypeError(f"{type(expression).__name__} is no expression that queries know")

    def _path(self, path: Steps, variable: str, part: Part) -> str:
        code = variable
        for position, step in enumerate(path):
            if position % LEVELS == LEVELS - 1:
                code = f"{self._helper(variable, [f'    return {code}'])}({variable})"
            if step is ALL:
                return f"{self._all(path[position + 1 :], part.element())}({code})"
            if isinstance(step, int):
                code, part = f"element({code}, {step})", part.element()
                continue
            assert isinstance(step, str)
            t, name = self._name("t"), repr(step)
            if part.whole:
                code = f"({t}.get({name}, M) if ({t} := {code}).__class__ is dict else member({t}, {name}))"
                continue
            attribute = attributes(part)[step]
            if code == "v" and self.sure:
                code = f"v.{attribute}"
            else:
                record = self._global(record_type(part))
                code = f"({t}.{attribute} if ({t} := {code}).__class__ is {record} else M)"
            part = part.member(step)
        return code

    def _all(self, rest: Steps, part: Part) -> str:
        """The name of a function: all that the rest of a path leads to in the elements of an array."""
        lines = ["    if items.__class__ is not list and not is_array(items):", "        return M", "    found = []"]
        lines += ["    for item in items:", f"        part = {self._path(rest, 'item', part)}"]
        lines += ["        if part is not M:", f"            found.{'extend' if ALL in rest else 'append'}(part)"]
        return self._helper("items", [*lines, "    return found"])

    def _quantified(self, expression: Quantified, variable: str, part: Part) -> str:
        subject, below = expression.subject, WHOLE
        if isinstance(subject, Path):
            below = part
            for step in steps(elements_of(subject)):
                below = below.member(step) if isinstance(step, str) else below.element()
        sure, self.sure, level, self._level = self.sure, False, self._level, 0
        condition = self.condition(expression.predicate, "item", below)
        self.sure, self._level = sure, level
        lines = ["    if items.__class__ is not list and not is_array(items):", "        return False"]
        lines += ["    for item in items:", f"        if {'not ' if expression.every else ''}{condition}:"]
        lines += [f"            return {not expression.every}", f"    return {expression.every}"]
        helper = self._helper("items, key, document", lines)
        return f"{helper}({self.value(subject, variable, part)}, key, document)"

    def _compared(self, sign: str, code: str, value: Any) -> str:
        t, constant, kind = self._name("t"), self.constant(value), type(value)
        function = meaning.COMPARISONS[sign].__name__
        slow = f"{t} is not M and {function}({t}, {constant})"
        if value is None or kind is bool:
            if sign == "==":
                return f"({code} is {constant})"
            if sign == "!=":
                return f"(({t} := {code}) is not {constant} and {t} is not M)"
        if kind is str:
            return f"({t} {sign} {constant} if ({t} := {code}).__class__ is str else {slow})"
        if kind is int or kind is float:
            c = self._name("t")
            return f"({t} {sign} {constant} if ({c} := ({t} := {code}).__class__) is int or {c} is float else {slow})"
        return f"{function}({code}, {constant})"

    def _is_in(self, code: str, values: tuple[Any, ...]) -> str:
        t, others = self._name("t"), self._global(values)
        scalars = self._global(frozenset(value for value in values if type(value) in (str, int, float)))
        return f"({t} in {scalars} if ({t} := {code}).__class__ in SCALARS else is_in({t}, {others}))"

    def _helper(self, parameters: str, lines: list[str]) -> str:
        name = self._name("f")
        self._helpers += [f"def {name}({parameters}):", *lines]
        return name

    def _global(self, value: Any) -> str:
        name = self._name("K")
        self.names[name] = value
        return name

    def _name(self, letter: str) -> str:
        self._used += 1
        return f"{letter}{self._used}"


class Compiled:
    """A function of a batch in two forms: for plain values, and for values that are `Document`s."""

    def __init__(self, write: Callable[[bool], Callable[..., Any]]) -> None:
        """Of what makes either form; it is asked when the form is first needed."""
        self._write = write
        self._made: dict[bool, Callable[..., Any]] = {}

    def for_batch(self, batch: Batch) -> Callable[..., Any]:
        """The form for the values of this batch; a source gives values of one kind."""
        documents = bool(batch) and type(batch[0][1]) is Document
        found = self._made.get(documents)
        if found is None:
            found = self._made[documents] = self._write(documents)
        return found


def kept(where: Expression | None, fields: Fields | None = None) -> Callable[[Batch], Batch]:
    """A filter of batches: the pairs for which the condition holds, in their order.

    Args:
        where: a condition over whole documents.
        fields: the shape in which the values come, if not whole; all paths of
            the condition have to be among its own.
    """

    def write(documents: bool) -> Callable[[Batch], Batch]:
        source = Source(fields)
        lines = ["def kept(batch):", "    found = []", *source.loop(documents, where, True)]
        lines += ["        found.append(pair)", "    return found"]
        made: Callable[[Batch], Batch] = source.compiled("kept", lines)
        return made

    compiled = Compiled(write)
    return lambda batch: compiled.for_batch(batch)(batch)


Order = Sequence[tuple[Expression, bool]]
"""What rows are sorted by: values, and whether the highest comes first."""

Ordered = tuple[bytes, Any]
"""A row behind the bytes that sort it."""


def rows(
    where: Expression | None,
    columns: Sequence[Expression] | None,
    order: Order | None = None,
    after: bytes | None = None,
    fields: Fields | None = None,
) -> Callable[[Batch], list[Any]]:
    """A function from batches to rows: tuples of the columns' values, or the pairs themselves.

    With `order`, each row stands behind the bytes that sort it, ties by document;
    and with `after`, only those of these bytes and beyond are kept.
    """

    def write(documents: bool) -> Callable[[Batch], list[Any]]:
        source = Source(fields)
        lines = ["def rows(batch):", "    found = []", *source.loop(documents, where, columns is None)]
        row = "pair" if columns is None else f"({''.join(f'{source.value(column)}, ' for column in columns)})"
        if order is not None:
            source.names.update(ascending=ascending, descending=descending, own=ordered.encode, after=after)
            parts = [f"{'descending' if down else 'ascending'}({source.value(by)})" for by, down in order]
            parts += ["own(key)", *(["own(document.rev)"] if documents else [])]
            lines.append(f"        place = {' + '.join(parts)}")
            lines += ["        if place < after:", "            continue"] if after is not None else []
            row = f"(place, {row})"
        made: Callable[[Batch], list[Any]] = source.compiled(
            "rows", [*lines, f"        found.append({row})", "    return found"]
        )
        return made

    compiled = Compiled(write)
    return lambda batch: compiled.for_batch(batch)(batch)


def ascending(value: Any) -> bytes:
    """Bytes that sort as the values do; MISSING comes before null."""
    return b"\x00" if value is MISSING else ordered.encode(value)


def descending(value: Any) -> bytes:
    """Bytes that sort the other way round."""
    return ordered.descending(ascending(value))


# groups

FLOATS_WAITING = 8_192  # that are still to be summed: 256 KiB, which stays in the cache for the long fsum over them

NUMERIC = (Sum, Mean, Stats, Quantiles)
"""Reducers that are given numbers only, and no other values."""


class Grouping:
    """The code of one aggregation: compiled once in each process, used for a fresh `Grouped` per split."""

    def __init__(
        self,
        where: Expression | None,
        by: Sequence[Expression],
        figures: Sequence[tuple[Reducer, Expression | None, Expression | None]],
        fields: Fields | None,
    ) -> None:
        """Of the documents for which `where` holds.

        Args:
            by: what makes a group; the same values, the same group.
            figures: reducers, each with the value it is given; None for those
                that count documents. For First and Last, the stamp too.
            fields: the shape in which documents come, if not whole.
        """
        self._where = where
        self._by = by
        self._figures = figures
        self._fields = fields
        self.parts = len(by)
        self._fresh: list[Any] = []
        self._plan()
        self.floats = [at for (what, _), at in self._slots.items() if what == "floats"]
        self.compiled = Compiled(self._written)

    def _plan(self) -> None:
        """Gives each figure its slots in the list that a group has; sums of the same values share them."""
        self._slots: dict[tuple[str, str], int] = {}
        self.read: list[Callable[[list[Any]], Any]] = []
        for number, (reducer, of, _) in enumerate(self._figures):
            kind, text = type(reducer), repr(of)
            if kind is Count:
                at = self._slot("count", text, 0)
                self.read.append(lambda group, at=at: group[at])  # type: ignore[misc]
            elif kind is Sum or kind is Mean:
                i, f = self._slot("integers", text, 0), self._slot("floats", text, None)
                if kind is Sum:
                    self.read.append(lambda group, i=i, f=f: _total(group[i], group[f]))  # type: ignore[misc]
                else:
                    n = self._slot("numbers", text, 0)
                    self.read.append(
                        lambda group, n=n, i=i, f=f: [group[n], group[i], list(expansion(group[f] or []))]  # type: ignore[misc]
                    )
            elif kind is Min or kind is Max:
                at = self._slot(kind.__name__, text, MISSING)
                self.read.append(lambda group, at=at: () if group[at] is MISSING else (group[at],))  # type: ignore[misc]
            else:
                at = self._slot(f"own {number}", text, None)
                self.read.append(lambda group, at=at, zero=reducer.zero: zero() if group[at] is None else group[at][0])  # type: ignore[misc]

    def _slot(self, what: str, of: str, fresh: Any) -> int:
        if (what, of) not in self._slots:
            self._slots[what, of] = len(self._fresh)
            self._fresh.append(fresh)
        return self._slots[what, of]

    def _written(self, documents: bool) -> Callable[..., int]:
        source = Source(self._fields)
        source.names.update(
            FRESH=self._fresh,
            named=_named,
            number=_number,
            add_number=_add_number,
            LEAST=-float_info.max,
            LARGEST=float_info.max,
        )
        lines = ["def take(batch, groups, names):", "    kept = 0", "    get = groups.get"]
        if not self._by:
            lines += ["    g = get(())", "    if g is None:", "        groups[()] = g = FRESH.copy()"]
        lines += [*source.loop(documents, self._where), "        kept += 1"]
        for number, expression in enumerate(self._by):
            lines += [
                f"        k{number} = {source.value(expression)}",
                f"        c = k{number}.__class__",
                "        if c is not str and c is not int:",
                f"            k{number} = named(k{number}, names)",
            ]
        if self._by:
            key = "k0" if len(self._by) == 1 else f"({', '.join(f'k{n}' for n in range(len(self._by)))})"
            lines += [
                f"        g = get({key})",
                "        if g is None:",
                f"            groups[{key}] = g = FRESH.copy()",
            ]
        lines += self._additions(source)
        made: Callable[..., int] = source.compiled("take", [*lines, "    return kept"])
        return made

    def _additions(self, source: Source) -> list[str]:
        lines: list[str] = []
        values: dict[str, str] = {}  # of an expression: the variable that has it
        numbers: dict[str, str] = {}  # of an expression whose numbers are summed or counted

        def variable(expression: Expression) -> str:
            text = repr(expression)
            if text not in values:
                values[text] = f"x{len(values)}"
                lines.append(f"        {values[text]} = {source.value(expression)}")
                lines.append(f"        c{values[text]} = {values[text]}.__class__")
            return values[text]

        for number, (reducer, of, by) in enumerate(self._figures):
            kind = type(reducer)
            if of is None:
                if kind is Count:
                    if "None" not in numbers:
                        numbers["None"] = ""
                        lines.append(f"        g[{self._slots['count', 'None']}] += 1")
                    continue
                of = Path()
            text = repr(of)
            x = variable(of)
            there = f"        if {x} is not None and {x} is not M:"
            if kind is Count:
                if "count " + text not in numbers:
                    numbers["count " + text] = x
                    lines += [there, f"            g[{self._slots['count', text]}] += 1"]
            elif kind is Sum or kind is Mean:
                if text not in numbers:
                    numbers[text] = x
                    lines += self._sum(text, x)
            elif kind is Min or kind is Max:
                if f"{kind.__name__} {text}" not in numbers:
                    numbers[f"{kind.__name__} {text}"] = x
                    lines += self._extreme(source, reducer, self._slots[kind.__name__, text], x)
            else:
                at = self._slots[f"own {number}", repr(self._figures[number][1])]
                lines += self._own(source, reducer, at, x, None if by is None else variable(by))
        return lines

    def _sum(self, text: str, x: str) -> list[str]:
        i, f, n = self._slots["integers", text], self._slots["floats", text], self._slots.get(("numbers", text))
        counted = [] if n is None else [f"            g[{n}] += 1"]
        return [
            f"        if c{x} is float:",
            f"            if (s := g[{f}]) is None:",
            f"                g[{f}] = [{x}]",
            "            else:",
            f"                s.append({x})",
            *counted,
            f"        elif c{x} is int:",
            f"            g[{i}] += {x}",
            *counted,
            f"        elif (y := number({x})) is not M:",
            f"            add_number(g, {i}, {f}, {n}, y)",
        ]

    def _extreme(self, source: Source, reducer: Any, at: int, x: str) -> list[str]:
        sign, add = "<" if type(reducer) is Min else ">", source.constant(reducer.add)
        return [
            f"        b = g[{at}]",
            f"        if c{x} is b.__class__ and (c{x} is int or c{x} is str):",
            f"            if {x} {sign} b:",
            f"                g[{at}] = {x}",
            f"        elif c{x} is float and b.__class__ is float and {x} != b and LEAST <= {x} <= LARGEST:",
            f"            if {x} {sign} b:",
            f"                g[{at}] = {x}",
            f"        elif {x} is not None and {x} is not M:",
            f"            g[{at}] = {add}(() if b is M else (b,), {x})[0]",
        ]

    def _own(self, source: Source, reducer: Any, at: int, x: str, stamp: str | None) -> list[str]:
        zero, add = source.constant(reducer.zero), source.constant(reducer.add)
        wanted, value = f"{x} is not None and {x} is not M", x
        if isinstance(reducer, NUMERIC):
            wanted = f"c{x} is float or c{x} is int or number({x}) is not M"
        if stamp is not None:
            wanted, value = f"{wanted} and {stamp} is not None and {stamp} is not M", f"({stamp}, {x})"
        return [
            f"        if {wanted}:",
            f"            if g[{at}] is None:",
            f"                g[{at}] = [{zero}()]",
            f"            g[{at}][0] = {add}(g[{at}][0], {value})",
        ]


def _total(integers: int, floats: list[float] | None) -> Any:
    return integers if floats is None else (integers, expansion(floats))


def _number(value: Any) -> Any:
    """A plain number for an instance of a number's subclass; MISSING for everything else."""
    if not meaning.is_number(value):
        return MISSING
    return float(value) if isinstance(value, float) else int(value)


def _named(value: Any, names: dict[Any, Any]) -> Any:
    """What to find a group by, for a value that is no plain str or int: equal exactly for the same values."""
    if type(value) is float and isfinite(value):
        return value  # equal to an int, and hashed so, exactly if they are the same
    if value is MISSING:
        return ()
    found = sort_key(value)
    if len(found) == 2 and found[0] in (3, 4):  # subclasses of str, int and float
        return found[1]
    names.setdefault(found, value)
    return found


def _add_number(group: list[Any], integers: int, floats: int, numbers: int | None, value: float) -> None:
    """What the code does for plain numbers."""
    if isinstance(value, int):
        group[integers] += value
    else:
        group[floats] = [*(group[floats] or ()), value]
    if numbers is not None:
        group[numbers] += 1


class Grouped:
    """The groups of some documents while they are made."""

    def __init__(self, code: Grouping, identify: Identify) -> None:
        """Empty."""
        self._code = code
        self._identify = identify
        self._states: dict[Any, list[Any]] = {}
        self._names: dict[Any, Any] = {}
        self._waiting = 0  # floats, at most, that have been put aside and not been summed

    def take(self, documents: Batch, /) -> int:
        """Folds in the documents; how many the condition kept."""
        kept: int = self._code.compiled.for_batch(documents)(documents, self._states, self._names)
        self._waiting += kept
        # Once for many documents, and not with each float: that keeps the loop short.
        if self._code.floats and self._waiting > FLOATS_WAITING + 16 * len(self._states):
            self._waiting = 0
            for group in self._states.values():
                for slot in self._code.floats:
                    if group[slot] and len(group[slot]) > 8:
                        group[slot][:] = expansion(group[slot])
        return kept

    @property
    def groups(self) -> Groups:
        """Accumulators, one for each figure in a list, by identity of the key that `group_key` makes."""
        read, names = self._code.read, self._names
        single = self._code.parts == 1
        found = {}
        for state, group in self._states.items():
            parts = (state,) if single else state
            key = group_key(MISSING if part == () else names.get(part, part) for part in parts)
            found[self._identify(key)] = [figure(group) for figure in read]
        return found

    def __len__(self) -> int:
        return len(self._states)


def group_key(values: Iterable[Any]) -> list[Any]:
    """A group's values as one JSON key: null for MISSING, true and the value for others; it sorts as the values do."""
    key: list[Any] = []
    for value in values:
        key += (None,) if value is MISSING else (True, value)
    return key


def group_values(key: list[Any]) -> list[Any]:
    """The values that `group_key` was given."""
    parts = iter(key)
    return [next(parts) if part else MISSING for part in parts]
