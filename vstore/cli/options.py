"""What commands share: which store, which collection, which moment, and values as they are typed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vstore.batch import ABSENT, Match
from vstore.canonical import generation, parsed
from vstore.collection import Collection
from vstore.document import Context
from vstore.errors import ConfigurationError, InvalidToken, NotFound
from vstore.hlc import moment_us
from vstore.store import Store

DEFAULT_URL = "sqlite:///vstore.db"

_REV = re.compile(r"\d+-[0-9a-f]{32}")

Command = TypeVar("Command", bound=Callable[..., Any])


def store_option(command: Command) -> Command:
    """`--store URL`, as the parameter `urls`: for `opened`."""
    return click.option(
        "--store", "urls", multiple=True, metavar="URL", help="Store; repeat for its shards. [$VSTORE_STORE]"
    )(command)


def json_option(command: Command) -> Command:
    """`--json`, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")(command)


def lines_option(command: Command) -> Command:
    """`--json` where JSON lines are printed in any case, so that it can be given to every command that prints data."""
    return click.option("--json", is_flag=True, expose_value=False, help="Print JSON lines, as it does anyway.")(
        command
    )


def urls_or_default(urls: tuple[str, ...]) -> tuple[str, ...]:
    """The URLs given, else those in $VSTORE_STORE, else that of `vstore.db` in this folder.

    Raises:
        ConfigurationError: one is of a temporary store, or they are separated
            by commas.
    """
    given = urls or tuple(os.environ.get("VSTORE_STORE", "").split()) or (DEFAULT_URL,)
    for url in given:
        if url in ("sqlite://", "sqlite:///:memory:"):
            raise ConfigurationError(
                f"{url} is a temporary store, which would be gone when the command ends. Nothing was done. Name a "
                "file: sqlite:///app.db."
            )
        if url.count("://") > 1 and "," in url:
            raise ConfigurationError(
                f"{url!r} is several URLs. Nothing was done. Separate them by blanks in $VSTORE_STORE, or give --store "
                f"once for each."
            )
    return given


def opened(urls: tuple[str, ...], *, create: bool = False, **settings: Any) -> Store:
    """The store that a command is about.

    Raises:
        NotFound: there is none, and the command would not make one.
    """
    return Store(*urls_or_default(urls), create=create, **settings)


def chosen(store: Store, name: str | None) -> Collection:
    """The collection of that name, or the store's only one.

    Raises:
        NotFound: there is none of that name, or none at all.
    """
    names = store.collections()
    if name is None and len(names) > 1:
        raise click.UsageError(f"the store has {len(names)} collections, name one of them: {', '.join(names)}.")
    if name is None and not names:
        raise NotFound("the store has no collections yet. `vstore put` and `vstore import` make them.")
    if name is not None and name not in names:
        raise NotFound(f"there is no collection {name!r}. The store has: {', '.join(names) or 'none'}.")
    return store[name or names[0]]


def moment(given: str) -> int:
    """A moment as it is typed, in microseconds since 1970 UTC. The `type` of an argument."""
    try:
        # A stamp has 16 digits these days; 2020 and 20261101 are dates that people type.
        return int(given) if given.isdecimal() and len(given) > 13 else moment_us(given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def value_of(given: str) -> Any:
    """A value as it is given: JSON text, `@FILE` that holds it, or `-` for stdin.

    Raises:
        InvalidDocument: it is not JSON that can be kept exactly, or has an
            object with a name twice.
        ConfigurationError: the file cannot be read.
    """
    if given == "-":
        text = sys.stdin.buffer.read()
    elif not given.startswith("@"):
        text = given.encode("utf-8", "surrogateescape")
    else:
        try:
            text = Path(given[1:]).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{given[1:]} cannot be read: {error.strerror}. Nothing was written.") from error
    value = parsed(text)
    from vstore.ndjson.lines import once  # which reading needs not

    once(text)
    return value


def match_of(given: str | None) -> Match | None:
    """A condition as it is typed: `absent`, a rev, or a context."""
    if given is None:
        return None
    if given == "absent":
        return ABSENT
    if _REV.fullmatch(given):
        return given
    try:
        return Context.parse(given)
    except InvalidToken as error:
        raise InvalidToken(
            f"--match {given[:60]!r} is neither a rev nor a context. Nothing was written. `vstore get COLLECTION KEY "
            f"--meta` prints both, whole."
        ) from error


def rev_of(collection: Collection, key: str, given: str) -> str:
    """A rev as it is typed: whole, by a beginning that no other has, or by its generation alone.

    Raises:
        NotFound: the document has no such version.
    """
    if _REV.fullmatch(given):
        return given
    revs = [version.rev for version in collection.history(key)]
    if given.isdecimal():
        found = [rev for rev in revs if generation(rev) == int(given)]
    else:
        found = [rev for rev in revs if rev.startswith(given)]
    if len(found) > 1:
        raise click.UsageError(f"{given!r} is the beginning of {len(found)} revs of {key!r}: {', '.join(found)}.")
    if not found:
        raise NotFound(f"{key!r} in {collection.name!r} has no version {given!r} here. `vstore history` lists them.")
    return found[0]
