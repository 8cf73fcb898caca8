"""Schemas and the columns they make of an answer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UsageError
from engine.steps.schema import PROBLEM_CHARS_MAX, Columns, parse_schema

SCHEMA = {
    "type": "object",
    "properties": {"field": {"enum": ["networking", "text"]}, "score": {"type": "integer", "maximum": 5}},
    "required": ["field"],
}


def columns(**changes: Any) -> Columns:
    return Columns(**{"into": "response", "into_given": False, "schema": SCHEMA, **changes})


def test_without_a_schema_the_answer_goes_into_its_column_as_it_is() -> None:
    plain = columns(schema=None)
    assert plain.names == ("response",)
    assert plain.read("{") == {"response": "{"}
    assert plain.read([0.5]) == {"response": [0.5]}


def test_properties_become_columns_in_the_schemas_order_and_missing_ones_are_null() -> None:
    read = columns().read('{"extra": 1, "field": "text"}')
    assert isinstance(read, dict)
    assert list(read.items()) == [("field", "text"), ("score", None)]
    assert columns().names == ("field", "score")


def test_with_into_the_whole_object_goes_into_one_column() -> None:
    whole = columns(into="answer", into_given=True)
    assert whole.names == ("answer",)
    assert whole.read('{"field": "text", "extra": 1}') == {"answer": {"field": "text", "extra": 1}}


@pytest.mark.parametrize("schema", [{"type": "array"}, {"$ref": "#/$defs/a", "$defs": {"a": {}}}, {}])
def test_a_schema_without_properties_fills_one_column(schema: dict[str, Any]) -> None:
    assert columns(schema=schema).names == ("response",)
    assert columns(schema=schema).read("[1]") == {"response": [1]}


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"field":"text"}\n```',
        ' ```\n{"field":"text"}```\n',
        '```{"field":"text"}```',
        '\n{"field":"text"} ',
    ],
)
def test_a_fence_and_white_space_around_the_answer_are_tolerated(text: str) -> None:
    assert columns().read(text) == {"field": "text", "score": None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("```", "not valid JSON"),
        ("The field is text.", "not valid JSON"),
        ('{"field": "te', "not valid JSON"),
        ('{"field": NaN}', "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", '"field" is a required property'),
        ('{"field": "text", "score": 9}', "at score: 9 is greater"),
        ('{"field": "sport"}', "at field: "),
    ],
)
def test_an_answer_that_does_not_fit_is_a_sentence(text: str, says: str) -> None:
    read = columns().read(text)
    assert isinstance(read, str)
    assert says in read


@given(text=st.text() | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_reading_never_raises(text: str) -> None:
    assert isinstance(columns().read(text), (dict, str))


def test_a_sentence_is_bounded_however_long_the_answer() -> None:
    read = columns().read('"' + "x" * 100_000 + '"')
    assert isinstance(read, str)
    assert len(read) == PROBLEM_CHARS_MAX


@pytest.mark.parametrize("finish", ["length", "max_tokens", "max_output_tokens"])
def test_an_answer_cut_at_the_limit_says_so(finish: str) -> None:
    assert "cut at the token limit (--max-tokens)" in str(columns().read('{"field": "te', finish))
    assert "cut" not in str(columns().read('{"field": "te', "stop"))
    assert columns().read('{"field": "text"}', finish) == {"field": "text", "score": None}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"true",
        b'{"type": "objct"}',
        b'{"$ref": "#/$defs/missing"}',
        b'{"$ref": "http://127.0.0.1:9/schema.json"}',
        b'{"$ref": "file:///etc/hostname"}',
        b'{"$schema": "http://127.0.0.1:9/schema.json"}',
        b'{"pattern": "("}',
        b'{"properties": {"_status": {}}}',
        b'{"a":' * 5_000,
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UsageError, match="The schema fields.json"):
        parse_schema(data, source="fields.json")


def test_a_schema_with_a_byte_order_mark_is_read() -> None:
    assert parse_schema(b'\xef\xbb\xbf{"type":"object"}', source="x") == {"type": "object"}


def test_the_answer_cannot_go_into_a_column_of_the_engine() -> None:
    with pytest.raises(UsageError, match="_error"):
        columns(into="_error", schema=None)


@pytest.mark.parametrize("key", ["a", "b"])
@pytest.mark.parametrize("depth", [191, 260, 900, 100_000])
def test_an_answer_nested_deeper_than_a_record_may_be_is_a_sentence(key: str, depth: int) -> None:
    schema = {"properties": {"a": {"$ref": "#"}}, "additionalProperties": False}
    columns = Columns(into="r", into_given=False, schema=schema)
    said = columns.read(f'{{"{key}":' * depth + "1" + "}" * depth)
    assert said == "the answer is nested too deeply"
    assert isinstance(columns.read('{"a":' * 189 + "{}" + "}" * 189), dict)
