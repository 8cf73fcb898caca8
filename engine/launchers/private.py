"""Private folders of runs and pools: made, held, removed; those that nobody holds any more are swept.

Rules of this file:
1. A folder is held by the kernel's lock on it (flock), so the hold ends with its process, however that ends. Process ids
   say nothing here: a container beside this one has its own, over the same folder of temporary files.
2. Only what looks exactly like a folder of ours, and is this user's, is ever swept.
3. A forked child has no part in its parent's folders: it neither holds nor removes them.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"engine-\d+-[a-z0-9_]{8}")  # the number is a process id, for people


class PrivateFolder:
    """A folder of this process's, from ``make_private_folder`` until ``remove``."""

    def __init__(self, path: Path, hold: int) -> None:
        self.path = path
        self._hold = hold
        self._is_ours = True
        _HELD.add(self)

    def remove(self) -> None:
        """The folder with all that is in it. Safe to call twice; does nothing in a forked child."""
        if self._is_ours:
            self._is_ours = False
            shutil.rmtree(self.path, ignore_errors=True)
            self.leave()

    def leave(self) -> None:
        """Have no part in the folder any more."""
        self._is_ours = False
        _HELD.discard(self)
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1


_HELD: set[PrivateFolder] = set()  # by this process


def make_private_folder() -> PrivateFolder:
    """A new folder among the temporary files, of mode 0700, held until it is removed or this process ends."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"engine-{os.getpid()}-"))
        try:
            hold = _held(path)
        except (FileNotFoundError, BlockingIOError):
            continue  # somebody who sweeps came between
        except OSError:
            return PrivateFolder(path, -1)  # no such locks here: then nobody can sweep it either
        if os.fstat(hold).st_nlink > 0 and path.is_dir():
            return PrivateFolder(path, hold)
        os.close(hold)


def sweep() -> None:
    """Remove what processes that were killed left behind."""
    place = Path(tempfile.gettempdir())
    for left in place.glob("engine-*-*"):
        try:
            if not _NAME.fullmatch(left.name) or not _is_private(left):
                continue
            hold = _held(left)
        except OSError:
            continue  # it is held, or gone already, or cannot be told
        try:
            shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(hold)


def _held(path: Path) -> int:
    """The folder's descriptor, with the lock. Raises BlockingIOError where somebody has it, and other OSErrors."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _is_private(path: Path) -> bool:
    found = path.lstat()
    return (
        stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.getuid()
    )


def _leave_all() -> None:
    for folder in list(_HELD):
        folder.leave()


os.register_at_fork(after_in_child=_leave_all)
