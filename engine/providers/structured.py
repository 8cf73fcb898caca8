"""JSON schemas as providers take them: OpenAI's strict rules, and a narrower schema for Anthropic.

Rules of this file:
1. What is sent only helps the model; every answer is validated against the job's own schema afterwards. So a
   provider may get a looser schema than the job's (OpenAI without ``strict``), one with less in it, or none.
2. A schema is a user's file: it may be anything. Depth is bounded, nothing here raises.

Sources: OpenAI's guide to structured outputs (strict rules and their numbers); Anthropic's documentation of structured
outputs (objects must be closed; no numeric, length or large array constraints).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

ANSWER_NAME: Final = "answer"
OPENAI_DEPTH_MAX: Final = 10
OPENAI_PROPERTIES_MAX: Final = 5_000
OPENAI_ENUM_MAX: Final = 1_000
OPENAI_NAME_CHARS_MAX: Final = 120_000
_DEPTH_MAX: Final = 100
_SUBSCHEMA_MAPS: Final = ("properties", "$defs", "definitions")
_STRICT_KEYWORDS: Final = frozenset(
    [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "anyOf",
        "$ref",
        "$defs",
        "definitions",
        "description",
        "title",
        "pattern",
        "format",
        "multipleOf",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minItems",
        "maxItems",
    ]
)
_STRICT_FORMATS: Final = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"]
)
_ANTHROPIC_DROPPED: Final = frozenset(
    [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "$schema",
        "examples",
    ]
)
# Keywords with which a narrower copy could no longer be answered, or not be understood at all.
_ANTHROPIC_REFUSED: Final = frozenset(
    ["patternProperties", "not", "if", "then", "else", "oneOf", "prefixItems", "contains"]
)


def json_schema_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's description of a wanted answer: name, schema, and ``strict`` where the schema meets its rules."""
    sent = {key: value for key, value in schema.items() if key != "$schema"}
    return {"name": ANSWER_NAME, "schema": sent, "strict": is_strict(sent)}


def is_strict(schema: Mapping[str, Any]) -> bool:
    """Whether OpenAI would take the schema with ``strict: true``; a request with one it refuses would be a 400."""
    if schema.get("type") != "object" or "anyOf" in schema:
        return False
    properties = enums = chars = 0
    for node, depth in _nodes(schema, 1):
        if depth > OPENAI_DEPTH_MAX or not _is_strict_node(node):
            return False
        names = node.get("properties", {})
        values = node.get("enum", [])
        properties += len(names)
        enums += len(values)
        chars += sum(map(len, names)) + sum(len(str(value)) for value in (*values, node.get("const", "")))
    return properties <= OPENAI_PROPERTIES_MAX and enums <= OPENAI_ENUM_MAX and chars <= OPENAI_NAME_CHARS_MAX


def _is_strict_node(node: Any) -> bool:
    if not isinstance(node, Mapping) or not _STRICT_KEYWORDS.issuperset(node):
        return False
    if not any(keyword in node for keyword in ("type", "anyOf", "$ref", "enum", "const")):
        return False
    reference = node.get("$ref")
    if reference is not None and not (isinstance(reference, str) and reference.startswith("#")):
        return False
    named = node.get("format", "date")
    if (
        not isinstance(node.get("enum", []), list)
        or not isinstance(named, str)
        or named not in _STRICT_FORMATS
    ):
        return False
    kind = node.get("type")
    if kind == "array" or (isinstance(kind, list) and "array" in kind):
        return "items" in node
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in node:
        properties, required = node.get("properties"), node.get("required")
        return (
            isinstance(properties, Mapping)
            and isinstance(required, list)
            and node.get("additionalProperties") is False
            and set(properties) == {name for name in required if isinstance(name, str)}
        )
    return True


def _nodes(schema: Any, depth: int) -> Iterator[tuple[Any, int]]:
    """The schema and every schema inside it, with how deep it lies; stops at _DEPTH_MAX."""
    yield schema, depth
    if not isinstance(schema, Mapping) or depth > _DEPTH_MAX:
        return
    for keyword in _SUBSCHEMA_MAPS:
        inner = schema.get(keyword)
        if isinstance(inner, Mapping):
            for node in inner.values():
                yield from _nodes(node, depth + (keyword == "properties"))
    if "items" in schema:
        yield from _nodes(schema["items"], depth + 1)
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        for node in choices:
            yield from _nodes(node, depth)


def narrowed(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """A copy for Anthropic: objects closed, constraints it does not know left out; None where that is impossible.

    Impossible are open maps (``additionalProperties`` of true or a schema, or no ``properties``), recursion, and
    combinations such as ``oneOf``. Every answer that fits the copy has the original's shape.
    """
    try:
        return _narrowed(schema, 0)
    except _CannotNarrow:
        return None


class _CannotNarrow(Exception):
    """The schema has something that no narrower copy can express."""


def _narrowed(schema: Any, depth: int) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or depth > _DEPTH_MAX or not _ANTHROPIC_REFUSED.isdisjoint(schema):
        raise _CannotNarrow
    copy: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _ANTHROPIC_DROPPED or (keyword == "minItems" and value not in (0, 1)):
            continue
        if keyword in _SUBSCHEMA_MAPS:
            if not isinstance(value, Mapping):
                raise _CannotNarrow
            copy[keyword] = {name: _narrowed(node, depth + 1) for name, node in value.items()}
        elif keyword == "items":
            copy[keyword] = _narrowed(value, depth + 1)
        elif keyword in ("anyOf", "allOf"):
            if not isinstance(value, list):
                raise _CannotNarrow
            copy[keyword] = [_narrowed(node, depth + 1) for node in value]
        elif keyword == "$ref" and not (
            isinstance(value, str) and value.startswith(("#/$defs/", "#/definitions/"))
        ):
            raise _CannotNarrow  # to the schema itself: recursion
        else:
            copy[keyword] = value
    kind = copy.get("type")
    if kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in copy:
        if "properties" not in copy or copy.get("additionalProperties", False) is not False:
            raise _CannotNarrow
        copy["additionalProperties"] = False
    return copy
