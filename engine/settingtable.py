"""Every setting of a job: how its text is read, and what it is without being given.

Rules of this file:
1. One line a setting. A reader raises ValueError with what is needed; ``settings.py`` names flag and origin.
"""

import json
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from engine.core.errors import UsageError

IN_FLIGHT_AUTO_MAX = 4096  # what is adaptive may grow up to here


def _text(value: Any) -> str:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError("a text is needed")


def _whole(value: Any, least: int, needed: str) -> int:
    try:
        number = int(value)
    except (ValueError, TypeError):
        raise ValueError(needed) from None
    if isinstance(value, (bool, float)) or number < least:
        raise ValueError(needed)
    return number


def _count(value: Any) -> int:
    return _whole(value, 1, "a whole number of at least 1 is needed")


def _from_zero(value: Any) -> int:
    return _whole(value, 0, "a whole number of at least 0 is needed")


def _real(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, TypeError):
        raise ValueError("a number is needed") from None


def _seconds(value: Any) -> float:
    number = _real(value)
    if not 0.0 < number < 1e7:
        raise ValueError("a number of seconds above 0 is needed")
    return number


def _schema(value: Any) -> str | dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else _text(value)


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    try:
        return words[str(value).strip().lower()]
    except KeyError:
        raise ValueError("yes or no is needed") from None


def _auto_or_count(value: Any) -> int | str:
    if str(value).strip().lower() == "auto":
        return "auto"
    return _whole(value, 1, "a whole number of at least 1, or auto, is needed")


def _share(value: Any) -> float:
    number = _real(value)
    if not 0.01 <= number <= 100:
        raise ValueError("a number from 0.01 to 100 is needed")
    return number


def _pairs(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name}={json.dumps(item)}" for name, item in value.items()]
    if isinstance(value, str):
        return [value] if value else []
    return [str(item) for item in value]


def _header_lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{name}: {item}" for name, item in value.items()]
    return _pairs(value)


def _tables(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, list) or not value or not all(isinstance(one, Mapping) for one in value):
        raise ValueError("a list of tables is needed")
    return [dict(one) for one in value]


def parse_max_failures(text: str) -> tuple[int | None, float | None]:
    """``"10"`` is a number of rows, ``"5%"`` a share of the finished ones, ``""`` no bound.

    Raises ValueError for anything else.
    """
    text = text.strip()
    if not text:
        return None, None
    if text.endswith("%"):
        share = float(text[:-1]) / 100.0
        if not 0.0 <= share <= 1.0:
            raise ValueError(text)
        return None, share
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number, None


def _failures(value: Any) -> str:
    try:
        parse_max_failures(str(value))
    except ValueError:
        raise ValueError("a number of rows or a share like 5% is needed") from None
    return str(value)


class Setting(NamedTuple):
    """One setting: how it is read, and what it is without being given."""

    read: Callable[[Any], Any]
    default: Any = None


SETTINGS: dict[str, Setting] = {
    "input": Setting(_text),
    "output": Setting(_text),
    "procs": Setting(_count),
    "provider": Setting(_text, "openai"),
    "base_url": Setting(_text, ""),
    "endpoint": Setting(_text, "chat"),
    "api_version": Setting(_text, ""),
    "model": Setting(_text, ""),
    "prompt": Setting(_text),
    "prompt_file": Setting(_text),
    "messages": Setting(_text),
    "system": Setting(_text),
    "url": Setting(_text),
    "method": Setting(_text, "POST"),
    "header": Setting(_header_lines, []),
    "body": Setting(_text),
    "select": Setting(_text, ""),
    "max_tokens": Setting(_count),
    "temperature": Setting(_real),
    "param": Setting(_pairs, []),
    "into": Setting(_text),
    "schema": Setting(_schema),
    "rpm": Setting(_auto_or_count),
    "tpm": Setting(_auto_or_count),
    "input_tpm": Setting(_auto_or_count),
    "output_tpm": Setting(_auto_or_count),
    "share": Setting(_share, 1.0),
    "limiter_dir": Setting(_text, ""),
    "in_flight": Setting(_auto_or_count, "auto"),
    "timeout": Setting(_seconds, 300.0),
    "retries": Setting(_from_zero, 5),
    "max_failures": Setting(_failures, ""),
    "api_key_env": Setting(_text),
    "endpoints": Setting(_tables),
    "steps": Setting(_tables),
    "input_format": Setting(_text),
    "output_format": Setting(_text),
    "rows": Setting(_count),
    "fresh": Setting(_switch, False),
    "retry_failed": Setting(_switch, False),
    "on_change": Setting(_text, "refuse"),
    "durability": Setting(_text, "fsync"),
    "state": Setting(_text),
    "meta": Setting(_switch, False),
    "count_tokens": Setting(_switch, False),
    "ca_file": Setting(_text, ""),
    "trust_env": Setting(_switch, False),
    "wire": Setting(_text, "aiohttp"),
    "escape_cells": Setting(_switch, True),
}


def limits_of(given: dict[str, int | str | None]) -> dict[str, Any]:
    """The fields that ``--rpm`` and its like set, of a Job or an Endpoint."""
    limits = {name: None if value == "auto" else value for name, value in given.items()}
    return {**limits, "learn_limits": "auto" in given.values()}


class UnknownSetting(UsageError):
    """A table has a setting that there is not; ``name`` as it stands there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no setting {name!r}")
        self.name = name


def read_own(
    table: Mapping[str, Any],
    known: Collection[str],
    further: Collection[str],
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """A table's own settings of the ``known`` ones; ``further`` keys are somebody else's to read.

    Raises UnknownSetting, and UsageError for a value that cannot be used.
    """
    own: dict[str, Any] = {}
    for raw_key, raw in table.items():
        key = aliases.get(raw_key, raw_key).replace("-", "_")
        if key in further:
            continue
        if key not in known:
            raise UnknownSetting(raw_key)
        try:
            own[key] = SETTINGS[key].read(raw)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{raw_key} {raw!r} cannot be used: {error}.") from None
    return own
