"""`changes`: what was committed, in order."""

from __future__ import annotations

from typing import Any

import click

from vstore.cli.options import chosen, json_option, opened, store_option
from vstore.cli.output import flush, line, plain, short, text
from vstore.hlc import iso


@click.command("changes")
@click.argument("collection", required=False)
@click.option("--since", metavar="TOKEN", help="Only what came after; the token that an earlier run ended with.")
@click.option("--follow", is_flag=True, help="Wait for more, until interrupted.")
@click.option("--full", is_flag=True, help="Every version instead of the latest of each document.")
@click.option("--values", is_flag=True, help="With the value of each.")
@json_option
@store_option
def changes(
    collection: str | None,
    since: str | None,
    follow: bool,
    full: bool,
    values: bool,
    as_json: bool,
    urls: tuple[str, ...],
) -> None:
    """List what was committed, in order.

    Complete, and in order for each partition. Ends with the token for --since: with --json as a last line {"since":
    …} on stdout, else on stderr.
    """
    with opened(urls) as store:
        feed = chosen(store, collection).changes(since, follow=follow, full=full, values=values)
        try:
            for change in feed:
                if as_json:
                    shown: dict[str, Any] = {
                        "key": change.key,
                        "rev": change.rev,
                        "deleted": change.deleted,
                        "time": iso(change.stamp),
                        "stamp": change.stamp,
                    }
                    line({**shown, "value": change.value} if values else shown)
                else:
                    what = "deleted" if change.deleted else short(change.value) if values else ""
                    text(f"{iso(change.stamp)}  {change.rev}  {plain(change.key)}  {what}".rstrip())
                if follow:
                    flush()
        finally:  # interrupted, too: that is how --follow ends
            if as_json:
                line({"since": feed.since})
            else:
                flush()
                click.echo(f"since {feed.since}", err=True)
