"""``engine.log``: what a run did, as JSON lines.

Rules of this file:
1. Event names are fixed and fields are plain figures or short sentences of ours: no row text, no reply, no secret.
2. A line is under 4,096 bytes, so that concurrent appends stay whole.
"""

import os
import time
from pathlib import Path

import msgspec

from engine.observe.sanitise import sanitise

EVENTS = frozenset({"start", "note", "worker_died", "progress", "stop", "published", "end"})
_VALUE_CHARS_MAX = 600


class RunLog:
    """Appends to the log of one run; without a folder it does nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._descriptor = -1
        if folder is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            self._descriptor = os.open(folder / "engine.log", flags, 0o600)
            os.fchmod(self._descriptor, 0o600)

    def write(self, event: str, **fields: str | int | float | None) -> None:
        """One line. Raises ValueError for an event that is not in the table."""
        if event not in EVENTS:
            raise ValueError(f"{event} is no event of the log")
        if self._descriptor < 0:
            return
        values = {
            name: sanitise(value, _VALUE_CHARS_MAX) if isinstance(value, str) else value
            for name, value in fields.items()
        }
        line = msgspec.json.encode({"time": round(time.time(), 3), "event": event, **values})
        try:
            os.write(self._descriptor, line[:4000] + b"\n")
        except OSError:
            self.close()  # a full disk shows in the store, where it matters; the log only tells

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
