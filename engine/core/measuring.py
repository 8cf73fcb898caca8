"""What a load test counts: every request once, in bounded memory, merged exactly over workers.

Rules of this file:
1. A request belongs to the second in which it was intended to be sent, whenever it ends; one that was intended during
   the warm-up is counted apart and in no figure.
2. Times of failures are never among those of successes.
3. Whatever a worker has counted can be taken out, sent and added elsewhere: the sum is what one process would have
   counted. Nothing here grows with the number of requests but one entry per second.

Definitions: latency is from the moment of sending, response time from the intended one (Tene's coordinated omission);
TPOT is (last - first content) / (output tokens - 1), as vLLM, SGLang and MLPerf have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from engine.core.histogram import Histogram
from engine.core.thresholds import Objective

PLAIN: Final = ("latency", "response_time", "send_lag", "ttfb")
STREAMED: Final = ("ttft", "ttft_sched", "ttfo", "tpot", "chunk_gap", "stall")
SERIES_DIGITS: Final = 2  # of the histograms of single seconds
LATE_S: Final = 0.01  # a request that is sent later than this after its time is counted as late


@dataclass(slots=True)
class Timing:
    """One request's stamps, in seconds of one monotonic clock; 0.0 for what did not happen."""

    intended: float = 0.0
    sent: float = 0.0
    first_byte: float = 0.0
    first_content: float = 0.0
    first_answer: float = 0.0
    last_content: float = 0.0
    end: float = 0.0
    stall_us: int = 0  # the longest gap between two pieces of content
    tokens_in: int = -1
    tokens_out: int = -1


