"""The seam through which other packages add to the `vstore` command.

A package offers an extension through the entry point group `vstore.extensions`:

    [project.entry-points."vstore.extensions"]
    mapreduce = "mapreduce.extension:extension"

Finding one loads it, and loading it has no effect: it opens, writes and
registers nothing. One that cannot be loaded is reported and left out, since a
broken package must not take `vstore get` with it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import click

GROUP = "vstore.extensions"


@runtime_checkable
class Extension(Protocol):
    """What an entry point of the group leads to."""

    def commands(self) -> list[click.Command]:
        """The commands it adds to `vstore`. Their names are new: those of vstore itself win."""
        ...


def commands(report: Callable[[str], None]) -> dict[str, click.Command]:
    """The commands of all installed extensions, by name.

    Args:
        report: told of each extension that is left out, and why.
    """
    found: dict[str, click.Command] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            extension = entry.load()
            if not isinstance(extension, Extension):
                raise TypeError(f"{entry.value} has no commands()")
            found |= {str(command.name): command for command in extension.commands() if command.name not in found}
        except Exception as error:  # whatever a package does when it is imported
            report(f"the extension {entry.name!r} is left out: {type(error).__name__}: {error}")
    return found
