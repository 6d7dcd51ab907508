"""The token of a change feed: a position in every partition, as one opaque text.

It names the feeds that it belongs to. A partition gets a new feed whenever its
order of commits could go back, so after a restore, a copy or a move a token is
refused instead of misread.

Pure: no input or output.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from vstore.errors import InvalidToken
from vstore.tokens import content_of, text_of


def token_of(full: bool, feeds: str, positions: Sequence[int]) -> str:
    """The token of a position in every partition of feeds; it is of the full feed or of the compacted one."""
    return text_of([1, int(full), feeds, positions])


def feeds_of(now: Sequence[tuple[str, int]]) -> str:
    """What names the feeds of all partitions together: of (feed id, seq) for each."""
    return blake2b(" ".join(feed for feed, _seq in now).encode(), digest_size=12).hexdigest()


def positions_in(token: str, full: bool, feeds: str, reached: Sequence[int]) -> list[int]:
    """The positions that a token names.

    Args:
        reached: how far each partition is.

    Raises:
        InvalidToken: it is no token, of the other form, of other feeds, or ahead of these.
    """
    advice = "Nothing was read. Start without `since` and take the new feed's token."
    try:
        _form, was_full, was_feeds, positions = content_of(token)
        if not all(type(position) is int and position >= 0 for position in positions):
            raise ValueError("a position is a count")
        if token != token_of(was_full, was_feeds, positions):  # there is one text for a token
            raise ValueError("not as it was given out")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidToken(f"since={token[:40]!r} is not a token of a change feed. {advice}") from error
    if bool(was_full) != full:
        raise InvalidToken(
            f"since= is a token of the {'full' if was_full else 'compacted'} feed, and this is the other. {advice}"
        )
    if was_feeds != feeds or len(positions) != len(reached):
        raise InvalidToken(
            "since= belongs to another feed: of another collection or store, or from before this one was restored, "
            f"copied or moved. {advice}"
        )
    if any(position > now for position, now in zip(positions, reached, strict=True)):
        raise InvalidToken(f"since= is ahead of this feed: the database was set back to an older state. {advice}")
    return list(positions)
