"""Accumulators as bytes, for databases: plain data, so that reading them back can run nobody's code.

The bytes are a pickle, the fastest form that keeps tuples, sets and integers of
any size; classes and functions, which make pickles dangerous, are refused on the
way in and on the way out.

Pure: no input or output.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, NoReturn

PLAIN = "None, bool, int, float, str, bytes, list, tuple, set, frozenset, dict"


def stored(acc: Any) -> bytes:
    """An accumulator of plain data as bytes.

    Raises:
        TypeError: something in it is not plain.
    """
    buffer = io.BytesIO()
    _Storing(buffer, protocol=5).dump(acc)
    return buffer.getvalue()


def restored(data: bytes) -> Any:
    """An accumulator equal to the one that was stored.

    Raises:
        ValueError: `data` is damaged, or was not made by `stored`. No code of its making has run.
    """
    try:
        return _Restoring(io.BytesIO(data)).load()
    except Exception as error:  # pickle raises whatever the damage leads it to
        raise ValueError(
            f"a stored accumulator of {len(data):,} bytes cannot be read ({type(error).__name__}: {error}); whatever "
            f"keeps it can be built anew from its documents"
        ) from error


class _Storing(pickle.Pickler):
    def reducer_override(self, value: Any) -> NoReturn:
        """Called by pickle for whatever is not plain."""
        raise TypeError(
            f"an accumulator to be stored holds {value!r} of type {type(value).__name__}; it may hold {PLAIN}. Let the "
            f"reducer keep such data and make its objects in finish()."
        )


class _Restoring(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and may hold only {PLAIN}")
