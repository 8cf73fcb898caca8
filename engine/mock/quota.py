"""Quota models as providers enforce them, as pure objects: the time is an argument of every call.

Rules of this file:
1. No clock, no randomness. Times are seconds of one monotonic clock and never run backwards.
2. A meter first says whether a charge fits (``wait_s``), then takes it (``charge``): several meters can
   be asked before any of them is charged, so that a request refused by one costs nothing at another.

Sources: OpenAI's limit messages fit a bucket of the whole minute's limit that refills continuously;
Azure's documentation: a token counter that resets every minute, and requests counted in windows of a
second; OpenAI's rate-limit guide: 60,000 a minute may be enforced as 1,000 a second.
"""

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from engine.mock.settings import QuotaSettings

UNITS = ("requests", "tokens", "input_tokens", "output_tokens")


class Cost(NamedTuple):
    """What one request is charged on arrival, in the order of ``UNITS``."""

    requests: int = 1
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Refusal(NamedTuple):
    """Why a request was refused. ``wait_s`` is infinite when it can never pass."""

    unit: str
    wait_s: float
    limit: int
    used: int
    requested: int


class Level(NamedTuple):
    """What a provider says about one unit in its headers."""

    limit: int
    remaining: int
    full_in_s: float  # until nothing is used any more


class Meter(Protocol):
    """One limit on one unit."""

    limit: int

    def wait_s(self, now: float, amount: int) -> float:
        """0 when ``amount`` fits now, else seconds until it would; infinite when it never can."""

    def charge(self, now: float, amount: int) -> None:
        """Take ``amount``, whether it fits or not."""

    def used(self, now: float) -> float:
        """What is taken at this moment."""

    def full_in_s(self, now: float) -> float:
        """Seconds until nothing is taken any more, if nothing else comes."""


class ContinuousBucket:
    """Capacity of a whole period's limit, refilled at limit/period per second (OpenAI, Anthropic)."""

    def __init__(self, limit: int, period_s: float) -> None:
        self.limit = limit
        self._per_s = limit / period_s
        self._used = 0.0
        self._at = 0.0

    def used(self, now: float) -> float:
        if now > self._at:
            self._used = max(0.0, self._used - (now - self._at) * self._per_s)
            self._at = now
        return self._used

    def wait_s(self, now: float, amount: int) -> float:
        if amount > self.limit:
            return math.inf
        over = self.used(now) + amount - self.limit
        return over / self._per_s if over > 1e-9 else 0.0

    def charge(self, now: float, amount: int) -> None:
        self._used = self.used(now) + amount

    def full_in_s(self, now: float) -> float:
        return self.used(now) / self._per_s


class SlidingWindow:
    """At most ``limit`` in any half-open window (t - period, t], counted exactly."""

    def __init__(self, limit: int, period_s: float) -> None:
        self.limit = limit
        self._period_s = period_s
        self._charges: deque[tuple[float, int]] = deque()
        self._used = 0

    def used(self, now: float) -> float:
        charges, edge = self._charges, now - self._period_s
        while charges and charges[0][0] <= edge:
            self._used -= charges.popleft()[1]
        return self._used

    def wait_s(self, now: float, amount: int) -> float:
        if amount > self.limit:
            return math.inf
        over = self.used(now) + amount - self.limit
        if over <= 0:
            return 0.0
        for at, charged in self._charges:
            over -= charged
            if over <= 0:
                return at + self._period_s - now
        return self._period_s

    def charge(self, now: float, amount: int) -> None:
        self.used(now)
        if amount:
            self._charges.append((now, amount))
            self._used += amount

    def full_in_s(self, now: float) -> float:
        self.used(now)
        return self._charges[-1][0] + self._period_s - now if self._charges else 0.0


class Counter:
    """A count that starts anew whenever the clock passes a multiple of ``window_s``.

    A charge above one window's share (but not above the limit) passes in a window that is still unused:
    a large request is slow at such a provider, not impossible.
    """

    def __init__(self, limit: int, *, window_s: float, share: int) -> None:
        self.limit = limit
        self._window_s = window_s
        self._share = share
        self._window = -1
        self._used = 0

    def used(self, now: float) -> float:
        window = math.floor(now / self._window_s)
        if window > self._window:
            self._window = window
            self._used = 0
        return self._used

    def wait_s(self, now: float, amount: int) -> float:
        if amount > self.limit:
            return math.inf
        used = self.used(now)
        if used + amount <= self._share or used == 0:
            return 0.0
        return (self._window + 1) * self._window_s - now

    def charge(self, now: float, amount: int) -> None:
        self._used = int(self.used(now)) + amount

    def full_in_s(self, now: float) -> float:
        return (self._window + 1) * self._window_s - now if self.used(now) else 0.0


def make_meter(settings: QuotaSettings, limit: int) -> Meter:
    """The meter of one limit."""
    if settings.kind == "bucket":
        return ContinuousBucket(limit, settings.period_s)
    if settings.kind == "sliding":
        return SlidingWindow(limit, settings.period_s)
    if settings.kind == "minute":
        return Counter(limit, window_s=settings.period_s, share=limit)
    share = max(1, math.floor(limit / 60 * (1 + settings.tolerance)))
    return Counter(limit, window_s=settings.period_s / 60, share=share)


class Quota:
    """All limits of the mock provider together: a request passes only where every one of them lets it."""

    def __init__(self, settings: Iterable[QuotaSettings]) -> None:
        self._meters: list[tuple[int, Meter, bool]] = []  # index into a Cost, meter, refused ones count
        for one in settings:
            limits = (one.rpm, one.tpm, one.input_tpm, one.output_tpm)
            for index, limit in enumerate(limits):
                if limit is not None:
                    self._meters.append((index, make_meter(one, limit), one.count_refused))

    def __bool__(self) -> bool:
        return bool(self._meters)

    def take(self, now: float, cost: Cost) -> Refusal | None:
        """Charge a request, or say which limit refuses it for how long (the longest wait of all)."""
        worst: Refusal | None = None
        for index, meter, _ in self._meters:
            amount = cost[index]
            wait_s = meter.wait_s(now, amount)
            if wait_s > 0 and (worst is None or wait_s > worst.wait_s):
                worst = Refusal(UNITS[index], wait_s, meter.limit, math.ceil(meter.used(now)), amount)
        for index, meter, counts_refused in self._meters:
            if worst is None or counts_refused:
                meter.charge(now, cost[index])
        return worst

    def settle(self, now: float, tokens_out: int) -> None:
        """Charge what an answer really produced, where output is counted as it is made (Anthropic)."""
        for index, meter, _ in self._meters:
            if UNITS[index] in ("tokens", "output_tokens"):
                meter.charge(now, tokens_out)

    def levels(self, now: float) -> dict[str, Level]:
        """What the headers say: for each limited unit the meter with the least left."""
        levels: dict[str, Level] = {}
        for index, meter, _ in self._meters:
            remaining = max(0, math.floor(meter.limit - meter.used(now)))
            known = levels.get(UNITS[index])
            if known is None or remaining < known.remaining:
                levels[UNITS[index]] = Level(meter.limit, remaining, meter.full_in_s(now))
        return levels
