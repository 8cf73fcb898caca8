"""The folder of a run's sockets, and what runs that were killed left behind beside it."""

import os
import tempfile
from pathlib import Path

import pytest

from engine.coordinator import run

GONE = 2**22 + 1  # beyond the largest process id that Linux gives


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_run_left_is_removed_and_what_a_live_one_has_is_not(place: Path) -> None:
    left, live = place / f"engine-{GONE}-a", place / f"engine-{os.getppid()}-b"
    left.mkdir()
    live.mkdir()
    assert run._socket_folder().is_dir()
    assert (left.exists(), live.exists()) == (False, True)


def test_a_folder_that_another_run_removes_first_is_no_fault(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = place / f"engine-{GONE}-a"
    left.mkdir()

    def others_were_faster(pid: int) -> bool:
        left.rmdir()
        return False

    monkeypatch.setattr(run.psutil, "pid_exists", others_were_faster)
    assert run._socket_folder().is_dir()
