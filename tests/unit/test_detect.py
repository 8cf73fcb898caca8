"""Formats are told by name, else by content."""

import io
import os
from pathlib import Path

import pytest

from engine.core.errors import UsageError
from engine.formats.detect import by_content, detect


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", ("jsonl", False)),
        ("a.ndjson.gz", ("jsonl", True)),
        ("A.CSV", ("csv", False)),
        ("a.csv.gz", ("csv", True)),
        ("a.tsv", ("tsv", False)),
        ("a.parquet", ("parquet", False)),
    ],
)
def test_the_ending_tells_the_format(name: str, expected: tuple[str, bool]) -> None:
    assert detect(name, content=False) == expected


def test_batch_lines_are_recognised_behind_any_json_ending(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text('{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n')
    assert detect(str(path))[0] == "openai-batch"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b'{"a": 1}\n', "jsonl"),
        (b"a,b\n1,2\n", "csv"),
        (b"PAR1....", "parquet"),
        (b"\xef\xbb\xbf{}", "jsonl"),
    ],
)
def test_content_tells_where_the_ending_does_not(head: bytes, expected: str) -> None:
    assert by_content(head) == expected


def test_one_json_array_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="jq"):
        by_content(b'[{"a": 1}]')


def test_a_name_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not clear"):
        detect(str(tmp_path / "out.xyz"), content=False)


def test_a_line_that_is_an_array_is_a_bad_row_and_not_the_whole_input() -> None:
    assert by_content(b'[1, 2]\n{"a": 1}\n') == "jsonl"


@pytest.mark.parametrize(
    "head", [b'[\n  {"a": 1}\n]', b'{\n  "a": 1\n}', b"PK\x03\x04....", b"\x28\xb5\x2f\xfd.."]
)
def test_what_is_no_stream_of_rows_is_refused(head: bytes) -> None:
    with pytest.raises(UsageError, match="The input is"):
        by_content(head)


def test_a_pipe_under_a_name_is_not_drained_to_guess_its_format() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"a": 1}\n')
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        with pytest.raises(UsageError, match="give the format"):
            detect(f"/dev/fd/{reading}")
        assert stream.read() == b'{"a": 1}\n'


def test_standard_input_is_told_by_its_content_and_not_consumed(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.BufferedReader(io.BytesIO(b"a,b\n1,2\n"))
    monkeypatch.setattr("engine.formats.detect.standard_input", lambda: stdin)
    assert detect("-") == ("csv", False)
    assert stdin.read() == b"a,b\n1,2\n"
    assert detect("-", content=False) == ("jsonl", False)
