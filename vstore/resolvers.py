"""Resolvers: what becomes of a document that several writers changed at once.

A resolver is a pure function of the siblings and their base. It returns the value
to store in their place, `DELETE` to store a tombstone, or `KEEP` to leave them as
they are. Each replica may call it, in any order and without asking the others, so
the same siblings must give the same answer everywhere; `Siblings` helps by coming
in winner order however it was put together.

    keep         the siblings stay; a read says that they are there
    winner       the value that every replica shows first
    last_write   the value with the highest stamp
    json3        three-way merge by path; KEEP where changes clash
    three_way()  the same with other rules
    fields()     a policy for each named field, a resolver for the rest

Out of scope: finding the siblings, and storing the answer.
Pure: no input or output, no time, no randomness.
Source: Terry et al. (1995), "Managing Update Conflicts in Bayou, a Weakly
Connected Replicated Storage System": why merge procedures must be deterministic.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import Any, Final, Literal, Protocol

from vstore.errors import ConfigurationError, ResolverError
from vstore.merge import MISSING, Strictness, merge, same

IDENTITY_LENGTH = 58
"""So that "merge:" and the identity of a resolver fit into the 64 characters of a version's kind."""


class Answer(Enum):
    """What a resolver may say instead of a value; an enum, so that each stays unique under pickle and copy."""

    DELETE = "delete"
    KEEP = "keep"

    def __repr__(self) -> str:
        return self.name


DELETE: Final = Answer.DELETE
"""Replace the siblings by a tombstone."""

KEEP: Final = Answer.KEEP
"""Leave the siblings as they are."""


@dataclass(frozen=True)
class Sibling:
    """One version as a resolver sees it. `rev` is generation-signature, `stamp` microseconds since 1970 UTC."""

    rev: str
    value: Any
    deleted: bool
    stamp: int


@dataclass(frozen=True)
class Siblings:
    """What a resolver decides about: the live versions of one document, and what they come from.

    `siblings` is in winner order, whatever order it was given in. A tombstone that
    competes with live versions is not among them: an edit made at the same time as
    a delete survives it.

    Siblings of which some have merged already what is in others are merged in
    pairs, one after another; then one of the two stands for several, with the rev
    of the first of these.

    `base` is the common ancestor. Where the same versions were merged twice there
    are several; then it is what the resolver itself makes of these, and its rev is
    empty. None if there is none, if there are several that it does not merge, or if
    retention has removed it.
    """

    key: str
    siblings: tuple[Sibling, ...]
    base: Sibling | None = None

    def __post_init__(self) -> None:
        # Here and not in each resolver: an answer that depends on the order of arrival differs between replicas, and
        # a resolver that someone writes in a hurry should not have to know that.
        object.__setattr__(self, "siblings", tuple(sorted(self.siblings, key=winner_order, reverse=True)))

    @property
    def base_value(self) -> Any:
        """The base's value; `MISSING` if there is none.

        A base that was deleted counts as none: documents written after a delete share no past, so where they differ
        is a clash and not a pair of additions.
        """
        return MISSING if self.base is None or self.base.deleted else self.base.value


class Resolver(Protocol):
    """Decides what replaces the siblings: a value, `DELETE` or `KEEP`. Must be a pure function of its argument."""

    def __call__(self, conflict: Siblings, /) -> Any: ...


Policy = Callable[[Any, Sequence[Sibling]], Any]
"""Decides one field: `policy(base, siblings) -> value`.

`base` is the field's value in the base, `MISSING` if it has none or is unknown.
`siblings` are those that have the field, in winner order, each with the field as
its value. `MISSING` as an answer leaves the field to the resolver for the rest,
as every policy here does with values of a type that it is not meant for.
"""


def winner_order(sibling: Sibling) -> tuple[bool, int, str]:
    """The key by which the winner is the maximum, the same at every replica: live, then generation, then signature."""
    generation, signature = sibling.rev.split("-", 1)
    return not sibling.deleted, int(generation), signature


def decide(resolver: Resolver, conflict: Siblings) -> Any:
    """The resolver's answer: a value, `DELETE` or `KEEP`.

    The resolver works on a copy, so nothing it does reaches the siblings. None is
    a value, JSON null. Whether a value can be stored exactly is for the codec to
    say; refused here is what cannot be JSON at all, like a `Sibling` returned in
    place of its value.

    Raises:
        ResolverError: the resolver raised, or returned something else.
    """
    try:
        answer = resolver(copy.deepcopy(conflict))
    except ResolverError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ResolverError(
            f"resolver {_name(resolver)} failed on {conflict.key!r}: {reason}. "
            f"Nothing was written; its {len(conflict.siblings)} siblings are as they were.",
            reason,
        ) from error
    if answer is None or isinstance(answer, Answer | bool | int | float | str | list | tuple | dict):
        return answer
    raise ResolverError(
        f"resolver {_name(resolver)} returned a {type(answer).__name__} for {conflict.key!r}. Nothing was written; its "
        f"{len(conflict.siblings)} siblings are as they were. Return a JSON value, DELETE or KEEP.",
        f"returned a {type(answer).__name__}",
    )


