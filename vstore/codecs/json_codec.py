"""JSON bodies, the default: readable in any SQL tool, and the fastest there is.

All rules are in `vstore.canonical`; this module only gives them the shape of
the seam.
"""

from __future__ import annotations

from vstore.canonical import canonical, decoded, encoded


class JsonCodec:
    """Keeps every JSON value exactly, with its key order."""

    __slots__ = ("_max_body_bytes",)

    name = "json"

    # Bound directly: a scan calls decode, and a write identity, once per document, and a call in between costs as much
    # as a tenth of the work.
    decode = staticmethod(decoded)
    identity = staticmethod(canonical)

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes

    def encode(self, value: object) -> tuple[str, bytes]:
        return "json", encoded(value, self._max_body_bytes)
