"""What `replication` adds to the `vstore` command; found through the entry point `vstore.extensions`."""

from __future__ import annotations

from dataclasses import dataclass

import click

from replication.commands import command


@dataclass(frozen=True)
class Extension:
    """The package's commands."""

    def commands(self) -> list[click.Command]:
        return [command]


extension = Extension()
