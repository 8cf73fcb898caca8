"""What the results of one load test say of a metric: a figure, and how sure it is.

Rules of this file:
1. Requests of one stretch of a test are alike: a slow second makes all of its requests slow. By how much is measured
   from the series of seconds (``core.statistics.design_effect``), and every interval is widened by it.
2. A figure that the results do not have is None. One whose interval they do not bound has infinite ends.
3. Where something had to be assumed to get an interval, it is assumed so that the interval becomes wider.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from engine.core.histogram import QUANTILES, Histogram
from engine.core.statistics import CONFIDENCE, Estimate, Measured, design_effect, mean, share, t_of, z_of
from engine.loadtest.reading import Results, Second

# Into how many stretches, of a second or more, a test is cut: short ones measure exactly what passes soon, long ones
# see what lasts, such as a queue near its limit. The least even cut counts. Batch means are usually taken of 10 to 30.
STRETCHES = (40, 20, 10)
TAIL = "p99"
FIRST_CONTENT = ("ttft", "ttft_sched", "ttfo")  # these follow the series of TTFT, all others that of latency
US_PER_MS = 1000.0
SPREAD_OF_LENGTHS = 1.0  # standard deviation of the tokens of one answer, as a share of their mean


class Evidence:
    """The figures of one test with their intervals. Times are in milliseconds, rates in 1/s, shares of 1."""

    def __init__(self, results: Results, confidence: float = CONFIDENCE) -> None:
        """Raises UsageError for histograms that cannot be read."""
        self.results = results
        self.confidence = confidence
        self._histograms: dict[str, Histogram | None] = {}
        self._seconds = _measured(results.series)
        self._effects: dict[tuple[str, str], float] = {}

    def quantile(self, metric: str, name: str) -> Estimate | None:
        """One of ``core.histogram.QUANTILES`` of a time: of its histogram, or the interval that the file states."""
        figures = self.results.figures(metric)
        value = getattr(figures, name, None)
        if figures is None or value is None:
            return None
        found = self._histogram(metric)
        if found is None or not found.count:
            low, high = figures.ci.get(name, (None, None))
            low = 0.0 if low is None else low
            return Estimate(value, min(low, value), math.inf if high is None else max(high, value))
        estimate = found.estimate_us(
            QUANTILES[name], self.confidence, design_effect=self._effect(metric, name)
        )
        low, high = estimate.low / US_PER_MS, estimate.high / US_PER_MS
        return Estimate(min(max(value, low), high), low, high)  # exact extremes are lost in the encoding

    def mean(self, metric: str) -> Measured | None:
        """What a difference of means takes, in milliseconds; None without the histogram."""
        figures, found = self.results.figures(metric), self._histogram(metric)
        if figures is None or figures.mean is None or found is None:
            return None
        variance = found.variance() / US_PER_MS**2
        effect = max(self._effect(metric, TAIL), self._level_effect(metric, variance))
        return Measured(found.count, figures.mean, variance, effect)

    def error_rate(self) -> Estimate | None:
        """Of what was attempted, as the file has it; the interval is Wilson's."""
        results = self.results
        attempts = max(results.sent, results.completed + results.failed) + results.dropped
        if results.error_rate is None or not attempts:
            return None
        return self._share(results.error_rate, attempts, lambda second: second.failed)

    def attainment(self) -> Estimate | None:
        """Of all that was intended, what met every objective; failed and dropped requests met none."""
        results = self.results
        if results.attainment is None or not results.intended:
            return None
        slow = max(self._effect(metric, TAIL) for metric in ("latency", "ttft")) if results.slo else 1.0
        return self._share(
            results.attainment, results.intended, lambda second: second.failed + second.dropped, slow
        )

    def achieved_rate(self) -> Estimate | None:
        """How many requests a second were sent."""
        return self._rate(self.results.achieved_rate, lambda second: second.sent)

    def goodput(self) -> Estimate | None:
        """Requests a second that met every objective: the share of them, of those intended a second."""
        good = self.attainment()
        if self.results.goodput is None or good is None or not good.value:
            return None
        asked = self._rate(self.results.goodput, lambda second: second.intended)
        scale = self.results.goodput / good.value
        return _both(asked, good.low * scale, good.high * scale)

    def output_tokens_per_s(self) -> Estimate | None:
        """Tokens a second. Their scatter is not in the results: taken as wide as that of exponential lengths."""
        value, completed = self.results.output_tokens_per_s, self.results.completed
        if value is None or not completed:
            return None
        lengths = mean(completed, value, (SPREAD_OF_LENGTHS * value) ** 2, self.confidence)
        return _both(self._rate(value, lambda second: second.completed), lengths.low, lengths.high)

    def highest_rate(self) -> Estimate | None:
        """What a search found; the truth is between the rate that held and the one that failed. Open if unsure."""
        found = self.results.find_max
        if found is None or found.rate is None:
            return None
        is_bound = found.sure and found.failed_rate is not None
        high = max(found.rate, found.failed_rate or 0.0) if is_bound else math.inf
        return Estimate(found.rate, found.rate if found.sure else 0.0, high)

    # --- how alike requests are ---------------------------------------------------------------------------

    def _histogram(self, metric: str) -> Histogram | None:
        if metric not in self._histograms:
            self._histograms[metric] = self.results.histogram(metric)
        return self._histograms[metric]

    def _effect(self, metric: str, name: str) -> float:
        """How many requests are worth one independent one, for a quantile of a time."""
        series = _series_of(metric)
        effect = self._effect_of(series, "p50")
        if name != "p50":
            effect = max(effect, self._effect_of(series, TAIL))
        if metric == "chunk_gap":  # the gaps of one answer are taken to be as good as one
            found = self._histogram(metric)
            gaps = 0 if found is None else found.count
            effect *= max(1.0, gaps / max(1, self.results.completed))
        return effect

    def _effect_of(self, series: str, name: str) -> float:
        key = (series, name)
        if key not in self._effects:
            found = self._histogram(series)
            self._effects[key] = 1.0 if found is None else self._scatter(found, series, name)
        return self._effects[key]

    def _level_effect(self, metric: str, variance: float) -> float:
        """The effect for a mean, by the medians of the seconds: means of them are not in the results."""
        name = f"{_series_of(metric)}_p50_ms"
        values = [(second.completed, getattr(second, name)) for second in self._seconds]
        batches = [(0, 0.0) if value is None else (many, value) for many, value in values]
        return self._effect_in(batches, variance)

    def _scatter(self, all_of_it: Histogram, series: str, name: str) -> float:
        """The effect by where the quantile of each second stands among all values: evenly high if all is alike.

        A second's quantile, put into the distribution of the whole test, scatters around the quantile as much as
        the share of that second's values below the test's quantile does. Seconds with less than one value above
        it say nothing of a tail and are left out.
        """
        quantile = QUANTILES[name]
        buckets = list(all_of_it.buckets())
        ends = [all_of_it.highest_us(index) for index, _ in buckets]
        below = [0, *accumulate(many for _, many in buckets)]
        batches = []
        for second in self._seconds:
            value = getattr(second, f"{series}_{name}_ms")
            if value is not None and second.completed * (1 - quantile) >= 0.999:
                at = bisect_right(ends, value * US_PER_MS) if value * US_PER_MS < ends[-1] else len(ends)
                batches.append((second.completed, below[at] / below[-1]))
            else:
                batches.append((0, 0.0))
        return self._effect_in(batches, quantile * (1 - quantile))

    def _effect_in(self, batches: Sequence[tuple[int, float]], variance: float) -> float:
        """The largest of all cuts, each as much larger as it is unsure: by Student's t of so many stretches."""
        largest = 1.0
        for stretches in STRETCHES:
            parts = _cut(batches, stretches)
            filled = sum(many > 0 for many, _ in parts)
            effect = design_effect(parts, variance)
            if effect > 1.0:
                effect *= (t_of(self.confidence, filled - 1) / z_of(self.confidence)) ** 2
            largest = max(largest, effect)
        return largest

    def _share(
        self, value: float, attempts: int, hits: Callable[[Second], int], effect: float = 1.0
    ) -> Estimate:
        """A share with Wilson's interval, widened by how unevenly the hits fell on the seconds."""
        batches = [(one.intended, hits(one) / one.intended) for one in self._seconds if one.intended]
        total = sum(many for many, _ in batches)
        middle = sum(many * part for many, part in batches) / total if total else 0.0
        uneven = self._effect_in(batches, middle * (1 - middle))
        return share(value * attempts, attempts, self.confidence, design_effect=max(effect, uneven))

    def _rate(self, value: float, of: Callable[[Second], int]) -> Estimate:
        """A rate with the interval that its stretches give; the first and the last second may be cut short."""
        counts = [float(of(second)) for second in self._seconds[1:-1]]
        widest = Estimate(value, value, value)
        for stretches in STRETCHES:
            rates = [part for _, part in _cut([(1, count) for count in counts], stretches)]
            if len(rates) < 3:
                return Estimate(value, 0.0, math.inf)
            middle = sum(rates) / len(rates)
            variance = sum((rate - middle) ** 2 for rate in rates) / (len(rates) - 1)
            found = mean(len(rates), value, variance, self.confidence)
            widest = max(widest, found, key=lambda one: one.high)
        return widest


def _series_of(metric: str) -> str:
    return "ttft" if metric in FIRST_CONTENT else "latency"


def _measured(series: Sequence[Second]) -> Sequence[Second]:
    """Without the seconds before the first and after the last request that is measured."""
    full = [place for place, second in enumerate(series) if second.intended]
    return series[full[0] : full[-1] + 1] if full else ()


def _cut(seconds: Sequence[tuple[int, float]], stretches: int) -> list[tuple[int, float]]:
    """Seconds, as (weight, mean), put together to so many stretches of equal length, or a few more, in order."""
    length = max(1, len(seconds) // stretches)
    found = []
    for start in range(0, len(seconds) - length + 1, length):
        part = seconds[start : start + length]
        weight = sum(many for many, _ in part)
        found.append((weight, sum(many * value for many, value in part) / weight if weight else 0.0))
    return found


def _both(rate: Estimate, low: float, high: float) -> Estimate:
    """A product's interval: the distances that each of two factors, apart from the other, puts to its ends add as squares."""
    value = rate.value
    down = math.hypot(value - rate.low, value - low)
    return Estimate(value, max(0.0, value - down), value + math.hypot(rate.high - value, high - value))
