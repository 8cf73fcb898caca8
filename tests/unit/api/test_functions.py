"""Functions of a pool's steps: their names, their bytes, and rows that are no mappings."""

import asyncio
import io
import sys
from typing import Any

import pytest

from engine import UsageError, ask, call
from engine.api import mapping
from engine.api.functions import of_the_bare_row, settled
from engine.formats.rows import decode_row
from engine.rows import payload_of
from engine.steps.finding import resolve


def double(number: int) -> int:
    return number * 2


async def halve(number: int) -> float:
    return number / 2


def test_steps_without_functions_take_nothing_along() -> None:
    steps = (ask("x"),)
    found, surroundings = settled(steps)
    assert found is steps
    assert (surroundings.import_path, surroundings.argv, surroundings.pickled) == ((), (), {})


def test_a_function_that_can_be_imported_goes_by_its_name() -> None:
    import json

    (by_object, by_name), surroundings = settled((call(json.dumps, into="a"), call("json:loads")))
    assert by_object.settings == {"into": "a", "function": "json:dumps"}
    assert by_name.settings == {"function": "json:loads"}
    assert surroundings.import_path == tuple(sys.path) and surroundings.pickled == {}


def test_another_one_goes_as_bytes_beside_the_job() -> None:
    factor = 5
    (step,), surroundings = settled((call(lambda row: row["n"] * factor),))
    name = step.settings["function"]
    assert name.startswith("pickled:")
    assert list(surroundings.pickled) == [name.removeprefix("pickled:")]
    assert resolve(name, pickled=surroundings.pickled)({"n": 3}) == 15
    assert "pickled=" not in repr(surroundings)


def test_a_bare_row_is_handed_to_the_function_by_itself() -> None:
    assert of_the_bare_row(double)({"value": 3}) == 6
    awaited = of_the_bare_row(halve)
    assert asyncio.iscoroutinefunction(awaited)
    assert asyncio.run(awaited({"value": 3})) == 1.5


def test_rows_of_every_kind_may_stand_between_bare_ones() -> None:
    rows = [1, {"a": 2}, "x", {"text": 3}, [4], {"value": 5, "a": 6}, {}]
    given = [decode_row(payload_of(row)) for row in rows]
    assert list(map(of_the_bare_row(lambda row: row), given)) == rows


@pytest.mark.parametrize(
    ("rows", "is_bare"),
    [
        (["a"], True),
        ([1], True),
        (iter([1]), True),
        ([{"n": 1}], False),
        (iter([{"n": 1}]), False),
        ([], False),
        (io.StringIO("a\n"), True),
    ],
)
def test_a_map_looks_at_one_row_to_see_what_the_function_takes(
    rows: Any, is_bare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    class Pool:
        def __init__(self, step: Any, rows: Any, **settings: Any) -> None:
            seen.extend([step.function is not double, list(rows), settings])

        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def run(self) -> list[Any]:
            return []

    monkeypatch.setattr(mapping, "PassingPool", Pool)
    mapping.map(double, rows, procs=3, mode="thread")
    assert seen[0] is is_bare and seen[1] in ([], [1], ["a"], [{"n": 1}]) and seen[2] == {"procs": 3}


def test_a_map_over_no_rows_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no iterable"):
        mapping.map(double, 3)  # type: ignore[arg-type]


def test_an_async_function_in_a_thread_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="not in a thread. Leave mode out"):
        settled((call(halve, mode="thread"),))
