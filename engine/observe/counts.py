"""Requests, tokens and latencies, added up, and how much of a quota they are.

Rules of this file:
1. Only sums of what workers tell; nothing here decides anything. Times are the caller's clock, in seconds.
2. Latencies of successes only, in a histogram of three digits whose memory does not grow with the run.
"""

from collections import deque

from hdrh.histogram import HdrHistogram

from engine.core.quota import Rates
from engine.observe.snapshot import EndpointView
from engine.wire.messages import Tally

WINDOW_S = 10.0
LATENCY_UNIT_PER_MS = 10  # the histogram counts tenths of a millisecond
LATENCY_MS_MAX = 3_600_000


class Counts:
    """The sums of a run, or of one endpoint of it."""

    def __init__(self, limits: Rates) -> None:
        self.limits = limits
        self._histogram = HdrHistogram(1, LATENCY_MS_MAX * LATENCY_UNIT_PER_MS, 3)
        self.requests = self.retries = self.throttled = self.replies = self.ok_replies = 0
        self.tokens_in = self.tokens_out = self.charged_tokens = 0
        self.cooldowns = 0
        self._measured_in = self._estimated_in = self._estimate_error = 0
        self.first_request: float | None = None
        self.last_request = 0.0

    def add(self, tally: Tally, now: float) -> None:
        """A worker's counts since its last ones."""
        self.requests += tally.requests
        self.retries += tally.retries
        self.throttled += tally.throttled
        self.replies += tally.replies
        self.ok_replies += tally.ok_replies
        self.tokens_in += tally.tokens_in
        self.tokens_out += tally.tokens_out
        self.charged_tokens += tally.charged_tokens
        self.cooldowns += tally.cooldowns
        self._measured_in += tally.measured_in
        self._estimated_in += tally.estimated_in
        self._estimate_error += tally.estimate_error
        for latency_ms, count in tally.latencies:
            value = min(max(1, int(latency_ms * LATENCY_UNIT_PER_MS)), LATENCY_MS_MAX * LATENCY_UNIT_PER_MS)
            self._histogram.record_value(value, count)
        if tally.requests or tally.replies:  # functions' results count as replies, and took no request
            self.last_request = now
            if self.first_request is None:
                self.first_request = now

    @property
    def has_latencies(self) -> bool:
        """Whether anything has succeeded."""
        return bool(self._histogram.get_total_count())

    def percentile_ms(self, percent: float) -> float:
        """A latency percentile of successes in milliseconds, 0 when there was none."""
        if not self.has_latencies:
            return 0.0
        return float(self._histogram.get_value_at_percentile(percent)) / LATENCY_UNIT_PER_MS

    @property
    def estimate(self) -> dict[str, float] | None:
        """How far estimates of prompt tokens were off, as shares of the real ones: on average, and with their sign."""
        if not self._measured_in:
            return None
        return {
            "error": round(self._estimate_error / self._measured_in, 4),
            "bias": round((self._estimated_in - self._measured_in) / self._measured_in, 4),
        }

    def used(self, now: float) -> tuple[float | None, float | None]:
        """The share of RPM and TPM used since the first request, 0..1; None where there is no limit."""
        if self.first_request is None:
            return None, None
        return self.share(self.requests, self.charged_tokens, max(now - self.first_request, 1.0))

    def share(self, requests: int, tokens: int, seconds: float) -> tuple[float | None, float | None]:
        """What so much in so many seconds is of the limits of now; None where there is none."""
        rpm, tpm, _, _ = self.limits
        return (
            requests / seconds * 60.0 / rpm if rpm else None,
            tokens / seconds * 60.0 / tpm if tpm else None,
        )


class EndpointCounts(Counts):
    """One endpoint of several."""

    def __init__(self, name: str, limits: Rates) -> None:
        super().__init__(limits)
        self.name = name
        self._recent: deque[tuple[float, int, int]] = deque()
        self._now: dict[int, tuple[int, int, str]] = {}  # by slot: in flight, waiting, trouble

    def heard(self, slot: int, tally: Tally) -> None:
        """How a worker stands with it."""
        self._now[slot] = (tally.in_flight, tally.waiting, tally.trouble)

    def gone(self, slot: int) -> None:
        """A worker is no more."""
        self._now.pop(slot, None)

    def view(self, now: float) -> EndpointView:
        """How it stands."""
        recent = self._recent
        recent.append((now, self.requests, self.charged_tokens))
        while len(recent) > 2 and now - recent[1][0] >= WINDOW_S:
            recent.popleft()
        then, requests_then, charged_then = recent[0]
        seconds = max(now - then, 1e-3)
        requests = self.requests - requests_then
        rpm_used, tpm_used = self.share(requests, self.charged_tokens - charged_then, seconds)
        stands = self._now.values()
        return EndpointView(
            name=self.name,
            trouble=next((trouble for _, _, trouble in stands if trouble), ""),
            in_flight=sum(in_flight for in_flight, _, _ in stands),
            waiting=sum(waiting for _, waiting, _ in stands),
            requests=self.requests,
            requests_per_s=requests / seconds,
            ok=self.ok_replies,
            throttled=self.throttled,
            cooldowns=self.cooldowns,
            rpm_used=rpm_used,
            tpm_used=tpm_used,
            latency_ms_p50=self.percentile_ms(50),
        )
