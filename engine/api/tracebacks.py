"""The tracebacks of users' functions that raised, out of a run's store.

Rules of this file:
1. They are looked up when a row has failed of its function, and never otherwise.
2. A line that the worker could not read, because it is a notebook's, is put in here.
"""

import linecache
import re
from pathlib import Path
from typing import Any

import msgspec

from engine.core.errors import ErrorKind
from engine.store import Store

_FRAME = re.compile(r'  File "(.+)", line (\d+), in ')


class Tracebacks:
    """The tracebacks of the run whose state is in a folder."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._store: Store | None = None

    def of(self, row: int, error: str) -> str:
        """The traceback of a row that failed with ``error``; empty where no function raised."""
        if not error.startswith(f"{ErrorKind.FUNCTION_ERROR}:"):
            return ""
        if self._store is None:
            self._store = Store.view(self._state)
        for step in self._store.steps_of([row]):
            if not step.ok and step.data:
                told: Any = msgspec.json.decode(step.data)
                if isinstance(told, dict) and isinstance(told.get("traceback"), str):
                    return with_lines(told["traceback"])
        return ""

    def close(self) -> None:
        """Let the store go."""
        if self._store is not None:
            self._store.close()
            self._store = None


def with_lines(trace: str) -> str:
    """A traceback with the lines of source that this process knows and that are not there yet."""
    lines = trace.splitlines(keepends=True)
    found: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        found.append(line)
        frame = _FRAME.match(line)
        if frame and not following.startswith("    "):
            source = linecache.getline(frame[1], int(frame[2])).strip()
            found += [f"    {source}\n"] if source else []
    return "".join(found)
