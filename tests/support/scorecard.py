"""What the fault campaign counts: trials and failures of each promise, kept for the README's scorecard.

Rules of this file:
1. A figure is what a test measured in this run; nothing is kept from an earlier one.
"""

import json
import os
from pathlib import Path
from typing import Any


class Scorecard:
    """The counts of one test process; None as folder keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / f"{os.getpid()}.jsonl"

    def add(self, promise: str, test: str, trials: int, failures: int = 0, **figures: Any) -> None:
        """So many trials of a promise, and how many of them it was broken in."""
        if self._file is not None:
            line = {"promise": promise, "test": test, "trials": trials, "failures": failures, **figures}
            with self._file.open("a") as file:
                file.write(json.dumps(line) + "\n")
