"""What all workers did, added up, and how fast it goes.

Rules of this file:
1. Only sums of what workers tell; nothing here decides anything.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from engine.core.commit import OutcomeRow
from engine.core.quota import Rates
from engine.observe.counts import WINDOW_S, Counts, EndpointCounts
from engine.observe.snapshot import Snapshot, WorkerView
from engine.wire.messages import Tally


class Metrics(Counts):
    """The sums of one run. ``endpoints``: their names and limits, where there are several."""

    def __init__(self, now: float, limits: list[Rates], names: Sequence[str] = ()) -> None:
        super().__init__(together(limits))
        self.started = self.last_request = now
        self.endpoints = [EndpointCounts(name, its) for name, its in zip(names, limits, strict=False)]
        self._recent: deque[tuple[float, int, int, int]] = deque([(now, 0, 0, 0)])
        self.total: int | None = None
        self.resumed_rows = self.ok = 0
        self.failures: Counter[str] = Counter()
        self.doubted = 0

    def heard(self, endpoint: int, slot: int, tally: Tally, now: float) -> None:
        """A worker's counts at one endpoint since its last ones."""
        self.add(tally, now)
        if self.endpoints:
            self.endpoints[endpoint].add(tally, now)
            self.endpoints[endpoint].heard(slot, tally)

    def worker_gone(self, slot: int) -> None:
        """A worker is no more."""
        for endpoint in self.endpoints:
            endpoint.gone(slot)

    def limit(self, limits: list[Rates], quotas: list[Rates] | None = None) -> None:
        """Other limits hold from now on; ``quotas``: those of each quota once, where steps share some."""
        self.limits = together(limits if quotas is None else quotas)
        for endpoint, its in zip(self.endpoints, limits, strict=False):
            endpoint.limits = its

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
        rpm_used, tpm_used = self.share(
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
            endpoints=[endpoint.view(now) for endpoint in self.endpoints],
        )


def together(limits: list[Rates]) -> Rates:
    """The limits of several endpoints added up; none where one of them has none.

    >>> together([Rates(rpm=60, tpm=100), Rates(rpm=40)])
    Rates(rpm=100, tpm=0, input_tpm=0, output_tpm=0)
    """
    return Rates(*(sum(column) if all(column) else 0 for column in zip(*limits, strict=True)))
