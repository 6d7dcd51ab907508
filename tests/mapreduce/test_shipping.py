"""Functions and what they refer to arrive as they were: fast for plain data, and one object stays one."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dill
import pytest

from mapreduce.errors import TaskError
from mapreduce.executors.shipping import Home, living_in, packed, packed_function, unpacked, unpacked_function


def sent(function: Any) -> Any:
    """As a worker has it."""
    with living_in(Home()):
        return unpacked_function(packed_function(function))


def test_plain_data_is_left_to_c_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of its values passes through dill, which is in Python and twenty times slower."""
    passed: list[Any] = []
    save = dill.Pickler.save

    def noted(self: Any, value: Any, **options: Any) -> None:
        passed.append(type(value))
        save(self, value, **options)

    monkeypatch.setattr(dill.Pickler, "save", noted)
    packages = {f"package-{n}": [n, (f"other-{n}", Decimal(n)), {n}, datetime.now(UTC)] for n in range(5_000)}
    steps = tuple(range(5_000))

    again = sent(lambda key: (packages[key], steps[-1]))

    assert again("package-7") == (packages["package-7"], 4_999)
    assert len(passed) < 300


def test_what_is_one_object_stays_one() -> None:
    """A list in two closures, inside another list, and beside a function; a list inside itself."""
    shared: list[int] = [1]
    plain = {"in": shared}
    mixed = {"in": shared, "function": lambda: shared}
    ring: list[Any] = []
    ring.append(ring)
    queue = deque([1])
    queues = [queue]

    def grow() -> None:
        shared.append(2)

    def look() -> tuple[Any, ...]:
        return shared, plain["in"], mixed["in"], mixed["function"](), ring[0] is ring, queues[0] is queue  # type: ignore[operator]

    again_grow, again_look = sent((grow, look))
    again_grow()

    assert again_look() == ([1, 2], [1, 2], [1, 2], [1, 2], True, True)
    assert shared == [1]


@pytest.mark.parametrize(
    "data",
    [
        {"function": len, "lambda": lambda n: n + 1},
        [[[lambda n: n + 1]]],
        {"class": type("Local", (), {"n": 1})},
        (*range(2_000), lambda n: n + 1),
    ],
    ids=["dict", "nested", "class", "tuple"],
)
def test_data_with_functions_or_classes_arrives_too(data: Any) -> None:
    again = sent(lambda: data)()

    assert type(again) is type(data)
    assert len(again) == len(data)


def test_a_function_in_data_is_the_function_itself() -> None:
    """Not a second copy of it."""

    def one() -> int:
        return 1

    table = {"one": one}

    again_one, again_table = sent((one, lambda: table))

    assert again_table()["one"] is again_one


def test_modules_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are not installed, and hold what cannot be sent."""
    (tmp_path / "module_of_the_user.py").write_text("HELD = (n for n in [1])\nFACTOR = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import module_of_the_user  # type: ignore[import-not-found]

    again = sent(lambda n: (n * module_of_the_user.FACTOR, module_of_the_user))

    assert again(2) == (6, sys.modules["module_of_the_user"])


@pytest.mark.parametrize(
    ("error", "attribute"), [(SystemExit(3), "code"), (FileNotFoundError(2, "no such file", "x.db"), "filename")]
)
def test_exceptions_keep_what_they_hold_when_dask_is_there(error: BaseException, attribute: str) -> None:
    """`distributed` has another way to pickle exceptions, for all of a program, which loses it."""
    import distributed  # noqa: F401

    again = unpacked(packed(error, "an error"), "an error")

    assert type(again) is type(error)
    assert getattr(again, attribute) == getattr(error, attribute)


def test_functions_that_cannot_be_sent_say_so() -> None:
    def sender(held: Any) -> Callable[[], Any]:
        return lambda: held

    with pytest.raises(TaskError, match="Nothing was run"):
        packed_function(sender([1, (n for n in [1])]))
