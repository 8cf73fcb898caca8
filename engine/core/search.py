"""The highest rate that an endpoint holds: which rate to try next, and what the tries have shown.

Rules of this file:
1. Pure: a caller sends at ``next_rate()``, judges, and says so with ``tell``; nothing here knows an endpoint.
2. A rate holds when it passed every time it was tried. One failure is enough to look below it.
3. The number of tries is bounded whatever the answers are.

Four stages. Bracket: double from the start until a rate fails, or halve until one holds. Bisect: halve the gap,
on a logarithmic scale, until it is within the resolution. Confirm: try the rate again that held; if it fails now,
it counts as failed and the search goes on below it. Done. A try that showed nothing is repeated, at any stage.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

STEP = 2.0
STEP_SATURATED = 4.0  # down from a rate that the endpoint could not nearly serve
RESOLUTION = 0.05
CONFIRMATIONS = 2
PROBES_MAX = 30
REPEATS_MAX = 2  # of one try that showed nothing
RATE_MIN, RATE_MAX = 0.001, 1_000_000.0


class Why(StrEnum):
    """Why a search ended."""

    CONFIRMED = "confirmed"
    RATE_MAX = "the highest rate allowed held"
    NOTHING_HELD = "no rate held, down to the lowest allowed"
    PROBES_SPENT = "the tries were used up"
    WORKER_FAILED = "a worker failed"
    UNFINISHED = "the search was not finished"


@dataclass(frozen=True, slots=True)
class Knee:
    """What a search found. ``held`` and ``failed`` are rates in requests/s, None where there is none.

    ``confirmations`` is how often ``held`` was tried, and held, beyond its first time. With ``n`` passes and no
    failure the chance of passing is above ``0.05 ** (1 / n)`` with 95 % confidence: 37 % for 3, 74 % for 10.
    """

    held: float | None
    failed: float | None
    confirmations: int
    failures: int  # how often ``failed`` failed
    probes: int
    why: Why

    @property
    def is_sure(self) -> bool:
        """Whether the rate was confirmed as often as was asked."""
        return self.why in (Why.CONFIRMED, Why.RATE_MAX)


class Search:
    """One search. ``next_rate`` names a rate until it returns None; every try of it is told, or repeated, once.

    Bounds: ``probes_max`` tries in all, the confirmations and repetitions included.
    """

    def __init__(
        self,
        start: float,
        *,
        rate_max: float = RATE_MAX,
        rate_min: float = RATE_MIN,
        resolution: float = RESOLUTION,
        confirmations: int = CONFIRMATIONS,
        probes_max: int = PROBES_MAX,
    ) -> None:
        """Raises ValueError for bounds that leave nothing to try."""
        if not 0 < rate_min <= start <= rate_max < math.inf:
            raise ValueError(f"the start {start} must lie between {rate_min} and {rate_max}")
        if not 0 < resolution < 1 or confirmations < 0 or probes_max < 1:
            raise ValueError("a search needs a resolution between 0 and 1 and at least one try")
        self._next = start
        self._rate_min, self._rate_max = rate_min, rate_max
        self._resolution = resolution
        self._confirmations = confirmations
        self._probes_max = probes_max
        self._passed: dict[float, int] = {}
        self._failed: dict[float, int] = {}
        self._repeats = 0  # in a row
        self.probes = 0
        self._why: Why | None = None

    @property
    def held(self) -> float | None:
        """The highest rate below all failures that passed every time."""
        bound = self.failed
        below = [
            rate for rate in self._passed if rate not in self._failed and (bound is None or rate < bound)
        ]
        return max(below, default=None)

    @property
    def failed(self) -> float | None:
        """The lowest rate that failed."""
        return min(self._failed, default=None)

    def next_rate(self) -> float | None:
        """The rate to try now, in requests/s; None when the search is over. The same until it is told."""
        return None if self._why is not None else self._next

    def tell(self, rate: float, passed: bool, saturated: bool = False) -> None:
        """How a try went. ``saturated``: the endpoint fell behind the schedule; that never passes.

        A try may be stopped as soon as that shows. Raises ValueError for a rate that was not asked for: nothing
        changes then.
        """
        self._check(rate)
        self.probes += 1
        self._repeats = 0
        tally = self._passed if passed and not saturated else self._failed
        tally[rate] = tally.get(rate, 0) + 1
        self._decide(STEP_SATURATED if saturated else STEP)

    def repeat(self, rate: float) -> bool:
        """A try showed nothing of the endpoint. Whether it is left out, and the rate tried again if tries are left.

        At most ``REPEATS_MAX`` times in a row; after that it has to be told. Raises ValueError as ``tell`` does.
        """
        self._check(rate)
        if self._repeats >= REPEATS_MAX:
            return False
        self._repeats += 1
        self.probes += 1
        self._try(rate)
        return True

    def result(self) -> Knee:
        """What is known so far; final once ``next_rate`` returned None."""
        held, failed = self.held, self.failed
        return Knee(
            held=held,
            failed=failed,
            confirmations=self._passed[held] - 1 if held is not None else 0,
            failures=self._failed[failed] if failed is not None else 0,
            probes=self.probes,
            why=self._why or Why.UNFINISHED,
        )

    def _check(self, rate: float) -> None:
        if self._why is not None or rate != self._next:
            raise ValueError(f"{rate} is not the rate that was to be tried")

    def _decide(self, step_down: float) -> None:
        held, failed = self.held, self.failed
        if held is None:
            assert failed is not None, "a try either passed or failed"
            if failed <= self._rate_min:
                self._end(Why.NOTHING_HELD)
            else:
                self._try(max(self._rate_min, _readable(failed / step_down)))
        elif failed is None and held < self._rate_max:
            self._try(min(self._rate_max, _readable(held * STEP)))
        elif (middle := self._middle(held, failed)) is not None:
            self._try(middle)
        elif self._passed[held] <= self._confirmations:
            self._try(held)
        else:
            self._end(Why.CONFIRMED if failed is not None else Why.RATE_MAX)

    def _middle(self, held: float, failed: float | None) -> float | None:
        """A rate between the two, or None when they are as close as was asked, or as numbers of three digits get."""
        if failed is None or failed - held <= self._resolution * held:
            return None
        middle = _readable(math.sqrt(held * failed))
        return middle if held < middle < failed else None

    def _try(self, rate: float) -> None:
        if self.probes >= self._probes_max:
            self._end(Why.PROBES_SPENT)
        else:
            self._next = rate

    def _end(self, why: Why) -> None:
        self._why = why


def _readable(rate: float) -> float:
    """A rate of three digits: nobody asks for 1,414.2135 requests/s."""
    return float(f"{rate:.3g}")
