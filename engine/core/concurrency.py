"""How many requests may be in flight, found from what replies say: cut on refusals, grow back when full.

Rules of this file:
1. One cut per burst: replies to requests that were sent before the last cut say nothing about it.
2. Growth only while the limit is really used; a failing server (5xx, time-outs) holds growth, refusals cut.
3. Between ``start`` and ``ceiling`` it grows by doubling until the first cut, by a twentieth after it
   (constants from inspect_ai's adaptive controller, which documents them).
"""

from engine.core.errors import Signal

CUT = 0.8
GROWTH = 0.05
SATURATED = 0.8  # of the limit must be in flight for a success to count
HOLD_S = 2.0
COOLDOWN_S = 1.0  # between two cuts at least, however fast the endpoint refuses


class Concurrency:
    """An in-flight limit between 1 and ``ceiling``. With ``start == ceiling`` it is the ceiling until trouble."""

    __slots__ = ("_clean", "_cut_at", "_hold_until", "_slow_start", "ceiling", "limit")

    def __init__(self, start: int, ceiling: int) -> None:
        self.ceiling = max(1, ceiling)
        self.limit = max(1, min(start, ceiling))
        self._slow_start = True
        self._clean = 0
        self._cut_at = float("-inf")
        self._hold_until = float("-inf")

    def on_reply(self, signal: Signal, started: float, now: float, in_flight: int) -> None:
        """A request sent at ``started`` has ended with ``in_flight`` others and itself under way."""
        if signal is Signal.CUT or signal is Signal.PAUSE:
            if started > self._cut_at and now - self._cut_at >= COOLDOWN_S:
                self.limit = max(1, int(self.limit * CUT))
                self._cut_at = now
                self._slow_start = False
                self._clean = 0
        elif signal is Signal.HOLD:
            self._hold_until = now + HOLD_S
            self._clean = 0
        elif self.limit < self.ceiling and started > self._cut_at and now >= self._hold_until:
            if in_flight < SATURATED * self.limit:
                return
            self._clean += 1
            if self._clean >= self.limit:
                self._clean = 0
                grown = self.limit * 2 if self._slow_start else int(self.limit * (1.0 + GROWTH)) + 1
                self.limit = min(self.ceiling, grown)
