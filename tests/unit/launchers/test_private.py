"""Private folders: held for as long as their process has them, and swept once nobody does."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from engine.launchers import private
from engine.launchers.private import make_private_folder, sweep

PID = os.getppid()  # of a live process, which says nothing about a folder

KILLED = """
import os, signal
from engine.launchers.private import make_private_folder
print(make_private_folder().path, flush=True)
{then}
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def killed(place: Path, then: str = "") -> "subprocess.Popen[str]":
    environment = {**os.environ, "TMPDIR": str(place)}
    script = KILLED.format(then=then)
    return subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    )


def left(place: Path, name: str, mode: int = 0o700) -> Path:
    folder = place / name
    folder.mkdir(mode=mode)
    (folder / "c").touch()
    return folder


def test_what_a_killed_process_left_is_swept_and_what_a_live_one_holds_is_not(place: Path) -> None:
    with killed(place) as process:
        gone = Path(process.communicate()[0].strip())
    nobodys = left(place, f"engine-{PID}-abcdef_1")
    folder = make_private_folder()
    assert gone.is_dir() and folder.path.stat().st_mode & 0o777 == 0o700
    sweep()
    assert (gone.exists(), nobodys.exists(), folder.path.exists()) == (False, False, True)
    folder.remove()
    folder.remove()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("engine-2024-results", 0o700),  # somebody's own
        ("engine-limiters-1000", 0o700),
        ("engine-1-abcdefgh.bak", 0o700),
        ("engine-1-abcdefgh", 0o755),  # nothing of ours is open to others
    ],
)
def test_what_is_not_exactly_a_folder_of_ours_is_left_alone(place: Path, name: str, mode: int) -> None:
    folder = left(place, name, mode)
    sweep()
    assert (folder / "c").exists()


def test_a_link_is_not_followed(place: Path) -> None:
    target = left(place, "target")
    (place / "engine-1-abcdefgh").symlink_to(target)
    sweep()
    assert (target / "c").exists()


def test_a_folder_that_is_swept_before_it_is_held_is_made_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    held = private._held

    def swept_first(path: Path) -> int:
        made.append(path)
        if len(made) == 1:
            path.rmdir()
        elif len(made) == 2:
            raise BlockingIOError  # it is being swept
        elif len(made) == 3:
            descriptor = held(path)
            path.rmdir()
            return descriptor
        return held(path)

    monkeypatch.setattr(private, "_held", swept_first)
    folder = make_private_folder()
    assert folder.path == made[3] and folder.path.is_dir()
    folder.remove()


def test_a_folder_that_another_sweep_removes_first_is_no_fault(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = left(place, "engine-1-abcdefgh")

    def others_were_faster(path: Path) -> int:
        folder.rename(place / "gone")
        raise FileNotFoundError(path)

    monkeypatch.setattr(private, "_held", others_were_faster)
    sweep()


def test_where_the_file_system_has_no_locks_nothing_is_held_and_nothing_swept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(path: Path) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(private, "_held", no_locks)
    folder = make_private_folder()
    sweep()
    assert folder.path.is_dir()
    folder.remove()
    assert not folder.path.exists()


def test_a_forked_child_neither_removes_nor_holds_what_its_parent_has(place: Path) -> None:
    folder = make_private_folder()
    child = os.fork()
    if child == 0:
        folder.remove()
        os._exit(0)
    os.waitpid(child, 0)
    sweep()
    assert folder.path.is_dir()
    folder.remove()


def test_a_forked_child_that_lives_on_keeps_nothing_of_a_killed_parent(place: Path) -> None:
    then = """
if os.fork() == 0:
    print(os.getpid(), flush=True)
    os.kill(os.getppid(), signal.SIGKILL)
signal.pause()
"""
    with killed(place, then) as parent:
        assert parent.stdout is not None
        gone, child = Path(parent.stdout.readline().strip()), int(parent.stdout.readline())
        parent.wait()
        try:
            assert gone.is_dir()
            sweep()
            assert not gone.exists()
        finally:
            os.kill(child, signal.SIGKILL)
