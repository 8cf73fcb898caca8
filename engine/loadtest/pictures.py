"""Which charts a load test's page has, and what is in them.

Rules of this file:
1. At most ``POINTS_MAX`` points a line, however long the test: seconds are put together, and the page says how.
2. A second that only partly belongs to the window counts as the part that does.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engine.core.histogram import Histogram
from engine.loadtest import scales
from engine.loadtest.charts import Chart, Trace
from engine.loadtest.wording import TIMES, ms, number, rate
from engine.observe import hlog
from engine.observe.progress import duration

POINTS_MAX: Final = 180
PART_MIN: Final = 0.05  # of a second, less than this says nothing of a rate
CURVE_POINTS: Final = 120
CURVES: Final = (
    ("latency", "first"), ("response_time", "second"), ("ttft", "third"), ("ttft_sched", "fourth"),
)  # in the order they are drawn: dashes over a line leave both to be seen  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stretch:
    """One or more seconds: their counts added up, their middle p50 and their worst p99."""

    start: int
    end: int
    length_s: float  # of it within the window
    entries: Sequence[Mapping[str, Any]]

    @property
    def middle(self) -> float:
        """Where it stands on the axis."""
        return (self.start + self.end) / 2

    def total(self, key: str) -> int:
        """The sum of a count."""
        return sum(entry[key] for entry in self.entries)

    def per_s(self, key: str) -> float | None:
        """The same per second; None where too little of a second is left."""
        return self.total(key) / self.length_s if self.length_s >= PART_MIN else None

    def time_ms(self, key: str) -> float | None:
        """The worst p99 or the middle p50 of its seconds; None where none has any."""
        found = sorted(entry[key] for entry in self.entries if entry[key] is not None)
        if not found:
            return None
        return float(found[-1] if key.endswith("_p99_ms") else found[len(found) // 2])

    @property
    def name(self) -> str:
        """When it was."""
        return (
            duration(self.start)
            if self.end - self.start == 1
            else f"{duration(self.start)} – {duration(self.end)}"
        )


def stretches(results: Mapping[str, Any]) -> list[Stretch]:
    """The series, put together to at most ``POINTS_MAX`` stretches of equal length."""
    series = results["series"]
    size = max(1, math.ceil(len(series) / POINTS_MAX))
    begin = results["warmup_s"]
    end = begin + results["window_s"]
    found = []
    for place in range(0, len(series), size):
        entries = series[place : place + size]
        start, stop = entries[0]["second"], entries[-1]["second"] + 1
        found.append(Stretch(start, stop, max(0.0, min(end, stop) - max(begin, start)), entries))
    return found


def _points(
    parts: Sequence[Stretch], value: Callable[[Stretch], float | None]
) -> list[tuple[float, float | None]]:
    return [(one.middle, value(one)) for one in parts]


def _highest(traces: Sequence[Trace]) -> list[float]:
    return [y for trace in traces for _, y in trace.points if y is not None]


def _time_axis(parts: Sequence[Stretch]) -> scales.Scale:
    return scales.clock(parts[0].start, parts[-1].end)


def rates(parts: Sequence[Stretch]) -> Chart:
    """What the schedule asked for, what was sent, and how much of it succeeded."""
    traces = [
        Trace("asked", "plain", _points(parts, lambda one: one.per_s("intended")), "area"),
        Trace("sent", "first", _points(parts, lambda one: one.per_s("sent"))),
        Trace("completed", "third", _points(parts, lambda one: one.per_s("completed"))),
    ]
    told = [
        (
            one.start, one.end,
            f"{one.name}: {rate(one.per_s('intended'))}/s asked, {rate(one.per_s('sent'))}/s sent, "
            f"{rate(one.per_s('completed'))}/s completed",
        )
        for one in parts
    ]  # fmt: skip
    y = scales.linear(max(_highest(traces), default=0.0))
    return Chart("Requests per second", _time_axis(parts), y, "time they were due", "per s", traces, told)


def times(parts: Sequence[Stretch], name: str) -> Chart:
    """The p50 and p99 of a time, second by second."""
    title = TIMES[name][0].upper() + TIMES[name][1:]
    p50, p99 = f"{name}_p50_ms", f"{name}_p99_ms"
    traces = [
        Trace("p99", "second", _points(parts, lambda one: one.time_ms(p99))),
        Trace("p50", "first", _points(parts, lambda one: one.time_ms(p50))),
    ]
    told = [
        (one.start, one.end, f"{one.name}: p50 {ms(one.time_ms(p50))} ms, p99 {ms(one.time_ms(p99))} ms")
        for one in parts
    ]
    y = scales.times_ms(_highest(traces))
    return Chart(f"{title} over time", _time_axis(parts), y, "time they were due", "ms", traces, told)


def failures(parts: Sequence[Stretch]) -> Chart:
    """Failed and dropped requests, dropped ones standing behind."""
    traces = [
        Trace(
            "dropped",
            "plain",
            [(one.middle, float(one.total("failed") + one.total("dropped")) if one.total("dropped") else None)
             for one in parts],
            "bars",
        ),
        Trace("failed", "bad", [(one.middle, float(one.total("failed")) or None) for one in parts], "bars"),
    ]  # fmt: skip
    told = [
        (one.start, one.end, f"{one.name}: {number(one.total('failed'))} failed, {number(one.total('dropped'))} dropped")
        for one in parts
    ]  # fmt: skip
    y = scales.linear(max(_highest(traces), default=0.0), whole=True)
    every = "per s" if len(parts[0].entries) == 1 else f"in {len(parts[0].entries)} s"
    return Chart("Errors over time", _time_axis(parts), y, "time they were due", every, traces, told)


def percentiles(results: Mapping[str, Any]) -> Chart | None:
    """How many requests were faster than what; None without successes."""
    found = {name: _histogram(results, name) for name, _ in CURVES}
    known = {name: one for name, one in found.items() if one is not None and one.count}
    if not known:
        return None
    count = max(one.count for one in known.values())
    traces = [Trace(TIMES[name], style, _curve(known[name])) for name, style in CURVES if name in known]
    x, y = scales.nines(count), scales.times_ms(_highest(traces))
    return Chart("Percentiles", x, y, "share of requests that were as fast or faster", "ms", traces)


def _histogram(results: Mapping[str, Any], name: str) -> Histogram | None:
    text = results["histograms"].get(name)
    return None if text is None else hlog.decoded(text)


def _curve(one: Histogram) -> list[tuple[float, float | None]]:
    """Points evenly over the nines, up to where one value of all is left."""
    end = max(math.log10(one.count), 0.05)  # a single value is a short level line
    shares = [1 - 10 ** (-end * place / CURVE_POINTS) for place in range(CURVE_POINTS + 1)]
    values = [*one.quantiles_us(shares), one.max_us]  # where one value of all is left, a last step up to it
    return [
        (share, None if us is None else us / 1000)
        for share, us in zip([*shares, shares[-1]], values, strict=True)
    ]
