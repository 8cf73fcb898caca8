"""CSV in and out: broken quotes cost their own line, cells come back as they were."""

import csv
import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import UsageError
from engine.formats.csv import CSV, TSV, ordered_columns, unique_names


def read(data: bytes, cap: int = 10_000) -> list[list[str] | str]:
    """Each row's cells, or why it is bad."""
    rows = CSV.reader(io.BytesIO(data), row_bytes_max=cap)
    return [row.bad or list(msgspec.json.decode(row.payload).values()) for row in rows]


def written(rows: list[dict[str, Any]], columns: tuple[str, ...], escape_cells: bool = True) -> bytes:
    stream = io.BytesIO()
    writer = CSV.writer(stream, columns=columns, notes={}, escape_cells=escape_cells)
    writer.write([msgspec.json.encode(row) for row in rows])
    writer.finish()
    return stream.getvalue()


def test_quoted_newlines_quotes_and_delimiters_are_text() -> None:
    assert read(b'a,b\n"x\r\ny","q ""z"", w"\n1,2\n') == [["x\r\ny", 'q "z", w'], ["1", "2"]]


def test_a_mark_and_spaces_around_header_names_go() -> None:
    reader = CSV.reader(io.BytesIO(b"\xef\xbb\xbf id, text \r\n1,x\r\n"), row_bytes_max=100)
    assert reader.columns == ("id", "text")


def test_columns_of_one_name_are_told_apart() -> None:
    assert unique_names(["a", "a", "a_2", "", "a"]) == ("a", "a_3", "a_2", "column_4", "a_4")
    assert len(set(unique_names(["x"] * 10_000))) == 10_000


def test_a_missing_cell_is_empty_and_empty_cells_too_many_are_dropped() -> None:
    assert read(b"a,b,c\n1\n1,2,3,,\n") == [["1", "", ""], ["1", "2", "3"]]


def test_cells_too_many_make_a_bad_row_that_says_so() -> None:
    bad, good = read(b"a,b\n1,2,3\n4,5\n")
    assert "line 2: 3 cells where the header has 2" in bad
    assert good == ["4", "5"]


@pytest.mark.parametrize(
    "torn",
    [b'1,"open', b'1,"open,x', b'"open', b'1,"a" "b', b"1,a\rb"],
)
@pytest.mark.parametrize("after", [[b'2,"q"', b"3,x"], [b"2,b", b'3,"c, d"', b"4,e"], [b"2,b"], []])
def test_a_torn_line_costs_no_other_line(torn: bytes, after: list[bytes]) -> None:
    rows = read(b"\n".join([b"id,text", b"0,ok", torn, *after]) + b"\n")
    assert rows[0] == ["0", "ok"]
    assert [row[0] for row in rows[2:]] == [line.decode()[0] for line in after]


def test_sloppy_quotes_that_end_on_their_line_are_forgiven() -> None:
    assert read(b'a,b\n"x" y,z\n') == [["x y", "z"]]


def test_lines_after_a_torn_quote_are_not_padded_into_rows() -> None:
    rows = read(b'id,text\n1,"' + b"y\n" * 30 + b'y"\n2,ok\n', cap=40)
    assert rows[-1] == ["2", "ok"]
    assert all(isinstance(row, str) for row in rows[:-1])


def test_a_cell_larger_than_the_csv_modules_own_limit_is_read() -> None:
    assert read(b"a,b\n1," + b"x" * 200_000 + b"\n", cap=300_000) == [["1", "x" * 200_000]]


def test_bytes_that_are_not_utf8_cost_their_row_only() -> None:
    assert read(b"a,b\n1,caf\xe9\n2,caf\xc3\xa9\n") == ["line 2 is not UTF-8", ["2", "café"]]


def test_nul_bytes_are_text() -> None:
    assert read(b"a,b\n1,\x00\n") == [["1", "\x00"]]


@pytest.mark.parametrize("header", [b"caf\xe9,b\n", b'a,"b\n1,2\n', b"a\rb,c\n"])
def test_a_header_that_cannot_be_read_is_refused(header: bytes) -> None:
    with pytest.raises(UsageError, match="header"):
        CSV.reader(io.BytesIO(header), row_bytes_max=100)


def test_ten_thousand_columns_are_no_trouble() -> None:
    header = b",".join(b"c%d" % n for n in range(10_000))
    assert len(read(header + b"\n" + b"," * 9_999 + b"\n", cap=200_000)[0]) == 10_000


def test_tabs_separate_cells_of_tsv() -> None:
    (row,) = TSV.reader(io.BytesIO(b"a\tb\n1,5\tx\n"), row_bytes_max=100)
    assert msgspec.json.decode(row.payload) == {"a": "1,5", "b": "x"}


def test_cells_are_written_by_their_type() -> None:
    row = {"n": -5, "f": 1.5, "t": True, "no": None, "list": [1, "x"], "s": "=1"}
    assert written([row], tuple(row)).decode().splitlines()[1] == '-5,1.5,true,,"[1,""x""]",\'=1'


@pytest.mark.parametrize("text", ["-5", "+1.5e-3", "-.5", "-1."])
def test_text_that_is_a_plain_number_is_not_escaped(text: str) -> None:
    assert written([{"a": text}], ("a",)).decode().splitlines()[1] == text


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=5))
def test_any_text_survives_the_way_out_and_in_again(cells: list[list[str]]) -> None:
    rows = [dict(zip(("a", "b"), pair, strict=True)) for pair in cells]
    assert read(written(rows, ("a", "b"), escape_cells=False)) == [list(row) for row in cells]


@given(st.text(alphabet="=+-@\t\r\0a1. e", max_size=6))
def test_no_escaped_cell_begins_like_a_formula(text: str) -> None:
    (line,) = list(csv.reader(io.StringIO(written([{"a": text, "b": ""}], ("a", "b")).decode(), newline="")))[
        1:
    ]
    cell = line[0]
    assert cell == text or cell == "'" + text
    if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\0")):
        float(cell)


def test_the_engines_own_columns_stay_at_the_end() -> None:
    assert ordered_columns(["_status", "_error", "a", "_model", "b"]) == (
        "a",
        "b",
        "_status",
        "_error",
        "_model",
    )
