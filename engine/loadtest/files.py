"""The files that a load test leaves: refused before the first request, or written whole after the last one.

Rules of this file:
1. A reader of a file's name sees the old file or the new one, never half of one.
2. A file of the user's that is replaced keeps its mode, and a symbolic link stays one.
3. Only regular files are replaced: a device or a pipe is refused.
"""

import os
import secrets
import stat
from pathlib import Path

from engine.core.errors import StoreFailure, UsageError


def check_writable(path: str, flag: str) -> None:
    """Refuse, before the test, a file that could not be written after it. Raises UsageError; ``flag`` as in ``--out``."""
    place = Path(path)
    if not path or place.is_dir():
        raise UsageError(f"{flag} {path!r} is a folder. Give a file's name.")
    if not place.parent.is_dir():
        raise UsageError(f"{flag} {path!r}: the folder {place.parent} does not exist. Make it first.")
    if place.exists() and not place.is_file():
        raise UsageError(f"{flag} {path!r} is a device or a pipe. Give a file's name.")
    if place.exists() and not os.access(place, os.W_OK):
        raise UsageError(f"{flag} {path!r} exists and is read-only. Give another name.")
    folder = Path(os.path.realpath(place)).parent
    if not folder.is_dir():
        raise UsageError(f"{flag} {path!r} is a link into {folder}, which does not exist. Give another name.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{flag} {path!r}: the folder {folder} is not writable. Give another name.")


def write(path: str, text: str, flag: str) -> None:
    """Let a file with this text appear whole. Raises StoreFailure when it cannot; what was there is untouched then."""
    place = Path(os.path.realpath(path))
    temporary = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            if place.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(place.stat().st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except OSError as error:
        raise StoreFailure(
            f"{flag} {path!r} could not be written ({error.strerror or error}). Make room or mend the disk; the other "
            "files of the test and its report are not touched by this."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
