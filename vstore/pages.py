"""Where one page of versions ends when they are read in commit order, bounded in rows and in bytes.

A thousand rows are small where documents are, and gigabytes where they are not:
the sizes are asked first, which reads no body.
"""

from __future__ import annotations

from vstore.sql import statements as sql
from vstore.sql.database import Connection

PAGE_ROWS = 1_000
PAGE_BYTES = 8 * 1024 * 1024


def page_end(connection: Connection, after: int, top: int) -> int:
    """The id up to which a page goes that begins after an id and may go up to `top`.

    It holds at most 1,000 versions, and of 8 MiB of bodies or just one version.
    """
    rows = connection.rows(sql.SIZES_BY_ID, (after, top, PAGE_ROWS))
    total_bytes = 0
    for place, (_id, body_bytes) in enumerate(rows):
        total_bytes += body_bytes or 0
        if total_bytes > PAGE_BYTES and place:
            return int(rows[place - 1][0])
    return int(rows[-1][0]) if len(rows) == PAGE_ROWS else top
