"""Every format of the table: what goes in comes out, whole, in order, and one bad row stays one bad row."""

import gzip
import io
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core.errors import UsageError
from engine.formats import FORMATS, format_named
from engine.sink import publish
from engine.source import Source

CAP = 1000
ROWS: list[dict[str, Any]] = [
    {"text": "plain", "n": 1},
    {"text": 'quotes " and, commas', "n": 2},
    {"text": "two\nlines", "n": 3},
    {"text": "snow ☃ \u2028 and 日本", "n": 4},
    {"text": "", "n": 5},
]
NAMES = list(FORMATS)
_NOT_UTF8 = {"csv": b"\xff\xfe,1", "tsv": b"\xff\xfe\t1"}


def encoded(rows: list[dict[str, Any]]) -> list[bytes]:
    return [msgspec.json.encode(row) for row in rows]


def written(folder: Path, name: str, rows: list[dict[str, Any]], ending: str = "") -> Path:
    path = folder / f"file{format_named(name).endings[0] if format_named(name).endings else '.jsonl'}{ending}"
    records = encoded(rows)
    columns = tuple(rows[0]) if name in ("csv", "tsv") else ()
    publish(lambda: records, str(path), name, columns=columns, notes={}, escape_cells=False)
    return path


def read(path: Path, name: str) -> list[dict[str, Any]]:
    source = Source(str(path), name, row_bytes_max=CAP)
    rows = [msgspec.json.decode(row.payload) for row in source]
    source.close()
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_rows_survive_the_way_out_and_in(tmp_path: Path, name: str) -> None:
    back = read(written(tmp_path, name, ROWS), name)
    assert [row["text"] or "" for row in back] == [row["text"] for row in ROWS]
    assert [int(row["n"]) for row in back] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", [name for name in NAMES if format_named(name).text])
