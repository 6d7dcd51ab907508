"""What crosses the border between processes: functions once, values often.

Values, that is tasks and results, go by plain pickle, which is an order of
magnitude faster than dill and enough for data (measured: 22 against 171 ms for
100,000 groups).

Functions that a worker can import go by name. All others go by value: lambdas,
closures, and whatever the main module defines, because a worker never runs the
main module. They take along the globals that their code names, and no more.

What they find around them is a *home*: one namespace per module they come from,
made for one job and gone with it. So jobs that follow each other in a process,
or run in it at the same time, do not see each other's globals.

dill does most of it. Functions and their cells are done here, for two reasons:
dill finds the globals by redirecting `sys.stdout`, which two threads cannot do
at once, and it never ends on functions that call each other. Plain data that a
function refers to goes by C pickle (measured: 0.1 against 2.1 s for a dictionary
of 64,000 packages), all of it in one stream, so that what was one list for two
functions is one list again.
"""

from __future__ import annotations

import dis
import io
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import reduce
from importlib import import_module
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any
from uuid import UUID

import dill

from mapreduce.errors import TaskError

_MUTABLE = {dict, list, set, bytearray}  # all of them, so that none is two afterwards
_FROZEN = {tuple, frozenset}
WORTHWHILE = 1_000  # elements of those that may as well be two
_IMMUTABLE: set[type] = {complex, date, datetime, time, timedelta, timezone, Decimal, UUID}


class Home:
    """Where the functions of one job live in this process, and the classes of its main module.

    `main` is the namespace of what comes from a main module. In a process that
    works for one job at a time it is that of its own main module, so that plain
    pickle finds the job's classes as well.
    """

    def __init__(self, main: dict[str, Any] | None = None, *, guest: bool = False) -> None:
        self._namespaces: dict[str, dict[str, Any]] = {"__main__": _blank("__main__") if main is None else main}
        self._classes: dict[str, type] = {}
        self._guest = guest

    @classmethod
    def of_program(cls) -> Home:
        """For what comes back to the program that sent it: its own main module, of which nothing is overwritten."""
        return cls(vars(sys.modules["__main__"]), guest=True)

    def namespace(self, module: str) -> dict[str, Any]:
        """The globals of functions of a module: one for all of them, as at home."""
        return self._namespaces.setdefault(module, _blank(module))

    def fill(self, function: FunctionType, named: dict[str, Any]) -> None:
        """Give the function the globals that it names."""
        own = function.__globals__
        for name, value in named.items():
            if not self._guest or name not in own:
                own[name] = value

    def main_class(self, qualified_name: str, data: bytes) -> type:
        """The main module's own class where there is one: always at home, so results have the user's own types."""
        if qualified_name in self._classes:
            return self._classes[qualified_name]
        first, *others = qualified_name.split(".")
        try:
            found: Any = reduce(getattr, others, self._namespaces["__main__"][first])
        except (KeyError, AttributeError):
            found = unpacked_function(data)
            if not self._guest and not others:
                self._namespaces["__main__"][first] = found
        self._classes[qualified_name] = found
        return found  # type: ignore[no-any-return]


_home: ContextVar[Home | None] = ContextVar("home", default=None)


@contextmanager
def living_in(home: Home) -> Iterator[None]:
    """What this thread unpacks inside, and what it reads with `unpacked`, finds itself in that home."""
    token = _home.set(home)
    try:
        yield
    finally:
        _home.reset(token)


def _blank(module: str) -> dict[str, Any]:
    return {"__name__": module, "__builtins__": __builtins__}


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
        if _home.get():
            return pickle.loads(data)
        with living_in(Home.of_program()):
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
    pickler = _FunctionPickler(buffer, protocol=5)
    try:
        pickler.dump(work)
        plain = pickle.dumps(pickler.plain, protocol=5)
        return pickle.dumps((plain, buffer.getvalue()), protocol=5)
    except Exception as error:
        raise TaskError(
            f"the functions of the job cannot be sent to worker processes: {error}. Nothing was run. Open connections, "
            f"files and locks inside the function instead of referring to them, or run with workers=1."
        ) from error


