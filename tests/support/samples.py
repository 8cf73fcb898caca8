"""One message of every class that we send, its fields made from their types: a class that is added is tried as well.

Rules of this file:
1. No field is left at its default, so that there is something to mangle in each; what may be absent is sent both ways.
2. A type that is not known here is an error: what cannot be made would be left untried without a word.
"""

from collections.abc import Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from engine.wire.messages import TAGS, Message

_PLAIN: dict[Any, Any] = {str: "a", int: 1, float: 1.5, bool: True, bytes: b"x", NoneType: None}


def samples() -> list[Message]:
    """At least one of every class in TAGS."""
    return [message for cls in TAGS.values() for message in _values(cls)]


def _values(kind: Any) -> list[Any]:
    """Values of a type, one of each of its shapes."""
    if kind in _PLAIN:
        return [_PLAIN[kind]]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return [value for one in arguments for value in _values(one)]
    if origin in (list, Sequence):
        return [[value] for value in _values(arguments[0])]
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return [(value,) for value in _values(arguments[0])]
        return [tuple(_values(one)[0] for one in arguments)]
    if origin is dict:
        return [{_values(arguments[0])[0]: value} for value in _values(arguments[1])]
    shapes = {name: _values(kind_of) for name, kind_of in _fields(kind).items()}
    first = {name: values[0] for name, values in shapes.items()}
    others = [{**first, name: value} for name, values in shapes.items() for value in values[1:]]
    return [kind(**values) for values in (first, *others)]


def _fields(kind: Any) -> dict[str, Any]:
    """The fields of a Struct, a NamedTuple or a dataclass, and their types."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        names = [field.name for field in msgspec.structs.fields(kind)]
    elif isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names = list(kind._fields)
    elif is_dataclass(kind):
        names = [field.name for field in dataclass_fields(kind)]
    else:
        raise TypeError(f"no sample is known for {kind!r}")
    hints = get_type_hints(kind)
    return {name: hints[name] for name in names}
