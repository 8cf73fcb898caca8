"""Time as a quota's refill sees it: standing still in a pause, gathering speed after it.

Rules of this file:
1. Nothing here reads a clock: times are arguments, and ``start <= end``.
"""

import math

RAMP_S = 2.5  # after a pause the rate rises linearly from 0 within this time


class Pace:
    """Time as the refill sees it: it stands still in a pause, then gathers speed, then runs as the clock does."""

    __slots__ = ("paused_until",)

    def __init__(self) -> None:
        self.paused_until = -math.inf

    def between(self, start: float, end: float) -> float:
        """Seconds of full refill between two times; ``start <= end``."""
        if start - self.paused_until >= RAMP_S:
            return end - start
        return self._since_pause(end) - self._since_pause(start)

    def after(self, start: float, refill_s: float) -> float:
        """The time at which ``refill_s`` seconds of full refill have passed since ``start``."""
        if start - self.paused_until >= RAMP_S:
            return start + refill_s
        seconds = self._since_pause(start) + refill_s
        if seconds < RAMP_S / 2:
            return self.paused_until + math.sqrt(2 * RAMP_S * seconds)
        return self.paused_until + seconds + RAMP_S / 2

    def _since_pause(self, now: float) -> float:
        since = now - self.paused_until
        if since <= 0:
            return 0.0
        if since < RAMP_S:
            return since * since / (2 * RAMP_S)
        return since - RAMP_S / 2