def unpacked_function(data: bytes) -> Any:
    """The function of `packed_function`, in the home of the moment.

    Raises:
        TaskError: a module that it needs cannot be imported, or the like.
    """
    try:
        if _home.get():
            return _read_function(data)
        with living_in(Home.of_program()):
            return _read_function(data)
    except Exception as error:
        raise TaskError(
            f"the functions of the job cannot be read in a worker process: {type(error).__name__}: {error}. Modules "
            f"that they need must be importable there."
        ) from error


class _ValuePickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:  # called for classes and instances only, not for plain data
        if isinstance(value, type) and value.__module__ == "__main__":
            return _main_class, (value.__qualname__, packed_function(value))
        if isinstance(value, BaseException):
            # In its own way. Importing `distributed` installs another for all of a program, which leaves out __init__.
            return value.__reduce_ex__(5)
        return NotImplemented


def _main_class(qualified_name: str, data: bytes) -> type:
    return _at_home().main_class(qualified_name, data)


def _read_function(data: bytes) -> Any:
    plain, function = pickle.loads(data)
    return _FunctionUnpickler(io.BytesIO(function), pickle.loads(plain)).load()


class _FunctionUnpickler(dill.Unpickler):  # type: ignore[misc]  # dill is untyped
    def __init__(self, file: io.BytesIO, plain: list[Any]) -> None:
        super().__init__(file)
        self._plain = plain

    def persistent_load(self, number: int) -> Any:
        return self._plain[number]


class _FunctionPickler(dill.Pickler):  # type: ignore[misc]  # dill is untyped
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.plain: list[Any] = []  # what is left to C pickle, in one piece
        self._numbers: dict[int, int] = {}  # of these values, by id

    def persistent_id(self, value: Any) -> int | None:
        number = self._numbers.get(id(value))
        if number is None and _is_plain(value):
            number = self._numbers[id(value)] = len(self.plain)
            self.plain.append(value)
        return number

    def reducer_override(self, value: Any) -> Any:
        # By name, also those that are not installed, whose contents dill would send.
        if isinstance(value, ModuleType) and value.__name__ != "__main__":
            return import_module, (value.__name__,)
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


class _PlainPickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:  # called for what is no plain data by its type
        if type(value) in _IMMUTABLE or (isinstance(value, type) and value in _IMMUTABLE):
            return NotImplemented
        raise _NotPlainError


class _NotPlainError(Exception):
    """The data holds a function, a class, or an object that may hold some or be referred to from elsewhere."""


class _Nowhere(io.RawIOBase):
    def write(self, data: Any) -> int:
        return len(data)


def _is_plain(value: Any) -> bool:
    if type(value) not in _MUTABLE and not (type(value) in _FROZEN and len(value) >= WORTHWHILE):
        return False
    try:
        _PlainPickler(_Nowhere(), protocol=5).dump(value)
    except Exception:  # dill then says what is wrong, if it cannot do it either
        return False
    return True


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


def _at_home() -> Home:
    home = _home.get()
    assert home is not None, "nothing is unpacked but in a home"
    return home


def _function(code: CodeType, origin: tuple[str, str, str], closure: tuple[CellType, ...] | None) -> FunctionType:
    module, name, qualified_name = origin
    function = FunctionType(code, _at_home().namespace(module), name, None, closure)
    function.__module__ = module
    function.__qualname__ = qualified_name
    return function


def _fill_function(function: FunctionType, state: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]) -> None:
    named, defaults, attributes = state
    _at_home().fill(function, named)
    for name, value in defaults.items():
        setattr(function, name, value)
    function.__dict__.update(attributes)


def _cell() -> CellType:
    return CellType()


def _fill_cell(cell: CellType, state: tuple[Any]) -> None:
    (cell.cell_contents,) = state
