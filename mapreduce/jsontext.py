"""What a job has made as JSON text, whatever it has in it: for people, other programs and tables.

Results are more than documents. A sum can be an integer beyond 64 bits, or an
infinity; Stats makes a dataclass. A float that is not finite has no word in JSON
and is null.

Pure: no input or output.
"""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from math import isfinite
from typing import Any

import orjson


def json_text(value: Any) -> str:
    """The value as JSON, without blanks.

    Raises:
        TypeError: JSON has no such value.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # orjson writes integers of up to 64 bits
        return json.dumps(_writable(value), ensure_ascii=False, separators=(",", ":"))


def _writable(value: Any) -> Any:
    """The value as the json module is to be given it, which has words of its own for NaN and knows no dataclass."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {name: _writable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(each) for each in value]
    return value
