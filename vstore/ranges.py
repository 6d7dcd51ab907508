"""Ranges of keys, compared as every database here compares them: by bytes, which for text is by code point.

A range is [low, high), and a prefix is the range up to the first text above all
that begin so. Both ends are always there: `ABOVE` is above every key.

Pure: no input or output.
"""

from __future__ import annotations

from dataclasses import dataclass

from vstore.errors import ConfigurationError

_LAST = "\U0010ffff"

ABOVE = _LAST * 257
"""Above every key: the highest one is this character 256 times, which are 1,024 bytes."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys from `low` up to `high`, which is not among them."""

    low: str = ""
    high: str = ABOVE

    def __contains__(self, key: str) -> bool:
        return self.low <= key < self.high

    def __and__(self, other: KeyRange) -> KeyRange:
        return KeyRange(max(self.low, other.low), min(self.high, other.high))

    @property
    def whole(self) -> bool:
        """Whether it leaves out no key."""
        return not self.low and self.high == ABOVE


def key_range(prefix: str = "", start: str | None = None, end: str | None = None) -> KeyRange:
    """The keys that begin with a prefix, and of them those from `prefix + start` up to `prefix + end`.

    Raises:
        ConfigurationError: a bound is no text, or none that UTF-8 can say.
    """
    for bound in (prefix, start, end):
        if not isinstance(bound, str | None):
            raise ConfigurationError(
                f"a range of keys from {start!r} to {end!r} refused: both are text or None. Nothing was read."
            )
        if bound and any("\ud800" <= character <= "\udfff" for character in bound):
            raise ConfigurationError(
                f"a range of keys is bounded by {bound!r}, which is no text that a key can have: it holds half a "
                f"character (a lone surrogate). Nothing was read. Give the bound as UTF-8."
            )
    low, high = prefix + (start or ""), _after(prefix)
    return KeyRange(_sayable(low), high if end is None else _sayable(min(high, prefix + end)))


def next_key(key: str) -> str:
    """The smallest text above a key that a key can have: none has a NUL."""
    return key + "\x01"


def separator(below: str, above: str) -> str:
    """The shortest text that is above one key and not above the next; the next itself if both are one."""
    if below >= above:
        return above
    at = next((n for n, (a, b) in enumerate(zip(below, above, strict=False)) if a != b), min(len(below), len(above)))
    return above[: at + 1]


def _after(prefix: str) -> str:
    """The smallest text above all that begin with the prefix."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at])
        if code < 0x10FFFF:
            return prefix[:at] + chr(0xE000 if code == 0xD7FF else code + 1)  # the surrogates between are no characters
    return ABOVE


def _sayable(text: str) -> str:
    """The same place between keys, said without the NUL that no key has and PostgreSQL refuses."""
    start, nul, _rest = text.partition("\0")
    return start + "\x01" if nul else start
