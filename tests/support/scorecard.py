"""What the fault campaign counts: trials and failures of each promise, kept for the README's scorecard.

Rules of this file:
1. A figure is what a test measured in this run; nothing is kept from an earlier one.
"""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Any


class Promise(StrEnum):
    """What is promised; the README's scorecard has their trials."""

    P1_NO_LOSS = "P1-P3 no row lost, none twice"
    P4_TOLD = "P4 what is paid twice is told"
    P5_LIMITS = "P5 limits hold"
    P6_ENDS = "P6 every run ends"
    P7_BOUNDED = "P7 resources stay bounded"
    P8_RETRIES = "P8 retries do not amplify"
    P9_SECRETS = "P9 secrets stay put"
    P10_DATA = "P10 input is data"
    P11_ORDER = "P11 output in input order"


class Scorecard:
    """The counts of one test process; None as folder keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / f"{os.getpid()}.jsonl"

    def add(self, promise: Promise, test: str, trials: int, failures: int = 0, **figures: Any) -> None:
        """So many independent trials of a promise, and how many of them it was broken in.

        ``figures`` are added up over all tests of one name; of those that end in ``_max`` the largest is kept.
        """
        self._write({"promise": promise, "test": test, "trials": trials, "failures": failures, **figures})

    def failed(self, test: str) -> None:
        """A test failed, be it before it counted its trials or after."""
        self._write({"failed_test": test})

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps(line) + "\n")
