"""Opaque texts that are given out and come back: JSON in the base64 of URLs, without padding.

Whoever reads one writes what it found once more and compares: there is one text
for each content, so another text was not given out here.

Pure: no input or output.
"""

from __future__ import annotations

import base64
import json
from typing import Any


def text_of(content: Any) -> str:
    """The text of a JSON value."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def content_of(text: str) -> Any:
    """What a text may have been made of.

    Raises:
        ValueError, TypeError, RecursionError: of nothing.
    """
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