def test_text_formats_are_gzipped_by_their_ending(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, ROWS, ".gz")
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert len(read(path, name)) == len(ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_numbered_and_their_digests_are_of_their_bytes(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, ROWS)
    sources = [Source(str(path), name, row_bytes_max=CAP) for _ in range(2)]
    first, second = (list(source) for source in sources)
    assert [row.row for row in first] == list(range(len(ROWS)))
    assert [row.digest for row in first] == [row.digest for row in second]
    assert len({row.digest for row in first}) == len(ROWS)
    for source in sources:
        source.close()


@pytest.mark.parametrize("name", NAMES)
def test_peeking_consumes_nothing(tmp_path: Path, name: str) -> None:
    source = Source(str(written(tmp_path, name, ROWS)), name, row_bytes_max=CAP)
    assert {"text", "n"} <= source.column_names(2)
    assert len(list(source)) == len(ROWS)
    source.close()


@pytest.mark.parametrize("name", [name for name in NAMES if format_named(name).text])
def test_a_row_over_the_cap_is_one_bad_row(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, [ROWS[0], {"text": "x" * 5000, "n": 9}, ROWS[1]])
    source = Source(str(path), name, row_bytes_max=CAP)
    rows = list(source)
    source.close()
    assert [bool(row.bad) for row in rows] == [False, True, False]


@pytest.mark.parametrize("name", [name for name in NAMES if format_named(name).text])
def test_bytes_that_are_not_utf8_are_one_bad_row(tmp_path: Path, name: str) -> None:
    good = written(tmp_path, name, [ROWS[0], ROWS[4]]).read_bytes().split(b"\n")
    path = tmp_path / "bad"
    path.write_bytes(b"\n".join([*good[:-2], _NOT_UTF8.get(name, b'{"text": "\xff\xfe"}'), *good[-2:]]))
    source = Source(str(path), name, row_bytes_max=CAP)
    rows = list(source)
    source.close()
    assert [bool(row.bad) for row in rows] == [False, True, False]
    assert "UTF-8" in rows[1].bad


def test_a_byte_order_mark_blank_lines_and_carriage_returns_are_no_content(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n\n{"a": 2}')
    source = Source(str(path), "jsonl", row_bytes_max=CAP)
    rows = list(source)
    source.close()
    assert [(row.payload, row.line) for row in rows] == [(b'{"a": 1}', 1), (b'{"a": 2}', 4)]


def test_an_endless_line_is_skipped_in_bounded_memory_and_its_neighbours_stay(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n')
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b'\n{"a": 2}\n')
    source = Source(str(path), "jsonl", row_bytes_max=CAP)
    rows = list(source)
    source.close()
    assert [bool(row.bad) for row in rows] == [False, True, False]
    assert len(rows[1].payload) <= 2 * CAP


def test_a_torn_gzip_keeps_the_rows_before_the_tear(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"a": %d, "pad": "%d"}\n' % (n, n**50) for n in range(2000)))
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    source = Source(str(path), "jsonl", row_bytes_max=CAP)
    rows = list(source)
    source.close()
    assert len(rows) > 100
    assert "damaged" in rows[-1].bad
    assert not any(row.bad for row in rows[:-1])


def test_cells_that_a_spreadsheet_would_run_are_disarmed_and_numbers_are_not(tmp_path: Path) -> None:
    risky = ["=1+1", "+cmd", "-2+3", "@SUM", "\tx", "\rx"]
    records = encoded([{"a": text, "n": -5} for text in risky])
    for escape in (True, False):
        path = tmp_path / f"{escape}.csv"
        publish(lambda: records, str(path), "csv", columns=("a", "n"), notes={}, escape_cells=escape)
        source = Source(str(path), "csv", row_bytes_max=CAP)
        rows = [msgspec.json.decode(row.payload) for row in source]
        source.close()
        assert [row["a"] for row in rows] == [("'" if escape else "") + text for text in risky]
        assert {row["n"] for row in rows} == {"-5"}


def test_columns_that_only_some_records_have_are_all_in_the_header(tmp_path: Path) -> None:
    records = encoded([{"a": 1}, {"b": 2}, {"a": 3, "c": [1]}])
    path = tmp_path / "out.csv"
    publish(lambda: records, str(path), "csv", columns=(), notes={}, escape_cells=True)
    assert path.read_text().splitlines() == ["a,b,c", "1,,", ",2,", "3,,[1]"]


def test_a_record_with_an_unannounced_column_is_written_all_the_same(tmp_path: Path) -> None:
    records = encoded([{"a": 1}, {"a": 2, "late": "x"}])
    path = tmp_path / "out.csv"
    publish(lambda: records, str(path), "csv", columns=("a",), notes={}, escape_cells=True)
    assert path.read_text().splitlines() == ["a,late", "1,", "2,x"]


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(UsageError, match="Parquet"):
        Source(str(path), "parquet", row_bytes_max=CAP)


def test_parquet_types_come_back_as_they_were(tmp_path: Path) -> None:
    import datetime
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "when": [datetime.datetime(2026, 1, 2, 3, 4, 5, 6)],
            "price": [Decimal("1.50")],
            "raw": [b"\x00\xff"],
            "day": [datetime.date(2026, 1, 2)],
            "list": [[1, 2]],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    source = Source(str(tmp_path / "in.parquet"), "parquet", row_bytes_max=CAP)
    records = [row.payload for row in source]
    notes, columns = source.notes, source.columns or ()
    source.close()
    publish(
        lambda: records,
        str(tmp_path / "out.parquet"),
        "parquet",
        columns=columns,
        notes=notes,
        escape_cells=True,
    )
    assert pq.read_table(tmp_path / "out.parquet").equals(table)


def test_every_format_refuses_nothing_silently(tmp_path: Path) -> None:
    for name in NAMES:
        one = format_named(name)
        assert one.name == name
        if one.text:
            assert list(one.reader(io.BytesIO(b""), row_bytes_max=CAP)) == []
