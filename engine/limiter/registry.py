"""Where the limiters of this machine are found: a private folder for the user, in it one entry for each quota.

Rules of this file:
1. The folder belongs to the user alone (0700) and is no symbolic link; anything else is refused. Keys are never in it:
   an entry's name is a salted digest of origin, model and key.
2. Whoever starts or ends a limiter holds its entry's lock (flock: it ends with its holder, however that ends).
3. A process is known by its id and its time of birth: ids are used again.
"""

import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import psutil

from engine.core.errors import CannotStart
from engine.core.quota import NO_RATES, Memory, Rates
from engine.credentials import Secret, digest_of

PERIOD_S: Final = 62.0  # what a quota remembers, and a little
STALE_S: Final = 86_400.0  # an entry nobody used for so long is removed
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_T = TypeVar("_T")


class Info(msgspec.Struct, frozen=True):
    """A limiter that runs, or died without a word. ``limits`` are the largest of its last minute, each of them.

    ``at`` is the time of writing, on the machine's monotonic clock.
    """

    pid: int
    born: float
    version: int
    origin: str
    model: str
    boot: str
    at: float
    limits: Rates = NO_RATES
    limits_now: Rates = NO_RATES
    largest: int = 0
    busy: bool = True  # whether it granted anything lately


class Left(msgspec.Struct, frozen=True):
    """What a limiter that ended in peace remembers of its last minute."""

    boot: str
    at: float
    memory: Memory


def born(pid: int) -> float:
    """When a process began, in whatever unit: only to be compared. 0.0 when it is gone, or dead and not yet buried."""
    try:
        # The kernel's own count: psutil's adds the time of the boot, which a clock that is set changes.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0.0 if state in "ZX" else float(fields[18])
    except (FileNotFoundError, ProcessLookupError):
        pass
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return 0.0


def boot_id() -> str:
    """What differs for every start of the machine: the monotonic clock begins anew with it."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()) // 60)


def seconds_since(at: float, boot: str) -> float:
    """How long ago that was on the monotonic clock, at least; 0 where the machine was started anew since."""
    return max(0.0, time.monotonic() - at) if boot == boot_id() else 0.0


class Entry:
    """One quota's place in the registry. ``path`` is its folder, ``socket`` where its limiter listens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = path / "s"
        self._runs = path / "runs"
        self._info = path / "info.json"
        self._left = path / "left.json"

    def make(self) -> None:
        """Make its folders where they are missing."""
        for folder in (self.path, self._runs):
            folder.mkdir(mode=0o700, exist_ok=True)

    def hold(self) -> list[int]:
        """Keep cleaners of temporary files away for as long as these descriptors are open (tmpfiles.d(5), flock)."""
        descriptors = []
        for folder in (self.path, self.path.parent):
            descriptors.append(os.open(folder, os.O_RDONLY | os.O_CLOEXEC))
            fcntl.flock(descriptors[-1], fcntl.LOCK_SH)
        return descriptors

    @property
    def token(self) -> str:
        """What all who speak to this limiter know; the same over its restarts."""
        return _lasting(self.path / "token")

    @contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock; with ``wait=False`` what is yielded says whether it was free."""
        descriptor = -1
        try:
            while descriptor < 0:
                self.make()
                descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    yield False
                    return
                if not _is_same(descriptor, self.path / "lock"):
                    # The entry was removed between opening and locking.
                    os.close(descriptor)
                    descriptor = -1
            yield True
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    # --- its limiter --------------------------------------------------------------------------------------

    def info(self) -> Info | None:
        """The limiter that runs or died here; None when the last one ended in peace, or there was none."""
        return _read(self._info, Info)

    def is_alive(self, info: Info) -> bool:
        """Whether that limiter runs."""
        return born(info.pid) == info.born > 0

    def write(self, info: Info) -> None:
        """Say how the limiter stands."""
        _write(self._info, msgspec.json.encode(info))

    def leave(self, memory: Memory) -> None:
        """The limiter ends in peace: this is what it remembers."""
        _write(self._left, msgspec.json.encode(Left(boot_id(), time.monotonic(), memory)))
        self._info.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)

    def left(self) -> tuple[Memory, float] | None:
        """What the last limiter remembered, and how long ago it ended; None when that is past its minute."""
        left = _read(self._left, Left)
        if left is None:
            return None
        gone_s = seconds_since(left.at, left.boot)
        return (left.memory, gone_s) if gone_s < PERIOD_S else None

    def forget_left(self) -> None:
        """That was taken over."""
        self._left.unlink(missing_ok=True)

    # --- its runs -----------------------------------------------------------------------------------------

    def register(self, pid: int) -> None:
        """This run uses the limiter from now on. Hold the lock."""
        self.make()
        _write(self._runs / str(pid), msgspec.json.encode(born(pid)))

    def unregister(self, pid: int) -> None:
        """It does not any more."""
        (self._runs / str(pid)).unlink(missing_ok=True)

    def runs(self) -> set[int]:
        """The runs that use it and are alive; the marks of dead ones are removed."""
        alive = set()
        for mark in self._marks():
            since = _read(mark, float)
            if mark.name.isdigit() and since and born(int(mark.name)) == since:
                alive.add(int(mark.name))
            else:
                mark.unlink(missing_ok=True)
        return alive

    def _marks(self) -> list[Path]:
        try:
            return [mark for mark in self._runs.iterdir() if not mark.name.endswith(".new")]
        except FileNotFoundError:
            return []


def default_folder() -> str:
    """The same for every run of a user, whatever started it: a session's own folders would differ."""
    return f"/tmp/engine-limiters-{os.getuid()}"  # noqa: S108 - made private, or refused


