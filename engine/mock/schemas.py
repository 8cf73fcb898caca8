"""A value that fits a JSON schema, drawn from the question's hash.

Rules of this file:
1. The same schema and the same text give the same value, on every machine and in every version of Python.
2. Covers what providers accept in structured output: types, enum, const, bounds, formats, anyOf, oneOf,
   allOf and local $ref. Not covered: ``pattern``, ``not``, ``if`` and references outside the schema; a
   value for those may not fit.
3. Schemas come from outside: recursion is bounded, and nothing here raises for a schema that makes no sense.
"""

import math
from hashlib import shake_256
from typing import Any

DEPTH_WIDE = 4  # deeper than this, optional parts are left out
DEPTH_MAX = 24  # deeper than this there is null, whatever the schema says
ITEMS_MAX = 64

_FORMATS = {
    "date-time": "20{0:02d}-0{1}-1{2}T0{3}:3{4}:00Z",
    "date": "20{0:02d}-0{1}-1{2}",
    "time": "0{3}:3{4}:00Z",
    "email": "mock-{5}@example.com",
    "uri": "https://example.com/{5}",
    "hostname": "mock-{5}.example.com",
    "ipv4": "192.0.2.{1}",
    "ipv6": "2001:db8::{1}",
    "uuid": "{6}-{7}-4{8}-8{8}-{9}",
    "duration": "PT{1}M",
}


class Draw:
    """A stream of numbers that depends on one text, and a label to prefer where a choice offers it."""

    def __init__(self, text: str, *, preferred: str | None = None) -> None:
        self._seed = text.encode("utf-8", "replace")
        self._bytes = b""
        self._at = 0
        self.preferred = preferred

    def below(self, bound: int) -> int:
        """A whole number in 0..bound-1."""
        if self._at + 8 > len(self._bytes):
            self._bytes = shake_256(self._seed).digest(2 * len(self._bytes) + 512)
        number = int.from_bytes(self._bytes[self._at : self._at + 8], "big")
        self._at += 8
        return number % bound

    def hex(self, digits: int) -> str:
        """So many hex digits."""
        return "".join("0123456789abcdef"[self.below(16)] for _ in range(digits))


def fitting_value(schema: Any, draw: Draw, root: Any = None, depth: int = 0) -> Any:
    """A JSON value that fits ``schema``; ``root`` is the whole schema, which references point into."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > DEPTH_MAX:
        return f"mock-{draw.hex(8)}" if schema is True else None
    if "$ref" in schema:
        return fitting_value(_resolved(schema["$ref"], root), draw, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return _chosen(schema["enum"], draw)
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            return fitting_value(_branch(schema[word], draw, depth), draw, root, depth + 1)
    if isinstance(schema.get("allOf"), list):
        return fitting_value(_merged(schema, root), draw, root, depth + 1)
    maker = _MAKERS.get(_type_of(schema, draw, depth))
    return maker(schema, draw, root, depth) if maker else None


def _chosen(values: list[Any], draw: Draw) -> Any:
    drawn = values[draw.below(len(values))]
    return draw.preferred if draw.preferred in values else drawn


def _branch(branches: list[Any], draw: Draw, depth: int) -> Any:
    """One of several schemas; deep down the simplest, so that a recursive schema comes to an end."""
    drawn = branches[draw.below(len(branches))]
    if depth <= DEPTH_WIDE:
        return drawn
    return min(branches, key=lambda branch: len(str(branch)) + 10_000 * ("$ref" in str(branch)))


def _type_of(schema: dict[str, Any], draw: Draw, depth: int) -> str:
    named = schema.get("type")
    if isinstance(named, list) and named:
        drawn = named[draw.below(len(named))]
        named = "null" if depth > DEPTH_WIDE and "null" in named else drawn
    if isinstance(named, str):
        return named
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "number" if {"minimum", "maximum"} & set(schema) else "string"


def _resolved(reference: Any, root: Any) -> Any:
    """What a local reference like ``#/$defs/x`` points to; True, which anything fits, for any other."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return True
    place = root
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, dict) or key not in place:
            return True
        place = place[key]
    return place


