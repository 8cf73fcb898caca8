"""The output appears whole or not at all."""

import os
from pathlib import Path

import pytest

from engine.core.errors import StoreFailure, UsageError
from engine.sink import StreamOut, check_output, publish


def out(path: Path, records: list[bytes]) -> int:
    return publish(lambda: records, str(path), "jsonl", columns=(), notes={}, escape_cells=True)


def test_an_old_output_stays_whole_until_the_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")

    def failing() -> list[bytes]:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreFailure, match="engine export"):
        publish(failing, str(path), "jsonl", columns=(), notes={}, escape_cells=True)
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]
    assert out(path, [b'{"a":1}']) == 1
    assert path.read_text() == '{"a":1}\n'


def test_a_missing_folder_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        check_output(str(tmp_path / "none" / "out"), "", "")
    assert not (tmp_path / "none").exists()


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        check_output(str(tmp_path), "", "")


def test_records_stream_out_in_the_order_they_come() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        StreamOut(stream).write([b"1", b"2"])
        StreamOut(stream).write([])
    with os.fdopen(reading, "rb") as stream:
        assert stream.read() == b"1\n2\n"
