"""Answers as columns of one type: what libraries with typed columns would lose, guess or refuse, is settled here.

Rules of this file:
1. Nothing is lost: values that have no type in common become their JSON texts, all of them.
2. Numbers stay the numbers they are: whole ones become fractions only where a fraction can say them.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from engine.formats.plain import encode_plain

EXACT_MAX = 2**53  # whole numbers up to here are floats without loss
KEYS_MAX = 256  # of objects with different keys; with more, their keys are data and no columns


class Mixed(Exception):
    """Values that have no type in common."""


def column(make: Callable[[list[Any]], Any], values: Sequence[Any]) -> Any:
    """The column that ``make`` makes of the values evened or, where it cannot or they cannot be, of their texts."""
    try:
        return make(evened(values))
    except Exception:  # a library's own errors have no base in common
        return make(texts_of(values))


def evened(values: Sequence[Any]) -> list[Any]:
    """The values with one type at each place: objects with the same keys, numbers either all whole or all not.

    A key that an object does not have becomes null. Raises Mixed where this cannot be done without loss.
    """
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {int, float}:
        return _fractions(values)
    if len(kinds) > 1:
        raise Mixed
    if kinds == {dict}:
        return _objects(values)
    if kinds == {list}:
        return _lists(values)
    return list(values)


def shape_of(values: Iterable[Any]) -> Any:
    """What evened values are: a type, ``[shape]`` for lists, ``{key: shape}`` for objects; NoneType where all are null."""
    present = [value for value in values if value is not None]
    if not present:
        return type(None)
    if type(present[0]) is list:
        return [shape_of(chain.from_iterable(present))]
    if type(present[0]) is dict:
        return {name: shape_of(value[name] for value in present) for name in present[0]}
    return type(present[0])


def texts_of(values: Sequence[Any]) -> list[str | None]:
    """The values' JSON texts; texts as they are, and null as it is."""
    return [None if value is None else _text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = encode_plain(value).decode()
    return str(json.loads(text)) if text[:1] == '"' else text  # a date, say


def _fractions(values: Sequence[Any]) -> list[Any]:
    if any(isinstance(value, int) and abs(value) > EXACT_MAX for value in values):
        raise Mixed
    return [None if value is None else float(value) for value in values]


def _objects(values: Sequence[Any]) -> list[Any]:
    objects = [value for value in values if value is not None]
    names = list(dict.fromkeys(chain.from_iterable(objects)))
    if len(names) > max(KEYS_MAX, *map(len, objects)):
        raise Mixed
    columns = [evened([None if value is None else value.get(name) for value in values]) for name in names]
    parts = zip(*columns, strict=True) if columns else iter([()] * len(values))
    return [
        None if value is None else dict(zip(names, part, strict=True))
        for value, part in zip(values, parts, strict=True)
    ]


def _lists(values: Sequence[Any]) -> list[Any]:
    flat = iter(evened([item for value in values if value is not None for item in value]))
    return [None if value is None else [next(flat) for _ in value] for value in values]
