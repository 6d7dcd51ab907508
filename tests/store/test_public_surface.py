"""What users may rely on: the names, their documentation, their types. A change here belongs in the changelog."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mapreduce
import replication
import vstore
from mapreduce.reducers import Folding, Reducer

ROOT = Path(__file__).parents[2]
PACKAGES = (vstore, mapreduce, replication)
NAMES = {
    "vstore": [
        "ABSENT",
        "DELETE",
        "KEEP",
        "Change",
        "Changes",
        "ClockTooLong",
        "CodecError",
        "Collection",
        "ConfigurationError",
        "Conflict",
        "Context",
        "Corrupt",
        "Document",
        "HistoryPruned",
        "InvalidDocument",
        "InvalidKey",
        "InvalidToken",
        "NotFound",
        "PartialWrite",
        "PreconditionFailed",
        "Resolver",
        "ResolverError",
        "SchemaMismatch",
        "Sibling",
        "Siblings",
        "Snapshot",
        "StaleMap",
        "Store",
        "StoreError",
        "Unavailable",
        "Unwitnessed",
        "open",
    ],
    "mapreduce": [
        "MISSING",
        "Collect",
        "Count",
        "Counters",
        "Dask",
        "DeadlineExceeded",
        "Distinct",
        "Doc",
        "Expression",
        "F",
        "First",
        "InvalidExpression",
        "Job",
        "JobError",
        "Last",
        "MapError",
        "Max",
        "Mean",
        "Min",
        "NotOneRow",
        "Plan",
        "Progress",
        "Quantiles",
        "Query",
        "Record",
        "ReduceError",
        "Result",
        "Row",
        "Rows",
        "Skipped",
        "StartError",
        "Stats",
        "Sum",
        "Summary",
        "TaskError",
        "TopK",
        "View",
        "ViewError",
        "ViewStatus",
        "WorkerLost",
        "arrow_batches",
        "close_workers",
        "declare_view",
        "drop_view",
        "keep_fresh",
        "query",
        "run",
        "to_arrow",
        "to_pandas",
        "to_polars",
        "view",
        "views",
    ],
    "replication": ["Filter", "LeaseHeld", "PartialSync", "Replicator", "Report", "Status", "sync"],
}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_public_names_are_these(package: ModuleType) -> None:
    """Constants, then classes, then functions, each in alphabetical order; every one of them is there."""
    assert package.__all__ == NAMES[package.__name__]
    assert sorted(package.__all__, key=rank) == package.__all__
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def rank(name: str) -> tuple[int, str]:
    """The order in which the linter wants the names; one letter is no constant to it."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


def public(package: ModuleType) -> Iterator[tuple[str, Any]]:
    """Every public class and function, and what a class of ours has: methods, properties, special methods with code."""
    for name in package.__all__:
        found = getattr(package, name)
        if not (inspect.isclass(found) or inspect.isfunction(found)):
            continue
        yield name, found
        for owner in inspect.getmro(found) if inspect.isclass(found) else ():
            if owner.__module__.split(".")[0] not in NAMES:
                continue
            for member, value in vars(owner).items():
                code = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
                written = inspect.isfunction(code) and code.__code__.co_filename.startswith(str(ROOT))
                if written and (not member.startswith("_") or member.endswith("__")):
                    yield f"{owner.__qualname__}.{member}", code


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_everything_public_is_documented(package: ModuleType) -> None:
    """By a promise of its own, or by the protocol that it implements. Of special methods Python says what they do."""
    promised = {*vars(Reducer), *vars(Folding)} if package is mapreduce else set()
    without = [
        name
        for name, found in public(package)
        if not (found.__doc__ or "").strip() and not name.endswith("__") and name.split(".")[-1] not in promised
    ]

    assert without == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_everything_public_says_its_types(package: ModuleType) -> None:
    """Every parameter and every result, special methods too."""
    untyped = []
    for name, found in public(package):
        if inspect.isclass(found):
            continue
        signature = inspect.signature(found)
        own = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        untyped += [f"{name}({p.name})" for p in own if p.annotation is p.empty]
        untyped += [f"{name} -> ?"] * (signature.return_annotation is signature.empty)

    assert len(list(public(package))) > 3  # so that this looks at something
    assert untyped == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_type_checkers_are_told_that_there_are_types(package: ModuleType) -> None:
    """The marker of PEP 561 lies in each package."""
    assert files(package).joinpath("py.typed").is_file()


def test_errors_are_one_tree_and_the_builtin_ones_that_they_stand_for() -> None:
    """`except KeyError` and `except ValueError` catch what a dict's user would expect them to."""
    errors = [value for name in vstore.__all__ if inspect.isclass(value := getattr(vstore, name))]
    errors = [error for error in errors if issubclass(error, Exception)]

    assert len(errors) == 18
    assert all(issubclass(error, vstore.StoreError) for error in errors)
    assert issubclass(vstore.NotFound, KeyError)
    assert issubclass(vstore.PreconditionFailed, vstore.Conflict)
    assert [e.__name__ for e in errors if issubclass(e, ValueError)] == [
        "InvalidDocument",
        "InvalidKey",
        "InvalidToken",
    ]


def test_the_program_of_a_user_passes_a_strict_type_checker() -> None:
    """mypy --strict over tests/typing/usage.py, as a user with these packages installed would run it."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "tests/typing/usage.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.splitlines()[-1:] == ["Success: no issues found in 1 source file"], done.stdout + done.stderr
