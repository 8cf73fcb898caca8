"""What a limiter writes down of itself, for whoever has to replace it should it die without a word.

Rules of this file:
1. What is written is never less than what was granted under: limits and charges are written before they are used.
"""

import math
import os
import sys
import time
from typing import Final

import msgspec

from engine.core.quota import Rates
from engine.limiter.registry import PERIOD_S, Entry, Info, boot_id, born
from engine.wire.messages import VERSION

UNLIMITED: Final = 0


class Standing:
    """One limiter's notes about itself in its entry."""

    def __init__(self, entry: Entry, origin: str, model: str, *, limits: Rates, largest: int) -> None:
        """``limits`` are the largest of the minute before, ``largest`` the largest charge."""
        self._entry = entry
        self._is_closed = False
        now = time.monotonic()
        # Since when which limits hold; the last ones hold now.
        self._limits: list[tuple[float, Rates]] = [(now, limits)]
        self._info = Info(
            pid=os.getpid(),
            born=born(os.getpid()),
            version=VERSION,
            origin=origin,
            model=model,
            boot=boot_id(),
            at=now,
            limits=limits,
            limits_now=limits,
            largest=largest,
        )

    @property
    def info(self) -> Info:
        """What was written last."""
        return self._info

    @property
    def limits_now(self) -> Rates:
        """The limits that were written last."""
        return self._limits[-1][1]

    def close(self) -> None:
        """Nothing is written any more: notes that stay behind would read like those of a limiter that was killed."""
        self._is_closed = True

    def limits(self, limits: Rates) -> None:
        """Other limits are about to hold."""
        if limits != self.limits_now:
            self._limits.append((time.monotonic(), limits))
            self._write(busy=True)

    def granting(self, largest: int) -> None:
        """Calls are about to be granted, the dearest of all so far for ``largest``: written in steps of double size."""
        if largest > self._info.largest:
            self._write(busy=True, largest=2 ** math.ceil(math.log2(largest)))
        elif not self._info.busy:
            self._write(busy=True)

    def tick(self, *, busy: bool) -> None:
        """A second has passed, with or without grants. Who is busy writes every second: the age of that tells a death's."""
        if busy or self._info.busy:
            self._write(busy=busy)

    def _write(self, *, busy: bool, largest: int = 0) -> None:
        if self._is_closed:
            return
        now = time.monotonic()
        while len(self._limits) > 1 and now - self._limits[1][0] > PERIOD_S:
            del self._limits[0]
        self._info = msgspec.structs.replace(
            self._info,
            at=now,
            limits=_largest([limits for _, limits in self._limits]),
            limits_now=self.limits_now,
            largest=max(largest, self._info.largest),
            busy=busy,
        )
        try:
            self._entry.write(self._info)
        except OSError as error:
            # Going on is right: only should this process die as well would the next one know too little.
            sys.stderr.write(f"the limiter cannot write its notes in {self._entry.path}: {error}\n")


def _largest(limits: list[Rates]) -> Rates:
    kinds = zip(*limits, strict=True)
    return Rates(*(UNLIMITED if UNLIMITED in kind else max(kind) for kind in kinds))
