"""Disks that are full, read-only or capped while a run works: exit 5 with what to do, and the same command goes on afterwards."""

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from history import acknowledged_rows, history_of
from runs import Run, ask_flags, until, write_rows
from scorecard import Promise, Scorecard

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 3_000
PROMPTS = [f"row {number} says hello" for number in range(ROWS)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, two megabytes large."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]).returncode
    ):
        pytest.skip("mounting a file system needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def start(mock: MockProcess, folder: Path, output: Path) -> Run:
    source = folder / "in.jsonl"
    if not source.exists():
        write_rows(source, ROWS)
    return Run(*ask_flags(mock.base_url, source, output, "--procs", "2", "--in-flight", "64"))


def fill(path: Path) -> None:
    """A file that takes all the room there is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(descriptor, bytes(4096)):
            pass
    except OSError as error:
        assert error.errno == errno.ENOSPC
    finally:
        os.close(descriptor)


def stopped_with_a_sentence(started: Run) -> None:
    assert started.wait() == 5, started.err
    assert "Traceback" not in started.err
    assert "same command" in started.err


def test_a_full_disk_stops_the_run_and_loses_nothing(
    tmp_path: Path, small_disk: Path, scorecard: Scorecard
) -> None:
    output = small_disk / "out.jsonl"
    with MockProcess(MockSettings(latency="10ms", log=True, row_key="prompt")) as mock:
        stopped = start(mock, tmp_path, output)
        until(lambda: mock.stats()["ok"] > 200)
        fill(small_disk / "ballast")
        stopped_with_a_sentence(stopped)
        assert "disk" in stopped.err or "space" in stopped.err
        kept = acknowledged_rows(output)
        (small_disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        summary = start(mock, tmp_path, output).summary()
        history = history_of(mock, PROMPTS, output)
    wrong = history.faults(acknowledged=kept)
    wrong.pop("unrecorded_attempts", None)  # what came back and could not be written is not recorded
    wrong.pop("repeated_beyond_doubt", None)
    scorecard.add(Promise.P1_NO_LOSS, "full disk", 1, int(bool(wrong)))
    assert not wrong
    assert summary["ok"] == ROWS
    assert summary["resumed"] == len(kept) > 0


def test_a_disk_that_becomes_read_only_stops_the_run_and_loses_nothing(
    tmp_path: Path, small_disk: Path, scorecard: Scorecard
) -> None:
    output = small_disk / "out.jsonl"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    with MockProcess(MockSettings(latency="10ms", log=True, row_key="prompt")) as mock:
        stopped = start(mock, tmp_path, output)
        until(lambda: mock.stats()["ok"] > 200)
        # A plain remount is refused while files are open for writing.
        done = subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], capture_output=True)
        if done.returncode:
            stopped.clear_away()
            pytest.skip("this kernel does not make a file system read-only under open files")
        stopped_with_a_sentence(stopped)
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        kept = acknowledged_rows(output)
        assert start(mock, tmp_path, output).summary()["ok"] == ROWS
        history = history_of(mock, PROMPTS, output)
    scorecard.add(Promise.P1_NO_LOSS, "read-only disk", 1, int(bool(history.lost(kept))))
    assert not history.lost(kept) and not history.unaccounted() and not history.wrong_bodies()


@pytest.mark.parametrize("kilobytes", [100, 300, 700])
def test_a_cap_on_file_sizes_stops_the_run_and_loses_nothing(
    tmp_path: Path, kilobytes: int, scorecard: Scorecard
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(latency="10ms", log=True, row_key="prompt")) as mock:
        flags = ask_flags(mock.base_url, source, output, "--procs", "2", "--in-flight", "64")
        stopped = Run(*flags, prefix=("bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash"))
        stopped_with_a_sentence(stopped)
        kept = acknowledged_rows(output)
        assert Run(*flags).summary()["ok"] == ROWS
        history = history_of(mock, PROMPTS, output)
    scorecard.add(Promise.P1_NO_LOSS, "capped files", 1, int(bool(history.lost(kept))))
    assert not history.lost(kept) and not history.unaccounted() and not history.wrong_bodies()


def test_a_store_that_was_cut_or_changed_is_never_read_as_if_it_were_whole(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 400), tmp_path / "out.jsonl"
    with MockProcess(MockSettings(latency="10ms", log=True, row_key="prompt")) as mock:
        flags = ask_flags(mock.base_url, source, output, "--procs", "2", "--in-flight", "32")
        first = Run(*flags)
        until(lambda: mock.stats()["ok"] > 150)
        first.kill()
        first.wait()
        time.sleep(0.3)
        store = Path(f"{output}.run") / "store.db"
        whole = store.read_bytes()
        store.write_bytes(whole[: len(whole) // 2])
        broken = Run(*flags)
        code = broken.wait()
        assert "Traceback" not in broken.err
        assert code in (0, 5), broken.err  # all of it may have been in the log still
        if code:
            store.write_bytes(whole)
            again = Run(*flags)
            assert again.wait() == 0, again.err
        history = history_of(mock, [f"row {number} says hello" for number in range(400)], output)
    scorecard.add(Promise.P1_NO_LOSS, "damaged store", 1, int(bool(history.unaccounted())))
    assert not history.unaccounted() and not history.wrong_bodies() and not history.duplicated()
