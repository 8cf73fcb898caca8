"""A row's bytes to its values, for every oddity JSON allows and some it does not.

Rules of this file:
1. A row that cannot be decoded raises ``RowError``; nothing a row holds ends the worker.
2. No message quotes the row: at most the place of the mistake.
"""

import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn, cast

import msgspec

from engine.core.errors import ErrorKind, RowError
from engine.core.model import RowValues
from engine.core.nesting import NESTING_MAX, is_nested_deeper

_decode = cast(Callable[[bytes], Any], msgspec.json.Decoder().decode)
# How numbers that only JSON can hold are written again: as the numbers they are.
encode_values = msgspec.json.Encoder(decimal_format="number").encode


def decode_row(payload: bytes) -> RowValues:
    """The values of one row.

    Integers of more than 4,300 digits and floats out of range come as ``Decimal``, which prints as it was
    written (a float beyond even that as its text). Of a duplicate key the last value counts.

    Raises RowError (bad_input) for what is no JSON object, for NaN and Infinity, lone surrogates, bytes that
    are not UTF-8, and nesting over NESTING_MAX.
    """
    values = decode_json(payload)
    if type(values) is not dict:
        raise _bad(f"a JSON {_TYPE_WORDS.get(type(values), 'number')}, not an object")
    return values


def decode_json(payload: bytes) -> Any:
    """Any JSON value; as ``decode_row`` otherwise."""
    if len(payload) > 2 * NESTING_MAX and is_nested_deeper(payload, NESTING_MAX):
        raise _bad(f"nested deeper than {NESTING_MAX} levels")
    try:
        return _decode(payload)
    except msgspec.ValidationError:  # without a type to check, only a number out of range is one
        return _decode_exact(payload)
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise _bad(f"not valid JSON: {reason[:1].lower()}{reason[1:]}") from None
    except UnicodeDecodeError:
        raise _bad("not UTF-8") from None


_TYPE_WORDS: dict[type, str] = {list: "array", str: "string", bool: "boolean", type(None): "null"}


def _decode_exact(payload: bytes) -> Any:
    """As ``_decode``, a few times slower, for numbers that a machine word and a float cannot hold."""
    try:
        values = json.loads(
            payload.decode(), parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant
        )
        encode_values(values)  # finds lone surrogates, which json.loads lets through
    except UnicodeError:
        raise _bad("not valid JSON: a surrogate without its pair, or bytes that are not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _bad(
            f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]} (character {error.pos})"
        ) from None
    return values


def _integer(text: str) -> int | Decimal:
    try:
        return int(text)
    except ValueError:  # Python converts at most 4,300 digits
        return Decimal(text)


def _float(text: str) -> float | Decimal | str:
    value = float(text)
    if value not in (float("inf"), float("-inf")):
        return value
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of more than 18 digits
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise _bad(f"not valid JSON: {name}")


def _bad(message: str) -> RowError:
    return RowError(ErrorKind.BAD_INPUT, message)
