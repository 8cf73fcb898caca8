"""The source opens what can be read, says why for the rest, and numbers rows."""

import gzip
import os
from pathlib import Path

import pytest

from engine import source as source_module
from engine.core.errors import UsageError
from engine.source import Source


def rows_of(path: str, name: str = "jsonl") -> list[tuple[int, int, bytes]]:
    source = Source(path, name, row_bytes_max=1 << 20)
    rows = [(row.row, row.line, row.payload) for row in source]
    source.close()
    return rows


@pytest.mark.parametrize("what", ["none", "folder"])
def test_an_input_that_cannot_be_opened_is_a_sentence(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="does not exist|is a folder"):
        Source(str(tmp_path / what), "jsonl", row_bytes_max=100)


def test_an_empty_input_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    assert rows_of(str(tmp_path / "in"), "jsonl") == rows_of(str(tmp_path / "in"), "csv") == []


def test_rows_count_from_0_and_lines_from_1_without_the_blank_ones(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'\n{"a":1}\n\n{"a":2}')
    assert rows_of(str(tmp_path / "in")) == [(0, 2, b'{"a":1}'), (1, 4, b'{"a":2}')]


def test_gzip_is_recognised_by_content_whatever_the_name(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(gzip.compress(b'{"a":1}\n'))
    assert rows_of(str(tmp_path / "in.jsonl")) == [(0, 1, b'{"a":1}')]


def test_a_tsv_file_is_separated_by_tabs(tmp_path: Path) -> None:
    (tmp_path / "in.tsv").write_bytes(b"a\tb\n1\t2\n")
    assert rows_of(str(tmp_path / "in.tsv"), "tsv") == [(0, 2, b'{"a":"1","b":"2"}')]


def test_a_pipe_under_a_name_is_read_whole(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"a":1}\n{"a":2}\n')
    os.close(writing)
    try:
        assert len(rows_of(f"/dev/fd/{reading}")) == 2
    finally:
        os.close(reading)


def test_column_names_are_the_headers_or_those_of_the_first_records(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"a":1}\nnot json\n{"b":2}\n')
    source = Source(str(tmp_path / "in.jsonl"), "jsonl", row_bytes_max=100)
    assert source.column_names() == {"a", "b"}
    assert len(list(source)) == 3
    source.close()


def test_no_more_rows_are_waited_for_than_it_takes_to_know_the_columns() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"a":1}\n{"b":1}\n')  # and the pipe stays open
    try:
        source = Source(f"/dev/fd/{reading}", "jsonl", row_bytes_max=100)
        assert source.column_names(enough=frozenset("ab")) == {"a", "b"}
        assert source.again() is None
        source.close()
    finally:
        os.close(writing)
        os.close(reading)


def test_what_is_held_to_be_peeked_at_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "PEEK_BYTES_MAX", 1000)
    (tmp_path / "in.jsonl").write_bytes(b'{"a":"%b"}\n' % (b"x" * 400) * 50)
    source = Source(str(tmp_path / "in.jsonl"), "jsonl", row_bytes_max=10_000)
    assert len(source.peek(100)) == 3
    assert [row.row for row in source] == list(range(50))
    source.close()


def test_a_changed_byte_changes_the_digest_of_a_bad_row_too(tmp_path: Path) -> None:
    digests = set()
    for last in b"ab":
        (tmp_path / "in.jsonl").write_bytes(b"x" * 500 + bytes([last]))
        source = Source(str(tmp_path / "in.jsonl"), "jsonl", row_bytes_max=100)
        (row,) = source
        assert row.bad
        digests.add(row.digest)
        source.close()
    assert len(digests) == 2
    assert all(-(2**63) <= digest < 2**63 for digest in digests)