def keep(conflict: Siblings) -> Any:
    """Leaves every sibling for someone else to decide about."""
    return KEEP


def winner(conflict: Siblings) -> Any:
    """The value that replicas show first. It is nobody's merge: what the others wrote goes to history."""
    return conflict.siblings[0].value


def last_write(conflict: Siblings) -> Any:
    """The value with the highest stamp, of equal ones the winner's. As good as the clocks of the writers."""
    return _latest_first(conflict.siblings)[0].value


@dataclass(frozen=True, kw_only=True)
class three_way:  # noqa: N801 - called like a function; a class, because that pickles, compares and prints
    """A resolver that merges by path; the rules are those of `vstore.merge.merge`.

    `on_clash` says what happens where changes exclude each other: `keep` keeps the
    siblings, whole; `winner` and `last_write` take that sibling's side at just the
    clashing paths, or if it changed nothing there, the next one's that did.
    """

    strictness: Strictness = "path"
    arrays: str = "atomic"
    on_clash: Literal["keep", "winner", "last_write"] = "keep"

    def __post_init__(self) -> None:
        if self.on_clash not in ("keep", "winner", "last_write"):
            raise ConfigurationError(f"on_clash={self.on_clash!r} refused: use 'keep', 'winner' or 'last_write'.")
        merge(None, [None], strictness=self.strictness, arrays=self.arrays)  # its refusal should come now, not later

    def __call__(self, conflict: Siblings) -> Any:
        siblings = _latest_first(conflict.siblings) if self.on_clash == "last_write" else conflict.siblings
        values = [each.value for each in siblings]
        merged = merge(conflict.base_value, values, strictness=self.strictness, arrays=self.arrays)
        return KEEP if merged.conflicts and self.on_clash == "keep" else merged.value


json3: Final[Resolver] = three_way()
"""Three-way merge by path with the default rules."""


@dataclass(frozen=True)
class fields:  # noqa: N801 - as three_way
    """A resolver with a policy for each named field, and another resolver for all the rest.

    Each policy's answer is put into every sibling that has the object around the
    field; they then agree on it, and the resolver for the rest decides. If that
    one returns KEEP, so does this: a document is never half resolved.

    `policies` maps JSON Pointers to policies, applied in this order; "" is the
    whole value. Pointers lead through objects only. A field that a sibling has
    removed since the base is left to the resolver for the rest.
    """

    policies: Mapping[str, Policy]
    default: Resolver = json3

    def __post_init__(self) -> None:
        for pointer in self.policies:
            if pointer and not pointer.startswith("/"):
                raise ConfigurationError(f"field {pointer!r} refused: a JSON Pointer is '' or begins with '/'.")

    def __call__(self, conflict: Siblings) -> Any:
        for pointer, policy in self.policies.items():
            tokens = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
            conflict = _agreed(conflict, tokens, policy)
        return self.default(conflict)


def maximum(base: Any, siblings: Sequence[Sibling]) -> Any:
    """The greatest of numbers, or of strings by code point."""
    return max(_comparable(siblings), default=MISSING)


def minimum(base: Any, siblings: Sequence[Sibling]) -> Any:
    """The least of numbers, or of strings by code point."""
    return min(_comparable(siblings), default=MISSING)


def counter(base: Any, siblings: Sequence[Sibling]) -> Any:
    """The base plus what each sibling added to it or took away; the base is 0 if there is none.

    Two siblings that both added 1 are two events, so 2 is added. Integers are
    exact; with a float among them the sum is rounded once.
    """
    start = 0 if base is MISSING else base
    values = [each.value for each in siblings]
    if not all(map(_is_number, [start, *values])):
        return MISSING
    total = math.fsum if any(isinstance(value, float) for value in [start, *values]) else sum
    return total([start, *(term for value in values for term in (value, -start))])


def union(base: Any, siblings: Sequence[Sibling]) -> Any:
    """Lists as sets: every item that some sibling has, except those that one has removed since the base."""
    if not all(isinstance(each.value, list) for each in siblings):
        return MISSING
    merged = merge(base, [each.value for each in siblings], strictness="lenient", arrays="set")
    return MISSING if merged.conflicts else merged.value


def append(base: Any, siblings: Sequence[Sibling]) -> Any:
    """The base's list, then what each sibling put behind it: the oldest write's items first.

    For logs: the same item from two siblings is there twice. Lists that have done
    anything but grow at the end are left to the resolver for the rest.
    """
    start = [] if base is MISSING else base
    if not isinstance(start, list):
        return MISSING
    grown = list(start)
    for each in _earliest_first(siblings):
        if not isinstance(each.value, list) or not same(each.value[: len(start)], start):
            return MISSING
        grown += each.value[len(start) :]
    return grown


