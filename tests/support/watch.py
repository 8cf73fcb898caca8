"""Where the processes of a run connect to, told by Python's own audit events; see tests/faults/watch."""

import os
import re
from pathlib import Path

_HOOK = Path(__file__).parents[1] / "faults" / "watch"


class Watch:
    """The connections of the processes that are started with ``environment``."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "connections.txt"

    def environment(self, **more: str) -> dict[str, str]:
        """What makes a process tell."""
        path = os.pathsep.join(filter(None, (str(_HOOK), os.environ.get("PYTHONPATH", ""))))
        return {"PYTHONPATH": path, "ENGINE_WATCH": str(self._file), **more}

    def places(self) -> set[tuple[str, int]]:
        """Every host and port that a connection was tried to."""
        text = self._file.read_text() if self._file.exists() else ""
        return {(host, int(port)) for host, port in re.findall(r"connect \('([^']*)', (\d+)", text)}

    def others(self) -> list[str]:
        """What was connected to that is neither a host and port nor a socket of ours: nothing, if all is well."""
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        return [line for line in lines if line.startswith("connect ") and not line.startswith("connect ('")]
