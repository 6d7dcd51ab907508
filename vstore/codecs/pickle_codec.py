"""Pickled bodies, for values that JSON has not. Only where explicitly allowed.

Reading a pickle runs code that its writer chose, so `codec` refuses the name
unless told otherwise, and pickles never travel between replicas.
"""

from __future__ import annotations

import pickle
from typing import Any

from vstore.errors import CodecError, InvalidDocument

PROTOCOL = 5  # fixed: these bytes go into revs, and pickle.DEFAULT_PROTOCOL moves with Python


class PickleCodec:
    """Keeps whatever pickle keeps; that a value comes back equal is its class's promise, not ours.

    The identity of a value is its pickle. Equal values may have several pickles
    (key order, shared objects, the order of a set), so the same edit made on two
    replicas may become two siblings. It never becomes one version too few.
    """

    __slots__ = ("_max_body_bytes",)

    name = "pickle"

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes

    def encode(self, value: Any) -> tuple[str, bytes]:
        data = self.identity(value)
        if len(data) > self._max_body_bytes:
            raise InvalidDocument(
                f"document refused: it has {len(data):,} bytes as a pickle, and max_body_bytes is "
                f"{self._max_body_bytes:,}. It was not stored. Split it, or open the store with a larger limit."
            )
        return "pickle", data

    def decode(self, data: bytes) -> Any:
        try:
            return pickle.loads(data)
        except Exception as error:  # damaged bytes raise anything, and so do the classes that are called
            raise CodecError(
                f"stored body of {len(data):,} bytes cannot be unpickled: {type(error).__name__}: {error}. Nothing was "
                f"changed. The classes of the value must be importable here, under the names they had when written."
            ) from error

    def identity(self, value: Any) -> bytes:
        try:
            return pickle.dumps(value, PROTOCOL)
        except Exception as error:  # __reduce__ of any class may raise anything
            raise InvalidDocument(
                f"document refused: it cannot be pickled: {type(error).__name__}: {error}. It was not stored."
            ) from error
