"""Load tests that never happened: queues of plain numbers, and the results that a test of them would have.

Nothing here has a clock: a test of a minute is computed in a moment, and the same seed gives the same figures.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

from engine.core.measuring import Measures, Timing
from engine.core.statistics import share
from engine.core.thresholds import Objective
from engine.observe.hlog import encoded

MEASURED_FROM_S = 1_000.0  # where the clock of these tests stands at their start


@dataclass(slots=True)
class Endpoint:
    """``servers`` of them, first come, first served; each request takes what ``serve_s`` draws."""

    servers: int
    serve_s: Callable[[Random], float]
    fail: float = 0.0  # chance of a request to fail
    hang: bool = False  # nothing ever ends

    @property
    def capacity(self) -> float:
        """Requests/s, by the mean of many draws."""
        draw = Random(99)
        return self.servers / (sum(self.serve_s(draw) for _ in range(20_000)) / 20_000)


@dataclass(slots=True)
class Sent:
    """One request: seconds after the start of the test, and whether it failed."""

    intended_s: float
    end_s: float
    failed: bool


@dataclass(slots=True)
class LoadTest:
    """What was sent, and all results that the rest of the engine takes from it."""

    sent: list[Sent]
    duration_s: float
    rate: float
    objectives: tuple[Objective, ...] = ()
    streamed: bool = False
    verdict: str = "VALID"
    extra: dict[str, Any] = field(default_factory=dict)

    def results(self, until_s: float = float("inf")) -> dict[str, Any]:
        """As the results' contract has them; ``until_s``: the test was stopped then, and what had not ended cancelled."""
        measures = Measures(self.objectives, is_streamed=self.streamed)
        last = 0.0
        for one in self.sent:
            is_cancelled = one.end_s >= until_s
            end_s = min(one.end_s, until_s)
            if one.intended_s >= until_s or end_s == float("inf"):
                continue
            at = MEASURED_FROM_S + one.intended_s
            end = MEASURED_FROM_S + end_s
            timing = Timing(intended=at, sent=at, first_byte=end, end=end)
            if self.streamed:
                first = at + 0.3 * (end - at)
                timing.first_content, timing.first_answer, timing.last_content = first, first, end
                timing.tokens_out = 50
            error = "cancelled" if is_cancelled else "http_5xx" if one.failed else ""
            measures.ended(timing, one.intended_s, error)
            last = max(last, end_s)
        return self._of(measures, last)

    def _of(self, measures: Measures, lasted_s: float) -> dict[str, Any]:
        counts = measures.counts
        good = share(counts.good, counts.intended) if counts.intended else None
        slo = [
            {
                "text": one.condition.text, "share": one.share, "met": met, "of": counts.intended,
                "attainment": met / counts.intended if counts.intended else None,
                "holds": bool(counts.intended) and met / counts.intended >= one.share,
            }
            for one, met in zip(self.objectives, measures.met, strict=True)
        ]  # fmt: skip
        ended = counts.completed + counts.failed
        found: dict[str, Any] = {
            "engine": "0", "verdict": self.verdict, "reasons": [], "started_at": "", "lasted_s": lasted_s,
            "window_s": self.duration_s, "interrupted": False, "test": {"rate": self.rate},
            "asked_rate": self.rate, "achieved_rate": counts.sent / self.duration_s, "achieved": 1.0,
            **{name: getattr(counts, name) for name in ("intended", "sent", "completed", "failed", "late", "dropped")},
            "errors": measures.errors, "error_rate": counts.failed / ended if ended else None,
            "goodput": counts.good / self.duration_s, "attainment": good.value if good else None, "slo": slo,
            "series": [
                {
                    "second": at, "intended": one.intended, "sent": one.sent, "completed": one.completed,
                    "failed": one.failed, "dropped": one.dropped,
                    **{
                        f"{name}_{figure}_ms": getattr(one, name).figures_ms()[figure]
                        for name in ("latency", "ttft") for figure in ("p50", "p99") if name == "latency" or self.streamed
                    },
                }
                for at, one in sorted(measures.seconds.items())
            ],
            "histograms": {name: encoded(one) for name, one in measures.histograms.items()},
        }  # fmt: skip
        for name, one in measures.histograms.items():
            found[f"{name}_ms"] = {**one.figures_ms(), "count": one.count, "ci": {}}
        if self.streamed:
            found["output_tokens_per_s"] = counts.tokens_out / self.duration_s
        return found | self.extra


def run(
    endpoint: Endpoint, rate: float, duration_s: float, seed: int, objectives: tuple[Objective, ...] = (),
    busy_s: tuple[float, ...] = (), is_even: bool = False, **more: Any,
) -> LoadTest:  # fmt: skip
    """An open-loop test with Poisson arrivals, or ``is_even`` ones. ``busy_s``: for how long each server is at work still."""
    draw = Random(seed)
    free = sorted(busy_s) or [0.0] * endpoint.servers
    sent, at = [], 0.0 if is_even else draw.expovariate(rate)
    while at < duration_s:
        end = max(at, heappop(free)) + endpoint.serve_s(draw)
        heappush(free, end)
        sent.append(Sent(at, float("inf") if endpoint.hang else end, draw.random() < endpoint.fail))
        at = len(sent) / rate if is_even else at + draw.expovariate(rate)
    return LoadTest(sent, duration_s, rate, objectives, **more)


class Lasting:
    """An endpoint from one test to the next: what it accepted it finishes, whether or not a client still waits for it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.busy_s = (0.0,) * endpoint.servers

    def run(
        self, rate: float, duration_s: float, seed: int, objectives: tuple[Objective, ...] = (), **more: Any
    ) -> LoadTest:
        """What a test would see that began now; nothing changes before ``passed`` says how far it went."""
        return run(self._endpoint, rate, duration_s, seed, objectives, self.busy_s, **more)

    def passed(self, seconds: float, test: LoadTest | None = None) -> None:
        """So much time goes by; of a test's requests those that are due by then have been sent.

        A server is free when its last request has ended, and with first come, first served the last ones are the
        latest of all ends.
        """
        ends = [one.end_s for one in test.sent if one.intended_s < seconds] if test is not None else []
        last = sorted([*self.busy_s, *ends])[-self._endpoint.servers :]
        self.busy_s = tuple(max(0.0, end_s - seconds) for end_s in last)


def progress_of(test: LoadTest) -> Callable[[float], tuple[int, int, tuple[int, ...], int]]:
    """(intended, ended, met by objective, failed) at any moment of a test; objectives on latencies only."""
    intended = [one.intended_s for one in test.sent]
    ends = sorted(one.end_s for one in test.sent)
    failed = sorted(one.end_s for one in test.sent if one.failed)
    met = [
        sorted(
            one.end_s
            for one in test.sent
            if not one.failed and objective.met_by((one.end_s - one.intended_s) * 1000)
        )
        for objective in test.objectives
    ]

    def at(now_s: float) -> tuple[int, int, tuple[int, ...], int]:
        counts = tuple(bisect_left(one, now_s) for one in met)
        return bisect_left(intended, now_s), bisect_left(ends, now_s), counts, bisect_left(failed, now_s)

    return at
