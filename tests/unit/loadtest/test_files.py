"""Files of a load test: refused before it, whole after it."""

import os
import stat
from pathlib import Path

import pytest

from engine.core.errors import StoreFailure, UsageError
from engine.loadtest.files import check_writable, write


def test_a_new_file_and_one_that_is_there_are_both_fine(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    check_writable(str(path), "--out")
    path.write_text("old")
    check_writable(str(path), "--out")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("nowhere/x.json", "the folder .*nowhere does not exist"),
        ("folder", "is a folder"),
        ("pipe", "is a device or a pipe"),
        ("dangling", "is a link into .*gone, which does not exist"),
        ("", "is a folder"),
    ],
)
def test_what_could_not_be_written_is_refused_with_a_sentence(tmp_path: Path, place: str, says: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone" / "x")
    with pytest.raises(UsageError, match=f"^--html .*{says}.*\\.$"):
        check_writable(str(tmp_path / place) if place else "", "--html")


def test_what_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.hlog"
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)  # root may write anywhere
    with pytest.raises(UsageError, match=f"--hlog .*the folder {tmp_path} is not writable"):
        check_writable(str(path), "--hlog")
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != path)
    with pytest.raises(UsageError, match="--hlog .* is read-only"):
        check_writable(str(path), "--hlog")


def test_a_new_file_has_the_mode_of_new_files_and_a_replaced_one_keeps_its_own(tmp_path: Path) -> None:
    path, other = tmp_path / "x.html", tmp_path / "y"
    other.touch()
    write(str(path), "ä", "--html")
    assert path.read_bytes() == "ä".encode()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)
    path.chmod(0o640)
    write(str(path), "new", "--html")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    check_writable(str(tmp_path / "link"), "--out")
    write(str(tmp_path / "link"), "text", "--out")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "text"


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(StoreFailure, match=r"--out .*could not be written \(No space left on device\)"):
        write(str(path), "new", "--out")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
