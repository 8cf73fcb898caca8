"""Parquet: the input's types come back, whatever they are and whatever took a column's place."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.core.errors import UsageError
from engine.formats import parquet
from engine.sink import publish
from engine.source import Source


def through(folder: Path, table: Any, **answers: Any) -> Any:
    """The table that comes out when each record also gets ``answers``."""
    pq.write_table(table, folder / "in.parquet")
    source = Source(str(folder / "in.parquet"), "parquet", row_bytes_max=1 << 20)
    rows = list(source)
    assert not any(row.bad for row in rows)
    records = [json.dumps({**json.loads(row.payload), **answers}).encode() for row in rows]
    columns = (*(name for name in source.columns or () if name not in answers), *answers)
    out = str(folder / "out.parquet")
    publish(lambda: records, out, "parquet", columns=columns, notes=source.notes, escape_cells=True)
    source.close()
    return pq.read_table(out)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int8(), [1, None, -128]),
        (pa.uint64(), [2**64 - 1]),
        (pa.float32(), [1.5]),
        (pa.string(), ["x", ""]),
        (pa.large_string(), ["x"]),
        (pa.binary(), [b"\x00\xff", None]),
        (pa.binary(2), [b"ab"]),
        (pa.decimal128(10, 2), [Decimal("1.50")]),
        (pa.date32(), [dt.date(2026, 1, 2)]),
        (pa.time64("us"), [dt.time(1, 2, 3, 4)]),
        (pa.timestamp("ms", "Europe/Berlin"), [dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), None]),
        (pa.timestamp("us"), [dt.datetime(2026, 1, 2, 3, 4, 5, 6)]),
        (pa.timestamp("ns"), [1, 1_700_000_000_000_000_001, None]),
        (pa.timestamp("ns", "UTC"), [1_700_000_000_000_000_001]),
        (pa.duration("us"), [dt.timedelta(seconds=3)]),
        (pa.dictionary(pa.int32(), pa.string()), ["a", "b", "a"]),
        (pa.list_(pa.int64()), [[1, None], []]),
        (pa.map_(pa.string(), pa.int64()), [[("a", 1)]]),
        (
            pa.struct([("at", pa.timestamp("us")), ("raw", pa.list_(pa.binary()))]),
            [{"at": dt.datetime(2026, 1, 2), "raw": [b"x", None]}],
        ),
    ],
    ids=str,
)
def test_every_type_comes_back_as_it_was(tmp_path: Path, kind: Any, values: list[Any]) -> None:
    table = pa.table({"c": pa.array(values, kind)})
    out = through(tmp_path, table, response="answer")
    assert out.column("c").type == kind
    assert out.select(["c"]).equals(table)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("text", pa.string()),
        (1.5, pa.float64()),
        ([0.5, 1], pa.list_(pa.float64())),
        (True, pa.bool_()),
        ({"a": 1}, pa.string()),
    ],
)
def test_an_answer_in_an_input_columns_place_has_its_own_type(tmp_path: Path, answer: Any, kind: Any) -> None:
    out = through(tmp_path, pa.table({"c": [1, 2]}), c=answer)
    assert out.column("c").type == kind
    value = out.column("c")[0].as_py()
    assert (json.loads(value) if isinstance(answer, dict) else value) == answer


def test_a_year_that_python_does_not_have_is_text(tmp_path: Path) -> None:
    table = pa.table({"c": pa.array([253402300800 * 10**6, 0], pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "in.parquet")
    source = Source(str(tmp_path / "in.parquet"), "parquet", row_bytes_max=1000)
    assert [json.loads(row.payload)["c"][:5] for row in source] == ["10000", "1970-"]
    source.close()


def test_text_that_is_not_utf8_costs_its_row_only(tmp_path: Path) -> None:
    array = pa.array([b"good", b"\xff", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"c": array}), tmp_path / "in.parquet")
    source = Source(str(tmp_path / "in.parquet"), "parquet", row_bytes_max=1000)
    rows = list(source)
    source.close()
    assert [bool(row.bad) for row in rows] == [False, True, False]
    assert "record 2" in rows[1].bad


def test_columns_of_one_name_are_told_apart(tmp_path: Path) -> None:
    table = pa.table([pa.array([1]), pa.array(["x"])], names=["a", "a"])
    out = through(tmp_path, table)
    assert out.to_pylist() == [{"a": 1, "a_2": "x"}]


def test_a_row_over_the_cap_is_one_bad_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"c": ["x", "y" * 500, "z"]}), tmp_path / "in.parquet")
    source = Source(str(tmp_path / "in.parquet"), "parquet", row_bytes_max=100)
    assert [bool(row.bad) for row in source] == [False, True, False]
    source.close()


def published(folder: Path, records: list[bytes]) -> Any:
    out = str(folder / "out.parquet")
    publish(lambda: records, out, "parquet", columns=(), notes={}, escape_cells=True)
    return pq.read_table(out)


def test_types_of_lines_are_inferred_over_all_of_them(tmp_path: Path) -> None:
    records = [
        b'{"n":1,"m":"a","z":null,"_status":"ok","_attempts":null}',
        b'{"n":2.5,"m":[1],"late":%b,"_status":"ok"}' % (b"9" * 5000),
    ]
    out = published(tmp_path, records)
    assert out.schema.names == ["n", "m", "z", "late", "_status", "_attempts"]
    assert out.column("n").to_pylist() == [1.0, 2.5]
    assert out.column("m").to_pylist() == ['"a"', "[1]"]
    assert out.column("late").to_pylist() == [None, "9" * 5000]
    assert out.schema.field("_attempts").type == pa.int64()


def test_rows_are_written_in_groups_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1000)
    published(tmp_path, [b'{"a":"%b"}' % (b"x" * 300)] * 10)
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups >= 3


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"c": list(range(1000))}), tmp_path / "in.parquet")
    whole = (tmp_path / "in.parquet").read_bytes()
    (tmp_path / "in.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="not a whole Parquet file"):
        Source(str(tmp_path / "in.parquet"), "parquet", row_bytes_max=1000)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", [pa.int64(), pa.decimal128(10, 2)])
@pytest.mark.parametrize("text", ["1E+999999999", "1E-999999999", "-1e999999999"])
def test_a_number_of_more_digits_than_memory_has_room_for_is_never_written_out(kind: Any, text: str) -> None:
    for value in (text, Decimal(text)):
        with pytest.raises((pa.ArrowException, TypeError, ValueError, ArithmeticError)):
            parquet._restored([value], kind)


def test_large_rows_become_values_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1_000)
    table = pa.table({"n": list(range(100)), "text": [f"{n} " + "x" * 100 for n in range(100)]})
    assert through(tmp_path, table).equals(table)
    batch = table.to_batches()[0]
    assert [part.num_rows for part in parquet._parts(batch)] == [1] * 100
