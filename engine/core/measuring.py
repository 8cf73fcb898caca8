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
from dataclasses import astuple, dataclass, field
from typing import Final, NamedTuple

from engine.core.histogram import Histogram
from engine.core.thresholds import Objective

PLAIN: Final = ("latency", "response_time", "send_lag", "ttfb")
STREAMED: Final = ("ttft", "ttft_sched", "ttfo", "tpot", "chunk_gap", "stall", "tail")
SERIES_DIGITS: Final = 2  # of the histograms of single seconds
LATE_S: Final = 0.01  # a request that is sent later than this after its time is counted as late


@dataclass(slots=True)
class Timing:
    """One request's stamps, in seconds of one monotonic clock; 0.0 for what did not happen.

    ``sent``: when it was handed over for sending; waiting for a connection is the endpoint's time.
    """

    intended: float = 0.0
    sent: float = 0.0
    first_byte: float = 0.0
    first_content: float = 0.0
    first_answer: float = 0.0
    last_content: float = 0.0
    end: float = 0.0
    is_sent: bool = True  # False: it never left, because there was no connection
    stall_us: int = 0  # the longest gap between two pieces of content
    tail_us: int = 0  # from the last piece of content to the end of its reply
    tokens_in: int = -1
    tokens_out: int = -1


@dataclass(slots=True)
class Counts:
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
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


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
        self._number, self._second = -1, Second()  # the latest one that was asked for
        # Looked up once here, not for every request: this is the dearest part of one after its sending.
        self._latency = self.histograms["latency"].record
        self._response_time = self.histograms["response_time"].record
        self._send_lag = self.histograms["send_lag"].record
        self._ttfb = self.histograms["ttfb"].record

    def second(self, at_s: float) -> Second:
        """The second of the test that a moment lies in. ``at_s``: since the schedule's start."""
        number = int(at_s)
        if number != self._number:
            found = self.seconds.get(number)
            if found is None:
                found = self.seconds[number] = Second()
            self._number, self._second = number, found
        return self._second

    def dropped(self, at_s: float, many: int = 1) -> None:
        """So many requests, intended ``at_s`` after the schedule's start, are never sent."""
        self.counts.intended += many
        self.counts.dropped += many
        second = self.second(at_s)
        second.intended += many
        second.dropped += many

    def ended(self, timing: Timing, at_s: float, error: str, *, is_late: bool = False) -> None:
        """A request has ended; ``error`` is empty for a success. ``at_s``: when it was intended, after the start."""
        counts = self.counts
        second = self.second(at_s)
        counts.intended += 1
        second.intended += 1
        counts.late += is_late
        sent = timing.sent
        if sent > 0.0:
            counts.sent += timing.is_sent
            second.sent += timing.is_sent
            self._send_lag(round((sent - timing.intended) * 1e6))
        if error:
            self.errors[error] = self.errors.get(error, 0) + 1
            counts.failed += 1
            second.failed += 1
            return
        counts.completed += 1
        second.completed += 1
        end = timing.end
        latency_us = round((end - sent) * 1e6)
        self._latency(latency_us)
        second.latency.record(latency_us)
        self._response_time(round((end - timing.intended) * 1e6))
        self._ttfb(round((timing.first_byte - sent) * 1e6))
        if self._is_streamed and timing.first_content:
            self._record_stream(timing, second)
        if timing.tokens_out >= 0:
            counts.counted_tokens += 1
            counts.tokens_out += timing.tokens_out
        if timing.tokens_in > 0:
            counts.tokens_in += timing.tokens_in
        if not self._objectives or self._meets(timing):
            counts.good += 1

    def gaps(self, gaps_us: Sequence[int]) -> None:
        """Between the pieces of content of one answer."""
        self.histograms["chunk_gap"].record_all(gaps_us)

    def warmed_up(self) -> None:
        """A request that was intended during the warm-up has ended."""
        self.counts.warm_up += 1

    def _record_stream(self, timing: Timing, second: Second) -> None:
        values = _stream_us(timing)
        second.ttft.record(values["ttft"])
        for name, value in values.items():
            self.histograms[name].record(value)

    def _meets(self, timing: Timing) -> bool:
        """Count the objectives that a success meets; whether it meets them all."""
        values = _plain_us(timing)
        if self._is_streamed and timing.first_content:
            values |= _stream_us(timing)
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
            astuple(self.counts),
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


def _plain_us(timing: Timing) -> dict[str, int]:
    sent, intended, end = timing.sent, timing.intended, timing.end
    return {
        "latency": _us(end - sent),
        "response_time": _us(end - intended),
        "ttfb": _us(timing.first_byte - sent),
        "send_lag": _us(sent - intended),
    }


def _stream_us(timing: Timing) -> dict[str, int]:
    """Of an answer that had content."""
    first = timing.first_content
    values = {"ttft": _us(first - timing.sent), "ttft_sched": _us(first - timing.intended)}
    if timing.first_answer:
        values["ttfo"] = _us(timing.first_answer - timing.sent)
    if timing.tokens_out > 1:
        values["tpot"] = _us((timing.last_content - first) / (timing.tokens_out - 1))
    values["stall"] = timing.stall_us
    values["tail"] = timing.tail_us
    return values


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
