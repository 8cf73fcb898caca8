"""What the fault campaign counts: trials and failures of each promise, kept for the README's scorecard.

Rules of this file:
1. A figure is what a test measured in this run; nothing is kept from an earlier one.
2. A trial is a case of its own: a run, a file, a redirect. Rows of one run are not: one cause fails them together, and the
   bound that so many trials prove would be far too good.
3. Other figures are added up over all cases; of those whose name ends in ``_max`` or ``_peak`` the largest is kept.
"""

import json
import os
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Any


class Promise(StrEnum):
    """The scorecard's rows."""

    P1_NO_LOSS = "P1-P3 no row lost, none twice"
    P4_TOLD = "P4 what is paid twice is told"
    P5_LIMITS = "P5 limits hold"
    P6_ENDS = "P6 every run ends"
    P7_BOUNDED = "P7 resources stay bounded"
    P8_RETRIES = "P8 retries do not amplify"
    P9_SECRETS = "P9 secrets stay put"
    P10_DATA = "P10 input is data"
    P11_ORDER = "P11 output in input order"
    P12_STEPS = "P12 a finished step is never repeated"


_OF_ORDER = {"out_of_order"}
_OF_TELLING = {"repeated_beyond_doubt", "unrecorded_attempts"}


class Scorecard:
    """The counts of one test process; None as folder keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._file = None if folder is None else folder / f"{os.getpid()}.jsonl"

    def add(self, promise: Promise, test: str, trials: int, failures: int = 0, **figures: Any) -> None:
        """So many trials of a promise, and how many of them it was broken in."""
        self._write({"promise": promise, "test": test, "trials": trials, "failures": failures, **figures})

    def add_run(self, test: str, found: Collection[str], **figures: Any) -> None:
        """One run that was looked at whole: the names of the checkers that found something (``History.faults``)."""
        names = set(found)
        self.add(Promise.P1_NO_LOSS, test, 1, int(bool(names - _OF_ORDER - _OF_TELLING)), **figures)
        self.add(Promise.P11_ORDER, test, 1, int(bool(names & _OF_ORDER)))
        if names & _OF_TELLING:
            self.add(Promise.P4_TOLD, test, 1, 1)

    def failed(self, test: str) -> None:
        """A test failed, be it before it counted its trials or after."""
        self._write({"failed_test": test})

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps(line) + "\n")
