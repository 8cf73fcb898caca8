"""Rows from a program's objects: what each becomes, how far they are read, and what becomes of faults."""

import collections
import dataclasses
import datetime
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import pandas
import pytest

from engine.rows import PartSource, RowsFailed, RowsSource, column_of, payload_of


def source_of(rows: Any, **changes: Any) -> RowsSource:
    return RowsSource(rows, **{"ahead_max": 1000, "row_bytes_max": 1000, **changes})


class Number:
    """As numpy's are."""

    def tolist(self) -> int:
        return 7


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date


Pair = collections.namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("row", "payload"),
    [
        ({"a": 1, "b": "ü"}, '{"a":1,"b":"ü"}'),
        ("a text", '{"text":"a text"}'),
        (3, '{"value":3}'),
        ([1, 2], '{"value":[1,2]}'),
        (None, '{"value":null}'),
        (Point(1, datetime.date(2026, 1, 2)), '{"x":1,"when":"2026-01-02"}'),
        ({"n": Number(), "nan": float("nan")}, '{"n":7,"nan":null}'),
        (collections.ChainMap({"a": 1}, {"b": 2}), '{"b":2,"a":1}'),
        ({"big": 10**30}, '{"big":1000000000000000000000000000000}'),
        (Pair(1, [2]), '{"left":1,"right":[2]}'),
        ({"at": pandas.Timestamp("2026-01-02")}, '{"at":"2026-01-02T00:00:00"}'),
        (pandas.Series({"a": "x", "n": 1.0, "none": float("nan")}), '{"a":"x","n":1.0,"none":null}'),
    ],
)
def test_a_row_becomes_a_json_object(row: object, payload: str) -> None:
    assert payload_of(row).decode() == payload


def test_rows_of_a_frame_are_rows_as_they_come() -> None:
    frame = pandas.DataFrame({"text": ["a"], "n": [1]})
    assert [payload_of(row) for row in frame.itertuples(index=False)] == [b'{"text":"a","n":1}']
    assert [payload_of(row) for _, row in frame.iterrows()] == [b'{"text":"a","n":1}']
    assert [column_of(row) for row in frame.itertuples()] == [""]


@pytest.mark.parametrize("row", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_bytes_are_no_row(row: object) -> None:
    (found,) = source_of([row])
    assert "it is bytes; decode them to text first" in found.bad
    assert payload_of({"data": b"abc"}) == b'{"data":"YWJj"}'  # inside a row they are, as base64


class Unwilling:
    """Its own conversion raises something of its own."""

    def tolist(self) -> None:
        raise KeyError("not today")


def test_a_row_that_is_no_json_is_bad_and_its_neighbours_are_not() -> None:
    loop: list[Any] = []
    loop.append(loop)
    rows = ["one", object(), "\ud800", {"loop": loop}, "x" * 2000, {(1, 2): 3}, Unwilling(), "last"]
    source = source_of(rows)
    found = list(source)
    assert [row.row for row in found] == list(range(8))
    assert [bool(row.bad) for row in found] == [False, True, True, True, True, True, True, False]
    assert all(row.payload == b"" for row in found if row.bad)
    assert [source.take(number) for number in range(8)] == rows


def test_rows_are_read_no_further_than_results_are_taken() -> None:
    made = 0

    def rows() -> Iterator[int]:
        nonlocal made
        while True:
            made += 1
            yield made

    source = source_of(rows(), ahead_max=8)
    reading = iter(source)
    assert [next(reading).row for _ in range(8)] == list(range(8))
    waits: list[int] = []

    def on_wait() -> None:
        waits.append(made)
        for number in range(len(waits) * 2 - 2, len(waits) * 2):
            source.take(number)

    source.tell_waits(on_wait)
    assert next(reading).row == 8
    assert waits[0] == 8  # while nothing was taken, nothing was read
    source.close()


def test_rows_of_many_bytes_are_held_in_small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.rows.AHEAD_BYTES", 500)
    source = source_of("x" * 90 for _ in range(50))
    first = [row.row for _, row in zip(range(5), source, strict=False)]
    assert first == [0, 1, 2, 3, 4]
    assert len(source._held) == 5
    source.close()


def test_a_look_ahead_consumes_nothing_and_waits_for_no_more_than_it_needs() -> None:
    come = threading.Event()

    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        assert come.wait(10)
        yield {"b": 2}

    source = source_of(rows())
    assert source.column_names(enough=frozenset("a")) == {"a"}
    come.set()
    assert source.column_names() == {"a", "b"}
    assert [row.row for row in source] == [0, 1]


def test_what_the_iterable_raises_comes_after_the_rows_before_it() -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("enough")

    source = source_of(rows())
    reading = iter(source)
    assert next(reading).row == 0
    with pytest.raises(RowsFailed, match="ZeroDivisionError: enough") as caught:
        next(reading)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_rows_that_belong_to_another_thread_are_told_about() -> None:
    database = sqlite3.connect(":memory:")
    cursor = database.execute("select 'a' as text")
    with pytest.raises(RowsFailed) as caught:
        list(source_of({"text": text} for (text,) in cursor))
    assert isinstance(caught.value.__cause__, sqlite3.ProgrammingError)
    assert "check_same_thread=False" in caught.value.__cause__.__notes__[0]
    database.close()


def test_closing_ends_the_reading_though_the_iterable_hangs() -> None:
    asked, come = threading.Event(), threading.Event()

    def rows() -> Iterator[int]:
        asked.set()
        come.wait(10)
        yield 1

    source = source_of(rows())
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.extend(source))
    reader.start()
    assert asked.wait(10)
    source.close()
    reader.join(10)
    assert not reader.is_alive() and found == []
    come.set()
    assert source._thread is not None
    source._thread.join(10)


def test_rows_that_can_be_read_again_are_the_same_and_are_held_once() -> None:
    rows = ["a", "b", "c"]
    source = source_of(rows, again=lambda: rows, total=3, ahead_max=2)
    twin = source.again()
    assert twin is not None
    digests = [row.digest for row in twin]  # more than may be held
    reading = iter(source)
    first = [next(reading) for _ in range(2)]
    source.take(0), source.take(1)
    assert digests == [row.digest for row in [*first, *reading]]
    assert source.rows_estimate() == 3
    assert source_of(iter(rows)).again() is None


def test_a_part_keeps_its_numbers() -> None:
    source = PartSource([(3, "three"), (8, "eight")], ahead_max=10, row_bytes_max=100)
    assert source.is_part and not source_of([]).is_part
    assert [(row.row, row.line) for row in source] == [(3, 4), (8, 9)]
    assert source.take(8) == "eight"
