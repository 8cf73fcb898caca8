"""The state folder: whose it is while it is moved, and what is said when it cannot be had."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from engine.core.errors import ExitCode, StoreFailure, UsageError
from engine.store import folder as folder_module
from engine.store.folder import create_private_file, folder_trouble, hold_folder, move_aside


def test_a_folder_that_is_moved_aside_while_it_is_being_locked_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, aside = tmp_path / "run", tmp_path / "run.old-1"
    calls = 0

    def moved_just_before(descriptor: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            folder.rename(aside)
        flock(descriptor, operation)

    flock = fcntl.flock
    monkeypatch.setattr(folder_module.fcntl, "flock", moved_just_before)
    hold = hold_folder(folder)
    assert calls == 2
    assert (folder / "lock").read_text() == f"{os.getpid()}\n"
    assert (aside / "lock").read_text() == ""
    hold.release()


def test_a_hold_ends_when_it_is_released_once_or_twice(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    hold = hold_folder(folder)
    with pytest.raises(UsageError, match=rf"already running \(pid {os.getpid()}\)"):
        hold_folder(folder)
    hold.release()
    hold.release()
    hold_folder(folder).release()


def test_what_is_moved_aside_takes_the_first_free_number(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (tmp_path / "run.old-1").write_text("taken")
    (tmp_path / "run.old-2").symlink_to("nowhere")
    hold_folder(folder).release()
    assert move_aside(folder) == tmp_path / "run.old-3"
    assert move_aside(folder) is None


def test_a_file_that_is_there_already_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    create_private_file(path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (errno.ENOSPC, ExitCode.STORE),
        (errno.EDQUOT, ExitCode.STORE),
        (errno.EIO, ExitCode.STORE),
        (errno.EACCES, ExitCode.USAGE),
        (errno.EROFS, ExitCode.USAGE),
        (errno.ENOENT, ExitCode.USAGE),
        (errno.ENAMETOOLONG, ExitCode.USAGE),
    ],
)
def test_trouble_with_the_disk_is_exit_5_and_an_unusable_place_is_exit_2(
    number: int, exit_code: ExitCode
) -> None:
    trouble = folder_trouble(OSError(number, os.strerror(number)), Path("/some/run"))
    assert trouble.exit_code is exit_code
    assert isinstance(trouble, StoreFailure if exit_code is ExitCode.STORE else UsageError)
    assert os.strerror(number) in str(trouble) and "/some/run" in str(trouble)


def test_a_name_that_is_too_long_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        hold_folder(tmp_path / ("x" * 300))


def test_a_folder_that_was_made_for_everybody_is_made_private(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o777)
    hold_folder(folder).release()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "lock").stat().st_mode & 0o777 == 0o600