class Counts(NamedTuple):
    """Whole numbers, all of them sums."""

    intended: int = 0  # by the schedule, up to now
    sent: int = 0
    completed: int = 0
    failed: int = 0
    late: int = 0  # sent later than LATE_S after they were intended
    dropped: int = 0  # never sent
    warm_up: int = 0  # ended requests of the warm-up
    good: int = 0  # met every objective
    tokens_in: int = 0
    tokens_out: int = 0
    counted_tokens: int = 0  # completed requests that said how many tokens they took

    def plus(self, other: "Counts") -> "Counts":
        """The sums of both."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(slots=True)
class Second:
    """What was intended within one second of the test: how it went, and the latencies of what went well."""

    intended: int = 0
    sent: int = 0
    completed: int = 0
    failed: int = 0
    dropped: int = 0
    latency: Histogram = field(default_factory=lambda: Histogram(SERIES_DIGITS))
    ttft: Histogram = field(default_factory=lambda: Histogram(SERIES_DIGITS))

    def add(self, other: "Second") -> None:
        """Add what another process counted."""
        self.intended += other.intended
        self.sent += other.sent
        self.completed += other.completed
        self.failed += other.failed
        self.dropped += other.dropped
        self.latency.merge(other.latency)
        self.ttft.merge(other.ttft)


class Delta(NamedTuple):
    """What was counted since the last one, as plain values and bytes: fit for a message."""

    counts: tuple[int, ...]
    errors: dict[str, int]
    met: tuple[int, ...]
    histograms: dict[str, bytes]
    seconds: dict[int, tuple[tuple[int, int, int, int, int], bytes, bytes]]


class Measures:
    """The figures of one process, or of all. ``objectives``: what a request has to meet to be good."""

    def __init__(self, objectives: Sequence[Objective] = (), *, is_streamed: bool = False) -> None:
        self._objectives = tuple(objectives)
        self.names = PLAIN + STREAMED if is_streamed else PLAIN
        self._is_streamed = is_streamed
        self._clear()

    def _clear(self) -> None:
        self.counts = Counts()
        self.errors: dict[str, int] = {}
        self.met = [0] * len(self._objectives)
        self.histograms = {name: Histogram() for name in self.names}
        self.seconds: dict[int, Second] = {}

    def second(self, at_s: float) -> Second:
        """The second of the test that a moment lies in. ``at_s``: since the schedule's start."""
        number = int(at_s)
        found = self.seconds.get(number)
        if found is None:
            found = self.seconds[number] = Second()
        return found

    def dropped(self, at_s: float, many: int = 1) -> None:
        """So many requests, intended ``at_s`` after the schedule's start, are never sent."""
        self.counts = self.counts._replace(
            intended=self.counts.intended + many, dropped=self.counts.dropped + many
        )
        second = self.second(at_s)
        second.intended += many
        second.dropped += many

    def ended(self, timing: Timing, at_s: float, error: str, *, is_late: bool = False) -> None:
        """A request has ended; ``error`` is empty for a success. ``at_s``: when it was intended, after the start."""
        counts, second = self.counts, self.second(at_s)
        was_sent = timing.sent > 0.0
        second.intended += 1
        second.sent += was_sent
        if was_sent:
            self.histograms["send_lag"].record(_us(timing.sent - timing.intended))
        if error:
            self.errors[error] = self.errors.get(error, 0) + 1
            second.failed += 1
            self.counts = counts._replace(
                intended=counts.intended + 1, sent=counts.sent + was_sent, failed=counts.failed + 1,
                late=counts.late + is_late,
            )  # fmt: skip
            return
        second.completed += 1
        values = self._times_us(timing)
        for name, value in values.items():
            self.histograms[name].record(value)
        second.latency.record(values["latency"])
        if "ttft" in values:
            second.ttft.record(values["ttft"])
        self.counts = counts._replace(
            intended=counts.intended + 1, sent=counts.sent + 1, completed=counts.completed + 1,
            late=counts.late + is_late, good=counts.good + self._meets(values),
            tokens_in=counts.tokens_in + max(timing.tokens_in, 0),
            tokens_out=counts.tokens_out + max(timing.tokens_out, 0),
            counted_tokens=counts.counted_tokens + (timing.tokens_out >= 0),
        )  # fmt: skip

    def gap(self, gap_us: int) -> None:
        """Between two pieces of content of one answer."""
        self.histograms["chunk_gap"].record(gap_us)

    def warmed_up(self) -> None:
        """A request that was intended during the warm-up has ended."""
        self.counts = self.counts._replace(warm_up=self.counts.warm_up + 1)

    def _times_us(self, timing: Timing) -> dict[str, int]:
        sent, intended, end = timing.sent, timing.intended, timing.end
        values = {
            "latency": _us(end - sent),
            "response_time": _us(end - intended),
            "ttfb": _us(timing.first_byte - sent),
        }
        first = timing.first_content
        if not self._is_streamed or not first:
            return values
        values["ttft"] = _us(first - sent)
        values["ttft_sched"] = _us(first - intended)
        if timing.first_answer:
            values["ttfo"] = _us(timing.first_answer - sent)
        if timing.tokens_out > 1:
            values["tpot"] = _us((timing.last_content - first) / (timing.tokens_out - 1))
        values["stall"] = timing.stall_us
        return values

    def _meets(self, values: dict[str, int]) -> bool:
        """Count the objectives that a success meets; whether it meets them all."""
        meets_all = True
        for place, objective in enumerate(self._objectives):
            value = values.get(objective.metric)
            if value is not None and objective.met_by(value / 1000):
                self.met[place] += 1
            else:
                meets_all = False
        return meets_all

    # --- between processes --------------------------------------------------------------------------------

    def take(self) -> Delta:
        """Everything counted since the last time; from now on it is counted anew."""
        delta = Delta(
            tuple(self.counts),
            self.errors,
            tuple(self.met),
            {name: one.to_bytes() for name, one in self.histograms.items() if one.count},
            {
                number: (
                    (one.intended, one.sent, one.completed, one.failed, one.dropped),
                    one.latency.to_bytes(),
                    one.ttft.to_bytes(),
                )
                for number, one in self.seconds.items()
            },
        )
        self._clear()
        return delta

    def add(self, delta: Delta) -> None:
        """Add what was taken elsewhere. Raises ValueError for what no Measures of this kind made."""
        self.counts = self.counts.plus(Counts(*delta.counts))
        for error, many in delta.errors.items():
            self.errors[error] = self.errors.get(error, 0) + many
        self.met = [mine + theirs for mine, theirs in zip(self.met, delta.met, strict=True)]
        for name, data in delta.histograms.items():
            if name not in self.histograms:
                raise ValueError(f"there is no figure named {name!r}")
            self.histograms[name].merge(Histogram.from_bytes(data))
        for number, (counts, latency, ttft) in delta.seconds.items():
            other = Second(*counts, Histogram.from_bytes(latency), Histogram.from_bytes(ttft))
            self.second(number).add(other)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
