"""What the commands that run jobs share: which documents they read, and how."""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeVar

import click

from vstore.cli.options import moment
from vstore.cli.output import counted, plain
from vstore.collection import Collection
from vstore.ranges import key_range

T = TypeVar("T")

UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", re.IGNORECASE)


def size(given: str) -> int:
    """A number of bytes as it is typed: 268435456, 256M, 1.5GiB. The `type` of an option."""
    found = _SIZE.fullmatch(given.strip())
    number = int(Fraction(found[1]) * UNITS[found[2].lower()]) if found else 0
    if number < 1:
        raise click.BadParameter(f"{given!r} is no size; write bytes, or 512K, 256M, 2G.")
    return number


@dataclass(frozen=True)
class Documents:
    """Which documents of a collection are read."""

    when: int | None
    history: bool
    prefix: str
    start: str | None
    end: str | None

    def of(self, documents: Collection) -> Any:
        """What to read of the collection.

        Raises:
            click.UsageError: the options contradict each other.
        """
        if self.history and self.when is not None:
            raise click.UsageError("--history is every version, and --at the one of a moment. Give one of them.")
        keys = key_range(self.prefix) & key_range(start=self.start, end=self.end)
        bounds = {} if keys.whole else {"start": keys.low, "end": keys.high}
        if self.history:
            return documents.history_scan(**bounds)
        if self.when is not None:
            return documents.at(self.when, **bounds)
        return documents.snapshot(**bounds) if bounds else documents


def documents_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--at`, `--history`, `--prefix`, `--start` and `--end`, as the parameter `documents`."""

    @functools.wraps(command)
    def with_documents(
        *arguments: Any, when: int | None, history: bool, prefix: str, start: str | None, end: str | None, **rest: Any
    ) -> Any:
        return command(*arguments, documents=Documents(when, history, prefix, start, end), **rest)

    return _with(
        with_documents,
        click.option("--at", "when", metavar="MOMENT", type=moment, help="The documents as they were then."),
        click.option("--history", is_flag=True, help="Every version, deletions included, instead of the newest."),
        click.option("--prefix", default="", help="Only keys that begin so."),
        click.option("--start", metavar="KEY", help="The first key that may come, included."),
        click.option("--end", metavar="KEY", help="The end, not included."),
    )


@dataclass(frozen=True)
class Running:
    """How a job runs."""

    workers: int | None
    memory: int | None
    deadline: float | None
    on_error: Literal["raise", "skip"]
    on_conflict: Literal["winner", "skip", "raise"]

    def settings(self) -> dict[str, Any]:
        """As arguments of `run` and `query`."""
        given = {"workers": self.workers, "memory": self.memory, "deadline": self.deadline}
        return {
            "on_error": self.on_error,
            "on_conflict": self.on_conflict,
            **{name: value for name, value in given.items() if value is not None},
        }

    def told(self, counters: Any, skipped: list[Any]) -> str:
        """What is to be said of documents that were not plainly read; names on stderr those that were skipped."""
        for each in skipped:
            rev = f" ({each.rev})" if each.rev else ""
            click.echo(f"vstore: skipped {plain(str(each.key))}{rev}: {each.error}", err=True)
        words = ""
        if counters.skipped:
            more = f", {len(skipped)} of them named" if len(skipped) < counters.skipped else ""
            words += f", {counters.skipped:,} skipped{more}"
        if counters.conflicts:
            how = "left out" if self.on_conflict == "skip" else "read as their winner"
            words += f", {counted(counters.conflicts, 'document')} with siblings {how}"
        return words


def running_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--workers`, `--memory`, `--deadline`, `--on-error` and `--on-conflict`, as the parameter `running`."""

    @functools.wraps(command)
    def with_running(
        *arguments: Any,
        workers: int | None,
        memory: int | None,
        deadline: float | None,
        on_error: Literal["raise", "skip"],
        on_conflict: Literal["winner", "skip", "raise"],
        **rest: Any,
    ) -> Any:
        return command(*arguments, running=Running(workers, memory, deadline, on_error, on_conflict), **rest)

    seconds = click.FloatRange(min=0, min_open=True)
    return _with(
        with_running,
        click.option("--workers", type=click.IntRange(min=1), help="Processes; by default all cores if it pays."),
        click.option("--memory", metavar="SIZE", type=size, help="For groups, in each process: 256M. Then to disk."),
        click.option("--deadline", metavar="SECONDS", type=seconds, help="Give up after so long."),
        click.option(
            "--on-error",
            type=click.Choice(["raise", "skip"]),
            default="raise",
            show_default=True,
            help="With a document that fails: end, or name and count it.",
        ),
        click.option(
            "--on-conflict",
            type=click.Choice(["winner", "skip", "raise"]),
            default="winner",
            show_default=True,
            help="With a document that has siblings.",
        ),
    )


@contextmanager
def traced() -> Iterator[None]:
    """Shows on stderr where a function of the user's has failed, before the error goes on its way."""
    from mapreduce.errors import MapError, ReduceError

    try:
        yield
    except MapError as error:
        click.echo(error.traceback, err=True, nl=False)
        error.__notes__ = []  # of the worker, which show the same and how the engine got there
        raise
    except ReduceError as error:
        if error.__cause__ is not None:
            click.echo("".join(traceback.format_exception(error.__cause__)), err=True, nl=False)
        raise


def read(reader: Callable[[str], T], text: str, option: str = "") -> T:
    """What the text of an argument or option means.

    Raises:
        click.UsageError: it cannot be read; the message shows where.
    """
    from mapreduce.errors import InvalidExpression

    try:
        return reader(text)
    except InvalidExpression as error:
        raise click.UsageError(f"{option}: {error}" if option else str(error)) from None


def _with(command: Callable[..., Any], *options: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
