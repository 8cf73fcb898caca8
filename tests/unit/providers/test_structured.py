"""JSON schemas as providers take them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.providers.structured import is_strict, json_schema_format, narrowed

GOOD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "field": {"type": "string", "enum": ["networks", "files"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "place": {"$ref": "#/$defs/place"},
    },
    "required": ["field", "tags", "note", "place"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"x": {"type": "number"}},
            "required": ["x"],
            "additionalProperties": False,
        }
    },
}


def nest(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {
            "type": "object",
            "properties": {"a": schema},
            "required": ["a"],
            "additionalProperties": False,
        }
    return schema


def wide(count: int) -> dict[str, Any]:
    names = [f"p{number}" for number in range(count)]
    properties = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def test_a_schema_by_all_rules_is_strict() -> None:
    assert is_strict(GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "array"},
        {"type": ["object", "null"]},
        {"anyOf": [{"type": "object"}]},
        {"required": ["field"]},
        {"required": None},
        {"additionalProperties": True},
        {"additionalProperties": {"type": "string"}},
        {"properties": []},
        {"minProperties": 1},
        {"properties": {**GOOD["properties"], "field": {"type": "string", "minLength": 2}}},
        {"properties": {**GOOD["properties"], "field": {"type": "string", "format": "uri"}}},
        {"properties": {**GOOD["properties"], "field": {}}},
        {"properties": {**GOOD["properties"], "field": True}},
        {"properties": {**GOOD["properties"], "field": {"type": "array"}}},
        {"properties": {**GOOD["properties"], "field": {"type": "string", "default": "x"}}},
        {"properties": {**GOOD["properties"], "place": {"$ref": "https://example.org/x"}}},
        {"$defs": {"place": {"type": "object", "properties": {"x": {}}, "required": []}}},
    ],
)
def test_a_schema_that_breaks_a_rule_is_not_strict(change: dict[str, Any]) -> None:
    assert not is_strict({**GOOD, **change})


def test_numbers_of_levels_properties_and_choices_are_bounded() -> None:
    assert is_strict(nest(9))
    assert not is_strict(nest(12))
    assert is_strict(wide(5_000))
    assert not is_strict(wide(5_001))
    many = {"type": "string", "enum": [str(number) for number in range(1_001)]}
    assert not is_strict(
        {"type": "object", "properties": {"a": many}, "required": ["a"], "additionalProperties": False}
    )


def test_openais_format_has_a_name_the_schema_and_whether_it_is_strict() -> None:
    assert json_schema_format({**GOOD, "$schema": "https://json-schema.org/draft/2020-12/schema"}) == {
        "name": "answer",
        "schema": GOOD,
        "strict": True,
    }
    assert json_schema_format({"type": "object"}) == {
        "name": "answer",
        "schema": {"type": "object"},
        "strict": False,
    }


def test_a_narrowed_schema_has_closed_objects_and_no_unknown_constraints() -> None:
    schema = {
        "$schema": "x",
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1},
            "s": {"type": "string", "maxLength": 5, "pattern": "a"},
            "l": {
                "type": "array",
                "minItems": 2,
                "items": {"type": "object", "properties": {"x": {"type": "null"}}},
            },
        },
        "required": ["n"],
    }
    assert narrowed(schema) == {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "s": {"type": "string", "pattern": "a"},
            "l": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"x": {"type": "null"}},
                    "additionalProperties": False,
                },
            },
        },
        "required": ["n"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {
            "type": "object",
            "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"}}},
        },
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "properties": {"a": True}},
        {"oneOf": [{"type": "string"}]},
        {"anyOf": "x"},
        {"properties": 5},
    ],
)
def test_what_no_narrower_schema_can_say_is_left_out(schema: dict[str, Any]) -> None:
    assert narrowed(schema) is None


keywords = st.sampled_from(
    ["type", "properties", "items", "anyOf", "required", "enum", "$ref", "$defs", "format", "const", "x"]
)
schemas = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["object", "array", "string", "#/$defs/a", "date"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(keywords, schemas, max_size=5))
def test_no_schema_makes_the_helpers_raise(schema: dict[str, Any]) -> None:
    assert is_strict({**schema, "type": "object"}) in (True, False)
    assert narrowed(schema) is None or isinstance(narrowed(schema), dict)
