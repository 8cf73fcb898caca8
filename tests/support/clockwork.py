"""A loop of virtual time for code that asks ``time.monotonic`` and the loop for timers, and awaits nothing."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class Timer:
    """What ``call_later`` returns."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Clockwork:
    """Time stands still while callbacks run, but for what they ``spend``."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._due: list[tuple[float, int, Timer, Callable[..., Any], tuple[Any, ...]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        """The callback that runs takes so long."""
        self.now += seconds

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Timer:
        timer = Timer()
        heapq.heappush(self._due, (when, next(self._order), timer, callback, args))
        return timer

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Timer:
        return self.call_at(self.now + delay, callback, *args)

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Timer:
        return self.call_at(self.now, callback, *args)

    def run(self, until: float) -> None:
        """Let everything happen that is due until then."""
        while self._due and self._due[0][0] <= until:
            when, _, timer, callback, args = heapq.heappop(self._due)
            if not timer.is_cancelled:
                self.now = max(self.now, when)
                callback(*args)
        self.now = max(self.now, until)
