"""How much the requests of one test resemble each other, second by second: what widens its intervals.

Rules of this file:
1. Requests of a slow second are slow together, so they say less than as many independent ones. The factor is
   ``core.statistics.design_effect`` over stretches of the test; it is 1 in a test of fewer than ten seconds.
2. A share is taken at the end of a bucket, never within one: a stretch must not differ from another one because
   of where the two ended.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from engine.core.histogram import Histogram
from engine.core.measuring import SERIES_DIGITS, Second
from engine.core.statistics import design_effect

# Longer tests are cut into longer stretches: what disturbs an hour lasts longer than a second.
STRETCHES_MAX: Final = 60
FROM_FIRST_CONTENT: Final = ("ttft", "ttft_sched", "ttfo")  # told by the seconds' ttft; the others by latency


class Likeness:
    """The design effects of one test's figures. All of them are at least 1."""

    def __init__(self, seconds: Mapping[int, Second]) -> None:
        self._stretches = _stretches(seconds)
        self._parts = {
            "latency": [one.latency for one in self._stretches],
            "ttft": [one.ttft for one in self._stretches],
        }
        self._wholes = {name: _merged(parts) for name, parts in self._parts.items()}

    def of_quantile(self, name: str, quantile: float) -> float:
        """Of a quantile of a time, by the series that is nearest to it."""
        series = _series_of(name)
        cut = _cut(self._wholes[series], quantile)
        if cut is None:
            return 1.0
        bound_us, share = cut
        batches = [
            (one.count, _at_most(one, bound_us) / one.count) for one in self._parts[series] if one.count
        ]
        return design_effect(batches, share * (1 - share))

    def of_mean(self, name: str) -> float:
        """Of the mean of a time."""
        series = _series_of(name)
        batches = [(one.count, one.mean_us()) for one in self._parts[series] if one.count]
        return design_effect(batches, self._wholes[series].variance())

    def of_bound(self, name: str, bound_ms: float) -> float:
        """Of the share of all intended requests whose time is within a bound."""
        parts = self._parts[_series_of(name)]
        return self._of_hits([_at_most(one, bound_ms * 1000) for one in parts])

    def of_success(self) -> float:
        """Of the share of all intended requests that succeeded."""
        return self._of_hits([one.completed for one in self._stretches])

    def of_failure(self) -> float:
        """Of the share of the attempted requests that failed."""
        tried = [one.completed + one.failed for one in self._stretches]
        return _of_hits([one.failed for one in self._stretches], tried)

    def _of_hits(self, hits: Sequence[int]) -> float:
        return _of_hits(hits, [one.intended for one in self._stretches])


def _of_hits(hits: Sequence[int], of: Sequence[int]) -> float:
    total = sum(of)
    if not total:
        return 1.0
    share = sum(hits) / total
    return design_effect(
        [(many, hit / many) for hit, many in zip(hits, of, strict=True) if many], share * (1 - share)
    )


def _series_of(name: str) -> str:
    return "ttft" if name in FROM_FIRST_CONTENT else "latency"


def _stretches(seconds: Mapping[int, Second]) -> list[Second]:
    """The seconds, in order, added up to at most ``STRETCHES_MAX`` of equal length."""
    if not seconds:
        return []
    first = min(seconds)
    length = -(-(max(seconds) - first + 1) // STRETCHES_MAX)
    found: dict[int, Second] = {}
    for number in sorted(seconds):
        found.setdefault((number - first) // length, Second()).add(seconds[number])
    return list(found.values())


def _merged(parts: Iterable[Histogram]) -> Histogram:
    whole = Histogram(SERIES_DIGITS)
    for one in parts:
        whole.merge(one)
    return whole


def _cut(whole: Histogram, quantile: float) -> tuple[int, float] | None:
    """The end of a bucket nearest to a quantile, and the share up to it; None where all is in one bucket."""
    count, seen, best = whole.count, 0, None
    for index, many in whole.buckets():
        seen += many
        share = seen / count
        if seen < count and (best is None or abs(share - quantile) < abs(best[1] - quantile)):
            best = (whole.highest_us(index), share)
    return best


def _at_most(one: Histogram, bound_us: float) -> int:
    """How many values lie in buckets that end at or below a bound."""
    return sum(many for index, many in one.buckets() if one.highest_us(index) <= bound_us)
