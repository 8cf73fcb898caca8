"""Objects of a program and its libraries as what JSON has: for rows that come in, and for what functions return.

Rules of this file:
1. No library is imported: an object is known by what it can do.
2. Whatever has one obvious meaning in JSON becomes that; times and paths become texts. What has none is refused.
"""

import datetime
import os
from typing import Any

import msgspec


def plain(value: Any) -> Any:
    """One step from an object that the encoder does not know towards one that it does. Raises NotImplementedError."""
    if _is_nothing(value):
        return None
    if isinstance(value, str):  # a subclass: the encoder takes only the very types
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return _time(value)
    if getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m"):
        return _numpy_time(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    for method in ("tolist", "item", "_asdict", "model_dump"):
        if callable(found := getattr(value, method, None)):
            return found()
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return {key: value[key] for key in value.keys()}  # noqa: SIM118  it may iterate over something else
    if type(value).__module__.partition(".")[0] == "pandas":  # a Period, an Interval
        return str(value)
    raise NotImplementedError(f"objects of type {type(value).__name__} are not JSON")


encode_plain = msgspec.json.Encoder(enc_hook=plain, decimal_format="number").encode
"""Any value as JSON. NaN and infinite numbers become null, times ISO 8601, bytes inside a value base64.

Raises TypeError, ValueError, OverflowError, RecursionError or NotImplementedError for what JSON cannot say, and whatever an
object's own methods raise.
"""


def _is_nothing(value: Any) -> bool:
    """Whether it is one of pandas' ways to say that there is nothing."""
    return type(value).__name__ in ("NaTType", "NAType")


def _time(value: Any) -> str | datetime.timedelta:
    """A subclass's own way to write itself, which knows of nanoseconds."""
    if callable(written := getattr(value, "isoformat", None)):
        return str(written())
    return datetime.timedelta(value.days, value.seconds, value.microseconds)


def _numpy_time(value: Any) -> Any:
    """A time of numpy, or an array of them: without care, nanoseconds would come as bare numbers."""
    if getattr(value, "ndim", 0):
        return list(value)
    found = value.item()
    return str(value) if isinstance(found, int) else found
