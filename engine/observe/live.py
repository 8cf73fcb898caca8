"""``live.json``: how a running run stands, for ``engine status``. Replaced as a whole about once a second.

Rules of this file:
1. A reader sees the old file or the new one, never half of one. Losing it loses nothing: it is only a view.
2. Mode 0600, like everything in a state folder.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import psutil

from engine.observe.snapshot import Snapshot, WorkerView

LIVE_NAME = "live.json"


class LiveFile:
    """The view a run keeps of itself; without a folder it keeps none."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / LIVE_NAME
        self.control: dict[str, str] = {}  # how ``engine ctl`` reaches the run: socket and token

    def write(self, snapshot: Snapshot) -> None:
        """Replace the file. What goes wrong here never ends a run: a full disk shows in the store first."""
        if self._path is None:
            return
        temporary = self._path.with_name(f".{LIVE_NAME}.tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:
                file.write(
                    msgspec.json.encode({"pid": os.getpid(), "control": self.control, **asdict(snapshot)})
                )
            os.replace(temporary, self._path)
        except OSError:
            self._path = None

    def remove(self) -> None:
        """The run is over: there is nothing live any more."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def read_live(folder: Path) -> dict[str, Any] | None:
    """The view of the run in ``folder``; None when no run is live there."""
    try:
        view = msgspec.json.decode((folder / LIVE_NAME).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
    if not isinstance(view, dict) or not psutil.pid_exists(int(view.get("pid", 0))):
        return None
    return view


class Gauges:
    """CPU and memory of worker processes, by psutil."""

    def __init__(self) -> None:
        self._processes: dict[int, psutil.Process] = {}

    def look(self, workers: list[tuple[int, int, int]]) -> list[WorkerView]:
        """Views of (slot, pid, in flight); a process that has just ended is left out."""
        found: list[WorkerView] = []
        pids = {pid for _, pid, _ in workers}
        for gone in self._processes.keys() - pids:
            del self._processes[gone]
        for slot, pid, in_flight in workers:
            try:
                process = self._processes.get(pid)
                if process is None:
                    process = self._processes[pid] = psutil.Process(pid)
                with process.oneshot():
                    view = WorkerView(slot, pid, process.cpu_percent(), process.memory_info().rss, in_flight)
            except psutil.Error:
                self._processes.pop(pid, None)
                continue
            found.append(view)
        return found
