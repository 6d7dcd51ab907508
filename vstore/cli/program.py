"""The command itself: it finds commands, runs one, and is the only place where errors become exit codes.

A command's module is imported when the command is used, and extensions are
looked for only when a command is unknown or help is asked for: `vstore get` is
to answer before anyone has noticed.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from vstore.errors import Conflict, NotFound, PreconditionFailed, StoreError

OK, ERROR, USAGE, NOT_FOUND, CONFLICT, DAMAGE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

COMMANDS = {
    "init": "upkeep",
    "put": "documents",
    "get": "documents",
    "delete": "documents",
    "keys": "documents",
    "history": "past",
    "diff": "past",
    "revert": "past",
    "at": "past",
    "import": "lines",
    "export": "lines",
    "changes": "feed",
    "conflicts": "conflicts",
    "resolve": "conflicts",
    "prune": "upkeep",
    "purge": "forgetting",
    "erase": "forgetting",
    "vacuum": "forgetting",
    "replicas": "forgetting",
    "check": "upkeep",
    "copy": "upkeep",
    "stats": "upkeep",
    "collections": "upkeep",
    "demo": "demo",
}
"""The module of each command, in the order of the help page."""

UNWRITABLE = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
"""How a write to stdout fails. Files have a name in their errors, and databases errors of their own."""

HINTS: dict[type[StoreError], str] = {
    PreconditionFailed: "See what is there: `vstore get COLLECTION KEY --meta`.",
    Conflict: "See `vstore conflicts COLLECTION`, and settle with `vstore resolve COLLECTION KEY …`.",
}
"""What to do next on a command line, where the message says what to do next in Python. The first class that fits."""


class Program(click.Group):
    """A group whose commands are imported when they are used."""

    _extended: dict[str, click.Command] | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *(name for name in self._extensions() if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return self._extensions().get(cmd_name)
        module = importlib.import_module(f"vstore.cli.{COMMANDS[cmd_name]}")
        members = vars(module).values()
        return next(each for each in members if isinstance(each, click.Command) and each.name == cmd_name)

    def make_context(self, *given: Any, **extra: Any) -> click.Context:
        """Reads the command line; `--help` and `--version` are printed here."""
        with _stdout_watched():
            return super().make_context(*given, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command that was found."""
        with _stdout_watched():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result

    def main(self, args: Sequence[str] | None = None, *rest: Any, **settings: Any) -> Any:
        """Runs a command and exits with its code: see the constants above.

        With `standalone_mode=False`, as click has it, it returns or raises instead.
        """
        if args is None:
            # A process of its own. What is loaded by now goes when the process goes; without this, Python looks through
            # it for garbage on the way out, which is a tenth of the time of `vstore get`.
            gc.freeze()
        if settings.get("standalone_mode", True):
            settings["standalone_mode"] = False
            _fill_closed_streams()
            sys.exit(_code_of(lambda: super(Program, self).main(args, *rest, **settings)))
        return super().main(args, *rest, **settings)

    def _extensions(self) -> dict[str, click.Command]:
        if self._extended is None:
            from vstore.extension import commands

            self._extended = commands(lambda problem: click.echo(f"vstore: {problem}", err=True))
        return self._extended


@click.command(
    cls=Program,
    name="vstore",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 check found damage, 130 interrupted.",
)
@click.version_option(package_name="vstore", message="vstore %(version)s")
def main() -> None:
    """A document store that never forgets.

    Every command takes --store URL, once for each shard; without it, the URLs in $VSTORE_STORE, else
    sqlite:///vstore.db. Data is printed on stdout, all else on stderr.
    """


@contextlib.contextmanager
def _stdout_watched() -> Iterator[None]:
    """Ends a command well whose reader goes away early, as in `vstore keys | head`, and names stdout if it is full.

    Here and not with the other errors, since click takes a broken pipe for an error of its own and exits with 1.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        # What is still buffered has nowhere to go, and Python would complain about it on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            raise click.exceptions.Exit(OK) from None
        raise StoreError(f"stdout cannot be written: {error.strerror}.") from error


def _fill_closed_streams() -> None:
    """Opens the null device for each standard stream that is closed, as in `vstore put … >&-`.

    Else the next file that is opened, the database, would get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # for as long as the process


def _code_of(run: Callable[[], Any]) -> int:
    try:
        code = run()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except NotFound as error:
        return _told(error, NOT_FOUND)
    except Conflict as error:
        return _told(error, CONFLICT)
    except StoreError as error:
        return _told(error, ERROR)
    except OSError as error:
        return _told(error, ERROR)
    except (click.Abort, KeyboardInterrupt):
        click.echo("vstore: interrupted", err=True)
        return INTERRUPTED
    return code if isinstance(code, int) else OK


def _told(error: Exception, code: int) -> int:
    hints = [hint for kind, hint in HINTS.items() if isinstance(error, kind)][:1]
    for line in (str(error), *getattr(error, "__notes__", ()), *hints):
        click.echo(f"vstore: {line}", err=True)
    return code
