"""A row's bytes become values, or a sentence that does not quote them."""

from decimal import Decimal

import pytest

from engine.core.errors import ErrorKind, RowError
from engine.formats.rows import NESTING_MAX, decode_json, decode_row, encode_values


def test_a_plain_object_is_decoded() -> None:
    assert decode_row(b'{"a": 1, "b": [null, "x"]}') == {"a": 1, "b": [None, "x"]}


def test_integers_of_more_than_4300_digits_survive_exactly() -> None:
    digits = "7" * 5000
    values = decode_row(b'{"n":%b,"s":"x"}' % digits.encode())
    assert str(values["n"]) == digits
    assert encode_values(values) == b'{"n":%b,"s":"x"}' % digits.encode()


def test_integers_beyond_a_machine_word_stay_integers() -> None:
    assert decode_row(b'{"n":1234567890123456789012345}') == {"n": 1234567890123456789012345}


def test_a_float_out_of_range_keeps_its_value_and_one_beyond_that_its_text() -> None:
    assert decode_row(b'{"n":1e400}') == {"n": Decimal("1e400")}
    assert decode_row(b'{"n":1e99999999999999999999}') == {"n": "1e99999999999999999999"}


def test_of_a_duplicate_key_the_last_value_counts() -> None:
    assert decode_row(b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"[1]", "array, not an object"),
        (b'"secret text"', "string, not an object"),
        (b"null", "null, not an object"),
        (b"true", "boolean, not an object"),
        (b"12", "number, not an object"),
        (b"", "not valid JSON"),
        (b'{"a": "secret text', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": -Infinity}', "not valid JSON"),
        (b'{"a": "\\ud800 secret text"}', "not valid JSON"),
        (b'{"a": "\\ud800 secret text", "n": 1e999}', "not valid JSON"),
        (b'{"n": 1e999, "a": "\\ud800 secret text"}', "surrogate"),
        (b'{"n": 1e999, "a": NaN}', "NaN"),
        (b'{"n": 1e999, "a": secret text}', "not valid JSON"),
        (b'{"a": "\xff secret text"}', "not UTF-8"),
        (b'{"a": "\x00secret text"}', "not valid JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
    ],
)
def test_what_is_no_usable_object_is_a_bad_row_and_is_not_quoted(payload: bytes, says: str) -> None:
    with pytest.raises(RowError) as caught:
        decode_row(payload)
    assert caught.value.kind is ErrorKind.BAD_INPUT
    assert says in caught.value.message
    assert "secret" not in caught.value.message


def test_nesting_is_allowed_up_to_its_limit_and_brackets_in_text_are_none() -> None:
    deepest = b"[" * NESTING_MAX + b"]" * NESTING_MAX
    assert decode_json(deepest)
    with pytest.raises(RowError, match="nested"):
        decode_json(b"[" + deepest + b"]")
    text = '[{"' * 1000
    assert decode_row(encode_values({"a": text})) == {"a": text}
    assert decode_row(encode_values({"a": [[]] * 1000})) == {"a": [[]] * 1000}


@pytest.mark.timeout(10)
def test_a_hostile_row_is_scanned_in_linear_time() -> None:
    with pytest.raises(RowError):
        decode_row(b'{"a":"' + b'\\"' * 200_000 + b"[" * 1000)