def _merged(schema: dict[str, Any], root: Any) -> dict[str, Any]:
    """One schema of an ``allOf``: later keywords win, properties and required names add up."""
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        if isinstance(part, dict) and "$ref" in part:
            part = _resolved(part["$ref"], root)
        if not isinstance(part, dict):
            continue
        for key, value in part.items():
            if key == "properties" and isinstance(value, dict):
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required" and isinstance(value, list):
                merged[key] = [*merged.get(key, []), *value]
            else:
                merged[key] = value
    return merged


def _object(schema: dict[str, Any], draw: Draw, root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    required = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    names = [name for name in properties if depth <= DEPTH_WIDE or name in required]
    names += [name for name in required if name not in properties]
    return {name: fitting_value(properties.get(name, True), draw, root, depth + 1) for name in names}


def _array(schema: dict[str, Any], draw: Draw, root: Any, depth: int) -> list[Any]:
    first = schema.get("prefixItems")
    value = [fitting_value(item, draw, root, depth + 1) for item in first] if isinstance(first, list) else []
    least = min(_whole(schema.get("minItems"), 0), ITEMS_MAX)
    most = max(least, min(_whole(schema.get("maxItems"), least + 3), least + 3, ITEMS_MAX))
    length = least if depth > DEPTH_WIDE else max(least, min(most, 1 + draw.below(3)))
    if most == 0 or schema.get("items") is False:
        return value
    tries = 0
    while len(value) < length and tries < 4 * ITEMS_MAX:
        item = fitting_value(schema.get("items", True), draw, root, depth + 1)
        tries += 1
        if not schema.get("uniqueItems") or item not in value:
            value.append(item)
    return value


def _string(schema: dict[str, Any], draw: Draw, root: Any, depth: int) -> str:
    template = _FORMATS.get(str(schema.get("format", "")))
    if template is not None:
        small = [draw.below(50), *(1 + draw.below(9) for _ in range(4))]
        return template.format(*small, draw.hex(8), *(draw.hex(digits) for digits in (8, 4, 3, 12)))
    text = f"mock-{draw.hex(8)}"
    least, most = _whole(schema.get("minLength"), 0), schema.get("maxLength")
    text = text.ljust(min(least, 1_000_000), "x")
    return text[: _whole(most, len(text))] if most is not None else text


def _integer(schema: dict[str, Any], draw: Draw, root: Any, depth: int) -> int:
    step = schema.get("multipleOf")
    step = step if isinstance(step, int) and step > 0 else 1
    low, high = _bounds(schema, 1)
    first, last = math.ceil(low / step), math.floor(high / step)
    return (first + draw.below(max(1, last - first + 1))) * step


def _number(schema: dict[str, Any], draw: Draw, root: Any, depth: int) -> float:
    step = schema.get("multipleOf")
    low, high = _bounds(schema, 0)
    if isinstance(step, int | float) and step > 0:
        first, last = math.ceil(low / step), math.floor(high / step)
        return (first + draw.below(max(1, last - first + 1))) * step
    # Never a bound itself, so that exclusive bounds hold too; low + x can only round up to high when
    # the two are neighbours.
    return low + (high - low) * (1 + draw.below(998)) / 1000


def _bounds(schema: dict[str, Any], whole: int) -> tuple[float, float]:
    """The least and greatest value; ``whole`` is 1 where exclusive bounds lie one further in."""
    low = _figure(schema.get("minimum"))
    high = _figure(schema.get("maximum"))
    below, above = _figure(schema.get("exclusiveMinimum")), _figure(schema.get("exclusiveMaximum"))
    if below is not None:
        low = below + whole if low is None else max(low, below + whole)
    if above is not None:
        high = above - whole if high is None else min(high, above - whole)
    if low is None:
        low = 0 if high is None or high >= 0 else high - 100
    return low, low + 100 if high is None else max(low, high)


def _figure(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value >= 0 else default


_MAKERS: dict[str, Any] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda schema, draw, root, depth: draw.below(2) == 1,
    "null": lambda schema, draw, root, depth: None,
}
