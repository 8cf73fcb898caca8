"""The folder a run keeps its state in: made private, held by one run at a time, moved aside for a fresh start.

Rules of this file:
1. The folder has mode 0700 and every file in it 0600, whatever the umask and whatever was there before.
2. A symbolic link is never followed: nothing is written outside the folder that was named.
3. The hold is the kernel's (flock), so it ends with the process that has it, however that ends; the process
   id in the lock file is only there to be shown.
"""

import errno
import fcntl
import os
import stat
from pathlib import Path

from engine.core.errors import EngineError, StoreFailure, UsageError

LOCK_NAME = "lock"
_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


class FolderHold:
    """One process's exclusive use of a state folder, until ``release`` or the end of the process."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others in. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def folder_trouble(error: OSError, folder: Path) -> EngineError:
    """The sentence for what the operating system said about the folder; exit 5 for disk trouble, else 2."""
    what = error.strerror or str(error)
    if error.errno in _DISK_TROUBLE:
        return StoreFailure(
            f"The run's state in {folder} could not be written ({what}). Nothing committed before is lost: "
            "make room or mend the disk, then give the same command again."
        )
    return UsageError(
        f"The run's state cannot be kept in {folder} ({what}). "
        "Choose a folder that can be written to with --state or another output; its parent has to exist."
    )


def hold_folder(folder: Path) -> FolderHold:
    """Make the folder if it is missing, make it private, and take it for this process.

    Raises UsageError when another run has it, when it is not a folder of ours to use, or cannot be made.
    """
    hold: FolderHold | None = None
    try:
        while hold is None:
            # Again when the folder was moved aside between opening the lock file and locking it.
            _make_folder(folder)
            hold = _lock(folder)
        _make_files_private(folder)
    except OSError as error:
        if hold is not None:
            hold.release()
        raise folder_trouble(error, folder) from error
    except UsageError:
        if hold is not None:
            hold.release()
        raise
    return hold


def move_aside(folder: Path) -> Path | None:
    """Rename a state folder to ``<name>.old-<n>``, n counting up. None when there is none to move.

    Raises UsageError when a run is using it.
    """
    if not os.path.lexists(folder):
        return None
    hold = hold_folder(folder)
    try:
        number = 1
        while os.path.lexists(aside := folder.with_name(f"{folder.name}.old-{number}")):
            number += 1
        folder.rename(aside)
        sync_folder(folder.parent)
    except OSError as error:
        raise folder_trouble(error, folder) from error
    finally:
        hold.release()
    return aside


def create_private_file(path: Path) -> None:
    """Create an empty file of mode 0600 where there is none, and make its name survive a power loss."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)
    sync_folder(path.parent.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise UsageError(
                f"{folder} is not a folder (a symbolic link is not followed), so no state can be kept in it. "
                "Move it away, or choose another folder with --state."
            ) from None
    folder.chmod(0o700)


def _make_files_private(folder: Path) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise UsageError(
                    f"{entry.path} is a symbolic link. The state of a run never follows links: move it away."
                )
            if entry.is_file(follow_symlinks=False):
                os.chmod(entry.path, 0o600)


def _lock(folder: Path) -> FolderHold | None:
    """The hold, or None when the lock file is no longer the one in the folder."""
    path = folder / LOCK_NAME
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    hold = FolderHold(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        hold.release()
        raise UsageError(
            f"A run is already running (pid {holder}) on {folder}. Wait until it ends, stop it, "
            "or choose another output or --state."
        ) from None
    except OSError:
        hold.release()
        raise
    if not _is_same_file(descriptor, path):
        hold.release()
        return None
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return hold


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
