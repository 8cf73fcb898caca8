"""How deep a JSON text is nested is told exactly, whatever its strings hold, and soon."""

import json
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.nesting import is_nested_deeper

# Pieces of which any text can be made whose backslashes are escapes, in strings or out of them, closed or not.
PIECES = ('"', "[", "]", "{", "}", '""', "a", ",", "\\\\", '\\"', "\\n", "\\u005b", "\n", "é")


def depth_of(text: str) -> int:
    """A character at a time."""
    depth = deepest = 0
    in_string = False
    characters = iter(text)
    for character in characters:
        if character == "\\":
            next(characters, None)
        elif character == '"':
            in_string = not in_string
        elif not in_string and character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif not in_string and character in "]}":
            depth -= 1
    return deepest


def depth_of_value(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of_value, value.values()), default=0)
    return 1 + max(map(depth_of_value, value), default=0) if isinstance(value, list) else 0


def found(text: bytes) -> int:
    """The depth, as the first limit that it does not pass."""
    return next(levels for levels, _ in enumerate(repeat(None)) if not is_nested_deeper(text, levels))


@pytest.mark.slow
@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_a_text_of_any_strings_and_brackets_is_as_deep_as_one_finds_who_goes_through_it(
    pieces: list[str],
) -> None:
    text = "".join(pieces)
    assert found(text.encode()) == depth_of(text)


words = st.text('"[]{}\\/bnu a', max_size=8)
values = st.recursive(
    words | st.none(), lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=12
)


@pytest.mark.slow
@settings(max_examples=60)
@given(values, st.sampled_from((None, 1)))
def test_a_value_is_as_deep_as_its_text(value: Any, indent: int | None) -> None:
    assert found(json.dumps(value, indent=indent).encode()) == depth_of_value(value)


@pytest.mark.parametrize("depth", [1, 190, 16_383, 16_384, 16_385, 50_000])
def test_a_depth_is_carried_on_through_a_long_text(depth: int) -> None:
    flat = b"[]," * 20_000
    text = b"[" + flat + b"[" * (depth - 1) + b'"x"' + b"]" * (depth - 1) + b"]"
    assert not is_nested_deeper(text, max(depth, 2))
    assert is_nested_deeper(text, max(depth, 2) - 1)


@pytest.mark.slow
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "is_deeper"),
    [
        (b"[" * 4_000_000, True),
        (b"[]" * 2_000_000, False),
        (b'"' + b'\\"' * 2_000_000 + b"[" * 1_000, False),
        (b"\\" * 4_000_000 + b'"' + b"[" * 1_000, False),
        (b'"[' * 2_000_000, True),
        (b'"[]"' * 1_000_000, False),
        (b'"' * 4_000_000 + b"[" * 1_000, True),
    ],
)
def test_a_hostile_text_is_scanned_in_linear_time(text: bytes, is_deeper: bool) -> None:
    assert is_nested_deeper(text, 200) is is_deeper
