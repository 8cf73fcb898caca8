"""What all workers did, added up, and how fast it goes.

Rules of this file:
1. Only sums of what workers tell; nothing here decides anything.
2. Latencies of successes only, in a histogram of three digits whose memory does not grow with the run.
"""

from collections import Counter, deque
from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

from engine.core.commit import OutcomeRow
from engine.core.quota import Rates
from engine.observe.snapshot import Snapshot, WorkerView
from engine.wire.messages import Tally

WINDOW_S = 10.0
LATENCY_UNIT_PER_MS = 10  # the histogram counts tenths of a millisecond
LATENCY_MS_MAX = 3_600_000


class Metrics:
    """The sums of one run. Times are the caller's clock, in seconds."""

    def __init__(self, now: float, limits: Rates) -> None:
        self.started = now
        self._limits = limits
        self._histogram = HdrHistogram(1, LATENCY_MS_MAX * LATENCY_UNIT_PER_MS, 3)
        self._recent: deque[tuple[float, int, int, int]] = deque([(now, 0, 0, 0)])
        self.total: int | None = None
        self.resumed_rows = self.ok = 0
        self.failures: Counter[str] = Counter()
        self.requests = self.retries = self.throttled = self.replies = 0
        self.tokens_in = self.tokens_out = self.charged_tokens = 0
        self._measured_in = self._estimated_in = self._estimate_error = 0
        self.doubted = 0
        self.first_request: float | None = None
        self.last_request = now

    def add(self, tally: Tally, now: float) -> None:
        """A worker's counts since its last ones."""
        self.requests += tally.requests
        self.retries += tally.retries
        self.throttled += tally.throttled
        self.replies += tally.replies
        self.tokens_in += tally.tokens_in
        self.tokens_out += tally.tokens_out
        self.charged_tokens += tally.charged_tokens
        self._measured_in += tally.measured_in
        self._estimated_in += tally.estimated_in
        self._estimate_error += tally.estimate_error
        for latency_ms, count in tally.latencies:
            value = min(max(1, int(latency_ms * LATENCY_UNIT_PER_MS)), LATENCY_MS_MAX * LATENCY_UNIT_PER_MS)
            self._histogram.record_value(value, count)
        if tally.requests:
            self.last_request = now
            if self.first_request is None:
                self.first_request = now

    def limits(self, limits: Rates) -> None:
        """Other limits hold from now on."""
        self._limits = limits

    def finished(self, rows: Iterable[OutcomeRow]) -> None:
        """Rows that have their outcome."""
        for row in rows:
            if row.ok:
                self.ok += 1
            else:
                self.failures[row.kind] += 1

    def resumed(self, rows: int) -> None:
        """Rows an earlier run had finished."""
        self.resumed_rows += rows

    def rows_total(self, rows: int) -> None:
        """The input has come to its end."""
        self.total = rows

    def in_doubt(self, rows: int) -> None:
        """Rows that a dead worker held."""
        self.doubted += rows

    @property
    def failed(self) -> int:
        """Rows that failed in this run."""
        return self.failures.total()

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
        """The share of the declared RPM and TPM used since the first request, 0..1."""
        if self.first_request is None:
            return None, None
        seconds = max(now - self.first_request, 1.0)
        return self._share(self.requests, self.charged_tokens, seconds)

    def _share(self, requests: int, tokens: int, seconds: float) -> tuple[float | None, float | None]:
        """What so much in so many seconds is of the limits of now; None where there is none."""
        rpm, tpm, _, _ = self._limits
        return (
            requests / seconds * 60.0 / rpm if rpm else None,
            tokens / seconds * 60.0 / tpm if tpm else None,
        )

    def snapshot(
        self,
        now: float,
        *,
        in_flight: int,
        waiting: int,
        sleeping: int,
        starved_s: float,
        paused_s: float,
        workers: list[WorkerView],
        rows_guess: int | None = None,
    ) -> Snapshot:
        """How things stand. ``rows_guess``: rows of the input as far as can be told before its end."""
        done = self.ok + self.failed
        recent = self._recent
        recent.append((now, done, self.requests, self.charged_tokens))
        while len(recent) > 2 and now - recent[1][0] >= WINDOW_S:
            recent.popleft()
        then, done_then, requests_then, charged_then = recent[0]
        seconds = max(now - then, 1e-3)
        rate = (done - done_then) / seconds
        rpm_used, tpm_used = self._share(
            self.requests - requests_then, self.charged_tokens - charged_then, seconds
        )
        total = self.total if self.total is not None else rows_guess
        left = None if total is None else max(0, total - done - self.resumed_rows)
        return Snapshot(
            rows_total=self.total,
            ok=self.ok,
            failed=self.failed,
            resumed=self.resumed_rows,
            seconds=now - self.started,
            rows_per_s=rate,
            in_flight=in_flight,
            waiting=waiting,
            sleeping=sleeping,
            requests=self.requests,
            retries=self.retries,
            throttled=self.throttled,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            rpm_used=rpm_used,
            tpm_used=tpm_used,
            latency_ms_p50=self.percentile_ms(50),
            latency_ms_p99=self.percentile_ms(99),
            eta_s=left / rate if left is not None and rate > 0 else None,
            paused_s=paused_s,
            starved_s=starved_s,
            workers=workers,
        )
