"""Answers as columns of one type: what becomes even, what is mixed, and that nothing is lost."""

import datetime
from typing import Any

import pytest

from engine.api.columns import EXACT_MAX, KEYS_MAX, Mixed, column, evened, shape_of, texts_of


@pytest.mark.parametrize(
    ("values", "even"),
    [
        (["a", None, "b"], ["a", None, "b"]),
        ([1, 0.5, None, EXACT_MAX], [1.0, 0.5, None, float(EXACT_MAX)]),
        ([{"a": 1}, None, {"b": [2, 0.5]}], [{"a": 1, "b": None}, None, {"a": None, "b": [2.0, 0.5]}]),
        ([[{}], [], [{"a": None}]], [[{"a": None}], [], [{"a": None}]]),
        ([{}, {}], [{}, {}]),
        ([], []),
    ],
)
def test_values_with_a_type_in_common_become_even(values: list[Any], even: list[Any]) -> None:
    found = evened(values)
    assert found == even and repr(found) == repr(even)


@pytest.mark.parametrize(
    "values",
    [
        [1, "1"],
        [True, 1],
        [0.5, EXACT_MAX + 1],
        [{"a": 1}, {"a": "1"}],
        [[1], ["1"]],
        [{f"key {n}-{m}": n for m in range(KEYS_MAX)} for n in range(2)],
    ],
    ids=str,
)
def test_values_without_one_are_mixed(values: list[Any]) -> None:
    with pytest.raises(Mixed):
        evened(values)


def test_objects_of_many_keys_may_be_even_where_these_are_the_same() -> None:
    wide = {f"key {n}": n for n in range(2 * KEYS_MAX)}
    assert evened([wide, wide]) == [wide, wide]


def test_a_column_is_made_of_texts_where_its_values_are_mixed_too_deep_or_refused() -> None:
    assert column(list, [1, "word", [1], None]) == ["1", "word", "[1]", None]
    deep: Any = "end"
    for _ in range(450):
        deep = [deep]
    assert column(list, [deep]) in ([deep], [str(deep).replace("'", '"').replace(" ", "")])

    def refuse(values: list[Any]) -> list[Any]:
        if not isinstance(values[0], str):
            raise OverflowError("too large")
        return values

    assert column(refuse, [2**70]) == ["1180591620717411303424"]


def test_texts_are_what_they_say() -> None:
    assert texts_of([datetime.date(2026, 1, 2), "a", 'quo"te', None, {"a": [1]}]) == [
        "2026-01-02",
        "a",
        'quo"te',
        None,
        '{"a":[1]}',
    ]


def test_the_shape_of_values_is_that_of_the_first_that_say() -> None:
    assert shape_of([None, {"a": None, "b": [[]]}, {"a": 1, "b": [["x"]]}]) == {"a": int, "b": [[str]]}
    assert shape_of([None, None]) is type(None)
