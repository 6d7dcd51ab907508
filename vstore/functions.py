"""When two functions are the same: so that a view is built anew, or a filter asked again, when it has changed.

A function is its instructions with their constants, its defaults, the values that
it closes over and the globals that its code names, and so on through the functions
among those. Its name, its docstring, files and line numbers do not count. Of a
class, its own functions and attributes; of any other object, its class and what
pickle would keep of it; of a module, its name, since what is installed is not
looked into. Sets are sorted, so that the hash seed of a process does not show.

Another version of Python may compile the same text differently, which is a change
here. Whoever wants to decide himself gives a `version=`.

Pure: no input or output.
"""

from __future__ import annotations

import copyreg
import dis
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from hashlib import blake2b
from operator import itemgetter
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from vstore.errors import ConfigurationError

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))


def fingerprint(*parts: Any) -> str:
    """32 characters: equal for equal values and for functions that do the same by the same text.

    Raises:
        ConfigurationError: a part refers to something that has no lasting form, such as a lock or a connection.
    """
    own = {_top(part.__module__) for part in parts if isinstance(part, FunctionType)}
    return _fingerprint(parts, own)


def _fingerprint(value: Any, own: Set[str]) -> str:
    hashed = blake2b(digest_size=16)
    _Walk(hashed.update, own).value(value)
    return hashed.hexdigest()


class _Walk:
    """Everything that is reached from a value, each object once."""

    def __init__(self, told: Callable[[bytes], None], own: Set[str]) -> None:
        self._told = told
        self._own = own
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # alive, so that no id is given out twice

    def value(self, value: Any) -> None:
        kind = type(value)
        if kind in _PLAIN:
            self._say(kind.__name__, repr(value))
            return
        if id(value) in self._seen:  # a recursive function, or two that call each other
            self._say("seen", str(self._seen[id(value)]))
            return
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        if isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, CodeType):
            self._code(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, ModuleType):
            self._say("module", value.__name__)
        elif isinstance(value, MethodType):
            self._say("method", "")
            self.value(value.__func__)
            self.value(value.__self__)
        elif isinstance(value, BuiltinFunctionType):
            self._say("builtin", f"{value.__module__}.{value.__qualname__}")
        elif kind in (tuple, list):
            self._say(kind.__name__, str(len(value)))
            for each in value:
                self.value(each)
        elif kind in (set, frozenset):
            self._say("set", str(len(value)))
            for text in sorted(_fingerprint(each, self._own) for each in value):
                self._say("of", text)
        elif kind is dict:
            self._say("dict", str(len(value)))
            members = [(_fingerprint(key, self._own), each) for key, each in value.items()]
            for text, each in sorted(members, key=itemgetter(0)):
                self._say("key", text)
                self.value(each)
        elif isinstance(value, PurePath):
            self._say("path", str(value))
        else:
            self._object(value)

    def _function(self, function: FunctionType) -> None:
        if self._installed(function.__module__):
            self._say("installed", f"{function.__module__}.{function.__qualname__}")
            return
        self._say("function", "")
        self._code(function.__code__)
        self.value(function.__defaults__)
        self.value(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                self.value(cell.cell_contents)
            except ValueError:  # still empty
                self._say("empty", "")
        for name in sorted(_global_names(function.__code__)):
            if name in function.__globals__:
                self._say("global", name)
                self.value(function.__globals__[name])

    def _code(self, code: CodeType) -> None:
        self._say("code", f"{code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_flags}")
        # By instructions and what they refer to: a docstring moves the numbers of all constants, and is none of them.
        for instruction in dis.get_instructions(code):
            self._say("do", instruction.opname)
            if instruction.opcode in dis.hasconst:
                self.value(instruction.argval)
            elif instruction.arg is not None:
                self._say("with", str(instruction.argval))
        self._told(code.co_exceptiontable)

    def _class(self, kind: type) -> None:
        self._say("class", f"{kind.__module__}.{kind.__qualname__}")
        if self._installed(kind.__module__):
            return
        for name, member in sorted(vars(kind).items()):
            found = inspect.unwrap(getattr(member, "fget", None) or getattr(member, "__func__", None) or member)
            attribute = not name.startswith("__") and type(found) in (*_PLAIN, tuple, list, dict, set, frozenset)
            if attribute or isinstance(found, FunctionType):
                self._say("member", name)
                self.value(found)

    def _object(self, value: Any) -> None:
        try:
            registered = copyreg.dispatch_table.get(type(value))
            reduced = registered(value) if registered is not None else value.__reduce_ex__(4)
        except Exception as error:
            raise ConfigurationError(
                f"whether a function has changed cannot be told: it refers to {value!r} of type "
                f"{type(value).__name__}, which has no lasting form ({error}). Nothing was done. Give it a "
                f"version=, or make that object inside the function."
            ) from error
        self._say("object", f"{type(value).__module__}.{type(value).__qualname__}")
        if isinstance(reduced, str):
            self._say("called", reduced)
            return
        _make, arguments, *state = reduced
        self.value(type(value))
        self.value(tuple(each for each in arguments if each is not type(value)))
        for each in state:
            self.value(list(each) if isinstance(each, Iterator) else dict(each) if isinstance(each, Mapping) else each)

    def _installed(self, module: str | None) -> bool:
        """Whether a module comes from Python or an installed package, and not from the program of the view."""
        top = _top(module)
        if top in self._own:
            return False
        file = getattr(sys.modules.get(module or ""), "__file__", None) or ""
        known = top in sys.stdlib_module_names or top in ("mapreduce", "replication", "vstore")
        return known or "site-packages" in file

    def _say(self, what: str, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self._told(f"{what}:{len(data)}:".encode())
        self._told(data)


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _global_names(code: CodeType) -> set[str]:
    found = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _global_names(constant)
    return found
