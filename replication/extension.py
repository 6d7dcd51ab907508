"""What `replication` adds to the `vstore` command; found through the entry point `vstore.extensions`."""

from __future__ import annotations

from dataclasses import dataclass

import click

from replication.commands import parked_command, replicate_command, sync_command
from replication.daemon.commands import command as replicator_command
from replication.reconciling import command as reconcile_command


@dataclass(frozen=True)
class Extension:
    """The package's commands."""

    def commands(self) -> list[click.Command]:
        return [sync_command, replicate_command, parked_command, reconcile_command, replicator_command]


extension = Extension()
