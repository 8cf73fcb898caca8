"""Disks that are full, read-only or capped while a run works: exit 5 with what to do, and the same command goes on afterwards."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from history import acknowledged_rows, history_of
from runs import Run, ask_flags, until, write_rows
from scorecard import Promise, Scorecard
from servers import needs

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 3_000
PROMPTS = [f"row {number} says hello" for number in range(ROWS)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, two megabytes large. Where none can be mounted the test is skipped, in CI it fails."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount).returncode:
        if os.environ.get("CI"):
            pytest.fail("no file system can be mounted here, and CI has to be able to")
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


def unprivileged() -> tuple[str, ...]:
    """What makes the permissions of files hold for a command: nothing for a user's, and root's loses its power over them.

    It stays root, for another user may not be let into the folder that Python is in.
    """
    if os.geteuid():
        return ()
    powers = "-dac_override,-dac_read_search"
    return (needs("setpriv"), f"--inh-caps={powers}", f"--bounding-set={powers}")


@pytest.mark.not_quick
def test_a_folder_that_may_not_be_written_to_is_refused_before_anything_is_sent(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    source = write_rows(folder / "in.jsonl", 20)
    folder.chmod(0o555)
    with MockProcess() as mock:
        refused = Run(*ask_flags(mock.base_url, source, folder / "out.jsonl"), prefix=unprivileged())
        code = refused.wait()
        requests = mock.stats()["requests"]
        left = [path.name for path in folder.iterdir()]
        # It is the folder that is refused, and not whoever asks.
        allowed = Run(*ask_flags(mock.base_url, source, other / "out.jsonl"), prefix=unprivileged())
        assert allowed.summary()["ok"] == 20, allowed.err
    scorecard.add(Promise.P1_NO_LOSS, "a folder not to be written to", 1, int(requests > 0))
    assert (code, requests, left) == (2, 0, ["in.jsonl"]), refused.err
    assert "Traceback" not in refused.err
    assert "engine: " in refused.err and "not writable" in refused.err


@pytest.mark.quick(begun=[False])
@pytest.mark.parametrize("begun", [False, True])
def test_a_read_only_disk_is_refused_before_anything_is_sent(
    tmp_path: Path, small_disk: Path, begun: bool, scorecard: Scorecard
) -> None:
    output = small_disk / "out.jsonl"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    with MockProcess(MockSettings(latency="10ms", log=True, row_key="prompt")) as mock:
        if begun:
            first = start(mock, tmp_path, output)
            until(lambda: mock.stats()["ok"] > 200)
            first.kill()
            first.wait()
        kept = acknowledged_rows(output)
        # Open files forbid it, so that no run can be under way; for those there is test_disk_calls.
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        before = mock.stats()["requests"]
        refused = start(mock, tmp_path, output)
        code = refused.wait()
        sent = mock.stats()["requests"] - before
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        assert start(mock, tmp_path, output).summary()["ok"] == ROWS
        history = history_of(mock, PROMPTS, output)
    scorecard.add(Promise.P1_NO_LOSS, "read-only disk", 1, int(bool(history.lost(kept))))
    assert (code in (2, 5), sent) == (True, 0), refused.err
    assert "Traceback" not in refused.err
    assert "engine: " in refused.err and "writ" in refused.err
    assert bool(kept) is begun
    assert not history.lost(kept) and not history.unaccounted() and not history.wrong_bodies()


@pytest.mark.quick(kilobytes=[300])
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