class Registry:
    """All quotas of one user on this machine. Raises CannotStart for a folder that others could change."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            found = self.folder.lstat()
        except OSError as error:
            raise self._unusable(error) from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise CannotStart(
                f"{self.folder}, the folder for this machine's limiters, is not a folder of yours: somebody else could "
                "read or stop your limiters. Nothing was sent; remove it, or name another one with --limiter-dir."
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            self.folder.chmod(0o700)

    def _unusable(self, error: OSError) -> CannotStart:
        return CannotStart(
            f"The folder for this machine's limiters, {self.folder}, cannot be made or written to ({error.strerror}). "
            "Nothing was sent; make room there, or name another one with --limiter-dir."
        )

    def entry(self, origin: str, model: str, keys: Iterable[Secret]) -> Entry:
        """The place of the quota of (origin, model, keys). Raises CannotStart where nothing can be written."""
        try:
            salt = _lasting(self.folder / "salt")
        except OSError as error:
            raise self._unusable(error) from None
        return Entry(self.folder / digest_of(salt, keys, origin, model))

    def entries(self) -> list[Entry]:
        """Every quota there is or was."""
        return [Entry(path) for path in sorted(self.folder.iterdir()) if path.is_dir()]

    def tidy(self) -> None:
        """Remove entries that nobody has used for a day."""
        for entry in self.entries():
            try:
                if time.time() - entry.path.stat().st_mtime < STALE_S:
                    continue
                with entry.locked(wait=False) as is_mine:
                    info = entry.info()
                    if is_mine and not entry.runs() and not (info is not None and entry.is_alive(info)):
                        shutil.rmtree(entry.path, ignore_errors=True)
            except FileNotFoundError:
                continue  # somebody else tidies too


def _lasting(path: Path) -> str:
    """A random secret that whoever comes first writes, and all others read."""
    while True:
        try:
            return path.read_text()
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            mine = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.new")
            _write(mine, secrets.token_hex(16).encode())
            try:
                os.link(mine, path)
            except FileExistsError:
                pass  # somebody was first: read theirs
            finally:
                mine.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, for nobody else to read."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)  # a full disk needs the room
        raise


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None  # what nobody can have written whole tells nothing


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
