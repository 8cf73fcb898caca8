"""Values drawn for schemas."""

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.mock.schemas import Draw, fitting_value

_SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 4}},
        "required": ["a"],
    },
    {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2, "maxItems": 3},
    {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 5, "maxLength": 9}]},
    {"$defs": {"n": {"type": "number", "multipleOf": 0.5}}, "$ref": "#/$defs/n"},
    {"allOf": [{"type": "object", "properties": {"a": {"const": 1}}}, {"required": ["a"]}]},
    {"type": "string", "format": "date"},
    {"type": ["boolean", "null"]},
]


@pytest.mark.parametrize("schema", _SCHEMAS)
@given(text=st.text(max_size=10))
def test_a_drawn_value_fits_its_schema_and_is_drawn_again_the_same(schema: dict[str, Any], text: str) -> None:
    value = fitting_value(schema, Draw(text))
    jsonschema_rs.validator_for(schema).validate(value)
    assert fitting_value(schema, Draw(text)) == value


_WORDS = st.sampled_from(["type", "properties", "items", "$ref", "anyOf", "enum", "minimum", "maxItems"])
_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_NONSENSE = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(_NONSENSE)
def test_a_schema_that_makes_no_sense_raises_nothing(schema: Any) -> None:
    json.dumps(fitting_value(schema, Draw("x")))
