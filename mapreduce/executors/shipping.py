"""What crosses the border between processes: functions once, values often.

Values, that is tasks and results, go by plain pickle, which is an order of
magnitude faster than dill and enough for data (measured: 22 against 171 ms for
100,000 groups).

Functions that a worker can import go by name. All others go by value: lambdas,
closures, and whatever the main module defines, because a worker never runs the
main module. They take along the globals that their code names, and no more.

dill does most of it. Functions and their cells are done here, for two reasons:
dill finds the globals by redirecting `sys.stdout`, which two threads cannot do
at once, and it never ends on functions that call each other.
"""

from __future__ import annotations

import dis
import io
import pickle
import sys
from collections.abc import Iterator
from functools import reduce
from types import CellType, CodeType, FunctionType
from typing import Any

import dill

from mapreduce.errors import TaskError


def packed(value: Any, what: str) -> bytes:
    """A task or a result as bytes.

    Raises:
        TaskError: it cannot be pickled; `what` says in the message what it is.
    """
    buffer = io.BytesIO()
    try:
        _ValuePickler(buffer, protocol=5).dump(value)
    except Exception as error:  # pickle raises whatever the value's own methods raise
        raise TaskError(
            f"{what} cannot be sent to another process: {error}. Use plain data or objects of importable classes, or "
            f"run with workers=1."
        ) from error
    return buffer.getvalue()


def unpacked(data: bytes, what: str) -> Any:
    """The value of `packed`.

    Raises:
        TaskError: it cannot be read in this process.
    """
    try:
        return pickle.loads(data)
    except Exception as error:
        raise TaskError(
            f"{what} was sent by another process and cannot be read in this one: {type(error).__name__}: {error}. Use "
            f"plain data or objects of importable classes, or run with workers=1."
        ) from error


def packed_function(work: Any) -> bytes:
    """A function, or an object full of functions, as bytes.

    Raises:
        TaskError: something that it refers to cannot be pickled.
    """
    buffer = io.BytesIO()
    try:
        _FunctionPickler(buffer, protocol=5).dump(work)
    except Exception as error:
        raise TaskError(
            f"the functions of the job cannot be sent to worker processes: {error}. Nothing was run. Open connections, "
            f"files and locks inside the function instead of referring to them, or run with workers=1."
        ) from error
    return buffer.getvalue()


def unpacked_function(data: bytes) -> Any:
    """The function of `packed_function`; for use in a worker, since it fills the worker's main module.

    Raises:
        TaskError: a module that it needs cannot be imported, or the like.
    """
    try:
        return dill.loads(data)
    except Exception as error:
        raise TaskError(
            f"the functions of the job cannot be read in a worker process: {type(error).__name__}: {error}. Modules "
            f"that they need must be importable there."
        ) from error


class _ValuePickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:  # called for classes and instances only, not for plain data
        if isinstance(value, type) and value.__module__ == "__main__":
            return _main_class, (value.__qualname__, packed_function(value))
        return NotImplemented


def _main_class(qualified_name: str, data: bytes) -> Any:
    # The main module's own class where there is one: always at home, so results have the user's own types again.
    main = sys.modules["__main__"]
    try:
        return reduce(getattr, qualified_name.split("."), main)
    except AttributeError:
        made = unpacked_function(data)
        setattr(main, qualified_name, made)
        return made


class _FunctionPickler(dill.Pickler):  # type: ignore[misc]  # dill is untyped
    def reducer_override(self, value: Any) -> Any:
        # Both are made empty first and filled afterwards, so that pickle knows them when they come round again inside
        # their own contents: a recursive function, or two that call each other.
        if type(value) is FunctionType and not _importable(value):
            wanted = _global_names(value.__code__)
            state = (
                {name: value.__globals__[name] for name in sorted(wanted) if name in value.__globals__},
                {"__defaults__": value.__defaults__, "__kwdefaults__": value.__kwdefaults__},
                value.__dict__,
            )
            origin = (value.__module__, value.__name__, value.__qualname__)
            return _function, (value.__code__, origin, value.__closure__), state, None, None, _fill_function
        if type(value) is CellType:
            try:
                return _cell, (), (value.cell_contents,), None, None, _fill_cell
            except ValueError:  # still empty
                return _cell, ()
        return NotImplemented


def _importable(function: FunctionType) -> bool:
    module = sys.modules.get(function.__module__ or "")
    if module is None or function.__module__ == "__main__":
        return False
    try:
        found: Any = reduce(getattr, function.__qualname__.split("."), module)
    except AttributeError:
        return False
    return found is function


def _global_names(code: CodeType) -> set[str]:
    # Not co_names, which has the attributes as well: `document.store` must not take a global `store` along.
    return {
        instruction.argval
        for part in _codes(code)
        for instruction in dis.get_instructions(part)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


_namespaces: dict[str, dict[str, Any]] = {}


def _namespace(module: str) -> dict[str, Any]:
    # One namespace per module of origin, so functions share their globals as they did at home. For the main module it
    # is the worker's own main module, where values that are instances of its classes find them by name.
    if module == "__main__":
        return vars(sys.modules["__main__"])
    return _namespaces.setdefault(module, {"__name__": module, "__builtins__": __builtins__})


def _function(code: CodeType, origin: tuple[str, str, str], closure: tuple[CellType, ...] | None) -> FunctionType:
    module, name, qualified_name = origin
    function = FunctionType(code, _namespace(module), name, None, closure)
    function.__module__ = module
    function.__qualname__ = qualified_name
    return function


def _fill_function(function: FunctionType, state: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]) -> None:
    named, defaults, attributes = state
    function.__globals__.update(named)
    for name, value in defaults.items():
        setattr(function, name, value)
    function.__dict__.update(attributes)


def _cell() -> CellType:
    return CellType()


def _fill_cell(cell: CellType, state: tuple[Any]) -> None:
    (cell.cell_contents,) = state
