"""What a function is, in a few digits: the same again for the same code, other ones where its code or its data changed.

Rules of this file:
1. Where a function stands (its file, its line, the notebook's cell) does not count; what it does and closes over does.
2. Globals that it only refers to are not looked into: nobody could say where that ends.
"""

import functools
from hashlib import blake2b
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

DIGITS: Final = 12
_LEVELS_MAX: Final = 20  # of functions within functions


def fingerprint(function: Any) -> str:
    """``DIGITS`` hexadecimal digits. Never raises: what cannot be looked into counts by its type alone."""
    parts: list[str] = []
    _look(function, parts, 0)
    return blake2b("\x00".join(parts).encode("utf-8", "replace")).hexdigest()[:DIGITS]


def _look(value: Any, parts: list[str], level: int) -> None:
    if level > _LEVELS_MAX:
        return
    if isinstance(value, FunctionType):
        _look_at_code(value.__code__, parts, level)
        for cell in value.__closure__ or ():
            try:
                _look(cell.cell_contents, parts, level + 1)
            except ValueError:  # not filled yet: a function that refers to itself
                parts.append("empty")
        _look((value.__defaults__, value.__kwdefaults__), parts, level + 1)
    elif isinstance(value, MethodType):
        _look(value.__func__, parts, level + 1)
        _look(value.__self__, parts, level + 1)
    elif isinstance(value, functools.partial):
        _look((value.func, value.args, value.keywords), parts, level + 1)
    elif isinstance(value, tuple | list):
        parts.append(f"{type(value).__name__} {len(value)}")
        for item in value:
            _look(item, parts, level + 1)
    elif isinstance(value, dict):
        parts.append(f"dict {len(value)}")
        for name, item in value.items():
            parts.append(str(name))
            _look(item, parts, level + 1)
    elif value is None or isinstance(value, str | bytes | int | float | complex):
        parts.append(repr(value))
    else:
        _look_at_object(value, parts, level)


def _look_at_code(code: CodeType, parts: list[str], level: int) -> None:
    parts += [code.co_code.hex(), *code.co_names, *code.co_varnames]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _look_at_code(constant, parts, level + 1)
        elif isinstance(constant, frozenset):  # its order is not the same in every process
            parts += sorted(map(repr, constant))
        else:
            parts.append(repr(constant))


def _look_at_object(value: Any, parts: list[str], level: int) -> None:
    """An instance: its class's call, and what it holds."""
    kind = value if isinstance(value, type) else type(value)
    parts.append(f"{kind.__module__}.{kind.__qualname__} {getattr(value, '__qualname__', '')}")
    called = kind.__dict__.get("__call__")
    if isinstance(called, FunctionType):
        _look(called, parts, level + 1)
    held = getattr(value, "__dict__", None)
    if type(held) is dict:
        _look(held, parts, level + 1)
