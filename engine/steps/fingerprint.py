"""What a function is, in a few digits: the same again for the same code, other ones where its code or its data changed.

Rules of this file:
1. Where a function stands (its file, its line, the notebook's cell) does not count; what it does, closes over and holds does.
2. Globals that it reads count where they are plain data: None, booleans, numbers, text and bytes, and lists, tuples, sets and
   dicts of these, of at most ``PLAIN_MAX`` things. Those that it assigns itself are its state, and do not. Others (functions,
   classes, objects, large tables) are not looked into: nobody could say where that ends.
3. Everything is looked into once: data that holds itself comes to an end.
"""

import dis
import functools
from collections.abc import Iterator
from hashlib import blake2b
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final

DIGITS: Final = 12
PLAIN_MAX: Final = 1_000
_LEVELS_MAX: Final = 50  # of what is held by what is held; deeper things count by nothing


def fingerprint(function: Any) -> str:
    """``DIGITS`` hexadecimal digits. Never raises: what cannot be looked into counts by its type alone."""
    look = _Look()
    try:
        look.at(function, 0)
    except Exception:  # an object may raise anything when it is looked at; what was seen until then counts
        look.at(type(function), 0)
    return look.digest.hexdigest()[:DIGITS]


class _Look:
    """One look at a function and what belongs to it."""

    def __init__(self) -> None:
        self.digest = blake2b()
        self._seen: dict[int, Any] = {}  # kept, so that no other thing gets the number

    def _note(self, *parts: object) -> None:
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode("utf-8", "replace")
            self.digest.update(b"%d:" % len(data))
            self.digest.update(data)

    def at(self, value: Any, level: int) -> None:
        """Take a thing and what it holds into account."""
        if value is None or isinstance(value, bool | int | float | complex | str):
            self._note(type(value).__name__, repr(value))
        elif isinstance(value, bytes | bytearray):
            self._note("bytes", bytes(value))
        elif isinstance(value, type | ModuleType | BuiltinFunctionType):
            self._note(getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__))
        elif id(value) in self._seen or level > _LEVELS_MAX:
            self._note("again")
        else:
            self._seen[id(value)] = value
            self._inside(value, level + 1)

    def _inside(self, value: Any, level: int) -> None:
        if isinstance(value, FunctionType):
            self._function(value, level)
        elif isinstance(value, MethodType):
            self._all("method", (value.__func__, value.__self__), level)
        elif isinstance(value, functools.partial):
            self._all("partial", (value.func, value.args, value.keywords), level)
        elif isinstance(value, tuple | list):
            self._all(type(value).__name__, value, level)
        elif isinstance(value, dict):
            self._all("dict", [part for item in list(value.items()) for part in item], level)
        elif isinstance(value, set | frozenset):
            self._note("set", *sorted(self._apart(one, level) for one in value))  # in an order of our own
        else:
            self._object(value, level)

    def _apart(self, value: Any, level: int) -> str:
        look = _Look()
        look._seen = self._seen
        look.at(value, level)
        return look.digest.hexdigest()

    def _all(self, kind: str, values: Any, level: int) -> None:
        self._note(kind, len(values))
        for value in values:
            self.at(value, level)

    def _function(self, function: FunctionType, level: int) -> None:
        self._code(function.__code__, level)
        for cell in function.__closure__ or ():
            try:
                self.at(cell.cell_contents, level)
            except ValueError:  # not filled yet
                self._note("empty")
        self.at(function.__defaults__, level)
        self.at(function.__kwdefaults__, level)

        assigned = set(_globals_of(function.__code__, "STORE_GLOBAL", "DELETE_GLOBAL"))
        for name in sorted(set(_globals_of(function.__code__, "LOAD_GLOBAL")) - assigned):
            value = function.__globals__.get(name, function)  # a builtin's name, or nothing's: no plain data
            if not name.startswith("__") and _things(value) <= PLAIN_MAX:
                self._note("global", name)
                self._note(self._apart(value, level))

    def _code(self, code: CodeType, level: int) -> None:
        self._note("code", code.co_code, *code.co_names, *code.co_varnames)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._code(constant, level)
            else:
                self.at(constant, level)

    def _object(self, value: Any, level: int) -> None:
        """An instance: its class, what that does when it is called, and what it is made of."""
        kind = type(value)
        self._note("object", kind.__module__, kind.__qualname__)
        called = kind.__dict__.get("__call__")
        if isinstance(called, FunctionType):
            self.at(called, level)
        try:
            made_of = value.__reduce_ex__(2)  # what it would be copied by
        except Exception:
            return
        if isinstance(made_of, tuple):
            for part in made_of[1:3]:  # arguments and state
                self.at(part, level)
            for more in made_of[3:5]:  # items of lists and dicts
                self.at(None if more is None else list(more), level)


def _globals_of(code: CodeType, *operations: str) -> Iterator[str]:
    """The globals that code has to do with in one of these ways, its inner functions' among them."""
    yield from (one.argval for one in dis.get_instructions(code) if one.opname in operations)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_of(constant, *operations)


def _things(value: Any, left: int = PLAIN_MAX, level: int = 0) -> int:
    """How many things plain data is made of; more than ``left`` where it is too many, or not plain."""
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return 1
    if type(value) not in (list, tuple, set, frozenset, dict) or left < len(value) or level > _LEVELS_MAX:
        return left + 1
    count = 1
    for one in [*value.items()] if type(value) is dict else [*value]:
        count += _things(one, left - count, level + 1)
        if count > left:
            break
    return count
