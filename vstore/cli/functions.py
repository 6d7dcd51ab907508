"""Functions that the command line names: FILE.py:function, and resolvers by name."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import click

from vstore.errors import ConfigurationError
from vstore.resolvers import Resolver, by_name


def loaded(place: str, parameters: tuple[str, ...]) -> Any:
    """The function that FILE:FUNCTION names, which must accept these parameters by position.

    The file is imported under its own name from its own folder, as `python FILE`
    would find its neighbours; so worker processes can import it too.

    Raises:
        click.UsageError: there is no such file or function, it cannot be
            imported, or it takes other arguments.
    """
    file, _, name = place.rpartition(":")
    if not file or not name:
        raise click.UsageError(f"{place!r} is not FILE:FUNCTION, such as jobs.py:words.")
    path = Path(file).resolve()
    if not path.is_file() or path.suffix != ".py":
        raise click.UsageError(f"{file} is not a Python file (from {place!r}).")
    function = getattr(module_of(path), name, None)
    if not callable(function):
        raise click.UsageError(f"{file} has no function {name!r}.")
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        raise click.UsageError(
            f"{name}{inspect.signature(function)} in {file} cannot be called as {name}({', '.join(parameters)})."
        ) from None
    return function


def resolver_of(given: str) -> Resolver:
    """The resolver of that name (keep, winner, last_write, json3), or the function that FILE.py:function names."""
    if ":" in given:
        return loaded(given, ("conflict",))  # type: ignore[no-any-return]
    try:
        return by_name(given)
    except ConfigurationError as error:
        raise click.UsageError(f"{error} Or name a function of yours: FILE.py:function.") from None


def module_of(path: Path) -> Any:
    """The module of a Python file, imported under its own name. Raises click.UsageError if that cannot be done."""
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(path.stem)
    except (Exception, SystemExit) as error:  # a script that ends itself ends nothing here
        raise click.UsageError(f"{path} cannot be imported: {type(error).__name__}: {error}.") from error
    found = getattr(module, "__file__", None)
    if not found or Path(found).resolve() != path.resolve():
        raise click.UsageError(
            f"{path} cannot be imported as {path.stem!r}, since that name is taken by {found or 'a built-in module'}. "
            f"Rename the file."
        )
    return module
