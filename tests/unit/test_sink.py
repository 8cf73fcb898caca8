"""The output appears whole or not at all."""

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.core.errors import EngineError, ExitCode, StoreFailure, UsageError
from engine.sink import ReaderLeft, StreamOut, check_output, publish


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


def test_a_device_or_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for output in ("/dev/null", str(tmp_path / "pipe")):
        with pytest.raises(UsageError, match="device or a pipe"):
            check_output(output, "", "")


def test_the_input_is_never_the_output_not_even_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("{}\n")
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(UsageError, match="is the input"):
        check_output(str(tmp_path / "link"), "", str(tmp_path / "in"))


def test_a_link_stays_a_link_and_a_private_file_stays_private(tmp_path: Path) -> None:
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    real.write_text("old\n")
    real.chmod(0o600)
    link.symlink_to(real.name)
    out(link, [b"{}"])
    assert link.is_symlink()
    assert real.read_text() == "{}\n"
    assert real.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_output_has_the_users_own_mode_once_it_is_whole(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "out.jsonl"
    modes = []

    def records() -> list[bytes]:
        modes.extend(file.stat().st_mode & 0o777 for file in tmp_path.iterdir())
        return [b"{}"]

    before = os.umask(umask)
    try:
        publish(records, str(path), "jsonl", columns=(), notes={}, escape_cells=True)
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert path.stat().st_mode & 0o777 == mode


def test_a_compressed_output_is_whole_also_after_a_second_pass(tmp_path: Path) -> None:
    path = tmp_path / "out.csv.gz"
    records = [b'{"a":1}'] * 600 + [b'{"b":1}']
    publish(lambda: records, str(path), "csv", columns=("a",), notes={}, escape_cells=True)
    assert gzip.decompress(path.read_bytes()).decode().splitlines() == ["a,b", *["1,"] * 600, ",1"]


def test_records_that_never_hold_still_are_a_failure_and_not_an_endless_loop(tmp_path: Path) -> None:
    calls = iter(range(1000))

    def records() -> list[bytes]:
        return [b'{"c%d":1}' % next(calls)]

    with pytest.raises(StoreFailure, match="keep changing"):
        publish(records, str(tmp_path / "out.csv"), "csv", columns=("a",), notes={}, escape_cells=True)
    assert list(tmp_path.iterdir()) == []


def test_csv_streams_when_its_columns_are_known_and_is_refused_when_not() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        StreamOut(stream, format_name="csv", columns=("a",)).write([b'{"a":"x"}'])
    with os.fdopen(reading, "rb") as stream:
        assert stream.read() == b"a\nx\n"
    for name in ("csv", "parquet"):
        with pytest.raises(UsageError, match="streamed"):
            StreamOut(io.BytesIO(), format_name=name)


def test_a_reader_that_left_and_a_full_disk_are_told_apart() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stream, pytest.raises(ReaderLeft):
        StreamOut(stream).write([b"{}"])
    with Path("/dev/full").open("wb") as stream, pytest.raises(StoreFailure, match="No space"):
        StreamOut(stream).write([b"{}"])


def test_an_output_with_another_number_of_rows_than_were_read_does_not_appear(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    with pytest.raises(EngineError, match="2 rows where 3 were read") as caught:
        publish(lambda: [b"{}"] * 2, str(path), "jsonl", columns=(), notes={}, escape_cells=True, rows=3)
    assert caught.value.exit_code is ExitCode.INTERNAL
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f".out.jsonl.{ended.pid}-0badcafe.tmp"
    busy = tmp_path / f".out.jsonl.{os.getpid()}-0badcafe.tmp"
    other = tmp_path / ".out.jsonl.backup.tmp"
    for path in (left, busy, other):
        path.write_text("half")
    out(tmp_path / "out.jsonl", [b"{}"])
    assert not left.exists()
    assert busy.exists()
    assert other.exists()