def first(base: Any, siblings: Sequence[Sibling]) -> Any:
    """The value with the lowest stamp, of equal ones the winner's."""
    return _earliest_first(siblings)[0].value


def last(base: Any, siblings: Sequence[Sibling]) -> Any:
    """The value with the highest stamp, of equal ones the winner's."""
    return _latest_first(siblings)[0].value


def by_name(name: str) -> Resolver:
    """The resolver that a command line or configuration file names.

    Raises:
        ConfigurationError: there is none of this name.
    """
    if name not in _NAMED:
        raise ConfigurationError(f"no resolver is named {name!r}: choose one of {', '.join(_NAMED)}.")
    return _NAMED[name]


def identity(resolver: Resolver) -> str:
    """What a resolver is called: its name, or module:function, and @version if it has an attribute `version`.

    At most 58 characters of ASCII. It marks the versions that the resolver makes
    (kind "merge:" and this), and a conflict that it did not settle is brought to
    it again when this has changed: give a function whose rules change a version.

        merge_posts.version = 2
    """
    for name, known in _NAMED.items():
        if resolver is known or (isinstance(known, three_way) and resolver == known):
            return name
    given = getattr(resolver, "name", None)
    if not isinstance(given, str) or not given:
        made_of = getattr(resolver, "func", resolver)  # of a functools.partial
        named = made_of if hasattr(made_of, "__qualname__") else type(made_of)
        given = f"{getattr(named, '__module__', None) or 'builtins'}:{named.__qualname__}"
        code = getattr(made_of, "__code__", None)
        if code is not None and given.endswith("<lambda>"):  # which have nothing else that tells them apart
            plain = [each for each in code.co_consts if not hasattr(each, "co_code")]
            given += f"#{sha256(code.co_code + repr((plain, code.co_names)).encode()).hexdigest()[:8]}"
    version = getattr(resolver, "version", None)
    ending = "" if version is None else _ascii(f"@{version}", IDENTITY_LENGTH // 2)
    return _ascii(given, IDENTITY_LENGTH - len(ending)) + ending


def needs_base(resolver: Resolver) -> bool:
    """Whether the answer depends on the base. Unless it has an attribute `needs_base` that says no, it may."""
    return bool(getattr(resolver, "needs_base", resolver not in (keep, winner, last_write)))


_NAMED: Final[dict[str, Resolver]] = {"keep": keep, "winner": winner, "last_write": last_write, "json3": json3}


def _ascii(text: str, length: int) -> str:
    """The text in at most so many characters of ASCII; what had to be cut still differs where the texts do."""
    plain = "".join(text.encode("ascii", "backslashreplace").decode().split())
    return plain if len(plain) <= length else f"{plain[: length - 9]}~{sha256(plain.encode()).hexdigest()[:8]}"


def _agreed(conflict: Siblings, tokens: Sequence[str], policy: Policy) -> Siblings:
    """The siblings with the policy's answer in each; as they were if it has none."""
    base = _field(conflict.base_value, tokens)
    narrowed = [replace(each, value=_field(each.value, tokens)) for each in conflict.siblings]
    present = [each for each in narrowed if each.value is not MISSING]
    removed = base is not MISSING and len(present) < len(narrowed)
    answer = MISSING if removed or not present else policy(base, present)
    if answer is MISSING:
        return conflict
    agreeing = (replace(each, value=_with_field(each.value, tokens, answer)) for each in conflict.siblings)
    return replace(conflict, siblings=tuple(agreeing))


def _field(value: Any, tokens: Sequence[str]) -> Any:
    """What the pointer leads to, through objects only; `MISSING` if nothing."""
    for token in tokens:
        value = value.get(token, MISSING) if isinstance(value, dict) else MISSING
    return value


def _with_field(value: Any, tokens: Sequence[str], answer: Any) -> Any:
    """The value with the field set; as it was if the object around the field is not there."""
    if not tokens:
        return answer
    if not isinstance(value, dict) or (len(tokens) > 1 and tokens[0] not in value):
        return value
    return {**value, tokens[0]: _with_field(value.get(tokens[0]), tokens[1:], answer)}


def _latest_first(siblings: Sequence[Sibling]) -> list[Sibling]:
    return sorted(siblings, key=lambda each: -each.stamp)  # stable: equal stamps stay in winner order


def _earliest_first(siblings: Sequence[Sibling]) -> list[Sibling]:
    return sorted(siblings, key=lambda each: each.stamp)


def _comparable(siblings: Sequence[Sibling]) -> list[Any]:
    """The values if Python orders them among each other as their readers would expect, else none."""
    values = [each.value for each in siblings]
    alike = all(map(_is_number, values)) or all(isinstance(value, str) for value in values)
    return values if alike else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(resolver: Resolver) -> str:
    return str(getattr(resolver, "__qualname__", type(resolver).__qualname__))
