"""The canonical form c1 of JSON values, written slowly and independently of vstore.

The oracle of `tests/unit/test_canonical.py`: plain string building from the
grammar in `vstore/canonical.py`, with no JSON library. Only the shortest digits
of a double come from Python's `repr`, which is specified to give them.
"""

from __future__ import annotations

from typing import Any

ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def canonical_text(value: Any) -> str:
    """The canonical form of a value as text; its UTF-8 is the canonical bytes."""
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return string_text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, list):
        return "[" + ",".join(canonical_text(part) for part in value) + "]"
    keys = sorted(value, key=lambda key: [ord(character) for character in key])
    return "{" + ",".join(string_text(key) + ":" + canonical_text(value[key]) for key in keys) + "}"


def string_text(text: str) -> str:
    return '"' + "".join(ESCAPES.get(c) or (f"\\u{ord(c):04x}" if ord(c) < 32 else c) for c in text) + '"'


def float_text(number: float) -> str:
    """Shortest digits; plain notation for decimal exponents from -5 to 15, else one digit before the point."""
    sign = "-" if repr(number).startswith("-") else ""
    mantissa, _, exponent = repr(number).lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    point = len(whole) + int(exponent or 0)  # digits before the decimal point, may be negative
    digits = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(digits)
    digits = digits.rstrip("0")
    if not digits:
        return sign + "0.0"
    if -5 < point <= 0:
        return sign + "0." + "0" * -point + digits
    if 0 < point <= 16:
        return sign + digits[:point].ljust(point, "0") + "." + (digits[point:] or "0")
    rest = "." + digits[1:] if digits[1:] else ""
    return f"{sign}{digits[0]}{rest}e{point - 1:+d}"
