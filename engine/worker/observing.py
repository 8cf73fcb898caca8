"""What reply headers say of the quota, on its way to the limiter: every reply is read, few messages are sent.

Rules of this file:
1. A limit that changed is told at once; what is used of it four times a second, and the most of that time.
2. Endpoints that say nothing cost nothing: after some silent replies only refusals and one in many
   of the others are looked at.
"""

from collections.abc import Callable, Mapping
from typing import Final

from engine.core.quota import NO_RATES, Rates
from engine.providers.limits import LimitReader

TELL_S: Final = 0.25
SILENT_REPLIES: Final = 32
LOOK_AT_ONE_IN: Final = 64


class Observer:
    """One worker's ear for reply headers. ``tell(limits, used)`` goes to the limiter; False where it did not arrive."""

    def __init__(self, reader: LimitReader, tell: Callable[[Rates, Rates], bool]) -> None:
        self._reader = reader
        self._tell = tell
        self._limits = NO_RATES
        self._used = NO_RATES
        self._told_at = float("-inf")
        self._silent = 0

    def note(self, headers: Mapping[str, str], now: float, *, is_refusal: bool = False) -> None:
        """A reply came with these headers."""
        if self._silent >= SILENT_REPLIES and self._silent % LOOK_AT_ONE_IN and not is_refusal:
            self._silent += 1
            return
        seen = self._reader.read(headers)
        if seen is None:
            self._silent += 1
            return
        self._silent = 0
        self._used = Rates(*map(max, self._used, seen.used))
        if seen.limits != self._limits or now - self._told_at >= TELL_S:
            if self._tell(seen.limits, self._used):
                self._limits, self._used, self._told_at = seen.limits, NO_RATES, now
