"""What `mapreduce` adds to the `vstore` command; found through the entry point `vstore.extensions`."""

from __future__ import annotations

from dataclasses import dataclass

import click

from mapreduce.commands.map import command as map_command
from mapreduce.commands.query import command as query_command
from mapreduce.commands.views import view_command, views_command


@dataclass(frozen=True)
class Extension:
    """The package's commands."""

    def commands(self) -> list[click.Command]:
        return [map_command, query_command, view_command, views_command]


extension = Extension()
